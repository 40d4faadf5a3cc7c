//! The four policies of a bus: who decides right now, and how that is changed.
//!
//! Each kind has a slot, in which the native build of the shipped policy decides until a component is
//! activated. The publish side has askers of its own; the consume side shares a few of them, so that
//! the number of instances does not grow with the number of subscribers.

mod ask;
mod error;

use std::fmt;
use std::sync::{Arc, Mutex};

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use oona_core::budget::BudgetConfig;
use oona_core::policy::{self, Kind};
use oona_wasm::{
    Activation, Artifact, Engine, Event, EventSink, Names, Native, Sandboxed, Slot, SlotStatus,
    SymbolTable, Version,
};
use serde::Serialize;
use serde_json::{Value, json};

use self::ask::Asking;
pub use self::ask::{Asker, Pool};
pub use self::error::ActivateError;
use crate::bus::Streams;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::native::{self, NativeError};

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
            metrics,
            clock,
        }
    }

    fn config(&self, kind: Kind) -> &Value {
        let found = self.configs.iter().find(|(known, _)| *known == kind);
        found.map_or(&Value::Null, |(_, config)| config)
    }
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
}

/// One kind's place.
struct Seat<K: Sandboxed> {
    slot: Slot<K>,
    /// The configuration that the next version gets unless it is given another.
    config: Mutex<Value>,
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
        };
        let freshness = seat(options, freshness);
        let dead_letter = seat(options, dead_letter);
        Self(Arc::new(Inner {
            engine: options.engine.clone(),
            names,
            clock: Arc::clone(&options.clock),
            routing: seat(options, routing),
            backpressure: seat(options, backpressure),
            freshness_pool: Pool::new(|| Asker::new(freshness.slot.worker(), asking.clone())),
            freshness,
            dead_letter_pool: Pool::new(|| Asker::new(dead_letter.slot.worker(), asking.clone())),
            dead_letter,
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
        vec![
            inner.routing.status(),
            inner.backpressure.status(),
            inner.freshness.status(),
            inner.dead_letter.status(),
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
        let found = activated.as_ref().map_or(kind, |report| Some(report.kind));
        self.0
            .asking
            .metrics
            .policy_activations(found, activated.is_ok())
            .inc();
        match &activated {
            Ok(report) => tracing::info!(kind = %report.kind, "{report}"),
            Err(error) => {
                let reason = crate::chain::chain(error);
                tracing::warn!(kind = kind.map(Kind::name), reason, "a policy was refused");
            }
        }
        activated
    }

    fn try_activate(
        &self,
        kind: Option<Kind>,
        component: &[u8],
        config: Option<&str>,
    ) -> Result<ActivationReport, ActivateError> {
        let engine = self.0.engine.as_ref().ok_or(ActivateError::NoEngine)?;
        let artifact = match kind {
            Some(kind) => Artifact::load(engine, kind, component)?,
            None => Artifact::load_any(engine, component)?,
        };
        let config = config.map(serde_json::from_str).transpose()?;
        let inner = &*self.0;
        let activation = match artifact.kind() {
            Kind::Routing => inner.routing.activate(inner, &artifact, config),
            Kind::Backpressure => inner.backpressure.activate(inner, &artifact, config),
            Kind::Freshness => inner.freshness.activate(inner, &artifact, config),
            Kind::DeadLetter => inner.dead_letter.activate(inner, &artifact, config),
        };
        Ok(ActivationReport {
            kind: artifact.kind(),
            activation: activation?,
        })
    }

    /// One who asks the routing policy.
    #[must_use]
    pub fn routing(&self) -> Asker<policy::Routing> {
        Asker::new(self.0.routing.slot.worker(), self.0.asking.clone())
    }

    /// One who asks the backpressure policy.
    #[must_use]
    pub fn backpressure(&self) -> Asker<policy::Backpressure> {
        Asker::new(self.0.backpressure.slot.worker(), self.0.asking.clone())
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
fn built_in<K: Sandboxed>(
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

fn seat<K: Sandboxed>(options: &PolicyOptions, native: Native<K>) -> Seat<K> {
    let now = (options.clock)();
    let events = events(Arc::clone(&options.metrics), K::KIND);
    Seat {
        slot: Slot::new(native, options.budget, events, now),
        config: Mutex::new(options.config(K::KIND).clone()),
    }
}

impl<K: Sandboxed> Seat<K> {
    fn status(&self) -> PolicyStatus {
        let config = crate::sync::lock(&self.config).clone();
        PolicyStatus {
            kind: K::KIND,
            slot: self.slot.status(),
            config,
        }
    }

    fn activate(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        config: Option<Value>,
    ) -> Result<Activation, ActivateError> {
        let config = config.unwrap_or_else(|| crate::sync::lock(&self.config).clone());
        validate(artifact.kind(), artifact.config_schema(), &config)?;
        let version = Version::<K>::new(artifact, &config.to_string(), inner.names.clone())?;
        let activation = self.slot.activate(&version, (inner.clock)())?;
        *crate::sync::lock(&self.config) = config;
        let generation = i64::try_from(activation.generation).unwrap_or(i64::MAX);
        inner
            .asking
            .metrics
            .policy_generation(K::KIND)
            .set(generation);
        Ok(activation)
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
fn events(metrics: Arc<Metrics>, kind: Kind) -> EventSink {
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
            tracing::error!(%kind, %from, %to, %fault, "a policy failed too often and was taken out");
        }
        // Whoever activates hears the outcome, and logs it.
        _ => {}
    })
}
