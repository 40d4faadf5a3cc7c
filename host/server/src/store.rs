//! Where messages are kept: one narrow trait, two implementations, one conformance suite for both.
//!
//! Every step that moves a message is one atomic write, so that a crash at any instant leaves it in
//! exactly one place. Nothing here decides: it is told what to write.

pub mod memory;
pub mod redis;
mod turns;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::broadcast::{ReceiptOutcome, Sight};
use oona_core::dead_letter::audit::Stride;
use oona_core::entry::{Entry, EntryId, Fields, Record};
use oona_core::policy::NonceSeen;
use serde::Serialize;

pub use self::turns::{IN_LINE, Mended, Turns};

/// Name of a stream.
pub type StreamName = Arc<str>;

/// A store of streams with consumer groups.
#[async_trait]
pub trait Store: Turns + Send + Sync + fmt::Debug {
    /// What it is.
    fn info(&self) -> StoreInfo;

    /// Why it may not keep what it is given, as far as is known: a matter of its configuration.
    fn caution(&self) -> Option<String> {
        None
    }

    /// Whether it answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Appends all, in order, in one pipeline; one answer for each. An outer error says that nothing
    /// is known of any of them.
    async fn append(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError>;

    /// What was appended under these event ids, as far as it is still known.
    async fn recall(&self, events: &[Arc<str>]) -> Result<Vec<Option<Written>>, StoreError>;

    /// Appends an entry, in one atomic step, if the last one is `last` (`None`: there is none): under
    /// `id`, which must be greater, or under the next that there is. `None` if another is the last.
    async fn append_after(
        &self,
        stream: &StreamName,
        last: Option<EntryId>,
        id: Option<EntryId>,
        record: &Record,
    ) -> Result<Option<EntryId>, StoreError>;

    /// Makes a consumer group, and the stream with it, unless it exists.
    async fn ensure_group(
        &self,
        stream: &StreamName,
        group: &str,
        start: GroupStart,
    ) -> Result<(), StoreError>;

    /// Reads entries that no member of the group has read, and waits for some if there are none.
    /// Each comes with the position of its stream in the request. Who asks for none, or names no
    /// stream, gets nothing at once.
    async fn read(&self, request: ReadRequest<'_>) -> Result<Vec<(usize, Entry)>, StoreError>;

    /// Takes over entries that have lain with a consumer for too long, oldest first.
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError>;

    /// Says that entries are still in the hands of this consumer: their idle time begins anew.
    /// Those that are not (any longer) are left alone.
    async fn touch(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
        ids: &[EntryId],
    ) -> Result<(), StoreError>;

    /// Settles entries of a group, each in one atomic write, together with its receipt. `false` for those that were not pending:
    /// somebody else has settled them, and nothing was written.
    async fn settle(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError>;

    /// Where each of these groups stands with an entry, and its receipt under this name: all at one
    /// instant.
    async fn sights(
        &self,
        stream: &StreamName,
        id: EntryId,
        receipt: &str,
        groups: &[String],
    ) -> Result<Vec<Sight>, StoreError>;

    /// Moves up to `count` delayed retries that are due at `now` to the end of their stream.
    async fn promote(
        &self,
        stream: &StreamName,
        now: Timestamp,
        count: usize,
    ) -> Result<u64, StoreError>;

    /// How deep the streams are. A stream that does not exist is empty.
    async fn depths(&self, streams: &[StreamName]) -> Result<Vec<StreamDepth>, StoreError>;

    /// The oldest entry of each stream, and of each of its groups. A stream that does not exist has neither.
    async fn oldest(&self, streams: &[StreamName]) -> Result<Vec<Oldest>, StoreError>;

    /// Removes the oldest finished entries of a stream that is longer than `length_max`, down to it.
    /// Never one that a group has yet to finish; a stream without groups is left alone.
    async fn trim(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError>;

    /// Removes the oldest entries of a stream that is longer than `length_max`, down to it, whether they
    /// are finished or not: from the stream, and from what its groups have pending.
    async fn drop_oldest(
        &self,
        stream: &StreamName,
        length_max: u64,
    ) -> Result<Dropped, StoreError>;

    /// Removes the names of consumers that have been idle for so long, unless something is pending under
    /// them. Answers how many.
    async fn remove_idle_consumers(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<u64, StoreError>;

    /// Removes groups that have had something to finish for so long, and in which nobody has been active
    /// meanwhile. Of a group without consumers nothing tells since when: its time begins when this is
    /// asked first. A group that has nothing to finish holds nobody up, and stays.
    async fn remove_idle_groups(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<Vec<RemovedGroup>, StoreError>;

    /// Up to `count` entries after `after`, oldest first.
    async fn range(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Steps over up to `count` entries after `after`, oldest first, and reads those that `stride` takes.
    async fn sample(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
        stride: Stride,
    ) -> Result<Sampled, StoreError> {
        let entries = self.range(stream, after, count).await?;
        Ok(Sampled {
            seen: entries.len() as u64,
            last: entries.last().map(|entry| entry.id),
            entries: (0..)
                .zip(entries)
                .filter_map(|(place, entry)| stride.takes(place).then_some(entry))
                .collect(),
        })
    }

    /// Moves an entry to another stream, with other fields. `None` if it was gone.
    async fn redrive(
        &self,
        from: &StreamName,
        id: EntryId,
        to: &StreamName,
        fields: &Fields,
    ) -> Result<Option<EntryId>, StoreError>;

    /// Removes entries, finished or not; answers how many there were.
    async fn remove(&self, stream: &StreamName, ids: &[EntryId]) -> Result<u64, StoreError>;

    /// Removes the oldest entries of a stream, finished or not: those from before `before`, and as
    /// many as are more than `length_max`. Answers how many.
    async fn expire(
        &self,
        stream: &StreamName,
        before: Timestamp,
        length_max: u64,
    ) -> Result<u64, StoreError>;

    /// The last entry of a stream, if it has any.
    async fn last(&self, stream: &StreamName) -> Result<Option<EntryId>, StoreError>;

    /// Remembers nonces for a group, whichever replica asks; answers what was known of each.
    async fn remember(
        &self,
        group: &str,
        claims: &[NonceClaim],
    ) -> Result<Vec<NonceSeen>, StoreError>;

    /// Keeps bytes under a name for good, instead of others that may be there.
    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError>;

    /// What is kept under a name.
    async fn kept(&self, name: &str) -> Result<Option<Bytes>, StoreError>;

    /// Gives up a consumer name, unless something is pending under it.
    async fn leave(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
    ) -> Result<(), StoreError>;
}

/// What a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Which kind.
    pub name: &'static str,
    /// Where, without secrets.
    pub address: String,
    /// Whether it outlives the process.
    pub durable: bool,
}

/// An entry to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Where to.
    pub stream: StreamName,
    /// What.
    pub record: Record,
    /// Whether to look first if it is there already.
    pub once: Option<Once>,
}

impl Append {
    /// To be appended whatever is there.
    #[must_use]
    pub fn new(stream: StreamName, record: Record) -> Self {
        Self {
            stream,
            record,
            once: None,
        }
    }
}

/// Makes an append happen once: the entry and the memory of it are one atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The event id that must not have been appended before.
    pub event: Arc<str>,
    /// For how long it is remembered.
    pub window: Duration,
    /// What is remembered with it.
    pub note: Bytes,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The entry.
    pub id: EntryId,
    /// What was noted with it, if it was there before and nothing was written now.
    pub before: Option<Bytes>,
}

impl Written {
    /// It was not there before.
    #[must_use]
    pub const fn now(id: EntryId) -> Self {
        Self { id, before: None }
    }
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupStart {
    /// With the oldest entry that there is: what was published before is seen.
    #[default]
    Beginning,
    /// With what comes from now on.
    End,
}

/// Asks for new entries.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// For which group.
    pub group: &'a str,
    /// Under which name.
    pub consumer: &'a str,
    /// From which streams.
    pub streams: &'a [StreamName],
    /// How many from each, at most.
    pub count: usize,
    /// How long to wait if there are none.
    pub block: Duration,
}

/// Asks for entries that others have left.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest<'a> {
    /// From which stream.
    pub stream: &'a StreamName,
    /// For which group.
    pub group: &'a str,
    /// Under which name.
    pub consumer: &'a str,
    /// How long they must have lain there.
    pub idle_min: Duration,
    /// How many, at most.
    pub count: usize,
}

/// An entry taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The entry.
    pub entry: Entry,
    /// How often it has been delivered, this time included.
    pub deliveries: u32,
}

/// What becomes of a pending entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Its stream.
    pub stream: StreamName,
    /// Its place there.
    pub id: EntryId,
    /// What becomes of it.
    pub step: Step,
    /// What is noted of it for whoever waits.
    pub receipt: Option<Receipted>,
}

/// A receipt of a group, for whoever broadcast the message. Held for [`RECEIPT_KEPT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipted {
    /// Under which name.
    pub name: String,
    /// How the entry was settled.
    pub outcome: ReceiptOutcome,
}

/// How long receipts are held after the last of them.
pub const RECEIPT_KEPT: Duration = Duration::from_secs(600);

/// See [`Settlement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is finished.
    Ack,
    /// It is finished, and written anew: at once, or when its time has come.
    Retry {
        /// What is written.
        record: Record,
        /// When.
        at: Option<Timestamp>,
    },
    /// It is finished, and a dead letter is written.
    DeadLetter {
        /// Where to.
        stream: StreamName,
        /// What is written.
        record: Record,
        /// What is written beside it, in the field [`ORIGINAL`](oona_core::entry::ORIGINAL).
        original: Option<Bytes>,
    },
}

/// What a step over entries has met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// How many entries it was.
    pub seen: u64,
    /// The last of them.
    pub last: Option<EntryId>,
    /// Those that were read.
    pub entries: Vec<Entry>,
}

/// How many entries were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Those that every group had finished.
    pub finished: u64,
    /// Those that some group had yet to finish; all, if there is no group.
    pub unfinished: u64,
}

/// A group that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemovedGroup {
    /// Its name.
    pub name: String,
    /// What it had yet to finish: not read, or not settled.
    pub unfinished: u64,
}

/// How deep a stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamDepth {
    /// Entries held, finished ones included.
    pub length: u64,
    /// What the slowest group has yet to finish; everything if there is no group.
    pub unfinished: u64,
    /// Each group.
    pub groups: Vec<GroupDepth>,
    /// Retries that wait for their time.
    pub delayed: u64,
}

/// What a group has yet to do on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDepth {
    /// Its name.
    pub name: String,
    /// What it has yet to read. Not exact if entries were deleted that it had not read, but never
    /// more than the stream holds.
    pub lag: u64,
    /// What it has read and not settled.
    pub pending: u64,
}

/// The oldest entries of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oldest {
    /// The oldest that it holds, whatever became of it.
    pub held: Option<EntryId>,
    /// The oldest that each group has yet to finish, by the name of the group; `None` where it has finished
    /// all.
    pub unfinished: Vec<(String, Option<EntryId>)>,
}

impl StreamDepth {
    /// From what is known of each group.
    #[must_use]
    pub fn new(length: u64, groups: Vec<GroupDepth>, delayed: u64) -> Self {
        let slowest = groups.iter().map(|group| group.lag + group.pending).max();
        Self {
            length,
            unfinished: slowest.unwrap_or(length),
            groups,
            delayed,
        }
    }
}

/// A nonce to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonceClaim {
    /// Which.
    pub nonce: u64,
    /// On which entry it was seen.
    pub owner: (StreamName, EntryId),
    /// For how long.
    pub ttl: Duration,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer: refused, cut off, or too slow. What was asked may have been done.
    #[error("the store at {address} does not answer: {detail}")]
    Unavailable {
        /// Where.
        address: String,
        /// How it failed.
        detail: String,
    },
    /// It answers, and refuses to write: full, read-only, loading, or not allowed.
    #[error("the store at {address} refuses: {code} {detail}")]
    Refused {
        /// Where.
        address: String,
        /// Its own word for it.
        code: String,
        /// What it says.
        detail: String,
    },
    /// It cannot be used at all: the remedy is in the configuration.
    #[error("the store at {address} cannot be used: {detail}")]
    Unusable {
        /// Where.
        address: String,
        /// Why, and what to do.
        detail: String,
    },
    /// A group that should be there is not: the stream was deleted or the store emptied.
    #[error("consumer group `{group}` is gone")]
    NoGroup {
        /// Which.
        group: String,
    },
}

impl StoreError {
    /// Whether it is the store's fault, so that a breaker should hear of it.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Self::NoGroup { .. })
    }

    /// The same, of this group: the server tells of a missing group in words of its own.
    pub(crate) fn of_group(self, group: &str) -> Self {
        match self {
            Self::NoGroup { .. } => Self::NoGroup {
                group: group.to_owned(),
            },
            other => other,
        }
    }

    /// A short name, for answers and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "store-unavailable",
            Self::Refused { .. } => "store-refused",
            Self::Unusable { .. } => "store-unusable",
            Self::NoGroup { .. } => "no-group",
        }
    }
}
