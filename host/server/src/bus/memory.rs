//! What a host holds in memory, and what bounds it.

use std::sync::atomic::Ordering;

use serde::Serialize;
use tokio::sync::Semaphore;

use super::shared::Shared;
use crate::process::resident_bytes;
use crate::sync::lock;

/// How much of something there is, and how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// How much there is.
    pub held: u64,
    /// How much there may be.
    pub max: u64,
}

/// What a host holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryStatus {
    /// Memory of the process, in bytes; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
    /// Bytes of publishes that wait for their outcome.
    pub publish_queue_bytes: Held,
    /// Nonces of all groups. The bound is that of each group.
    pub nonces: Held,
    /// Groups that have nonces.
    pub nonce_groups: u64,
    /// Deliveries that wait for their settlement.
    pub in_flight: u64,
    /// Subscriptions since the start.
    pub subscriptions: u64,
}

/// What is held right now, with `room` for what waits.
pub(super) fn of(shared: &Shared, room: &Semaphore, room_max: usize) -> MemoryStatus {
    let windows = shared.nonce_windows();
    let nonces = windows.iter().map(|window| lock(window).len() as u64).sum();
    MemoryStatus {
        resident_bytes: resident_bytes("self").ok(),
        publish_queue_bytes: Held {
            held: room_max.saturating_sub(room.available_permits()) as u64,
            max: room_max as u64,
        },
        nonces: Held {
            held: nonces,
            max: shared.config.consume.nonces_max as u64,
        },
        nonce_groups: windows.len() as u64,
        in_flight: u64::try_from(shared.metrics.in_flight.get()).unwrap_or(0),
        subscriptions: shared.subscriptions.load(Ordering::Relaxed),
    }
}
