//! How fast this host is on this machine, beside what raw Redis does in the same run.
//!
//! Machines are noisy, so only ratios within one run count. Rounds are interleaved: each measures
//! every reference and every figure once, and a ratio is the median of the ratios of the rounds.

mod audit;
mod broadcast;
pub mod candidate;
pub mod chaos;
mod consume;
mod host_process;
mod ledger;
mod load;
mod memory;
mod observe;
mod policy;
mod process;
mod publish;
mod raw;
mod redis_process;
mod replay;
mod report;
pub mod soak;
mod store_view;
mod swap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use oona_core::signing::{EmptySecret, Keyring, Secret};
use tokio::task::JoinError;
use tonic::transport::{Channel, Endpoint};

pub use self::ledger::Tally;
use self::raw::Raw;
use self::redis_process::RedisProcess;
pub use self::redis_process::StartError;
use self::report::Samples;
pub use self::report::{Figure, Report, Swapped};
use crate::bus::Draft;
use crate::config::{Config, ConfigError, Sources};
use crate::host::{Host, HostError, policy_directory};
use crate::metrics::Metrics;
use crate::policies::ActivateError;
use crate::store::StoreError;

/// Size of a message's content in bytes: what `peers` of this bus were measured with.
pub const PAYLOAD_BYTES: usize = 280;

/// Wire number of the type that is published: telemetry.
const MESSAGE_TYPE: u32 = 4;

/// Where messages of that type go.
const STREAM: &str = "oona.telemetry";

/// The consumer group that consumes.
const GROUP: &str = "bench";

/// One publish in so many is also made one at a time.
const ONE_BY_ONE: usize = 10;

/// How much of a round the first one is, which is not counted.
const WARM_UP: usize = 5;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Subject {
    /// Publishing, embedded and over gRPC.
    Publish,
    /// Consuming and acknowledging, embedded and over gRPC.
    Consume,
    /// What a policy costs, by batch size, beside its native build.
    Policy,
    /// Publishing while policies are swapped.
    Swap,
    /// Broadcasts, until all have acknowledged.
    Broadcast,
    /// A candidate over a log of decisions.
    Replay,
    /// Publishing while everything is observed, beside publishing while nothing is.
    Observe,
    /// The audit of as many dead letters as a round has messages, and publishing beside it.
    Audit,
}

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// How many rounds count.
    pub rounds: usize,
    /// How many messages a round publishes and consumes.
    pub messages: usize,
    /// What is measured; everything if empty.
    pub only: Vec<Subject>,
    /// An empty Redis to use; one is started for the time without it.
    pub redis: Option<String>,
    /// Where the components are; the usual places without it.
    pub policies: Option<PathBuf>,
    /// Decide with the native builds.
    pub native: bool,
}

impl BenchOptions {
    fn wants(&self, subject: Subject) -> bool {
        self.only.is_empty() || self.only.contains(&subject)
    }
}

/// Who is told of progress: steps done, steps in all, what comes next.
pub type Listener<'a> = &'a (dyn Fn(usize, usize, &str) + Sync);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no Redis.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The Redis that was named holds something.
    #[error("the Redis at {0} is not empty; the benchmark writes to it, so name another, or none")]
    NotEmpty(String),
    /// Redis failed.
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
    /// The host does not start.
    #[error("the host does not start")]
    Host(#[from] HostError),
    /// Its configuration is at fault.
    #[error("the configuration of the host")]
    Config(#[from] ConfigError),
    /// A component is not there.
    #[error("cannot read {}; run `make policies`, or name their directory with --policies", path.display())]
    Policy {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A component was refused.
    #[error("a policy was refused")]
    Refused(#[from] Box<ActivateError>),
    /// The bus refused what was measured.
    #[error("the bus refused: {0}")]
    Bus(String),
    /// gRPC failed.
    #[error("the connection to the host failed")]
    Connect(#[from] tonic::transport::Error),
    /// A call failed.
    #[error("a call failed: {0}")]
    Call(Box<tonic::Status>),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// How much memory a process has cannot be told.
    #[error("cannot tell how much memory a process has")]
    Memory(#[source] std::io::Error),
    /// A process cannot be frozen, or its files limited.
    #[error("cannot do this to a process")]
    Signal(#[source] std::io::Error),
    /// A fault did nothing, so nothing was shown.
    #[error("the fault was not felt: {0}")]
    NotFelt(&'static str),
    /// There is no place for files.
    #[error("cannot make a directory in {}", std::env::temp_dir().display())]
    Scratch(#[source] std::io::Error),
    /// A task panicked.
    #[error("a task of the benchmark ended early")]
    Task(#[from] JoinError),
}

impl From<tonic::Status> for BenchError {
    fn from(status: tonic::Status) -> Self {
        Self::Call(Box::new(status))
    }
}

impl From<EmptySecret> for BenchError {
    fn from(error: EmptySecret) -> Self {
        Self::Bus(error.to_string())
    }
}

/// Measures.
///
/// # Errors
///
/// See [`BenchError`].
pub async fn run(options: &BenchOptions, listener: Listener<'_>) -> Result<Report, BenchError> {
    let own = match &options.redis {
        Some(_) => None,
        None => Some(RedisProcess::start().await?),
    };
    let url = match (&options.redis, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(own)) => own.url(),
        (None, None) => unreachable!("one of them is there"),
    };
    let mut raw = Raw::connect(&url).await?;
    if !raw.is_empty().await? {
        return Err(BenchError::NotEmpty(raw.address));
    }
    let cache = Scratch::new();
    let host = start(options, &url, &cache).await?;
    let measured = measure(options, &mut raw, &host, &cache, listener).await;
    host.shutdown().await;
    raw.forget_all().await?;
    measured
}

/// A directory for the time of the benchmark, which goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    /// The host makes it.
    fn new() -> Self {
        let name = format!("oona-bench-{}", uuid::Uuid::now_v7().simple());
        Self(std::env::temp_dir().join(name))
    }

    fn made() -> Result<Self, BenchError> {
        let scratch = Self::new();
        std::fs::create_dir(&scratch.0).map_err(BenchError::Scratch)?;
        Ok(scratch)
    }

    /// It stays, for somebody to look into.
    fn kept(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made; and what is kept has another name.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A host as one is run in production: signed, compiled policies kept, and limits that nothing here
/// reaches.
async fn start(options: &BenchOptions, url: &str, cache: &Scratch) -> Result<Host, BenchError> {
    // A message that nobody here has published would be counted as one of ours, and audits are a subject.
    let settings = [
        ("telemetry.interval_ms", "0".to_owned()),
        ("dead_letters.audit_interval_ms", "0".to_owned()),
    ];
    start_with(options, url, cache, &settings, Metrics::new()).await
}

/// The same, with more settings.
async fn start_with(
    options: &BenchOptions,
    url: &str,
    cache: &Scratch,
    settings: &[(&'static str, String)],
    metrics: Metrics,
) -> Result<Host, BenchError> {
    let flag = |key, value: &str| (key, value.to_owned(), "oona bench");
    let mut sources = Sources::default();
    sources.flags.extend([
        flag("store.url", url),
        flag("server.listen", "127.0.0.1:0"),
        flag("streams.length_max", "100000000"),
        flag("conservative.high_water", "50000000"),
        flag("policies.allow_unsigned", "true"),
        flag("policies.watch", "false"),
        flag(
            "policies.engine.cache_directory",
            &cache.0.to_string_lossy(),
        ),
    ]);
    let settings = settings.iter().map(|(key, value)| flag(key, value));
    sources.flags.extend(settings);
    let mut config = Config::assemble(None, &sources)?;
    if options.native {
        config.policies.allow_unsigned = false;
        config.policies.directory = None;
    } else {
        config.policies.directory = Some(components(options.policies.as_deref())?);
    }
    let keyring = Keyring::new(&Secret::new(uuid::Uuid::now_v7().to_string())?, &[]);
    let host = Host::start_with_metrics(config, Some(keyring), metrics).await?;
    let ready = host.bus().store_ready(Some(Duration::from_secs(10))).await;
    ready.map_err(|error| BenchError::Bus(error.to_string()))?;
    Ok(host)
}

async fn measure(
    options: &BenchOptions,
    raw: &mut Raw,
    host: &Host,
    scratch: &Scratch,
    listener: Listener<'_>,
) -> Result<Report, BenchError> {
    let wanted = |subject| options.wants(subject);
    let on_redis = wanted(Subject::Publish) || wanted(Subject::Consume);
    let mut samples = Samples::default();
    let entry = sample_entry(host, raw).await?;
    let channel = connect(host).await?;
    let steps = [
        on_redis,
        wanted(Subject::Policy),
        wanted(Subject::Swap),
        wanted(Subject::Broadcast),
        wanted(Subject::Replay),
        wanted(Subject::Observe),
        wanted(Subject::Audit),
    ];
    let steps_each = steps.iter().filter(|wanted| **wanted).count();
    let all = steps_each * (options.rounds + 1);
    let mut done = 0;
    for round in 0..=options.rounds {
        let warm_up = round == 0;
        let messages = if warm_up {
            (options.messages / WARM_UP).max(ONE_BY_ONE)
        } else {
            options.messages
        };
        samples.begin(warm_up);
        let mut step = |what: &str| {
            listener(done, all, what);
            done += 1;
        };
        if on_redis {
            step("publish and consume");
            raw::measure(raw, &entry, messages, &mut samples).await?;
            publish_and_consume(host, &channel, raw, messages, &mut samples).await?;
        }
        if wanted(Subject::Policy) {
            step("policies");
            let directory = host.config().policies.directory.clone();
            policy::measure(directory, &mut samples).await?;
        }
        if wanted(Subject::Swap) && !options.native {
            step("swaps");
            swap::measure(host, raw, &mut samples).await?;
            raw.forget(STREAM).await?;
        }
        if wanted(Subject::Broadcast) {
            step("broadcasts");
            broadcast::measure(host.bus(), &mut samples).await?;
        }
        if wanted(Subject::Replay) && !options.native {
            step("replay");
            let directory = host.config().policies.directory.clone();
            replay::measure(directory, &scratch.0, messages, &mut samples).await?;
        }
        if wanted(Subject::Observe) {
            step("publish, observed and not");
            let url = host.config().store.url.reveal();
            let pair = observe::Pair::start(options, url, scratch).await?;
            pair.measure(raw, messages, &mut samples).await?;
            // Whoever looks at it is not to be measured elsewhere.
            pair.end().await;
        }
        if wanted(Subject::Audit) {
            step("audit of dead letters");
            audit::measure(host, raw, messages, &mut samples).await?;
        }
    }
    listener(all, all, "done");
    Ok(Report::new(options, raw.version().await?, &samples))
}

async fn publish_and_consume(
    host: &Host,
    channel: &Channel,
    raw: &mut Raw,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    publish::embedded(host.bus(), messages, samples).await?;
    publish::one_by_one(host.bus(), messages / ONE_BY_ONE, samples).await?;
    let published = messages + messages / ONE_BY_ONE;
    consume::embedded(host.bus(), raw, published, samples).await?;
    raw.forget(STREAM).await?;
    publish::grpc(channel, messages, samples).await?;
    consume::grpc(channel, raw, messages, samples).await?;
    raw.forget(STREAM).await
}

async fn connect(host: &Host) -> Result<Channel, BenchError> {
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address()))?;
    Ok(endpoint.tcp_nodelay(true).connect().await?)
}

/// Names and values of a stream entry.
type RawFields = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry as the bus writes it, for raw Redis to write the same.
async fn sample_entry(host: &Host, raw: &mut Raw) -> Result<RawFields, BenchError> {
    let outcome = host.bus().publish(draft()).await;
    if !outcome.is_accepted() {
        return Err(BenchError::Bus(format!("{outcome:?}")));
    }
    let fields = raw.first(STREAM).await?;
    raw.forget(STREAM).await?;
    Ok(fields)
}

fn draft() -> Draft {
    Draft {
        source: "bench".to_owned(),
        ..Draft::new(MESSAGE_TYPE, payload())
    }
}

fn payload() -> bytes::Bytes {
    bytes::Bytes::from_static(&[0x5a; PAYLOAD_BYTES])
}

/// The directory with the components, all of which are there.
fn components(named: Option<&std::path::Path>) -> Result<PathBuf, BenchError> {
    let directory = policy_directory(named).unwrap_or_else(|| "target/policies".into());
    for kind in ["routing", "backpressure", "freshness", "dead-letter"] {
        let path = directory.join(format!("{kind}.wasm"));
        std::fs::metadata(&path).map_err(|source| BenchError::Policy { path, source })?;
    }
    Ok(std::path::absolute(&directory).unwrap_or(directory))
}

/// A component of the policy directory.
fn component(directory: Option<&std::path::Path>, name: &str) -> Result<Arc<[u8]>, BenchError> {
    let directory = directory.unwrap_or(std::path::Path::new("target/policies"));
    let path = directory.join(format!("{name}.wasm"));
    match std::fs::read(&path) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(BenchError::Policy { path, source }),
    }
}
