//! The shipped policies, built into the host: the fail-safe behind every component.
//!
//! Why: a bus whose policies fail, or that has no components at all, still has to route, admit,
//! judge and file. The same `decide` functions that the components are built from answer then, over
//! the same records, so the two cannot drift apart; a property test holds them to it.

mod records;

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{
    Backpressure, DeadLetter, Decide, Fault, Freshness, Kind, Lookup, Routing,
};
use oona_core::symbols::Symbol;
use oona_policy_sdk::native::{Decides, Kind as SdkKind, Native as Policy};
use oona_policy_sdk::{Names as SdkNames, Text};
use oona_wasm::{Names, Native, Source, SymbolTable, VersionInfo};

use self::records::Records;

/// The shipped routing policy. `config` is a JSON object; `{}` means the defaults.
///
/// # Errors
///
/// If the configuration is no good, or names what the bus does not have.
pub fn routing(config: &str, names: &Names) -> Result<Native<Routing>, NativeError> {
    native::<Routing, oona_policy_routing::Routing>(config, names)
}

/// The shipped backpressure policy, likewise.
///
/// # Errors
///
/// As [`routing`].
pub fn backpressure(config: &str, names: &Names) -> Result<Native<Backpressure>, NativeError> {
    native::<Backpressure, oona_policy_backpressure::Backpressure>(config, names)
}

/// The shipped freshness policy, likewise.
///
/// # Errors
///
/// As [`routing`].
pub fn freshness(config: &str, names: &Names) -> Result<Native<Freshness>, NativeError> {
    native::<Freshness, oona_policy_freshness::Freshness>(config, names)
}

/// The shipped dead-letter policy, likewise.
///
/// # Errors
///
/// As [`routing`].
pub fn dead_letter(config: &str, names: &Names) -> Result<Native<DeadLetter>, NativeError> {
    native::<DeadLetter, oona_policy_dead_letter::DeadLetter>(config, names)
}

/// The JSON Schema of the configuration that the shipped policy of a kind takes, as text.
#[must_use]
pub fn config_schema(kind: Kind) -> &'static str {
    use oona_policy_sdk::Policy;
    match kind {
        Kind::Routing => oona_policy_routing::Routing::CONFIG_SCHEMA,
        Kind::Backpressure => oona_policy_backpressure::Backpressure::CONFIG_SCHEMA,
        Kind::Freshness => oona_policy_freshness::Freshness::CONFIG_SCHEMA,
        Kind::DeadLetter => oona_policy_dead_letter::DeadLetter::CONFIG_SCHEMA,
    }
}

/// Why a shipped policy does not run.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// It refuses its configuration, in its own words.
    #[error("the {kind} policy refuses its configuration: {reason}")]
    Refused {
        /// Which policy.
        kind: Kind,
        /// What it says.
        reason: String,
    },
    /// With this configuration it names what the bus does not have.
    #[error("the {kind} policy failed its trial; are the streams in its configuration the bus's?")]
    Trial {
        /// Which policy.
        kind: Kind,
        /// What is wrong with its answers.
        #[source]
        source: Fault,
    },
}

fn native<K, P>(config: &str, names: &Names) -> Result<Native<K>, NativeError>
where
    K: Records,
    P: Decides<K::Records>,
{
    let kind = K::KIND;
    let mut interner = Interner(&names.symbols);
    let policy = Policy::<K::Records, P>::new(config, &mut interner)
        .map_err(|reason| NativeError::Refused { kind, reason })?;
    let policy = Arc::new(policy);
    let info = VersionInfo {
        kind,
        name: policy.name().to_owned(),
        version: policy.version().to_owned(),
        digest: String::new(),
        source: Source::Native,
    };
    let symbols = names.symbols.clone();
    let make = move || -> Box<dyn Decide<K>> {
        Box::new(Shipped::new(Arc::clone(&policy), symbols.clone()))
    };
    Native::new(info, names, Box::new(make)).map_err(|source| NativeError::Trial { kind, source })
}

/// A shipped policy at work for one worker: the policy is shared, the buffers are its own.
struct Shipped<K: Records, P> {
    policy: Arc<Policy<K::Records, P>>,
    symbols: SymbolTable,
    questions: Vec<<K::Records as SdkKind>::Question>,
    decisions: Vec<<K::Records as SdkKind>::Decision>,
}

impl<K: Records, P> Shipped<K, P> {
    fn new(policy: Arc<Policy<K::Records, P>>, symbols: SymbolTable) -> Self {
        Self {
            policy,
            symbols,
            questions: Vec::new(),
            decisions: Vec::new(),
        }
    }
}

impl<K, P> Decide<K> for Shipped<K, P>
where
    K: Records,
    P: Decides<K::Records>,
{
    fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault> {
        self.questions.clear();
        self.questions.extend(questions.iter().map(K::question));
        let text = BatchText {
            text: text.as_ref(),
            symbols: &self.symbols,
        };
        let (now, state) = (now.as_millis(), K::state(state));
        self.policy
            .decide(now, &state, &self.questions, &text, &mut self.decisions);
        decisions.clear();
        decisions.extend(self.decisions.iter().map(<K as Records>::decision));
        Ok(())
    }
}

/// Gives a policy the host's symbols, as the import of a component does.
struct Interner<'a>(&'a SymbolTable);

impl SdkNames for Interner<'_> {
    fn intern(&mut self, name: &str) -> Result<u32, String> {
        match self.0.intern(name) {
            Symbol::NONE => Err(format!("there is no room for the name `{name}`")),
            symbol => Ok(symbol.0),
        }
    }
}

/// The text of a batch, as the imports of a component give it.
struct BatchText<'a> {
    text: &'a dyn Lookup,
    symbols: &'a SymbolTable,
}

impl Text for BatchText<'_> {
    fn attribute(&self, index: u32, name: u32) -> Option<String> {
        let name = self.symbols.name(Symbol(name))?;
        self.text
            .attribute(index as usize, &name)
            .map(str::to_owned)
    }

    fn payload(&self, index: u32, offset: u32, length: u32) -> Vec<u8> {
        let payload = self.text.payload(index as usize).unwrap_or_default();
        let rest = payload.get(offset as usize..).unwrap_or_default();
        rest[..rest.len().min(length as usize)].to_vec()
    }
}
