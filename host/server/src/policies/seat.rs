//! The place of one kind of policy: who decides, what it goes back to, what is tried beside it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use oona_core::Timestamp;
use oona_core::policy::Kind;
use oona_core::stage::Stage;
use oona_core::telemetry::{self, Level};
use oona_wasm::{
    Activation, Artifact, Event, EventSink, Names, Native, Slot, SymbolTable, Version,
};
use serde_json::Value;

use super::ask::{Asker, Asking};
use super::builtin::Builder;
use super::candidate::{Place, Staged};
use super::mixes::Mixes;
use super::schema::validate;
use super::{ActivateError, Inner, PolicyOptions, PolicyStatus};
use crate::clock;
use crate::explain::Explained;
use crate::metrics::Metrics;
use crate::native::NativeError;
use crate::record::{Message, RecordError, Recorded, State, Texts};

/// One kind's place.
pub(super) struct Seat<K: Recorded> {
    pub(super) slot: Slot<K>,
    /// That of the native build.
    native_config: Value,
    /// Makes the native build anew, with another configuration.
    pub(super) builder: Builder<K>,
    /// What was in use before the registry first said something: what can be gone back to.
    pub(super) base: Mutex<Option<Base<K>>>,
    pub(super) candidate: Place<K>,
    pub(super) mixes: Arc<Mutex<Mixes>>,
}

/// What a host was started with.
pub(super) struct Base<K: Recorded> {
    /// Without one, the native build.
    version: Option<Arc<Version<K>>>,
    config: Value,
}

pub(super) fn seat<K: Recorded>(
    options: &PolicyOptions,
    fallbacks: &Fallbacks,
    native: Native<K>,
    build: fn(&str, &Names) -> Result<Native<K>, NativeError>,
) -> Seat<K> {
    let now = (options.clock)();
    let events = events(Arc::clone(&options.metrics), Arc::clone(fallbacks), K::KIND);
    let mixes = Mixes::new(native.info());
    Seat {
        slot: Slot::new(native, options.budget, events, now),
        native_config: options.config(K::KIND).clone(),
        builder: Builder::new(build, options),
        base: Mutex::default(),
        candidate: Arc::new(ArcSwapOption::empty()),
        mixes: Arc::new(Mutex::new(mixes)),
    }
}

impl<K: Recorded> Seat<K> {
    pub(super) fn status(&self, now: Timestamp) -> PolicyStatus {
        PolicyStatus {
            kind: K::KIND,
            slot: self.slot.status(now),
            config: self.config(),
            candidate: self.candidate.load().as_ref().map(|staged| staged.status()),
            not_started: None,
        }
    }

    /// The configuration of what is in use, whoever put it there: the next version gets it too, unless
    /// it is given another.
    pub(super) fn config(&self) -> Value {
        let current = self.slot.current();
        current.map_or_else(|| self.native_config.clone(), |version| config_of(&version))
    }

    pub(super) fn asker(&self, asking: &Asking) -> Asker<K> {
        Asker::new(
            self.slot.worker(),
            Arc::clone(&self.candidate),
            Arc::clone(&self.mixes),
            asking.clone(),
        )
    }

    pub(super) fn activate(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        config: Option<Value>,
    ) -> Result<Activation, ActivateError> {
        let config = config.unwrap_or_else(|| self.config());
        let version = self.version(inner, artifact, &config)?;
        let activation = self.slot.activate(&version, (inner.clock)())?;
        Ok(self.activated(inner, activation))
    }

    pub(super) fn version(
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

    pub(super) fn try_out(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        config: &str,
    ) -> Result<(), ActivateError> {
        let version = Version::<K>::new(artifact, config, inner.names.clone())?;
        Ok(version.try_out((inner.clock)())?)
    }

    pub(super) fn activated(&self, inner: &Inner, activation: Activation) -> Activation {
        crate::sync::lock(&self.mixes).changed(&activation.version);
        let generation = i64::try_from(activation.generation).unwrap_or(i64::MAX);
        inner
            .asking
            .metrics
            .policy_generation(K::KIND)
            .set(generation);
        activation
    }

    pub(super) fn explain(
        &self,
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<Explained, RecordError> {
        // What is asked about comes from outside: it must not fill the table of names.
        let symbols = symbols.read_only();
        let (whole, question) = K::question(message, state, now, &symbols)?;
        let mut decisions = Vec::with_capacity(1);
        let text = Texts::one(message);
        let answer = self
            .slot
            .ask_apart(now, &whole, &[question], &text, &mut decisions);
        Ok(Explained {
            kind: K::KIND,
            policy: answer.by.name.clone(),
            version: answer.by.version.clone(),
            digest: answer.by.digest_short().to_owned(),
            fault: answer.fault.map(|fault| fault.to_string()),
            state: K::state(&whole, &question, &symbols),
            decision: <K as Recorded>::decision(&decisions[0], &symbols),
        })
    }

    /// Whatever is in use when the registry first says something is what it was started with.
    pub(super) fn remember_base(&self) {
        let mut base = crate::sync::lock(&self.base);
        base.get_or_insert_with(|| Base {
            version: self.slot.current(),
            config: self.config(),
        });
    }

    /// What it was started with; without one, the native build.
    pub(super) fn own(&self) -> Option<Arc<Version<K>>> {
        match &*crate::sync::lock(&self.base) {
            Some(base) => base.version.clone(),
            None => self.slot.current(),
        }
    }

    /// What it was started with, in another configuration.
    fn own_version(&self, inner: &Inner, config: &Value) -> Result<Arc<Version<K>>, ActivateError> {
        match self.own().as_ref().and_then(|version| version.artifact()) {
            Some(artifact) => self.version(inner, artifact, config),
            None => self.builder.version(config, &inner.names),
        }
    }

    pub(super) fn return_to_base(
        &self,
        inner: &Inner,
        config: Option<Value>,
    ) -> Result<Activation, ActivateError> {
        let of_base = crate::sync::lock(&self.base)
            .as_ref()
            .map_or(Value::Null, |base| base.config.clone());
        let now = (inner.clock)();
        let Some(config) = config.or_else(|| self.own().map(|_| of_base.clone())) else {
            return Ok(self.activated(inner, self.slot.reset(now)));
        };
        let version = self.own_version(inner, &config)?;
        let activation = self.slot.activate(&version, now)?;
        Ok(self.activated(inner, activation))
    }

    pub(super) fn stage(
        &self,
        inner: &Inner,
        artifact: Option<&Artifact>,
        stage: Stage,
    ) -> Result<(), ActivateError> {
        let config = match &stage.choice.config {
            Some(config) => serde_json::from_str(config)?,
            None => self.config(),
        };
        let version = match artifact {
            Some(artifact) => self.version(inner, artifact, &config)?,
            None => self.own_version(inner, &config)?,
        };
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

fn config_of<K: Recorded>(version: &Version<K>) -> Value {
    let config = serde_json::from_str(version.config());
    config.unwrap_or_else(|error| unreachable!("it was made of JSON: {error}"))
}

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
    /// As of which change of the version in use it was there.
    pub generation: u64,
}

pub(super) type Fallbacks = Arc<Mutex<VecDeque<FellBack>>>;

/// How many of them are held until somebody asks.
const FALLBACKS_MAX: usize = 64;

/// Tells logs and counters what happens in a slot.
fn events(metrics: Arc<Metrics>, fallbacks: Fallbacks, kind: Kind) -> EventSink {
    // Shown from the start: a counter that begins at 1 has not risen.
    let fell_back = metrics.policy_fallbacks(kind);
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
        Event::FellBack {
            from,
            to,
            fault,
            generation,
        } => {
            fell_back.inc();
            let mut held = crate::sync::lock(&fallbacks);
            if held.len() < FALLBACKS_MAX {
                held.push_back(FellBack {
                    kind,
                    from: from.to_string(),
                    to: to.to_string(),
                    fault: fault.to_string(),
                    generation,
                });
            }
            drop(held);
            let description = format!("{kind}: {from} was taken out, {to} decides: {fault}");
            happened(&metrics, Level::Error, "policy_fell_back", description);
            tracing::error!(%kind, %from, %to, %fault, "a policy failed too often and was taken out");
        }
        // Whoever activates hears the outcome, and logs it.
        Event::Activated { version, .. } => {
            let description = format!("{kind}: {version} decides");
            happened(&metrics, Level::Info, "policy_activated", description);
        }
        _ => {}
    })
}

/// Notes something for telemetry on the bus.
fn happened(metrics: &Metrics, level: Level, name: &'static str, description: String) {
    metrics.events.push(telemetry::Event {
        at: clock::system()(),
        level,
        name,
        description,
    });
}

/// Tells what every policy may use.
pub(super) fn budgets(options: &PolicyOptions) {
    let bounds = options.engine.as_ref().map(|engine| engine.config());
    for kind in Kind::ALL {
        let set = |resource, limit: f64| {
            options.metrics.policy_budget(kind, resource).set(limit);
        };
        set("failures", options.budget.failures.into());
        if let Some(bounds) = bounds {
            set("call_seconds", bounds.call_ms_max as f64 / 1e3);
            set("memory_bytes", bounds.memory_bytes_max as f64);
        }
    }
}
