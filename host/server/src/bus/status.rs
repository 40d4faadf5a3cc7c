//! How the bus is, at a glance.

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::breaker::BreakerState;
use oona_core::entry::EntryId;
use oona_core::force::Forced;
use oona_core::policy::Mode;
use oona_core::trend::Rates;
use serde::{Deserialize, Serialize};

use super::board::Lane;
use super::controls::{BreakerStatus, ModeStatus};
use super::housekeeping::{self, HousekeepingStatus};
use super::keeper::store_is_up;
use super::shared::Shared;
use crate::policies::PolicyStatus;

/// How a bus is.
#[derive(Clone, Debug, Serialize)]
pub struct BusStatus {
    /// Whether it can do its work right now.
    pub ready: bool,
    /// Why it cannot, or what limits it.
    pub reasons: Vec<String>,
    /// Its store.
    pub store: StoreStatus,
    /// Whether it protects itself.
    pub mode: Mode,
    /// State of the publish breaker.
    pub publish_breaker: &'static str,
    /// State of the consume breaker.
    pub consume_breaker: &'static str,
    /// Every breaker, why it is so, and who has forced it.
    pub breakers: Vec<BreakerStatus>,
    /// Why the bus is in its mode, and who has forced it.
    pub mode_status: ModeStatus,
    /// Its streams, as last sampled.
    pub streams: Vec<StreamStatus>,
    /// What rounds of housekeeping have removed.
    pub housekeeping: HousekeepingStatus,
    /// Its policies.
    pub policies: Vec<PolicyStatus>,
}

/// The store behind a bus.
#[derive(Clone, Debug, Serialize)]
pub struct StoreStatus {
    /// Which kind.
    pub name: &'static str,
    /// Where, without secrets.
    pub address: String,
    /// Whether it outlives the process.
    pub durable: bool,
    /// Whether it answered the last call.
    pub up: bool,
}

/// One stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// What its slowest group has yet to finish, estimated for this moment.
    pub depth: u64,
    /// Entries held, finished ones included.
    pub length: u64,
    /// Retries that wait for their time.
    pub delayed: u64,
    /// For how long the oldest message is there that some group has yet to finish, in ms. Where no group
    /// reads, the oldest that is held.
    pub oldest_age_ms: Option<u64>,
    /// What happened to it within the last minute.
    pub rates: Rates,
    /// Its consumer groups.
    pub groups: Vec<GroupStatus>,
}

/// One consumer group of a stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// What it has yet to read.
    pub lag: u64,
    /// What it has read and not settled.
    pub pending: u64,
    /// For how long the oldest is there that it has yet to finish, in ms.
    pub oldest_age_ms: Option<u64>,
}

/// How often publishes ended alike: a counter of `oona_publish_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PublishCount {
    /// The stream that they were for; empty if they did not come that far.
    pub stream: Arc<str>,
    /// `accepted` or `rejected`.
    pub outcome: &'static str,
    /// Why, in the words of whoever decided.
    pub reason: Arc<str>,
    /// How often.
    pub count: u64,
}

pub(super) fn of(shared: &Shared) -> BusStatus {
    let now = (shared.clock)();
    let publish = shared.publish_breaker().state(now);
    let consume = shared.consume_breaker().state(now);
    let info = shared.store.info();
    let up = store_is_up(shared);
    let (mode_status, streams) = {
        let board = shared.board();
        let stream = |lane| stream(shared, lane, now);
        (board.mode_status(), board.lanes().map(stream).collect())
    };
    let mode = mode_status.mode;
    let breakers = shared.breakers();
    let mut reasons = Vec::new();
    if !up {
        reasons.push(format!(
            "the {} store at {} does not answer",
            info.name, info.address
        ));
    }
    let open = |breaker: &&BreakerStatus| breaker.state == BreakerState::Open.name();
    reasons.extend(breakers.iter().filter(open).map(open_words));
    if shared.shutdown.is_cancelled() {
        reasons.push("the bus is shutting down".to_owned());
    }
    let ready = reasons.is_empty();
    reasons.extend(shared.store.caution());
    if mode == Mode::Conservative {
        let why = mode_status.forced.as_ref();
        let why = why.map_or_else(|| mode_status.reason.to_owned(), Forced::words);
        reasons.push(format!(
            "conservative mode ({why}): low priorities get less room"
        ));
    }
    BusStatus {
        ready,
        reasons,
        store: StoreStatus {
            name: info.name,
            address: info.address,
            durable: info.durable,
            up,
        },
        mode,
        publish_breaker: publish.name(),
        consume_breaker: consume.name(),
        breakers,
        mode_status,
        streams,
        housekeeping: housekeeping::status(shared),
        policies: shared.policies.list(),
    }
}

fn open_words(breaker: &BreakerStatus) -> String {
    let by = breaker.forced.as_ref();
    let by = by.map_or_else(String::new, |forced| format!(", {}", forced.words()));
    format!("the {} breaker is open{by}", breaker.name)
}

fn stream(shared: &Shared, lane: &Lane, now: Timestamp) -> StreamStatus {
    let groups: Vec<_> = groups(lane, now).collect();
    let oldest = if groups.is_empty() {
        lane.oldest.held.map(|id| age_ms(id, now))
    } else {
        groups.iter().filter_map(|group| group.oldest_age_ms).max()
    };
    let depth = lane.depth.estimate();
    StreamStatus {
        name: lane.name.to_string(),
        depth,
        length: lane.sampled.length,
        delayed: lane.sampled.delayed,
        oldest_age_ms: oldest,
        rates: lane.trend.rates(now, shared.totals(&lane.name, depth)),
        groups,
    }
}

/// The groups of a stream.
pub(super) fn groups(lane: &Lane, now: Timestamp) -> impl Iterator<Item = GroupStatus> {
    lane.sampled.groups.iter().map(move |group| {
        let mut known = lane.oldest.unfinished.iter();
        let oldest = known.find(|(name, _)| *name == group.name);
        // What was finished since is not old.
        let has_some = group.lag + group.pending > 0;
        let oldest = oldest.and_then(|(_, id)| *id).filter(|_| has_some);
        GroupStatus {
            name: group.name.clone(),
            lag: group.lag,
            pending: group.pending,
            oldest_age_ms: oldest.map(|id| age_ms(id, now)),
        }
    })
}

fn age_ms(id: EntryId, now: Timestamp) -> u64 {
    now.as_millis().saturating_sub(id.ms)
}
