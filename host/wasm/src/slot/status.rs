//! What `policy list` shows of a slot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Active, Fallback};
use crate::version::VersionInfo;
use crate::wire::Sandboxed;

/// What is in use, and how it does.
#[derive(Clone, Debug, Serialize)]
pub struct SlotStatus {
    /// The version in use.
    pub version: Arc<VersionInfo>,
    /// The version that takes over if it fails; the native build without one.
    pub last_good: Option<Arc<VersionInfo>>,
    /// The number of the change that brought it, from 0 for what was there at the start.
    pub generation: u64,
    /// Since when it is in use, in ms since the epoch.
    pub since_ms: u64,
    /// How many messages it has decided on since then.
    pub decisions: u64,
    /// How many of its calls have failed since then.
    pub failures: u64,
    /// The longest that a worker took to change to it, in ns; zero if none has changed yet.
    pub pause_ns_max: u64,
    /// Why it is in use, if nobody activated it.
    pub fallback: Option<Fallback>,
}

impl SlotStatus {
    pub(super) fn of<K: Sandboxed>(active: &Active<K>) -> Self {
        Self {
            version: Arc::clone(&active.info),
            last_good: active
                .last_good
                .as_ref()
                .map(|version| Arc::clone(version.info())),
            generation: active.generation,
            since_ms: active.since.as_millis(),
            decisions: active.decisions.load(Ordering::Relaxed),
            failures: active.failures.load(Ordering::Relaxed),
            pause_ns_max: active.pause_ns_max.load(Ordering::Relaxed),
            fallback: active.fallback.clone(),
        }
    }
}
