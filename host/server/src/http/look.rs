//! What a host shows of itself: latencies, queues, breakers, memory, and what happened to a message.
//!
//! Where there is a file of tokens, each needs the right `bus:read`, and what tells of dead letters the right
//! `dead-letters:read`: `authorization: Bearer TOKEN`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oona_core::rolling::Span;
use oona_core::trend::Point;
use serde::{Deserialize, Serialize};

use super::token;
use crate::access::{Access, Denied, Right};
use crate::alerts::AlertsAnswer;
use crate::bus::{Bus, MemoryStatus, StreamStatus};
use crate::chain::chain;
use crate::journeys::JourneysConfig;
use crate::latency::{LatencyStatus, no_span};
use crate::overview::POINTS;

/// Lets only those pass who have a right.
pub(super) async fn guard(
    State((access, right)): State<(Access, Right)>,
    request: Request,
    next: Next,
) -> Response {
    match access.who(token(request.headers()), None, right) {
        Ok(_) => next.run(request).await,
        Err(denied) => {
            let code = match denied {
                Denied::Unknown => StatusCode::UNAUTHORIZED,
                Denied::Lacks { .. } => StatusCode::FORBIDDEN,
            };
            (code, format!("{denied}\n")).into_response()
        }
    }
}

/// The query of `/v1/latency`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LatencyQuery {
    span: Option<String>,
}

/// The answer of `/v1/latency`.
#[derive(Debug, Serialize)]
struct LatencyAnswer {
    span: Span,
    latencies: Vec<LatencyStatus>,
}

/// How long each step took within a span.
pub(super) async fn latency(State(bus): State<Bus>, Query(query): Query<LatencyQuery>) -> Response {
    let name = query.span.as_deref().unwrap_or(Span::FiveMinutes.name());
    let Some(span) = Span::from_name(name) else {
        let sorry = format!("{}\n", no_span(name));
        return (StatusCode::BAD_REQUEST, sorry).into_response();
    };
    let latencies = bus.metrics().latencies.list(bus.now(), span);
    Json(LatencyAnswer { span, latencies }).into_response()
}

/// Objectives and alerts, as of the last look.
pub(super) async fn alerts(State(bus): State<Bus>) -> Json<AlertsAnswer> {
    Json(bus.metrics().alerts.answer())
}

/// One stream, and how it has fared.
#[derive(Debug, Serialize)]
struct QueueAnswer {
    #[serde(flatten)]
    status: StreamStatus,
    /// The last five minutes, the oldest first.
    trend: Vec<Point>,
}

/// Every stream: depth, groups, the age of the oldest message, and the last five minutes.
pub(super) async fn queues(State(bus): State<Bus>) -> Response {
    let streams = bus.status().streams.into_iter();
    let mut trends: BTreeMap<Arc<str>, Vec<Point>> = bus.trends(POINTS).into_iter().collect();
    let queues = streams.map(|status| QueueAnswer {
        trend: trends.remove(&*status.name).unwrap_or_default(),
        status,
    });
    Json(queues.collect::<Vec<_>>()).into_response()
}

/// Every breaker and the mode: how they are, why, and who has forced them.
pub(super) async fn breakers(State(bus): State<Bus>) -> Response {
    let status = bus.status();
    Json(serde_json::json!({
        "breakers": status.breakers,
        "mode": status.mode_status,
    }))
    .into_response()
}

/// What the dead letters are, from a sample.
pub(super) async fn audit(State(bus): State<Bus>) -> Response {
    let Some(found) = bus.metrics().audit.status() else {
        let sorry = "the dead letters have not been audited yet; dead_letters.audit_interval_ms says \
                     how often they are, and 0 is never\n";
        return (StatusCode::NOT_FOUND, sorry).into_response();
    };
    Json(found).into_response()
}

/// What the process holds, and what bounds it.
pub(super) async fn memory(State(bus): State<Bus>) -> Json<MemoryStatus> {
    Json(bus.memory())
}

/// What happened to the message of an event id, step by step.
pub(super) async fn journey(State(bus): State<Bus>, Path(event_id): Path<String>) -> Response {
    match bus.journey(&event_id).await {
        Ok(Some(journey)) => Json(journey).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, nowhere(&bus, &event_id)).into_response(),
        Err(error) => {
            let sorry = format!("not in memory, and {}\n", chain(&error));
            (StatusCode::SERVICE_UNAVAILABLE, sorry).into_response()
        }
    }
}

/// What is said of an event that nothing is known of, and where else to look.
fn nowhere(bus: &Bus, event_id: &str) -> String {
    let config = bus.config();
    let JourneysConfig {
        held_max,
        per_second,
    } = config.journeys;
    let window = config.publish.dedup_window.as_secs();
    format!(
        "nothing is known of event `{event_id}`.\n\
         This host holds {held_max} journeys (tracing.journeys_max), of {per_second} messages a second and of all \
         that met with trouble; the store knows an id that its producer gave for {window} s, an entry until it is \
         trimmed, and the last dead letters.\n\
         Ask the host that it was published to and those that delivered it; look for it with \
         `oona dlq list --event '{event_id}'`; with tracing on (docs/tracing.md), search the traces for \
         messaging.message.id.\n"
    )
}
