//! A policy that runs: one store, used by one worker.
//!
//! An instance lives on from call to call. After any error its store is dropped, since a trap
//! poisons it, and the next call starts another (about 30 µs): so nothing that went wrong in one
//! call can be seen in the next.

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup};
use wasmtime::Store;

use crate::artifact::DecideFunction;
use crate::fault;
use crate::guest::{Batch, Guest, Phase};
use crate::version::{StartError, Version};
use crate::wire::Sandboxed;

/// See the module.
pub struct Instance<K: Sandboxed> {
    version: Arc<Version<K>>,
    live: Option<Live<K>>,
    /// The buffer of questions: shared with wasmtime during a call, ours again after it.
    asked: Arc<Vec<K::Asked>>,
}

struct Live<K: Sandboxed> {
    store: Store<Guest>,
    decide: DecideFunction<K>,
}

impl<K: Sandboxed> std::fmt::Debug for Instance<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Instance({}, live: {})",
            self.version.info(),
            self.live.is_some()
        )
    }
}

impl<K: Sandboxed> Instance<K> {
    /// An instance that starts with its first call.
    pub(crate) fn asleep(version: Arc<Version<K>>) -> Self {
        Self {
            version,
            live: None,
            asked: Arc::default(),
        }
    }

    /// Starts it now, unless it runs.
    pub(crate) fn wake(&mut self) -> Result<(), StartError> {
        if self.live.is_none() {
            self.live = Some(start(&self.version)?);
        }
        Ok(())
    }

    /// Which version it runs.
    #[must_use]
    pub fn version(&self) -> &Arc<Version<K>> {
        &self.version
    }

    fn decide_part(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        batch: Batch,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault> {
        self.wake().map_err(StartError::into_fault)?;
        let Some(live) = &mut self.live else {
            unreachable!("it was woken just now")
        };
        let asked = Arc::make_mut(&mut self.asked);
        asked.clear();
        asked.extend(questions.iter().map(K::ask));
        let params = K::params(now, state, Arc::clone(&self.asked));
        let answered = live.call(
            self.version.artifact().engine().config().call_ms_max,
            params,
            batch,
        )?;
        if answered.len() != questions.len() {
            return Err(Fault::Count {
                asked: questions.len(),
                answered: answered.len(),
            });
        }
        for answer in &answered {
            let decision = K::decision(answer);
            self.check(&decision)?;
            decisions.push(decision);
        }
        Ok(())
    }

    /// Whether the names in a decision mean anything.
    fn check(&self, decision: &K::Decision) -> Result<(), Fault> {
        let names = self.version.names();
        for name in [Some(K::reason(decision)), K::class(decision)]
            .into_iter()
            .flatten()
        {
            if !names.symbols.contains(name) {
                return Err(Fault::UnknownReason(name));
            }
        }
        match K::stream(decision) {
            Some(stream) if !names.streams.contains(&stream) => Err(Fault::UnknownStream(stream)),
            _ => Ok(()),
        }
    }

    /// Puts the store aside; the next call starts another.
    fn discard(&mut self) {
        if let Some(live) = self.live.take() {
            self.version.artifact().engine().retire(live.store);
        }
    }
}

impl<K: Sandboxed> Live<K> {
    fn call(
        &mut self,
        limit_ms: u64,
        params: K::Params,
        batch: Batch,
    ) -> Result<Vec<K::Answered>, Fault> {
        self.store.set_epoch_deadline(limit_ms);
        self.store.data_mut().begin(Phase::Deciding, Some(batch));
        let answered = self.decide.call(&mut self.store, params);
        // The text belongs to the caller, who may want it back at once.
        self.store.data_mut().batch = None;
        let (answered,) =
            answered.map_err(|error| fault::classify(&error, self.store.data(), limit_ms))?;
        Ok(answered)
    }
}

impl<K: Sandboxed> Decide<K> for Instance<K> {
    fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault> {
        decisions.clear();
        let batch_max = self.version.artifact().engine().config().batch_max.max(1);
        for (number, part) in questions.chunks(batch_max).enumerate() {
            let text = Arc::clone(text);
            let batch = Batch {
                text,
                offset: number * batch_max,
                count: part.len(),
            };
            let decided = self.decide_part(now, state, part, batch, decisions);
            if let Err(fault) = decided {
                decisions.clear();
                self.discard();
                return Err(fault);
            }
        }
        Ok(())
    }
}

impl<K: Sandboxed> Drop for Instance<K> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// A store with a configured instance in it.
fn start<K: Sandboxed>(version: &Version<K>) -> Result<Live<K>, StartError> {
    let artifact = version.artifact();
    let limit_ms = artifact.engine().config().start_ms_max;
    let symbols = version.names().symbols.clone();
    let (mut store, instance) = artifact.instantiate(symbols).map_err(StartError::Start)?;
    let functions = artifact.functions();
    let typed = |error: wasmtime::Error| StartError::Start(Fault::Trap(format!("{error:#}")));
    let configure = functions.configure(&mut store, &instance).map_err(typed)?;
    let decide = functions
        .decide::<K>(&mut store, &instance)
        .map_err(typed)?;

    store.set_epoch_deadline(limit_ms);
    store.data_mut().begin(Phase::Configuring, None);
    match configure.call(&mut store, (version.config().to_string(),)) {
        Err(error) => {
            let fault = fault::classify(&error, store.data(), limit_ms);
            Err(StartError::Configure(fault))
        }
        Ok((Err(words),)) => Err(StartError::refused(&words)),
        Ok((Ok(()),)) if store.data().table_full => Err(StartError::Names),
        Ok((Ok(()),)) => Ok(Live { store, decide }),
    }
}
