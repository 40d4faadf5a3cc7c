//! Messages, and the envelope that they travel in.
//!
//! A [`Message`] is what the bus works with; on the wire it is a `BusEnvelope` whose attributes
//! hold what the envelope has no field for. Our own attributes begin with `oona.` and are covered
//! by the signature like all others. Peers that know nothing of them leave them out, so each has a
//! stated value when it is missing.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use serde::{Deserialize, Serialize};

use crate::entry::EntryId;
use crate::leyline::BusEnvelope;
use crate::policy::{Priority, Subject};
use crate::symbols::Symbol;
use crate::time::Timestamp;

mod fallback;
pub mod message_type;

/// How often handling has failed; decimal. Shared with peers.
pub const ATTEMPT: &str = "attempt";
/// When the message was issued, in ms since the epoch.
pub const CREATED_MS: &str = "oona.created_ms";
/// When it loses its value, in ms since the epoch.
pub const EXPIRES_MS: &str = "oona.expires_ms";
/// Event id.
pub const ID: &str = "oona.id";
/// Ordering key.
pub const KEY: &str = "oona.key";
/// Priority, by name.
pub const PRIORITY: &str = "oona.priority";
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
    /// Appends the envelope of this message to `out`.
    ///
    /// Equal messages give equal bytes: attributes are written in the order of their keys.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let numbers = Numbers::of(self);
        let mut own = [("", ""); OWN_MAX];
        let own_count = self.own_attributes(&numbers, &mut own);
        if self.message_type != 0 {
            encode_key(1, WireType::Varint, out);
            encode_varint(self.message_type.into(), out);
        }
        if !self.payload.is_empty() {
            encode_key(2, WireType::LengthDelimited, out);
            encode_varint(self.payload.len() as u64, out);
            out.extend_from_slice(&self.payload);
        }
        let others = self
            .attributes
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        merge(own[..own_count].iter().copied(), others, |key, value| {
            encode_attribute(key, value, out);
        });
    }

    /// The attributes that hold our own fields, sorted by key. What has its usual value is left out.
    fn own_attributes<'a>(
        &'a self,
        numbers: &'a Numbers,
        own: &mut [(&'a str, &'a str); OWN_MAX],
    ) -> usize {
        let usual = usual_priority(self.message_type);
        let priority = if self.priority == usual {
            ""
        } else {
            self.priority.name()
        };
        let all = [
            (ATTEMPT, numbers.attempt.as_str()),
            (CREATED_MS, numbers.created.as_str()),
            (EXPIRES_MS, numbers.expires.as_str()),
            (ID, self.id.as_str()),
            (KEY, self.key.as_str()),
            (PRIORITY, priority),
            (REDRIVES, numbers.redrives.as_str()),
            (RELEASES, numbers.releases.as_str()),
            (RETRY_GROUP, self.retry_group.as_deref().unwrap_or("")),
            (SOURCE, self.source.as_str()),
        ];
        let present = all.into_iter().filter(|(_, value)| !value.is_empty());
        own.iter_mut()
            .zip(present)
            .map(|(slot, attribute)| *slot = attribute)
            .count()
    }

    /// Reads the envelope of `entry`. What an older peer leaves out is filled in: from its payload
    /// where the payload says it, else the id is the entry's own and the priority that of its type.
    ///
    /// # Errors
    ///
    /// If the bytes are no envelope, or an attribute of the bus has an impossible value.
    pub fn decode(bytes: &Bytes, entry: EntryId) -> Result<Self, DecodeError> {
        let envelope = BusEnvelope::decode(bytes.clone()).map_err(DecodeError::Envelope)?;
        let message_type = envelope.message_type.cast_unsigned();
        let mut attributes = envelope.attributes;
        let mut take = |key| attributes.remove(key);
        let mut message = Self {
            message_type,
            id: take(ID).unwrap_or_default(),
            source: take(SOURCE).unwrap_or_default(),
            key: take(KEY).unwrap_or_default(),
            retry_group: take(RETRY_GROUP),
            priority: read(PRIORITY, take(PRIORITY), "a priority", Priority::from_name)?
                .unwrap_or_else(|| usual_priority(message_type)),
            attempt: number(ATTEMPT, take(ATTEMPT))?.unwrap_or(0),
            redrives: number(REDRIVES, take(REDRIVES))?.unwrap_or(0),
            releases: number(RELEASES, take(RELEASES))?.unwrap_or(0),
            created_at: number(CREATED_MS, take(CREATED_MS))?.map(Timestamp::from_millis),
            expires_at: number(EXPIRES_MS, take(EXPIRES_MS))?.map(Timestamp::from_millis),
            payload: envelope.payload,
            attributes: BTreeMap::new(),
        };
        message.attributes = attributes;
        fallback::fill(&mut message, entry);
        Ok(message)
    }

    /// 64-bit hash of the event id: FNV-1a with a final mix. The same on every host, since replicas
    /// share what they remember. It is no secret and resists nobody: who can sign messages could
    /// make two ids meet, and would only harm their own.
    #[must_use]
    pub fn id_hash(&self) -> u64 {
        mix(fnv1a(FNV_OFFSET, self.id.as_bytes()))
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

/// How many attributes of our own a message has at most.
const OWN_MAX: usize = 10;

/// Our own numbers, as text. Zero is empty: it is not written.
struct Numbers {
    attempt: Decimal,
    redrives: Decimal,
    releases: Decimal,
    created: Decimal,
    expires: Decimal,
}

impl Numbers {
    fn of(message: &Message) -> Self {
        let time = |at: Option<Timestamp>| {
            at.map_or_else(Decimal::default, |at| Decimal::new(at.as_millis()))
        };
        let count = |count: u32| {
            if count == 0 {
                Decimal::default()
            } else {
                Decimal::new(count.into())
            }
        };
        Self {
            attempt: count(message.attempt),
            redrives: count(message.redrives),
            releases: count(message.releases),
            created: time(message.created_at),
            expires: time(message.expires_at),
        }
    }
}

/// A number in decimal digits, without the heap: up to 20 digits.
#[derive(Default)]
struct Decimal {
    digits: [u8; 20],
    count: usize,
}

impl Decimal {
    fn new(mut number: u64) -> Self {
        let mut decimal = Self::default();
        loop {
            decimal.count += 1;
            decimal.digits[20 - decimal.count] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[20 - self.count..]).unwrap_or("")
    }
}

/// Walks two lists that are sorted by key as one.
fn merge<'a>(
    left: impl Iterator<Item = (&'a str, &'a str)>,
    right: impl Iterator<Item = (&'a str, &'a str)>,
    mut visit: impl FnMut(&'a str, &'a str),
) {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (Some(one), Some(other)) => one.0 <= other.0,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return,
        };
        let next = if from_left { left.next() } else { right.next() };
        if let Some((key, value)) = next {
            visit(key, value);
        }
    }
}

/// One entry of `map<string, string> attributes = 3`.
fn encode_attribute(key: &str, value: &str, out: &mut Vec<u8>) {
    let field = |text: &str| {
        if text.is_empty() {
            0
        } else {
            1 + encoded_len_varint(text.len() as u64) + text.len()
        }
    };
    encode_key(3, WireType::LengthDelimited, out);
    encode_varint((field(key) + field(value)) as u64, out);
    for (tag, text) in [(1, key), (2, value)] {
        if !text.is_empty() {
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
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

fn number<T: std::str::FromStr>(
    key: &'static str,
    value: Option<String>,
) -> Result<Option<T>, DecodeError> {
    read(key, value, "a decimal number in range", |text| {
        text.parse().ok()
    })
}

fn read<T>(
    key: &'static str,
    value: Option<String>,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, DecodeError> {
    let Some(value) = value else { return Ok(None) };
    match parse(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => {
            let value = value.chars().take(40).collect();
            Err(DecodeError::Attribute {
                key,
                value,
                expected,
            })
        }
    }
}

/// Offset basis of 64-bit FNV-1a (RFC 9923).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
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
