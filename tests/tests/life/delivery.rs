//! Messages reach those for whom they are, the urgent ones first.

use std::collections::{BTreeMap, BTreeSet};

use oona::bus::{Draft, SubscribeOptions};
use oona_core::delivery::Credit;
use oona_core::envelope::message_type::{self, EMERGENCY_SIGNAL, TELEMETRY};
use oona_core::outcome::{Lane, Outcome};
use oona_core::policy::{Kind, Priority};
use oona_tests::bus::{Stand, draft, next, take};
use serde_json::{Value, json};

pub(super) async fn a_message_goes_where_its_type_and_priority_send_it(stand: Stand) {
    let bus = stand.bus(|_| {});
    let listed = message_type::ALL.map(|(number, _)| number);
    let mut published = 0;
    for message_type in listed.into_iter().chain([77]) {
        for priority in Priority::ALL {
            let draft = Draft {
                priority: Some(priority),
                ..draft(message_type, published)
            };
            let urgent = priority >= Priority::High || message_type == EMERGENCY_SIGNAL;
            let expected = if urgent {
                "oona.emergency"
            } else {
                usual_stream(message_type)
            };
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

/// Where a message goes that is not urgent, by the table of the wire.
fn usual_stream(message_type: u32) -> &'static str {
    match message_type {
        4 => "oona.telemetry",
        5 => "oona.policy",
        6 => "oona.kernels.requests",
        7 | 9 => "oona.kernels.ready",
        8 => "oona.kernels.errors",
        10 => "oona.emergency",
        _ => "oona.normal",
    }
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

/// What waits to be delivered is overtaken, however much of it there is.
pub(super) async fn an_emergency_goes_before_what_waits(stand: Stand) {
    const WAITING: usize = 20;
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    for number in 0..WAITING {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    bus.pending("oona.telemetry", "g", WAITING as u64).await;
    // The second is read only when the first waits to be delivered.
    for (number, pending) in [(100, 1), (101, 2)] {
        bus.publish(draft(EMERGENCY_SIGNAL, number)).await;
        bus.pending("oona.emergency", "g", pending).await;
    }
    let taken = take(&mut subscription, WAITING + 2).await;
    assert_eq!(
        taken[0].message.id, "event-100",
        "published after {WAITING} others"
    );
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

pub(super) async fn messages_of_the_existing_client_are_delivered(stand: Stand) {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../../envelopes.json")).unwrap();
    assert_eq!(vectors.len(), 13, "tests/envelopes.json is complete");
    let text = |vector: &Value, key: &str| vector[key].as_str().unwrap().to_owned();
    let bus = stand.bus(|setup| {
        let secrets = vectors.iter().map(|vector| text(vector, "secret"));
        setup.also_accept = secrets.collect();
        // They were written long ago.
        setup.policy(Kind::Freshness, json!({"types": {}}));
    });
    let mut appended = BTreeMap::new();
    for vector in &vectors {
        let message_type = number(&vector["message_type"]);
        let stream = usual_stream(message_type);
        let envelope = unhex(&text(vector, "envelope_hex"));
        let signature = text(vector, "signature");
        let entry = stand.append_raw(stream, &envelope, Some(&signature));
        appended.insert((stream.to_owned(), entry.await), vector);
    }
    let mut subscription = bus.join("g");
    for delivery in take(&mut subscription, vectors.len()).await {
        let place = (delivery.stream.to_string(), delivery.entry);
        let vector = appended
            .remove(&place)
            .expect("each comes once, from where it was");
        let (name, message) = (text(vector, "name"), &delivery.message);
        let message_type = number(&vector["message_type"]);
        let priority = match message_type {
            EMERGENCY_SIGNAL => Priority::Emergency,
            _ => Priority::Normal,
        };
        let attempt = vector["attributes"]["attempt"].as_str().unwrap_or("0");
        assert_eq!(message.message_type, message_type, "{name}");
        assert_eq!(message.priority, priority, "{name}");
        assert_eq!(
            message.payload,
            unhex(&text(vector, "payload_hex")),
            "{name}"
        );
        assert_eq!(message.attempt.to_string(), attempt, "{name}");
        assert_eq!(delivery.redelivered, attempt != "0", "{name}");
    }
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

pub(super) async fn what_is_published_again_is_answered_with_the_first_outcome(stand: Stand) {
    let (one, other) = (stand.bus(|_| {}), stand.bus(|_| {}));
    let first = one.bus.publish(draft(TELEMETRY, 1)).await;
    // Whichever host is asked, and whatever it is now.
    let changed = Draft {
        priority: Some(Priority::Low),
        payload: "something else".into(),
        ..draft(TELEMETRY, 1)
    };
    let Outcome::Accepted {
        stream, id, reason, ..
    } = first
    else {
        panic!("{first:?}");
    };
    for bus in [&one.bus, &other.bus] {
        match bus.publish(changed.clone()).await {
            Outcome::Accepted {
                stream: again,
                id: entry,
                reason: why,
                duplicate: true,
                ..
            } => assert_eq!((again, entry, why), (stream.clone(), id, reason.clone())),
            other => panic!("{other:?}"),
        }
    }
    // Without an event id of the producer's, two publishes are two messages.
    let anonymous = Draft {
        id: None,
        ..draft(TELEMETRY, 2)
    };
    one.publish(anonymous.clone()).await;
    one.publish(anonymous).await;
    let mut subscription = other.join("g");
    let contents: Vec<_> = take(&mut subscription, 3)
        .await
        .into_iter()
        .map(|delivery| delivery.message.payload.clone())
        .collect();
    assert_eq!(contents, ["1", "2", "2"]);
    one.settled().await;
}

pub(super) async fn what_is_refused_now_was_accepted_before(stand: Stand) {
    let bus = stand.bus(|setup| setup.config.stream_length_max = 10);
    let mut accepted = Vec::new();
    for number in 0..20 {
        if bus
            .bus
            .publish(draft(TELEMETRY, number))
            .await
            .is_accepted()
        {
            accepted.push(number);
        }
    }
    assert!((1..20).contains(&accepted.len()), "{accepted:?}");
    for number in 0..20 {
        let again = bus.bus.publish(draft(TELEMETRY, number)).await;
        let was = accepted.contains(&number);
        assert_eq!(again.is_accepted(), was, "{number}: {again:?}");
    }
    take(&mut bus.join("g"), accepted.len()).await;
    bus.settled().await;
}

pub(super) async fn credit_in_bytes_is_kept_to(stand: Stand) {
    let bus = stand.bus(|_| {});
    for number in 0..10 {
        let large = Draft {
            payload: vec![b'x'; 1_000].into(),
            ..draft(TELEMETRY, number)
        };
        bus.publish(large).await;
    }
    let mut options = SubscribeOptions::new("g");
    options.credit = Credit {
        messages: 10,
        bytes: 1_500,
    };
    let mut subscription = bus.bus.subscribe(options).unwrap();
    take(&mut subscription, 2).await;
    bus.pending("oona.telemetry", "g", 8).await;
    assert_eq!(subscription.ready(10).len(), 0, "the second went over it");
    subscription.handle().credit(Credit {
        messages: 0,
        bytes: 100_000,
    });
    take(&mut subscription, 8).await;
    bus.settled().await;
}
