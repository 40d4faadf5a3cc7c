//! The place of one kind of policy: which version is in use, and what answers when it fails.
//!
//! Why: a policy is replaced while messages are under way, and may be wrong. Neither may cost a
//! message. Every worker reads one pointer per batch; when that has moved it takes up the instance
//! that the publisher has laid out for it, already warm. A failed call is answered by the last good
//! version, or by the native build, which cannot fail. Trips when: a version spends its budget of
//! failures; it is taken out then, and the last good one takes its place, or the native build
//! without one. Recovers when: an operator activates another version.

mod status;
pub(crate) mod trial;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant as Clock};

use arc_swap::ArcSwap;
use oona_core::Timestamp;
use oona_core::budget::{BudgetConfig, FailureBudget};
use oona_core::policy::{Decide, Fault};
use serde::Serialize;

pub use self::status::{Budget, SlotStatus};
use self::worker::Seat;
pub use self::worker::{Answer, Worker};
use crate::instance::Instance;
use crate::version::{Names, StartError, Version, VersionInfo};
use crate::wire::Sandboxed;

/// Where events go: called on the thread where they happen, so it must not wait for anything.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// What happened in a slot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A version is in use from now on.
    Activated {
        /// Which.
        version: Arc<VersionInfo>,
        /// The number of the change.
        generation: u64,
    },
    /// A version was to be activated and is not; the one in use stays.
    Refused {
        /// Which.
        version: Arc<VersionInfo>,
        /// Why, in a sentence.
        reason: String,
    },
    /// A call failed. Its messages were decided on by the fail-safe.
    Failed {
        /// Which version was asked.
        version: Arc<VersionInfo>,
        /// Which one answered instead.
        answered_by: Arc<VersionInfo>,
        /// How it failed.
        fault: Fault,
    },
    /// A version has failed too often and was taken out.
    FellBack {
        /// Which.
        from: Arc<VersionInfo>,
        /// Which one took its place.
        to: Arc<VersionInfo>,
        /// The last of its failures.
        fault: Fault,
    },
}

/// Makes a native policy, configured already, for one worker. What it makes answers every batch.
pub type MakeNative<K> = Box<dyn Fn() -> Box<dyn Decide<K>> + Send + Sync>;

/// The native build of the shipped policy: the fail-safe that is always there.
pub struct Native<K: Sandboxed> {
    info: Arc<VersionInfo>,
    make: MakeNative<K>,
}

impl<K: Sandboxed> Native<K> {
    /// Takes a native policy after it has passed the same trial as a component.
    ///
    /// # Errors
    ///
    /// If it answers plain questions with names that the bus does not have: its configuration is
    /// wrong.
    pub fn new(info: VersionInfo, names: &Names, make: MakeNative<K>) -> Result<Self, Fault> {
        let mut policy = make();
        let decisions = trial::decide(policy.as_mut(), names, Timestamp::EPOCH)?;
        for decision in &decisions {
            names.check::<K>(decision)?;
        }
        Ok(Self {
            info: Arc::new(info),
            make,
        })
    }

    /// What is said of it.
    #[must_use]
    pub fn info(&self) -> &Arc<VersionInfo> {
        &self.info
    }

    /// One for a worker.
    #[must_use]
    pub fn policy(&self) -> Box<dyn Decide<K>> {
        (self.make)()
    }
}

impl<K: Sandboxed> std::fmt::Debug for Native<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Native({})", self.info)
    }
}

/// What came of an activation.
#[derive(Clone, Debug, Serialize)]
pub struct Activation {
    /// What is in use now.
    pub version: Arc<VersionInfo>,
    /// What was in use before.
    pub replaced: Arc<VersionInfo>,
    /// The number of the change, from 1.
    pub generation: u64,
    /// For how many workers an instance was ready.
    pub instances: usize,
    /// How long it took, its trial and the instances for all workers included, in µs. Deciding
    /// went on meanwhile.
    pub took_us: u64,
}

/// Why the version in use is there although nobody activated it.
#[derive(Clone, Debug, Serialize)]
pub struct Fallback {
    /// The version that was taken out.
    pub from: Arc<VersionInfo>,
    /// The last of its failures.
    pub fault: String,
}

/// See the module. Cheap to clone; every clone is the same slot.
#[derive(Clone, Debug)]
pub struct Slot<K: Sandboxed> {
    shared: Arc<Shared<K>>,
}

pub(crate) struct Shared<K: Sandboxed> {
    native: Native<K>,
    budget: BudgetConfig,
    events: EventSink,
    active: ArcSwap<Active<K>>,
    /// The workers. Whoever changes `active` holds this.
    seats: Mutex<Vec<Weak<Seat<K>>>>,
}

impl<K: Sandboxed> std::fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} active)", self.active.load().info)
    }
}

/// What is in use, and its account.
pub(crate) struct Active<K: Sandboxed> {
    generation: u64,
    info: Arc<VersionInfo>,
    /// Without one the native build decides.
    version: Option<Arc<Version<K>>>,
    last_good: Option<Arc<Version<K>>>,
    since: Timestamp,
    fallback: Option<Fallback>,
    budget: Mutex<FailureBudget>,
    decisions: AtomicU64,
    failures: AtomicU64,
    /// The longest that a worker took to change to it, in ns.
    pause_ns_max: AtomicU64,
}

impl<K: Sandboxed> Active<K> {
    fn new(generation: u64, info: Arc<VersionInfo>, budget: BudgetConfig, now: Timestamp) -> Self {
        Self {
            generation,
            info,
            version: None,
            last_good: None,
            since: now,
            fallback: None,
            budget: Mutex::new(FailureBudget::new(budget)),
            decisions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            pause_ns_max: AtomicU64::new(0),
        }
    }

    /// Counts a failed call; whether the version has to go.
    fn failed(&self, now: Timestamp) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed);
        lock(&self.budget).failed(now)
    }
}

impl<K: Sandboxed> Slot<K> {
    /// A slot in which the native build decides.
    #[must_use]
    pub fn new(native: Native<K>, budget: BudgetConfig, events: EventSink, now: Timestamp) -> Self {
        let active = Active::new(0, Arc::clone(&native.info), budget, now);
        let shared = Shared {
            native,
            budget,
            events,
            active: ArcSwap::from_pointee(active),
            seats: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Somebody who decides: one for each thread or task that asks.
    #[must_use]
    pub fn worker(&self) -> Worker<K> {
        Worker::new(Arc::clone(&self.shared))
    }

    /// Puts a version in use. It is tried first: it must start, take its configuration, and answer
    /// plain questions. Blocks for about a millisecond; workers decide on, and change over with
    /// their next batch.
    ///
    /// # Errors
    ///
    /// If it fails its trial; the version in use stays.
    pub fn activate(
        &self,
        version: &Arc<Version<K>>,
        now: Timestamp,
    ) -> Result<Activation, StartError> {
        let begun = Clock::now();
        match trial::run(version, now) {
            Ok(tried) => Ok(self.shared.publish(Some((version, tried)), now, begun)),
            Err(error) => {
                let reason = crate::sentence(&error);
                (self.shared.events)(Event::Refused {
                    version: Arc::clone(version.info()),
                    reason,
                });
                Err(error)
            }
        }
    }

    /// Puts the native build in use, as at the start.
    pub fn reset(&self, now: Timestamp) -> Activation {
        self.shared.publish(None, now, Clock::now())
    }

    /// The version in use; `None` while the native build decides.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Version<K>>> {
        self.shared.active.load().version.clone()
    }

    /// What is in use, and how it does at `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> SlotStatus {
        SlotStatus::of(&self.shared.active.load(), now)
    }
}

impl<K: Sandboxed> Shared<K> {
    /// Lays out an instance for each worker, and moves the pointer. Without a version the native
    /// build decides, which each worker has.
    fn publish(
        &self,
        chosen: Option<(&Arc<Version<K>>, Instance<K>)>,
        now: Timestamp,
        begun: Clock,
    ) -> Activation {
        let version = chosen.as_ref().map(|(version, _)| Arc::clone(version));
        let mut warm = Vec::new();
        if let Some((version, tried)) = chosen {
            warm.push(tried);
            let workers = lock(&self.seats).len();
            // A worker for whom there is none starts its own, or counts a failure if it cannot.
            warm.extend((1..workers).map_while(|_| trial::run(version, now).ok()));
        }

        let mut seats = lock(&self.seats);
        seats.retain(|seat| seat.strong_count() > 0);
        let before = self.active.load_full();
        let info = version
            .as_ref()
            .map_or(&self.native.info, |version| version.info());
        let info = Arc::clone(info);
        let generation = before.generation + 1;
        let active = Arc::new(Active {
            version,
            last_good: before.version.clone(),
            ..Active::new(generation, Arc::clone(&info), self.budget, now)
        });
        let mut instances = 0;
        for seat in seats.iter().filter_map(Weak::upgrade) {
            let instance = warm.pop();
            instances += usize::from(instance.is_some());
            seat.lay_out(&active, instance);
        }
        self.active.store(active);
        drop(seats);

        (self.events)(Event::Activated {
            version: Arc::clone(&info),
            generation,
        });
        let took_us = micros(begun.elapsed());
        let replaced = Arc::clone(&before.info);
        Activation {
            version: info,
            replaced,
            generation,
            instances,
            took_us,
        }
    }

    /// Takes out a version that has failed too often, unless somebody else has done so.
    fn take_out(&self, failing: &Arc<Active<K>>, fault: &Fault, now: Timestamp) {
        let seats = lock(&self.seats);
        if self.active.load().generation != failing.generation {
            return;
        }
        let last_good = failing.last_good.clone();
        let to = last_good
            .as_ref()
            .map_or(&self.native.info, |version| version.info());
        let to = Arc::clone(to);
        let from = Arc::clone(&failing.info);
        let generation = failing.generation + 1;
        let active = Arc::new(Active {
            version: last_good,
            fallback: Some(Fallback {
                from: Arc::clone(&from),
                fault: fault.to_string(),
            }),
            ..Active::new(generation, Arc::clone(&to), self.budget, now)
        });
        for seat in seats.iter().filter_map(Weak::upgrade) {
            seat.lay_out(&active, None);
        }
        self.active.store(active);
        drop(seats);
        (self.events)(Event::FellBack {
            from,
            to,
            fault: fault.clone(),
        });
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use oona_core::policy::{Kind, Lookup, NoText, Route, Routing, Subject};
    use oona_core::symbols::Symbol;

    use super::*;
    use crate::testing::{self, Guest, LOOPS_AT_66, messages};
    use crate::{Engine, Source};

    /// Rejects everything, for a reason of its own.
    struct RejectAll(Symbol);

    impl Decide<Routing> for RejectAll {
        fn decide(
            &mut self,
            _now: Timestamp,
            _state: &(),
            questions: &[Subject],
            _text: &Arc<dyn Lookup>,
            decisions: &mut Vec<Route>,
        ) -> Result<(), Fault> {
            decisions.clear();
            decisions.extend(questions.iter().map(|_| Route::Reject { reason: self.0 }));
            Ok(())
        }
    }

    struct Desk {
        engine: Arc<Engine>,
        names: Names,
        slot: Slot<Routing>,
        events: Arc<Mutex<Vec<String>>>,
    }

    impl Desk {
        fn new(failures: u32) -> Self {
            let names = testing::names();
            let reason = names.symbols.intern("native");
            let info = VersionInfo {
                kind: Kind::Routing,
                name: "reject-all".to_owned(),
                version: "1.0.0".to_owned(),
                digest: String::new(),
                source: Source::Native,
            };
            let make: MakeNative<Routing> = Box::new(move || Box::new(RejectAll(reason)));
            let native = Native::new(info, &names, make).unwrap();
            let events = Arc::new(Mutex::new(Vec::new()));
            let log = Arc::clone(&events);
            let sink: EventSink = Arc::new(move |event| lock(&log).push(told(&event)));
            let budget = BudgetConfig {
                failures,
                window_ms: 10_000,
            };
            let slot = Slot::new(native, budget, sink, Timestamp::EPOCH);
            Self {
                engine: testing::engine(),
                names,
                slot,
                events,
            }
        }

        /// A version that gives this reason.
        fn version(&self, reason: &str, decide: &str) -> Arc<Version<Routing>> {
            let symbol = self.names.symbols.intern(reason).0;
            let decide = format!("(local.set $reason (i32.const {symbol})) {decide}");
            let guest = Guest {
                decide: &decide,
                ..Guest::default()
            };
            testing::version(&self.engine, &guest, &self.names)
        }

        fn activate(&self, version: &Arc<Version<Routing>>) -> Activation {
            self.slot
                .activate(version, Timestamp::from_millis(5))
                .unwrap()
        }

        /// Asks about two messages of a type; answers with the reason for both.
        #[track_caller]
        fn reason(&self, worker: &mut Worker<Routing>, message_type: u32) -> (String, bool) {
            let text: Arc<dyn Lookup> = Arc::new(NoText);
            let mut decisions = Vec::new();
            let now = Timestamp::from_millis(10);
            let questions = messages(message_type, 2);
            let answer = worker.decide(now, &(), &questions, &text, &mut decisions);
            let [one, other] = decisions.try_into().unwrap();
            assert_eq!(one, other);
            let (Route::To { reason, .. } | Route::Reject { reason }) = one;
            (
                self.names.symbols.name(reason).unwrap().to_string(),
                answer.fault.is_some(),
            )
        }

        fn events(&self) -> Vec<String> {
            std::mem::take(&mut *lock(&self.events))
        }
    }

    fn told(event: &Event) -> String {
        match event {
            Event::Activated {
                version,
                generation,
            } => format!("{generation}: {}", version.name),
            Event::Refused { reason, .. } => format!("refused: {reason}"),
            Event::Failed {
                answered_by, fault, ..
            } => {
                format!("{} for {}", answered_by.name, fault.name())
            }
            Event::FellBack { from, to, .. } => format!("{} back to {}", from.name, to.name),
        }
    }

    fn well(reason: &str) -> (String, bool) {
        (reason.to_owned(), false)
    }

    fn rescued(reason: &str) -> (String, bool) {
        (reason.to_owned(), true)
    }

    #[test]
    fn workers_change_over_with_their_next_batch() {
        let desk = Desk::new(5);
        let mut early = desk.slot.worker();
        assert_eq!(desk.reason(&mut early, 1), well("native"));
        assert_eq!(desk.slot.status(Timestamp::from_millis(10)).decisions, 2);

        let activation = desk.activate(&desk.version("one", ""));
        assert_eq!((activation.generation, activation.instances), (1, 1));
        assert_eq!(activation.replaced.name, "reject-all");
        let mut late = desk.slot.worker();
        assert_eq!(desk.reason(&mut early, 1), well("one"));
        assert_eq!(desk.reason(&mut late, 1), well("one"));

        let activation = desk.activate(&desk.version("two", ""));
        assert_eq!((activation.generation, activation.instances), (2, 2));
        assert_eq!(desk.reason(&mut late, 1), well("two"));
        assert_eq!(desk.reason(&mut early, 1), well("two"));
        let status = desk.slot.status(Timestamp::from_millis(10));
        assert_eq!(
            (status.generation, status.decisions, status.failures),
            (2, 4, 0)
        );
        assert!(status.pause_ns_max > 0);
        assert_eq!(desk.events(), ["1: by-hand", "2: by-hand"]);
    }

    #[test]
    fn a_worker_that_slept_through_changes_takes_up_the_last() {
        let desk = Desk::new(5);
        let mut worker = desk.slot.worker();
        for reason in ["one", "two", "three"] {
            desk.activate(&desk.version(reason, ""));
        }
        assert_eq!(desk.reason(&mut worker, 1), well("three"));
    }

    #[test]
    fn a_version_that_fails_its_trial_is_refused_and_the_current_one_stays() {
        let desk = Desk::new(5);
        let mut worker = desk.slot.worker();
        desk.activate(&desk.version("one", ""));
        let loops = desk.version("two", "(loop $ever (br $ever))");
        let error = desk
            .slot
            .activate(&loops, Timestamp::from_millis(6))
            .unwrap_err();
        assert!(
            matches!(error, StartError::Trial(Fault::Deadline { .. })),
            "{error:?}"
        );
        assert_eq!(desk.reason(&mut worker, 1), well("one"));
        assert_eq!(desk.slot.status(Timestamp::from_millis(10)).generation, 1);
        let refused = "refused: it failed its trial: it took longer than its 10 ms";
        assert_eq!(desk.events(), ["1: by-hand", refused]);
    }

    #[test]
    fn a_stream_that_the_bus_does_not_have_is_found_before_a_message_is() {
        let desk = Desk::new(5);
        // Type 7 is among the messages after the first: each record has 48 bytes.
        let strays = "(local.set $next (i32.const 0))
            (if (i32.gt_u (local.get $count) (i32.const 35)) (then
              (if (i32.eq (i32.load offset=1688 (local.get $at)) (i32.const 7)) (then
                (local.set $stream (local.get $reason))))))";
        let error = desk
            .slot
            .activate(&desk.version("one", strays), Timestamp::EPOCH)
            .unwrap_err();
        assert!(
            matches!(error, StartError::Trial(Fault::UnknownStream(_))),
            "{error:?}"
        );

        let info = VersionInfo::clone(&desk.slot.status(Timestamp::from_millis(10)).version);
        let make: MakeNative<Routing> = Box::new(|| Box::new(RejectAll(Symbol::NONE)));
        let fault = Native::new(info, &desk.names, make).unwrap_err();
        assert_eq!(fault, Fault::UnknownReason(Symbol::NONE));
    }

    #[test]
    fn a_failed_call_is_answered_by_the_last_good_version() {
        let desk = Desk::new(5);
        let mut worker = desk.slot.worker();
        desk.activate(&desk.version("good", ""));
        desk.activate(&desk.version("bad", LOOPS_AT_66));
        assert_eq!(desk.reason(&mut worker, 1), well("bad"));
        assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
        assert_eq!(desk.reason(&mut worker, 1), well("bad"));
        assert_eq!(desk.slot.status(Timestamp::from_millis(10)).failures, 1);
    }

    #[test]
    fn a_failed_call_is_answered_by_the_native_build_if_nothing_else_is_left() {
        let desk = Desk::new(5);
        let mut worker = desk.slot.worker();
        desk.activate(&desk.version("worse", LOOPS_AT_66));
        assert_eq!(desk.reason(&mut worker, 66), rescued("native"));
        desk.activate(&desk.version("bad", LOOPS_AT_66));
        assert_eq!(
            desk.reason(&mut worker, 66),
            rescued("native"),
            "the last good one fails too"
        );
        assert_eq!(desk.reason(&mut worker, 1), well("bad"));
    }

    #[test]
    fn a_version_over_its_budget_is_taken_out() {
        let desk = Desk::new(1);
        let mut worker = desk.slot.worker();
        let mut other = desk.slot.worker();
        desk.activate(&desk.version("good", ""));
        desk.activate(&desk.version("bad", LOOPS_AT_66));
        desk.events();
        assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
        assert_eq!(desk.reason(&mut other, 1), well("bad"));
        assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
        assert_eq!(desk.reason(&mut worker, 66), well("good"));
        assert_eq!(desk.reason(&mut other, 66), well("good"));
        let events = [
            "by-hand for deadline",
            "by-hand for deadline",
            "by-hand back to by-hand",
        ];
        assert_eq!(desk.events(), events);
        let status = desk.slot.status(Timestamp::from_millis(10));
        assert_eq!((status.generation, status.failures), (3, 0));
        assert_eq!(
            status.fallback.unwrap().fault,
            "it took longer than its 10 ms"
        );
        assert!(status.last_good.is_none());
    }

    #[test]
    fn the_native_build_takes_over_from_the_last_version() {
        let desk = Desk::new(0);
        let mut worker = desk.slot.worker();
        desk.activate(&desk.version("bad", LOOPS_AT_66));
        assert_eq!(desk.reason(&mut worker, 66), rescued("native"));
        assert_eq!(desk.reason(&mut worker, 66), well("native"));
        assert!(desk.slot.current().is_none());
        let events = [
            "1: by-hand",
            "reject-all for deadline",
            "by-hand back to reject-all",
        ];
        assert_eq!(desk.events(), events);
        desk.activate(&desk.version("again", ""));
        assert_eq!(desk.reason(&mut worker, 66), well("again"));
    }

    #[test]
    fn every_batch_is_answered_while_versions_come_and_go() {
        let desk = Desk::new(0);
        let versions = ["one", "two", "three"].map(|reason| desk.version(reason, LOOPS_AT_66));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut worker = desk.slot.worker();
                    let mut batches = 0_u32;
                    // `reason` insists on a decision for each message.
                    while !done.load(Ordering::Acquire) || batches < 100 {
                        batches += 1;
                        desk.reason(&mut worker, if batches.is_multiple_of(50) { 66 } else { 1 });
                    }
                });
            }
            for version in versions.iter().cycle().take(60) {
                desk.activate(version);
            }
            done.store(true, Ordering::Release);
        });
        assert!(desk.slot.status(Timestamp::from_millis(10)).generation >= 60);
    }
}
