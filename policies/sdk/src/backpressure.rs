//! Backpressure: is there room?

use std::ops::Deref;

pub use crate::bindings::backpressure::exports::oona::policy::backpressure::{
    BusState, Candidate as CandidateRecord, Decision, Mode, Slo, Verdict,
};
use crate::{Message, Policy, Symbol, Text};

/// A policy that admits.
pub trait BackpressurePolicy: Policy {
    /// Decides on a message that is on its way to a stream. `now` is in ms since the epoch.
    fn decide(&self, now: u64, state: &BusState, candidate: &Candidate<'_>) -> Decision;
}

/// A message on its way to a stream, and the state of that stream.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    record: &'a CandidateRecord,
    /// The message, with its text.
    pub message: Message<'a>,
}

impl<'a> Candidate<'a> {
    /// The question at `index` of a batch.
    #[must_use]
    pub fn new(record: &'a CandidateRecord, index: u32, text: &'a dyn Text) -> Self {
        Self {
            record,
            message: Message::new(&record.message, index, text),
        }
    }
}

impl Deref for Candidate<'_> {
    type Target = CandidateRecord;

    fn deref(&self) -> &CandidateRecord {
        self.record
    }
}

impl Decision {
    /// The message goes where routing said.
    #[must_use]
    pub const fn admit(reason: Symbol, pressure: f32) -> Self {
        Self {
            verdict: Verdict::Admit,
            stream: 0,
            reason,
            retry_after: 0,
            pressure,
        }
    }

    /// The message goes to `stream` instead.
    #[must_use]
    pub const fn reroute(stream: Symbol, reason: Symbol, pressure: f32) -> Self {
        Self {
            verdict: Verdict::Reroute,
            stream,
            reason,
            retry_after: 0,
            pressure,
        }
    }

    /// Not now: again in `retry_after` ms.
    #[must_use]
    pub const fn defer(retry_after: u32, reason: Symbol, pressure: f32) -> Self {
        Self {
            verdict: Verdict::Defer,
            stream: 0,
            reason,
            retry_after,
            pressure,
        }
    }

    /// No: perhaps again in `retry_after` ms.
    #[must_use]
    pub const fn reject(retry_after: u32, reason: Symbol, pressure: f32) -> Self {
        Self {
            verdict: Verdict::Reject,
            stream: 0,
            reason,
            retry_after,
            pressure,
        }
    }

    /// Whether the message is written somewhere.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self.verdict, Verdict::Admit | Verdict::Reroute)
    }
}

/// Exports a type that implements [`BackpressurePolicy`] as a component. Does nothing in a native
/// build.
#[macro_export]
macro_rules! export_backpressure {
    ($policy:ty) => {
        $crate::__export!(backpressure, Backpressure, $policy, Candidate, state: state);
    };
}
