//! Redis is not there yet, or not any more.

use std::collections::BTreeSet;
use std::time::Duration;

use oona::bus::Nack;
use oona_core::envelope::message_type::{KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_core::outcome::{Outcome, RejectCause};
use oona_tests::bus::{Stand, TestBus, draft, eventually, next, take};
use oona_tests::redis_server::RedisServer;

async fn refused(bus: &TestBus) -> Option<Duration> {
    match bus.bus.publish(draft(TELEMETRY, 0)).await {
        Outcome::Rejected {
            cause, retry_after, ..
        } => {
            assert_eq!(cause, RejectCause::Unavailable);
            retry_after
        }
        accepted => panic!("{accepted:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_waits_for_a_redis_that_is_not_there_yet() {
    let mut stand = Stand::over(RedisServer::down());
    let bus = stand.bus(|setup| setup.config.breaker.open_ms = 50);
    let mut subscription = bus.join("g");
    assert!(
        refused(&bus).await.is_some(),
        "it is told when to try again"
    );
    let status = bus.bus.status();
    assert!(!status.ready, "{status:?}");
    assert!(
        status.reasons[0].contains("does not answer"),
        "{:?}",
        status.reasons
    );
    stand.server.as_mut().unwrap().restart();
    eventually(async || {
        bus.bus
            .publish(draft(TELEMETRY, 1))
            .await
            .is_accepted()
            .then_some(())
    })
    .await;
    let taken = take(&mut subscription, 1).await;
    assert_eq!(taken[0].message.id, "event-1");
    eventually(async || bus.bus.status().ready.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_cautioned_of() {
    // Managed servers often forbid CONFIG.
    let without_config = ["--rename-command", "CONFIG", ""];
    for (policy, caution) in [
        ("noeviction", None),
        (
            "allkeys-lru",
            Some("drops messages when its memory is full"),
        ),
        (
            "volatile-ttl",
            Some("forgets nonces and event ids when its memory is full"),
        ),
    ] {
        let options = [&["--maxmemory-policy", policy][..], &without_config].concat();
        let stand = Stand::over(RedisServer::start_with(&options));
        let bus = stand.bus(|_| {});
        let status = eventually(async || {
            let status = bus.bus.status();
            status.ready.then_some(status)
        })
        .await;
        let reasons = status.reasons.join("; ");
        assert_eq!(reasons.is_empty(), caution.is_none(), "{policy}: {reasons}");
        assert!(reasons.contains(caution.unwrap_or_default()), "{reasons}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_lost_loses_nothing_that_was_accepted() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|setup| {
        setup.config.breaker.open_ms = 50;
        setup.config.consume.claim_idle = Duration::from_millis(1_000);
        setup.config.consume.ack_deadline = Duration::from_millis(500);
    });
    let mut subscription = bus.join("g");
    let mut accepted = BTreeSet::new();
    for number in 0..50 {
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
        accepted.insert(format!("event-{number}"));
    }
    let in_hand = next(&mut subscription).await;
    stand.server.as_mut().unwrap().kill();
    // To end a server takes a moment, and the time to acknowledge is short.
    let in_time = subscription.ack(in_hand.id).is_ok();
    eventually(async || {
        refused(&bus).await;
        (bus.bus.status().publish_breaker == "open").then_some(())
    })
    .await;
    assert!(refused(&bus).await.is_some());
    stand.server.as_mut().unwrap().restart();
    let mut number = 100;
    eventually(async || {
        number += 1;
        let draft = draft(KERNEL_PREFETCH_REQUEST, number);
        if bus.bus.publish(draft).await.is_accepted() {
            accepted.insert(format!("event-{number}"));
        }
        let status = bus.bus.status();
        let breakers = [status.publish_breaker, status.consume_breaker];
        (breakers == ["closed", "closed"]).then_some(())
    })
    .await;
    assert!(accepted.len() > 50, "what is closed lets through");
    let mut handled = BTreeSet::new();
    if in_time {
        handled.insert(in_hand.message.id.clone());
    }
    while !handled.is_superset(&accepted) {
        let delivery = next(&mut subscription).await;
        // One that was delivered before the crash may have timed out since.
        if subscription.ack(delivery.id).is_ok() {
            handled.insert(delivery.message.id.clone());
        }
    }
    bus.settled().await;
    eventually(async || bus.bus.status().ready.then_some(())).await;
    assert!(
        bus.dead_letters(0).await.is_empty(),
        "and none was taken for a replay"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_be_carried_to_redis_are_carried_when_it_is_back() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|setup| {
        setup.config.breaker.open_ms = 50;
        // Nothing that was delivered is claimed: what is not settled stays pending.
        setup.config.consume.ack_deadline = Duration::from_secs(3_600);
        setup.config.consume.claim_idle = Duration::from_secs(7_200);
    });
    let mut subscription = bus.join("g");
    for number in [1, 2] {
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
    }
    let (first, second) = (next(&mut subscription).await, next(&mut subscription).await);
    bus.pending("oona.kernels.requests", "g", 2).await;
    stand.server.as_mut().unwrap().kill();
    subscription.ack(first.id).unwrap();
    subscription.nack(second.id, Nack::default()).unwrap();
    // Somebody has noticed: it is down for all.
    let faults = bus.bus.metrics().store_faults.get();
    eventually(async || (bus.bus.metrics().store_faults.get() > faults).then_some(())).await;
    stand.server.as_mut().unwrap().restart();
    let again = take(&mut subscription, 1).await.remove(0);
    assert_eq!(again.message.id, second.message.id);
    assert_eq!((again.message.attempt, again.redelivered), (1, true));
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
}
