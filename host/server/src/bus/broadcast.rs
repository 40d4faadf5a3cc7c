//! Broadcasts: a message on the control stream, and who has handled it by a deadline.
//!
//! It is for what cannot wait and must be known to have arrived: a rollback, a halt. So it goes past the
//! queue and past the policies of the publish side, straight to the store, and is read with the emergency
//! lane, before it. It is bounded in other ways: so many at once on a host, each with so many groups, and
//! none while the control stream is full. Then the store is asked, at short and growing intervals, where
//! each group stands, until all have settled it or the deadline has passed. What has not been handled by
//! then stays on the stream and is delivered all the same; the deadline is only that of the answer.

use std::time::Duration;

use oona_core::breaker::Open;
use oona_core::broadcast::{GroupReport, Waiting, all_acked};
use oona_core::entry::EntryId;
use oona_core::limits::Invalid;
use oona_core::policy::Priority;
use serde::Serialize;
use tokio::time::Instant;

use super::Bus;
use super::draft::Draft;
use super::journey;
use super::shared::Shared;
use super::subscription::GROUP_BYTES_MAX;
use crate::metrics::PublishOutcome;
use crate::store::{Append, StoreError, StreamName};

/// How many groups one broadcast waits for at most.
pub const BROADCAST_GROUPS_MAX: usize = 256;

/// The longest deadline of a broadcast.
pub const BROADCAST_DEADLINE_MAX: Duration = Duration::from_secs(60);

/// How long to wait between the first two looks, and between the last ones; it doubles in between.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// What is broadcast, and for whom it waits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Broadcast {
    /// The message; an emergency unless it says otherwise.
    pub draft: Draft,
    /// The groups whose acknowledgement is waited for; empty for all that read the control stream.
    pub groups: Vec<String>,
    /// For how long; as configured without.
    pub deadline: Option<Duration>,
}

/// Who has handled a broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BroadcastReport {
    /// The event id of the message.
    pub id: String,
    /// The stream that it is on.
    pub stream: StreamName,
    /// Its entry there.
    #[serde(serialize_with = "text")]
    pub entry: EntryId,
    /// Whether every group has acknowledged; if there is no group, nobody has.
    pub all_acked: bool,
    /// How long it took until all had settled it, or until nobody waited any longer, in ms.
    pub took_ms: u64,
    /// How far each group came.
    pub groups: Vec<GroupReport>,
}

/// Why nothing was broadcast.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// The message is over a limit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It waits for too many groups, or for one without a proper name.
    #[error(
        "a broadcast waits for at most {BROADCAST_GROUPS_MAX} groups, each with a name of 1 to {GROUP_BYTES_MAX} bytes"
    )]
    Groups,
    /// It waits for too long.
    #[error("the deadline of a broadcast is at most {} s", BROADCAST_DEADLINE_MAX.as_secs())]
    Deadline,
    /// Too many are under way.
    #[error("{0} broadcasts are under way, the limit; see broadcast.under_way_max")]
    TooMany(usize),
    /// The control stream is full.
    #[error("`{stream}` holds {depth} unfinished messages, and more are not taken")]
    Full {
        /// Its name.
        stream: StreamName,
        /// How many.
        depth: u64,
    },
    /// The publish breaker is open.
    #[error(transparent)]
    Open(#[from] Open),
    /// The store failed. Whether the message was written may be unknown; its event id tells.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus is going down.
    #[error("the bus is shutting down")]
    ShuttingDown,
}

fn text<S: serde::Serializer>(id: &EntryId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl Bus {
    /// Publishes a message on the control stream and waits until every group has settled it, or its
    /// deadline has passed.
    ///
    /// # Errors
    ///
    /// If it was not written. What was written and not acknowledged is no error but a report.
    pub async fn broadcast(&self, broadcast: Broadcast) -> Result<BroadcastReport, BroadcastError> {
        let shared = &self.shared;
        let sent = send(shared, broadcast).await;
        let outcome = match &sent {
            Ok(report) if report.all_acked => "all-acked",
            Ok(_) => "incomplete",
            Err(_) => "refused",
        };
        shared.metrics.broadcasts(outcome).inc();
        if let Ok(report) = &sent {
            let seconds = Duration::from_millis(report.took_ms).as_secs_f64();
            shared.metrics.broadcast_duration.observe(seconds);
        }
        sent
    }
}

async fn send(shared: &Shared, broadcast: Broadcast) -> Result<BroadcastReport, BroadcastError> {
    let Broadcast {
        mut draft,
        groups,
        deadline,
    } = broadcast;
    let deadline = deadline.unwrap_or(shared.config.broadcast.deadline);
    check(shared, &groups, deadline)?;
    let under_way_max = shared.config.broadcast.under_way_max;
    let _place = shared
        .broadcasts
        .try_acquire()
        .map_err(|_| BroadcastError::TooMany(under_way_max))?;
    draft.priority.get_or_insert(Priority::Emergency);
    let now = (shared.clock)();
    let mut message = draft.into_message(now, &shared.config.ttls);
    shared.config.limits.validate(&message)?;
    let receipt = uuid::Uuid::now_v7().to_string();
    message.ask_receipt(&receipt);
    let existing = existing(shared).await?;
    let mut groups = groups;
    if groups.is_empty() {
        groups.clone_from(&existing);
        groups.truncate(BROADCAST_GROUPS_MAX);
    }
    let began = Instant::now();
    let record = shared.record(&message);
    let entry = write(shared, record).await?;
    journey::broadcast(shared, &message, (now, began.elapsed()), entry);
    let mut waiting = Waiting::new(entry, &groups, &existing);
    watch(
        shared,
        &mut waiting,
        (entry, &receipt, &groups),
        (began, deadline),
    )
    .await;
    let took = began.elapsed();
    let groups = waiting.into_reports();
    Ok(BroadcastReport {
        id: message.id,
        stream: shared.config.streams.control.clone(),
        entry,
        all_acked: all_acked(&groups),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        groups,
    })
}

fn check(shared: &Shared, groups: &[String], deadline: Duration) -> Result<(), BroadcastError> {
    if shared.shutdown.is_cancelled() {
        return Err(BroadcastError::ShuttingDown);
    }
    let named = |group: &String| (1..=GROUP_BYTES_MAX).contains(&group.len());
    if groups.len() > BROADCAST_GROUPS_MAX || !groups.iter().all(named) {
        return Err(BroadcastError::Groups);
    }
    if deadline > BROADCAST_DEADLINE_MAX {
        return Err(BroadcastError::Deadline);
    }
    let stream = &shared.config.streams.control;
    let depth = shared.board().depth(shared.symbol(stream));
    if depth >= shared.config.stream_length_max {
        return Err(BroadcastError::Full {
            stream: stream.clone(),
            depth,
        });
    }
    Ok(())
}

/// The groups that read the control stream before anything is written.
async fn existing(shared: &Shared) -> Result<Vec<String>, StoreError> {
    let control = shared.config.streams.control.clone();
    let depths = shared.store.depths(&[control]).await?;
    let groups = depths.into_iter().flat_map(|depth| depth.groups);
    let mut names: Vec<_> = groups.map(|group| group.name).collect();
    names.sort();
    Ok(names)
}

async fn write(
    shared: &Shared,
    record: oona_core::entry::Record,
) -> Result<EntryId, BroadcastError> {
    let stream = shared.config.streams.control.clone();
    let permit = shared.publish_breaker().try_acquire((shared.clock)())?;
    let append = Append::new(stream.clone(), record);
    let symbol = shared.symbol(&stream);
    if let Some(lane) = shared.board().lane_mut(symbol) {
        lane.depth.wrote(1);
    }
    let written = shared.store.append(&[append]).await;
    let written = written.and_then(|answers| answers.into_iter().next().transpose());
    let fault = written.as_ref().is_err_and(StoreError::is_fault);
    shared.record_publish_breaker((shared.clock)(), permit, !fault);
    let Some(written) = written? else {
        return Err(BroadcastError::ShuttingDown);
    };
    let reason = "broadcast".into();
    shared.count_publish(&stream, PublishOutcome::Accepted, &reason, 1);
    Ok(written.id)
}

/// Looks where the groups stand until nothing will change, or the deadline has passed. A store that does
/// not answer is asked again: the message is written, and the answer may still come in time.
async fn watch(
    shared: &Shared,
    waiting: &mut Waiting,
    (entry, receipt, groups): (EntryId, &str, &[String]),
    (began, deadline): (Instant, Duration),
) {
    let until = began + deadline;
    let stream = &shared.config.streams.control;
    let (mut pause, pause_max) = LOOKS;
    let mut told = false;
    loop {
        let looked = shared.store.sights(stream, entry, receipt, groups);
        match tokio::time::timeout_at(until, looked).await {
            Ok(Ok(sights)) => waiting.see(began.elapsed(), &sights),
            Ok(Err(_)) if told => {}
            Ok(Err(error)) => {
                told = true;
                tracing::warn!(%error, %entry, "where a broadcast stands is unknown");
            }
            Err(_) => return,
        }
        if waiting.is_over() || began.elapsed() >= deadline {
            return;
        }
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep_until((Instant::now() + pause).min(until)) => {}
        }
        pause = (pause * 2).min(pause_max);
    }
}
