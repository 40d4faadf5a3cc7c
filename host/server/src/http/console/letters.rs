//! Dead letters: looking at them, and sending them back.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use futures_util::StreamExt;
use oona_core::envelope::message_type;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

use super::content::content;
use super::{Console, Refusal, body, parsed, request};
use crate::explain;
use crate::proto::admin_server::Admin as _;
use crate::proto::{
    DeadLetter, DeadLetterFilter, GetDeadLetterRequest, ListDeadLettersRequest, MovedDeadLetter,
    RedriveDeadLettersRequest,
};

/// How many letters one request sends back: as many as a page of them has.
const REDRIVEN_MAX: usize = 100;

/// Which letters, and which page of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    class: String,
    reason: String,
    failure: String,
    stream: String,
    group: String,
    event_id: String,
    message_type: Option<u32>,
    newer_than_ms: Option<u64>,
    older_than_ms: Option<u64>,
    after: String,
    limit: u32,
}

impl From<Wanted> for ListDeadLettersRequest {
    fn from(wanted: Wanted) -> Self {
        let filter = DeadLetterFilter {
            class: wanted.class,
            reason: wanted.reason,
            failure: wanted.failure,
            stream: wanted.stream,
            group: wanted.group,
            message_type: wanted.message_type,
            event_id: wanted.event_id,
            older_than_ms: wanted.older_than_ms,
            newer_than_ms: wanted.newer_than_ms,
        };
        Self {
            filter: Some(filter),
            after: wanted.after,
            limit: wanted.limit,
        }
    }
}

/// A page of letters, oldest first.
pub(super) async fn list(
    State(console): State<Console>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Refusal> {
    let asked = request(&headers, ListDeadLettersRequest::from(wanted));
    let found = console.admin.list_dead_letters(asked).await?.into_inner();
    let letters: Vec<_> = found.letters.iter().map(letter).collect();
    Ok(Json(json!({
        "letters": letters,
        "next": Some(found.next).filter(|next| !next.is_empty()),
        "foreign": found.foreign,
    })))
}

/// One letter: what happened, the message with its content, and what policies would decide now.
pub(super) async fn show(
    State(console): State<Console>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let asked = request(&headers, GetDeadLetterRequest { id });
    let found = console.admin.get_dead_letter(asked).await?.into_inner();
    let message = parsed(&found.message_json);
    let message_type = found
        .letter
        .as_ref()
        .map_or(0, |letter| letter.message_type);
    let mut shown = json!({
        "letter": found.letter.as_ref().map(letter),
        "verified": found.verified,
        "message": message,
        "content": content(message_type, &found.payload),
    });
    let explanation = explanation(&console, &headers, &found.letter, &message).await;
    shown["explanation"] = explanation.unwrap_or_else(|status| {
        // Who may see letters may not see policies, perhaps.
        json!({ "error": status.message() })
    });
    Ok(Json(shown))
}

async fn explanation(
    console: &Console,
    headers: &HeaderMap,
    letter: &Option<DeadLetter>,
    message: &Value,
) -> Result<Value, Status> {
    if message.is_null() {
        return Err(Status::not_found(
            "the entry holds no message that can be read",
        ));
    }
    let mut asked = json!(letter);
    asked["message"] = message.clone();
    let asked = request(headers, explain::request(&asked));
    let told = console.admin.explain(asked).await?.into_inner();
    Ok(told
        .decisions_json
        .iter()
        .map(|decision| parsed(decision))
        .collect())
}

fn letter(letter: &DeadLetter) -> Value {
    let mut told = json!(letter);
    told["type"] = message_type::name(letter.message_type).into();
    told
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redrive {
    ids: Vec<String>,
    /// To which stream; to where each came from without.
    #[serde(default)]
    to: String,
    #[serde(default)]
    message: String,
}

/// Sends letters back, and tells of each; and why it ended early, if it did.
pub(super) async fn redrive(
    State(console): State<Console>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    let Redrive { ids, to, message } = body(&bytes)?;
    if ids.len() > REDRIVEN_MAX {
        let what = format!(
            "{} letters at once: send {REDRIVEN_MAX} at most, or use `oona dlq redrive`",
            ids.len()
        );
        return Err(Status::invalid_argument(what).into());
    }
    let asked = RedriveDeadLettersRequest {
        ids,
        to,
        message,
        ..RedriveDeadLettersRequest::default()
    };
    let moving = console.admin.redrive_dead_letters(request(&headers, asked));
    let mut moving = moving.await?.into_inner();
    let (mut moved, mut error) = (Vec::<MovedDeadLetter>::new(), None);
    while let Some(step) = moving.next().await {
        match step {
            Ok(letter) => moved.push(letter),
            // Those before it have gone: whoever asked has to hear of them.
            Err(status) if !moved.is_empty() => error = Some(status.message().to_owned()),
            Err(status) => return Err(status.into()),
        }
    }
    Ok(Json(json!({ "moved": moved, "error": error })))
}
