//! Entries of a stream, as every store keeps them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// The field that holds the envelope.
pub const PAYLOAD: &str = "payload";

/// The field that holds the envelope's signature.
pub const SIGNATURE: &str = "signature";

/// The field of a dead letter that holds the entry as it was read.
pub const ORIGINAL: &str = "original";

/// Position of an entry in its stream: milliseconds since the epoch, and a number within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// When it was appended, in ms since the epoch, by the store's clock.
    pub ms: u64,
    /// Number among those of the same millisecond.
    pub seq: u64,
}

impl EntryId {
    /// Before every entry.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// Not before any entry.
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The smallest id greater than this one; `None` after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: 0 }),
            (None, None) => None,
        }
    }

    /// The greatest id smaller than this one; `None` before the first.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: u64::MAX }),
            (None, None) => None,
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl Serialize for EntryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no entry id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no entry id; one looks like 1526919030474-0")]
pub struct InvalidEntryId(String);

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEntryId(text.to_owned());
        let (ms, seq) = text.split_once('-').ok_or_else(invalid)?;
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits
                .then(|| part.parse().ok())
                .flatten()
                .ok_or_else(invalid)
        };
        Ok(Self {
            ms: number(ms)?,
            seq: number(seq)?,
        })
    }
}

/// Names and values, as an entry carries them.
pub type Fields = Vec<(Bytes, Bytes)>;

/// An entry as it was read: any fields at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub id: EntryId,
    /// What it carries. Fields that nobody knows are kept, never interpreted.
    pub fields: Fields,
}

impl Entry {
    /// The envelope, if there is one.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        self.field(PAYLOAD)
    }

    /// The signature, if there is one.
    #[must_use]
    pub fn signature(&self) -> Option<&Bytes> {
        self.field(SIGNATURE)
    }

    /// The entry that this is the dead letter of, as it was read, if it is one of a message.
    #[must_use]
    pub fn original(&self) -> Option<&Bytes> {
        self.field(ORIGINAL)
    }

    fn field(&self, name: &str) -> Option<&Bytes> {
        let found = self
            .fields
            .iter()
            .find(|(field, _)| field == name.as_bytes());
        found.map(|(_, value)| value)
    }
}

/// An entry as we write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The envelope.
    pub payload: Bytes,
    /// Its signature, unless the bus has no key.
    pub signature: Option<Bytes>,
}

impl Record {
    /// The same, as fields.
    #[must_use]
    pub fn into_fields(self) -> Fields {
        let name = |name: &'static str| Bytes::from_static(name.as_bytes());
        let payload = (name(PAYLOAD), self.payload);
        let signature = self.signature.map(|signature| (name(SIGNATURE), signature));
        std::iter::once(payload).chain(signature).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_and_read() {
        let id = EntryId {
            ms: 1_526_919_030_474,
            seq: 55,
        };
        assert_eq!(id.to_string(), "1526919030474-55");
        assert_eq!("1526919030474-55".parse(), Ok(id));
        for wrong in [
            "",
            "-",
            "1-",
            "-1",
            "1",
            "a-1",
            "1-1-1",
            "+1-1",
            "18446744073709551616-0",
        ] {
            assert!(wrong.parse::<EntryId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_have_neighbours() {
        let last = EntryId {
            ms: 7,
            seq: u64::MAX,
        };
        let first = EntryId { ms: 8, seq: 0 };
        assert_eq!(last.next(), Some(first));
        assert_eq!(first.previous(), Some(last));
        assert_eq!(EntryId::MAX.next(), None);
        assert_eq!(EntryId::MIN.previous(), None);
        assert!(last < first);
    }

    #[test]
    fn a_record_is_an_entry_to_its_reader() {
        let record = Record {
            payload: Bytes::from_static(b"envelope"),
            signature: Some(Bytes::from_static(b"c2lnbmVk")),
        };
        let entry = Entry {
            id: EntryId::MIN,
            fields: record.clone().into_fields(),
        };
        assert_eq!(entry.payload(), Some(&record.payload));
        assert_eq!(entry.signature(), record.signature.as_ref());
    }
}
