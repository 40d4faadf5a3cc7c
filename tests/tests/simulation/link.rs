//! What is between a host and the rest of the world: its line to the store, its clock, and its life.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oona::clock::Clock;
use oona_core::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::scenario::CLAIM_IDLE;
use crate::world::World;

/// How the line to the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Quick, and without faults.
    Calm,
    /// A fault now and then.
    Fair,
    /// Faults, and delays.
    Rough,
    /// No faults, but seconds of delay.
    Slow,
    /// Nothing comes through.
    Down,
    /// All comes through, and no answer comes back.
    Deaf,
}

/// See the module.
pub(crate) struct Link {
    /// Host and life, like `h1.2`.
    pub(crate) name: String,
    pub(crate) world: World,
    /// What is asked of the store goes out in order, but for reads.
    pub(crate) line: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    resumed: Notify,
    dead: AtomicBool,
    died: Notify,
}

struct State {
    weather: Weather,
    paused_until: Option<Instant>,
    /// How far the clock is ahead, in ms.
    skew_ms: i64,
    latest: Timestamp,
    disturbed_at: Option<Instant>,
}

impl Link {
    pub(crate) fn new(name: String, world: World) -> Arc<Self> {
        Arc::new(Self {
            name,
            world,
            line: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                weather: Weather::Calm,
                paused_until: None,
                skew_ms: 0,
                latest: Timestamp::EPOCH,
                disturbed_at: None,
            }),
            resumed: Notify::new(),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by its own clock.
    pub(crate) fn time(&self) -> Timestamp {
        let now = self.world.now();
        let mut state = self.state();
        let by = Duration::from_millis(state.skew_ms.unsigned_abs());
        let time = if state.skew_ms < 0 {
            now - by
        } else {
            now + by
        };
        state.latest = state.latest.max(time);
        time
    }

    /// The latest time that its clock has told: what it took for too old may not seem so any more once
    /// the clock is set back.
    pub(crate) fn latest(&self) -> Timestamp {
        let now = self.time();
        self.state().latest.max(now)
    }

    pub(crate) fn clock(self: &Arc<Self>) -> Clock {
        let link = Arc::clone(self);
        Arc::new(move || link.time())
    }

    /// Sets its clock so far ahead.
    pub(crate) fn skew(&self, ms: i64) {
        self.state().skew_ms = ms;
    }

    pub(crate) fn weather(&self) -> Weather {
        self.state().weather
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// From now on nothing that it does is seen by anybody.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_waiters();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Returns when it dies.
    pub(crate) async fn died(&self) {
        let mut died = std::pin::pin!(self.died.notified());
        died.as_mut().enable();
        if !self.is_dead() {
            died.await;
        }
    }

    /// Nothing goes out and nothing comes in for a while.
    pub(crate) fn pause(&self, time: Duration) {
        let mut state = self.state();
        let until = Some(Instant::now() + time);
        state.paused_until = state.paused_until.max(until);
    }

    /// Ends a pause before its time.
    pub(crate) fn resume(&self) {
        if self.state().paused_until.take().is_some() {
            self.disturb();
        }
        self.resumed.notify_waiters();
    }

    /// Passes when the host is alive and awake. Of a dead one it never does.
    pub(crate) async fn gate(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let mut resumed = std::pin::pin!(self.resumed.notified());
            resumed.as_mut().enable();
            let until = self.state().paused_until;
            let Some(until) = until.filter(|until| *until > Instant::now()) else {
                return;
            };
            self.disturb();
            tokio::select! {
                biased;
                () = resumed => {}
                () = sleep_until(until) => {}
            }
            self.disturb();
        }
    }

    /// Something has come between the host and the store.
    pub(crate) fn disturb(&self) {
        self.state().disturbed_at = Some(Instant::now());
    }

    /// Whether it cannot be blamed if others claim what it holds: it is dead, or something came between
    /// it and the store within the time after which others may claim.
    pub(crate) fn disturbed(&self) -> bool {
        let state = self.state();
        let paused = state
            .paused_until
            .is_some_and(|until| until + CLAIM_IDLE >= Instant::now());
        let recently = |at: Instant| at.elapsed() <= CLAIM_IDLE;
        paused || self.is_dead() || state.disturbed_at.is_some_and(recently)
    }
}
