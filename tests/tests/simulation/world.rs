//! What everything in one run shares: time, chance, the trace, and the ledger.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oona::clock::Clock;
use oona_core::Timestamp;
use oona_core::entry::EntryId;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::ledger::Ledger;

/// When every run begins, in ms since the epoch.
const BEGINNING_MS: u64 = 1_800_000_000_000;

/// How many lines of a trace are kept for whoever reads why a seed failed.
const LINES_MAX: usize = 400;

/// See the module. Its clones are the same world.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

struct Inner {
    began: Instant,
    state: Mutex<State>,
    broken: Notify,
    troubled: AtomicBool,
}

struct State {
    chance: TestRng,
    ledger: Ledger,
    trace: Trace,
}

/// What happened, line by line. Of all lines there is a hash, of the last ones the text.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) lines: VecDeque<String>,
    pub(crate) count: u64,
    pub(crate) hash: u64,
}

impl World {
    /// Begins now, by the time of this runtime.
    pub(crate) fn new(seed: u64, ledger: Ledger) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let state = State {
            chance: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            ledger,
            trace: Trace {
                lines: VecDeque::new(),
                count: 0,
                hash: 0xcbf2_9ce4_8422_2325,
            },
        };
        Self(Arc::new(Inner {
            began: Instant::now(),
            state: Mutex::new(state),
            broken: Notify::new(),
            troubled: AtomicBool::new(true),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it has gone on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// The time by the store, which is the true one.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(BEGINNING_MS) + self.elapsed()
    }

    /// The true time.
    pub(crate) fn clock(&self) -> Clock {
        let world = self.clone();
        Arc::new(move || world.now())
    }

    /// Whether handlers fail.
    pub(crate) fn troubled(&self) -> bool {
        self.0.troubled.load(Ordering::Relaxed)
    }

    /// From now on handlers do what they can.
    pub(crate) fn calm_down(&self) {
        self.0.troubled.store(false, Ordering::Relaxed);
    }

    /// A number from `least` to `most`.
    pub(crate) fn between(&self, least: u64, most: u64) -> u64 {
        self.state().chance.random_range(least..=most)
    }

    /// A duration from `least` to `most`, in ms.
    pub(crate) fn ms(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.between(1, n) == 1
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, these: &'a [T]) -> &'a T {
        let index = self.state().chance.random_range(0..these.len());
        &these[index]
    }

    /// Waits for a time from `least` to `most`, in ms.
    pub(crate) async fn wait(&self, least: u64, most: u64) {
        let time = self.ms(least, most);
        if !time.is_zero() {
            sleep(time).await;
        }
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&self, who: &str, what: impl Display) {
        let ms = self.elapsed().as_millis();
        let line = format!("{:>4}.{:03} {who:<8} {what}", ms / 1_000, ms % 1_000);
        let mut state = self.state();
        let trace = &mut state.trace;
        trace.count += 1;
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if trace.lines.len() >= LINES_MAX {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    }

    /// Writes in the ledger. The invariants are checked as it is written.
    pub(crate) fn ledger<T>(&self, write: impl FnOnce(&mut Ledger, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let answer = write(&mut state.ledger, now);
        let broken = state.ledger.broken.is_some();
        drop(state);
        if broken {
            self.0.broken.notify_one();
        }
        answer
    }

    /// Returns when an invariant is broken.
    pub(crate) async fn broken(&self) {
        self.0.broken.notified().await;
    }

    pub(crate) fn trace(&self) -> Trace {
        self.state().trace.clone()
    }
}

/// An entry's place, short enough to read.
pub(crate) fn short(id: EntryId) -> String {
    format!("{}-{}", id.ms.saturating_sub(BEGINNING_MS), id.seq)
}
