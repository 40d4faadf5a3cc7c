//! Receipts for those who broadcast.

use oona_core::broadcast::ReceiptOutcome;

use super::desk::{Content, Held, Verdict};
use crate::store::{Receipted, Step};

/// What is noted as `held` is settled, if its message asks for a receipt.
pub(super) fn receipt(held: &Held, verdict: &Verdict, step: &Step) -> Option<Receipted> {
    let Content::Message(message) = &held.content else {
        return None;
    };
    let name = message.receipt()?.to_owned();
    let outcome = match (verdict, step) {
        // The retry of another group: it says nothing of this one.
        (Verdict::Skip, _) => return None,
        (Verdict::Release, _) => ReceiptOutcome::Released,
        (Verdict::Failed { .. }, Step::Ack) => ReceiptOutcome::Discarded,
        (_, Step::Ack) => ReceiptOutcome::Acked,
        (_, Step::Retry { .. }) => ReceiptOutcome::Retrying,
        (_, Step::DeadLetter { .. }) => ReceiptOutcome::DeadLettered,
    };
    Some(Receipted { name, outcome })
}
