//! Publishing while the routing policy is swapped, beside publishing while it is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use oona_core::entry::EntryId;
use oona_core::outcome::Outcome;
use oona_core::policy::Kind;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::raw::Raw;
use super::report::Samples;
use super::{BenchError, STREAM, component, draft, publish};
use crate::bus::{Bus, Draft};
use crate::host::Host;

/// How many publishes wait for their outcome.
const IN_FLIGHT: usize = 256;

/// How long each of the two phases takes, and how long lies between two swaps.
const PHASE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(50);

/// How often it is looked whether the worker has changed over.
const LOOK: Duration = Duration::from_millis(1);

/// How many keys the messages have: order is kept within each.
const KEYS: usize = 16;

pub(super) async fn measure(
    host: &Host,
    raw: &mut Raw,
    samples: &mut Samples,
) -> Result<(), BenchError> {
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
    let mut steady = steady.await??.took;
    raw.forget(STREAM).await?;
    let stop = CancellationToken::new();
    let swapped = tokio::spawn(load(bus.clone(), stop.clone()));
    let swaps = swap(bus, &versions).await;
    stop.cancel();
    let mut swapped = swapped.await??;
    let pause = swaps?;
    let accepted = swapped.took.len() as u64;
    let written = raw.length(STREAM).await?;
    samples.swapped(
        accepted,
        accepted.saturating_sub(written),
        swapped.reordered(),
    );
    samples.latency_at("publish-steady", 0.99, &mut steady);
    samples.latency_at("publish-swapped", 0.99, &mut swapped.took);
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

/// What became of a load.
#[derive(Default)]
struct Loaded {
    /// How long each publish took.
    took: Vec<Duration>,
    /// By key, in the order of publishing: stream and entry.
    landed: [Vec<(u64, Arc<str>, EntryId)>; KEYS],
}

impl Loaded {
    fn take(&mut self, number: u64, outcome: Outcome, elapsed: Duration) -> Result<(), BenchError> {
        publish::check(&outcome)?;
        self.took.push(elapsed);
        if let Outcome::Accepted { stream, id, .. } = outcome {
            self.landed[key_of(number)].push((number, stream, id));
        }
        Ok(())
    }

    /// How many messages stand before one that was published earlier, of the same key and on the
    /// same stream.
    fn reordered(&mut self) -> u64 {
        let mut reordered = 0;
        for landed in &mut self.landed {
            landed.sort_unstable_by_key(|(number, ..)| *number);
            let mut last: HashMap<&str, EntryId> = HashMap::new();
            for (_, stream, id) in landed.iter() {
                let before = last.insert(stream, *id);
                reordered += u64::from(before.is_some_and(|before| before > *id));
            }
        }
        reordered
    }
}

fn key_of(number: u64) -> usize {
    usize::try_from(number % KEYS as u64).unwrap_or_default()
}

/// Publishes as fast as outcomes come back.
async fn load(bus: Bus, stop: CancellationToken) -> Result<Loaded, BenchError> {
    let mut loaded = Loaded::default();
    let mut waiting = FuturesUnordered::new();
    let mut number = 0;
    while !stop.is_cancelled() {
        while waiting.len() < IN_FLIGHT {
            let begun = Instant::now();
            let draft = Draft {
                key: format!("key-{}", key_of(number)),
                ..draft()
            };
            let outcome = bus.enqueue(draft).await;
            waiting.push(async move { (number, outcome.await, begun.elapsed()) });
            number += 1;
        }
        if let Some((number, outcome, elapsed)) = waiting.next().await {
            loaded.take(number, outcome, elapsed)?;
        }
    }
    while let Some((number, outcome, elapsed)) = waiting.next().await {
        loaded.take(number, outcome, elapsed)?;
    }
    Ok(loaded)
}
