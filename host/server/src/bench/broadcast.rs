//! Broadcasts: until every group has acknowledged, and whoever broadcast knows.

use std::time::{Duration, Instant};

use oona_core::envelope::message_type;
use tokio::task::JoinSet;

use super::report::Samples;
use super::{BenchError, payload};
use crate::bus::{Broadcast, Bus, Draft, SubscribeOptions, Subscription};
use crate::store::GroupStart;

/// How many broadcasts a round makes, one after the other.
const BROADCASTS: usize = 200;

/// The groups that acknowledge, each with one member.
const GROUPS: [&str; 3] = ["bench-1", "bench-2", "bench-3"];

/// How long one may take at most.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn measure(bus: &Bus, samples: &mut Samples) -> Result<(), BenchError> {
    let mut members = JoinSet::new();
    for group in GROUPS {
        let options = SubscribeOptions {
            streams: vec![bus.config().streams.control.clone()],
            start: GroupStart::End,
            ..SubscribeOptions::new(group)
        };
        let subscription = bus.subscribe(options);
        let subscription = subscription.map_err(|error| BenchError::Bus(error.to_string()))?;
        members.spawn(acknowledge(subscription));
    }
    // The first waits until every group is there.
    while !broadcast(bus).await?.1 {}
    let mut took = Vec::with_capacity(BROADCASTS);
    for _ in 0..BROADCASTS {
        let (time, all_acked) = broadcast(bus).await?;
        if !all_acked {
            return Err(BenchError::Bus(
                "a broadcast was not acknowledged".to_owned(),
            ));
        }
        took.push(time);
    }
    samples.median_latency("broadcast", &mut took);
    samples.latency_at("broadcast-p99", 0.99, &mut took);
    members.shutdown().await;
    Ok(())
}

async fn acknowledge(mut subscription: Subscription) {
    while let Some(delivery) = subscription.next().await {
        if subscription.ack(delivery.id).is_err() {
            return;
        }
    }
}

/// How long it took, and whether all have acknowledged.
async fn broadcast(bus: &Bus) -> Result<(Duration, bool), BenchError> {
    let broadcast = Broadcast {
        draft: Draft::new(message_type::EMERGENCY_SIGNAL, payload()),
        groups: GROUPS.map(str::to_owned).to_vec(),
        deadline: Some(DEADLINE),
    };
    let begun = Instant::now();
    let report = bus.broadcast(broadcast).await;
    let report = report.map_err(|error| BenchError::Bus(error.to_string()))?;
    Ok((begun.elapsed(), report.all_acked))
}
