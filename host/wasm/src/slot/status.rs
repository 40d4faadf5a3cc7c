//! What `policy list` shows of a slot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use oona_core::Timestamp;
use serde::Serialize;

use super::{Active, Fallback, lock};
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
    /// What it may use, and what of it is used.
    pub budget: Budget,
    /// The longest that a worker took to change to it, in ns; zero if none has changed yet.
    pub pause_ns_max: u64,
    /// Why it is in use, if nobody activated it.
    pub fallback: Option<Fallback>,
}

/// What a version may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// How long one call may take, in ms; none for a native build, which has no bounds.
    pub call_ms_max: Option<u64>,
    /// How much memory one instance may have, in bytes; none for a native build.
    pub memory_bytes_max: Option<usize>,
    /// How many failed calls are forgiven within `failures_window_ms`.
    pub failures_max: u32,
    /// See `failures_max`.
    pub failures_window_ms: u64,
    /// How many there were within the window that ends now.
    pub failures_recent: usize,
    /// How long its slowest call took of late, in µs: within that window, and the one before.
    pub call_us_recent_max: u64,
    /// How much memory its largest instance has had, in bytes; zero for a native build.
    pub memory_bytes_used: u64,
}

impl SlotStatus {
    pub(super) fn of<K: Sandboxed>(active: &Active<K>, now: Timestamp) -> Self {
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
            budget: budget(active, now),
            pause_ns_max: active.pause_ns_max.load(Ordering::Relaxed),
            fallback: active.fallback.clone(),
        }
    }
}

fn budget<K: Sandboxed>(active: &Active<K>, now: Timestamp) -> Budget {
    let bounds = active
        .version
        .as_ref()
        .and_then(|version| Some(version.artifact()?.engine().config()));
    let failures = lock(&active.budget);
    Budget {
        call_ms_max: bounds.map(|bounds| bounds.call_ms_max),
        memory_bytes_max: bounds.map(|bounds| bounds.memory_bytes_max),
        failures_max: failures.config().failures,
        failures_window_ms: failures.config().window_ms,
        failures_recent: failures.spent(now),
        call_us_recent_max: super::micros(active.usage.slowest(now)),
        memory_bytes_used: active.usage.memory_bytes(),
    }
}
