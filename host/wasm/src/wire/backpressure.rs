//! `oona:policy/backpressure`

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, Admission, AdmissionVerdict, Backpressure, Subject};
use oona_core::symbols::Symbol;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::{Message, Sandboxed};

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Mode {
    #[component(name = "normal")]
    Normal,
    #[component(name = "conservative")]
    Conservative,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Slo {
    #[component(name = "met")]
    Met,
    #[component(name = "at-risk")]
    AtRisk,
    #[component(name = "violated")]
    Violated,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct BusState {
    mode: Mode,
    #[component(name = "emergency-stream")]
    emergency_stream: u32,
    #[component(name = "emergency-depth")]
    emergency_depth: u64,
    #[component(name = "emergency-capacity")]
    emergency_capacity: u64,
    #[component(name = "normal-stream")]
    normal_stream: u32,
    #[component(name = "normal-depth")]
    normal_depth: u64,
    #[component(name = "normal-capacity")]
    normal_capacity: u64,
}

impl From<&policy::BusState> for BusState {
    fn from(state: &policy::BusState) -> Self {
        Self {
            mode: match state.mode {
                policy::Mode::Normal => Mode::Normal,
                policy::Mode::Conservative => Mode::Conservative,
            },
            emergency_stream: state.emergency_stream.0,
            emergency_depth: state.emergency_depth,
            emergency_capacity: state.emergency_capacity,
            normal_stream: state.normal_stream.0,
            normal_depth: state.normal_depth,
            normal_capacity: state.normal_capacity,
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Candidate {
    message: Message,
    stream: u32,
    depth: u64,
    capacity: u64,
    slo: Slo,
    tokens: u32,
    #[component(name = "tokens-max")]
    tokens_max: u32,
    #[component(name = "token-wait")]
    token_wait: u32,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Verdict {
    #[component(name = "admit")]
    Admit,
    #[component(name = "reroute")]
    Reroute,
    #[component(name = "defer")]
    Defer,
    #[component(name = "reject")]
    Reject,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Decision {
    verdict: Verdict,
    stream: u32,
    reason: u32,
    #[component(name = "retry-after")]
    retry_after: u32,
    pressure: f32,
}

impl Sandboxed for Backpressure {
    const INTERFACE: &'static str = "oona:policy/backpressure@0.1.0";
    type Asked = Candidate;
    type Answered = Decision;
    type Params = (u64, BusState, Arc<Vec<Candidate>>);

    fn ask(question: &policy::Candidate) -> Candidate {
        Candidate {
            message: (&question.subject).into(),
            stream: question.stream.0,
            depth: question.depth,
            capacity: question.capacity,
            slo: match question.slo {
                policy::Slo::Met => Slo::Met,
                policy::Slo::AtRisk => Slo::AtRisk,
                policy::Slo::Violated => Slo::Violated,
            },
            tokens: question.tokens,
            tokens_max: question.tokens_max,
            token_wait: question.token_wait_ms,
        }
    }

    fn params(
        now: Timestamp,
        state: &policy::BusState,
        asked: Arc<Vec<Candidate>>,
    ) -> Self::Params {
        (now.as_millis(), state.into(), asked)
    }

    /// A pressure outside its range is brought into it: it is shown, never acted on.
    fn decision(answered: &Decision) -> Admission {
        let retry_after_ms = answered.retry_after;
        let pressure = if answered.pressure.is_nan() {
            0.0
        } else {
            answered.pressure
        };
        Admission {
            verdict: match answered.verdict {
                Verdict::Admit => AdmissionVerdict::Admit,
                Verdict::Reroute => AdmissionVerdict::Reroute {
                    stream: Symbol(answered.stream),
                },
                Verdict::Defer => AdmissionVerdict::Defer { retry_after_ms },
                Verdict::Reject => AdmissionVerdict::Reject { retry_after_ms },
            },
            reason: Symbol(answered.reason),
            pressure: pressure.clamp(0.0, 1.0),
        }
    }

    fn trial_state(stream: Symbol) -> policy::BusState {
        policy::BusState {
            mode: policy::Mode::Normal,
            emergency_stream: stream,
            emergency_depth: 0,
            emergency_capacity: 1,
            normal_stream: stream,
            normal_depth: 0,
            normal_capacity: 1,
        }
    }

    fn trial_question(subject: Subject, stream: Symbol) -> policy::Candidate {
        policy::Candidate {
            subject,
            stream,
            depth: 0,
            capacity: 1,
            slo: policy::Slo::Met,
            tokens: 1,
            tokens_max: 1,
            token_wait_ms: 0,
        }
    }
}
