use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oona::bus::{Draft, Nack, NotInFlight, RedriveError, SubscribeOptions};
use oona_core::Timestamp;
use oona_core::entry::EntryId;
use oona_core::envelope::message_type::{
    self, EMERGENCY_SIGNAL, FIELD_REPORT, KERNEL_PREFETCH_REQUEST, TELEMETRY,
};
use oona_core::outcome::{Lane, Outcome, RejectCause};
use oona_core::policy::{Kind, Mode, Priority};
use oona_tests::bus::{Stand, draft, eventually, next, take};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(super) async fn a_message_goes_where_its_type_and_priority_send_it(stand: Stand) {
    let bus = stand.bus(|_| {});
    let own = BTreeMap::from([
        (4, "oona.telemetry"),
        (5, "oona.policy"),
        (6, "oona.kernels.requests"),
        (7, "oona.kernels.ready"),
        (8, "oona.kernels.errors"),
        (9, "oona.kernels.ready"),
    ]);
    let listed = message_type::ALL.map(|(number, _)| number);
    let mut published = 0;
    for message_type in listed.into_iter().chain([77]) {
        for priority in Priority::ALL {
            let draft = Draft {
                priority: Some(priority),
                ..draft(message_type, published)
            };
            let urgent = priority >= Priority::High || message_type == EMERGENCY_SIGNAL;
            let usual = own.get(&message_type).unwrap_or(&"oona.normal");
            let expected = if urgent { "oona.emergency" } else { usual };
            match bus.bus.publish(draft).await {
                Outcome::Accepted { stream, lane, .. } => {
                    assert_eq!(&*stream, expected, "type {message_type}, {priority:?}");
                    assert_eq!(lane == Lane::Emergency, urgent);
                }
                rejected => panic!("type {message_type}, {priority:?}: {rejected:?}"),
            }
            published += 1;
        }
    }
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, published).await;
    let ids: BTreeSet<_> = taken.iter().map(|taken| &taken.message.id).collect();
    assert_eq!(ids.len(), published);
    bus.settled().await;
    drop(subscription);
    assert!(bus.shutdown().await);
}

pub(super) async fn an_emergency_overtakes_what_came_first(stand: Stand) {
    const IN_FLIGHT: usize = 5;
    const BACKLOG: usize = 500;
    let bus = stand.bus(|_| {});
    for number in 0..BACKLOG {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    let options = SubscribeOptions {
        in_flight_max: IN_FLIGHT,
        ..SubscribeOptions::new("g")
    };
    let mut subscription = bus.bus.subscribe(options).unwrap();
    let mut in_hand = Vec::new();
    for _ in 0..IN_FLIGHT {
        in_hand.push(next(&mut subscription).await.id);
    }
    bus.publish(draft(EMERGENCY_SIGNAL, 999)).await;
    for id in in_hand {
        subscription.ack(id).unwrap();
    }
    // What was on its way may still come first, and readers take turns as they are scheduled.
    let soon = take(&mut subscription, BACKLOG / 2).await;
    let overtaken = soon.iter().any(|taken| &*taken.stream == "oona.emergency");
    assert!(overtaken, "the emergency waits behind the backlog");
    take(&mut subscription, BACKLOG + 1 - IN_FLIGHT - soon.len()).await;
    bus.settled().await;
}

pub(super) async fn every_group_gets_every_message(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut groups = ["g", "h"].map(|group| bus.join(group));
    for number in 0..10 {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    for subscription in &mut groups {
        let taken = take(subscription, 10).await;
        for (number, delivery) in taken.iter().enumerate() {
            assert_eq!(delivery.message.id, format!("event-{number}"));
            assert_eq!(&delivery.message.payload[..], number.to_string().as_bytes());
            assert_eq!(delivery.message.source, "test");
            assert_eq!((delivery.redelivered, delivery.deliveries), (false, 1));
        }
    }
    bus.settled().await;
}

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
    let bus = stand.bus(|setup| setup.config.consume.ack_deadline = Duration::from_millis(50));
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
    let bus = stand.bus(|setup| setup.config.consume.ack_deadline = Duration::from_millis(100));
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
    let quick = |setup: &mut oona_tests::bus::Setup| {
        setup.config.consume.ack_deadline = Duration::from_millis(200);
        setup.config.consume.claim_idle = Duration::from_millis(300);
    };
    // A host whose tasks end in the middle of their work, as if it were killed.
    let doomed = Runtime::new().unwrap();
    let (bus, mut subscription) = doomed.block_on_in_place(async {
        let bus = stand.bus(quick);
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
    let redriven = bus.bus.redrive(id).await.unwrap();
    assert_eq!(&*redriven.stream, "oona.kernels.requests");
    let again = take(&mut failing, 1).await.remove(0);
    assert_eq!((&*again.message.id, again.message.redrives), ("event-1", 1));
    assert_eq!((again.message.attempt, again.redelivered), (0, true));
    assert!(matches!(
        bus.bus.redrive(id).await,
        Err(RedriveError::Gone(_))
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

pub(super) async fn a_full_bus_protects_itself_and_recovers(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.stream_length_max = 100;
        setup.config.conservative.high_water = 50;
        setup.config.conservative.low_water = 10;
    });
    // 60 of 100 is nothing that a bus in its normal mode would refuse.
    let mut accepted = 0;
    for number in 0..60 {
        let outcome = bus.bus.publish(draft(TELEMETRY, number)).await;
        accepted += usize::from(outcome.is_accepted());
    }
    let mode = async |wanted| (bus.bus.status().mode == wanted).then_some(());
    eventually(async || mode(Mode::Conservative).await).await;
    match bus.bus.publish(draft(TELEMETRY, 100)).await {
        Outcome::Rejected {
            cause: RejectCause::Backpressure,
            reason,
            retry_after: Some(_),
            ..
        } => assert_eq!(&*reason, "conservative"),
        other => panic!("{other:?}"),
    }
    bus.publish(draft(EMERGENCY_SIGNAL, 101)).await;
    let mut subscription = bus.join("g");
    take(&mut subscription, accepted + 1).await;
    eventually(async || mode(Mode::Normal).await).await;
    bus.publish(draft(TELEMETRY, 102)).await;
    take(&mut subscription, 1).await;
    bus.settled().await;
}

pub(super) async fn an_emergency_without_a_token_is_demoted_or_deferred(stand: Stand) {
    let over_rate = |word: &'static str| {
        move |setup: &mut oona_tests::bus::Setup| {
            setup.config.emergency_per_minute = 10;
            setup.policy(Kind::Backpressure, json!({ "over_rate": word }));
        }
    };
    let bus = stand.bus(over_rate("demote"));
    let mut lanes = BTreeMap::<_, usize>::new();
    for number in 0..40 {
        match bus.bus.publish(draft(EMERGENCY_SIGNAL, number)).await {
            Outcome::Accepted { stream, reason, .. } => {
                let demoted = &*stream != "oona.emergency";
                assert_eq!(demoted, &*reason == "emergency-rate", "{reason}");
                *lanes.entry(stream.to_string()).or_default() += 1;
            }
            rejected => panic!("an emergency is never lost: {rejected:?}"),
        }
    }
    // One more token every six seconds: the machine may have been slow.
    assert!((10..20).contains(&lanes["oona.emergency"]), "{lanes:?}");
    assert_eq!(lanes["oona.emergency"] + lanes["oona.normal"], 40);
    let mut subscription = bus.join("g");
    take(&mut subscription, 40).await;
    bus.settled().await;

    let bus = stand.bus(over_rate("defer"));
    let mut deferred = 0;
    for number in 0..40 {
        let outcome = bus.bus.publish(draft(EMERGENCY_SIGNAL, 100 + number)).await;
        if let Outcome::Rejected {
            cause, retry_after, ..
        } = outcome
        {
            assert_eq!(cause, RejectCause::Backpressure);
            assert!(retry_after > Some(Duration::ZERO));
            deferred += 1;
        }
    }
    assert!((20..=30).contains(&deferred), "{deferred}");
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

pub(super) async fn messages_of_the_existing_client_are_delivered(stand: Stand) {
    let bus = stand.bus(|setup| {
        // They were written long ago.
        setup.policy(Kind::Freshness, json!({"types": {}}));
    });
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../../envelopes.json")).unwrap();
    let text = |vector: &Value, key: &str| vector[key].as_str().unwrap().to_owned();
    let same_secret = vectors
        .into_iter()
        .filter(|vector| text(vector, "secret") == oona_tests::bus::SECRET);
    let vectors: Vec<_> = same_secret.collect();
    assert!(vectors.len() > 5, "most vectors have this secret");
    for vector in &vectors {
        let envelope = unhex(&text(vector, "envelope_hex"));
        let signature = text(vector, "signature");
        stand
            .append_raw("oona.normal", &envelope, Some(&signature))
            .await;
    }
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, vectors.len()).await;
    for (delivery, vector) in taken.iter().zip(&vectors) {
        let name = text(vector, "name");
        let message_type = u64::from(delivery.message.message_type);
        assert_eq!(
            Some(message_type),
            vector["message_type"].as_u64(),
            "{name}"
        );
        let payload = unhex(&text(vector, "payload_hex"));
        assert_eq!(delivery.message.payload, payload, "{name}");
    }
    bus.settled().await;
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}
