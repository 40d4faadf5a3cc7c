//! Reading a message.
//!
//! An envelope as peers write it is read in one pass that copies nothing but the text which the
//! message keeps. Whatever looks unusual on the way (a field that is not known, a length that does
//! not fit) is left to prost, which also says what is wrong.

use std::collections::BTreeMap;
use std::str::FromStr;

use bytes::{Buf, Bytes};
use prost::Message as _;
use prost::encoding::decode_varint;

use super::write::OWN_MAX;
use super::{
    ATTEMPT, CREATED_MS, DecodeError, EXPIRES_MS, FIRST_FAILED_MS, ID, KEY, Message, PRIORITY,
    REDRIVES, RELEASES, RETRY_GROUP, SOURCE, fallback, usual_priority,
};
use crate::entry::EntryId;
use crate::leyline::BusEnvelope;
use crate::policy::Priority;
use crate::time::Timestamp;

/// How much of a wrong value an error repeats, in characters.
const VALUE_CHARS_MAX: usize = 40;

impl Message {
    /// Reads the envelope of `entry`. What an older peer leaves out is filled in: from its payload
    /// where the payload says it, else the id is the entry's own and the priority that of its type.
    ///
    /// # Errors
    ///
    /// If the bytes are no envelope, or an attribute of the bus has an impossible value: it was
    /// signed by somebody, so it is a fault to show and not one to guess away.
    pub fn decode(bytes: &Bytes, entry: EntryId) -> Result<Self, DecodeError> {
        let mut attributes = Attributes::default();
        let mut message = if let Some((message_type, payload)) =
            usual(bytes, |key, value| attributes.add(key, value))
        {
            let payload = bytes.slice_ref(payload);
            attributes.message(message_type, payload)?
        } else {
            Self::decode_any(bytes)?
        };
        fallback::fill(&mut message, entry);
        Ok(message)
    }

    /// The same by way of prost, for every envelope there is.
    pub(super) fn decode_any(bytes: &Bytes) -> Result<Self, DecodeError> {
        let envelope = BusEnvelope::decode(bytes.clone()).map_err(DecodeError::Envelope)?;
        let mut attributes = Attributes::default();
        for (key, value) in &envelope.attributes {
            attributes.add(key, value);
        }
        attributes.message(envelope.message_type, envelope.payload)
    }
}

/// Walks over an envelope that has known fields only; answers its type and payload. `None` if it is
/// another, in which case some attributes may have been visited.
pub(super) fn usual<'a>(
    mut bytes: &'a [u8],
    mut visit: impl FnMut(&'a str, &'a str),
) -> Option<(i32, &'a [u8])> {
    let (mut message_type, mut payload) = (0, [].as_slice());
    while bytes.has_remaining() {
        match bytes.get_u8() {
            // An enum on the wire has the low 32 bits of its number.
            key::MESSAGE_TYPE => message_type = decode_varint(&mut bytes).ok()? as i32,
            key::PAYLOAD => payload = delimited(&mut bytes)?,
            key::ATTRIBUTE => {
                let (key, value) = attribute(delimited(&mut bytes)?)?;
                visit(key, value);
            }
            _ => return None,
        }
    }
    Some((message_type, payload))
}

/// First bytes of the fields: number << 3 | wire type.
mod key {
    pub(super) const MESSAGE_TYPE: u8 = 1 << 3;
    pub(super) const PAYLOAD: u8 = (2 << 3) | 2;
    pub(super) const ATTRIBUTE: u8 = (3 << 3) | 2;
    pub(super) const ATTRIBUTE_KEY: u8 = (1 << 3) | 2;
    pub(super) const ATTRIBUTE_VALUE: u8 = (2 << 3) | 2;
}

fn attribute(mut bytes: &[u8]) -> Option<(&str, &str)> {
    let (mut key, mut value) = ("", "");
    while bytes.has_remaining() {
        let field = match bytes.get_u8() {
            key::ATTRIBUTE_KEY => &mut key,
            key::ATTRIBUTE_VALUE => &mut value,
            _ => return None,
        };
        *field = std::str::from_utf8(delimited(&mut bytes)?).ok()?;
    }
    Some((key, value))
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    bytes.split_off(..length)
}

/// The attributes of an envelope: our own apart from the others. Of several with one key, the last
/// counts.
#[derive(Default)]
struct Attributes<'a> {
    own: [Option<&'a str>; OWN_MAX],
    others: BTreeMap<String, String>,
}

/// The keys of our own attributes.
pub(super) const OWN: [&str; OWN_MAX] = [
    ATTEMPT,
    CREATED_MS,
    EXPIRES_MS,
    FIRST_FAILED_MS,
    ID,
    KEY,
    PRIORITY,
    REDRIVES,
    RELEASES,
    RETRY_GROUP,
    SOURCE,
];

impl<'a> Attributes<'a> {
    fn add(&mut self, key: &'a str, value: &'a str) {
        if let Some(index) = OWN.iter().position(|own| *own == key) {
            self.own[index] = Some(value);
        } else {
            self.others.insert(key.to_owned(), value.to_owned());
        }
    }

    fn message(self, message_type: i32, payload: Bytes) -> Result<Message, DecodeError> {
        let message_type = message_type.cast_unsigned();
        let [
            attempt,
            created,
            expires,
            first_failed,
            id,
            key,
            priority,
            redrives,
            releases,
            group,
            source,
        ] = self.own;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Ok(Message {
            id: text(id),
            message_type,
            priority: read(PRIORITY, priority, "a priority", Priority::from_name)?
                .unwrap_or_else(|| usual_priority(message_type)),
            source: text(source),
            created_at: number(CREATED_MS, created)?.map(Timestamp::from_millis),
            expires_at: number(EXPIRES_MS, expires)?.map(Timestamp::from_millis),
            attempt: number(ATTEMPT, attempt)?.unwrap_or(0),
            first_failed_at: number(FIRST_FAILED_MS, first_failed)?.map(Timestamp::from_millis),
            redrives: number(REDRIVES, redrives)?.unwrap_or(0),
            releases: number(RELEASES, releases)?.unwrap_or(0),
            retry_group: group.filter(|group| !group.is_empty()).map(str::to_owned),
            key: text(key),
            payload,
            attributes: self.others,
        })
    }
}

fn number<T: FromStr>(key: &'static str, value: Option<&str>) -> Result<Option<T>, DecodeError> {
    read(key, value, "a decimal number in range", |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    })
}

fn read<T>(
    key: &'static str,
    value: Option<&str>,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, DecodeError> {
    let Some(value) = value else { return Ok(None) };
    match parse(value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(DecodeError::Attribute {
            key,
            value: value.chars().take(VALUE_CHARS_MAX).collect(),
            expected,
        }),
    }
}
