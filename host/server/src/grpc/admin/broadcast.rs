//! Broadcasts, for operators.

use std::time::Duration;

use oona_core::broadcast::GroupReport;
use tonic::Status;

use crate::bus::{Broadcast, BroadcastError, BroadcastReport, Bus};
use crate::grpc::convert;
use crate::proto;

pub(super) async fn broadcast(
    bus: &Bus,
    who: &str,
    request: proto::BroadcastRequest,
) -> Result<proto::BroadcastResponse, Status> {
    let proto::BroadcastRequest {
        message,
        groups,
        deadline_ms,
    } = request;
    let Some(message) = message else {
        return Err(Status::invalid_argument("there is no message to broadcast"));
    };
    let draft = convert::draft(message);
    let draft = draft.map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
    let broadcast = Broadcast {
        draft,
        groups,
        deadline: deadline_ms.map(Duration::from_millis),
    };
    let report = bus.broadcast(broadcast).await;
    let report = report.map_err(|error| refusal(&error))?;
    tracing::info!(
        target: "oona::audit",
        by = who,
        event = report.id,
        entry = %report.entry,
        all_acked = report.all_acked,
        "broadcast"
    );
    Ok(response(report))
}

fn refusal(error: &BroadcastError) -> Status {
    let words = error.to_string();
    match error {
        BroadcastError::Invalid(_) | BroadcastError::Groups | BroadcastError::Deadline => {
            Status::invalid_argument(words)
        }
        BroadcastError::TooMany(_) | BroadcastError::Full { .. } => {
            Status::resource_exhausted(words)
        }
        BroadcastError::Open(_) | BroadcastError::Store(_) | BroadcastError::ShuttingDown => {
            Status::unavailable(words)
        }
    }
}

fn response(report: BroadcastReport) -> proto::BroadcastResponse {
    let group = |report: GroupReport| proto::GroupReport {
        group: report.group,
        status: report.status.name().to_owned(),
        after_ms: report.after_ms,
        receipt: report.receipt,
    };
    proto::BroadcastResponse {
        id: report.id,
        stream: report.stream.to_string(),
        entry: report.entry.to_string(),
        all_acked: report.all_acked,
        took_ms: report.took_ms,
        groups: report.groups.into_iter().map(group).collect(),
    }
}
