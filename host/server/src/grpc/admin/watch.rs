//! Decisions as they are recorded.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oona_core::policy::Kind;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::convert::{json, optional_kind};
use crate::decisions::{DecisionLog, HELD_MAX, Recorded};
use crate::proto::{RecordedDecision, WatchDecisionsRequest};
use crate::record::MessageType;

/// What a watcher wants to see.
struct Filter {
    kind: Option<Kind>,
    reason: String,
    stream: String,
    message_type: Option<MessageType>,
    version: String,
}

impl Filter {
    fn new(request: &WatchDecisionsRequest) -> Result<Self, Status> {
        let named = (!request.message_type.is_empty()).then(|| {
            let listed = oona_core::envelope::message_type::from_name(&request.message_type);
            let unknown = || {
                Status::invalid_argument(format!(
                    "`{}` is no type of message",
                    request.message_type
                ))
            };
            listed.map(MessageType).ok_or_else(unknown)
        });
        Ok(Self {
            kind: optional_kind(&request.kind)?,
            reason: request.reason.clone(),
            stream: request.stream.clone(),
            message_type: named.transpose()?,
            version: request.version.clone(),
        })
    }

    fn wants(&self, recorded: &Recorded) -> bool {
        let Recorded {
            decision, state, ..
        } = recorded;
        let streams = [&decision.stream, &state.stream];
        let by = [&recorded.policy, &recorded.version, &recorded.digest];
        self.kind.is_none_or(|kind| kind == recorded.kind)
            && (self.reason.is_empty() || self.reason == decision.reason)
            && (self.stream.is_empty()
                || streams
                    .into_iter()
                    .flatten()
                    .any(|stream| *stream == self.stream))
            && self
                .message_type
                .is_none_or(|wanted| wanted == recorded.message.message_type)
            && (self.version.is_empty() || by.into_iter().any(|by| *by == self.version))
    }
}

/// The last decisions, and those to come.
pub(super) fn decisions(
    log: &DecisionLog,
    request: &WatchDecisionsRequest,
) -> Result<BoxStream<'static, Result<RecordedDecision, Status>>, Status> {
    let filter = Filter::new(request)?;
    // Before the last are read, so that none falls between.
    let watcher = log.watch();
    let mut last: Vec<_> = Kind::ALL
        .into_iter()
        .flat_map(|kind| log.last(kind, HELD_MAX))
        .collect();
    last.retain(|recorded| filter.wants(recorded));
    last.sort_by_key(|recorded| recorded.at_ms);
    let surplus = last.len().saturating_sub(request.last as usize);
    last.drain(..surplus);
    let past = stream::iter(last).map(|recorded| told(&recorded, 0));
    if !request.follow {
        return Ok(past.boxed());
    }
    let to_come = stream::unfold(
        (watcher, filter, 0),
        |(mut watcher, filter, mut left_out)| async move {
            loop {
                match watcher.recv().await {
                    Ok(recorded) if filter.wants(&recorded) => {
                        return Some((told(&recorded, left_out), (watcher, filter, 0)));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(count)) => left_out += count,
                    Err(RecvError::Closed) => return None,
                }
            }
        },
    );
    Ok(past.chain(to_come).boxed())
}

fn told(recorded: &Arc<Recorded>, left_out: u64) -> Result<RecordedDecision, Status> {
    Ok(RecordedDecision {
        json: json(&**recorded)?,
        left_out,
    })
}
