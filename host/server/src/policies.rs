//! The four policies of a bus: who decides right now, and how that is changed.
//!
//! Each kind has a slot, in which the native build of the shipped policy decides until a component is
//! activated. The publish side has askers of its own; the consume side shares a few of them, so that
//! the number of instances does not grow with the number of subscribers.

mod ask;
mod candidate;
mod error;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use oona_core::Timestamp;
use oona_core::budget::BudgetConfig;
use oona_core::policy::{self, Kind};
use oona_core::stage::Stage;
use oona_core::symbols::Symbol;
use oona_wasm::{
    Activation, Artifact, Engine, Event, EventSink, Names, Native, Slot, SlotStatus, SymbolTable,
    Version,
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::ask::Asking;
pub use self::ask::{Asker, Pool};
pub use self::candidate::{Example, Pair, StageStatus};
use self::candidate::{Place, Staged};
pub use self::error::ActivateError;
use crate::bus::Streams;
use crate::clock::Clock;
use crate::decisions::DecisionLog;
use crate::explain::Explained;
use crate::metrics::Metrics;
use crate::native::{self, NativeError};
use crate::record::{Message, RecordError, Recorded, State, Texts};
use crate::signature::hex;

/// What policies stand on.
#[derive(Clone)]
pub struct PolicyOptions {
    /// The sandbox; without one, components cannot be activated.
    pub engine: Option<Arc<Engine>>,
    /// The streams that a decision may name.
    pub streams: Streams,
    /// The configuration of each kind, a JSON object; of the native builds too, as far as it is one
    /// of theirs.
    pub configs: [(Kind, Value); 4],
    /// How many failures a version is forgiven.
    pub budget: BudgetConfig,
    /// One decision in so many is logged; none if zero.
    pub log_every: u32,
    /// Where decisions are recorded.
    pub decisions: Arc<DecisionLog>,
    /// Counts what is decided.
    pub metrics: Arc<Metrics>,
    /// Tells the time.
    pub clock: Clock,
}

impl PolicyOptions {
    /// Everything at its default: native builds alone.
    #[must_use]
    pub fn new(streams: Streams, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            engine: None,
            streams,
            configs: Kind::ALL.map(|kind| (kind, json!({}))),
            budget: BudgetConfig::default(),
            log_every: 1_000,
            decisions: DecisionLog::in_memory(0),
            metrics,
            clock,
        }
    }

    fn config(&self, kind: Kind) -> &Value {
        let found = self.configs.iter().find(|(known, _)| *known == kind);
        found.map_or(&Value::Null, |(_, config)| config)
    }
}

/// The seat of a kind, whatever its type.
macro_rules! with_seat {
    ($inner:expr, $kind:expr, $seat:ident => $use:expr) => {
        match $kind {
            Kind::Routing => {
                let $seat = &$inner.routing;
                $use
            }
            Kind::Backpressure => {
                let $seat = &$inner.backpressure;
                $use
            }
            Kind::Freshness => {
                let $seat = &$inner.freshness;
                $use
            }
            Kind::DeadLetter => {
                let $seat = &$inner.dead_letter;
                $use
            }
        }
    };
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    engine: Option<Arc<Engine>>,
    names: Names,
    clock: Clock,
    asking: Asking,
    routing: Seat<policy::Routing>,
    backpressure: Seat<policy::Backpressure>,
    freshness: Seat<policy::Freshness>,
    freshness_pool: Pool<policy::Freshness>,
    dead_letter: Seat<policy::DeadLetter>,
    dead_letter_pool: Pool<policy::DeadLetter>,
    fallbacks: Fallbacks,
    /// What was loaded last, so that going back needs no compiler.
    loaded: Mutex<VecDeque<Artifact>>,
}

/// How many compiled policies are held.
const LOADED_MAX: usize = 16;

/// A version that was taken out since it failed too often.
#[derive(Clone, Debug)]
pub struct FellBack {
    /// The kind.
    pub kind: Kind,
    /// The version.
    pub from: String,
    /// What decides instead.
    pub to: String,
    /// The last of its failures.
    pub fault: String,
}

type Fallbacks = Arc<Mutex<VecDeque<FellBack>>>;

/// How many of them are held until somebody asks.
const FALLBACKS_MAX: usize = 64;

/// One kind's place.
struct Seat<K: Recorded> {
    slot: Slot<K>,
    /// The configuration that the next version gets unless it is given another.
    config: Mutex<Value>,
    /// What was in use before the registry first said something: what can be gone back to.
    base: Mutex<Option<Base<K>>>,
    candidate: Place<K>,
    mix: Mix,
}

/// How often each reason was given since the registry last changed something.
pub(super) type Mix = Arc<Mutex<HashMap<Symbol, u64>>>;

/// What a host was started with.
struct Base<K> {
    /// Without one, the native build.
    version: Option<Arc<Version<K>>>,
    config: Value,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self
            .list()
            .into_iter()
            .map(|status| status.slot.version.to_string());
        f.debug_list().entries(versions).finish()
    }
}

/// A policy in use.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    /// Its kind.
    pub kind: Kind,
    /// Who decides, since when, and how it does.
    #[serde(flatten)]
    pub slot: SlotStatus,
    /// Its configuration.
    pub config: Value,
    /// What is tried beside it.
    pub candidate: Option<StageStatus>,
}

/// A policy was put in use.
#[derive(Clone, Debug, Serialize)]
pub struct ActivationReport {
    /// Its kind.
    pub kind: Kind,
    /// What came of it.
    #[serde(flatten)]
    pub activation: Activation,
}

impl fmt::Display for ActivationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Activation {
            version,
            replaced,
            generation,
            took_us,
            ..
        } = &self.activation;
        write!(
            f,
            "{}: {version} in use instead of {replaced}, change {generation}, after {took_us} µs",
            self.kind
        )
    }
}

impl Policies {
    /// Policies in which the native builds decide.
    #[must_use]
    pub fn new(options: &PolicyOptions) -> Self {
        let symbols = SymbolTable::default();
        let known = options
            .streams
            .destinations()
            .map(|stream| symbols.intern(stream));
        let names = Names {
            streams: Arc::new(known.collect()),
            symbols: symbols.clone(),
        };
        let routing = built_in(native::routing, options, &names);
        let backpressure = built_in(native::backpressure, options, &names);
        let freshness = built_in(native::freshness, options, &names);
        let dead_letter = built_in(native::dead_letter, options, &names);
        let asking = Asking {
            symbols,
            metrics: Arc::clone(&options.metrics),
            log_every: options.log_every,
            decisions: Arc::clone(&options.decisions),
        };
        let fallbacks = Fallbacks::default();
        budgets(options);
        let freshness = seat(options, &fallbacks, freshness);
        let dead_letter = seat(options, &fallbacks, dead_letter);
        Self(Arc::new(Inner {
            engine: options.engine.clone(),
            names,
            clock: Arc::clone(&options.clock),
            routing: seat(options, &fallbacks, routing),
            backpressure: seat(options, &fallbacks, backpressure),
            freshness_pool: Pool::new(|| freshness.asker(&asking)),
            freshness,
            dead_letter_pool: Pool::new(|| dead_letter.asker(&asking)),
            dead_letter,
            fallbacks,
            loaded: Mutex::default(),
            asking,
        }))
    }

    /// The names that policies and bus share.
    #[must_use]
    pub fn symbols(&self) -> &SymbolTable {
        &self.0.names.symbols
    }

    /// What is in use, in the order in which a message meets it.
    #[must_use]
    pub fn list(&self) -> Vec<PolicyStatus> {
        let inner = &*self.0;
        let now = (inner.clock)();
        vec![
            inner.routing.status(now),
            inner.backpressure.status(now),
            inner.freshness.status(now),
            inner.dead_letter.status(now),
        ]
    }

    /// Puts a component in use. Without a kind, it is whatever kind the component is; without a
    /// configuration, it gets that of its predecessor. Compiles, so it may take a while: not for a
    /// thread that must not wait. Deciding goes on meanwhile, and nothing in flight is touched.
    ///
    /// # Errors
    ///
    /// If the component is no policy of that kind, its configuration is refused by its schema or by
    /// itself, or it fails its trial. The policy in use stays.
    pub fn activate(
        &self,
        kind: Option<Kind>,
        component: &[u8],
        config: Option<&str>,
    ) -> Result<ActivationReport, ActivateError> {
        let activated = self.try_activate(kind, component, config);
        match &activated {
            Ok(report) => {
                let metrics = &self.0.asking.metrics;
                metrics.policy_activations(Some(report.kind), true).inc();
                tracing::info!(kind = %report.kind, "{report}");
            }
            Err(error) => self.refused(kind, error),
        }
        activated
    }

    fn try_activate(
        &self,
        kind: Option<Kind>,
        component: &[u8],
        config: Option<&str>,
    ) -> Result<ActivationReport, ActivateError> {
        let artifact = self.load(kind, component)?;
        let config = config.map(serde_json::from_str).transpose()?;
        let (inner, kind) = (&*self.0, artifact.kind());
        let activation = with_seat!(inner, kind, seat => seat.activate(inner, &artifact, config))?;
        Ok(ActivationReport { kind, activation })
    }

    /// Loads a component into the sandbox, without putting it in use. Compiles.
    ///
    /// # Errors
    ///
    /// If it is no policy, or none of that kind.
    pub fn load(&self, kind: Option<Kind>, component: &[u8]) -> Result<Artifact, ActivateError> {
        let engine = self.0.engine.as_ref().ok_or(ActivateError::NoEngine)?;
        let digest = hex(&Sha256::digest(component));
        let wanted = |loaded: &Artifact| {
            loaded.digest() == digest && kind.is_none_or(|kind| loaded.kind() == kind)
        };
        let known = crate::sync::lock(&self.0.loaded)
            .iter()
            .find(|loaded| wanted(loaded))
            .cloned();
        if let Some(loaded) = known {
            return Ok(loaded);
        }
        let loaded = match kind {
            Some(kind) => Artifact::load(engine, kind, component)?,
            None => Artifact::load_any(engine, component)?,
        };
        let mut held = crate::sync::lock(&self.0.loaded);
        if held.len() >= LOADED_MAX {
            held.pop_front();
        }
        held.push_back(loaded.clone());
        Ok(loaded)
    }

    /// Holds a configuration, a JSON object, against the schema of a policy.
    ///
    /// # Errors
    ///
    /// If it does not fit, or is no JSON.
    pub fn check_config(&self, artifact: &Artifact, config: &str) -> Result<(), ActivateError> {
        let config = serde_json::from_str(config)?;
        validate(artifact.kind(), artifact.config_schema(), &config)
    }

    /// Starts a policy, and asks it plain questions, as before an activation.
    ///
    /// # Errors
    ///
    /// If it does not start, refuses its configuration, or does not answer.
    pub fn try_out(&self, artifact: &Artifact, config: &str) -> Result<(), ActivateError> {
        let inner = &*self.0;
        with_seat!(inner, artifact.kind(), seat => seat.try_out(inner, artifact, config))
    }

    /// As [`Policies::activate`], on the word of the registry: without a component the policy in use
    /// is what the host was started with, with another configuration if one is given.
    ///
    /// # Errors
    ///
    /// As [`Policies::activate`].
    pub fn follow(
        &self,
        kind: Kind,
        component: Option<&[u8]>,
        config: Option<&str>,
    ) -> Result<ActivationReport, ActivateError> {
        let inner = &*self.0;
        with_seat!(inner, kind, seat => seat.remember_base());
        if let Some(component) = component {
            return self.activate(Some(kind), component, config);
        }
        let config = config.map(serde_json::from_str).transpose()?;
        let activation = with_seat!(inner, kind, seat => seat.return_to_base(inner, config))?;
        Ok(ActivationReport { kind, activation })
    }

    /// Whether the registry says which policy of this kind is in use.
    #[must_use]
    pub fn is_followed(&self, kind: Kind) -> bool {
        with_seat!(self.0, kind, seat => crate::sync::lock(&seat.base).is_some())
    }

    /// The configuration that the next version of a kind gets unless it is given another.
    #[must_use]
    pub fn config(&self, kind: Kind) -> Value {
        with_seat!(self.0, kind, seat => crate::sync::lock(&seat.config).clone())
    }

    /// Tries a candidate beside the version in use. Any other that was tried is tried no longer.
    ///
    /// # Errors
    ///
    /// As [`Policies::activate`].
    pub fn stage(&self, kind: Kind, component: &[u8], stage: Stage) -> Result<(), ActivateError> {
        let artifact = self.load(Some(kind), component)?;
        let inner = &*self.0;
        with_seat!(inner, kind, seat => seat.stage(inner, &artifact, stage))
    }

    /// Ends the trial of a candidate.
    pub fn unstage(&self, kind: Kind) {
        with_seat!(self.0, kind, seat => seat.candidate.store(None));
    }

    /// How the candidate of a kind does.
    #[must_use]
    pub fn staged(&self, kind: Kind) -> Option<StageStatus> {
        with_seat!(self.0, kind, seat => seat.candidate.load().as_ref().map(|staged| staged.status()))
    }

    /// How often each reason was given since [`Policies::take_mix`].
    #[must_use]
    pub fn mix(&self, kind: Kind) -> BTreeMap<String, u64> {
        let mix = with_seat!(self.0, kind, seat => crate::sync::lock(&seat.mix).clone());
        self.named(mix)
    }

    /// As [`Policies::mix`], and begins anew.
    #[must_use]
    pub fn take_mix(&self, kind: Kind) -> BTreeMap<String, u64> {
        let mix =
            with_seat!(self.0, kind, seat => std::mem::take(&mut *crate::sync::lock(&seat.mix)));
        self.named(mix)
    }

    fn named(&self, mix: HashMap<Symbol, u64>) -> BTreeMap<String, u64> {
        let name = |reason| self.symbols().name(reason).unwrap_or_default().to_string();
        mix.into_iter()
            .map(|(reason, count)| (name(reason), count))
            .collect()
    }

    /// Versions that were taken out since the last call.
    #[must_use]
    pub fn take_fallbacks(&self) -> Vec<FellBack> {
        crate::sync::lock(&self.0.fallbacks).drain(..).collect()
    }

    /// Tells logs and counters that a candidate was refused.
    pub fn refused(&self, kind: Option<Kind>, error: &dyn std::error::Error) {
        self.0.asking.metrics.policy_activations(kind, false).inc();
        let reason = crate::chain::chain(error);
        tracing::warn!(kind = kind.map(Kind::name), reason, "a policy was refused");
    }

    /// The names that policies and bus share, as versions need them.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.0.names
    }

    /// The record of decisions.
    #[must_use]
    pub fn decisions(&self) -> &Arc<DecisionLog> {
        &self.0.asking.decisions
    }

    /// What the policy of a kind in use decides on a record. Neither counted nor recorded.
    ///
    /// # Errors
    ///
    /// If the record is no question to it.
    pub fn explain(
        &self,
        kind: Kind,
        message: &Message,
        state: &State,
        now: Timestamp,
    ) -> Result<Explained, RecordError> {
        let symbols = self.symbols();
        with_seat!(self.0, kind, seat => seat.explain(message, state, now, symbols))
    }

    /// One who asks the routing policy.
    #[must_use]
    pub fn routing(&self) -> Asker<policy::Routing> {
        self.0.routing.asker(&self.0.asking)
    }

    /// One who asks the backpressure policy.
    #[must_use]
    pub fn backpressure(&self) -> Asker<policy::Backpressure> {
        self.0.backpressure.asker(&self.0.asking)
    }

    /// Those who ask the freshness policy.
    #[must_use]
    pub fn freshness(&self) -> &Pool<policy::Freshness> {
        &self.0.freshness_pool
    }

    /// Those who ask the dead-letter policy.
    #[must_use]
    pub fn dead_letter(&self) -> &Pool<policy::DeadLetter> {
        &self.0.dead_letter_pool
    }
}

/// The native build of a shipped policy: with the configuration of its kind, or, if that is one of
/// another policy, with what makes it work on the streams of this bus.
fn built_in<K: Recorded>(
    build: fn(&str, &Names) -> Result<Native<K>, NativeError>,
    options: &PolicyOptions,
    names: &Names,
) -> Native<K> {
    let built = build(&native_config(options, K::KIND), names);
    built
        .or_else(|_| build(&native_base(options, K::KIND).to_string(), names))
        .unwrap_or_else(|error| {
            unreachable!("a shipped policy runs on the streams of any bus: {error}")
        })
}

/// What the native build of a kind is configured with: the configuration of its kind, over what
/// makes it work on the streams of this bus.
fn native_config(options: &PolicyOptions, kind: Kind) -> String {
    let mut merged = native_base(options, kind)
        .as_object()
        .cloned()
        .unwrap_or_default();
    merged.extend(
        options
            .config(kind)
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    Value::Object(merged).to_string()
}

fn native_base(options: &PolicyOptions, kind: Kind) -> Value {
    match kind {
        Kind::Routing => json!({ "streams": shipped_streams(&options.streams) }),
        _ => json!({}),
    }
}

/// The streams of the shipped routing policy, as far as the bus has them.
fn shipped_streams(streams: &Streams) -> Value {
    let own = |name: &str| {
        let known = streams.destinations().any(|stream| &**stream == name);
        known.then(|| name.to_owned())
    };
    json!({
        "normal": &*streams.normal,
        "emergency": &*streams.emergency,
        "telemetry": own("oona.telemetry"),
        "policy": own("oona.policy"),
        "kernels_requests": own("oona.kernels.requests"),
        "kernels_ready": own("oona.kernels.ready"),
        "kernels_errors": own("oona.kernels.errors"),
    })
}

/// Tells what every policy may use.
fn budgets(options: &PolicyOptions) {
    let bounds = options.engine.as_ref().map(|engine| engine.config());
    for kind in Kind::ALL {
        let set = |resource, limit: u64| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            options.metrics.policy_budget(kind, resource).set(limit);
        };
        set("failures", u64::from(options.budget.failures));
        if let Some(bounds) = bounds {
            set("call_ms", bounds.call_ms_max);
            set("memory_bytes", bounds.memory_bytes_max as u64);
        }
    }
}

fn seat<K: Recorded>(options: &PolicyOptions, fallbacks: &Fallbacks, native: Native<K>) -> Seat<K> {
    let now = (options.clock)();
    let events = events(Arc::clone(&options.metrics), Arc::clone(fallbacks), K::KIND);
    Seat {
        slot: Slot::new(native, options.budget, events, now),
        config: Mutex::new(options.config(K::KIND).clone()),
        base: Mutex::default(),
        candidate: Arc::new(ArcSwapOption::empty()),
        mix: Mix::default(),
    }
}

impl<K: Recorded> Seat<K> {
    fn status(&self, now: Timestamp) -> PolicyStatus {
        let config = crate::sync::lock(&self.config).clone();
        PolicyStatus {
            kind: K::KIND,
            slot: self.slot.status(now),
            config,
            candidate: self.candidate.load().as_ref().map(|staged| staged.status()),
        }
    }

    fn asker(&self, asking: &Asking) -> Asker<K> {
        Asker::new(
            self.slot.worker(),
            Arc::clone(&self.candidate),
            Arc::clone(&self.mix),
            asking.clone(),
        )
    }

    fn activate(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        config: Option<Value>,
    ) -> Result<Activation, ActivateError> {
        let config = config.unwrap_or_else(|| crate::sync::lock(&self.config).clone());
        let version = self.version(inner, artifact, &config)?;
        let activation = self.slot.activate(&version, (inner.clock)())?;
        Ok(self.activated(inner, activation, config))
    }

    fn version(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        config: &Value,
    ) -> Result<Arc<Version<K>>, ActivateError> {
        validate(artifact.kind(), artifact.config_schema(), config)?;
        Ok(Version::new(
            artifact,
            &config.to_string(),
            inner.names.clone(),
        )?)
    }

    fn try_out(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        config: &str,
    ) -> Result<(), ActivateError> {
        let version = Version::<K>::new(artifact, config, inner.names.clone())?;
        Ok(version.try_out((inner.clock)())?)
    }

    fn activated(&self, inner: &Inner, activation: Activation, config: Value) -> Activation {
        *crate::sync::lock(&self.config) = config;
        let generation = i64::try_from(activation.generation).unwrap_or(i64::MAX);
        inner
            .asking
            .metrics
            .policy_generation(K::KIND)
            .set(generation);
        activation
    }

    fn explain(
        &self,
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<Explained, RecordError> {
        let (whole, question) = K::question(message, state, now, symbols)?;
        let mut decisions = Vec::with_capacity(1);
        let text = Texts::one(message);
        let mut worker = self.slot.worker();
        let answer = worker.decide(now, &whole, &[question], &text, &mut decisions);
        Ok(Explained {
            kind: K::KIND,
            policy: answer.by.name.clone(),
            version: answer.by.version.clone(),
            digest: answer.by.digest_short().to_owned(),
            state: K::state(&whole, &question, symbols),
            decision: <K as Recorded>::decision(&decisions[0], symbols),
        })
    }

    /// Whatever is in use when the registry first says something is what it was started with.
    fn remember_base(&self) {
        let mut base = crate::sync::lock(&self.base);
        base.get_or_insert_with(|| Base {
            version: self.slot.current(),
            config: crate::sync::lock(&self.config).clone(),
        });
    }

    fn return_to_base(
        &self,
        inner: &Inner,
        config: Option<Value>,
    ) -> Result<Activation, ActivateError> {
        let base = crate::sync::lock(&self.base);
        let version = base.as_ref().and_then(|base| base.version.clone());
        let of_base = base
            .as_ref()
            .map_or(Value::Null, |base| base.config.clone());
        drop(base);
        let now = (inner.clock)();
        let Some(version) = version else {
            return match config {
                Some(config) if config != of_base => Err(ActivateError::BuiltIn),
                _ => Ok(self.activated(inner, self.slot.reset(now), of_base)),
            };
        };
        let config = config.unwrap_or(of_base);
        let version = self.version(inner, version.artifact(), &config)?;
        let activation = self.slot.activate(&version, now)?;
        Ok(self.activated(inner, activation, config))
    }

    fn stage(&self, inner: &Inner, artifact: &Artifact, stage: Stage) -> Result<(), ActivateError> {
        let config = match &stage.choice.config {
            Some(config) => serde_json::from_str(config)?,
            None => crate::sync::lock(&self.config).clone(),
        };
        let version = self.version(inner, artifact, &config)?;
        // It must start; who asks it starts instances of his own.
        drop(version.instance()?);
        self.candidate.store(Some(Arc::new(Staged::new(
            version,
            stage,
            &inner.asking.metrics,
        ))));
        Ok(())
    }
}

/// Whether the native build of a kind takes the configuration of that kind. [`Policies::new`] passes
/// over a configuration that it does not take, since that may be one of a component's.
///
/// # Errors
///
/// If the schema of the shipped policy refuses it, or the policy itself.
pub fn check_native(options: &PolicyOptions, kind: Kind) -> Result<(), ActivateError> {
    validate(kind, native::config_schema(kind), options.config(kind))?;
    let symbols = SymbolTable::default();
    let known = options
        .streams
        .destinations()
        .map(|stream| symbols.intern(stream));
    let names = Names {
        streams: Arc::new(known.collect()),
        symbols: symbols.clone(),
    };
    let built = match kind {
        Kind::Routing => native::routing(&native_config(options, kind), &names).map(drop),
        Kind::Backpressure => native::backpressure(&native_config(options, kind), &names).map(drop),
        Kind::Freshness => native::freshness(&native_config(options, kind), &names).map(drop),
        Kind::DeadLetter => native::dead_letter(&native_config(options, kind), &names).map(drop),
    };
    let refused = |error: NativeError| ActivateError::Config {
        kind,
        pointer: String::new(),
        problem: crate::chain::chain(&error),
    };
    built.map_err(refused)
}

/// Holds a configuration against the schema that the policy declares.
fn validate(kind: Kind, schema: &str, config: &Value) -> Result<(), ActivateError> {
    let schema = serde_json::from_str(schema);
    let schema: Value = schema.map_err(|error| ActivateError::Schema(error.to_string()))?;
    let validator = jsonschema::validator_for(&schema);
    let validator = validator.map_err(|error| ActivateError::Schema(error.to_string()))?;
    validator
        .validate(config)
        .map_err(|error| ActivateError::Config {
            kind,
            pointer: pointer(&error),
            problem: error.to_string(),
        })
}

/// The place that an error is about: of a key that should not be there, the key itself.
fn pointer(error: &ValidationError<'_>) -> String {
    let place = error.instance_path();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            format!("{place}/{}", unexpected.first().map_or("", String::as_str))
        }
        _ => place.to_string(),
    }
}

/// Tells logs and counters what happens in a slot.
fn events(metrics: Arc<Metrics>, fallbacks: Fallbacks, kind: Kind) -> EventSink {
    Arc::new(move |event| match event {
        Event::Failed {
            version,
            answered_by,
            fault,
        } => {
            metrics
                .policy_failures(kind, &version.version, fault.name())
                .inc();
            tracing::warn!(%kind, %version, %answered_by, %fault, "a policy failed");
        }
        Event::FellBack { from, to, fault } => {
            metrics.policy_fallbacks(kind).inc();
            let mut held = crate::sync::lock(&fallbacks);
            if held.len() < FALLBACKS_MAX {
                held.push_back(FellBack {
                    kind,
                    from: from.to_string(),
                    to: to.to_string(),
                    fault: fault.to_string(),
                });
            }
            drop(held);
            tracing::error!(%kind, %from, %to, %fault, "a policy failed too often and was taken out");
        }
        // Whoever activates hears the outcome, and logs it.
        _ => {}
    })
}
