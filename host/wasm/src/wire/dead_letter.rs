//! `oona:policy/dead-letter`

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, DeadLetter, Fate, FateVerdict, Subject};
use oona_core::symbols::Symbol;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{Message, Sandboxed};

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Failure {
    #[component(name = "handler-error")]
    HandlerError,
    #[component(name = "poison")]
    Poison,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "subscriber-lost")]
    SubscriberLost,
    #[component(name = "stale")]
    Stale,
    #[component(name = "replay")]
    Replay,
    #[component(name = "from-future")]
    FromFuture,
    #[component(name = "unverifiable")]
    Unverifiable,
    #[component(name = "undecodable")]
    Undecodable,
}

impl From<policy::Failure> for Failure {
    fn from(failure: policy::Failure) -> Self {
        match failure {
            policy::Failure::HandlerError => Self::HandlerError,
            policy::Failure::Poison => Self::Poison,
            policy::Failure::Timeout => Self::Timeout,
            policy::Failure::SubscriberLost => Self::SubscriberLost,
            policy::Failure::Stale => Self::Stale,
            policy::Failure::Replay => Self::Replay,
            policy::Failure::FromFuture => Self::FromFuture,
            policy::Failure::Unverifiable => Self::Unverifiable,
            policy::Failure::Undecodable => Self::Undecodable,
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Failed {
    message: Message,
    failure: Failure,
    deliveries: u32,
    #[component(name = "requested-delay")]
    requested_delay: u64,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Verdict {
    #[component(name = "retry")]
    Retry,
    #[component(name = "dead-letter")]
    DeadLetter,
    #[component(name = "discard")]
    Discard,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Decision {
    verdict: Verdict,
    delay: u64,
    class: u32,
    reason: u32,
}

impl Sandboxed for DeadLetter {
    const INTERFACE: &'static str = "oona:policy/dead-letter@0.1.0";
    type Asked = Failed;
    type Answered = Decision;
    type Params = (u64, Arc<Vec<Failed>>);

    fn ask(question: &policy::Failed) -> Failed {
        Failed {
            message: (&question.subject).into(),
            failure: question.failure.into(),
            deliveries: question.deliveries,
            requested_delay: question.requested_delay_ms,
        }
    }

    fn params(now: Timestamp, _state: &(), asked: Arc<Vec<Failed>>) -> Self::Params {
        (now.as_millis(), asked)
    }

    fn decision(answered: &Decision) -> Fate {
        Fate {
            verdict: match answered.verdict {
                Verdict::Retry => FateVerdict::Retry {
                    delay_ms: answered.delay,
                },
                Verdict::DeadLetter => FateVerdict::DeadLetter {
                    class: Symbol(answered.class),
                },
                Verdict::Discard => FateVerdict::Discard,
            },
            reason: Symbol(answered.reason),
        }
    }

    fn class(decision: &Fate) -> Option<Symbol> {
        match decision.verdict {
            FateVerdict::DeadLetter { class } => Some(class),
            FateVerdict::Retry { .. } | FateVerdict::Discard => None,
        }
    }

    fn trial_state(_stream: Symbol) {}

    fn trial_question(subject: Subject, _stream: Symbol) -> policy::Failed {
        policy::Failed {
            subject,
            failure: policy::Failure::HandlerError,
            deliveries: 1,
            requested_delay_ms: 0,
        }
    }
}
