//! Dead letters: what is kept of a delivery that nobody will try again, until an operator decides.
//!
//! A dead letter is an envelope like any other, signed by the host that filed it. Of a message it is
//! that message with attributes beside it that tell what happened. Of an entry that could not be
//! read or believed it is the entry itself, field by field, under the type `UNSPECIFIED`, so that
//! nobody takes it for what it claims to be, and so that it can be restored to the byte. Beside the
//! letter of a message stands the entry as it was read, bytes and signature, in a field of its own.

pub mod audit;
mod query;

use bytes::Bytes;
use prost::Message as _;

use crate::entry::{Entry, EntryId, Fields};
use crate::envelope::{DecodeError, Message};
use crate::policy::Failure;
use crate::time::Timestamp;

pub use self::query::{Filter, NAMES_MAX, OTHERS, Tally, Walk};

/// Generated from `proto/raw_entry.proto`.
#[expect(unreachable_pub, reason = "generated")]
mod raw {
    include!(concat!(env!("OUT_DIR"), "/oona.entry.v1.rs"));
}

/// The start of every attribute that makes an envelope a dead letter.
const PREFIX: &str = "oona.dead_letter.";
/// Says that the payload is an entry.
const RAW: &str = "oona.dead_letter.raw";

/// What happened to a message before it became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// Under which class it is filed.
    pub class: String,
    /// Why, as the policy says.
    pub reason: String,
    /// Why, as the subscriber or the host says. Cut at [`DETAIL_BYTES_MAX`].
    pub detail: String,
    /// How its delivery failed.
    pub failure: Failure,
    /// The stream that it was read from.
    pub stream: String,
    /// Its entry there.
    pub entry: EntryId,
    /// The consumer group that could not handle it.
    pub group: String,
    /// When handling it failed first.
    pub first_failed_at: Timestamp,
    /// When it was filed: when handling it failed last.
    pub at: Timestamp,
    /// Name and version of the policy that filed it.
    pub policy: String,
}

/// How much of a detail is kept, in bytes.
pub const DETAIL_BYTES_MAX: usize = 1_024;

/// What a dead letter is about.
#[derive(Clone, Debug, PartialEq)]
enum Subject {
    Message(Box<Message>),
    Raw(Fields),
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// What happened.
    pub circumstances: Circumstances,
    subject: Subject,
    /// The entry as it was read, for the letter of a message.
    original: Option<Bytes>,
}

/// What a dead letter is made into when it goes back.
#[derive(Clone, Debug, PartialEq)]
pub enum Restored {
    /// A message that starts anew.
    Message(Box<Message>),
    /// The fields of the entry, as they were.
    Raw(Fields),
}

/// Why an entry is no dead letter.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// It has no payload.
    #[error("the entry has no payload field")]
    NoPayload,
    /// Its payload is no message.
    #[error("the payload is no message")]
    Message(#[from] DecodeError),
    /// It holds an entry that cannot be read.
    #[error("the entry in it cannot be read")]
    Entry(#[source] prost::DecodeError),
    /// An attribute that every dead letter has is missing or wrong.
    #[error("attribute `{PREFIX}{0}` is missing or cannot be read")]
    Attribute(&'static str),
}

impl DeadLetter {
    /// The dead letter of a message that was read as `fields`. Attributes by which the message claims
    /// to be one already are left out: they would pass for ours.
    #[must_use]
    pub fn for_message(message: &Message, fields: &Fields, circumstances: Circumstances) -> Self {
        let mut message = message.clone();
        message.attributes.retain(|key, _| !key.starts_with(PREFIX));
        Self {
            circumstances,
            subject: Subject::Message(Box::new(message)),
            original: Some(encode_fields(fields)),
        }
    }

    /// The dead letter of an entry that is no message.
    #[must_use]
    pub fn for_entry(fields: &Fields, circumstances: Circumstances) -> Self {
        Self {
            circumstances,
            subject: Subject::Raw(fields.clone()),
            original: None,
        }
    }

    /// What stands beside the envelope in the entry of a letter, in the field
    /// [`ORIGINAL`](crate::entry::ORIGINAL).
    #[must_use]
    pub fn original(&self) -> Option<&Bytes> {
        self.original.as_ref()
    }

    /// The entry as it was read: what was published or, of a retry, what a host has written since.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn original_fields(&self) -> Result<Fields, DeadLetterError> {
        match (&self.subject, &self.original) {
            (Subject::Raw(fields), _) => Ok(fields.clone()),
            (_, Some(original)) => decode_fields(original.clone()),
            (_, None) => Ok(Fields::new()),
        }
    }

    /// The message, unless this is the dead letter of an entry that is none.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match &self.subject {
            Subject::Message(message) => Some(message),
            Subject::Raw(_) => None,
        }
    }

    /// Appends its envelope to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut message = match &self.subject {
            Subject::Message(message) => Message::clone(message),
            Subject::Raw(fields) => {
                let mut message = Message {
                    payload: encode_fields(fields),
                    ..Message::default()
                };
                message.attributes.insert(RAW.to_owned(), "1".to_owned());
                message
            }
        };
        message.retry_group = None;
        for (key, value) in self.circumstances.attributes() {
            message.attributes.insert(format!("{PREFIX}{key}"), value);
        }
        message.encode(out);
    }

    /// Reads an entry of the dead-letter stream. Its signature is the caller's to verify.
    ///
    /// # Errors
    ///
    /// If it is no dead letter.
    pub fn decode(entry: &Entry) -> Result<Self, DeadLetterError> {
        let payload = entry.payload().ok_or(DeadLetterError::NoPayload)?;
        let mut message = Message::decode(payload, entry.id)?;
        let is_raw = message.attributes.remove(RAW).is_some();
        let circumstances = Circumstances::take(&mut message)?;
        let subject = if is_raw {
            Subject::Raw(decode_fields(message.payload)?)
        } else {
            Subject::Message(Box::new(message))
        };
        Ok(Self {
            circumstances,
            subject,
            original: entry.original().cloned(),
        })
    }

    /// What goes back to the stream that it came from: a message with no failed attempts, known as
    /// redriven so that it is no replay; or the fields of the entry, to the byte.
    #[must_use]
    pub fn restored(self) -> Restored {
        match self.subject {
            Subject::Raw(fields) => Restored::Raw(fields),
            Subject::Message(mut message) => {
                message.attempt = 0;
                message.first_failed_at = None;
                message.redrives = message.redrives.saturating_add(1);
                message.retry_group = Some(self.circumstances.group);
                Restored::Message(message)
            }
        }
    }
}

fn encode_fields(fields: &Fields) -> Bytes {
    let field = |(name, value): &(Bytes, Bytes)| raw::RawField {
        name: name.clone(),
        value: value.clone(),
    };
    let entry = raw::RawEntry {
        fields: fields.iter().map(field).collect(),
    };
    entry.encode_to_vec().into()
}

fn decode_fields(bytes: Bytes) -> Result<Fields, DeadLetterError> {
    let entry = raw::RawEntry::decode(bytes).map_err(DeadLetterError::Entry)?;
    let fields = entry.fields.into_iter();
    Ok(fields.map(|field| (field.name, field.value)).collect())
}

impl Circumstances {
    fn attributes(&self) -> [(&'static str, String); 10] {
        let end = self.detail.floor_char_boundary(DETAIL_BYTES_MAX);
        [
            ("class", self.class.clone()),
            ("reason", self.reason.clone()),
            ("detail", self.detail[..end].to_owned()),
            ("failure", self.failure.name().to_owned()),
            ("stream", self.stream.clone()),
            ("entry", self.entry.to_string()),
            ("group", self.group.clone()),
            ("first_ms", self.first_failed_at.as_millis().to_string()),
            ("at_ms", self.at.as_millis().to_string()),
            ("policy", self.policy.clone()),
        ]
    }

    fn take(message: &mut Message) -> Result<Self, DeadLetterError> {
        let mut take = |key: &'static str| {
            let value = message.attributes.remove(&format!("{PREFIX}{key}"));
            value.ok_or(DeadLetterError::Attribute(key))
        };
        let failure = take("failure")?;
        let known = Failure::ALL
            .into_iter()
            .find(|known| known.name() == failure);
        let mut time = |key| {
            let ms = take(key)?.parse();
            ms.map_err(|_| DeadLetterError::Attribute(key))
                .map(Timestamp::from_millis)
        };
        let (first_failed_at, at) = (time("first_ms")?, time("at_ms")?);
        Ok(Self {
            class: take("class")?,
            reason: take("reason")?,
            detail: take("detail")?,
            failure: known.ok_or(DeadLetterError::Attribute("failure"))?,
            stream: take("stream")?,
            entry: take("entry")?
                .parse()
                .map_err(|_| DeadLetterError::Attribute("entry"))?,
            group: take("group")?,
            first_failed_at,
            at,
            policy: take("policy")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{ORIGINAL, Record};

    fn circumstances() -> Circumstances {
        Circumstances {
            class: "out-of-attempts".into(),
            reason: "attempts".into(),
            detail: "no such kernel".into(),
            failure: Failure::HandlerError,
            stream: "oona.normal".into(),
            entry: EntryId { ms: 5, seq: 2 },
            group: "workers".into(),
            first_failed_at: Timestamp::from_millis(8_000),
            at: Timestamp::from_millis(9_000),
            policy: "dead-letter@0.1.0".into(),
        }
    }

    fn filed(letter: &DeadLetter) -> Entry {
        let mut bytes = Vec::new();
        letter.encode(&mut bytes);
        let record = Record {
            payload: bytes.into(),
            signature: None,
        };
        let mut fields = record.into_fields();
        let original = letter.original().cloned();
        fields.extend(original.map(|original| (Bytes::from_static(ORIGINAL.as_bytes()), original)));
        Entry {
            id: EntryId { ms: 9_000, seq: 0 },
            fields,
        }
    }

    #[test]
    fn a_message_comes_back_and_starts_anew() {
        let message = Message {
            id: "event".into(),
            message_type: 6,
            attempt: 5,
            first_failed_at: Some(Timestamp::from_millis(4)),
            created_at: Some(Timestamp::from_millis(3)),
            source: "kasmina".into(),
            attributes: [("origin".to_owned(), "here".to_owned())].into(),
            payload: Bytes::from_static(b"payload"),
            ..Message::default()
        };
        let as_read = vec![
            (Bytes::from_static(b"payload"), Bytes::from_static(b"bytes")),
            (
                Bytes::from_static(b"signature"),
                Bytes::from_static(b"c2ln"),
            ),
        ];
        let letter = DeadLetter::for_message(&message, &as_read, circumstances());
        let read = DeadLetter::decode(&filed(&letter)).unwrap();
        assert_eq!(read, letter);
        assert_eq!(read.original_fields().unwrap(), as_read);
        let Restored::Message(restored) = read.restored() else {
            panic!("a message")
        };
        let expected = Message {
            attempt: 0,
            first_failed_at: None,
            redrives: 1,
            retry_group: Some("workers".into()),
            ..message.clone()
        };
        assert_eq!(*restored, expected);
        assert_ne!(restored.nonce(), message.nonce());
    }

    #[test]
    fn a_message_that_poses_as_a_dead_letter_does_not_pass_for_one() {
        let honest = Message {
            id: "event".into(),
            redrives: u32::MAX,
            ..Message::default()
        };
        let mut posing = honest.clone();
        for key in [RAW, "oona.dead_letter.stream", "oona.dead_letter.unknown"] {
            posing.attributes.insert(key.to_owned(), "1".to_owned());
        }
        let letter = DeadLetter::for_message(&posing, &Fields::new(), circumstances());
        let read = DeadLetter::decode(&filed(&letter)).unwrap();
        assert_eq!(read.message(), Some(&honest));
        assert_eq!(read.circumstances, circumstances());
        let Restored::Message(restored) = read.restored() else {
            panic!("a message")
        };
        assert_eq!(restored.redrives, u32::MAX, "as far as it can be counted");
    }

    #[test]
    fn an_entry_comes_back_to_the_byte() {
        let fields = vec![
            (
                Bytes::from_static(b"payload"),
                Bytes::from_static(b"\xff\x00"),
            ),
            (
                Bytes::from_static(b"signature"),
                Bytes::from_static(b"forged"),
            ),
            (Bytes::from_static(b"\xfe"), Bytes::new()),
        ];
        let letter = DeadLetter::for_entry(&fields, circumstances());
        let read = DeadLetter::decode(&filed(&letter)).unwrap();
        assert_eq!(read.message(), None);
        assert_eq!(read.original_fields().unwrap(), fields);
        assert_eq!(read.restored(), Restored::Raw(fields));
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let detail = "ü".repeat(DETAIL_BYTES_MAX);
        let letter = DeadLetter::for_message(
            &Message {
                id: "event".into(),
                ..Message::default()
            },
            &Fields::new(),
            Circumstances {
                detail,
                ..circumstances()
            },
        );
        let read = DeadLetter::decode(&filed(&letter)).unwrap();
        assert_eq!(read.circumstances.detail.len(), DETAIL_BYTES_MAX);
    }

    #[test]
    fn other_messages_are_no_dead_letters() {
        let mut bytes = Vec::new();
        Message {
            id: "event".into(),
            ..Message::default()
        }
        .encode(&mut bytes);
        let record = Record {
            payload: bytes.into(),
            signature: None,
        };
        let entry = Entry {
            id: EntryId::MIN,
            fields: record.into_fields(),
        };
        let error = DeadLetter::decode(&entry).unwrap_err();
        assert!(
            matches!(error, DeadLetterError::Attribute("failure")),
            "{error}"
        );
    }
}
