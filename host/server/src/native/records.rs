//! The host's types as the records that cross the boundary, for policies that need not cross it.

use oona_core::Timestamp;
use oona_core::policy::{
    self, Admission, AdmissionVerdict, Backpressure, DeadLetter, Fate, FateVerdict, Freshness,
    FreshnessVerdict, Judgement, NonceSeen, Route, Routing, Subject,
};
use oona_core::symbols::Symbol;
use oona_policy_sdk::native as sdk;
use oona_wasm::Sandboxed;

/// A kind of policy, in the host's types and in the SDK's.
pub(super) trait Records: Sandboxed {
    /// The same kind in the SDK.
    type Records: sdk::Kind<State: Send, Question: Send, Decision: Send>;

    fn state(state: &Self::State) -> <Self::Records as sdk::Kind>::State;
    fn question(question: &Self::Question) -> <Self::Records as sdk::Kind>::Question;
    fn decision(decision: &<Self::Records as sdk::Kind>::Decision) -> Self::Decision;
}

fn message(subject: &Subject) -> sdk::MessageRecord {
    sdk::MessageRecord {
        id: subject.id,
        message_type: subject.message_type,
        priority: match subject.priority {
            policy::Priority::Low => sdk::Priority::Low,
            policy::Priority::Normal => sdk::Priority::Normal,
            policy::Priority::High => sdk::Priority::High,
            policy::Priority::Critical => sdk::Priority::Critical,
            policy::Priority::Emergency => sdk::Priority::Emergency,
        },
        source: subject.source.0,
        payload_size: subject.payload_size,
        attempt: subject.attempt,
        created_at: subject.created_at.map_or(0, Timestamp::as_millis),
        expires_at: subject.expires_at.map_or(0, Timestamp::as_millis),
    }
}

impl Records for Routing {
    type Records = sdk::Routing;

    fn state(_state: &()) {}

    fn question(question: &Subject) -> sdk::MessageRecord {
        message(question)
    }

    fn decision(decision: &sdk::RoutingDecision) -> Route {
        let reason = Symbol(decision.reason);
        match decision.verdict {
            sdk::RoutingVerdict::Route => Route::To {
                stream: Symbol(decision.stream),
                reason,
            },
            sdk::RoutingVerdict::Reject => Route::Reject { reason },
        }
    }
}

impl Records for Backpressure {
    type Records = sdk::Backpressure;

    fn state(state: &policy::BusState) -> sdk::BusState {
        sdk::BusState {
            mode: match state.mode {
                policy::Mode::Normal => sdk::Mode::Normal,
                policy::Mode::Conservative => sdk::Mode::Conservative,
            },
            emergency_stream: state.emergency_stream.0,
            emergency_depth: state.emergency_depth,
            emergency_capacity: state.emergency_capacity,
            normal_stream: state.normal_stream.0,
            normal_depth: state.normal_depth,
            normal_capacity: state.normal_capacity,
        }
    }

    fn question(question: &policy::Candidate) -> sdk::CandidateRecord {
        sdk::CandidateRecord {
            message: message(&question.subject),
            stream: question.stream.0,
            depth: question.depth,
            capacity: question.capacity,
            slo: match question.slo {
                policy::Slo::Met => sdk::Slo::Met,
                policy::Slo::AtRisk => sdk::Slo::AtRisk,
                policy::Slo::Violated => sdk::Slo::Violated,
            },
            tokens: question.tokens,
            tokens_max: question.tokens_max,
            token_wait: question.token_wait_ms,
        }
    }

    fn decision(decision: &sdk::BackpressureDecision) -> Admission {
        let retry_after_ms = decision.retry_after;
        let pressure = if decision.pressure.is_nan() {
            0.0
        } else {
            decision.pressure
        };
        Admission {
            verdict: match decision.verdict {
                sdk::BackpressureVerdict::Admit => AdmissionVerdict::Admit,
                sdk::BackpressureVerdict::Reroute => AdmissionVerdict::Reroute {
                    stream: Symbol(decision.stream),
                },
                sdk::BackpressureVerdict::Defer => AdmissionVerdict::Defer { retry_after_ms },
                sdk::BackpressureVerdict::Reject => AdmissionVerdict::Reject { retry_after_ms },
            },
            reason: Symbol(decision.reason),
            pressure: pressure.clamp(0.0, 1.0),
        }
    }
}

impl Records for Freshness {
    type Records = sdk::Freshness;

    fn state(_state: &()) {}

    fn question(question: &policy::Arrival) -> sdk::ArrivalRecord {
        sdk::ArrivalRecord {
            message: message(&question.subject),
            nonce: match question.nonce {
                NonceSeen::Unseen => sdk::Nonce::Unseen,
                NonceSeen::SameEntry => sdk::Nonce::SameEntry,
                NonceSeen::OtherEntry => sdk::Nonce::OtherEntry,
            },
        }
    }

    fn decision(decision: &sdk::FreshnessDecision) -> Judgement {
        Judgement {
            verdict: match decision.verdict {
                sdk::FreshnessVerdict::Fresh => FreshnessVerdict::Fresh {
                    remember_ms: decision.remember,
                },
                sdk::FreshnessVerdict::Stale => FreshnessVerdict::Stale,
                sdk::FreshnessVerdict::Replay => FreshnessVerdict::Replay,
                sdk::FreshnessVerdict::FromFuture => FreshnessVerdict::FromFuture,
            },
            reason: Symbol(decision.reason),
        }
    }
}

impl Records for DeadLetter {
    type Records = sdk::DeadLetter;

    fn state(_state: &()) {}

    fn question(question: &policy::Failed) -> sdk::FailedRecord {
        sdk::FailedRecord {
            message: message(&question.subject),
            failure: failure(question.failure),
            deliveries: question.deliveries,
            requested_delay: question.requested_delay_ms,
        }
    }

    fn decision(decision: &sdk::DeadLetterDecision) -> Fate {
        Fate {
            verdict: match decision.verdict {
                sdk::DeadLetterVerdict::Retry => FateVerdict::Retry {
                    delay_ms: decision.delay,
                },
                sdk::DeadLetterVerdict::DeadLetter => FateVerdict::DeadLetter {
                    class: Symbol(decision.class),
                },
                sdk::DeadLetterVerdict::Discard => FateVerdict::Discard,
            },
            reason: Symbol(decision.reason),
        }
    }
}

fn failure(failure: policy::Failure) -> sdk::Failure {
    match failure {
        policy::Failure::HandlerError => sdk::Failure::HandlerError,
        policy::Failure::Poison => sdk::Failure::Poison,
        policy::Failure::Timeout => sdk::Failure::Timeout,
        policy::Failure::SubscriberLost => sdk::Failure::SubscriberLost,
        policy::Failure::Stale => sdk::Failure::Stale,
        policy::Failure::Replay => sdk::Failure::Replay,
        policy::Failure::FromFuture => sdk::Failure::FromFuture,
        policy::Failure::Unverifiable => sdk::Failure::Unverifiable,
        policy::Failure::Undecodable => sdk::Failure::Undecodable,
    }
}
