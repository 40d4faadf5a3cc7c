//! The place of one kind of policy: which version is in use, and what answers when it fails.
//!
//! Why: a policy is replaced while messages are under way, and may be wrong. Neither may cost a
//! message. Every worker reads one pointer per batch; when that has moved it takes up the instance
//! that the publisher has laid out for it, already warm. A failed call is answered by the last good
//! version, or by the native build, which cannot fail. Trips when: a version spends its budget of
//! failures; it is taken out then, and the last good one takes its place, or the native build
//! without one. Recovers when: an operator activates another version.

mod status;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant as Clock};

use arc_swap::ArcSwap;
use oona_core::Timestamp;
use oona_core::budget::{BudgetConfig, FailureBudget};
use oona_core::policy::{Decide, Fault, Lookup, NoText};
use oona_core::symbols::Symbol;
use serde::Serialize;

pub use self::status::SlotStatus;
use self::worker::Seat;
pub use self::worker::{Answer, Worker};
use crate::instance::Instance;
use crate::version::{StartError, Version, VersionInfo};
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

/// The native build of the shipped policy: the fail-safe that is always there. What `make` makes
/// answers every batch; it is configured already and names only streams of the bus.
pub struct Native<K: Sandboxed> {
    /// What is said of it.
    pub info: VersionInfo,
    /// Makes one for a worker.
    pub make: Box<dyn Fn() -> Box<dyn Decide<K>> + Send + Sync>,
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
    native_info: Arc<VersionInfo>,
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
        let native_info = Arc::new(native.info.clone());
        let active = Active::new(0, Arc::clone(&native_info), budget, now);
        let shared = Shared {
            native,
            native_info,
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
    /// a plain question. Blocks for about a millisecond; workers decide on, and change over with
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
        match try_out(version, now) {
            Ok(tried) => Ok(self.shared.publish(version, tried, now, begun)),
            Err(error) => {
                let reason = sentence(&error);
                (self.shared.events)(Event::Refused {
                    version: Arc::clone(version.info()),
                    reason,
                });
                Err(error)
            }
        }
    }

    /// The version in use; `None` while the native build decides.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Version<K>>> {
        self.shared.active.load().version.clone()
    }

    /// What is in use, and how it does.
    #[must_use]
    pub fn status(&self) -> SlotStatus {
        SlotStatus::of(&self.shared.active.load())
    }
}

impl<K: Sandboxed> Shared<K> {
    /// Lays out an instance for each worker, and moves the pointer.
    fn publish(
        &self,
        version: &Arc<Version<K>>,
        tried: Instance<K>,
        now: Timestamp,
        begun: Clock,
    ) -> Activation {
        let mut warm = Vec::from([tried]);
        let workers = lock(&self.seats).len();
        // A worker for whom there is none starts its own, or counts a failure if it cannot.
        warm.extend((1..workers).map_while(|_| try_out(version, now).ok()));

        let mut seats = lock(&self.seats);
        seats.retain(|seat| seat.strong_count() > 0);
        let before = self.active.load_full();
        let info = Arc::clone(version.info());
        let generation = before.generation + 1;
        let active = Arc::new(Active {
            version: Some(Arc::clone(version)),
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
            .map_or(&self.native_info, |version| version.info());
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

/// Starts an instance and asks it one plain question, so that its code and memory are warm and its
/// most ordinary answer is known to be a valid one.
fn try_out<K: Sandboxed>(
    version: &Arc<Version<K>>,
    now: Timestamp,
) -> Result<Instance<K>, StartError> {
    let mut instance = version.instance()?;
    let stream = version
        .names()
        .streams
        .first()
        .copied()
        .unwrap_or(Symbol::NONE);
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let question = K::sample(stream);
    let mut decisions = Vec::with_capacity(1);
    instance
        .decide(
            now,
            &K::State::default(),
            &[question],
            &text,
            &mut decisions,
        )
        .map_err(StartError::Trial)?;
    Ok(instance)
}

/// An error and its causes, in one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
