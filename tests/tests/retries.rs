//! Retries outlive whoever asked for them: hosts come and go, and Redis too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oona::bus::{Nack, Subscription};
use oona::clock::{self, Clock};
use oona::store::StreamName;
use oona_core::Timestamp;
use oona_core::envelope::message_type::{KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_core::policy::Kind;
use oona_tests::bus::{Stand, TestBus, draft, eventually, next, take};
use serde_json::json;

macro_rules! over_both_stores {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Stand::at).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Stand::redis_at).await;
            })*
        }
    };
}

over_both_stores! {
    attempts_are_counted_across_restarts
    a_delay_is_kept_across_restarts
    backoff_is_as_the_dead_letter_policy_says
}

/// Ends a host in good order, and the server with it, without a word.
async fn restart(stand: &mut Stand, bus: TestBus, subscription: Subscription) {
    subscription.drained().await;
    subscription.close();
    assert!(bus.shutdown().await);
    stand.restart().await;
}

async fn attempts_are_counted_across_restarts(stand: fn(Clock) -> Stand) {
    let mut stand = stand(clock::system());
    let config = json!({"attempts_max": 3, "delay_base_ms": 5});
    for attempt in 0..3 {
        let bus = stand.bus(|setup| setup.policy(Kind::DeadLetter, config.clone()));
        if attempt == 0 {
            // A type with a nonce: a retry is no replay for a host that knows nothing of it either.
            bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
        }
        let mut subscription = bus.join("g");
        let delivery = next(&mut subscription).await;
        assert_eq!(&*delivery.message.id, "event-1");
        assert_eq!(delivery.message.attempt, attempt);
        assert_eq!(delivery.redelivered, attempt > 0);
        subscription.nack(delivery.id, Nack::default()).unwrap();
        restart(&mut stand, bus, subscription).await;
    }
    let bus = stand.bus(|_| {});
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!((&*letter.class, letter.attempts), ("out-of-attempts", 3));
    assert!(letter.first_failed_ms < letter.at_ms);
}

async fn a_delay_is_kept_across_restarts(stand: fn(Clock) -> Stand) {
    let mut stand = stand(clock::system());
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    bus.publish(draft(TELEMETRY, 1)).await;
    let delivery = next(&mut subscription).await;
    let delay = Duration::from_millis(1_500);
    let nack = Nack {
        delay: Some(delay),
        ..Nack::default()
    };
    let now = clock::system();
    let began = now();
    subscription.nack(delivery.id, nack).unwrap();
    restart(&mut stand, bus, subscription).await;
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, 1).await;
    assert_eq!(
        (&*taken[0].message.id, taken[0].message.attempt),
        ("event-1", 1)
    );
    assert!(now().since(began) >= delay, "{began}, {}", now());
    bus.settled().await;
}

/// The clock of the hosts stands still, so that nothing falls due but what the test asks for.
async fn backoff_is_as_the_dead_letter_policy_says(stand: fn(Clock) -> Stand) {
    let time = Arc::new(AtomicU64::new(clock::system()().as_millis()));
    let hosts = Arc::clone(&time);
    let stand = stand(Arc::new(move || {
        Timestamp::from_millis(hosts.load(Ordering::SeqCst))
    }));
    let config = json!({
        "attempts_max": 6, "delay_base_ms": 1_000, "delay_factor": 3, "delay_max_ms": 5_000,
        "jitter_percent": 0,
    });
    let bus = stand.bus(|setup| setup.policy(Kind::DeadLetter, config));
    let mut subscription = bus.join("g");
    bus.publish(draft(TELEMETRY, 1)).await;
    let stream = StreamName::from("oona.telemetry");
    let requested = Some(2_500);
    for (asked, delay) in [
        (None, 1_000),
        (None, 3_000),
        (requested, 2_500),
        (None, 5_000),
        (Some(9_000), 5_000),
    ] {
        let delivery = next(&mut subscription).await;
        let nack = Nack {
            delay: asked.map(Duration::from_millis),
            ..Nack::default()
        };
        subscription.nack(delivery.id, nack).unwrap();
        let failed_at = time.load(Ordering::SeqCst);
        let waits = async || {
            let depths = stand.store.depths(std::slice::from_ref(&stream)).await;
            (depths.unwrap()[0].delayed == 1).then_some(())
        };
        eventually(waits).await;
        for (after, moved) in [(delay - 1, 0), (delay, 1)] {
            let at = Timestamp::from_millis(failed_at + after);
            let promoted = stand.store.promote(&stream, at, 9).await.unwrap();
            assert_eq!(promoted, moved, "{after} ms after a failure, of {delay}");
        }
        time.fetch_add(1, Ordering::SeqCst);
    }
    let last = next(&mut subscription).await;
    assert_eq!(last.message.attempt, 5);
    subscription.nack(last.id, Nack::default()).unwrap();
    assert_eq!(bus.dead_letters(1).await[0].attempts, 6);
}
