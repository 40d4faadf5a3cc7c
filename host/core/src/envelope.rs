//! Messages, and the envelope that they travel in.
//!
//! A [`Message`] is what the bus works with; on the wire it is a `BusEnvelope` whose attributes
//! hold what the envelope has no field for. Our own attributes begin with `oona.` and are covered
//! by the signature like all others. Peers that know nothing of them leave them out, so each has a
//! stated value when it is missing.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::policy::{Priority, Subject};
use crate::symbols::Symbol;
use crate::time::Timestamp;

mod fallback;
pub mod message_type;
mod read;
mod write;

/// How often handling has failed; decimal. Shared with peers.
pub const ATTEMPT: &str = "attempt";
/// When the message was issued, in ms since the epoch.
pub const CREATED_MS: &str = "oona.created_ms";
/// When it loses its value, in ms since the epoch.
pub const EXPIRES_MS: &str = "oona.expires_ms";
/// When handling it failed first, in ms since the epoch.
pub const FIRST_FAILED_MS: &str = "oona.first_failed_ms";
/// Event id.
pub const ID: &str = "oona.id";
/// Ordering key.
pub const KEY: &str = "oona.key";
/// Priority, by name.
pub const PRIORITY: &str = "oona.priority";
/// Under which name receipts are written by those who settle it. Of broadcasts only.
pub const RECEIPT: &str = "oona.receipt";
/// How often it came back from the dead letters.
pub const REDRIVES: &str = "oona.redrives";
/// How often it was put back undelivered.
pub const RELEASES: &str = "oona.releases";
/// The consumer group that a retry is meant for.
pub const RETRY_GROUP: &str = "oona.retry_group";
/// The publishing subsystem.
pub const SOURCE: &str = "oona.source";

/// The start of every attribute key that is the bus's own.
pub const RESERVED_PREFIX: &str = "oona.";

/// The longest name of a receipt, in bytes.
const RECEIPT_BYTES_MAX: usize = 64;

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Event id, unique for each event and the same in every delivery of it.
    pub id: String,
    /// Wire number of `BusMessageType`.
    pub message_type: u32,
    /// Urgency.
    pub priority: Priority,
    /// The publishing subsystem; empty if unknown.
    pub source: String,
    /// When it was issued, if it says so.
    pub created_at: Option<Timestamp>,
    /// When it loses its value, if ever.
    pub expires_at: Option<Timestamp>,
    /// How often handling it has failed.
    pub attempt: u32,
    /// When handling it failed first, if it has failed since it was published or redriven.
    pub first_failed_at: Option<Timestamp>,
    /// How often it came back from the dead letters.
    pub redrives: u32,
    /// How often a subscription put it back undelivered.
    pub releases: u32,
    /// The consumer group that this retry is meant for; others pass it by.
    pub retry_group: Option<String>,
    /// Ordering key; empty for none.
    pub key: String,
    /// The content.
    pub payload: Bytes,
    /// All other attributes.
    pub attributes: BTreeMap<String, String>,
}

/// The hash of an event id: see [`Message::id_hash`].
#[must_use]
pub fn id_hash(id: &str) -> u64 {
    mix(fnv1a(FNV_OFFSET, id.as_bytes()))
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are no `BusEnvelope`.
    #[error("the payload is no envelope")]
    Envelope(#[source] prost::DecodeError),
    /// An attribute of the bus has a value that it cannot have.
    #[error("attribute `{key}` is `{value}`, which is not {expected}")]
    Attribute {
        /// Which.
        key: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Message {
    /// 64-bit hash of the event id: FNV-1a with a final mix. The same on every host, since replicas
    /// share what they remember. It is no secret and resists nobody: who can sign messages could
    /// make two ids meet, and would only harm their own.
    #[must_use]
    pub fn id_hash(&self) -> u64 {
        id_hash(&self.id)
    }

    /// What makes this delivery different from others of the same event: a retry, a redrive and a
    /// release are each written anew, and none of them is a replay.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        let id = fnv1a(FNV_OFFSET, self.id.as_bytes());
        let counts = [self.attempt, self.redrives, self.releases];
        mix(counts
            .iter()
            .fold(id, |hash, count| fnv1a(hash, &count.to_le_bytes())))
    }

    /// Asks whoever settles it for a receipt under this name.
    pub fn ask_receipt(&mut self, name: &str) {
        self.attributes.insert(RECEIPT.to_owned(), name.to_owned());
    }

    /// Under which name receipts of it are written, if it asks for them. A name is part of a key in the
    /// store, so one that is none of ours is passed over.
    #[must_use]
    pub fn receipt(&self) -> Option<&str> {
        let name = self.attributes.get(RECEIPT)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let ours = (1..=RECEIPT_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        ours.then_some(name)
    }

    /// The message as policies see it.
    #[must_use]
    pub fn subject(&self, source: Symbol) -> Subject {
        Subject {
            id: self.id_hash(),
            message_type: self.message_type,
            priority: self.priority,
            source,
            payload_size: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            attempt: self.attempt,
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }
}

impl AsRef<Self> for Message {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The priority of a message that does not say.
fn usual_priority(message_type: u32) -> Priority {
    if message_type == message_type::EMERGENCY_SIGNAL {
        Priority::Emergency
    } else {
        Priority::Normal
    }
}

/// Offset basis of 64-bit FNV-1a (RFC 9923).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A hash of texts, each told apart from the next, and a number.
pub(crate) fn digest(text: &str, texts: &[&str], number: u64) -> u64 {
    let all = std::iter::once(text).chain(texts.iter().copied());
    let hash = all.fold(FNV_OFFSET, |hash, text| {
        let length = text.len() as u64;
        fnv1a(fnv1a(hash, &length.to_le_bytes()), text.as_bytes())
    });
    mix(fnv1a(hash, &number.to_le_bytes()))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): spreads the bits of FNV's result.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// How long a message keeps its value, by priority, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ttls {
    /// Emergencies.
    pub emergency_ms: u64,
    /// Critical.
    pub critical_ms: u64,
    /// High.
    pub high_ms: u64,
    /// Normal.
    pub normal_ms: u64,
    /// Low.
    pub low_ms: u64,
}

impl Default for Ttls {
    fn default() -> Self {
        Self {
            emergency_ms: 300_000,
            critical_ms: 600_000,
            high_ms: 1_800_000,
            normal_ms: 3_600_000,
            low_ms: 7_200_000,
        }
    }
}

impl Ttls {
    /// How long a message of this priority keeps its value.
    #[must_use]
    pub const fn ttl(&self, priority: Priority) -> std::time::Duration {
        let ms = match priority {
            Priority::Emergency => self.emergency_ms,
            Priority::Critical => self.critical_ms,
            Priority::High => self.high_ms,
            Priority::Normal => self.normal_ms,
            Priority::Low => self.low_ms,
        };
        std::time::Duration::from_millis(ms)
    }
}

#[cfg(test)]
mod tests;
