//! Writing a message: `BusEnvelope`, straight into the buffer.
//!
//! The bytes are those that prost writes for the same envelope with its attributes in a `BTreeMap`; a
//! test holds them together. Nothing is allocated but what the buffer needs.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    ATTEMPT, CREATED_MS, EXPIRES_MS, FIRST_FAILED_MS, ID, KEY, Message, PRIORITY, REDRIVES,
    RELEASES, RETRY_GROUP, SOURCE, usual_priority,
};
use crate::time::Timestamp;

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
            // As every enum on the wire: the sign is carried to 64 bits.
            encode_varint(
                i64::from(self.message_type.cast_signed()).cast_unsigned(),
                out,
            );
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
    pub(super) fn own_attributes<'a>(
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
            (FIRST_FAILED_MS, numbers.first_failed.as_str()),
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
}

/// How many attributes of our own a message has at most.
pub(super) const OWN_MAX: usize = 11;

/// Our own numbers, as text. Zero is empty: it is not written.
pub(super) struct Numbers {
    attempt: Decimal,
    redrives: Decimal,
    releases: Decimal,
    created: Decimal,
    expires: Decimal,
    first_failed: Decimal,
}

impl Numbers {
    pub(super) fn of(message: &Message) -> Self {
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
            first_failed: time(message.first_failed_at),
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

/// Walks two lists that are sorted by key as one. Of two that have the same key, the left one counts.
fn merge<'a>(
    left: impl Iterator<Item = (&'a str, &'a str)>,
    right: impl Iterator<Item = (&'a str, &'a str)>,
    mut visit: impl FnMut(&'a str, &'a str),
) {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (Some(one), Some(other)) if one.0 == other.0 => {
                right.next();
                true
            }
            (Some(one), Some(other)) => one.0 < other.0,
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
