//! `POST /v1/publish`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use oona_core::Timestamp;
use oona_core::envelope::message_type;
use oona_core::limits::PublishLimits;
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::policy::Priority;
use oona_core::trace_context::{self, TRACEPARENT, TRACESTATE};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, Draft};
use crate::grpc::convert::{self, Oversize, millis};
use crate::proto;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// What a body may be larger than the payload and the attributes in it: names, brackets, quotes.
const BODY_OVERHEAD_BYTES_MAX: usize = 16 * 1024;

/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// How many bytes of JSON one byte of text may take: `\u0000`.
const JSON_BYTES_PER_BYTE_MAX: usize = 6;

/// Publishes one message.
pub(super) async fn publish(State(bus): State<Bus>, headers: HeaderMap, body: Body) -> Response {
    let Some(form) = Form::of(&headers) else {
        return wrong_form();
    };
    let limits = &bus.config().limits;
    let read = read(&headers, body, form.body_bytes_max(limits)).await;
    let draft = read.and_then(|body| match form {
        Form::Json => json(&body),
        Form::Protobuf => protobuf(body),
    });
    let mut draft = match draft {
        Ok(draft) => draft,
        Err(refusal) => return refusal.response(),
    };
    let said = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let carried = [TRACEPARENT, TRACESTATE].map(|name| (name, said(name)));
    trace_context::inherit(&mut draft.attributes, carried);
    let oversize = Oversize::of(draft.payload.len(), limits);
    answer(form, bus.publish(draft).await, oversize)
}

/// In which form a body comes, and the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match value.split(';').next().unwrap_or(value).trim() {
            JSON => Some(Self::Json),
            PROTOBUF => Some(Self::Protobuf),
            _ => None,
        }
    }

    fn body_bytes_max(self, limits: &PublishLimits) -> usize {
        let content = limits.payload_bytes_max + limits.attribute_bytes_max;
        let stretch = match self {
            Self::Json => JSON_BYTES_PER_BYTE_MAX,
            Self::Protobuf => 1,
        };
        content * stretch + BODY_OVERHEAD_BYTES_MAX
    }
}

/// A publish that was refused before the bus heard of it.
#[derive(Debug)]
struct Refusal {
    cause: RejectCause,
    reason: &'static str,
    detail: String,
    oversize: Option<Oversize>,
}

impl Refusal {
    fn malformed(detail: impl Into<String>) -> Self {
        Self {
            cause: RejectCause::Invalid,
            reason: "malformed",
            detail: detail.into(),
            oversize: None,
        }
    }

    fn response(self) -> Response {
        let outcome = Outcome::Rejected {
            cause: self.cause,
            reason: self.reason.into(),
            retry_after: None,
            detail: self.detail,
        };
        answer(Form::Json, outcome, self.oversize)
    }
}

async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > limit {
        return Err(too_large(announced, limit));
    }
    let late = |_| Refusal::malformed(format!("the body took over {} s", BODY_TIME_MAX.as_secs()));
    tokio::time::timeout(BODY_TIME_MAX, collect(body, announced, limit))
        .await
        .map_err(late)?
}

/// Collects a body, and gives up one chunk over the limit: its length may not have been announced.
async fn collect(body: Body, announced: usize, limit: usize) -> Result<Bytes, Refusal> {
    let mut collected = BytesMut::with_capacity(announced);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let broken = |error| Refusal::malformed(format!("the body broke off: {error}"));
        let chunk = chunk.map_err(broken)?;
        if collected.len() + chunk.len() > limit {
            return Err(too_large(collected.len() + chunk.len(), limit));
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

fn too_large(size: usize, limit: usize) -> Refusal {
    Refusal {
        cause: RejectCause::TooLarge,
        reason: "too-large",
        detail: format!("the body (bytes) is {size}, and the limit is {limit}"),
        oversize: Some(Oversize { size, limit }),
    }
}

/// A message as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRequest {
    /// A name such as `telemetry`, or a number.
    #[serde(rename = "type")]
    message_type: NameOrNumber,
    #[serde(default)]
    priority: Option<Priority>,
    #[serde(default)]
    source: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    payload_base64: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    ttl_ms: Option<u64>,
    #[serde(default)]
    created_at_ms: Option<u64>,
    #[serde(default)]
    id: Option<String>,
}

#[derive(Debug)]
struct NameOrNumber(u32);

impl<'de> Deserialize<'de> for NameOrNumber {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        let number = match &value {
            serde_json::Value::String(name) => message_type::from_name(&name.to_lowercase()),
            value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        let unknown = || serde::de::Error::custom(format!("{value} is no type of message"));
        number.map(Self).ok_or_else(unknown)
    }
}

fn json(body: &[u8]) -> Result<Draft, Refusal> {
    let request: JsonRequest =
        serde_json::from_slice(body).map_err(|error| Refusal::malformed(error.to_string()))?;
    let payload = match (request.payload, request.payload_base64) {
        (Some(_), Some(_)) => {
            return Err(Refusal::malformed(
                "`payload` and `payload_base64` exclude each other",
            ));
        }
        (Some(text), None) => Bytes::from(text),
        (None, Some(encoded)) => {
            let decoded = STANDARD.decode(encoded);
            decoded
                .map_err(|error| Refusal::malformed(format!("`payload_base64`: {error}")))?
                .into()
        }
        (None, None) => Bytes::new(),
    };
    Ok(Draft {
        id: request.id,
        message_type: request.message_type.0,
        priority: request.priority,
        source: request.source,
        key: request.key,
        payload,
        attributes: request.attributes,
        created_at: request.created_at_ms.map(Timestamp::from_millis),
        ttl: request.ttl_ms.map(Duration::from_millis),
    })
}

fn protobuf(body: Bytes) -> Result<Draft, Refusal> {
    let request = proto::PublishRequest::decode(body);
    let request = request.map_err(|error| Refusal::malformed(error.to_string()))?;
    convert::draft(request).map_err(|error| Refusal::malformed(error.to_string()))
}

/// The outcome as JSON. What a limit refused carries the limit and the size.
#[derive(Debug, Serialize)]
struct JsonAnswer {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
}

fn answer(form: Form, outcome: Outcome, oversize: Option<Oversize>) -> Response {
    let status = status(&outcome);
    let retry_after = match &outcome {
        Outcome::Rejected { retry_after, .. } => *retry_after,
        Outcome::Accepted { .. } => None,
    };
    let mut response = match form {
        Form::Json => {
            let limit = oversize.map(|oversize| oversize.limit);
            let size = oversize.map(|oversize| oversize.size);
            Json(JsonAnswer {
                outcome,
                limit,
                size,
            })
            .into_response()
        }
        Form::Protobuf => {
            let message = convert::response(0, outcome, oversize).encode_to_vec();
            ([(header::CONTENT_TYPE, PROTOBUF)], message).into_response()
        }
    };
    *response.status_mut() = status;
    if let Some(retry_after) = retry_after {
        // The header counts whole seconds; the body is exact.
        let seconds = HeaderValue::from(millis(retry_after).div_ceil(1_000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn status(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::Accepted { .. } => StatusCode::OK,
        Outcome::Rejected { cause, .. } => match cause {
            RejectCause::Invalid => StatusCode::BAD_REQUEST,
            RejectCause::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RejectCause::Policy => StatusCode::UNPROCESSABLE_ENTITY,
            RejectCause::Backpressure => StatusCode::TOO_MANY_REQUESTS,
            RejectCause::Unavailable | RejectCause::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

fn wrong_form() -> Response {
    let refusal = Refusal::malformed(format!("the content type must be {JSON} or {PROTOBUF}"));
    let mut response = refusal.response();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Result<Draft, &str>) {
        let draft = json(body.as_bytes()).map_err(|refusal| refusal.detail);
        assert_eq!(draft, expected.map_err(str::to_owned), "{body}");
    }

    #[test]
    fn json_becomes_a_draft() {
        check(r#"{"type": 4}"#, Ok(Draft::new(4, "")));
        check(
            r#"{"type": "TELEMETRY", "payload": "é"}"#,
            Ok(Draft::new(4, "é")),
        );
        check(
            r#"{"type": "4711", "payload_base64": "AAE="}"#,
            Ok(Draft::new(4711, &[0, 1][..])),
        );
        let full = r#"{"type": "telemetry", "priority": "high", "source": "s", "key": "k", "id": "i",
            "attributes": {"a": "b"}, "ttl_ms": 5, "created_at_ms": 7}"#;
        let draft = Draft {
            priority: Some(Priority::High),
            source: "s".to_owned(),
            key: "k".to_owned(),
            id: Some("i".to_owned()),
            attributes: [("a".to_owned(), "b".to_owned())].into(),
            ttl: Some(Duration::from_millis(5)),
            created_at: Some(Timestamp::from_millis(7)),
            ..Draft::new(4, "")
        };
        check(full, Ok(draft));
    }

    #[test]
    fn what_is_malformed_is_told() {
        let table = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "missing field `type` at line 1 column 2"),
            (
                r#"{"type": "tele"}"#,
                "\"tele\" is no type of message at line 1 column 16",
            ),
            (
                r#"{"type": -1}"#,
                "-1 is no type of message at line 1 column 12",
            ),
            (
                r#"{"type": 4, "payload": "a", "payload_base64": "b"}"#,
                "`payload` and `payload_base64` exclude each other",
            ),
            (
                r#"{"type": 4, "payload_base64": "?"}"#,
                "`payload_base64`: Invalid symbol 63, offset 0.",
            ),
        ];
        for (body, detail) in table {
            check(body, Err(detail));
        }
        let unknown = json(br#"{"type": 4, "prio": "high"}"#).map_err(|refusal| refusal.detail);
        assert!(unknown.is_err_and(|detail| detail.starts_with("unknown field `prio`, expected")));
    }

    #[test]
    fn a_body_has_room_for_every_message_within_the_limits() {
        let limits = PublishLimits::default();
        let payload = "\u{0}".repeat(limits.payload_bytes_max);
        let body = serde_json::json!({ "type": 4, "payload": payload }).to_string();
        assert!(body.len() < Form::Json.body_bytes_max(&limits));
    }
}
