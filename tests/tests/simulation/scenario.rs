//! What a seed decides before a run begins.

use std::time::Duration;

use oona::bus::{BusConfig, ConsumeConfig, PublishConfig, RetryOrder, Streams};
use oona::store::StreamName;
use oona_core::breaker::BreakerConfig;
use oona_core::conservative::ConservativeConfig;
use oona_core::policy::Kind;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

/// For how long entries lie with a host before another may claim them.
pub(crate) const CLAIM_IDLE: Duration = Duration::from_secs(10);

/// For how long a handler may work before it asks for more.
pub(crate) const ACK_DEADLINE: Duration = Duration::from_secs(4);

/// How old a message with a nonce may be.
pub(crate) const FRESHNESS_WINDOW: Duration = Duration::from_secs(40);

/// The groups; each gets every message.
const GROUPS: [&str; 2] = ["alpha", "beta"];

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) hosts: usize,
    pub(crate) groups_count: usize,
    pub(crate) producers: usize,
    /// How many messages each producer has.
    pub(crate) messages: usize,
    /// For how long there are faults.
    pub(crate) faults: Duration,
    /// Whether retries block their key.
    pub(crate) block: bool,
    /// Whether event ids are remembered.
    pub(crate) dedup: bool,
    /// Whether clocks never differ by more than freshness allows.
    pub(crate) strict_clocks: bool,
    /// Whether what is too old is let go, rather than filed.
    pub(crate) discard_stale: bool,
    pub(crate) attempts_max: u32,
    /// Whether policies decide as components, or else their native builds.
    pub(crate) components: bool,
    pub(crate) stream_length_max: u64,
    pub(crate) pipelines_max: usize,
    pub(crate) group_max: usize,
}

impl Scenario {
    /// How far a clock is off at most, where clocks are strict: two of them then differ by less than the
    /// five seconds that freshness allows.
    pub(crate) const SKEW_MAX: Duration = Duration::from_millis(2_400);

    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = [0x5a; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut chance = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut between = |least: usize, most: usize| chance.random_range(least..=most);
        Self {
            seed,
            hosts: between(2, 3),
            groups_count: between(1, 2),
            producers: between(1, 3),
            messages: between(8, 24),
            faults: Duration::from_secs(between(15, 40) as u64),
            block: between(0, 1) == 1,
            dedup: between(0, 3) > 0,
            strict_clocks: between(0, 3) > 0,
            discard_stale: between(0, 1) == 1,
            attempts_max: [2, 3, 4][between(0, 2)],
            components: between(0, 9) == 0,
            stream_length_max: [20, 60, 1_000][between(0, 2)],
            pipelines_max: between(1, 4),
            group_max: [1, 4, 64][between(0, 2)],
        }
    }

    pub(crate) fn groups(&self) -> &'static [&'static str] {
        &GROUPS[..self.groups_count]
    }

    pub(crate) fn config(&self, host: &str) -> BusConfig {
        let breaker = BreakerConfig {
            open_ms: 1_500,
            trials: 2,
            ..BreakerConfig::default()
        };
        BusConfig {
            stream_length_max: self.stream_length_max,
            publish: PublishConfig {
                dedup_window: Duration::from_secs(if self.dedup { 3_600 } else { 0 }),
                group_max: self.group_max,
                pipelines_max: self.pipelines_max,
                ..PublishConfig::default()
            },
            consume: ConsumeConfig {
                batch_max: 8,
                ack_deadline: ACK_DEADLINE,
                claim_idle: CLAIM_IDLE,
                block: Duration::from_secs(1),
                retry_order: if self.block {
                    RetryOrder::Block
                } else {
                    RetryOrder::Pass
                },
                ..ConsumeConfig::default()
            },
            handler_breaker: BreakerConfig {
                failures: 6,
                ..breaker.clone()
            },
            breaker,
            conservative: ConservativeConfig {
                recovery_ms: 1_000,
                ..ConservativeConfig::default()
            },
            sample_interval: Duration::from_millis(400),
            housekeeping_interval: Duration::from_secs(8),
            streams: named(),
            host: host.to_owned(),
            ..BusConfig::default()
        }
    }

    /// How a policy is configured in its `turn`th version.
    pub(crate) fn policy(&self, kind: Kind, turn: u64) -> Value {
        match kind {
            Kind::Routing => json!({
                "emergency_from": (pick(turn, ["high", "critical", "normal"])),
                "streams": {"policy": null, "kernels_ready": null, "kernels_errors": null},
            }),
            Kind::Backpressure => json!({
                "over_rate": (pick(turn, ["demote", "defer"])),
                "token_reserve": (pick(turn, [0.5, 0.2])),
            }),
            Kind::Freshness => {
                let window = u64::try_from(FRESHNESS_WINDOW.as_millis()).unwrap_or(u64::MAX);
                json!({"window_ms": window})
            }
            Kind::DeadLetter => json!({
                "attempts_max": self.attempts_max,
                "deliveries_max": 50,
                "delay_base_ms": (pick(turn, [0, 20, 400, 1_500])),
                "delay_max_ms": 3_000,
                "stale": if self.discard_stale { "discard" } else { "dead-letter" },
            }),
        }
    }
}

/// The value of this turn.
fn pick<T: Copy, const N: usize>(turn: u64, of: [T; N]) -> T {
    of[usize::try_from(turn).unwrap_or(0) % N]
}

/// The streams of the simulated bus: some of each kind.
fn named() -> Streams {
    Streams {
        others: vec!["oona.telemetry".into(), "oona.kernels.requests".into()],
        ..Streams::default()
    }
}

/// The streams that messages can go to.
pub(crate) fn streams() -> Vec<StreamName> {
    named().destinations().cloned().collect()
}
