//! What a fault happens to: a Redis, two hosts, a producer and a subscriber at each.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::BenchError;
use super::super::host_process::{HostProcess, HostSettings};
use super::super::ledger::Tally;
use super::super::load::{Load, Producer};
use super::super::redis_process::RedisProcess;
use super::super::store_view::StoreView;
use super::fault::Fault;
use super::proxy::Proxy;
use super::redis::{MASTER, sentinel_of};
use super::subscriber::{SubscriberOptions, SubscriberProcess};
use super::{ChaosOptions, Witnessed};

/// How many hosts there are.
const HOSTS: usize = 2;

/// One message in so many can never be handled.
const POISON_EVERY: u64 = 500;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether it has happened.
const LOOK: Duration = Duration::from_millis(10);

/// How many messages are handled before anything happens.
const WARM_UP: u64 = 100;

/// Faults are noticed and got over within seconds, not minutes.
const SETTINGS: [&str; 4] = [
    "breaker.open_ms=500",
    "consume.ack_deadline_ms=1000",
    "consume.claim_idle_ms=2000",
    "conservative.recovery_ms=1000",
];

/// See the module. All its processes end with it.
pub(super) struct Scene {
    pub(super) redis: RedisProcess,
    pub(super) replica: Option<RedisProcess>,
    /// It ends with the scene; hosts alone ask it.
    _sentinel: Option<RedisProcess>,
    proxy: Option<Proxy>,
    pub(super) hosts: Vec<HostProcess>,
    pub(super) subscribers: Vec<SubscriberProcess>,
    load: Arc<Load>,
    witnessed: Arc<Witnessed>,
    producing: CancellationToken,
    producers: TaskTracker,
    /// The newest message that each producer knows to be written.
    newest: Vec<Arc<AtomicU64>>,
    /// When the fault was taken away, and how many messages had been published by then.
    ended: Option<(Instant, u64)>,
}

/// How a round went.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) unfinished: u64,
    pub(super) refusals: super::super::load::Refusals,
    pub(super) pause_max: Duration,
    /// `None` if it did not recover in time.
    pub(super) recovery: Option<Duration>,
}

impl Scene {
    /// Begins, and waits until messages flow.
    pub(super) async fn open(
        fault: Fault,
        options: &ChaosOptions,
        (policies, compiled, directory): (&Path, &Path, &Path),
    ) -> Result<Self, BenchError> {
        let place = |name: &str| {
            let place = directory.join(name);
            std::fs::create_dir_all(&place).map_err(BenchError::Scratch)?;
            Ok::<_, BenchError>(place)
        };
        let durable = ["--appendonly", "yes", "--appendfsync", fault.fsync()];
        let durable = [&durable[..], &["--repl-diskless-sync-delay", "0"]].concat();
        let redis = RedisProcess::start_in(&place("redis")?, &durable).await?;
        let replica = if fault.needs_replica() {
            let replica = RedisProcess::start_in(&place("replica")?, &durable).await?;
            let (host, port) = (redis.address().ip(), redis.address().port());
            let follow = ["REPLICAOF", &host.to_string(), &port.to_string()];
            replica.ask(&follow).await?;
            replica.follows().await?;
            Some(replica)
        } else {
            None
        };
        let proxy = if fault.needs_proxy() {
            Some(Proxy::to(redis.address()).await?)
        } else {
            None
        };
        let sentinel = if fault.needs_sentinel() {
            let sentinel = sentinel_of(redis.address(), &place("sentinel")?).await?;
            sentinel.knows_replica().await?;
            Some(sentinel)
        } else {
            None
        };
        let (store, replicas_min) = match (&proxy, &sentinel) {
            (_, Some(sentinel)) => {
                let url = format!("redis+sentinel://{}/{MASTER}", sentinel.address());
                (url, 1)
            }
            (Some(proxy), None) => (proxy.url(), 0),
            (None, None) => (redis.url(), 0),
        };
        let replicas_min = format!("store.replicas_min={replicas_min}");
        let secret = uuid::Uuid::now_v7().to_string();
        let mut hosts = Vec::with_capacity(HOSTS);
        for number in 0..HOSTS {
            let settings = HostSettings {
                name: format!("host-{number}"),
                store: store.clone(),
                directory: place("hosts")?,
                compiled: compiled.to_owned(),
                policies: policies.to_owned(),
                secret: secret.clone(),
                more: [&SETTINGS[..], &[&replicas_min]]
                    .concat()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            };
            hosts.push(HostProcess::start(settings).await?);
        }
        let load = Arc::new(Load::new());
        let witnessed = Arc::new(Witnessed::new(Arc::clone(&load)));
        let mut scene = Self {
            redis,
            replica,
            _sentinel: sentinel,
            proxy,
            hosts,
            subscribers: Vec::with_capacity(HOSTS),
            load,
            witnessed,
            producing: CancellationToken::new(),
            producers: TaskTracker::new(),
            newest: Vec::with_capacity(HOSTS),
            ended: None,
        };
        scene.begin(options.rate)?;
        let flows = || scene.witnessed.tally().acknowledged >= WARM_UP;
        scene.until("no message was handled", flows).await?;
        scene.witnessed.count_pauses();
        Ok(scene)
    }

    fn begin(&mut self, rate: u32) -> Result<(), BenchError> {
        for (number, host) in self.hosts.iter().enumerate() {
            let subscriber = SubscriberOptions {
                host: host.address(),
                name: format!("subscriber-{number}"),
                poison_every: POISON_EVERY,
            };
            let subscriber = SubscriberProcess::start(subscriber, Arc::clone(&self.witnessed))?;
            self.subscribers.push(subscriber);
            let newest = Arc::default();
            self.newest.push(Arc::clone(&newest));
            let producer = Producer {
                load: Arc::clone(&self.load),
                host: host.address(),
                rate: rate / HOSTS as u32,
                catch_up: false,
                newest,
            };
            self.producers.spawn(producer.run(self.producing.clone()));
        }
        Ok(())
    }

    pub(super) fn proxy(&self) -> Result<&Proxy, BenchError> {
        self.proxy
            .as_ref()
            .ok_or(BenchError::NotFelt("there is no proxy"))
    }

    /// Waits until something has happened.
    pub(super) async fn until(
        &self,
        otherwise: &'static str,
        happened: impl Fn() -> bool,
    ) -> Result<(), BenchError> {
        let wait = async {
            let mut looks = interval(LOOK);
            while !happened() {
                looks.tick().await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        waited.map_err(|_| BenchError::NotFelt(otherwise))
    }

    /// Lets a fault last for so long, and until a producer has heard that a message is not written.
    pub(super) async fn is_refused(&self, time: Duration) -> Result<(), BenchError> {
        let not_written = || {
            let tally = self.witnessed.tally();
            tally.refused + tally.unknown
        };
        let before = not_written();
        tokio::time::sleep(time).await;
        self.until("everything was accepted", || not_written() > before)
            .await
    }

    /// Waits until Redis has ended by itself.
    pub(super) async fn ends(&mut self, otherwise: &'static str) -> Result<(), BenchError> {
        if self.redis.ends().await {
            Ok(())
        } else {
            Err(BenchError::NotFelt(otherwise))
        }
    }

    /// The fault is taken away from here on.
    pub(super) fn ends_now(&mut self) {
        self.ended = Some((Instant::now(), self.witnessed.tally().published));
    }

    /// Waits until messages flow as before, stops them, and draws up the account.
    pub(super) async fn close(mut self) -> Result<Outcome, BenchError> {
        let recovery = self.recovery().await;
        // What was held up goes on for a while beside what is new.
        let written = self.witnessed.tally().acknowledged;
        let flows = || self.witnessed.tally().acknowledged > written + WARM_UP;
        let flows = self.until("", flows).await.is_ok();
        self.producing.cancel();
        self.producers.close();
        self.producers.wait().await;
        let pause_max = self.witnessed.pause_max();
        let mut view = StoreView::new(&self.redis.url())?;
        view.drain(&self.load.ledger).await?;
        for subscriber in &mut self.subscribers {
            subscriber.kill();
        }
        Ok(Outcome {
            tally: self.witnessed.tally(),
            unfinished: view.unfinished().await?,
            refusals: self.load.refusals(),
            pause_max,
            recovery: recovery.filter(|_| flows),
        })
    }

    /// How long it took from the end of the fault until every host has accepted, and some subscriber has
    /// got, a message that was published after it.
    async fn recovery(&self) -> Option<Duration> {
        let (at, published) = self.ended?;
        let as_before = || {
            let newest = self.newest.iter();
            let accepted = newest
                .map(|newest| newest.load(Ordering::Relaxed))
                .all(|newest| newest >= published);
            accepted && self.witnessed.newest() >= published
        };
        let recovered = self.until("", as_before).await;
        recovered.is_ok().then(|| at.elapsed())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.producing.cancel();
    }
}
