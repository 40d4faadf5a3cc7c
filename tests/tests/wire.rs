//! What clients before Oona get wrong, and Oona must not: a test for each, over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "wire/atomic.rs"]
mod atomic;
#[path = "wire/publish.rs"]
mod publish;

use std::collections::BTreeSet;
use std::time::Duration;

use oona::bus::{Nack, SubscribeOptions};
use oona::config::{Config, Sources};
use oona::store::GroupStart;
use oona_core::envelope::message_type::{FIELD_REPORT, KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_core::policy::Kind;
use oona_core::signing::{Keyring, Secret};
use oona_tests::bus::{SECRET, Setup, Stand, TestBus, draft, eventually, next, take};
use oona_tests::clock::Hands;
use oona_tests::redis_server::RedisServer;
use redis::Value;
use serde_json::json;

const TELEMETRY_STREAM: &str = "oona.telemetry";
const REQUESTS: &str = "oona.kernels.requests";

fn server(stand: &Stand) -> &RedisServer {
    stand.server.as_ref().unwrap()
}

async fn publish_telemetry(bus: &TestBus, count: usize) {
    for number in 0..count {
        bus.publish(draft(TELEMETRY, number)).await;
    }
}

/// Claims soon what others have left.
fn quick(setup: &mut Setup) {
    setup.config.consume.ack_deadline = Duration::from_millis(200);
    setup.config.consume.claim_idle = Duration::from_millis(300);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_claimed_after_a_consumers_death_are_redelivered() {
    const COUNT: usize = 20;
    let stand = Stand::redis();
    let bus = stand.bus(quick);
    publish_telemetry(&bus, COUNT).await;
    // One consumer reads them and dies; another claims them, and dies as well.
    let stream = TELEMETRY_STREAM;
    let dead: [&[&str]; 3] = [
        &["XGROUP", "CREATE", stream, "workers", "0"],
        &[
            "XREADGROUP",
            "GROUP",
            "workers",
            "one",
            "STREAMS",
            stream,
            ">",
        ],
        &["XAUTOCLAIM", stream, "workers", "two", "0", "0-0"],
    ];
    for command in dead {
        let _: Value = server(&stand).ask(command);
    }
    bus.pending(stream, "workers", COUNT as u64).await;
    let mut subscription = bus.join("workers");
    let taken = take(&mut subscription, COUNT).await;
    let ids: BTreeSet<_> = taken.iter().map(|taken| &taken.message.id).collect();
    assert_eq!(ids.len(), COUNT, "each once");
    for delivery in &taken {
        assert_eq!((delivery.redelivered, delivery.deliveries), (true, 3));
    }
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
}

/// By Oona, and by the existing client: it writes the same bytes again with a higher `attempt`.
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_kernel_request_is_no_replay() {
    let stand = Stand::redis();
    let bus = stand.bus(|setup| {
        quick(setup);
        let config = json!({"attempts_max": 10, "delay_base_ms": 5});
        setup.policy(Kind::DeadLetter, config);
    });
    let mut subscription = bus.join("workers");
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    for attempt in 0..3 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.message.attempt, attempt);
        subscription.nack(delivery.id, Nack::default()).unwrap();
    }
    let last = take(&mut subscription, 1).await.remove(0);
    let mut again = Vec::new();
    let mut message = oona_core::Message::clone(&last.message);
    message.attempt += 1;
    message.encode(&mut again);
    let keyring = Keyring::new(&Secret::new(SECRET.to_owned()).unwrap(), &[]);
    let signature = String::from_utf8(keyring.sign(&again).to_vec()).unwrap();
    stand.append_raw(REQUESTS, &again, Some(&signature)).await;
    let retried = next(&mut subscription).await;
    assert_eq!(
        (retried.message.attempt, &retried.message.id),
        (4, &last.message.id)
    );
    // Nor is one that its consumer died with, and another claims.
    drop(subscription);
    let claimed = take(&mut bus.join("workers"), 1).await.remove(0);
    assert_eq!(
        (claimed.message.attempt, &claimed.message.id),
        (5, &last.message.id)
    );
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
    // But the same attempt in another entry is.
    stand.append_raw(REQUESTS, &again, Some(&signature)).await;
    let _subscription = bus.join("workers");
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!(
        (&*letter.class, &letter.event_id),
        ("replay", &last.message.id)
    );
}

/// Boundaries to the millisecond are in `freshness.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_held_for_the_whole_window_across_replicas_and_restarts() {
    const MINUTE: Duration = Duration::from_secs(60);
    let hands = Hands::now();
    let mut stand = Stand::redis().with_clock(hands.clock());
    let bus = stand.bus(|_| {});
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 0)).await;
    let first = take(&mut bus.join("workers"), 1).await.remove(0);
    let stored = stand
        .store
        .range(&REQUESTS.into(), None, 1)
        .await
        .unwrap()
        .remove(0);
    let signature = std::str::from_utf8(stored.signature().unwrap())
        .unwrap()
        .to_owned();
    let payload = stored.payload().unwrap().clone();
    // Others come in between, as many as the whole bus may hold of the usual ones.
    let replays = async |bus: &TestBus, stand: &Stand, count| {
        stand.append_raw(REQUESTS, &payload, Some(&signature)).await;
        let mut subscription = bus.join("workers");
        let letters = bus.dead_letters(count).await;
        assert_eq!(letters.len(), count);
        assert!(letters.iter().all(|letter| letter.class == "replay"));
        assert!(
            letters
                .iter()
                .all(|letter| letter.event_id == first.message.id)
        );
        assert!(subscription.ready(10).is_empty());
    };
    replays(&bus, &stand, 1).await;
    // A replica that has never seen it.
    let replica = stand.bus(|_| {});
    replays(&replica, &stand, 2).await;
    // Another after a restart of all of them and of Redis, just before it is too old.
    assert!(bus.shutdown().await && replica.shutdown().await);
    stand.restart().await;
    hands.forward(2 * MINUTE);
    let restarted = stand.bus(|_| {});
    replays(&restarted, &stand, 3).await;
    // And then it is too old for everybody.
    hands.forward(Duration::from_millis(1));
    stand.append_raw(REQUESTS, &payload, Some(&signature)).await;
    let _subscription = restarted.join("workers");
    let letters = restarted.dead_letters(4).await;
    assert_eq!(letters[3].class, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_in_the_future_is_refused() {
    let hands = Hands::now();
    let stand = Stand::redis().with_clock(hands.clock());
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("workers");
    let ahead = |number, ms| oona::bus::Draft {
        created_at: Some(hands.time() + Duration::from_millis(ms)),
        ..draft(TELEMETRY, number)
    };
    for (number, ms) in [(0, 5_001), (1, 5_000), (2, u64::MAX)] {
        bus.publish(ahead(number, ms)).await;
    }
    let taken = take(&mut subscription, 1).await.remove(0);
    assert_eq!(taken.message.id, "event-1", "as far as clocks may differ");
    let letters = bus.dead_letters(2).await;
    let filed: BTreeSet<_> = letters
        .iter()
        .map(|letter| (&*letter.class, &*letter.event_id))
        .collect();
    assert_eq!(
        filed,
        [("from-future", "event-0"), ("from-future", "event-2")].into()
    );
    bus.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_signature_is_quarantined_with_its_reason() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("workers");
    let payload = b"\x08\x04";
    for signature in [
        None,
        Some("x"),
        Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ] {
        stand.append_raw(TELEMETRY_STREAM, payload, signature).await;
    }
    let letters = bus.dead_letters(3).await;
    let details: Vec<_> = letters.iter().map(|letter| &*letter.detail).collect();
    for (detail, told) in details.iter().zip(["not signed", "base64", "no key"]) {
        assert!(detail.contains(told), "{details:?}");
    }
    for letter in &letters {
        let what = (&*letter.class, &*letter.stream, &*letter.group);
        assert_eq!(what, ("unverifiable", TELEMETRY_STREAM, "workers"));
    }
    bus.settled().await;
    assert!(subscription.ready(10).is_empty());
    // And counted, once the store has confirmed them.
    let counted = || bus.bus.metrics().quarantined("unverifiable").get();
    eventually(async || (counted() == 3).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_always_a_dead_letter_stream() {
    // None can be left out,
    let nowhere = Sources {
        assignments: vec!["streams.dead_letter=".to_owned()],
        ..Sources::default()
    };
    let refused = Config::load(&nowhere).unwrap_err();
    assert!(
        format!("{refused:?}").contains("dead_letter"),
        "{refused:?}"
    );
    // and nothing need be there before the first: what is out of attempts is in it.
    let stand = Stand::redis();
    let config = json!({"attempts_max": 1});
    let bus = stand.bus(|setup| setup.policy(Kind::DeadLetter, config));
    let mut subscription = bus.join("workers");
    bus.publish(draft(FIELD_REPORT, 1)).await;
    let delivery = next(&mut subscription).await;
    subscription.nack(delivery.id, Nack::default()).unwrap();
    bus.settled().await;
    let length: u64 = server(&stand).ask(&["XLEN", "oona.deadletter"]);
    assert_eq!(length, 1);
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!(
        (&*letter.class, &*letter.event_id),
        ("out-of-attempts", "event-1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_created_at_zero() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    publish_telemetry(&bus, 5).await;
    // Unless asked otherwise.
    let mut options = SubscribeOptions::new("latecomers");
    options.start = GroupStart::End;
    let mut latecomer = bus.bus.subscribe(options).unwrap();
    bus.pending(TELEMETRY_STREAM, "latecomers", 0).await;
    bus.publish(draft(TELEMETRY, 5)).await;
    assert_eq!(take(&mut latecomer, 1).await[0].message.id, "event-5");
    let taken = take(&mut bus.join("workers"), 6).await;
    for (number, delivery) in taken.iter().enumerate() {
        assert_eq!(delivery.message.id, format!("event-{number}"));
    }
    bus.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_is_what_a_group_has_yet_to_finish() {
    let stand = Stand::redis();
    let bus = stand.bus(|setup| setup.config.stream_length_max = 40);
    let depth = |bus: &TestBus| {
        let streams = bus.bus.status().streams;
        let found = streams
            .into_iter()
            .find(|stream| stream.name == TELEMETRY_STREAM);
        found.map(|stream| (stream.length, stream.depth))
    };
    let mut options = SubscribeOptions::new("workers");
    options.in_flight_max = 3;
    let mut subscription = bus.bus.subscribe(options).unwrap();
    // As many as the stream may hold unfinished, and more: they are finished one after the other.
    for _ in 0..2 {
        publish_telemetry_unnamed(&bus, 20).await;
        take(&mut subscription, 20).await;
        bus.settled().await;
    }
    publish_telemetry_unnamed(&bus, 5).await;
    let length: u64 = server(&stand).ask(&["XLEN", TELEMETRY_STREAM]);
    assert_eq!(length, 45, "finished ones are still there");
    // 3 of them are read, 2 are not.
    for _ in 0..3 {
        next(&mut subscription).await;
    }
    eventually(async || (depth(&bus) == Some((45, 5))).then_some(())).await;
    // The slowest group counts.
    take(&mut bus.join("fast"), 45).await;
    let sampled = || (groups(&bus), depth(&bus)) == (2, Some((45, 5)));
    eventually(async || sampled().then_some(())).await;
}

/// How many groups have finished or begun on the stream of telemetry.
fn groups(bus: &TestBus) -> usize {
    let streams = bus.bus.status().streams;
    let found = streams
        .into_iter()
        .find(|stream| stream.name == TELEMETRY_STREAM);
    found.map_or(0, |stream| stream.groups.len())
}

async fn publish_telemetry_unnamed(bus: &TestBus, count: usize) {
    for number in 0..count {
        let unnamed = oona::bus::Draft {
            id: None,
            ..draft(TELEMETRY, number)
        };
        bus.publish(unnamed).await;
    }
}
