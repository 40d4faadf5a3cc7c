//! The four policies of a bus: who decides right now, and how that is changed.
//!
//! Each kind has a slot, in which the native build of the shipped policy decides until a component is
//! activated. The publish side has askers of its own; the consume side shares a few of them, so that
//! the number of instances does not grow with the number of subscribers.

mod ask;
mod builtin;
mod candidate;
mod error;
mod mixes;
mod options;
mod schema;
mod seat;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use oona_core::Timestamp;
use oona_core::policy::{self, Kind};
use oona_core::stage::Stage;
use oona_wasm::{Activation, Artifact, Engine, Names, SlotStatus, SymbolTable};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) use self::ask::Answered;
use self::ask::Asking;
pub use self::ask::{Asker, Pool};
use self::builtin::built_in;
pub use self::builtin::check_native;
pub use self::candidate::{Example, Failure, Pair, StageStatus};
pub use self::error::ActivateError;
use self::mixes::Reasons;
pub use self::options::PolicyOptions;
use self::schema::validate;
pub use self::seat::FellBack;
use self::seat::{Fallbacks, Seat, budgets, seat};
use crate::clock::Clock;
use crate::decisions::{DecisionLog, Recorded};
use crate::explain::Explained;
use crate::laws::{self, LawOptions, LawReport};
use crate::native;
use crate::record::{Message, RecordError, State};
use crate::replay::{self, Replayed};
use crate::signature::hex;

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
    /// What was to decide from the start, and does not.
    not_started: Mutex<BTreeMap<Kind, NotStarted>>,
    /// What was loaded last, so that going back needs no compiler.
    loaded: Mutex<VecDeque<Artifact>>,
}

/// A component with which the host was to start.
struct NotStarted {
    reason: String,
    /// Whether the native build decides with its defaults, since the configuration was for another.
    defaults: bool,
}

/// How many compiled policies are held.
const LOADED_MAX: usize = 16;

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
    /// Why it is not what the host was to start with, as long as nobody has chosen another.
    pub not_started: Option<String>,
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
        let freshness = seat(options, &fallbacks, freshness, native::freshness);
        let dead_letter = seat(options, &fallbacks, dead_letter, native::dead_letter);
        Self(Arc::new(Inner {
            engine: options.engine.clone(),
            names,
            clock: Arc::clone(&options.clock),
            routing: seat(options, &fallbacks, routing, native::routing),
            backpressure: seat(options, &fallbacks, backpressure, native::backpressure),
            freshness_pool: Pool::new(|| freshness.asker(&asking)),
            freshness,
            dead_letter_pool: Pool::new(|| dead_letter.asker(&asking)),
            dead_letter,
            fallbacks,
            not_started: Mutex::default(),
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
        let mut policies = vec![
            inner.routing.status(now),
            inner.backpressure.status(now),
            inner.freshness.status(now),
            inner.dead_letter.status(now),
        ];
        let failed = crate::sync::lock(&inner.not_started);
        for policy in &mut policies {
            let at_start = policy.slot.generation == 0;
            if let Some(failed) = failed.get(&policy.kind).filter(|_| at_start) {
                policy.not_started = Some(failed.reason.clone());
                if failed.defaults {
                    policy.config = json!({});
                }
            }
        }
        policies
    }

    /// Tells that the host was to start with a component that cannot be used, so that the native build
    /// decides instead: with its defaults, if the configuration is not one of its own.
    pub fn not_started(&self, kind: Kind, file: &Path, reason: &str, defaults: bool) {
        let reason = format!("{} {reason}", file.display());
        let with = if defaults {
            ", with its default configuration"
        } else {
            ""
        };
        tracing::error!(%kind, reason, "not used: the built-in policy decides{with}");
        self.0
            .asking
            .metrics
            .policy_activations(Some(kind), false)
            .inc();
        let native = self.list().into_iter().find(|policy| policy.kind == kind);
        let to = native.map_or_else(String::new, |policy| policy.slot.version.to_string());
        crate::sync::lock(&self.0.fallbacks).push_back(FellBack {
            kind,
            from: file.display().to_string(),
            to: to + with,
            fault: reason.clone(),
            generation: 0,
        });
        let failed = NotStarted { reason, defaults };
        crate::sync::lock(&self.0.not_started).insert(kind, failed);
    }

    /// Puts what the policies in use spend of their budgets on the gauges.
    pub fn gauge(&self) {
        for status in self.list() {
            let budget = status.slot.budget;
            let set = |resource, used: f64| {
                let metrics = &self.0.asking.metrics;
                metrics.policy_used(status.kind, resource).set(used);
            };
            set("call_seconds", budget.call_us_recent_max as f64 / 1e6);
            set("memory_bytes", budget.memory_bytes_used as f64);
            set("failures", budget.failures_recent as f64);
        }
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
        check_against(artifact, &serde_json::from_str(config)?)
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
        with_seat!(self.0, kind, seat => seat.config())
    }

    /// The component that this host was started with; none if that is the native build.
    #[must_use]
    pub fn own(&self, kind: Kind) -> Option<Artifact> {
        with_seat!(self.0, kind, seat => seat.own().as_ref()?.artifact().cloned())
    }

    /// Whether the native build takes a configuration: by its schema, and by itself.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn check_own_config(&self, kind: Kind, config: &str) -> Result<(), ActivateError> {
        let config = serde_json::from_str(config)?;
        with_seat!(self.0, kind, seat => seat.builder.version(&config, self.names()).map(drop))
    }

    /// Tries the laws of its kind on the native build, so configured.
    ///
    /// # Errors
    ///
    /// If it does not take the configuration.
    pub fn check_own_laws(
        &self,
        kind: Kind,
        config: &str,
        options: &LawOptions,
    ) -> Result<LawReport, ActivateError> {
        let config = serde_json::from_str(config)?;
        with_seat!(self.0, kind, seat => {
            let version = seat.builder.version(&config, self.names())?;
            Ok(laws::of_native(&version, self.names(), options)?)
        })
    }

    /// What the native build, so configured, would have decided on recorded decisions.
    ///
    /// # Errors
    ///
    /// If it does not take the configuration.
    pub fn replay_own(
        &self,
        kind: Kind,
        config: &str,
        records: &[Arc<Recorded>],
    ) -> Result<Replayed, ActivateError> {
        let config = serde_json::from_str(config)?;
        with_seat!(self.0, kind, seat => {
            let version = seat.builder.version(&config, self.names())?;
            Ok(replay::of_version(&version, self.names(), records, &|_| {})?)
        })
    }

    /// Tries a candidate beside the version in use: a component, or, without one, what this host was
    /// started with, in another configuration. Any other that was tried is tried no longer.
    ///
    /// # Errors
    ///
    /// As [`Policies::activate`].
    pub fn stage(
        &self,
        kind: Kind,
        component: Option<&[u8]>,
        stage: Stage,
    ) -> Result<(), ActivateError> {
        let inner = &*self.0;
        with_seat!(inner, kind, seat => seat.remember_base());
        let artifact = component.map(|component| self.load(Some(kind), component));
        let artifact = artifact.transpose()?;
        with_seat!(inner, kind, seat => seat.stage(inner, artifact.as_ref(), stage))
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

    /// How often the version that was put in use last has given each reason since then. What a canary
    /// or a fail-safe decided meanwhile is not among it.
    #[must_use]
    pub fn mix(&self, kind: Kind) -> BTreeMap<String, u64> {
        self.named(with_seat!(self.0, kind, seat => crate::sync::lock(&seat.mixes).in_use()))
    }

    /// How often each reason was given by the version that decides right now: as [`Policies::mix`], but for a
    /// version that took over from one that failed.
    #[must_use]
    pub fn mix_of_live(&self, kind: Kind) -> BTreeMap<String, u64> {
        let now = (self.0.clock)();
        self.named(with_seat!(self.0, kind, seat => {
            let live = seat.slot.status(now).version;
            crate::sync::lock(&seat.mixes).by(&live)
        }))
    }

    /// The same of the version before it, for whoever asks first after a change. If nothing has
    /// changed since, as after an activation that this host could not follow, it is that of the version
    /// in use, which goes on.
    #[must_use]
    pub fn take_mix(&self, kind: Kind) -> BTreeMap<String, u64> {
        self.named(with_seat!(self.0, kind, seat => crate::sync::lock(&seat.mixes).take_ended()))
    }

    fn named(&self, mix: Reasons) -> BTreeMap<String, u64> {
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

/// Holds a configuration against the schema of a policy.
///
/// # Errors
///
/// If it does not fit.
pub fn check_against(artifact: &Artifact, config: &Value) -> Result<(), ActivateError> {
    validate(artifact.kind(), artifact.config_schema(), config)
}
