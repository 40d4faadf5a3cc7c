//! A bus in memory and its registry, for tests of what becomes of a candidate.

use std::sync::Arc;
use std::time::Duration;

use oona::bus::{Bus, BusConfig, BusTasks, Draft, Foundation};
use oona::clock;
use oona::decisions::DecisionLog;
use oona::gates::{Gate, Trust};
use oona::metrics::Metrics;
use oona::otel::Tracer;
use oona::policies::{Policies, PolicyOptions, StageStatus};
use oona::registry::{
    Author, Outcome, Proposal, Registry, RegistryError, RegistryOptions, Use, Wanted, begin,
};
use oona::store::Store;
use oona::store::memory::MemoryStore;
use oona_core::policy::Kind;
use oona_core::registry::Action;
use oona_wasm::{Engine, EngineConfig};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::binary::PATIENCE;
use crate::policies::{directory, policy};

/// A bus in memory, with the shipped routing policy out of its registry.
#[derive(Debug)]
pub struct Desk {
    /// The bus.
    pub bus: Bus,
    _tasks: BusTasks,
    /// Its registry.
    pub registry: Registry,
    following: JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Desk {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If the shipped policies were not built.
    pub async fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new(clock::system()))).await
    }

    /// As [`Desk::new`], with the budgets of a host that nobody configured: for candidates that are
    /// judged, by the clock of their thread, and decide on no traffic.
    ///
    /// # Panics
    ///
    /// If the shipped policies were not built.
    pub async fn strict() -> Self {
        let list = Arc::new(MemoryStore::new(clock::system()));
        Self::begin(list, EngineConfig::default()).await
    }

    /// As [`Desk::new`], with the registry in a store of its own: messages are in memory.
    ///
    /// # Panics
    ///
    /// If the shipped policies were not built.
    pub async fn on(list: Arc<dyn Store>) -> Self {
        let config = EngineConfig {
            // A machine that runs other tests too is slow: that is no fault of a policy.
            call_ms_max: 500,
            ..EngineConfig::default()
        };
        Self::begin(list, config).await
    }

    async fn begin(list: Arc<dyn Store>, config: EngineConfig) -> Self {
        let config = EngineConfig {
            cache_directory: Some(directory().with_file_name("policies-compiled")),
            ..config
        };
        let metrics = Arc::new(Metrics::new());
        let bus = BusConfig::default();
        let mut options =
            PolicyOptions::new(bus.streams.clone(), Arc::clone(&metrics), clock::system());
        options.engine = Some(Engine::new(config).expect("an engine"));
        options.decisions = DecisionLog::in_memory(1);
        let policies = Policies::new(&options);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock::system()));
        let options = RegistryOptions {
            host: "desk".to_owned(),
            trust: Trust {
                allow_unsigned: true,
                ..Trust::default()
            },
            cache: None,
            poll: Duration::from_millis(20),
        };
        let registry = Registry::new(list, policies.clone(), options, clock::system());
        let follower = begin(registry.clone()).await;
        let following = tokio::spawn(follower.run(CancellationToken::new()));
        let foundation = Foundation {
            store,
            keyring: None,
            policies,
            metrics,
            tracer: Tracer::off(),
        };
        let (bus, tasks) = Bus::start(bus, foundation, clock::system());
        let desk = Self {
            bus,
            _tasks: tasks,
            registry,
            following,
        };
        let routing = desk.propose("routing", "{}", Use::Active).await;
        routing.expect("the shipped policy passes");
        desk
    }

    /// Proposes a component of `target/policies`.
    ///
    /// # Errors
    ///
    /// If the registry refuses it.
    pub async fn propose(
        &self,
        name: &str,
        config: &str,
        usage: Use,
    ) -> Result<Outcome, RegistryError> {
        let proposal = proposal(name, config, &[]);
        self.registry.propose(proposal, usage, &author()).await
    }

    /// Publishes reports of an origin, each with a key of its own; answers which streams they went to.
    ///
    /// # Panics
    ///
    /// If one is rejected.
    pub async fn publish(
        &self,
        origin: &str,
        keys: impl Iterator<Item = String>,
    ) -> Vec<(String, String)> {
        let mut landed = Vec::new();
        for key in keys {
            let draft = Draft {
                message_type: 3,
                key: key.clone(),
                attributes: [("origin".to_owned(), origin.to_owned())].into(),
                payload: "report".into(),
                ..Draft::default()
            };
            let outcome = self.bus.publish(draft).await;
            let oona_core::outcome::Outcome::Accepted { stream, .. } = outcome else {
                panic!("{outcome:?}");
            };
            landed.push((key, stream.to_string()));
        }
        landed
    }

    /// The routing policy that is tried.
    #[must_use]
    pub fn tried(&self) -> Option<StageStatus> {
        self.bus.policies().staged(Kind::Routing)
    }

    /// The name of the routing policy in use.
    #[must_use]
    pub fn in_use(&self) -> String {
        self.bus.policies().list()[0].slot.version.name.clone()
    }

    /// Waits until the last change of the list is one that is wanted; answers it, and why it was made.
    ///
    /// A host acts on what it finds before it writes it down: what it does is seen before this is.
    ///
    /// # Panics
    ///
    /// If that never happens.
    pub async fn written(&self, what: &str, wanted: fn(&Action) -> bool) -> (Action, String) {
        until(what, || wanted(&self.last_change().0)).await;
        self.last_change()
    }

    /// Waits until the candidate was taken back and that is written down; answers why.
    ///
    /// # Panics
    ///
    /// If that never happens.
    pub async fn withdrawn(&self) -> String {
        until("it is taken back", || self.tried().is_none()).await;
        let withdraw = |action: &Action| matches!(action, Action::Withdraw { .. });
        self.written("that is written down", withdraw).await.1
    }

    /// What the last change of the list did, and why.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn last_change(&self) -> (Action, String) {
        let told = self.registry.history(None, 1).pop().expect("a change");
        let change = told.change.change;
        (change.action, change.message)
    }
}

/// A component of `target/policies`, as a routing policy.
#[must_use]
pub fn proposal(name: &str, config: &str, forced: &[Gate]) -> Proposal {
    Proposal {
        wanted: Wanted::Component(policy(name).into(), Vec::new()),
        kind: Some(Kind::Routing),
        config: Some(config.to_owned()),
        forced: forced.to_vec(),
        dry_run: false,
    }
}

/// Somebody.
#[must_use]
pub fn author() -> Author {
    Author {
        by: "ada".to_owned(),
        message: "to see".to_owned(),
    }
}

/// So many keys.
pub fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("key-{number}"))
}

/// Waits until something holds.
///
/// # Panics
///
/// If it never does.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut tick = interval(Duration::from_millis(5));
    let waited = async {
        while !holds() {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
