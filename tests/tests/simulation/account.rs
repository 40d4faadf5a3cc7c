//! What a ledger is made of.

use std::collections::BTreeMap;

use oona::store::StreamName;
use oona_core::Timestamp;
use oona_core::entry::EntryId;
use oona_core::envelope::Message;

use crate::scenario::FRESHNESS_WINDOW;

/// What was broken, and how.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) accepted: u64,
    pub(crate) deliveries: u64,
    pub(crate) acked: u64,
    pub(crate) dead: u64,
    pub(crate) redriven: u64,
    pub(crate) expired: u64,
    pub(crate) retries: u64,
    pub(crate) faults: u64,
}

#[derive(Default)]
pub(crate) struct Event {
    /// Where hosts wrote it for producers.
    pub(crate) published: Vec<(StreamName, EntryId)>,
    /// How often it was written by producers and by others, redrives left out.
    pub(crate) written: u32,
    /// How often a producer has tried.
    pub(crate) tries: u32,
    pub(crate) accounts: BTreeMap<String, Account>,
}

/// What one group owes one event.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) due: u32,
    pub(crate) done: u32,
    pub(crate) done_in: BTreeMap<StreamName, u32>,
    pub(crate) retries: u32,
}

/// Whether messages of this type have a nonce, by the freshness policy.
pub(crate) fn has_nonce(message_type: u32) -> bool {
    (6..=9).contains(&message_type)
}

/// Whether freshness refuses it as too old.
pub(crate) fn is_stale(message: &Message, now: Timestamp) -> bool {
    let expired = message.expires_at.is_some_and(|at| now > at);
    let created = message.created_at.unwrap_or(now);
    let window = has_nonce(message.message_type) && now.since(created) > FRESHNESS_WINDOW;
    expired || window
}
