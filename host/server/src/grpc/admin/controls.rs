//! Breakers and the mode, for operators.

use oona_core::breaker::Position;
use oona_core::force::Forced;
use oona_core::policy::Mode;
use tonic::Status;

use crate::bus::{BreakerStatus, Bus, ControlError, ModeStatus, Operator};
use crate::proto;

pub(super) fn breakers(bus: &Bus) -> proto::ListBreakersResponse {
    let breakers = bus.breakers().into_iter().map(breaker);
    proto::ListBreakersResponse {
        breakers: breakers.collect(),
    }
}

pub(super) fn force_breaker(
    bus: &Bus,
    who: &str,
    request: proto::ForceBreakerRequest,
) -> Result<proto::BreakerStatus, Status> {
    let proto::ForceBreakerRequest { name, to, message } = request;
    let position = match &*to {
        "open" => Some(Position::Open),
        "closed" => Some(Position::Closed),
        "auto" => None,
        _ => return Err(unknown(&to, "open, closed or auto")),
    };
    let operator = Operator {
        by: who.to_owned(),
        message: message.clone(),
    };
    let forced = bus.force_breaker(&name, position, operator);
    let status = forced.map_err(|error| refusal(&error))?;
    tracing::info!(target: "oona::audit", by = who, why = message, breaker = name, to, "breaker");
    Ok(breaker(status))
}

pub(super) fn mode(bus: &Bus) -> proto::ModeStatus {
    mode_status(bus.mode())
}

pub(super) fn force_mode(
    bus: &Bus,
    who: &str,
    request: proto::ForceModeRequest,
) -> Result<proto::ModeStatus, Status> {
    let proto::ForceModeRequest { to, message } = request;
    let mode = match &*to {
        "conservative" => Some(Mode::Conservative),
        "normal" => Some(Mode::Normal),
        "auto" => None,
        _ => return Err(unknown(&to, "conservative, normal or auto")),
    };
    let operator = Operator {
        by: who.to_owned(),
        message: message.clone(),
    };
    let forced = bus.force_mode(mode, operator);
    let status = forced.map_err(|error| refusal(&error))?;
    tracing::info!(target: "oona::audit", by = who, why = message, to, "mode");
    Ok(mode_status(status))
}

fn unknown(to: &str, known: &str) -> Status {
    Status::invalid_argument(format!("`{to}`: nothing can be forced there; use {known}"))
}

fn refusal(error: &ControlError) -> Status {
    let words = error.to_string();
    match error {
        ControlError::UnknownBreaker { .. } => Status::not_found(words),
        ControlError::Message(_) => Status::invalid_argument(words),
    }
}

fn breaker(status: BreakerStatus) -> proto::BreakerStatus {
    let BreakerStatus {
        name,
        state,
        reason,
        automatic,
        forced,
    } = status;
    proto::BreakerStatus {
        name,
        state: state.to_owned(),
        reason: reason.to_owned(),
        automatic: automatic.to_owned(),
        forced: forced.map(|forced| told(forced, Position::name)),
    }
}

fn mode_status(status: ModeStatus) -> proto::ModeStatus {
    let ModeStatus {
        mode,
        reason,
        automatic,
        forced,
    } = status;
    proto::ModeStatus {
        mode: mode.name().to_owned(),
        reason: reason.to_owned(),
        automatic: automatic.name().to_owned(),
        forced: forced.map(|forced| told(forced, Mode::name)),
    }
}

fn told<T>(forced: Forced<T>, name: impl FnOnce(T) -> &'static str) -> proto::Forced {
    let Forced {
        to,
        by,
        message,
        at,
    } = forced;
    proto::Forced {
        to: name(to).to_owned(),
        by,
        message,
        at_ms: at.as_millis(),
    }
}
