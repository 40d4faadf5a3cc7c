//! What the policies in use would decide on a message right now, and why.

use std::collections::{BTreeMap, HashMap};

use oona_core::Timestamp;
use oona_core::policy::Kind;
use serde::Serialize;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::proto::ExplainRequest;
use crate::record::{Decision, Message, RecordError, State};

/// A message, and what else policies are told.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The message.
    pub message: Message,
    /// By kind. What is left out is as on this host right now.
    pub states: BTreeMap<Kind, State>,
    /// When. Now without.
    pub now: Option<Timestamp>,
}

/// What one policy decides.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// The beginning of its digest; `native` for a native build.
    pub digest: String,
    /// Why the policy in use would not answer itself, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What else it was told.
    pub state: State,
    /// What it decides, and why.
    pub decision: Decision,
}

/// Asks each policy in use, in the order in which the message would meet them. Nothing is counted or
/// changed by it.
///
/// # Errors
///
/// If the message or a state contradicts itself.
pub fn explain(bus: &Bus, asked: &Asked) -> Result<Vec<Explained>, RecordError> {
    let policies = bus.policies();
    let now = asked.now.unwrap_or_else(|| bus.now());
    let mut states = asked.states.clone();
    let mut explained: Vec<Explained> = Vec::with_capacity(Kind::ALL.len());
    for kind in Kind::ALL {
        let mut state = states.remove(&kind).unwrap_or_default();
        if kind == Kind::Backpressure {
            let routed = explained
                .first()
                .and_then(|routing| routing.decision.stream.clone());
            if let Some(stream) = state.stream.clone().or(routed) {
                state = bus.state_of(&stream, state);
            }
        }
        explained.push(policies.explain(kind, &asked.message, &state, now)?);
    }
    Ok(explained)
}

/// What asks about a message, whichever form it is in: as in a case file, a recorded decision, a dead
/// letter, or a delivered message.
#[must_use]
pub fn request(value: &Value) -> ExplainRequest {
    if let (Some(kind), Some(_)) = (value["kind"].as_str(), value.get("decision")) {
        // A recorded decision: the policy of its kind is told what it was told then.
        return ExplainRequest {
            message_json: value["message"].to_string(),
            state_json: HashMap::from([(kind.to_owned(), value["state"].to_string())]),
            now_ms: value["at_ms"].as_u64(),
        };
    }
    if let (Some(message), Some(failure)) = (value.get("message"), value.get("failure")) {
        // A dead letter: the policy that filed it is told how the delivery failed.
        let state = json!({ "failure": failure });
        return ExplainRequest {
            message_json: message.to_string(),
            state_json: HashMap::from([("dead-letter".to_owned(), state.to_string())]),
            now_ms: value["at_ms"].as_u64(),
        };
    }
    if let Some(id) = value
        .get("id")
        .filter(|_| value.get("message_type").is_some())
    {
        // A delivered message.
        let field = |name: &str| value.get(name).cloned().unwrap_or_default();
        let message = json!({
            "id": id,
            "type": field("message_type"),
            "priority": field("priority"),
            "source": field("source"),
            "key": field("key"),
            "attempt": field("attempt"),
            "created_at": field("created_at_ms"),
            "attributes": field("attributes"),
        });
        let known = message
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null());
        let known: serde_json::Map<_, _> = known
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        return ExplainRequest {
            message_json: Value::Object(known).to_string(),
            ..Default::default()
        };
    }
    ExplainRequest {
        message_json: value.to_string(),
        ..Default::default()
    }
}
