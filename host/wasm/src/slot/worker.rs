//! One worker's view of a slot: it always has an answer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup};

use super::{Active, Event, Shared, lock};
use crate::instance::Instance;
use crate::version::{Version, VersionInfo};
use crate::wire::Sandboxed;

/// Who decided on a batch.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whose decisions they are.
    pub by: Arc<VersionInfo>,
    /// How the version in use failed, if somebody else had to answer.
    pub fault: Option<Fault>,
    /// How long it took, the fail-safe included.
    pub elapsed: Duration,
}

/// Where the publisher lays out what a worker shall take up with its next batch.
pub(super) struct Seat<K: Sandboxed> {
    laid_out: Mutex<Option<Ready<K>>>,
}

struct Ready<K: Sandboxed> {
    active: Arc<Active<K>>,
    instance: Option<Instance<K>>,
}

impl<K: Sandboxed> Seat<K> {
    /// Replaces what lay there and was not taken up.
    pub(super) fn lay_out(&self, active: &Arc<Active<K>>, instance: Option<Instance<K>>) {
        let ready = Ready {
            active: Arc::clone(active),
            instance,
        };
        let stale = lock(&self.laid_out).replace(ready);
        drop(stale);
    }
}

/// See the module. One per thread or task; it can be sent between them.
pub struct Worker<K: Sandboxed> {
    shared: Arc<Shared<K>>,
    seat: Arc<Seat<K>>,
    active: Arc<Active<K>>,
    /// Of the version in use; without one the native build decides.
    current: Option<Instance<K>>,
    /// Of the last good version, kept since it was the one in use.
    last_good: Option<Instance<K>>,
    native: Box<dyn Decide<K>>,
}

impl<K: Sandboxed> std::fmt::Debug for Worker<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.active.info)
    }
}

impl<K: Sandboxed> Worker<K> {
    pub(super) fn new(shared: Arc<Shared<K>>) -> Self {
        let seat = Arc::new(Seat {
            laid_out: Mutex::new(None),
        });
        let mut seats = lock(&shared.seats);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        let active = shared.active.load_full();
        drop(seats);
        let asleep = |version: &Arc<Version<K>>| Instance::asleep(Arc::clone(version));
        let current = active.version.as_ref().map(asleep);
        let last_good = active.last_good.as_ref().map(asleep);
        let native = shared.native.policy();
        Self {
            shared,
            seat,
            active,
            current,
            last_good,
            native,
        }
    }

    /// What is said of the version in use, as this worker knows it.
    #[must_use]
    pub fn version(&self) -> &Arc<VersionInfo> {
        &self.active.info
    }

    /// Decides on each of `questions`, in order, into `decisions`, which is cleared first. There
    /// are always as many decisions as questions: whatever fails, somebody answers.
    pub fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Answer {
        let begun = Clock::now();
        self.take_up();
        let asked = match &mut self.current {
            Some(instance) => instance.decide(now, state, questions, text, decisions),
            None => {
                self.ask_native(now, state, questions, text, decisions);
                Ok(())
            }
        };
        let memory = self.current.as_ref().and_then(Decide::memory_bytes);
        let usage = &self.active.usage;
        usage.count(now, begun.elapsed(), memory.unwrap_or_default());
        let (by, fault) = match asked {
            Ok(()) => {
                self.active
                    .decisions
                    .fetch_add(questions.len() as u64, Ordering::Relaxed);
                (Arc::clone(&self.active.info), None)
            }
            Err(fault) => {
                let by = self.rescue(now, state, questions, text, decisions);
                self.account(now, &fault, &by);
                (by, Some(fault))
            }
        };
        debug_assert_eq!(decisions.len(), questions.len());
        Answer {
            by,
            fault,
            elapsed: begun.elapsed(),
        }
    }

    /// Changes over, if the publisher has moved on.
    fn take_up(&mut self) {
        if self.shared.active.load().generation <= self.active.generation {
            return;
        }
        let begun = Clock::now();
        let (active, instance) = match lock(&self.seat.laid_out).take() {
            Some(ready) => (ready.active, ready.instance),
            None => (self.shared.active.load_full(), None),
        };
        let mut spare = [self.current.take(), self.last_good.take(), instance];
        let mut find = |wanted: &Option<Arc<Version<K>>>| {
            let wanted = wanted.as_ref()?;
            let found = spare.iter_mut().rev().find(|spare| {
                spare
                    .as_ref()
                    .is_some_and(|spare| Arc::ptr_eq(spare.version(), wanted))
            });
            let found = found.and_then(Option::take);
            Some(found.unwrap_or_else(|| Instance::asleep(Arc::clone(wanted))))
        };
        self.current = find(&active.version);
        self.last_good = find(&active.last_good);
        self.active = active;
        let pause_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.active
            .pause_ns_max
            .fetch_max(pause_ns, Ordering::Relaxed);
    }

    /// Has somebody else answer: the last good version, or else the native build.
    fn rescue(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Arc<VersionInfo> {
        if let Some(last_good) = &mut self.last_good
            && last_good
                .decide(now, state, questions, text, decisions)
                .is_ok()
        {
            return Arc::clone(last_good.version().info());
        }
        self.ask_native(now, state, questions, text, decisions);
        Arc::clone(&self.shared.native.info)
    }

    fn ask_native(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) {
        let native = self.native.as_mut();
        ask_native(native, now, state, questions, text, decisions);
    }

    /// Counts a failure, tells of it, and has the version taken out if it was one too many.
    fn account(&mut self, now: Timestamp, fault: &Fault, by: &Arc<VersionInfo>) {
        let over = self.active.failed(now);
        (self.shared.events)(Event::Failed {
            version: Arc::clone(&self.active.info),
            answered_by: Arc::clone(by),
            fault: fault.clone(),
        });
        if over {
            self.shared.take_out(&self.active, fault, now);
        }
    }
}

/// Asks the native build, which answers whatever it is asked.
pub(super) fn ask_native<K: Sandboxed>(
    native: &mut dyn Decide<K>,
    now: Timestamp,
    state: &K::State,
    questions: &[K::Question],
    text: &Arc<dyn Lookup>,
    decisions: &mut Vec<K::Decision>,
) {
    let decided = native.decide(now, state, questions, text, decisions);
    assert!(
        decided.is_ok() && decisions.len() == questions.len(),
        "the native build answers every question: {decided:?}"
    );
}
