//! Dead letters: again, to the dead letters, or away?

use std::ops::Deref;

pub use crate::bindings::dead_letter::exports::oona::policy::dead_letter::{
    Decision, Failed as FailedRecord, Failure, Verdict,
};
use crate::{Message, Policy, Symbol, Text};

/// A policy that decides the fate of failed messages.
pub trait DeadLetterPolicy: Policy {
    /// Decides on a delivery that failed. `now` is in ms since the epoch.
    fn decide(&self, now: u64, failed: &Failed<'_>) -> Decision;
}

/// A failed delivery.
#[derive(Clone, Copy)]
pub struct Failed<'a> {
    record: &'a FailedRecord,
    /// The message, with its text.
    pub message: Message<'a>,
}

impl<'a> Failed<'a> {
    /// The question at `index` of a batch.
    #[must_use]
    pub fn new(record: &'a FailedRecord, index: u32, text: &'a dyn Text) -> Self {
        Self {
            record,
            message: Message::new(&record.message, index, text),
        }
    }
}

impl Deref for Failed<'_> {
    type Target = FailedRecord;

    fn deref(&self) -> &FailedRecord {
        self.record
    }
}

impl Decision {
    /// Deliver it again in `delay` ms.
    #[must_use]
    pub const fn retry(delay: u64, reason: Symbol) -> Self {
        Self {
            verdict: Verdict::Retry,
            delay,
            class: 0,
            reason,
        }
    }

    /// File it under `class`.
    #[must_use]
    pub const fn dead_letter(class: Symbol, reason: Symbol) -> Self {
        Self {
            verdict: Verdict::DeadLetter,
            delay: 0,
            class,
            reason,
        }
    }

    /// Let it go.
    #[must_use]
    pub const fn discard(reason: Symbol) -> Self {
        Self {
            verdict: Verdict::Discard,
            delay: 0,
            class: 0,
            reason,
        }
    }
}

/// Exports a type that implements [`DeadLetterPolicy`] as a component. Does nothing in a native
/// build.
#[macro_export]
macro_rules! export_dead_letter {
    ($policy:ty) => {
        $crate::__export!(dead_letter, DeadLetter, $policy, Failed);
    };
}
