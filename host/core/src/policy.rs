//! What the host asks its policies, and what they may answer.
//!
//! These are the host's own types. The sandbox (`oona-wasm`) and the native builds of the shipped
//! policies both implement [`Decide`] over them, so nothing above can tell which of the two
//! answered, except by the name and digest that are logged with each decision. The meaning of every
//! field is documented in `wit/`, which is the contract; here stands what only the host adds.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::symbols::Symbol;
use crate::time::Timestamp;

/// The four kinds of policy. Each is a world of its own and is swapped on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Asked when a message is published: to which stream?
    Routing,
    /// Asked right after: is there room?
    Backpressure,
    /// Asked before delivery: is it still worth it, and the first?
    Freshness,
    /// Asked when a delivery failed: again, to the dead letters, or away?
    DeadLetter,
}

impl Kind {
    /// All kinds, in the order in which a message meets them.
    pub const ALL: [Self; 4] = [
        Self::Routing,
        Self::Backpressure,
        Self::Freshness,
        Self::DeadLetter,
    ];

    /// The name in configuration, commands and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Backpressure => "backpressure",
            Self::Freshness => "freshness",
            Self::DeadLetter => "dead-letter",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// A word that names no kind of policy.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no kind of policy: routing, backpressure, freshness or dead-letter")]
pub struct UnknownKind(String);

/// How urgent a message is, from least to most.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// First to be refused under load.
    Low,
    /// What a message has unless it says otherwise.
    #[default]
    Normal,
    /// From here on, messages travel on the emergency stream by default.
    High,
    /// Second only to an emergency.
    Critical,
    /// An emergency signal.
    Emergency,
}

impl Priority {
    /// All priorities, from least to most urgent.
    pub const ALL: [Self; 5] = [
        Self::Low,
        Self::Normal,
        Self::High,
        Self::Critical,
        Self::Emergency,
    ];

    /// The name on the wire and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Emergency => "emergency",
        }
    }

    /// The priority with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.name() == name)
    }
}

/// A message as a policy sees it: numbers only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Subject {
    /// 64-bit hash of the event id.
    pub id: u64,
    /// Wire number of `BusMessageType`.
    pub message_type: u32,
    /// Urgency.
    pub priority: Priority,
    /// The publishing subsystem, or [`Symbol::NONE`].
    pub source: Symbol,
    /// Size of the payload in bytes.
    pub payload_size: u32,
    /// Failures so far.
    pub attempt: u32,
    /// When it was issued, if it says so.
    pub created_at: Option<Timestamp>,
    /// When it loses its value, if ever.
    pub expires_at: Option<Timestamp>,
}

/// Where a policy reads the text that it asked for: the batch behind its questions.
pub trait Lookup: Send + Sync + fmt::Debug {
    /// The attribute `name` of the message at `index`. `None` too if there is no such message.
    fn attribute(&self, index: usize, name: &str) -> Option<&str>;

    /// Tells every attribute of the message at `index`, those of the bus apart: for the record of
    /// a decision. Policies ask by name.
    fn attributes(&self, index: usize, each: &mut dyn FnMut(&str, &str));

    /// The payload of the message at `index`; `None` if there is no such message.
    fn payload(&self, index: usize) -> Option<&[u8]>;
}

/// A batch without text: for questions whose messages could not be read, and for tests.
#[derive(Debug)]
pub struct NoText;

impl Lookup for NoText {
    fn attribute(&self, _index: usize, _name: &str) -> Option<&str> {
        None
    }

    fn attributes(&self, _index: usize, _each: &mut dyn FnMut(&str, &str)) {}

    fn payload(&self, _index: usize) -> Option<&[u8]> {
        None
    }
}

/// A kind of policy at the type level: what it is asked and what it answers.
pub trait PolicyKind: Copy + Send + Sync + 'static {
    /// Which kind.
    const KIND: Kind;
    /// One entry of the batch.
    type Question: Copy + Send + Sync + fmt::Debug + 'static;
    /// What is the same for the whole batch.
    type State: Copy + Send + Sync + fmt::Debug + Default + PartialEq + 'static;
    /// The answer to one question.
    type Decision: Copy + Send + Sync + fmt::Debug + PartialEq + 'static;

    /// The reason that the decision gives.
    fn reason(decision: &Self::Decision) -> Symbol;

    /// The stream that the decision sends the message to, if it names one.
    fn stream(decision: &Self::Decision) -> Option<Symbol>;
}

/// Something that decides: a component in its sandbox, or the native build of a shipped policy.
pub trait Decide<K: PolicyKind>: Send {
    /// Decides on each of `questions`, in order, into `decisions`, which is cleared first.
    ///
    /// # Errors
    ///
    /// If no decision could be had. `decisions` is then empty, and the caller asks its fail-safe.
    fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault>;

    /// How much memory of its own it has, in bytes; none if it does not run, or has none.
    fn memory_bytes(&self) -> Option<usize> {
        None
    }
}

impl<K: PolicyKind, D: Decide<K> + ?Sized> Decide<K> for Box<D> {
    fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault> {
        (**self).decide(now, state, questions, text, decisions)
    }

    fn memory_bytes(&self) -> Option<usize> {
        (**self).memory_bytes()
    }
}

/// Why a policy gave no decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It ran past its time.
    #[error("it took longer than its {limit_ms} ms")]
    Deadline {
        /// Its time, in ms per call.
        limit_ms: u64,
    },
    /// It wanted more memory than it may have, or its stack overflowed.
    #[error("it went over a bound: {0}")]
    Bound(String),
    /// It trapped for another reason.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It answered with too few or too many decisions.
    #[error("it answered {answered} decisions to {asked} questions")]
    Count {
        /// How many questions it was asked.
        asked: usize,
        /// How many decisions it gave.
        answered: usize,
    },
    /// It named a stream that the bus does not have.
    #[error("it named a stream that the bus does not have (symbol {})", .0.0)]
    UnknownStream(Symbol),
    /// It gave no reason, or one that is no symbol.
    #[error("it gave a reason that is no symbol (symbol {})", .0.0)]
    UnknownReason(Symbol),
}

impl Fault {
    /// A short name for counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "deadline",
            Self::Bound(_) => "bound",
            Self::Trap(_) => "trap",
            Self::Count { .. } => "count",
            Self::UnknownStream(_) => "unknown-stream",
            Self::UnknownReason(_) => "unknown-reason",
        }
    }
}

/// Routing: see `wit/routing.wit`.
#[derive(Clone, Copy, Debug)]
pub struct Routing;

/// The answer of a routing policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It goes to `stream`, if backpressure admits it there.
    To {
        /// Where.
        stream: Symbol,
        /// Why.
        reason: Symbol,
    },
    /// It is refused.
    Reject {
        /// Why.
        reason: Symbol,
    },
}

impl PolicyKind for Routing {
    const KIND: Kind = Kind::Routing;
    type Question = Subject;
    type State = ();
    type Decision = Route;

    fn reason(decision: &Route) -> Symbol {
        match *decision {
            Route::To { reason, .. } | Route::Reject { reason } => reason,
        }
    }

    fn stream(decision: &Route) -> Option<Symbol> {
        match *decision {
            Route::To { stream, .. } => Some(stream),
            Route::Reject { .. } => None,
        }
    }
}

/// Backpressure: see `wit/backpressure.wit`.
#[derive(Clone, Copy, Debug)]
pub struct Backpressure;

/// Whether the bus protects itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything works.
    #[default]
    Normal,
    /// The bus sheds load.
    Conservative,
}

impl Mode {
    /// The name in answers, commands and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Conservative => "conservative",
        }
    }
}

/// How a stream does against its service level objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slo {
    /// The objective is met.
    #[default]
    Met,
    /// The error budget burns faster than it lasts.
    AtRisk,
    /// The error budget is spent.
    Violated,
}

/// The state of the bus, the same for a whole batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BusState {
    /// Whether the bus protects itself.
    pub mode: Mode,
    /// The emergency stream.
    pub emergency_stream: Symbol,
    /// Its unfinished entries.
    pub emergency_depth: u64,
    /// How many it may hold.
    pub emergency_capacity: u64,
    /// Where messages without a stream of their own go.
    pub normal_stream: Symbol,
    /// Its unfinished entries.
    pub normal_depth: u64,
    /// How many it may hold.
    pub normal_capacity: u64,
}

/// A message on its way to a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The message.
    pub subject: Subject,
    /// Where routing sends it.
    pub stream: Symbol,
    /// Unfinished entries of that stream.
    pub depth: u64,
    /// How many it may hold; never zero.
    pub capacity: u64,
    /// The stream's service level.
    pub slo: Slo,
    /// Emergency tokens left for this message.
    pub tokens: u32,
    /// Emergency tokens of a full bucket; never zero.
    pub tokens_max: u32,
    /// When the next token is there, in ms from now.
    pub token_wait_ms: u32,
}

/// The answer of a backpressure policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Admission {
    /// What becomes of the message.
    pub verdict: AdmissionVerdict,
    /// Why.
    pub reason: Symbol,
    /// How hard the stream is pressed, 0 to 1.
    pub pressure: f32,
}

/// What becomes of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionVerdict {
    /// Written where routing said.
    Admit,
    /// Written to another stream.
    Reroute {
        /// Which.
        stream: Symbol,
    },
    /// Not now.
    Defer {
        /// When to try again, in ms from now.
        retry_after_ms: u32,
    },
    /// No.
    Reject {
        /// When to try again, in ms from now.
        retry_after_ms: u32,
    },
}

impl PolicyKind for Backpressure {
    const KIND: Kind = Kind::Backpressure;
    type Question = Candidate;
    type State = BusState;
    type Decision = Admission;

    fn reason(decision: &Admission) -> Symbol {
        decision.reason
    }

    fn stream(decision: &Admission) -> Option<Symbol> {
        match decision.verdict {
            AdmissionVerdict::Reroute { stream } => Some(stream),
            _ => None,
        }
    }
}

/// Freshness: see `wit/freshness.wit`.
#[derive(Clone, Copy, Debug)]
pub struct Freshness;

/// What the host remembers of a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NonceSeen {
    /// Never, within the time that it was to be remembered.
    #[default]
    Unseen,
    /// On this very entry: a redelivery.
    SameEntry,
    /// On another entry: somebody wrote the message again.
    OtherEntry,
}

/// A message about to be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrival {
    /// The message.
    pub subject: Subject,
    /// What is remembered of it.
    pub nonce: NonceSeen,
}

/// The answer of a freshness policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of the message.
    pub verdict: FreshnessVerdict,
    /// Why.
    pub reason: Symbol,
}

/// What becomes of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessVerdict {
    /// Deliver it.
    Fresh {
        /// How long to remember its nonce, in ms from now; zero for not at all.
        remember_ms: u64,
    },
    /// Too old.
    Stale,
    /// Seen before on another entry.
    Replay,
    /// Issued later than clocks may differ.
    FromFuture,
}

impl PolicyKind for Freshness {
    const KIND: Kind = Kind::Freshness;
    type Question = Arrival;
    type State = ();
    type Decision = Judgement;

    fn reason(decision: &Judgement) -> Symbol {
        decision.reason
    }

    fn stream(_decision: &Judgement) -> Option<Symbol> {
        None
    }
}

/// Dead-letter: see `wit/dead-letter.wit`.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter;

/// How a delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The subscriber said no, and may do better next time.
    HandlerError,
    /// The subscriber said that the message can never be handled.
    Poison,
    /// No answer before the acknowledgement deadline.
    Timeout,
    /// The subscriber, or its host, went away.
    SubscriberLost,
    /// Freshness: too old.
    Stale,
    /// Freshness: seen before on another entry.
    Replay,
    /// Freshness: issued later than clocks may differ.
    FromFuture,
    /// No signature, or one that no key verifies.
    Unverifiable,
    /// No envelope that can be read.
    Undecodable,
}

impl Failure {
    /// All failures.
    pub const ALL: [Self; 9] = [
        Self::HandlerError,
        Self::Poison,
        Self::Timeout,
        Self::SubscriberLost,
        Self::Stale,
        Self::Replay,
        Self::FromFuture,
        Self::Unverifiable,
        Self::Undecodable,
    ];

    /// The name in dead letters and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandlerError => "handler-error",
            Self::Poison => "poison",
            Self::Timeout => "timeout",
            Self::SubscriberLost => "subscriber-lost",
            Self::Stale => "stale",
            Self::Replay => "replay",
            Self::FromFuture => "from-future",
            Self::Unverifiable => "unverifiable",
            Self::Undecodable => "undecodable",
        }
    }
}

/// A failed delivery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failed {
    /// The message; `attempt` counts the failures before this one.
    pub subject: Subject,
    /// How it failed.
    pub failure: Failure,
    /// How often its entry has been delivered, this time included.
    pub deliveries: u32,
    /// The delay that the subscriber asked for, in ms; zero for none.
    pub requested_delay_ms: u64,
}

/// The answer of a dead-letter policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// What becomes of the message.
    pub verdict: FateVerdict,
    /// Why.
    pub reason: Symbol,
}

/// What becomes of a failed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FateVerdict {
    /// Deliver it again.
    Retry {
        /// When, in ms from now.
        delay_ms: u64,
    },
    /// Put it among the dead letters.
    DeadLetter {
        /// Under which class.
        class: Symbol,
    },
    /// Let it go, counted and logged.
    Discard,
}

impl PolicyKind for DeadLetter {
    const KIND: Kind = Kind::DeadLetter;
    type Question = Failed;
    type State = ();
    type Decision = Fate;

    fn reason(decision: &Fate) -> Symbol {
        decision.reason
    }

    fn stream(_decision: &Fate) -> Option<Symbol> {
        None
    }
}
