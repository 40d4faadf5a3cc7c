//! Between the types of the wire and those of the bus.

use std::time::Duration;

use oona_core::Timestamp;
use oona_core::limits::PublishLimits;
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::policy::Priority;
use oona_core::trace_context::TRACEPARENT;

use crate::bus::{Delivery, Draft};
use crate::proto;

/// Why a request is malformed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is no such priority.
    #[error("priority {0} is unknown; use 0 (unspecified) to 5 (emergency)")]
    Priority(i32),
}

/// The draft that a request asks to publish.
///
/// # Errors
///
/// If it has a value that means nothing.
pub fn draft(request: proto::PublishRequest) -> Result<Draft, Malformed> {
    Ok(Draft {
        priority: priority(request.priority)?,
        id: (!request.id.is_empty()).then_some(request.id),
        message_type: request.message_type,
        source: request.source,
        key: request.key,
        payload: request.payload,
        attributes: request.attributes,
        created_at: request.created_at_ms.map(Timestamp::from_millis),
        ttl: request.ttl_ms.map(Duration::from_millis),
    })
}

fn priority(number: i32) -> Result<Option<Priority>, Malformed> {
    let known = proto::Priority::try_from(number).map_err(|_| Malformed::Priority(number))?;
    Ok(known.said())
}

/// What stands in the answer if the payload was over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// How large it was, in bytes.
    pub size: usize,
    /// How large it may be.
    pub limit: usize,
}

impl Oversize {
    /// Whether the payload of this size is over its limit. The bus refuses it for that; this only
    /// keeps the numbers for the answer.
    #[must_use]
    pub fn of(payload_size: usize, limits: &PublishLimits) -> Option<Self> {
        let limit = limits.payload_bytes_max;
        (payload_size > limit).then_some(Self {
            size: payload_size,
            limit,
        })
    }
}

/// The response that tells an outcome.
#[must_use]
pub fn response(
    sequence: u64,
    outcome: Outcome,
    oversize: Option<Oversize>,
) -> proto::PublishResponse {
    let outcome = match outcome {
        Outcome::Accepted {
            stream,
            id,
            lane,
            reason,
            pressure,
            duplicate,
        } => proto::publish_response::Outcome::Accepted(proto::Accepted {
            stream: stream.to_string(),
            entry: id.to_string(),
            lane: lane.name().to_owned(),
            reason: reason.to_string(),
            pressure: pressure.into(),
            duplicate,
        }),
        Outcome::Rejected {
            cause,
            reason,
            retry_after,
            detail,
        } => proto::publish_response::Outcome::Rejected(proto::Rejected {
            cause: cause.name().to_owned(),
            reason: reason.to_string(),
            retry_after_ms: retry_after.map(millis),
            detail,
            limit: oversize.map(|oversize| oversize.limit as u64),
            size: oversize.map(|oversize| oversize.size as u64),
        }),
    };
    proto::PublishResponse {
        sequence,
        outcome: Some(outcome),
    }
}

/// The response to a request that is malformed, where others follow it on the same stream.
#[must_use]
pub fn malformed(sequence: u64, malformed: &Malformed) -> proto::PublishResponse {
    let outcome = Outcome::Rejected {
        cause: RejectCause::Invalid,
        reason: "malformed".into(),
        retry_after: None,
        detail: malformed.to_string(),
    };
    response(sequence, outcome, None)
}

/// A delivery, as a subscriber sees it.
#[must_use]
pub fn delivery(delivery: &Delivery) -> proto::Delivery {
    let message = &delivery.message;
    let mut attributes = message.attributes.clone();
    if let Some(trace) = delivery.trace {
        attributes.insert(TRACEPARENT.to_owned(), trace.to_string());
    }
    proto::Delivery {
        id: delivery.id.0,
        stream: delivery.stream.to_string(),
        entry: delivery.entry.to_string(),
        redelivered: delivery.redelivered,
        attempt: message.attempt,
        deliveries: delivery.deliveries,
        message_id: message.id.clone(),
        message_type: message.message_type,
        priority: proto::Priority::from(message.priority).into(),
        source: message.source.clone(),
        key: message.key.clone(),
        payload: message.payload.clone(),
        attributes,
        created_at_ms: message.created_at.map(Timestamp::as_millis),
    }
}

/// Whole milliseconds, at most what the wire holds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_that_means_nothing_is_malformed() {
        assert_eq!(priority(0), Ok(None));
        assert_eq!(priority(1), Ok(Some(Priority::Low)));
        assert_eq!(priority(6), Err(Malformed::Priority(6)));
    }

    #[test]
    fn what_a_request_leaves_out_a_draft_leaves_out() {
        let draft = draft(proto::PublishRequest::default()).expect("nothing is malformed");
        assert_eq!(draft, Draft::default());
    }

    #[test]
    fn a_payload_over_the_limit_is_told_with_both_numbers() {
        let limits = PublishLimits {
            payload_bytes_max: 4,
            ..PublishLimits::default()
        };
        assert_eq!(Oversize::of(4, &limits), None);
        assert_eq!(
            Oversize::of(5, &limits),
            Some(Oversize { size: 5, limit: 4 })
        );
    }
}
