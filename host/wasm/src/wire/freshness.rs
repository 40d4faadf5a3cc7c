//! `oona:policy/freshness`

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, Freshness, FreshnessVerdict, Judgement, NonceSeen, Subject};
use oona_core::symbols::Symbol;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{Message, Sandboxed};

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Nonce {
    #[component(name = "unseen")]
    Unseen,
    #[component(name = "same-entry")]
    SameEntry,
    #[component(name = "other-entry")]
    OtherEntry,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Arrival {
    message: Message,
    nonce: Nonce,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Verdict {
    #[component(name = "fresh")]
    Fresh,
    #[component(name = "stale")]
    Stale,
    #[component(name = "replay")]
    Replay,
    #[component(name = "from-future")]
    FromFuture,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Decision {
    verdict: Verdict,
    remember: u64,
    reason: u32,
}

impl Sandboxed for Freshness {
    const INTERFACE: &'static str = "oona:policy/freshness@0.1.0";
    type Asked = Arrival;
    type Answered = Decision;
    type Params = (u64, Arc<Vec<Arrival>>);

    fn ask(question: &policy::Arrival) -> Arrival {
        Arrival {
            message: (&question.subject).into(),
            nonce: match question.nonce {
                NonceSeen::Unseen => Nonce::Unseen,
                NonceSeen::SameEntry => Nonce::SameEntry,
                NonceSeen::OtherEntry => Nonce::OtherEntry,
            },
        }
    }

    fn params(now: Timestamp, _state: &(), asked: Arc<Vec<Arrival>>) -> Self::Params {
        (now.as_millis(), asked)
    }

    fn decision(answered: &Decision) -> Judgement {
        Judgement {
            verdict: match answered.verdict {
                Verdict::Fresh => FreshnessVerdict::Fresh {
                    remember_ms: answered.remember,
                },
                Verdict::Stale => FreshnessVerdict::Stale,
                Verdict::Replay => FreshnessVerdict::Replay,
                Verdict::FromFuture => FreshnessVerdict::FromFuture,
            },
            reason: Symbol(answered.reason),
        }
    }

    fn trial_state(_stream: Symbol) {}

    fn trial_question(subject: Subject, _stream: Symbol) -> policy::Arrival {
        policy::Arrival {
            subject,
            nonce: NonceSeen::Unseen,
        }
    }
}
