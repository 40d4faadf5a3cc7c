//! A bus as a library, for tests that look at what it does with messages.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oona::bus::{
    Bus, BusConfig, BusTasks, ConsumeConfig, DeadLetterView, Delivery, Draft, Foundation,
    SubscribeOptions, Subscription,
};
use oona::clock::{self, Clock};
use oona::metrics::Metrics;
use oona::otel::Tracer;
use oona::policies::{Policies, PolicyOptions};
use oona::store::memory::MemoryStore;
use oona::store::redis::RedisStore;
use oona::store::{Append, Store};
use oona_core::conservative::ConservativeConfig;
use oona_core::entry::{EntryId, Record};
use oona_core::outcome::Outcome;
use oona_core::policy::Kind;
use oona_core::signing::{Keyring, Secret};
use oona_wasm::{Engine, EngineConfig};
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::binary::PATIENCE;
use crate::policies::{directory, policy};
use crate::redis_server::RedisServer;

/// What signs.
pub const SECRET: &str = "correct horse battery staple";

/// The shipped policies, in the order in which a message meets them.
const SHIPPED: [(Kind, &str); 4] = [
    (Kind::Routing, "routing"),
    (Kind::Backpressure, "backpressure"),
    (Kind::Freshness, "freshness"),
    (Kind::DeadLetter, "dead-letter"),
];

/// A store, what it stands on, and who decides.
pub struct Stand {
    /// The store. Several buses may share it.
    pub store: Arc<dyn Store>,
    /// The server behind it, if it has one.
    pub server: Option<RedisServer>,
    /// Whether components decide, or else their native builds.
    components: bool,
    clock: Clock,
}

impl fmt::Debug for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stand")
            .field("store", &self.store)
            .field("server", &self.server)
            .field("components", &self.components)
            .finish_non_exhaustive()
    }
}

impl Stand {
    /// In memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::at(clock::system())
    }

    /// In memory, at the time that this clock tells.
    #[must_use]
    pub fn at(clock: Clock) -> Self {
        Self {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
            server: None,
            components: false,
            clock,
        }
    }

    /// In memory, where the shipped policies decide as components.
    #[must_use]
    pub fn components() -> Self {
        Self {
            components: true,
            ..Self::memory()
        }
    }

    /// On a Redis of its own.
    #[must_use]
    pub fn redis() -> Self {
        Self::over(RedisServer::start())
    }

    /// On a Redis of its own, where the hosts go by this clock.
    #[must_use]
    pub fn redis_at(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::redis()
        }
    }

    /// On this Redis.
    ///
    /// # Panics
    ///
    /// Never: its address is one.
    #[must_use]
    pub fn over(server: RedisServer) -> Self {
        let store = RedisStore::new(&server.url()).expect("an address of Redis");
        Self {
            store: Arc::new(store),
            server: Some(server),
            components: false,
            clock: clock::system(),
        }
    }

    /// Restarts the server, if it has one, and waits until the store has found it again.
    ///
    /// # Panics
    ///
    /// If it does not come back.
    pub async fn restart(&mut self) {
        if let Some(server) = &mut self.server {
            server.restart();
            eventually(async || self.store.ping().await.ok()).await;
        }
    }

    /// As it is, at the time that this clock tells. Redis keeps its own.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// A bus on this store, with short times and these changes.
    #[must_use]
    pub fn bus(&self, change: impl FnOnce(&mut Setup)) -> TestBus {
        let mut setup = Setup::default();
        change(&mut setup);
        TestBus::start(self, setup)
    }

    /// Appends an entry as somebody else would.
    ///
    /// # Panics
    ///
    /// If the store does not take it.
    pub async fn append_raw(
        &self,
        stream: &str,
        payload: &[u8],
        signature: Option<&str>,
    ) -> EntryId {
        let record = Record {
            payload: payload.to_vec().into(),
            signature: signature.map(|signature| signature.to_owned().into()),
        };
        let batch = [Append {
            stream: stream.into(),
            record,
            once: None,
        }];
        let mut answers = self.store.append(&batch).await.expect("the store answers");
        answers.remove(0).expect("it is written").id
    }
}

/// What a test can change.
#[derive(Debug)]
pub struct Setup {
    /// The bus.
    pub config: BusConfig,
    /// Configurations of policies; the default for those that are not there.
    pub policies: Vec<(Kind, Value)>,
    /// Secrets that verify beside [`SECRET`].
    pub also_accept: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        let config = BusConfig {
            sample_interval: Duration::from_millis(10),
            consume: ConsumeConfig {
                ack_deadline: Duration::from_secs(20),
                claim_idle: Duration::from_secs(40),
                block: Duration::from_millis(200),
                ..ConsumeConfig::default()
            },
            conservative: ConservativeConfig {
                recovery_ms: 50,
                ..ConservativeConfig::default()
            },
            ..BusConfig::default()
        };
        Self {
            config,
            policies: vec![(Kind::DeadLetter, json!({"delay_base_ms": 5}))],
            also_accept: Vec::new(),
        }
    }
}

impl Setup {
    /// The configuration of a policy.
    pub fn policy(&mut self, kind: Kind, config: Value) {
        self.policies.retain(|(known, _)| *known != kind);
        self.policies.push((kind, config));
    }
}

/// A bus, and the tasks behind it.
#[derive(Debug)]
pub struct TestBus {
    /// The bus.
    pub bus: Bus,
    tasks: BusTasks,
}

impl TestBus {
    fn start(stand: &Stand, setup: Setup) -> Self {
        let metrics = Arc::new(Metrics::new());
        let foundation = Foundation {
            store: Arc::clone(&stand.store),
            keyring: Some(keyring(&setup.also_accept)),
            policies: policies(stand, &setup, &metrics),
            metrics,
            tracer: Tracer::off(),
        };
        let (bus, tasks) = Bus::start(setup.config, foundation, Arc::clone(&stand.clock));
        Self { bus, tasks }
    }

    /// Publishes; it must be accepted. Answers the stream.
    ///
    /// # Panics
    ///
    /// If it is not accepted.
    pub async fn publish(&self, draft: Draft) -> String {
        match self.bus.publish(draft).await {
            Outcome::Accepted { stream, .. } => stream.to_string(),
            rejected @ Outcome::Rejected { .. } => panic!("it is rejected: {rejected:?}"),
        }
    }

    /// A member of a group that reads every stream.
    ///
    /// # Panics
    ///
    /// If it is not taken.
    #[must_use]
    pub fn join(&self, group: &str) -> Subscription {
        let options = SubscribeOptions::new(group);
        self.bus.subscribe(options).expect("the bus is up")
    }

    /// All dead letters, as soon as there are so many.
    ///
    /// # Panics
    ///
    /// If there never are.
    pub async fn dead_letters(&self, count: usize) -> Vec<DeadLetterView> {
        eventually(async || {
            let letters = self.bus.dead_letters(None, 1_000).await.ok()?;
            (letters.len() >= count).then_some(letters)
        })
        .await
    }

    /// Waits until no stream has anything unfinished or delayed.
    ///
    /// # Panics
    ///
    /// If that never comes.
    pub async fn settled(&self) {
        eventually(async || {
            let streams = self.bus.status().streams;
            let open: u64 = streams.iter().map(|s| s.depth + s.delayed).sum();
            (open == 0).then_some(())
        })
        .await;
    }

    /// Waits until so many deliveries of a stream are with the members of a group.
    ///
    /// # Panics
    ///
    /// If they never are.
    pub async fn pending(&self, stream: &str, group: &str, count: u64) {
        eventually(async || {
            let streams = self.bus.status().streams;
            let of_stream = streams.iter().find(|known| known.name == stream)?;
            let of_group = of_stream.groups.iter().find(|known| known.name == group)?;
            (of_group.pending == count).then_some(())
        })
        .await;
    }

    /// Ends the bus; answers whether everything was finished in time.
    pub async fn shutdown(self) -> bool {
        self.tasks.shutdown(PATIENCE).await
    }
}

fn keyring(also_accept: &[String]) -> Keyring {
    let secret = |text: &str| Secret::new(text.to_owned()).expect("it is not empty");
    let others: Vec<_> = also_accept.iter().map(|text| secret(text)).collect();
    Keyring::new(&secret(SECRET), &others)
}

fn policies(stand: &Stand, setup: &Setup, metrics: &Arc<Metrics>) -> Policies {
    let streams = setup.config.streams.clone();
    let clock = Arc::clone(&stand.clock);
    let mut options = PolicyOptions::new(streams, Arc::clone(metrics), clock);
    for (kind, config) in &mut options.configs {
        if let Some((_, changed)) = setup.policies.iter().find(|(known, _)| known == kind) {
            config.clone_from(changed);
        }
    }
    if !stand.components {
        return Policies::new(&options);
    }
    options.engine = Some(engine());
    let policies = Policies::new(&options);
    for (kind, name) in SHIPPED {
        let activated = policies.activate(Some(kind), &policy(name), None);
        activated.expect("a shipped policy can be activated");
    }
    policies
}

/// An engine with a pool of its own. What is compiled is kept for the next one.
fn engine() -> Arc<Engine> {
    let config = EngineConfig {
        cache_directory: Some(directory().with_file_name("policies-compiled")),
        ..EngineConfig::default()
    };
    Engine::new(config).expect("an engine")
}

/// The next delivery.
///
/// # Panics
///
/// If there is none in time.
pub async fn next(subscription: &mut Subscription) -> Delivery {
    let next = timeout(PATIENCE, subscription.next()).await;
    next.expect("something comes in time")
        .expect("the bus is up")
}

/// The next deliveries, each acknowledged.
///
/// # Panics
///
/// If they do not come.
pub async fn take(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let delivery = next(subscription).await;
        subscription.ack(delivery.id).expect("it is in flight");
        taken.push(delivery);
    }
    taken
}

/// Asks until there is an answer.
///
/// # Panics
///
/// If there is none in time.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut turns = interval(Duration::from_millis(2));
        loop {
            turns.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("it happens in time")
}

/// A message of this type, with its own number as content and event id.
#[must_use]
pub fn draft(message_type: u32, number: usize) -> Draft {
    Draft {
        id: Some(format!("event-{number}")),
        source: "test".to_owned(),
        ..Draft::new(message_type, number.to_string())
    }
}
