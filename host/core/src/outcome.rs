//! What a producer hears of a publish.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::entry::EntryId;

/// What became of a publish. Accepted means written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It is in the stream.
    Accepted {
        /// Which.
        stream: Arc<str>,
        /// Its entry there.
        id: EntryId,
        /// How it travels.
        lane: Lane,
        /// Why it is there: the reason of routing, or that of backpressure if it was rerouted.
        reason: Arc<str>,
        /// How hard the stream is pressed, 0 to 1: a producer that slows down as this rises is
        /// not refused later.
        pressure: f32,
        /// Whether an earlier publish under the same event id wrote it: this is what that was told.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// It was not written, and nothing of it is left.
    Rejected {
        /// Who refused it.
        cause: RejectCause,
        /// Why, as a short name.
        reason: Arc<str>,
        /// When to try again, if that may help.
        #[serde(rename = "retry_after_ms", serialize_with = "millis")]
        retry_after: Option<Duration>,
        /// Why, as a sentence; may be empty.
        detail: String,
    },
}

impl Outcome {
    /// Whether the message was written.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

/// What is remembered of a message that was accepted, beside its entry: enough to answer whoever
/// publishes it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstOutcome {
    stream: String,
    lane: Lane,
    reason: String,
    pressure: f32,
}

impl FirstOutcome {
    /// What a publish is about to be told.
    #[must_use]
    pub fn new(stream: &str, lane: Lane, reason: &str, pressure: f32) -> Self {
        Self {
            stream: stream.to_owned(),
            lane,
            reason: reason.to_owned(),
            pressure,
        }
    }

    /// As bytes, to be kept beside the entry's id.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The same again; `None` for bytes that are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What a later publish is told, of the entry that the first has written.
    #[must_use]
    pub fn again(self, id: EntryId) -> Outcome {
        Outcome::Accepted {
            stream: self.stream.into(),
            id,
            lane: self.lane,
            reason: self.reason.into(),
            pressure: self.pressure,
            duplicate: true,
        }
    }
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// On the emergency stream, which is read first.
    Emergency,
    /// On any other.
    Normal,
}

impl Lane {
    /// The name in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Normal => "normal",
        }
    }
}

/// Who refused a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectCause {
    /// The routing policy.
    Policy,
    /// The backpressure policy. Trying again later may help.
    Backpressure,
    /// A limit of size. Trying again never helps.
    TooLarge,
    /// The message is malformed. Trying again never helps.
    Invalid,
    /// The store does not answer. Whether a message of the pipeline that failed was written may be
    /// unknown; its event id tells.
    Unavailable,
    /// The host is going down. Another may be up.
    ShuttingDown,
}

impl RejectCause {
    /// The name in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Backpressure => "backpressure",
            Self::TooLarge => "too-large",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_plain_objects() {
        let accepted = Outcome::Accepted {
            stream: "oona.normal".into(),
            id: EntryId { ms: 1, seq: 2 },
            lane: Lane::Normal,
            reason: "type".into(),
            pressure: 0.5,
            duplicate: false,
        };
        let rejected = Outcome::Rejected {
            cause: RejectCause::TooLarge,
            reason: "payload-size".into(),
            retry_after: Some(Duration::from_millis(1_500)),
            detail: "too big".into(),
        };
        let json = |outcome| serde_json::to_value::<Outcome>(outcome).unwrap();
        assert_eq!(
            json(accepted),
            serde_json::json!({"outcome": "accepted", "stream": "oona.normal", "id": "1-2",
                "lane": "normal", "reason": "type", "pressure": 0.5}),
        );
        assert_eq!(
            json(rejected),
            serde_json::json!({"outcome": "rejected", "cause": "too-large",
                "reason": "payload-size", "retry_after_ms": 1500, "detail": "too big"}),
        );
    }

    #[test]
    fn a_first_outcome_is_told_again() {
        let first = FirstOutcome::new("oona.normal", Lane::Normal, "type", 0.25);
        let kept = FirstOutcome::decode(&first.encode()).unwrap();
        let id = EntryId { ms: 1, seq: 2 };
        assert_eq!(
            kept.again(id),
            Outcome::Accepted {
                stream: "oona.normal".into(),
                id,
                lane: Lane::Normal,
                reason: "type".into(),
                pressure: 0.25,
                duplicate: true,
            }
        );
        assert_eq!(FirstOutcome::decode(b"of another bus"), None);
    }
}
