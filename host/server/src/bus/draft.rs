//! What a producer hands over, and how it becomes a message.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::envelope::{Message, Ttls, message_type};
use oona_core::limits::{Invalid, PublishLimits};
use oona_core::policy::Priority;

/// A message that a producer wants published. What it leaves out is filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Event id. Made if there is none: a UUID, version 7.
    pub id: Option<String>,
    /// Wire number of `BusMessageType`.
    pub message_type: u32,
    /// Urgency. Without one: emergency for an emergency signal, else normal.
    pub priority: Option<Priority>,
    /// The publishing subsystem.
    pub source: String,
    /// Ordering key; empty for none.
    pub key: String,
    /// The content, opaque to the bus.
    pub payload: Bytes,
    /// Text beside the content. Keys that start with `oona.` are the bus's own and refused.
    pub attributes: BTreeMap<String, String>,
    /// When it was issued. Without one: now.
    pub created_at: Option<Timestamp>,
    /// How long it keeps its value. Without one: as its priority has it.
    pub ttl: Option<Duration>,
}

impl Draft {
    /// A draft of this type and content, all else left out.
    pub fn new(message_type: u32, payload: impl Into<Bytes>) -> Self {
        Self {
            message_type,
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Fills in what is missing and checks the result against the limits.
    pub(super) fn into_message(
        self,
        now: Timestamp,
        limits: &PublishLimits,
        ttls: &Ttls,
    ) -> Result<Message, Invalid> {
        let message = self.filled(now, ttls);
        limits.validate(&message)?;
        Ok(message)
    }

    /// Fills in what is missing.
    pub(super) fn filled(self, now: Timestamp, ttls: &Ttls) -> Message {
        let emergency = self.message_type == message_type::EMERGENCY_SIGNAL;
        let usual = if emergency {
            Priority::Emergency
        } else {
            Priority::Normal
        };
        let priority = self.priority.unwrap_or(usual);
        let created_at = self.created_at.unwrap_or(now);
        let ttl = self.ttl.unwrap_or_else(|| ttls.ttl(priority));
        Message {
            id: self.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            message_type: self.message_type,
            priority,
            source: self.source,
            created_at: Some(created_at),
            expires_at: Some(created_at + ttl),
            key: self.key,
            payload: self.payload,
            attributes: self.attributes,
            ..Message::default()
        }
    }
}
