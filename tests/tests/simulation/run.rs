//! One run: a seed, and what came of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oona::bus::{Bus, BusConfig};
use oona::store::memory::MemoryStore;
use oona::store::{Store, StreamDepth};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::account::{Broken, Totals};
use crate::chaos::Chaos;
use crate::host::{Cluster, keyring};
use crate::ledger::Ledger;
use crate::link::Link;
use crate::producer;
use crate::scenario::{Scenario, streams};
use crate::world::{Trace, World};

/// How long it may take, after the last fault, until everything has ended.
const DRAIN: Duration = Duration::from_secs(300);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) scenario: Scenario,
    pub(crate) trace: Trace,
    pub(crate) totals: Totals,
    pub(crate) broken: Option<Broken>,
    /// How long it took by its own clock.
    pub(crate) elapsed: Duration,
}

/// A host that is up, and its way to the store.
type Up = (Bus, Arc<Link>);

/// The hosts that are up.
#[derive(Clone, Default)]
pub(crate) struct Hosts(Arc<Mutex<Vec<Up>>>);

impl Hosts {
    pub(crate) fn set(&self, hosts: Vec<Up>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    /// One of them, if any is up.
    pub(crate) fn any(&self, world: &World) -> Option<Up> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!hosts.is_empty()).then(|| world.pick(&hosts).clone())
    }
}

/// Runs a seed from its beginning to the end, or to the first invariant that does not hold.
pub(crate) fn run(seed: u64) -> Report {
    stage(Scenario::new(seed), play)
}

/// Plays something in a world of its own.
pub(crate) fn stage(scenario: Scenario, play: impl AsyncFnOnce(Cluster)) -> Report {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::new(scenario.clone(), keyring());
        let world = World::new(scenario.seed, ledger);
        let cluster = Cluster {
            scenario: scenario.clone(),
            world: world.clone(),
            store: Arc::new(MemoryStore::new(world.clock())),
            turns: [0; 4],
        };
        tokio::select! {
            biased;
            () = world.broken() => {}
            () = play(cluster) => {}
        }
        let (totals, broken) = world.ledger(|ledger, _| (ledger.totals, ledger.broken.clone()));
        Report {
            scenario,
            trace: world.trace(),
            totals,
            broken,
            elapsed: world.elapsed(),
        }
    })
}

async fn play(cluster: Cluster) {
    let Cluster {
        scenario,
        world,
        store,
        ..
    } = cluster.clone();
    let hosts = Hosts::default();
    let mut chaos = Chaos::new(cluster, hosts.clone());
    let mut producers = JoinSet::new();
    for number in 1..=scenario.producers {
        let (world, hosts) = (world.clone(), hosts.clone());
        producers.spawn(producer::run(world, hosts, number, scenario.messages));
    }
    chaos.rage().await;
    chaos.calm();
    while producers.join_next().await.is_some() {}
    drain(&world, &store).await;
    chaos.stop().await;
}

/// Waits until everything has ended, in the account as in the store.
async fn drain(world: &World, store: &MemoryStore) {
    let until = world.elapsed() + DRAIN;
    loop {
        let depths = store.depths(&streams()).await.unwrap_or_default();
        let left: u64 = depths.iter().map(left).sum();
        let open = world.ledger(|ledger, _| ledger.open());
        if left == 0 && open.is_empty() {
            break;
        }
        if world.elapsed() >= until {
            let detail = format!("{left} entries are left; {}", open.join("; "));
            world.ledger(|ledger, _| ledger.breaks("everything ends", detail));
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let filed = [BusConfig::default().streams.dead_letter];
    let filed = store.depths(&filed).await.unwrap_or_default();
    let held = filed.iter().map(|depth| depth.length).sum();
    world.ledger(|ledger, _| ledger.letters(held));
}

/// What a group has yet to finish, or what waits to be tried again.
fn left(depth: &StreamDepth) -> u64 {
    let groups = depth.groups.iter().map(|group| group.lag + group.pending);
    groups.sum::<u64>() + depth.delayed
}
