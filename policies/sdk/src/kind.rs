//! The four kinds of policy at the type level, so that what is the same for all of them is written
//! once: the glue in a component, the native build, the test kit.

use crate::backpressure::{self, BackpressurePolicy};
use crate::dead_letter::{self, DeadLetterPolicy};
use crate::freshness::{self, FreshnessPolicy};
use crate::routing::{self, RoutingPolicy};
use crate::{Message, MessageRecord, Policy, Text};

/// What a kind of policy is asked, and what it answers, as it crosses the boundary.
pub trait Kind: 'static {
    /// What is the same for a whole batch.
    type State;
    /// One entry of a batch.
    type Question;
    /// The answer to one question.
    type Decision;
}

/// A policy that decides on questions of kind `K`. Every [`RoutingPolicy`] is one of kind
/// [`Routing`], and so on: nobody implements it by hand.
pub trait Decides<K: Kind>: Policy {
    /// Decides on the question at `index` of a batch.
    fn answer(
        &self,
        now: u64,
        state: &K::State,
        question: &K::Question,
        index: u32,
        text: &dyn Text,
    ) -> K::Decision;
}

/// The decisions on a batch, in its order.
pub(crate) fn decisions<'a, K: Kind, P: Decides<K>>(
    policy: &'a P,
    now: u64,
    state: &'a K::State,
    questions: &'a [K::Question],
    text: &'a dyn Text,
) -> impl ExactSizeIterator<Item = K::Decision> + 'a {
    questions.iter().enumerate().map(move |(index, question)| {
        // The boundary counts in 32 bits; a longer batch cannot come to be.
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        policy.answer(now, state, question, index, text)
    })
}

/// Routing: to which stream?
#[derive(Clone, Copy, Debug)]
pub enum Routing {}

impl Kind for Routing {
    type State = ();
    type Question = MessageRecord;
    type Decision = routing::Decision;
}

impl<P: RoutingPolicy> Decides<Routing> for P {
    fn answer(
        &self,
        now: u64,
        (): &(),
        question: &MessageRecord,
        index: u32,
        text: &dyn Text,
    ) -> routing::Decision {
        self.decide(now, &Message::new(question, index, text))
    }
}

/// Backpressure: is there room?
#[derive(Clone, Copy, Debug)]
pub enum Backpressure {}

impl Kind for Backpressure {
    type State = backpressure::BusState;
    type Question = backpressure::CandidateRecord;
    type Decision = backpressure::Decision;
}

impl<P: BackpressurePolicy> Decides<Backpressure> for P {
    fn answer(
        &self,
        now: u64,
        state: &backpressure::BusState,
        question: &backpressure::CandidateRecord,
        index: u32,
        text: &dyn Text,
    ) -> backpressure::Decision {
        let candidate = backpressure::Candidate::new(question, index, text);
        self.decide(now, state, &candidate)
    }
}

/// Freshness: is it still worth it, and the first?
#[derive(Clone, Copy, Debug)]
pub enum Freshness {}

impl Kind for Freshness {
    type State = ();
    type Question = freshness::ArrivalRecord;
    type Decision = freshness::Decision;
}

impl<P: FreshnessPolicy> Decides<Freshness> for P {
    fn answer(
        &self,
        now: u64,
        (): &(),
        question: &freshness::ArrivalRecord,
        index: u32,
        text: &dyn Text,
    ) -> freshness::Decision {
        self.decide(now, &freshness::Arrival::new(question, index, text))
    }
}

/// Dead letters: again, to the dead letters, or away?
#[derive(Clone, Copy, Debug)]
pub enum DeadLetter {}

impl Kind for DeadLetter {
    type State = ();
    type Question = dead_letter::FailedRecord;
    type Decision = dead_letter::Decision;
}

impl<P: DeadLetterPolicy> Decides<DeadLetter> for P {
    fn answer(
        &self,
        now: u64,
        (): &(),
        question: &dead_letter::FailedRecord,
        index: u32,
        text: &dyn Text,
    ) -> dead_letter::Decision {
        self.decide(now, &dead_letter::Failed::new(question, index, text))
    }
}
