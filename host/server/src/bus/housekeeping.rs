//! Rounds through the store that take away what is of no more use, and an account of what they took.
//!
//! By itself a round takes only what nobody misses: entries of a stream over its length that every group
//! has finished, names of consumers that are idle and hold nothing, and dead letters by their stated
//! retention. Only if told to it takes more, and counts it: the oldest unfinished entries of an overfull
//! stream (`streams.overflow`), messages that have expired on a stream that nobody reads
//! (`housekeeping.remove_expired`), and groups that have been idle for long (`housekeeping.group_idle_ms`).
//! The urgent streams never lose anything unfinished.
//!
//! Every step is one atomic write, or removes what can only be removed once. So hosts that share a store
//! may make their rounds at once: each tells of what it removed itself.

use std::collections::BTreeMap;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId};
use oona_core::envelope::Message;
use serde::Serialize;
use tokio::time::Instant;

use super::Bus;
use super::config::Overflow;
use super::shared::Shared;
use crate::store::{RemovedGroup, StoreError, StreamName};
use crate::sync::lock;

/// How many entries of a stream that nobody reads one round looks at.
const EXPIRED_MAX: usize = 10_000;

/// How many it looks at at once.
const EXPIRED_PAGE: usize = 256;

/// What a round removes, beside its trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HousekeepingConfig {
    /// What becomes of a stream that is over its length with what is unfinished.
    pub overflow: Overflow,
    /// After how long a consumer's name goes under which nothing is pending; never without.
    pub consumer_idle: Option<Duration>,
    /// After how long a group goes that has something to finish and in which nobody is active; never
    /// without.
    pub group_idle: Option<Duration>,
    /// Whether messages go that have expired on a stream without groups.
    pub remove_expired: bool,
}

impl Default for HousekeepingConfig {
    fn default() -> Self {
        Self {
            overflow: Overflow::Reject,
            consumer_idle: Some(Duration::from_secs(3_600)),
            group_idle: None,
            remove_expired: false,
        }
    }
}

/// What was removed from one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamRemovals {
    /// Entries that every group had finished.
    pub trimmed: u64,
    /// Entries that some group had yet to finish.
    pub dropped: u64,
    /// Messages that had expired where nobody reads.
    pub expired: u64,
    /// Names of idle consumers.
    pub consumers: u64,
    /// Idle groups, with what they had yet to finish.
    pub groups: Vec<RemovedGroup>,
}

impl StreamRemovals {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What one round removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HousekeepingReport {
    /// When it began.
    pub at_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Streams that something was removed from.
    pub streams: BTreeMap<StreamName, StreamRemovals>,
    /// Dead letters over their retention.
    pub dead_letters: u64,
    /// Why it ended early, if it did.
    pub failed: Option<String>,
}

/// What all rounds since the start of the host removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HousekeepingTotals {
    /// How many rounds there were.
    pub rounds: u64,
    /// How many of them ended early.
    pub failed: u64,
    /// See [`StreamRemovals`].
    pub trimmed: u64,
    /// See [`StreamRemovals`].
    pub dropped: u64,
    /// See [`StreamRemovals`].
    pub expired: u64,
    /// See [`StreamRemovals`].
    pub consumers: u64,
    /// How many groups.
    pub groups: u64,
    /// What those groups had yet to finish.
    pub abandoned: u64,
    /// See [`HousekeepingReport`].
    pub dead_letters: u64,
}

/// The account of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HousekeepingStatus {
    /// The last round, if there was one.
    pub last: Option<HousekeepingReport>,
    /// All rounds.
    pub totals: HousekeepingTotals,
}

impl HousekeepingStatus {
    fn add(&mut self, report: HousekeepingReport) {
        let totals = &mut self.totals;
        totals.rounds += 1;
        totals.failed += u64::from(report.failed.is_some());
        totals.dead_letters += report.dead_letters;
        report
            .streams
            .values()
            .for_each(|removed| totals.add(removed));
        self.last = Some(report);
    }
}

impl HousekeepingTotals {
    fn add(&mut self, removed: &StreamRemovals) {
        self.trimmed += removed.trimmed;
        self.dropped += removed.dropped;
        self.expired += removed.expired;
        self.consumers += removed.consumers;
        self.groups += removed.groups.len() as u64;
        let unfinished = removed.groups.iter().map(|group| group.unfinished);
        self.abandoned += unfinished.sum::<u64>();
    }
}

impl Bus {
    /// What the rounds of this host have removed.
    #[must_use]
    pub fn housekeeping(&self) -> HousekeepingStatus {
        status(&self.shared)
    }

    /// Makes a round now.
    ///
    /// # Errors
    ///
    /// If the store fails. What was removed before is in the account.
    pub async fn keep_house(&self) -> Result<HousekeepingReport, StoreError> {
        round(&self.shared).await
    }
}

pub(super) fn status(shared: &Shared) -> HousekeepingStatus {
    lock(&shared.housekeeping).clone()
}

/// One round; one at a time on this host.
pub(super) async fn round(shared: &Shared) -> Result<HousekeepingReport, StoreError> {
    let _alone = shared.rounds.lock().await;
    let began = Instant::now();
    let now = (shared.clock)();
    let mut report = HousekeepingReport {
        at_ms: now.as_millis(),
        ..HousekeepingReport::default()
    };
    let done = everywhere(shared, now, &mut report).await;
    let took = began.elapsed().as_millis();
    report.took_ms = u64::try_from(took).unwrap_or(u64::MAX);
    report.failed = done.as_ref().err().map(ToString::to_string);
    lock(&shared.housekeeping).add(report.clone());
    done.map(|()| report)
}

async fn everywhere(
    shared: &Shared,
    now: Timestamp,
    report: &mut HousekeepingReport,
) -> Result<(), StoreError> {
    for stream in shared.config.streams.destinations() {
        let mut removed = StreamRemovals::default();
        let done = tidy(shared, stream, now, &mut removed).await;
        if !removed.is_empty() {
            report.streams.insert(stream.clone(), removed);
        }
        done?;
    }
    report.dead_letters = expire_letters(shared, now).await?;
    Ok(())
}

/// All that is done to one stream.
async fn tidy(
    shared: &Shared,
    stream: &StreamName,
    now: Timestamp,
    removed: &mut StreamRemovals,
) -> Result<(), StoreError> {
    let config = shared.config.housekeeping;
    if config.remove_expired {
        remove_expired(shared, stream, now, removed).await?;
    }
    if let Some(idle) = config.consumer_idle {
        let gone = shared.store.remove_idle_consumers(stream, idle).await?;
        removed.consumers = gone;
        shared.metrics.consumers_removed(stream).inc_by(gone);
    }
    if let Some(idle) = config.group_idle {
        let gone = shared.store.remove_idle_groups(stream, idle).await?;
        for RemovedGroup { name, unfinished } in &gone {
            shared.metrics.groups_removed(stream).inc();
            shared.metrics.abandoned(stream).inc_by(*unfinished);
            tracing::warn!(%stream, group = name, unfinished, "an idle group is removed");
        }
        removed.groups = gone;
    }
    trim(shared, stream, removed).await
}

/// Brings a stream down to its length between two rounds.
pub(super) async fn relieve(shared: &Shared, stream: &StreamName) -> Result<(), StoreError> {
    let mut removed = StreamRemovals::default();
    let done = trim(shared, stream, &mut removed).await;
    lock(&shared.housekeeping).totals.add(&removed);
    done
}

/// Brings a stream down to its length.
async fn trim(
    shared: &Shared,
    stream: &StreamName,
    removed: &mut StreamRemovals,
) -> Result<(), StoreError> {
    let length_max = shared.config.stream_length_max;
    let trimmed = shared.trim(stream).await?;
    shared.metrics.trimmed(stream).inc_by(trimmed);
    removed.trimmed += trimmed;
    let drops = shared.config.housekeeping.overflow == Overflow::DropOldest;
    if !drops || shared.config.streams.is_urgent(stream) {
        return Ok(());
    }
    let dropped = shared.store.drop_oldest(stream, length_max).await?;
    shared.metrics.trimmed(stream).inc_by(dropped.finished);
    shared.metrics.dropped(stream).inc_by(dropped.unfinished);
    removed.trimmed += dropped.finished;
    removed.dropped += dropped.unfinished;
    if dropped.unfinished > 0 {
        let messages = dropped.unfinished;
        tracing::warn!(%stream, messages, length_max, "an overfull stream loses unfinished messages");
    }
    Ok(())
}

/// Removes what has expired from the head of a stream that has no groups.
async fn remove_expired(
    shared: &Shared,
    stream: &StreamName,
    now: Timestamp,
    removed: &mut StreamRemovals,
) -> Result<(), StoreError> {
    let mut after = None;
    for _ in 0..EXPIRED_MAX / EXPIRED_PAGE {
        let depths = shared.store.depths(std::slice::from_ref(stream)).await?;
        if depths.iter().any(|depth| !depth.groups.is_empty()) {
            return Ok(());
        }
        let page = shared.store.range(stream, after, EXPIRED_PAGE).await?;
        let Some(last) = page.last().map(|entry| entry.id) else {
            return Ok(());
        };
        after = Some(last);
        let expired: Vec<EntryId> = page
            .iter()
            .filter(|entry| has_expired(shared, entry, now))
            .map(|entry| entry.id)
            .collect();
        let gone = shared.store.remove(stream, &expired).await?;
        shared.metrics.expired_removed(stream).inc_by(gone);
        removed.expired += gone;
        if page.len() < EXPIRED_PAGE {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether an entry is a message that has expired. What cannot be believed does not say when it does.
fn has_expired(shared: &Shared, entry: &Entry, now: Timestamp) -> bool {
    let Some(payload) = entry.payload() else {
        return false;
    };
    let signature = entry.signature().map(AsRef::as_ref);
    let believed = shared
        .keyring()
        .is_none_or(|keyring| keyring.verify(payload, signature).is_ok());
    let message = Message::decode(payload, entry.id);
    believed && message.is_ok_and(|message| message.expires_at.is_some_and(|at| at <= now))
}

/// Lets dead letters go that are older, or more, than they may be.
async fn expire_letters(shared: &Shared, now: Timestamp) -> Result<u64, StoreError> {
    let retention = shared.config.dead_letters;
    let before = retention.time.map_or(Timestamp::EPOCH, |time| now - time);
    let stream = &shared.config.streams.dead_letter;
    let expired = shared
        .store
        .expire(stream, before, retention.length_max)
        .await?;
    if expired > 0 {
        shared
            .metrics
            .dead_letters_removed("expired")
            .inc_by(expired);
        tracing::warn!(
            letters = expired,
            retention_ms = retention.time.map(|time| time.as_millis()),
            length_max = retention.length_max,
            "dead letters have expired"
        );
    }
    Ok(expired)
}
