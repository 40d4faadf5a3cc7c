//! Members of a group come and go, and so do hosts: what they had goes to others.

use std::collections::BTreeSet;
use std::time::Duration;

use oona_core::envelope::message_type::{KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_core::outcome::{Outcome, RejectCause};
use oona_tests::bus::{Setup, Stand, draft, next, take};
use tokio::runtime::Runtime;

pub(super) async fn what_a_lost_subscriber_had_goes_to_another(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut lost = bus.join("g");
    for number in 0..30 {
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
    }
    for _ in 0..10 {
        next(&mut lost).await;
    }
    drop(lost);
    let mut other = bus.join("g");
    let taken = take(&mut other, 30).await;
    let ids: BTreeSet<_> = taken.iter().map(|taken| &taken.message.id).collect();
    assert_eq!(ids.len(), 30, "each once");
    let failed = taken.iter().filter(|taken| taken.message.attempt == 1);
    let failed: Vec<_> = failed.collect();
    assert_eq!(
        failed.len(),
        10,
        "what was in hand has failed; what was not has not"
    );
    assert!(failed.iter().all(|taken| taken.redelivered));
    bus.settled().await;
    assert!(
        bus.dead_letters(0).await.is_empty(),
        "none was taken for a replay"
    );
}

pub(super) async fn what_a_leaving_subscriber_had_goes_to_another_at_once(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut leaving = bus.join("g");
    for number in 0..10 {
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
    }
    next(&mut leaving).await;
    leaving.close();
    let mut other = bus.join("g");
    let taken = take(&mut other, 10).await;
    let ids: BTreeSet<_> = taken.iter().map(|taken| &taken.message.id).collect();
    assert_eq!(ids.len(), 10, "each once");
    assert!(
        taken.iter().all(|taken| taken.message.attempt == 0),
        "none has failed"
    );
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
}

pub(super) async fn what_a_dead_host_had_is_claimed(stand: Stand) {
    let quick = |setup: &mut Setup| {
        setup.config.consume.ack_deadline = Duration::from_millis(200);
        setup.config.consume.claim_idle = Duration::from_millis(300);
    };
    // A host whose tasks end in the middle of their work, as if it were killed.
    let doomed = Runtime::new().unwrap();
    let (bus, mut subscription) = doomed.block_on_in_place(async {
        let bus = stand.bus(|_| {});
        let subscription = bus.join("g");
        for number in 0..5 {
            bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
        }
        (bus, subscription)
    });
    doomed.block_on_in_place(async {
        for _ in 0..5 {
            next(&mut subscription).await;
        }
    });
    doomed.shutdown_background();
    let other = stand.bus(quick);
    let mut claimer = other.join("g");
    let taken = take(&mut claimer, 5).await;
    assert!(
        taken
            .iter()
            .all(|taken| taken.redelivered && taken.deliveries == 2)
    );
    other.settled().await;
    assert!(
        other.dead_letters(0).await.is_empty(),
        "none was taken for a replay"
    );
    drop((bus, subscription));
}

/// Runs a future on another runtime, from within this one.
trait BlockInPlace {
    fn block_on_in_place<T>(&self, future: impl Future<Output = T>) -> T;
}

impl BlockInPlace for Runtime {
    fn block_on_in_place<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| self.block_on(future))
    }
}

pub(super) async fn a_shutdown_answers_every_publish_and_gives_back_what_is_in_hand(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    bus.publish(draft(TELEMETRY, 9_999)).await;
    let in_hand = next(&mut subscription).await;
    let mut pending = Vec::new();
    for number in 0..2_000 {
        pending.push(bus.bus.enqueue(draft(TELEMETRY, number)).await);
    }
    let late = bus.bus.clone();
    let ending = tokio::spawn(bus.shutdown());
    let mut accepted = 1;
    for outcome in pending {
        match outcome.await {
            Outcome::Accepted { .. } => accepted += 1,
            Outcome::Rejected { cause, .. } => assert_eq!(cause, RejectCause::ShuttingDown),
        }
    }
    // A subscriber sees the end, and gives back what it has.
    while let Some(delivery) = subscription.next().await {
        assert_ne!(delivery.message.id, in_hand.message.id);
    }
    drop(subscription);
    assert!(ending.await.unwrap(), "everything was finished in time");
    let refused = late.publish(draft(TELEMETRY, 3_000)).await;
    assert!(!refused.is_accepted());
    let stream = "oona.telemetry".into();
    let kept = stand.store.range(&stream, None, 10_000).await.unwrap();
    assert!(kept.len() >= accepted, "what was accepted is written");
    // Another host goes on with all of it at once.
    let next_host = stand.bus(|_| {});
    let mut subscription = next_host.join("g");
    let taken = take(&mut subscription, accepted).await;
    let ids: BTreeSet<_> = taken.iter().map(|taken| taken.message.id.clone()).collect();
    assert_eq!(ids.len(), accepted);
    assert!(ids.contains(&in_hand.message.id));
    next_host.settled().await;
}
