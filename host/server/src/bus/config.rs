//! What the bus is told at start. Everything has the default of the embedded `default.toml`, which
//! a test holds against these.

use std::time::Duration;

use oona_core::breaker::BreakerConfig;
use oona_core::conservative::ConservativeConfig;
use oona_core::envelope::Ttls;
use oona_core::limits::PublishLimits;
use serde::Serialize;

use super::housekeeping::HousekeepingConfig;
use crate::journeys::JourneysConfig;
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
    /// When the breakers before the store trip and recover.
    pub breaker: BreakerConfig,
    /// When a subscriber whose handler fails is given a rest, and how it is tried again.
    pub handler_breaker: BreakerConfig,
    /// When the bus protects itself.
    pub conservative: ConservativeConfig,
    /// Emergency tokens per minute, of all sources together.
    pub emergency_per_minute: u32,
    /// Emergency tokens per minute of each source.
    pub emergency_per_source_per_minute: u32,
    /// How broadcasts wait.
    pub broadcast: BroadcastConfig,
    /// Time to live by priority.
    pub ttls: Ttls,
    /// How long dead letters are kept that nobody asks for.
    pub dead_letters: Retention,
    /// How often depth is sampled.
    pub sample_interval: Duration,
    /// How often there is a round of housekeeping.
    pub housekeeping_interval: Duration,
    /// What a round removes.
    pub housekeeping: HousekeepingConfig,
    /// Of how many messages the journey is held.
    pub journeys: JourneysConfig,
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
            handler_breaker: BreakerConfig {
                failures: 20,
                ..BreakerConfig::default()
            },
            conservative: ConservativeConfig::default(),
            emergency_per_minute: 120,
            emergency_per_source_per_minute: 120,
            broadcast: BroadcastConfig::default(),
            ttls: Ttls::default(),
            dead_letters: Retention::default(),
            sample_interval: Duration::from_millis(100),
            housekeeping_interval: Duration::from_secs(100),
            housekeeping: HousekeepingConfig::default(),
            journeys: JourneysConfig::default(),
            host: "oona".to_owned(),
        }
    }
}

/// How broadcasts wait for their acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastConfig {
    /// How long, unless whoever broadcasts says otherwise.
    pub deadline: Duration,
    /// How many may be under way at once. More are refused.
    pub under_way_max: usize,
}

impl Default for BroadcastConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(500),
            under_way_max: 16,
        }
    }
}

/// How long dead letters are kept that nobody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long; for ever without.
    pub time: Option<Duration>,
    /// How many. Above, the oldest go.
    pub length_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            time: None,
            length_max: 100_000,
        }
    }
}

/// What becomes of a stream that is over its length with what is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// It stays so, and backpressure lets no more in.
    #[default]
    Reject,
    /// Its oldest entries go, each counted. Never those of an urgent stream.
    DropOldest,
}

/// The streams of the bus. A policy may name these and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Messages without a stream of their own.
    pub normal: StreamName,
    /// What cannot wait. Read first, always.
    pub emergency: StreamName,
    /// Where broadcasts go. Read before all others, with what cannot wait.
    pub control: StreamName,
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
            control: "oona.control".into(),
            dead_letter: "oona.deadletter".into(),
            others: others.into_iter().map(StreamName::from).collect(),
        }
    }
}

impl Streams {
    /// Whether what is on it cannot wait behind the normal streams.
    #[must_use]
    pub fn is_urgent(&self, stream: &StreamName) -> bool {
        *stream == self.emergency || *stream == self.control
    }

    /// Every stream that a message may be published to: emergency first, then normal, then others.
    pub fn destinations(&self) -> impl Iterator<Item = &StreamName> {
        [&self.emergency, &self.normal, &self.control]
            .into_iter()
            .chain(&self.others)
    }
}

/// How publishes are grouped into pipelines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishConfig {
    /// How many publishes may wait for the writer. Above, a producer waits for its turn.
    pub queue_max: usize,
    /// How many bytes of payload may wait for their outcome. Above, a producer waits for its turn.
    pub queue_bytes_max: usize,
    /// For how long an event id is known that a producer gave: what is published under it again is
    /// answered with the first outcome. Zero: not at all.
    pub dedup_window: Duration,
    /// How many publishes share one pipeline at most.
    pub group_max: usize,
    /// How many pipelines may be under way at once.
    pub pipelines_max: usize,
    /// The objective: a publish that takes longer up to its outcome is slow.
    pub slow_after: Duration,
    /// How many of a stream's may be slow, in percent. Of more, policies are told that it violates its objective.
    pub slow_percent: u32,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            queue_max: 8_192,
            queue_bytes_max: 64 << 20,
            dedup_window: Duration::from_secs(120),
            group_max: 512,
            pipelines_max: 4,
            slow_after: Duration::from_millis(25),
            slow_percent: 5,
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
    /// How many bytes of entries one subscription holds at most: in flight, read ahead, and on their
    /// way to be settled.
    pub bytes_max: usize,
    /// What becomes of the messages of a key while one of them is tried again.
    pub retry_order: RetryOrder,
}

/// What becomes of the messages of a key while one of them is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryOrder {
    /// They are delivered: the retry comes after them.
    #[default]
    Pass,
    /// They wait until it is handled or filed. Messages of one key are handled one at a time.
    Block,
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
            bytes_max: 256 << 20,
            retry_order: RetryOrder::Pass,
        }
    }
}
