//! A clock whose hands a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oona::clock::{self, Clock};
use oona_core::Timestamp;

/// Stands still until it is moved. Its clones are the same clock.
#[derive(Clone, Debug)]
pub struct Hands(Arc<AtomicU64>);

impl Hands {
    /// Stands at this moment.
    #[must_use]
    pub fn now() -> Self {
        Self(Arc::new(AtomicU64::new(clock::system()().as_millis())))
    }

    /// What it tells.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Moves it on.
    ///
    /// # Panics
    ///
    /// If it is moved beyond the end of time.
    pub fn forward(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).expect("a time that can be told");
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// As buses and stores ask for it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let hands = self.clone();
        Arc::new(move || hands.time())
    }
}
