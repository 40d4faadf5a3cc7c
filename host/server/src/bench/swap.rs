//! Publishing while the routing policy is swapped, beside publishing while it is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use oona_core::policy::Kind;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::report::Samples;
use super::{BenchError, component, draft, publish};
use crate::bus::Bus;
use crate::host::Host;

/// How many publishes wait for their outcome.
const IN_FLIGHT: usize = 256;

/// How long each of the two phases takes, and how long lies between two swaps.
const PHASE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(50);

/// How often it is looked whether the worker has changed over.
const LOOK: Duration = Duration::from_millis(1);

pub(super) async fn measure(host: &Host, samples: &mut Samples) -> Result<(), BenchError> {
    let bus = host.bus();
    let directory = host.config().policies.directory.clone();
    let versions = ["routing-by-origin", "routing"];
    let versions = versions.map(|name| component(directory.as_deref(), name));
    let [one, other] = versions;
    let versions = [one?, other?];
    let stop = CancellationToken::new();
    let steady = tokio::spawn(load(bus.clone(), stop.clone()));
    sleep(PHASE).await;
    stop.cancel();
    let mut steady = steady.await??;
    let stop = CancellationToken::new();
    let swapped = tokio::spawn(load(bus.clone(), stop.clone()));
    let swaps = swap(bus, &versions).await;
    stop.cancel();
    let mut swapped = swapped.await??;
    let pause = swaps?;
    samples.latency_at("publish-steady", 0.99, &mut steady);
    samples.latency_at("publish-swapped", 0.99, &mut swapped);
    samples.cost("swap-pause-max", pause as f64);
    Ok(())
}

/// Swaps for the length of a phase, and leaves the shipped policy in use. Answers the longest pause
/// of a worker, in ns.
async fn swap(bus: &Bus, versions: &[Arc<[u8]>; 2]) -> Result<u64, BenchError> {
    let mut pause = 0;
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let mut turn = 0;
    while begun.elapsed() < PHASE || turn % 2 != 0 {
        turns.tick().await;
        let (policies, bytes) = (bus.policies().clone(), Arc::clone(&versions[turn % 2]));
        let activate = move || policies.activate(Some(Kind::Routing), &bytes, Some("{}"));
        spawn_blocking(activate).await?.map_err(Box::new)?;
        pause = pause.max(changed_over(bus).await);
        turn += 1;
    }
    Ok(pause)
}

/// Waits until the worker decides with the new version; answers how long the change took, in ns.
async fn changed_over(bus: &Bus) -> u64 {
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        let routing = bus.policies().list().into_iter().next();
        if let Some(routing) = routing.filter(|routing| routing.slot.decisions > 0) {
            return routing.slot.pause_ns_max;
        }
    }
}

/// Publishes as fast as outcomes come back; answers how long each took.
async fn load(bus: Bus, stop: CancellationToken) -> Result<Vec<Duration>, BenchError> {
    let mut took = Vec::new();
    let mut waiting = FuturesUnordered::new();
    while !stop.is_cancelled() {
        while waiting.len() < IN_FLIGHT {
            let begun = Instant::now();
            let outcome = bus.enqueue(draft()).await;
            waiting.push(async move { (outcome.await, begun.elapsed()) });
        }
        if let Some((outcome, elapsed)) = waiting.next().await {
            publish::check(&outcome)?;
            took.push(elapsed);
        }
    }
    while let Some((outcome, _)) = waiting.next().await {
        publish::check(&outcome)?;
    }
    Ok(took)
}
