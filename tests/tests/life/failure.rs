//! What becomes of messages that are not handled, and of those that should not be.

use std::collections::BTreeSet;
use std::time::Duration;

use oona::bus::{Draft, LetterError, Nack, NotInFlight};
use oona_core::Timestamp;
use oona_core::entry::EntryId;
use oona_core::envelope::message_type::{FIELD_REPORT, KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_core::policy::Kind;
use oona_tests::bus::{Stand, draft, next, take};
use serde_json::json;

pub(super) async fn what_is_refused_is_tried_again_until_it_is_filed(stand: Stand) {
    let config = json!({"attempts_max": 3, "delay_base_ms": 5});
    let bus = stand.bus(|setup| setup.policy(Kind::DeadLetter, config));
    let mut subscription = bus.join("g");
    let mut other = bus.join("h");
    // A type with a nonce: a retry is no replay.
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    for attempt in 0..3 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.message.id, "event-1");
        assert_eq!(delivery.message.attempt, attempt);
        assert_eq!(delivery.redelivered, attempt > 0);
        let nack = Nack {
            reason: format!("not ready, {attempt}"),
            ..Nack::default()
        };
        subscription.nack(delivery.id, nack).unwrap();
    }
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!(
        (&*letter.class, &*letter.reason),
        ("out-of-attempts", "handler-error")
    );
    assert_eq!((&*letter.detail, letter.attempts), ("not ready, 2", 3));
    assert_eq!(
        (&*letter.group, &*letter.stream),
        ("g", "oona.kernels.requests")
    );
    // The other group has its own copy, and hears nothing of the retries.
    let taken = take(&mut other, 1).await;
    assert_eq!((taken[0].message.attempt, taken[0].redelivered), (0, false));
    bus.settled().await;
}

pub(super) async fn poison_is_filed_at_once(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    let mut poison = draft(FIELD_REPORT, 1);
    poison
        .attributes
        .insert("colour".to_owned(), "blue".to_owned());
    bus.publish(poison).await;
    let delivery = next(&mut subscription).await;
    let nack = Nack {
        poison: true,
        reason: "no such field".to_owned(),
        ..Nack::default()
    };
    subscription.nack(delivery.id, nack).unwrap();
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!(
        (&*letter.class, &*letter.detail),
        ("poison", "no such field")
    );
    assert_eq!((&*letter.event_id, letter.attempts), ("event-1", 1));
    assert_eq!(letter.entry, delivery.entry.to_string());
    assert_eq!(letter.attributes["colour"], "blue");
    bus.settled().await;
}

pub(super) async fn an_answer_that_does_not_come_is_a_failure(stand: Stand) {
    let bus = stand.bus(|setup| setup.config.consume.ack_deadline = Duration::from_secs(1));
    let mut subscription = bus.join("g");
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    let first = next(&mut subscription).await;
    let second = next(&mut subscription).await;
    assert_eq!(second.message.id, first.message.id);
    assert_eq!((second.message.attempt, second.redelivered), (1, true));
    assert_eq!(
        subscription.ack(first.id),
        Err(NotInFlight(first.id)),
        "it is too late"
    );
    subscription.ack(second.id).unwrap();
    bus.settled().await;
}

pub(super) async fn whoever_needs_longer_may_say_so(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.consume.ack_deadline = Duration::from_secs(1);
        // Nothing but the deadline itself wakes who keeps it.
        setup.config.consume.claim_idle = Duration::from_secs(3_600);
    });
    let mut subscription = bus.join("g");
    bus.publish(draft(TELEMETRY, 1)).await;
    let slow = next(&mut subscription).await;
    let handle = subscription.handle();
    handle.extend(slow.id, Duration::from_secs(3_600)).unwrap();
    bus.publish(draft(TELEMETRY, 2)).await;
    let lapsed = next(&mut subscription).await;
    // The second has its time, and passes it; the first, which is older, is still in hand.
    let again = next(&mut subscription).await;
    assert_eq!(again.message.id, lapsed.message.id);
    subscription.ack(slow.id).unwrap();
    subscription.ack(again.id).unwrap();
    bus.settled().await;
}

pub(super) async fn a_redriven_message_goes_to_the_group_that_failed(stand: Stand) {
    let bus = stand.bus(|_| {});
    let (mut failing, mut other) = (bus.join("g"), bus.join("h"));
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    take(&mut other, 1).await;
    let delivery = next(&mut failing).await;
    let nack = Nack {
        poison: true,
        ..Nack::default()
    };
    failing.nack(delivery.id, nack).unwrap();
    let letter = bus.dead_letters(1).await.remove(0);
    let id: EntryId = letter.id.parse().unwrap();
    let redriven = bus.bus.redrive(id, None).await.unwrap();
    assert_eq!(&*redriven.stream, "oona.kernels.requests");
    let again = take(&mut failing, 1).await.remove(0);
    assert_eq!((&*again.message.id, again.message.redrives), ("event-1", 1));
    assert_eq!((again.message.attempt, again.redelivered), (0, true));
    assert!(matches!(
        bus.bus.redrive(id, None).await,
        Err(LetterError::Gone(_))
    ));
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 2)).await;
    let next_of_other = take(&mut other, 1).await.remove(0);
    assert_eq!(
        next_of_other.message.id, "event-2",
        "the redrive was not meant for it"
    );
    take(&mut failing, 1).await;
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
}

pub(super) async fn a_copied_entry_is_a_replay_and_a_redelivery_is_none(stand: Stand) {
    let bus = stand.bus(|_| {});
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    let stream = "oona.kernels.requests".into();
    let original = stand.store.range(&stream, None, 1).await.unwrap().remove(0);
    let payload = original.payload().unwrap();
    let signature = String::from_utf8(original.signature().unwrap().to_vec()).unwrap();
    let copy = stand.append_raw(&stream, payload, Some(&signature)).await;
    // The same message on another stream is the same message.
    let elsewhere = stand
        .append_raw("oona.normal", payload, Some(&signature))
        .await;
    let mut subscription = bus.join("g");
    let delivery = next(&mut subscription).await;
    let letters = bus.dead_letters(2).await;
    assert!(
        letters.iter().all(|letter| letter.class == "replay"),
        "{letters:?}"
    );
    let filed = letters
        .iter()
        .map(|letter| (letter.stream.clone(), letter.entry.clone()));
    let delivered = (delivery.stream.to_string(), delivery.entry.to_string());
    let ends: BTreeSet<_> = filed.chain([delivered]).collect();
    let expected = [
        ("oona.kernels.requests".to_owned(), original.id.to_string()),
        ("oona.kernels.requests".to_owned(), copy.to_string()),
        ("oona.normal".to_owned(), elsewhere.to_string()),
    ];
    assert_eq!(
        ends,
        BTreeSet::from(expected),
        "one of the three is delivered"
    );
    subscription.nack(delivery.id, Nack::default()).unwrap();
    let again = take(&mut subscription, 1).await.remove(0);
    assert_eq!(again.message.attempt, 1);
    bus.settled().await;
    assert_eq!(bus.dead_letters(2).await.len(), 2);
}

pub(super) async fn what_is_too_old_is_filed(stand: Stand) {
    let bus = stand.bus(|setup| {
        let types = json!({"kernel_prefetch_request": {"window_ms": 60_000}});
        setup.policy(Kind::Freshness, json!({ "types": types }));
    });
    let now = oona::clock::system()();
    let at = |created_at: Timestamp, number| Draft {
        created_at: Some(created_at),
        ttl: Some(Duration::from_secs(3_600)),
        ..draft(KERNEL_PREFETCH_REQUEST, number)
    };
    let minute = Duration::from_secs(60);
    let long_ago = Timestamp::from_millis(now.as_millis() - 61_000);
    bus.publish(at(long_ago, 1)).await;
    bus.publish(at(now + minute, 2)).await;
    bus.publish(at(now, 3)).await;
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, 1).await;
    assert_eq!(taken[0].message.id, "event-3");
    let letters = bus.dead_letters(2).await;
    let mut filed: Vec<_> = letters
        .iter()
        .map(|l| (&*l.event_id, &*l.failure))
        .collect();
    filed.sort_unstable();
    assert_eq!(filed, [("event-1", "stale"), ("event-2", "from-future")]);
    bus.settled().await;
}

pub(super) async fn what_has_expired_is_filed(stand: Stand) {
    let bus = stand.bus(|_| {});
    let now = oona::clock::system()();
    let issued = Timestamp::from_millis(now.as_millis() - 10_000);
    let lasting = |ttl, number| Draft {
        created_at: Some(issued),
        ttl: Some(Duration::from_secs(ttl)),
        ..draft(TELEMETRY, number)
    };
    bus.publish(lasting(5, 1)).await;
    bus.publish(lasting(3_600, 2)).await;
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, 1).await;
    assert_eq!(taken[0].message.id, "event-2", "as old, and meant to last");
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!((&*letter.class, &*letter.detail), ("expired", "expired"));
    assert_eq!(
        (&*letter.event_id, &*letter.stream),
        ("event-1", "oona.telemetry")
    );
    bus.settled().await;
}
