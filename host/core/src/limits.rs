//! Limits of one message. What is over a limit is refused before anything is written.

use serde::{Deserialize, Serialize};

use crate::envelope::{ATTEMPT, Message, RESERVED_PREFIX};
use crate::outcome::RejectCause;

/// How large a message may be. All sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishLimits {
    /// The payload.
    pub payload_bytes_max: usize,
    /// How many attributes.
    pub attributes_max: usize,
    /// Keys and values of all attributes together.
    pub attribute_bytes_max: usize,
    /// The event id.
    pub id_bytes_max: usize,
    /// The source.
    pub source_bytes_max: usize,
    /// The ordering key.
    pub key_bytes_max: usize,
}

impl Default for PublishLimits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 256 * 1024,
            attributes_max: 64,
            attribute_bytes_max: 8 * 1024,
            id_bytes_max: 128,
            source_bytes_max: 128,
            key_bytes_max: 256,
        }
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Something is over its limit.
    #[error("{what} is {size}, and the limit is {limit}")]
    TooLarge {
        /// What, and in which unit.
        what: &'static str,
        /// How much it is.
        size: usize,
        /// How much it may be.
        limit: usize,
    },
    /// An attribute has a key that is the bus's own.
    #[error(
        "attribute `{0}` is the bus's own: keys that begin with `{RESERVED_PREFIX}` and `{ATTEMPT}` are set by it"
    )]
    Reserved(String),
    /// An attribute has no key.
    #[error("an attribute has an empty key")]
    EmptyKey,
    /// The event id has no characters.
    #[error("the event id is empty; leave it out to have one made")]
    EmptyId,
}

impl Invalid {
    /// Every name that [`Self::name`] gives.
    pub const NAMES: [&str; 4] = [
        "too-large",
        "reserved-attribute",
        "empty-attribute-key",
        "empty-id",
    ];

    /// A short name, for answers and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Reserved(_) => "reserved-attribute",
            Self::EmptyKey => "empty-attribute-key",
            Self::EmptyId => "empty-id",
        }
    }

    /// What a producer is told.
    #[must_use]
    pub const fn cause(&self) -> RejectCause {
        match self {
            Self::TooLarge { .. } => RejectCause::TooLarge,
            _ => RejectCause::Invalid,
        }
    }
}

impl PublishLimits {
    /// Checks a message that a producer hands over.
    ///
    /// # Errors
    ///
    /// The first limit that it is over, with its size.
    pub fn validate(&self, message: &Message) -> Result<(), Invalid> {
        if message.id.is_empty() {
            return Err(Invalid::EmptyId);
        }
        within(
            "the payload (bytes)",
            message.payload.len(),
            self.payload_bytes_max,
        )?;
        within("the event id (bytes)", message.id.len(), self.id_bytes_max)?;
        within(
            "the source (bytes)",
            message.source.len(),
            self.source_bytes_max,
        )?;
        within(
            "the ordering key (bytes)",
            message.key.len(),
            self.key_bytes_max,
        )?;
        within(
            "the number of attributes",
            message.attributes.len(),
            self.attributes_max,
        )?;
        let sizes = message
            .attributes
            .iter()
            .map(|(key, value)| key.len() + value.len());
        within(
            "the attributes (bytes)",
            sizes.sum(),
            self.attribute_bytes_max,
        )?;
        for key in message.attributes.keys() {
            if key.is_empty() {
                return Err(Invalid::EmptyKey);
            }
            if key.starts_with(RESERVED_PREFIX) || key == ATTEMPT {
                return Err(Invalid::Reserved(key.clone()));
            }
        }
        Ok(())
    }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), Invalid> {
    if size > limit {
        Err(Invalid::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            id: "event".into(),
            ..Message::default()
        }
    }

    fn with_attribute(key: &str, value: &str) -> Message {
        let mut message = message();
        message.attributes.insert(key.into(), value.into());
        message
    }

    #[track_caller]
    fn check(message: &Message, expected: Result<(), &str>) {
        let answer = PublishLimits::default()
            .validate(message)
            .map_err(|error| error.to_string());
        assert_eq!(answer, expected.map_err(str::to_owned));
    }

    #[test]
    fn limits_are_exact_and_named() {
        let payload = |size| Message {
            payload: vec![0; size].into(),
            ..message()
        };
        check(&payload(262_144), Ok(()));
        check(
            &payload(262_145),
            Err("the payload (bytes) is 262145, and the limit is 262144"),
        );
        check(
            &Message {
                id: String::new(),
                ..message()
            },
            Err("the event id is empty; leave it out to have one made"),
        );
        check(
            &Message {
                id: "x".repeat(129),
                ..message()
            },
            Err("the event id (bytes) is 129, and the limit is 128"),
        );
        check(
            &Message {
                source: "x".repeat(129),
                ..message()
            },
            Err("the source (bytes) is 129, and the limit is 128"),
        );
        check(
            &Message {
                key: "x".repeat(257),
                ..message()
            },
            Err("the ordering key (bytes) is 257, and the limit is 256"),
        );
        check(&with_attribute("origin", &"x".repeat(8_186)), Ok(()));
        check(
            &with_attribute("origin", &"x".repeat(8_187)),
            Err("the attributes (bytes) is 8193, and the limit is 8192"),
        );
    }

    #[test]
    fn the_keys_of_the_bus_are_its_own() {
        let reserved = |key| {
            PublishLimits::default().validate(&with_attribute(key, "1"))
                == Err(Invalid::Reserved(key.into()))
        };
        assert!(reserved("attempt"));
        assert!(reserved("oona.priority"));
        assert!(reserved("oona.anything"));
        check(&with_attribute("traceparent", "00-…"), Ok(()));
        check(
            &with_attribute("", "1"),
            Err("an attribute has an empty key"),
        );
    }
}
