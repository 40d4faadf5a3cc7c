//! Order among messages that share a key, for stores that keep it.
//!
//! Within a group, the messages of one key of one stream are handled one at a time and in the order
//! of the stream, whoever handles them. Who is handed one has the *turn* of its key. An entry that
//! is read while another has the turn stays where it is, read and not finished, *in line* behind it,
//! and is handed to somebody when its turn comes. So nothing is written anew, other groups and peers
//! see nothing of it, and what stands in line counts as unfinished.
//!
//! Reading an entry and taking the turn are one atomic step in the store, and so are settling it and
//! passing the turn on: there is no moment at which a host that dies leaves a gap. A retry keeps the
//! turn, whether it is written at once or waits for its time. A message without a key, and a retry
//! that is meant for another group, need no turn.
//!
//! A turn can be left behind by an entry that vanished (it was deleted, or settled by a host that
//! does not keep the order). [`Turns::mend_turns`] finds such turns and passes them on.

use async_trait::async_trait;
use bytes::Bytes;
use oona_core::entry::{Entry, EntryId};
use oona_core::envelope::Message;

use super::{ClaimRequest, Claimed, ReadRequest, Settlement, StoreError, StreamName};

/// Under which name entries that stand in line are pending. Not a name that a consumer can have:
/// those end with a number and a unique suffix.
pub const IN_LINE: &str = "oona:in-line";

/// See the module. Each is the step of the same name of [`Store`](super::Store), in turn; hosts of one
/// group must agree on which of them they use.
#[async_trait]
pub trait Turns {
    /// Reads entries whose turn has come, then those that no member of the group has read, and waits
    /// if there are none to hand out. May answer with nothing before the time is over.
    async fn read_in_turn(
        &self,
        request: ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError>;

    /// Takes over entries that have lain with a consumer for too long. What stands in line lies with
    /// nobody.
    async fn claim_in_turn(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError>;

    /// Settles entries of a group, each in one atomic write with what becomes of its turn.
    async fn settle_in_turn(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError>;

    /// Passes on turns whose entry is gone.
    async fn mend_turns(&self, stream: &StreamName, group: &str) -> Result<Mended, StoreError>;

    /// Removes the oldest finished entries of a stream that is longer than `length_max`, down to it,
    /// those behind an unfinished one too: what stands in line for long would else keep all that
    /// came after it.
    async fn thin(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError>;
}

/// What mending found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// How many turns were passed on because their entry is gone.
    pub passed: u64,
    /// How many entries stand in line, of all groups of the stream.
    pub in_line: u64,
}

/// The key in whose line an entry stands, if it needs a turn in this group.
pub(super) fn key_of(payload: Option<&Bytes>, id: EntryId, group: &str) -> Option<String> {
    let message = Message::decode(payload?, id).ok()?;
    let meant = message.retry_group.is_none_or(|meant| meant == group);
    (meant && !message.key.is_empty()).then_some(message.key)
}
