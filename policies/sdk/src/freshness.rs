//! Freshness: is the message still worth it, and is it the first?

use std::ops::Deref;

pub use crate::bindings::freshness::exports::oona::policy::freshness::{
    Arrival as ArrivalRecord, Decision, Nonce, Verdict,
};
use crate::{Message, Policy, Symbol, Text};

/// A policy that judges freshness.
pub trait FreshnessPolicy: Policy {
    /// Decides on a message that is about to be delivered. `now` is in ms since the epoch.
    fn decide(&self, now: u64, arrival: &Arrival<'_>) -> Decision;
}

/// A message about to be delivered.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    record: &'a ArrivalRecord,
    /// The message, with its text.
    pub message: Message<'a>,
}

impl<'a> Arrival<'a> {
    /// The question at `index` of a batch.
    #[must_use]
    pub fn new(record: &'a ArrivalRecord, index: u32, text: &'a dyn Text) -> Self {
        Self {
            record,
            message: Message::new(&record.message, index, text),
        }
    }
}

impl Deref for Arrival<'_> {
    type Target = ArrivalRecord;

    fn deref(&self) -> &ArrivalRecord {
        self.record
    }
}

impl Decision {
    /// Deliver it, and remember its nonce for `remember` ms.
    #[must_use]
    pub const fn fresh(remember: u64, reason: Symbol) -> Self {
        Self {
            verdict: Verdict::Fresh,
            remember,
            reason,
        }
    }

    /// Do not deliver it: `verdict` says why.
    #[must_use]
    pub const fn refuse(verdict: Verdict, reason: Symbol) -> Self {
        Self {
            verdict,
            remember: 0,
            reason,
        }
    }
}

/// Exports a type that implements [`FreshnessPolicy`] as a component. Does nothing in a native build.
#[macro_export]
macro_rules! export_freshness {
    ($policy:ty) => {
        $crate::__export!(freshness, Freshness, $policy, Arrival);
    };
}
