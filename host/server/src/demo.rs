//! The main job in some twenty seconds, on the memory store, with nothing acted: real components in
//! the real sandbox, real losses, and an account of every message at the end.
//!
//! Five producers publish (`demo/traffic.rs`); two subscribers handle, one of which dies; the script below
//! swaps the routing policy, tries a hostile one twice, and brings a dead letter back.

mod account;
mod components;
mod report;
mod served;
mod subscribers;
mod traffic;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oona_core::entry::EntryId;
use oona_core::policy::Kind;
use oona_core::signing::{Keyring, Secret};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::account::{Account, Era};
pub use self::components::MissingPolicies;
use self::components::{Components, HOSTILE_AT_ONCE, HOSTILE_LATER, SECOND_CONFIG};
use self::report::{Acts, Contained, Hostile, Letters, Lost, Swap};
pub use self::report::{Percentiles, Report};
use self::served::{Served, put_in_use};
use self::subscribers::{Handler, Subscriber};
use crate::bus::{Bus, BusConfig, BusTasks, ConsumeConfig, DeadLetterView, Foundation};
use crate::chain::chain;
use crate::clock;
use crate::config::ConfigError;
use crate::gates::Gate;
use crate::metrics::Metrics;
use crate::otel::Tracer;
use crate::policies::{ActivateError, ActivationReport, Policies, PolicyOptions, PolicyStatus};
use crate::registry::{Registry, RegistryError};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};

/// The shortest demo: shorter, and an act would begin before the last one has ended.
pub const SECONDS_MIN: u64 = 8;

/// How long anything may take that the script waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long whoever looks at the console may hold up the end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// How many dead letters are looked through; the demo makes a handful.
const LETTERS_MAX: usize = 1_000;

/// The group that the two subscribers share.
const GROUP: &str = "training";

/// What a demo is told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// How long the producers publish; longer on a machine that is too slow for the acts.
    pub length: Duration,
    /// Where the components are; the usual places without it.
    pub policies: Option<PathBuf>,
}

/// What a demo tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// Something happened.
    Event(&'a str),
    /// How far it is.
    Progress {
        /// Since its begin.
        elapsed: Duration,
        /// Messages published so far.
        published: u64,
        /// Messages handled so far.
        handled: u64,
    },
}

/// Who is told.
pub type Listener = Arc<dyn Fn(Notice<'_>) + Send + Sync>;

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Components that it shows are not there.
    #[error(transparent)]
    Policies(#[from] MissingPolicies),
    /// The sandbox cannot start.
    #[error("cannot start the policy engine")]
    Engine(#[from] oona_wasm::EngineError),
    /// A policy that ships was refused.
    #[error("the policy `{name}` was refused")]
    Refused {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<ActivateError>,
    },
    /// There is no port for the console.
    #[error("no port can be opened for the console")]
    Port(#[from] io::Error),
    /// The defaults are none.
    #[error("the default configuration is at fault")]
    Config(#[from] ConfigError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A task panicked.
    #[error("a task of the demo ended early")]
    Task(#[from] JoinError),
    /// The registry did not do what it was asked.
    #[error("the registry of policies did not do what the demo asked")]
    Registry(#[from] RegistryError),
    /// Something did not happen in time.
    #[error("{0} did not happen within {PATIENCE:?}")]
    Never(&'static str),
    /// A part of the bus refused what the demo asked.
    #[error("{0}")]
    Bus(String),
}

/// A demo, from its begin to its end.
pub struct Demo {
    stage: Stage,
    tasks: BusTasks,
    served: Served,
}

impl Demo {
    /// Opens the bus and the console.
    ///
    /// # Errors
    ///
    /// If something that it needs is not there.
    pub async fn open(options: DemoOptions, listener: Listener) -> Result<Self, DemoError> {
        let components = Components::read(options.policies.as_deref())?;
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock::system()));
        let (bus, tasks) = open(&components, Arc::clone(&store)).await?;
        let served = Served::begin(&bus, store).await?;
        served.keep(&components).await?;
        let stage = Stage {
            account: Arc::new(Account::default()),
            handler: Arc::new(Handler::default()),
            begin: Instant::now(),
            length: options.length,
            bus,
            registry: served.registry.clone(),
            components,
            listener,
        };
        Ok(Self {
            stage,
            tasks,
            served,
        })
    }

    /// Where the console is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.served.address
    }

    /// Plays it.
    ///
    /// # Errors
    ///
    /// If it cannot go through its acts. That an act did not show what it should, or that the account
    /// does not balance, is no error of this kind: the report says it.
    pub async fn play(&self) -> Result<Report, DemoError> {
        self.stage.play().await
    }

    /// Goes on with some messages a second, for the console, until `enough`.
    ///
    /// # Errors
    ///
    /// If nobody can subscribe.
    pub async fn go_on(&self, enough: impl Future<Output = ()>) -> Result<(), DemoError> {
        let stop = CancellationToken::new();
        let subscriber = self.stage.subscriber("audience", &stop)?;
        tokio::select! {
            biased;
            () = enough => {}
            () = traffic::trickle(&self.stage.bus) => {}
        }
        stop.cancel();
        Ok(subscriber.await?)
    }

    /// Ends it.
    pub async fn end(self) {
        let finished = self.tasks.shutdown(PATIENCE).await;
        tracing::debug!(finished, "the demo has ended");
        self.served.end(END_WITHIN).await;
    }
}

/// A bus in memory that signs with a key of its own, and decides with the shipped components.
async fn open(
    components: &Components,
    store: Arc<dyn Store>,
) -> Result<(Bus, BusTasks), DemoError> {
    let config = BusConfig {
        host: "demo".to_owned(),
        consume: ConsumeConfig {
            ack_deadline: Duration::from_secs(1),
            claim_idle: Duration::from_secs(2),
            ..ConsumeConfig::default()
        },
        ..BusConfig::default()
    };
    let metrics = Arc::new(Metrics::new());
    let options = PolicyOptions {
        engine: Some(oona_wasm::Engine::new(oona_wasm::EngineConfig::default())?),
        ..PolicyOptions::new(
            config.streams.clone(),
            Arc::clone(&metrics),
            clock::system(),
        )
    };
    let policies = Policies::new(&options);
    for component in &components.shipped {
        let name = component.name;
        activate(&policies, component, "{}")
            .await?
            .map_err(|source| DemoError::Refused {
                name,
                source: Box::new(source),
            })?;
    }
    let secret = Secret::new(uuid::Uuid::now_v7().to_string());
    let secret = secret.map_err(|error| DemoError::Bus(error.to_string()))?;
    let foundation = Foundation {
        store,
        keyring: Some(Keyring::new(&secret, &[])),
        policies,
        metrics,
        tracer: Tracer::off(),
    };
    Ok(Bus::start(config, foundation, clock::system()))
}

/// Compiles, so on a thread that may wait.
async fn activate(
    policies: &Policies,
    component: &components::Component,
    config: &'static str,
) -> Result<Result<ActivationReport, ActivateError>, DemoError> {
    let policies = policies.clone();
    let bytes = Arc::clone(&component.bytes);
    let activated = spawn_blocking(move || policies.activate(None, &bytes, Some(config)));
    Ok(activated.await?)
}

/// The demo while it runs.
struct Stage {
    bus: Bus,
    registry: Registry,
    account: Arc<Account>,
    handler: Arc<Handler>,
    components: Components,
    listener: Listener,
    begin: Instant,
    length: Duration,
}

impl Stage {
    /// The script. Acts begin at a share of the length, or when the one before has ended.
    async fn play(&self) -> Result<Report, DemoError> {
        let enough = CancellationToken::new();
        let mut producers = self.producers(&enough);
        let ticker = tokio::spawn(tick(self.progress()));
        let stop = CancellationToken::new();
        let steady = self.subscriber("steady", &stop)?;
        let lost = self.lose_a_subscriber(&stop, 0.2).await?;
        let replacement = self.subscriber("replacement", &stop)?;
        self.tell("a replacement joins the group");
        let mut swap = self.swap(0.4).await?;
        self.at(0.6).await;
        // Workers change over with their next batch, so the pause is known some time later.
        swap.pause_ns_max = self.routing().slot.pause_ns_max;
        let hostile = self.meet_a_hostile_policy().await?;
        let letters = self.bring_a_letter_back(0.8).await?;
        // However slow the machine is: what is tried is tried under load.
        self.at(1.0).await;
        enough.cancel();
        while let Some(produced) = producers.join_next().await {
            produced?;
        }
        self.tell("the producers have finished; waiting for the last messages");
        let unfinished = self.settled().await?;
        stop.cancel();
        for subscriber in [steady, replacement] {
            subscriber.await?;
        }
        ticker.abort();
        let filed = self.bus.dead_letters(None, LETTERS_MAX).await?;
        Ok(Report::new(
            self.begin.elapsed(),
            &self.account,
            &filed,
            unfinished,
            &self.components.second_path,
            Acts {
                lost,
                swap,
                hostile,
                letters,
            },
        ))
    }

    fn tell(&self, event: &str) {
        (self.listener)(Notice::Event(event));
    }

    async fn at(&self, share: f64) {
        sleep_until((self.begin + self.length.mul_f64(share)).into()).await;
    }

    fn progress(&self) -> Progress {
        Progress {
            account: Arc::clone(&self.account),
            listener: Arc::clone(&self.listener),
            begin: self.begin,
        }
    }

    fn producers(&self, enough: &CancellationToken) -> JoinSet<()> {
        self.tell("five producers publish: telemetry, commands, prefetch, reports, an emergency");
        let mut producers = JoinSet::new();
        for producer in &traffic::PRODUCERS {
            let (bus, account) = (self.bus.clone(), Arc::clone(&self.account));
            let enough = enough.clone();
            producers.spawn(traffic::produce(producer, bus, account, enough));
        }
        producers
    }

    fn subscriber(
        &self,
        name: &str,
        stop: &CancellationToken,
    ) -> Result<tokio::task::JoinHandle<()>, DemoError> {
        let subscriber = self.member(name)?;
        Ok(tokio::spawn(subscriber.work(stop.clone())))
    }

    fn member(&self, name: &str) -> Result<Subscriber, DemoError> {
        let (account, handler) = (Arc::clone(&self.account), Arc::clone(&self.handler));
        Subscriber::join(&self.bus, GROUP, name, account, handler)
            .map_err(|error| DemoError::Bus(chain(&error)))
    }

    /// A subscriber dies with messages in hand; the group gets them again.
    async fn lose_a_subscriber(
        &self,
        stop: &CancellationToken,
        share: f64,
    ) -> Result<Lost, DemoError> {
        let dying = self.member("dying")?;
        let die = stop.child_token();
        let task = tokio::spawn(dying.work_until_it_dies(die.clone()));
        self.at(share).await;
        die.cancel();
        let in_hand = task.await?;
        self.tell(&format!(
            "a subscriber dies with {} messages in hand",
            in_hand.len()
        ));
        let all = timeout(PATIENCE, self.account.handled(&in_hand)).await;
        all.map_err(|_| DemoError::Never("handling again what the dead subscriber had"))?;
        self.tell("all of them have been handled by the other one");
        Ok(Lost {
            in_hand: in_hand.len() as u64,
        })
    }

    /// A second version of the routing policy takes over under load.
    async fn swap(&self, share: f64) -> Result<Swap, DemoError> {
        self.at(share).await;
        self.account.enter(Era::Between);
        let component = &self.components.second;
        let how = (SECOND_CONFIG, &[][..], "reports from the edge apart");
        let since = Instant::now();
        let activation = put_in_use(&self.registry, component, how).await?.activation;
        let took = since.elapsed();
        self.account.enter(Era::Second);
        self.tell(&format!(
            "{} takes over from {} under load",
            activation.version, activation.replaced
        ));
        Ok(Swap {
            from: activation.replaced.to_string(),
            to: activation.version.to_string(),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            pause_ns_max: 0,
        })
    }

    /// An endless loop is refused by the gates; one that hides until it is in use is forced past them, and
    /// contained.
    async fn meet_a_hostile_policy(&self) -> Result<Hostile, DemoError> {
        let component = &self.components.hostile;
        let how = (HOSTILE_AT_ONCE, &[][..], "an endless loop");
        let refused = put_in_use(&self.registry, component, how).await;
        let refusal = refused.err().map(|error| match error {
            RegistryError::Refused(refused) => chain(&refused.refusal),
            other => chain(&other),
        });
        match &refusal {
            Some(reason) => self.tell(&format!("a hostile policy is refused: {reason}")),
            None => self.tell("a hostile policy was not refused"),
        }
        self.account.enter(Era::Hostile);
        let forced = &[Gate::Laws, Gate::Trial][..];
        let how = (HOSTILE_LATER, forced, "an endless loop that hides");
        let activation = put_in_use(&self.registry, component, how).await?.activation;
        let since = Instant::now();
        self.tell("another, forced past the gates, hides its loop until it is in use");
        let fallen_back = async || self.routing().slot.fallback;
        let fallback = await_some(fallen_back, "the fall-back").await?;
        self.account.enter(Era::Second);
        let version = self.routing().slot.version.to_string();
        self.tell(&format!("it is contained and taken out: {version} is back"));
        Ok(Hostile {
            refusal,
            contained: Contained {
                version: activation.version.to_string(),
                fault: fallback.fault,
                fell_back_to: version,
                after_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
        })
    }

    /// Two messages that no subscriber could read lie in the dead-letter stream. The subscribers learn
    /// to read one of them, and it is redriven.
    async fn bring_a_letter_back(&self, share: f64) -> Result<Letters, DemoError> {
        self.at(share).await;
        let filed = async || {
            let letters = self.bus.dead_letters(None, LETTERS_MAX).await.ok()?;
            let mut letters = letters.into_iter();
            letters.find(|letter| letter.event_id == traffic::LEGACY_ID)
        };
        let letter = await_some(filed, "filing the poison message").await?;
        self.tell(&format!(
            "dead letter {}: {} ({}), {}",
            letter.id, letter.event_id, letter.class, letter.detail
        ));
        self.handler.learn();
        let id = letter.id.parse::<EntryId>();
        let id = id.map_err(|error| DemoError::Bus(chain(&error)))?;
        let redriven = self.bus.redrive(id, None).await;
        let redriven = redriven.map_err(|error| DemoError::Bus(chain(&error)))?;
        let ids = [letter.event_id.clone()];
        let handled = timeout(PATIENCE, self.account.handled(&ids)).await;
        handled.map_err(|_| DemoError::Never("handling the redriven message"))?;
        self.tell("the subscribers were fixed, it was redriven, and it has been handled");
        Ok(Letters {
            inspected: letter,
            redriven_to: redriven.stream.to_string(),
        })
    }

    fn routing(&self) -> PolicyStatus {
        let mut policies = self.bus.policies().list().into_iter();
        let routing = policies.find(|policy| policy.kind == Kind::Routing);
        routing.expect("every kind has a slot")
    }

    /// Waits until every message has come to its end, as the account and the store see it. Answers
    /// how many entries the store still has open; zero unless time ran out.
    async fn settled(&self) -> Result<u64, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let letters = self.bus.dead_letters(None, LETTERS_MAX).await?;
            let streams = self.bus.status().streams;
            let unfinished = streams.iter().map(|s| s.depth + s.delayed).sum();
            let open = self.account.open(&event_ids(&letters));
            if (open == 0 && unfinished == 0) || Instant::now() > deadline {
                return Ok(unfinished);
            }
        }
    }
}

fn event_ids(letters: &[DeadLetterView]) -> std::collections::HashSet<&str> {
    letters
        .iter()
        .map(|letter| letter.event_id.as_str())
        .collect()
}

async fn await_some<T>(
    mut look: impl AsyncFnMut() -> Option<T>,
    what: &'static str,
) -> Result<T, DemoError> {
    let looking = async {
        let mut looks = interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    timeout(PATIENCE, looking)
        .await
        .map_err(|_| DemoError::Never(what))
}

/// What the progress display shows.
struct Progress {
    account: Arc<Account>,
    listener: Listener,
    begin: Instant,
}

async fn tick(progress: Progress) {
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let (published, handled) = progress.account.counts();
        (progress.listener)(Notice::Progress {
            elapsed: progress.begin.elapsed(),
            published,
            handled,
        });
    }
}
