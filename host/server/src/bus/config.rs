//! What the bus is told at start. Everything has the default of the embedded `default.toml`, which
//! a test holds against these.

use std::time::Duration;

use oona_core::breaker::BreakerConfig;
use oona_core::conservative::ConservativeConfig;
use oona_core::envelope::Ttls;
use oona_core::limits::PublishLimits;

use crate::store::StreamName;

/// Configuration of a [`Bus`](super::Bus).
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// Which streams there are.
    pub streams: Streams,
    /// How many unfinished entries a stream may hold; what is finished is trimmed above this.
    pub stream_length_max: u64,
    /// Limits of one message.
    pub limits: PublishLimits,
    /// How publishes are grouped.
    pub publish: PublishConfig,
    /// How deliveries are made.
    pub consume: ConsumeConfig,
    /// When the publish breaker trips and recovers.
    pub breaker: BreakerConfig,
    /// When the bus protects itself.
    pub conservative: ConservativeConfig,
    /// Emergency tokens per minute, in total and for each source.
    pub emergency_per_minute: u32,
    /// Time to live by priority.
    pub ttls: Ttls,
    /// How often depth is sampled.
    pub sample_interval: Duration,
    /// How often finished entries are trimmed.
    pub housekeeping_interval: Duration,
    /// Name of this host, the start of its consumer names. Made unique by a random suffix, so two
    /// hosts of the same name never share a consumer.
    pub host: String,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            streams: Streams::default(),
            stream_length_max: 100_000,
            limits: PublishLimits::default(),
            publish: PublishConfig::default(),
            consume: ConsumeConfig::default(),
            breaker: BreakerConfig::default(),
            conservative: ConservativeConfig::default(),
            emergency_per_minute: 120,
            ttls: Ttls::default(),
            sample_interval: Duration::from_millis(100),
            housekeeping_interval: Duration::from_secs(100),
            host: "oona".to_owned(),
        }
    }
}

/// The streams of the bus. A policy may name these and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Messages without a stream of their own.
    pub normal: StreamName,
    /// What cannot wait. Read first, always.
    pub emergency: StreamName,
    /// Dead letters. Not a destination for policies.
    pub dead_letter: StreamName,
    /// All others.
    pub others: Vec<StreamName>,
}

impl Default for Streams {
    fn default() -> Self {
        let others = [
            "oona.telemetry",
            "oona.policy",
            "oona.kernels.requests",
            "oona.kernels.ready",
            "oona.kernels.errors",
        ];
        Self {
            normal: "oona.normal".into(),
            emergency: "oona.emergency".into(),
            dead_letter: "oona.deadletter".into(),
            others: others.into_iter().map(StreamName::from).collect(),
        }
    }
}

impl Streams {
    /// Every stream that a message may be published to: emergency first, then normal, then others.
    pub fn destinations(&self) -> impl Iterator<Item = &StreamName> {
        [&self.emergency, &self.normal]
            .into_iter()
            .chain(&self.others)
    }
}

/// How publishes are grouped into pipelines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishConfig {
    /// How many publishes may wait for the writer. Above, a producer waits for its turn.
    pub queue_max: usize,
    /// How many publishes share one pipeline at most.
    pub group_max: usize,
    /// How many pipelines may be under way at once.
    pub pipelines_max: usize,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            queue_max: 8_192,
            group_max: 512,
            pipelines_max: 4,
        }
    }
}

/// How deliveries are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeConfig {
    /// How many entries one read asks for, per stream.
    pub batch_max: usize,
    /// How long a subscriber has to acknowledge, unless it asks for another time.
    pub ack_deadline: Duration,
    /// How long an entry lies with a consumer before another may claim it. Longer than
    /// `ack_deadline`, or messages would be claimed from subscribers that are still at work.
    pub claim_idle: Duration,
    /// How many nonces are remembered in memory. Full is refused, never forgotten.
    pub nonces_max: usize,
    /// Whether replicas of this host share nonces through the store.
    pub nonces_shared: bool,
    /// How long a read waits for new entries.
    pub block: Duration,
}

impl Default for ConsumeConfig {
    fn default() -> Self {
        Self {
            batch_max: 256,
            ack_deadline: Duration::from_secs(30),
            claim_idle: Duration::from_secs(60),
            nonces_max: 1_000_000,
            nonces_shared: true,
            block: Duration::from_secs(2),
        }
    }
}
