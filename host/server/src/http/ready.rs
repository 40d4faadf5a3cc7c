//! Whether the bus does its work; and to those who may see the bus, how each part of it is.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use oona_core::force::Forced;
use oona_core::policy::Mode;
use serde::Serialize;

use super::token;
use crate::access::{Access, Right};
use crate::bus::{Bus, BusStatus};

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    #[serde(flatten)]
    why: Option<Why>,
}

/// What only those are told who have the right `bus:read`: it has names and words of operators.
#[derive(Debug, Serialize)]
struct Why {
    reasons: Vec<String>,
    checks: Vec<Check>,
}

/// One part of the bus.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    /// Whether the bus is ready only if this is well. Else it may limit the bus and leave it ready: conservative
    /// mode, a deep stream, a policy that was taken out.
    decides: bool,
    ok: bool,
    reason: String,
}

pub(super) async fn readyz(State(bus): State<Bus>, access: Access, headers: HeaderMap) -> Response {
    let status = bus.status();
    let code = if status.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let sees = access.who(token(&headers), None, Right::ReadBus).is_ok();
    let readiness = Readiness {
        ready: status.ready,
        why: sees.then(|| Why {
            checks: checks(&status, bus.config().conservative.high_water),
            reasons: status.reasons,
        }),
    };
    (code, Json(readiness)).into_response()
}

fn checks(status: &BusStatus, high_water: u64) -> Vec<Check> {
    vec![
        store(status),
        breakers(status),
        mode(status),
        depth(status, high_water),
        policies(status),
    ]
}

/// A check that fails for these reasons, and else is fine, as `fine` says.
fn check(name: &'static str, wrong: &[String], fine: String) -> Check {
    let ok = wrong.is_empty();
    let reason = if ok { fine } else { wrong.join("; ") };
    let decides = matches!(name, "store" | "breakers");
    Check {
        name,
        decides,
        ok,
        reason,
    }
}

fn store(status: &BusStatus) -> Check {
    let store = &status.store;
    let (name, address) = (store.name, &store.address);
    let down = format!("the {name} store at {address} does not answer");
    let down = (!store.up).then_some(down);
    check(
        "store",
        down.as_slice(),
        format!("the {name} store at {address} answers"),
    )
}

fn breakers(status: &BusStatus) -> Check {
    let not_closed = status.breakers.iter().filter(|it| it.state != "closed");
    let words = not_closed.map(|it| {
        let why = it
            .forced
            .as_ref()
            .map_or_else(|| it.reason.to_owned(), Forced::words);
        format!("the {} breaker is {} ({why})", it.name, it.state)
    });
    let wrong: Vec<_> = words.collect();
    check("breakers", &wrong, "all are closed".to_owned())
}

fn mode(status: &BusStatus) -> Check {
    let mode = &status.mode_status;
    let why = mode
        .forced
        .as_ref()
        .map_or_else(|| mode.reason.to_owned(), Forced::words);
    let words = format!("{} mode ({why})", mode.mode.name());
    let ok = mode.mode == Mode::Normal;
    Check {
        name: "mode",
        decides: false,
        ok,
        reason: words,
    }
}

fn depth(status: &BusStatus, high_water: u64) -> Check {
    let deep = status.streams.iter().filter(|it| it.depth >= high_water);
    let words = deep.map(|it| {
        let (name, depth) = (&it.name, it.depth);
        format!("{name} has {depth} messages to finish, high water is {high_water}")
    });
    let wrong: Vec<_> = words.collect();
    check(
        "depth",
        &wrong,
        format!("every stream has fewer than {high_water} messages to finish"),
    )
}

fn policies(status: &BusStatus) -> Check {
    let words = status.policies.iter().filter_map(|policy| {
        let kind = policy.kind.name();
        match (&policy.slot.fallback, &policy.not_started) {
            (Some(fallback), _) => Some(format!(
                "the {kind} policy {} was taken out: {}",
                fallback.from, fallback.fault
            )),
            (None, Some(why)) => Some(format!("the {kind} policy did not start: {why}")),
            (None, None) => None,
        }
    });
    let wrong: Vec<_> = words.collect();
    check(
        "policies",
        &wrong,
        "each in use is the one that was chosen".to_owned(),
    )
}
