//! A policy outside of any sandbox: the fail-safe of the host, and the reference for tests.
//!
//! What crosses the boundary of a component goes in and out here as well, as the same records, so a
//! native build and a component can be held to the same answers.

use std::marker::PhantomData;

pub use crate::backpressure::{
    BusState, CandidateRecord, Decision as BackpressureDecision, Mode, Slo,
    Verdict as BackpressureVerdict,
};
pub use crate::dead_letter::{
    Decision as DeadLetterDecision, FailedRecord, Failure, Verdict as DeadLetterVerdict,
};
pub use crate::freshness::{
    ArrivalRecord, Decision as FreshnessDecision, Nonce, Verdict as FreshnessVerdict,
};
pub use crate::kind::{Backpressure, DeadLetter, Decides, Freshness, Kind, Routing};
pub use crate::routing::{Decision as RoutingDecision, Verdict as RoutingVerdict};
pub use crate::{MessageRecord, Priority, Symbol};
use crate::{Names, Text, kind};

/// A policy of kind `K` that has its configuration.
#[derive(Debug)]
pub struct Native<K, P> {
    policy: P,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind, P: Decides<K>> Native<K, P> {
    /// Configures a policy, as `configure` of a component does. `names` must give the symbols that
    /// the questions will be asked in.
    ///
    /// # Errors
    ///
    /// A sentence for the operator.
    pub fn new(config: &str, names: &mut dyn Names) -> Result<Self, String> {
        Ok(Self {
            policy: crate::configure(config, names)?,
            kind: PhantomData,
        })
    }

    /// Decides on each of `questions`, in order, into `decisions`, which is cleared first. `now` is
    /// in ms since the epoch; `text` is asked by the position of a question.
    pub fn decide(
        &self,
        now: u64,
        state: &K::State,
        questions: &[K::Question],
        text: &dyn Text,
        decisions: &mut Vec<K::Decision>,
    ) {
        decisions.clear();
        decisions.extend(kind::decisions(&self.policy, now, state, questions, text));
    }

    /// The name that the policy gives itself.
    #[must_use]
    pub fn name(&self) -> &'static str {
        P::NAME
    }

    /// The version that the policy gives itself.
    #[must_use]
    pub fn version(&self) -> &'static str {
        P::VERSION
    }

    /// The JSON Schema of its configuration.
    #[must_use]
    pub fn config_schema(&self) -> &'static str {
        P::CONFIG_SCHEMA
    }
}
