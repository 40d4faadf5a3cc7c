//! A policy that runs: one store, used by one worker.
//!
//! An instance lives on from call to call. After any error its store is dropped, since a trap
//! poisons it, and the next call starts another (about 30 µs): so nothing that went wrong in one
//! call can be seen in the next.

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup};
use wasmtime::Store;

use crate::artifact::{Artifact, DecideFunction};
use crate::fault;
use crate::guest::{Batch, Guest, Phase};
use crate::version::{StartError, Version};
use crate::wire::Sandboxed;

/// See the module.
pub struct Instance<K: Sandboxed> {
    version: Arc<Version<K>>,
    /// Of a native policy: it needs no store, and cannot fail.
    native: Option<Box<dyn Decide<K>>>,
    live: Option<Live<K>>,
    /// Whether it is judged by the time that its thread has run, and not by a deadline.
    on_trial: bool,
    /// The buffer of questions: shared with wasmtime during a call, ours again after it.
    asked: Arc<Vec<K::Asked>>,
}

struct Live<K: Sandboxed> {
    store: Store<Guest>,
    decide: DecideFunction<K>,
    call_ms_max: u64,
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
            native: version.native_policy(),
            version,
            live: None,
            on_trial: false,
            asked: Arc::default(),
        }
    }

    /// Starts it now, unless it runs.
    pub(crate) fn wake(&mut self) -> Result<(), StartError> {
        if self.live.is_none()
            && let Some(artifact) = self.version.artifact()
        {
            self.live = Some(start(&self.version, artifact, self.on_trial)?);
        }
        Ok(())
    }

    /// Whether it is judged by the time that its thread has run, from the next call on.
    pub(crate) fn judge_by_thread(&mut self, on_trial: bool) {
        self.on_trial = on_trial;
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
        let answered = live.call(self.on_trial, params, batch)?;
        if answered.len() != questions.len() {
            return Err(Fault::Count {
                asked: questions.len(),
                answered: answered.len(),
            });
        }
        for answer in &answered {
            let decision = K::decision(answer);
            self.version.names().check::<K>(&decision)?;
            decisions.push(decision);
        }
        Ok(())
    }

    /// Puts the store aside; the next call starts another.
    fn discard(&mut self) {
        if let (Some(live), Some(artifact)) = (self.live.take(), self.version.artifact()) {
            artifact.engine().retire(live.store);
        }
    }
}

impl<K: Sandboxed> Live<K> {
    fn call(
        &mut self,
        on_trial: bool,
        params: K::Params,
        batch: Batch,
    ) -> Result<Vec<K::Answered>, Fault> {
        let limit_ms = self.call_ms_max;
        self.store.set_epoch_deadline(limit_ms);
        self.store.data_mut().begin(Phase::Deciding, Some(batch));
        if on_trial {
            self.store.data_mut().grant(limit_ms);
        }
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
        if let Some(native) = &mut self.native {
            return native.decide(now, state, questions, text, decisions);
        }
        decisions.clear();
        let artifact = self.version.artifact();
        let batch_max = artifact.map_or(1, |artifact| artifact.engine().config().batch_max.max(1));
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

    fn memory_bytes(&self) -> Option<usize> {
        let live = self.live.as_ref();
        live.map(|live| live.store.data().memory_bytes)
    }
}

impl<K: Sandboxed> Drop for Instance<K> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// A store with a configured instance in it.
fn start<K: Sandboxed>(
    version: &Version<K>,
    artifact: &Artifact,
    on_trial: bool,
) -> Result<Live<K>, StartError> {
    let call_ms_max = artifact.engine().config().call_ms_max;
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
    if on_trial {
        store.data_mut().grant(limit_ms);
    }
    match configure.call(&mut store, (version.config().to_string(),)) {
        Err(error) => {
            let fault = fault::classify(&error, store.data(), limit_ms);
            Err(StartError::Configure(fault))
        }
        Ok((Err(words),)) => Err(StartError::refused(&words)),
        Ok((Ok(()),)) if store.data().table_full => Err(StartError::Names),
        Ok((Ok(()),)) => Ok(Live {
            store,
            decide,
            call_ms_max,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant as Clock};

    use oona_core::policy::{NoText, Route, Routing};
    use oona_core::symbols::Symbol;

    use super::*;
    use crate::testing::{self, Guest, LOOPS_AT_66, ask, default_route, messages};

    /// Asks about a message that breaks the guest, and then about one that does not.
    #[track_caller]
    fn check(decide: &str, expected: impl Fn(&Fault) -> bool) {
        let decide = format!("(if (i32.eq (local.get $type) (i32.const 66)) (then {decide}))");
        let guest = testing::Guest {
            decide: &decide,
            ..testing::Guest::default()
        };
        let names = testing::names();
        let version = testing::version(&testing::engine(), &guest, &names);
        let mut instance = version.instance().unwrap();
        let begun = Clock::now();
        let fault = ask(&mut instance, &messages(66, 3)).unwrap_err();
        assert!(expected(&fault), "{decide}: {fault:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{decide}: {:?}",
            begun.elapsed()
        );
        assert!(
            instance.live.is_none(),
            "the store is used again after {fault:?}"
        );
        assert_eq!(
            ask(&mut instance, &messages(1, 2)),
            Ok(vec![default_route(&names); 2])
        );
    }

    #[test]
    fn what_goes_wrong_is_contained_and_the_next_call_is_well() {
        let trap = |fault: &Fault| matches!(fault, Fault::Trap(_));
        let bound = |fault: &Fault| matches!(fault, Fault::Bound(_));
        check("(loop $ever (br $ever))", |fault| {
            *fault == Fault::Deadline { limit_ms: 10 }
        });
        check("unreachable", trap);
        check("(drop (i32.load (i32.const -4)))", trap);
        check(
            "(drop (call $decide (i64.const 0) (local.get $at) (local.get $length)))",
            bound,
        );
        check(
            "(if (i32.eq (memory.grow (i32.const 99)) (i32.const -1)) (then unreachable))",
            bound,
        );
        check("(local.set $count (i32.const 5000000))", trap);
        check("(return (i32.const 0x7ffffffc))", trap);
        check("(drop (call $intern (i32.const 64) (i32.const 11)))", trap);
        check(
            "(call $payload (i32.const 3) (i32.const 0) (i32.const 9) (i32.const 300))",
            trap,
        );
        check("(local.set $count (i32.const 2))", |fault| {
            *fault
                == Fault::Count {
                    asked: 3,
                    answered: 2,
                }
        });
        check("(local.set $count (i32.const 4))", |fault| {
            *fault
                == Fault::Count {
                    asked: 3,
                    answered: 4,
                }
        });
        check("(local.set $stream (i32.const 77))", |fault| {
            *fault == Fault::UnknownStream(Symbol(77))
        });
        check("(local.set $stream (global.get $reason))", |fault| {
            matches!(fault, Fault::UnknownStream(_))
        });
        check("(local.set $reason (i32.const 0))", |fault| {
            *fault == Fault::UnknownReason(Symbol::NONE)
        });
        check("(local.set $reason (i32.const -1))", |fault| {
            *fault == Fault::UnknownReason(Symbol(u32::MAX))
        });
    }

    #[test]
    fn an_answer_that_is_too_large_costs_no_memory_of_the_host() {
        let decide = "(i32.store (i32.const 256) (i32.const 0))
                      (i32.store (i32.const 260) (i32.const 10000))
                      (return (i32.const 256))";
        let grown = format!("(drop (memory.grow (i32.const 10))) {decide}");
        check(&grown, |fault| {
            *fault == Fault::Bound("its answer is too large".to_owned())
        });
    }

    #[test]
    fn memory_is_told() {
        let guest = Guest {
            pages: 2,
            ..Guest::default()
        };
        let version = testing::version(&testing::engine(), &guest, &testing::names());
        let mut instance = Instance::asleep(Arc::clone(&version));
        assert_eq!(instance.memory_bytes(), None);
        instance.wake().unwrap();
        assert_eq!(instance.memory_bytes(), Some(2 * 65_536));
    }

    #[test]
    fn the_largest_batch_fits() {
        let names = testing::names();
        let guest = Guest {
            pages: 2,
            ..Guest::default()
        };
        let version = testing::version(&testing::engine(), &guest, &names);
        let mut instance = version.instance().unwrap();
        for count in [0, 1, 511, 512, 513, 2_000] {
            let expected = vec![default_route(&names); count];
            assert_eq!(
                ask(&mut instance, &messages(1, count)),
                Ok(expected),
                "{count}"
            );
        }
    }

    #[test]
    fn a_fault_in_any_part_of_a_batch_leaves_no_decisions() {
        let guest = Guest {
            decide: LOOPS_AT_66,
            pages: 2,
            ..Guest::default()
        };
        let version = testing::version(&testing::engine(), &guest, &testing::names());
        let mut instance = version.instance().unwrap();
        let mut questions = messages(1, 600);
        questions[512].message_type = 66;
        let text: Arc<dyn Lookup> = Arc::new(NoText);
        let mut decisions = Vec::new();
        let now = Timestamp::from_millis(1);
        let decided = instance.decide(now, &(), &questions, &text, &mut decisions);
        assert_eq!(decided, Err(Fault::Deadline { limit_ms: 10 }));
        assert_eq!(decisions, Vec::new());
        assert_eq!(
            Arc::strong_count(&text),
            1,
            "the batch is the caller's again"
        );
    }

    #[test]
    fn text_is_read_of_the_message_that_was_meant() {
        /// One byte of payload for each message: its number.
        #[derive(Debug)]
        struct Numbers(Vec<u8>);
        impl Lookup for Numbers {
            fn attribute(&self, _index: usize, _name: &str) -> Option<&str> {
                None
            }
            fn attributes(&self, _index: usize, _each: &mut dyn FnMut(&str, &str)) {}
            fn payload(&self, index: usize) -> Option<&[u8]> {
                self.0.get(index..=index)
            }
        }
        // Rejects (verdict 1) with the first byte of the payload as the reason.
        let decide = "(call $payload (i32.const 1) (i32.const 0) (i32.const 9) (i32.const 300))
                      (local.set $reason (i32.load8_u (i32.load (i32.const 300))))";
        let names = testing::names();
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert!(!names.symbols.intern(name).is_none());
        }
        let config = crate::EngineConfig {
            batch_max: 2,
            ..testing::config()
        };
        let engine = crate::Engine::new(config).unwrap();
        let guest = Guest {
            decide,
            ..Guest::default()
        };
        let mut instance = testing::version(&engine, &guest, &names)
            .instance()
            .unwrap();
        let text: Arc<dyn Lookup> = Arc::new(Numbers(vec![1, 2, 3, 4]));
        let mut decisions = Vec::new();
        let now = Timestamp::from_millis(1);
        Decide::<Routing>::decide(
            &mut instance,
            now,
            &(),
            &messages(1, 4),
            &text,
            &mut decisions,
        )
        .unwrap();
        let reasons: Vec<u32> = decisions
            .iter()
            .map(|route| match route {
                Route::To { reason, .. } | Route::Reject { reason } => reason.0,
            })
            .collect();
        assert_eq!(reasons, [2, 2, 4, 4]);
    }
}
