//! What the policies in use would decide on a message right now, and why.

use std::collections::BTreeMap;

use oona_core::Timestamp;
use oona_core::policy::Kind;
use serde::Serialize;

use crate::bus::Bus;
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
