//! What crosses the boundary, as `wit/` lays it out, and how it becomes the host's own types.
//!
//! The records here are named and ordered as in the WIT package; wasmtime compares them with a
//! component's own types before the first call. Times that are unknown cross as zero.

mod backpressure;
mod dead_letter;
mod freshness;
mod routing;

use std::fmt::Debug;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, PolicyKind, Subject};
use oona_core::symbols::Symbol;
use wasmtime::component::{ComponentNamedList, ComponentType, Lift, Lower};

/// The import that every policy may have.
pub(crate) const HOST: &str = "oona:policy/host@0.1.0";

/// The types that every policy shares.
pub(crate) const TYPES: &str = "oona:policy/types@0.1.0";

/// A kind of policy that can be asked in the sandbox: all four of them.
pub trait Sandboxed: PolicyKind {
    /// The interface that a component of this kind exports.
    #[doc(hidden)]
    const INTERFACE: &'static str;
    /// A question as it crosses.
    #[doc(hidden)]
    type Asked: Copy + Debug + Send + Sync + 'static;
    /// A decision as it crosses.
    #[doc(hidden)]
    type Answered: Lift + Send + Sync + 'static;
    /// What `decide` takes.
    #[doc(hidden)]
    type Params: ComponentNamedList + Lower + Send + Sync + 'static;

    /// From the host's question to the one that crosses.
    #[doc(hidden)]
    fn ask(question: &Self::Question) -> Self::Asked;

    /// The arguments of one call. The questions are shared, so that their buffer can be used again.
    #[doc(hidden)]
    fn params(now: Timestamp, state: &Self::State, asked: Arc<Vec<Self::Asked>>) -> Self::Params;

    /// From the decision that crossed to the host's.
    #[doc(hidden)]
    fn decision(answered: &Self::Answered) -> Self::Decision;

    /// A name in the decision besides its stream and its reason.
    #[doc(hidden)]
    fn class(_decision: &Self::Decision) -> Option<Symbol> {
        None
    }

    /// A plain state for the trial of a new version. `stream` is one that the bus has.
    #[doc(hidden)]
    fn trial_state(stream: Symbol) -> Self::State;

    /// A plain question about a message, for the same.
    #[doc(hidden)]
    fn trial_question(subject: Subject, stream: Symbol) -> Self::Question;
}

/// The interface of decisions for each kind, as its component exports it.
pub(crate) const fn interface(kind: policy::Kind) -> &'static str {
    match kind {
        policy::Kind::Routing => policy::Routing::INTERFACE,
        policy::Kind::Backpressure => policy::Backpressure::INTERFACE,
        policy::Kind::Freshness => policy::Freshness::INTERFACE,
        policy::Kind::DeadLetter => policy::DeadLetter::INTERFACE,
    }
}

/// `types.priority`
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Priority {
    #[component(name = "low")]
    Low,
    #[component(name = "normal")]
    Normal,
    #[component(name = "high")]
    High,
    #[component(name = "critical")]
    Critical,
    #[component(name = "emergency")]
    Emergency,
}

impl From<policy::Priority> for Priority {
    fn from(priority: policy::Priority) -> Self {
        match priority {
            policy::Priority::Low => Self::Low,
            policy::Priority::Normal => Self::Normal,
            policy::Priority::High => Self::High,
            policy::Priority::Critical => Self::Critical,
            policy::Priority::Emergency => Self::Emergency,
        }
    }
}

/// `types.message`
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Message {
    id: u64,
    #[component(name = "message-type")]
    message_type: u32,
    priority: Priority,
    source: u32,
    #[component(name = "payload-size")]
    payload_size: u32,
    attempt: u32,
    #[component(name = "created-at")]
    created_at: u64,
    #[component(name = "expires-at")]
    expires_at: u64,
}

impl From<&Subject> for Message {
    fn from(subject: &Subject) -> Self {
        Self {
            id: subject.id,
            message_type: subject.message_type,
            priority: subject.priority.into(),
            source: subject.source.0,
            payload_size: subject.payload_size,
            attempt: subject.attempt,
            created_at: subject.created_at.map_or(0, Timestamp::as_millis),
            expires_at: subject.expires_at.map_or(0, Timestamp::as_millis),
        }
    }
}

/// `types.description`
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) version: String,
    #[component(name = "config-schema")]
    pub(crate) config_schema: String,
}
