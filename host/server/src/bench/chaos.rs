//! Faults as they happen: processes that die or hang, a store that is full, read-only or elsewhere, and a
//! network that breaks. Each during a load, with the account balanced at the end.
//!
//! Every round starts a Redis, two hosts and a producer and a subscriber at each; the subscribers are
//! processes of their own, so that they can be killed too. Once messages flow, one fault is brought about,
//! lasts, and is taken away. When messages flow as before, producers stop, everything is handled, and the
//! account is drawn up: what was accepted was handled or is a dead letter, and nothing else was.

mod fault;
mod proxy;
mod redis;
mod report;
mod scene;
mod subscriber;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use self::fault::Fault;
use self::fault::{Dice, inflict};
pub use self::report::{ChaosReport, Row};
use self::scene::{Outcome, Scene};
pub use self::subscriber::{SubscriberOptions, subscribe};
use super::ledger::Tally;
use super::load::Load;
use super::{BenchError, Listener, Scratch, components};
use crate::sync::lock;

/// When a fault comes is left to chance, within this time.
const BEFORE_MS_MAX: u64 = 500;

/// What is done, and how often.
#[derive(Clone, Debug)]
pub struct ChaosOptions {
    /// How often each fault is brought about.
    pub rounds: u32,
    /// Which faults; all if empty.
    pub faults: Vec<Fault>,
    /// Messages a second, from all producers.
    pub rate: u32,
    /// What is left to chance is the same for the same seed.
    pub seed: u64,
    /// Where the components are; the usual places without it.
    pub policies: Option<PathBuf>,
}

/// Brings about every fault and reports on it. A fault that could not be brought about, or a round that
/// broke off, is in the report.
///
/// # Errors
///
/// See [`BenchError`].
pub async fn run(
    options: &ChaosOptions,
    listener: Listener<'_>,
) -> Result<ChaosReport, BenchError> {
    let policies = components(options.policies.as_deref())?;
    let scratch = Scratch::made()?;
    let faults = match &options.faults[..] {
        [] => Fault::ALL,
        named => named,
    };
    let mut report = ChaosReport::new(options);
    let all = faults.len() * options.rounds as usize;
    let mut done = 0;
    for fault in faults {
        let mut row = Row::new(*fault);
        for number in 1..=options.rounds {
            listener(done, all, &format!("{fault}"));
            done += 1;
            if row.is_over() {
                continue;
            }
            let directory = scratch.0.join(format!("{fault}-{number}"));
            let places = (&*policies, &*scratch.0.join("compiled"), &*directory);
            match round(*fault, number, options, places).await {
                Ok(outcome) => row.add(&outcome),
                // Without these there is no round at all.
                Err(error @ BenchError::Start(_)) if report.is_empty() && number == 1 => {
                    return Err(error);
                }
                Err(error) => row.broke_off(&error),
            }
        }
        report.add(row);
    }
    listener(all, all, "done");
    if !report.is_good() {
        report.logs = Some(scratch.kept());
    }
    Ok(report)
}

async fn round(
    fault: Fault,
    number: u32,
    options: &ChaosOptions,
    places: (&Path, &Path, &Path),
) -> Result<Outcome, BenchError> {
    let mut dice = Dice::new(options.seed, fault, number);
    let mut scene = Scene::open(fault, options, places).await?;
    tokio::time::sleep(Duration::from_millis(dice.below(BEFORE_MS_MAX))).await;
    inflict(fault, &mut scene, &mut dice).await?;
    scene.close().await
}

/// What subscribers have seen and done, as they say in their own processes.
#[derive(Debug)]
struct Witnessed {
    load: Arc<Load>,
    deliveries: Mutex<Deliveries>,
}

#[derive(Debug)]
struct Deliveries {
    last_at: Instant,
    pause_max: Duration,
    /// The newest message of all.
    newest: u64,
}

impl Witnessed {
    fn new(load: Arc<Load>) -> Self {
        let deliveries = Deliveries {
            last_at: Instant::now(),
            pause_max: Duration::ZERO,
            newest: 0,
        };
        Self {
            load,
            deliveries: Mutex::new(deliveries),
        }
    }

    fn came(&self, number: u64, redelivered: bool) {
        self.load.ledger.came(number, redelivered);
        let mut deliveries = lock(&self.deliveries);
        deliveries.pause_max = deliveries.pause_max.max(deliveries.last_at.elapsed());
        deliveries.last_at = Instant::now();
        deliveries.newest = deliveries.newest.max(number);
    }

    fn handled(&self, number: u64) {
        self.load.ledger.acknowledged(number);
    }

    fn tally(&self) -> Tally {
        self.load.ledger.tally()
    }

    /// From now on.
    fn count_pauses(&self) {
        let mut deliveries = lock(&self.deliveries);
        deliveries.pause_max = Duration::ZERO;
        deliveries.last_at = Instant::now();
    }

    /// The longest time in which nothing was delivered.
    fn pause_max(&self) -> Duration {
        lock(&self.deliveries).pause_max
    }

    fn newest(&self) -> u64 {
        lock(&self.deliveries).newest
    }
}
