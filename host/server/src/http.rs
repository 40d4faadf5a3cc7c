//! The bus over HTTP: publish, health, metrics.
//!
//! | path | |
//! | --- | --- |
//! | `POST /v1/publish` | a message as JSON, or as `oona.v1.PublishRequest` in protobuf |
//! | `GET /v1/status` | how the bus is, as JSON |
//! | `GET /healthz` | 200 while the process runs, whatever else is wrong |
//! | `GET /readyz` | 200 while the bus does its work, else 503 with the reasons; how each part of it is |
//! | `GET /metrics` | everything that is counted |
//! | `GET /` | the console; what it asks for is in `console.rs`, and guarded as `site.rs` says |
//! | `GET /v1/latency?span=1m` | how long each step took within 1m, 5m, 1h, or since the start |
//! | `GET /v1/dead-letters/audit` | what the dead letters are, from a sample, and whether more come than usual |
//! | `GET /v1/alerts` | objectives with their error budgets, and alerts |
//! | `GET /debug/queues` | every stream: depth, groups, the oldest message, the last five minutes |
//! | `GET /debug/breakers` | every breaker and the mode, with the reason |
//! | `GET /debug/trace/ID` | what happened to the message of this event id |
//! | `GET /debug/memory` | what the process holds, and what bounds it |
//!
//! A publish must name its content type, `application/json` or `application/x-protobuf`, so that a
//! page in a browser cannot publish without being asked.

mod console;
mod look;
mod publish;
mod ready;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::access::{Access, Right};
use crate::bus::{Bus, BusStatus};
use crate::grpc::AdminOptions;
use crate::metrics;

/// What a scraper accepts that knows OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text";

/// What is served over HTTP. `names` are those of this host, beside its addresses.
pub fn router(bus: Bus, admin: AdminOptions, names: &[String]) -> Router {
    let access = admin.access.clone();
    let site = site(&access, names);
    let letters = Router::new()
        .route("/v1/dead-letters/audit", get(look::audit))
        .layer(from_fn_with_state(
            (access.clone(), Right::ReadDeadLetters),
            look::guard,
        ));
    let sees_bus = from_fn_with_state((access, Right::ReadBus), look::guard);
    let guarded = Router::new()
        .route("/v1/latency", get(look::latency))
        .route("/v1/alerts", get(look::alerts))
        .route("/debug/queues", get(look::queues))
        .route("/debug/breakers", get(look::breakers))
        .route("/debug/memory", get(look::memory))
        .route("/debug/trace/{*event_id}", get(look::journey))
        .layer(sees_bus.clone())
        .merge(letters)
        .merge(console::data(bus.clone(), admin))
        .layer(from_fn_with_state(site.clone(), console::guard));
    let unguarded = Router::new()
        .route("/v1/status", get(status))
        .layer(sees_bus)
        .route("/v1/publish", post(publish::publish))
        .layer(from_fn_with_state(site.clone(), console::keep_pages_out));
    console::page()
        .merge(guarded)
        .merge(unguarded)
        .with_state(bus.clone())
        .merge(health(bus, site))
}

/// What probes and scrapers ask for, without the rest.
pub fn health_router(bus: Bus, access: &Access, names: &[String]) -> Router {
    health(bus, site(access, names))
}

fn site(access: &Access, names: &[String]) -> console::Site {
    console::Site {
        access: access.clone(),
        names: names.into(),
    }
}

fn health(bus: Bus, site: console::Site) -> Router {
    let access = site.access.clone();
    let readyz = move |bus, headers| ready::readyz(bus, access, headers);
    Router::new()
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .layer(from_fn_with_state(site, console::keep_pages_out))
        .route("/healthz", get(healthz))
        .with_state(bus)
}

/// The token that somebody shows.
fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    value.to_str().ok()?.strip_prefix("Bearer ")
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn status(State(bus): State<Bus>) -> Json<BusStatus> {
    Json(bus.status())
}

/// In the format of OpenMetrics for those who ask for it, as Prometheus does; else in the older one.
async fn exposition(State(bus): State<Bus>, headers: HeaderMap) -> Response {
    bus.policies().gauge();
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|accept| accept.to_str().ok());
    let (content_type, text) = if accepted.any(|accept| accept.contains(OPENMETRICS)) {
        (metrics::CONTENT_TYPE, bus.metrics().render())
    } else {
        (
            metrics::CONTENT_TYPE_CLASSIC,
            bus.metrics().render_classic(),
        )
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
