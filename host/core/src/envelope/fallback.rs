//! What a message says of itself in its payload, for peers that do not say it in attributes.
//!
//! Read only where an attribute is missing, and only for the types that carry it. A payload that
//! does not decode says nothing: payloads are the business of those who exchange them.

use prost::Message as _;

use super::{Message, message_type};
use crate::entry::EntryId;
use crate::leyline;
use crate::time::Timestamp;

/// What a payload may say.
#[derive(Default)]
struct Said {
    id: String,
    source: String,
    at: Option<prost_types::Timestamp>,
}

/// Fills in what the attributes left out.
pub(super) fn fill(message: &mut Message, entry: EntryId) {
    if message.id.is_empty() || message.source.is_empty() || message.created_at.is_none() {
        let said = said(message);
        if message.id.is_empty() {
            message.id = said.id;
        }
        if message.source.is_empty() {
            message.source = said.source;
        }
        message.created_at = message.created_at.or(said.at.and_then(timestamp));
    }
    if message.id.is_empty() {
        message.id = format!("entry/{entry}");
    }
    if message.source.is_empty()
        && let Some(origin) = message.attributes.get("origin")
    {
        message.source.clone_from(origin);
    }
}

/// What the payload says. A request and its answer share the request's id, so the ids of both carry
/// their type: `<request id>:<name of the type>`.
fn said(message: &Message) -> Said {
    let bytes = message.payload.clone();
    let request = |id: String| match message_type::name(message.message_type) {
        Some(name) if !id.is_empty() => format!("{id}:{name}"),
        _ => id,
    };
    let said = match message.message_type {
        message_type::TELEMETRY => leyline::TelemetryPacket::decode(bytes).map(|packet| Said {
            id: packet.packet_id,
            source: packet.source_subsystem,
            at: packet.timestamp,
        }),
        message_type::POLICY_UPDATE => leyline::PolicyUpdate::decode(bytes).map(|update| Said {
            at: update.issued_at,
            ..Said::default()
        }),
        message_type::KERNEL_PREFETCH_REQUEST => {
            leyline::KernelPrefetchRequest::decode(bytes).map(|asked| Said {
                id: request(asked.request_id),
                at: asked.issued_at,
                ..Said::default()
            })
        }
        message_type::KERNEL_PREFETCH_READY => {
            leyline::KernelArtifactReady::decode(bytes).map(|ready| Said {
                id: request(ready.request_id),
                ..Said::default()
            })
        }
        message_type::KERNEL_PREFETCH_ERROR => {
            leyline::KernelArtifactError::decode(bytes).map(|error| Said {
                id: request(error.request_id),
                ..Said::default()
            })
        }
        message_type::EMERGENCY_SIGNAL => {
            leyline::EmergencySignal::decode(bytes).map(|signal| Said {
                source: signal.origin,
                at: signal.triggered_at,
                ..Said::default()
            })
        }
        _ => return Said::default(),
    };
    said.unwrap_or_default()
}

fn timestamp(at: prost_types::Timestamp) -> Option<Timestamp> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let ms = u64::try_from(at.nanos).ok()? / 1_000_000;
    Some(Timestamp::from_millis(
        seconds.checked_mul(1_000)?.checked_add(ms)?,
    ))
}
