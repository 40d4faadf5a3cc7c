//! What policies stand on.

use std::sync::Arc;

use oona_core::budget::BudgetConfig;
use oona_core::policy::Kind;
use oona_wasm::Engine;
use serde_json::{Value, json};

use crate::bus::Streams;
use crate::clock::Clock;
use crate::decisions::DecisionLog;
use crate::metrics::Metrics;

/// What policies stand on.
#[derive(Clone)]
pub struct PolicyOptions {
    /// The sandbox; without one, components cannot be activated.
    pub engine: Option<Arc<Engine>>,
    /// The streams that a decision may name.
    pub streams: Streams,
    /// The configuration of each kind, a JSON object; of the native builds too, as far as it is one
    /// of theirs.
    pub configs: [(Kind, Value); 4],
    /// How many failures a version is forgiven.
    pub budget: BudgetConfig,
    /// One decision in so many is logged; none if zero.
    pub log_every: u32,
    /// Where decisions are recorded.
    pub decisions: Arc<DecisionLog>,
    /// Counts what is decided.
    pub metrics: Arc<Metrics>,
    /// Tells the time.
    pub clock: Clock,
}

impl PolicyOptions {
    /// Everything at its default: native builds alone.
    #[must_use]
    pub fn new(streams: Streams, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            engine: None,
            streams,
            configs: Kind::ALL.map(|kind| (kind, json!({}))),
            budget: BudgetConfig::default(),
            log_every: 1_000,
            decisions: DecisionLog::in_memory(0),
            metrics,
            clock,
        }
    }

    pub(super) fn config(&self, kind: Kind) -> &Value {
        let found = self.configs.iter().find(|(known, _)| *known == kind);
        found.map_or(&Value::Null, |(_, config)| config)
    }
}
