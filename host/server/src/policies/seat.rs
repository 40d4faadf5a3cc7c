//! The place of one kind of policy: who decides, what it goes back to, what is tried beside it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use oona_core::Timestamp;
use oona_core::policy::Kind;
use oona_core::stage::Stage;
use oona_core::symbols::Symbol;
use oona_wasm::{Activation, Artifact, Event, EventSink, Native, Slot, SymbolTable, Version};
use serde_json::Value;

use super::ask::{Asker, Asking};
use super::candidate::{Place, Staged};
use super::schema::validate;
use super::{ActivateError, Inner, PolicyOptions, PolicyStatus};
use crate::explain::Explained;
use crate::metrics::Metrics;
use crate::record::{Message, RecordError, Recorded, State, Texts};

/// One kind's place.
pub(super) struct Seat<K: Recorded> {
    pub(super) slot: Slot<K>,
    /// The configuration that the next version gets unless it is given another.
    pub(super) config: Mutex<Value>,
    /// What was in use before the registry first said something: what can be gone back to.
    pub(super) base: Mutex<Option<Base<K>>>,
    pub(super) candidate: Place<K>,
    pub(super) mix: Mix,
}

/// How often each reason was given since the registry last changed something.
pub(super) type Mix = Arc<Mutex<HashMap<Symbol, u64>>>;

/// What a host was started with.
pub(super) struct Base<K> {
    /// Without one, the native build.
    version: Option<Arc<Version<K>>>,
    config: Value,
}

pub(super) fn seat<K: Recorded>(
    options: &PolicyOptions,
    fallbacks: &Fallbacks,
    native: Native<K>,
) -> Seat<K> {
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
    pub(super) fn status(&self, now: Timestamp) -> PolicyStatus {
        let config = crate::sync::lock(&self.config).clone();
        PolicyStatus {
            kind: K::KIND,
            slot: self.slot.status(now),
            config,
            candidate: self.candidate.load().as_ref().map(|staged| staged.status()),
        }
    }

    pub(super) fn asker(&self, asking: &Asking) -> Asker<K> {
        Asker::new(
            self.slot.worker(),
            Arc::clone(&self.candidate),
            Arc::clone(&self.mix),
            asking.clone(),
        )
    }

    pub(super) fn activate(
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

    pub(super) fn activated(
        &self,
        inner: &Inner,
        activation: Activation,
        config: Value,
    ) -> Activation {
        *crate::sync::lock(&self.config) = config;
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
    pub(super) fn remember_base(&self) {
        let mut base = crate::sync::lock(&self.base);
        base.get_or_insert_with(|| Base {
            version: self.slot.current(),
            config: crate::sync::lock(&self.config).clone(),
        });
    }

    pub(super) fn return_to_base(
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

    pub(super) fn stage(
        &self,
        inner: &Inner,
        artifact: &Artifact,
        stage: Stage,
    ) -> Result<(), ActivateError> {
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

pub(super) type Fallbacks = Arc<Mutex<VecDeque<FellBack>>>;

/// How many of them are held until somebody asks.
const FALLBACKS_MAX: usize = 64;

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
