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
mod usage;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant as Clock};

use arc_swap::ArcSwap;
use oona_core::Timestamp;
use oona_core::budget::{BudgetConfig, FailureBudget};
use oona_core::policy::{Decide, Fault, Lookup};
use serde::Serialize;

pub use self::status::{Budget, SlotStatus};
use self::usage::Usage;
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
        /// The number of the change that had put it in use.
        generation: u64,
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
    usage: Usage,
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
            usage: Usage::new(now, budget.window_ms),
            pause_ns_max: AtomicU64::new(0),
        }
    }

    /// What takes over from its successor if that fails: itself, unless it fails right now; then
    /// whatever would have taken over from it.
    fn good(&self, now: Timestamp) -> Option<Arc<Version<K>>> {
        let is_failing = lock(&self.budget).spent(now) > 0;
        if is_failing {
            self.last_good.clone()
        } else {
            self.version.clone()
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

    /// What would be decided right now, and by whom, without any effect: it is asked in instances of
    /// its own, and what fails there is not counted against it.
    pub fn ask_apart(
        &self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Answer {
        let begun = Clock::now();
        let active = self.shared.active.load_full();
        let mut fault = None;
        for version in [&active.version, &active.last_good].into_iter().flatten() {
            let mut instance = Instance::asleep(Arc::clone(version));
            match instance.decide(now, state, questions, text, decisions) {
                Ok(()) => {
                    return Answer {
                        by: Arc::clone(version.info()),
                        fault,
                        elapsed: begun.elapsed(),
                    };
                }
                Err(failed) => fault = fault.or(Some(failed)),
            }
        }
        let native = &self.shared.native;
        worker::ask_native(
            native.policy().as_mut(),
            now,
            state,
            questions,
            text,
            decisions,
        );
        Answer {
            by: Arc::clone(&native.info),
            fault,
            elapsed: begun.elapsed(),
        }
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
            last_good: before.good(now),
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
            generation: failing.generation,
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
mod tests;
