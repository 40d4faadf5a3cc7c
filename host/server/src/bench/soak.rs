//! Hours at a steady load: memory that grows and latency that creeps show only in time.
//!
//! A Redis and a host, each a process of its own, run as in production; a producer keeps its pace and a
//! subscriber handles what comes. Every few seconds memory and latency are sampled. The samples are put
//! into ten parts of equal length, and the last is held against the sixth: before that, nonces gather, streams
//! fill up to the length at which they are trimmed, and decisions are recorded until as many are held as may be.

mod picture;
mod report;
mod samples;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::report::{SoakReport, Tenth, Trend};
use self::samples::Sampler;
pub use self::samples::{Percentiles, Sample};
use super::host_process::{HostProcess, HostSettings};
use super::load::{Load, Producer, Subscriber, Witness};
use super::redis_process::RedisProcess;
use super::{BenchError, Listener, Scratch, components};

/// One message in so many can never be handled.
const POISON_EVERY: u64 = 10_000;

/// How many samples are taken in all, unless that is oftener or rarer than these.
const SAMPLES: u32 = 1_000;
const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(100);
const SAMPLE_EVERY_MAX: Duration = Duration::from_secs(5);

/// When Redis carries what it has accepted to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Once a second
    #[default]
    Everysec,
    /// Before it answers
    Always,
}

impl Fsync {
    /// Its name in the configuration of Redis.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Everysec => "everysec",
            Self::Always => "always",
        }
    }
}

/// How long, and how hard.
#[derive(Clone, Debug)]
pub struct SoakOptions {
    /// How long the load goes on.
    pub time: Duration,
    /// Messages a second.
    pub rate: u32,
    /// How durable they are.
    pub fsync: Fsync,
    /// Where the components are; the usual places without it.
    pub policies: Option<PathBuf>,
}

/// Runs the load and reports on it.
///
/// # Errors
///
/// See [`BenchError`].
pub async fn run(options: &SoakOptions, listener: Listener<'_>) -> Result<SoakReport, BenchError> {
    let policies = components(options.policies.as_deref())?;
    let scratch = Scratch::made()?;
    let durable = ["--appendonly", "yes", "--appendfsync", options.fsync.name()];
    let redis = RedisProcess::start_in(&scratch.0, &durable).await?;
    let settings = HostSettings {
        name: "soak".to_owned(),
        store: redis.url(),
        directory: scratch.0.clone(),
        compiled: scratch.0.join("compiled"),
        policies,
        secret: uuid::Uuid::now_v7().to_string(),
        // Dead letters are read as they come, and go: else they alone would grow.
        more: vec!["dead_letters.retention_ms=300000".to_owned()],
    };
    let host = HostProcess::start(settings).await?;
    let load = Arc::new(Load::new());
    let work = Work::begin(&host, &load, options.rate);
    let mut sampler = Sampler::new(Arc::clone(&load), redis, host).await?;
    let samples = sample(options, &mut sampler, listener).await?;
    work.stop_publishing().await;
    sampler.view().drain(&load.ledger).await?;
    work.stop().await;
    let unfinished = sampler.view().unfinished().await?;
    let version = sampler.redis_version().await?;
    Ok(SoakReport::new(
        options,
        version,
        samples,
        load.ledger.tally(),
        unfinished,
    ))
}

/// A producer and a subscriber.
struct Work {
    producing: CancellationToken,
    consuming: CancellationToken,
    producers: TaskTracker,
    subscribers: TaskTracker,
}

impl Work {
    fn begin(host: &HostProcess, load: &Arc<Load>, rate: u32) -> Self {
        let work = Self {
            producing: CancellationToken::new(),
            consuming: CancellationToken::new(),
            producers: TaskTracker::new(),
            subscribers: TaskTracker::new(),
        };
        let producer = Producer {
            load: Arc::clone(load),
            host: host.address(),
            rate,
            catch_up: true,
            newest: Arc::default(),
        };
        let subscriber = Subscriber {
            witness: Arc::clone(load) as Arc<dyn Witness>,
            host: host.address(),
            name: "soak".to_owned(),
            poison_every: POISON_EVERY,
        };
        work.subscribers
            .spawn(subscriber.run(work.consuming.clone()));
        work.producers.spawn(producer.run(work.producing.clone()));
        work
    }

    /// Waits for the last outcomes.
    async fn stop_publishing(&self) {
        self.producing.cancel();
        self.producers.close();
        self.producers.wait().await;
    }

    async fn stop(&self) {
        self.consuming.cancel();
        self.subscribers.close();
        self.subscribers.wait().await;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.producing.cancel();
        self.consuming.cancel();
    }
}

/// Samples for the length of the soak.
async fn sample(
    options: &SoakOptions,
    sampler: &mut Sampler,
    listener: Listener<'_>,
) -> Result<Vec<Sample>, BenchError> {
    let every = (options.time / SAMPLES).clamp(SAMPLE_EVERY_MIN, SAMPLE_EVERY_MAX);
    let seconds = usize::try_from(options.time.as_secs()).unwrap_or(usize::MAX);
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns.tick().await;
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < options.time {
        turns.tick().await;
        let sample = sampler.take(begun.elapsed()).await?;
        let done = usize::try_from(sample.at_ms / 1_000).unwrap_or(seconds);
        listener(done.min(seconds), seconds, &sample.to_string());
        samples.push(sample);
    }
    Ok(samples)
}
