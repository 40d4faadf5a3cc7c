//! Whatever dies between two steps of an activation: every host is on one of the two versions, and in
//! the end all are on the same.
//!
//! The store of the host that activates stops at a chosen operation, before or after it was done.
//! Either the host is dead from then on, or the store is away for a while. Every operation of an
//! activation is tried.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oona::bus::Streams;
use oona::clock;
use oona::gates::Trust;
use oona::metrics::Metrics;
use oona::policies::{Policies, PolicyOptions};
use oona::registry::{
    Author, Outcome, Proposal, Registry, RegistryError, RegistryOptions, Use, Wanted, begin,
};
use oona::store::memory::MemoryStore;
use oona::store::{
    Append, ClaimRequest, Claimed, Dropped, GroupStart, Mended, NonceClaim, Oldest, ReadRequest,
    RemovedGroup, Settlement, Store, StoreError, StoreInfo, StreamDepth, StreamName, Turns,
    Written,
};
use oona_core::Timestamp;
use oona_core::broadcast::Sight;
use oona_core::entry::{Entry, EntryId, Fields, Record};
use oona_core::policy::{Kind, NonceSeen};
use oona_tests::desk::until;
use oona_tests::policies::{directory, policy};
use oona_wasm::{Engine, EngineConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Compiled once for all hosts of this test.
static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let config = EngineConfig {
        cache_directory: Some(directory().with_file_name("policies-compiled")),
        instances_max: 512,
        // A machine that runs other tests too is slow: that is no fault of a policy.
        call_ms_max: 500,
        ..EngineConfig::default()
    };
    Engine::new(config).unwrap()
});

const OFTEN: Duration = Duration::from_millis(20);

/// Longer than the test.
const NEVER: Duration = Duration::from_secs(3_600);

/// How an operation ends the host, or the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    HostBefore,
    HostAfter,
    StoreBefore,
    StoreAfter,
}

/// A store that stops at one operation.
#[derive(Debug)]
struct Stopping {
    store: Arc<MemoryStore>,
    death: Death,
    /// Operations until then. Counted once armed.
    left: AtomicUsize,
    armed: AtomicBool,
    stopped: AtomicBool,
}

impl Stopping {
    fn new(store: &Arc<MemoryStore>, death: Death, at: usize) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            death,
            left: AtomicUsize::new(at),
            armed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }

    fn is_the_last(&self) -> bool {
        if !self.armed.load(Ordering::SeqCst) || self.stopped.load(Ordering::SeqCst) {
            return false;
        }
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        let last = left.is_err();
        self.stopped.fetch_or(last, Ordering::SeqCst);
        last
    }

    /// One operation.
    async fn step<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let was_stopped = self.stopped.load(Ordering::SeqCst);
        let last = self.is_the_last();
        if last && matches!(self.death, Death::HostAfter | Death::StoreAfter) {
            drop(operation.await);
        } else if !last && !was_stopped {
            return operation.await;
        }
        match self.death {
            Death::HostBefore | Death::HostAfter => std::future::pending().await,
            Death::StoreBefore | Death::StoreAfter => Err(StoreError::Unavailable {
                address: "test".to_owned(),
                detail: "it is away".to_owned(),
            }),
        }
    }

    fn come_back(&self) {
        self.armed.store(false, Ordering::SeqCst);
        self.stopped.store(false, Ordering::SeqCst);
    }
}

/// The registry asks a store for five things. These are the others.
macro_rules! never_asked {
    (Store { $($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* }
     Turns { $($turn:ident($($given:ident: $what:ty),*) -> $result:ty;)* }) => {
        #[async_trait]
        impl Turns for Stopping {
            $(async fn $turn(&self, $($given: $what),*) -> Result<$result, StoreError> {
                $(let _ = $given;)*
                unreachable!("the registry does not ask for it")
            })*
        }

        #[async_trait]
        impl Store for Stopping {
            fn info(&self) -> StoreInfo {
                self.store.info()
            }

            async fn range(&self, stream: &StreamName, after: Option<EntryId>, count: usize) -> Result<Vec<Entry>, StoreError> {
                self.step(self.store.range(stream, after, count)).await
            }

            async fn append_after(&self, stream: &StreamName, last: Option<EntryId>, id: Option<EntryId>, record: &Record) -> Result<Option<EntryId>, StoreError> {
                self.step(self.store.append_after(stream, last, id, record)).await
            }

            async fn last(&self, stream: &StreamName) -> Result<Option<EntryId>, StoreError> {
                self.step(self.store.last(stream)).await
            }

            async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
                self.step(self.store.keep(name, bytes)).await
            }

            async fn kept(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
                self.step(self.store.kept(name)).await
            }

            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                $(let _ = $argument;)*
                unreachable!("the registry does not ask for it")
            })*
        }
    };
}

never_asked! {
    Store {
        ping() -> ();
        append(batch: &[Append]) -> Vec<Result<Written, StoreError>>;
        ensure_group(stream: &StreamName, group: &str, start: GroupStart) -> ();
        read(request: ReadRequest<'_>) -> Vec<(usize, Entry)>;
        claim(request: ClaimRequest<'_>) -> Vec<Claimed>;
        touch(stream: &StreamName, group: &str, consumer: &str, ids: &[EntryId]) -> ();
        settle(group: &str, settlements: &[Settlement]) -> Vec<bool>;
        sights(stream: &StreamName, id: EntryId, receipt: &str, groups: &[String]) -> Vec<Sight>;
        promote(stream: &StreamName, now: Timestamp, count: usize) -> u64;
        recall(events: &[Arc<str>]) -> Vec<Option<Written>>;
        depths(streams: &[StreamName]) -> Vec<StreamDepth>;
        oldest(streams: &[StreamName]) -> Vec<Oldest>;
        trim(stream: &StreamName, length_max: u64) -> u64;
        drop_oldest(stream: &StreamName, length_max: u64) -> Dropped;
        remove_idle_consumers(stream: &StreamName, idle: Duration) -> u64;
        remove_idle_groups(stream: &StreamName, idle: Duration) -> Vec<RemovedGroup>;
        remove(stream: &StreamName, ids: &[EntryId]) -> u64;
        expire(stream: &StreamName, before: Timestamp, length_max: u64) -> u64;
        redrive(from: &StreamName, id: EntryId, to: &StreamName, fields: &Fields) -> Option<EntryId>;
        remember(group: &str, claims: &[NonceClaim]) -> Vec<NonceSeen>;
        leave(stream: &StreamName, group: &str, consumer: &str) -> ();
    }
    Turns {
        read_in_turn(request: ReadRequest<'_>) -> Vec<(usize, Entry)>;
        claim_in_turn(request: ClaimRequest<'_>) -> Vec<Claimed>;
        settle_in_turn(group: &str, settlements: &[Settlement]) -> Vec<bool>;
        mend_turns(stream: &StreamName, group: &str) -> Mended;
        thin(stream: &StreamName, length_max: u64) -> u64;
    }
}

/// A host, as far as the registry goes.
struct Replica {
    policies: Policies,
    registry: Registry,
    following: JoinHandle<()>,
    _cache: TempDir,
}

impl Replica {
    /// One that reads the list when it is told to, and every `poll`.
    async fn start(store: Arc<dyn Store>, poll: Duration) -> Self {
        let metrics = Arc::new(Metrics::new());
        let mut options = PolicyOptions::new(Streams::default(), metrics, clock::system());
        options.engine = Some(Arc::clone(&ENGINE));
        let policies = Policies::new(&options);
        let cache = TempDir::new().unwrap();
        let options = RegistryOptions {
            host: "replica".to_owned(),
            trust: Trust {
                allow_unsigned: true,
                ..Trust::default()
            },
            cache: Some(cache.path().to_owned()),
            poll,
        };
        let registry = Registry::new(store, policies.clone(), options, clock::system());
        let follower = begin(registry.clone()).await;
        let following = tokio::spawn(follower.run(CancellationToken::new()));
        Self {
            policies,
            registry,
            following,
            _cache: cache,
        }
    }

    async fn activate(&self, name: &str) -> Result<Outcome, RegistryError> {
        let proposal = Proposal {
            wanted: Wanted::Component(policy(name).into(), Vec::new()),
            kind: Some(Kind::Routing),
            config: Some("{}".to_owned()),
            forced: Vec::new(),
            dry_run: false,
        };
        let author = Author {
            by: "test".to_owned(),
            message: String::new(),
        };
        self.registry.propose(proposal, Use::Active, &author).await
    }

    /// The name of the routing policy in use.
    fn in_use(&self) -> String {
        let status = self
            .policies
            .list()
            .into_iter()
            .find(|status| status.kind == Kind::Routing);
        status.unwrap().slot.version.name.clone()
    }

    #[track_caller]
    fn is_on_one_of_two(&self, when: &str) {
        let name = self.in_use();
        assert!(
            name == "routing" || name == "routing-by-origin",
            "{when}: {name}"
        );
        let native = self.policies.list()[0].slot.version.digest.is_empty();
        assert!(!native, "{when}: on neither");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// One activation with a death at its `at`th operation. False if it had fewer.
async fn dies(death: Death, at: usize) -> bool {
    let when = format!("{death:?} at operation {at}");
    let store = Arc::new(MemoryStore::new(clock::system()));
    let other = Replica::start(store.clone(), OFTEN).await;
    other.activate("routing").await.unwrap();
    let stopping = Stopping::new(&store, death, at);
    let victim = Replica::start(stopping.clone(), NEVER).await;
    victim.is_on_one_of_two(&when);

    stopping.armed.store(true, Ordering::SeqCst);
    let stopped = || stopping.stopped.load(Ordering::SeqCst);
    let finished = tokio::select! {
        biased;
        activation = victim.activate("routing-by-origin") => Some(activation),
        () = until("it stops", stopped) => None,
    };
    if !stopped() {
        finished.unwrap().unwrap();
        return false;
    }
    victim.is_on_one_of_two(&when);
    other.is_on_one_of_two(&when);

    // The host is started again on another machine, or the store comes back.
    let survivor = match death {
        Death::HostBefore | Death::HostAfter => {
            drop(victim);
            Replica::start(store.clone(), OFTEN).await
        }
        Death::StoreBefore | Death::StoreAfter => {
            stopping.come_back();
            victim
        }
    };
    survivor.is_on_one_of_two(&when);
    let list = store
        .range(&oona::registry::LIST.into(), None, 100)
        .await
        .unwrap();
    let agree = |name: &str| survivor.in_use() == name && other.in_use() == name;
    let written = list.iter().any(|entry| {
        let json = String::from_utf8_lossy(entry.payload().unwrap()).into_owned();
        json.contains(r#""action":"activate""#) && json.contains(&digest_of("routing-by-origin"))
    });
    let expected = if written {
        "routing-by-origin"
    } else {
        "routing"
    };
    until(&format!("{when}: all on {expected}"), || agree(expected)).await;

    // And whoever tries again succeeds.
    survivor.activate("routing-by-origin").await.unwrap();
    until(&format!("{when}: all on the new one"), || {
        agree("routing-by-origin")
    })
    .await;
    true
}

fn digest_of(name: &str) -> String {
    let engine = Arc::clone(&ENGINE);
    oona_wasm::Artifact::load_any(&engine, &policy(name))
        .unwrap()
        .digest()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_death_between_any_two_steps_leaves_every_host_on_one_version() {
    for death in [
        Death::HostBefore,
        Death::HostAfter,
        Death::StoreBefore,
        Death::StoreAfter,
    ] {
        let mut operations = 0;
        // The follower reads on while the activation is under way, so the number of operations is
        // not the same each time; four of them are the least: keep, push, activate, and a read.
        while operations < 12 && dies(death, operations).await {
            operations += 1;
        }
        assert!(
            operations >= 4,
            "{death:?}: only {operations} operations were tried"
        );
    }
}
