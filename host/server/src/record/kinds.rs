//! Each kind of policy, in words.

use oona_core::Timestamp;
use oona_core::policy::{self, Kind, Subject};
use oona_core::symbols::Symbol;
use oona_wasm::SymbolTable;

use super::{Decision, Message, RecordError, Recorded, State, named};

/// The capacity of a stream that a record does not name, in entries: the default of a bus.
const CAPACITY: u64 = 100_000;
/// The emergency tokens of a bucket that a record does not name: the default of a bus.
const TOKENS: u32 = 120;

fn stream(symbols: &SymbolTable, symbol: Symbol) -> Option<String> {
    symbols.name(symbol).map(|name| name.to_string())
}

impl Recorded for policy::Routing {
    fn question(
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<((), Subject), RecordError> {
        state.only_of(Kind::Routing)?;
        Ok(((), message.subject(now, symbols)?))
    }

    fn subject(question: &Subject) -> &Subject {
        question
    }

    fn state(_state: &(), _question: &Subject, _symbols: &SymbolTable) -> State {
        State::default()
    }

    fn decision(decision: &policy::Route, symbols: &SymbolTable) -> Decision {
        let (verdict, to, reason) = match *decision {
            policy::Route::To { stream, reason } => ("route", stream, reason),
            policy::Route::Reject { reason } => ("reject", Symbol::NONE, reason),
        };
        Decision {
            verdict: verdict.to_owned(),
            reason: named(symbols, reason),
            stream: stream(symbols, to),
            ..Decision::default()
        }
    }
}

impl Recorded for policy::Backpressure {
    fn question(
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<(policy::BusState, policy::Candidate), RecordError> {
        state.only_of(Kind::Backpressure)?;
        let name =
            |name: &Option<String>, default| symbols.intern(name.as_deref().unwrap_or(default));
        let capacity = |capacity: Option<u64>, field| match capacity.unwrap_or(CAPACITY) {
            0 => Err(RecordError::Zero(field)),
            capacity => Ok(capacity),
        };
        let tokens_max = state.tokens_max.unwrap_or(TOKENS);
        if tokens_max == 0 {
            return Err(RecordError::Zero("tokens_max"));
        }
        let candidate = policy::Candidate {
            subject: message.subject(now, symbols)?,
            stream: name(&state.stream, "oona.normal"),
            depth: state.depth.unwrap_or(0),
            capacity: capacity(state.capacity, "capacity")?,
            slo: state.slo.unwrap_or_default(),
            tokens: state.tokens.unwrap_or(tokens_max),
            tokens_max,
            token_wait_ms: state.token_wait_ms.unwrap_or(0),
        };
        let bus = policy::BusState {
            mode: state.mode.unwrap_or_default(),
            emergency_stream: name(&state.emergency_stream, "oona.emergency"),
            emergency_depth: state.emergency_depth.unwrap_or(0),
            emergency_capacity: capacity(state.emergency_capacity, "emergency_capacity")?,
            normal_stream: name(&state.normal_stream, "oona.normal"),
            normal_depth: state.normal_depth.unwrap_or(0),
            normal_capacity: capacity(state.normal_capacity, "normal_capacity")?,
        };
        Ok((bus, candidate))
    }

    fn subject(question: &policy::Candidate) -> &Subject {
        &question.subject
    }

    fn state(
        state: &policy::BusState,
        question: &policy::Candidate,
        symbols: &SymbolTable,
    ) -> State {
        State {
            stream: stream(symbols, question.stream),
            depth: Some(question.depth),
            capacity: Some(question.capacity),
            slo: Some(question.slo),
            tokens: Some(question.tokens),
            tokens_max: Some(question.tokens_max),
            token_wait_ms: Some(question.token_wait_ms),
            mode: Some(state.mode),
            emergency_stream: stream(symbols, state.emergency_stream),
            emergency_depth: Some(state.emergency_depth),
            emergency_capacity: Some(state.emergency_capacity),
            normal_stream: stream(symbols, state.normal_stream),
            normal_depth: Some(state.normal_depth),
            normal_capacity: Some(state.normal_capacity),
            ..State::default()
        }
    }

    fn decision(decision: &policy::Admission, symbols: &SymbolTable) -> Decision {
        use policy::AdmissionVerdict::{Admit, Defer, Reject, Reroute};
        let (verdict, to, retry_after_ms) = match decision.verdict {
            Admit => ("admit", Symbol::NONE, None),
            Reroute { stream } => ("reroute", stream, None),
            Defer { retry_after_ms } => ("defer", Symbol::NONE, Some(retry_after_ms)),
            Reject { retry_after_ms } => ("reject", Symbol::NONE, Some(retry_after_ms)),
        };
        Decision {
            verdict: verdict.to_owned(),
            reason: named(symbols, decision.reason),
            stream: stream(symbols, to),
            retry_after_ms,
            pressure: Some(decision.pressure),
            ..Decision::default()
        }
    }
}

impl Recorded for policy::Freshness {
    fn question(
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<((), policy::Arrival), RecordError> {
        state.only_of(Kind::Freshness)?;
        let arrival = policy::Arrival {
            subject: message.subject(now, symbols)?,
            nonce: state.nonce.unwrap_or_default(),
        };
        Ok(((), arrival))
    }

    fn subject(question: &policy::Arrival) -> &Subject {
        &question.subject
    }

    fn state(_state: &(), question: &policy::Arrival, _symbols: &SymbolTable) -> State {
        State {
            nonce: Some(question.nonce),
            ..State::default()
        }
    }

    fn decision(decision: &policy::Judgement, symbols: &SymbolTable) -> Decision {
        use policy::FreshnessVerdict::{Fresh, FromFuture, Replay, Stale};
        let (verdict, remember_ms) = match decision.verdict {
            Fresh { remember_ms } => ("fresh", Some(remember_ms)),
            Stale => ("stale", None),
            Replay => ("replay", None),
            FromFuture => ("from-future", None),
        };
        Decision {
            verdict: verdict.to_owned(),
            reason: named(symbols, decision.reason),
            remember_ms,
            ..Decision::default()
        }
    }
}

impl Recorded for policy::DeadLetter {
    fn question(
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<((), policy::Failed), RecordError> {
        state.only_of(Kind::DeadLetter)?;
        let deliveries = state.deliveries.unwrap_or(1);
        if deliveries == 0 {
            return Err(RecordError::Zero("deliveries"));
        }
        let failed = policy::Failed {
            subject: message.subject(now, symbols)?,
            failure: state.failure.unwrap_or(policy::Failure::HandlerError),
            deliveries,
            requested_delay_ms: state.requested_delay_ms.unwrap_or(0),
        };
        Ok(((), failed))
    }

    fn subject(question: &policy::Failed) -> &Subject {
        &question.subject
    }

    fn state(_state: &(), question: &policy::Failed, _symbols: &SymbolTable) -> State {
        State {
            failure: Some(question.failure),
            deliveries: Some(question.deliveries),
            requested_delay_ms: Some(question.requested_delay_ms),
            ..State::default()
        }
    }

    fn decision(decision: &policy::Fate, symbols: &SymbolTable) -> Decision {
        use policy::FateVerdict::{DeadLetter, Discard, Retry};
        let (verdict, class, delay_ms) = match decision.verdict {
            Retry { delay_ms } => ("retry", Symbol::NONE, Some(delay_ms)),
            DeadLetter { class } => ("dead-letter", class, None),
            Discard => ("discard", Symbol::NONE, None),
        };
        Decision {
            verdict: verdict.to_owned(),
            reason: named(symbols, decision.reason),
            class: stream(symbols, class),
            delay_ms,
            ..Decision::default()
        }
    }
}
