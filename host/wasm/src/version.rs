//! A policy with its configuration: what can be activated.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Kind};
use oona_core::symbols::Symbol;
use serde::Serialize;

use crate::artifact::Artifact;
use crate::instance::Instance;
use crate::patient::{self, Patient};
use crate::slot::{Native, trial};
use crate::symbols::SymbolTable;
use crate::wire::Sandboxed;

/// The longest refusal of a configuration that is passed on, in characters.
const REFUSAL_CHARS_MAX: usize = 1_024;

/// How many digits of a digest tell two versions apart for people.
const DIGEST_SHORT: usize = 12;

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A component in the sandbox.
    Wasm,
    /// The native build of the shipped policy.
    Native,
}

/// What is said of a version in logs, lists and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// The kind of policy.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the component, in hex. Empty for a native build.
    pub digest: String,
    /// Whether it runs in the sandbox.
    pub source: Source,
}

impl VersionInfo {
    /// Enough of the digest to tell versions apart; `native` for a native build.
    #[must_use]
    pub fn digest_short(&self) -> &str {
        match self.source {
            Source::Wasm => self.digest.get(..DIGEST_SHORT).unwrap_or(&self.digest),
            Source::Native => "native",
        }
    }
}

impl VersionInfo {
    /// `name@version+digest`: who decided, in one word.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}@{}+{}", self.name, self.version, self.digest_short())
    }
}

impl fmt::Display for VersionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} ({})",
            self.name,
            self.version,
            self.digest_short()
        )
    }
}

/// The names that policies share with the bus.
#[derive(Clone, Debug)]
pub struct Names {
    /// The table of the process.
    pub symbols: SymbolTable,
    /// The streams that a decision may name.
    pub streams: Arc<BTreeSet<Symbol>>,
}

impl Names {
    /// Whether the names in a decision mean anything: its reason is a name, and its stream one that
    /// the bus has.
    pub(crate) fn check<K: Sandboxed>(&self, decision: &K::Decision) -> Result<(), Fault> {
        for name in [Some(K::reason(decision)), K::class(decision)]
            .into_iter()
            .flatten()
        {
            if !self.symbols.contains(name) {
                return Err(Fault::UnknownReason(name));
            }
        }
        match K::stream(decision) {
            Some(stream) if !self.streams.contains(&stream) => Err(Fault::UnknownStream(stream)),
            _ => Ok(()),
        }
    }
}

/// A policy of kind `K` with its configuration.
pub struct Version<K: Sandboxed> {
    body: Body<K>,
    config: Arc<str>,
    info: Arc<VersionInfo>,
    names: Names,
}

/// What decides.
enum Body<K: Sandboxed> {
    Component(Artifact),
    Native(Native<K>),
}

impl<K: Sandboxed> fmt::Debug for Version<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.info)
    }
}

impl<K: Sandboxed> Version<K> {
    /// Joins a policy and a configuration, a JSON object. The policy itself sees the configuration
    /// when the first instance starts.
    ///
    /// # Errors
    ///
    /// If the policy is of another kind.
    pub fn new(artifact: &Artifact, config: &str, names: Names) -> Result<Arc<Self>, StartError> {
        let (expected, found) = (K::KIND, artifact.kind());
        if expected != found {
            return Err(StartError::WrongKind { expected, found });
        }
        let info = VersionInfo {
            kind: K::KIND,
            name: artifact.name().to_owned(),
            version: artifact.version().to_owned(),
            digest: artifact.digest().to_owned(),
            source: Source::Wasm,
        };
        Ok(Arc::new(Self {
            body: Body::Component(artifact.clone()),
            config: config.into(),
            info: Arc::new(info),
            names,
        }))
    }

    /// A native policy that was given this configuration, to be activated or tried like any other.
    #[must_use]
    pub fn native(native: Native<K>, config: &str, names: Names) -> Arc<Self> {
        Arc::new(Self {
            info: Arc::clone(native.info()),
            body: Body::Native(native),
            config: config.into(),
            names,
        })
    }

    /// Starts an instance, and configures it.
    ///
    /// # Errors
    ///
    /// If it does not start, or refuses its configuration.
    pub fn instance(self: &Arc<Self>) -> Result<Instance<K>, StartError> {
        let mut instance = Instance::asleep(Arc::clone(self));
        instance.wake()?;
        Ok(instance)
    }

    /// Starts an instance to be judged by what it answers: it is not blamed for a busy machine.
    ///
    /// # Errors
    ///
    /// As [`Version::instance`].
    pub fn on_trial(self: &Arc<Self>) -> Result<Patient<Instance<K>>, StartError> {
        let started = patient::in_time(|| {
            let mut instance = Instance::asleep(Arc::clone(self));
            instance.judge_by_thread(true);
            instance.wake().map(|()| instance)
        });
        started.map(Patient::new)
    }

    /// Starts an instance and asks it plain questions, as before an activation.
    ///
    /// # Errors
    ///
    /// If it does not start, refuses its configuration, or does not answer.
    pub fn try_out(self: &Arc<Self>, now: Timestamp) -> Result<(), StartError> {
        trial::run(self, now).map(drop)
    }

    /// What is said of it.
    #[must_use]
    pub fn info(&self) -> &Arc<VersionInfo> {
        &self.info
    }

    /// Its configuration, as it was given.
    #[must_use]
    pub fn config(&self) -> &Arc<str> {
        &self.config
    }

    /// The component; none of a native policy.
    #[must_use]
    pub fn artifact(&self) -> Option<&Artifact> {
        match &self.body {
            Body::Component(artifact) => Some(artifact),
            Body::Native(_) => None,
        }
    }

    /// The native policy, for one worker; none of a component.
    pub(crate) fn native_policy(&self) -> Option<Box<dyn Decide<K>>> {
        match &self.body {
            Body::Component(_) => None,
            Body::Native(native) => Some(native.policy()),
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }
}

/// Why a version does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy is of another kind.
    #[error("it is a {found} policy, expected {expected}")]
    WrongKind {
        /// The kind of the slot.
        expected: Kind,
        /// The kind of the policy.
        found: Kind,
    },
    /// It failed before it saw its configuration.
    #[error("it does not start")]
    Start(#[source] Fault),
    /// It refuses its configuration, in its own words.
    #[error("it refuses its configuration: {0}")]
    Refused(String),
    /// It failed while it read its configuration.
    #[error("it failed over its configuration")]
    Configure(#[source] Fault),
    /// Its configuration has more names than the table of the process has room for.
    #[error("it has names that are too long, or more than the table of names has room for")]
    Names,
    /// It failed on plain questions.
    #[error("it failed its trial")]
    Trial(#[source] Fault),
}

impl StartError {
    /// What the policy itself said, cut to a length that can be shown.
    pub(crate) fn refused(words: &str) -> Self {
        Self::Refused(words.chars().take(REFUSAL_CHARS_MAX).collect())
    }

    /// Whether it ran out of time.
    pub(crate) fn is_late(&self) -> bool {
        let (Self::Start(fault) | Self::Configure(fault) | Self::Trial(fault)) = self else {
            return false;
        };
        matches!(fault, Fault::Deadline { .. })
    }

    /// The same as a fault of a call: a replacement had to be started, and could not be.
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Start(fault) | Self::Configure(fault) | Self::Trial(fault) => fault,
            other => Fault::Trap(format!("no new instance: {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use oona_core::policy::{Freshness, Routing};

    use super::*;
    use crate::testing::{self, Guest};

    #[track_caller]
    fn refused(guest: &Guest<'_>, config: &str, names: &Names) -> StartError {
        let engine = testing::engine();
        let artifact = Artifact::load_any(&engine, &guest.component()).unwrap();
        let version = Version::<Routing>::new(&artifact, config, names.clone()).unwrap();
        version.instance().unwrap_err()
    }

    #[test]
    fn what_cannot_be_configured_is_refused() {
        let names = testing::names();
        let plain = Guest::default();
        let error = refused(&plain, r#"{"a": 1}"#, &names);
        assert_eq!(
            error.to_string(),
            "it refuses its configuration: it wants {}"
        );

        let looping = Guest {
            configure: "(loop $ever (br $ever))",
            ..plain
        };
        let error = refused(&looping, "{}", &names);
        assert!(matches!(
            error,
            StartError::Configure(Fault::Deadline { limit_ms: 100 })
        ));

        let trapping = Guest {
            configure: "unreachable",
            ..plain
        };
        let error = refused(&trapping, "{}", &names);
        assert!(
            matches!(error, StartError::Configure(Fault::Trap(_))),
            "{error:?}"
        );

        let full = SymbolTable::with_capacity(1);
        let full = Names {
            symbols: full,
            ..names
        };
        let error = refused(&plain, "{}", &full);
        assert!(matches!(error, StartError::Names), "{error:?}");
    }

    #[test]
    fn a_slot_of_another_kind_does_not_take_it() {
        let engine = testing::engine();
        let artifact = Artifact::load_any(&engine, &Guest::default().component()).unwrap();
        let error = Version::<Freshness>::new(&artifact, "{}", testing::names()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is a routing policy, expected freshness"
        );
    }
}
