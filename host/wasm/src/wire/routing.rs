//! `oona:policy/routing`

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Route, Routing, Subject};
use oona_core::symbols::Symbol;
use wasmtime::component::{ComponentType, Lift};

use super::{Message, Sandboxed};

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Verdict {
    #[component(name = "route")]
    Route,
    #[component(name = "reject")]
    Reject,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Decision {
    verdict: Verdict,
    stream: u32,
    reason: u32,
}

impl Sandboxed for Routing {
    const INTERFACE: &'static str = "oona:policy/routing@0.1.0";
    type Asked = Message;
    type Answered = Decision;
    type Params = (u64, Arc<Vec<Message>>);

    fn ask(question: &Subject) -> Message {
        question.into()
    }

    fn params(now: Timestamp, _state: &(), asked: Arc<Vec<Message>>) -> Self::Params {
        (now.as_millis(), asked)
    }

    fn decision(answered: &Decision) -> Route {
        let reason = Symbol(answered.reason);
        match answered.verdict {
            Verdict::Route => Route::To {
                stream: Symbol(answered.stream),
                reason,
            },
            Verdict::Reject => Route::Reject { reason },
        }
    }

    fn trial_state(_stream: Symbol) {}

    fn trial_question(subject: Subject, _stream: Symbol) -> Subject {
        subject
    }
}
