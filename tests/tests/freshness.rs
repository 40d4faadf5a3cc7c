//! Freshness and replay, exact and across a cluster: windows and skews to the millisecond, and nonces
//! that are held as long as they must be, whoever asks and however many there are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use oona::bus::{DeadLetterView, Nack, Subscription};
use oona::store::StreamName;
use oona_core::Message;
use oona_core::envelope::message_type::{
    KERNEL_CATALOG_UPDATE, KERNEL_PREFETCH_ERROR, KERNEL_PREFETCH_READY, KERNEL_PREFETCH_REQUEST,
    TELEMETRY,
};
use oona_core::policy::Kind;
use oona_core::signing::{Keyring, Secret};
use oona_tests::bus::{SECRET, Stand, TestBus, draft, eventually, next, take};
use oona_tests::clock::Hands;
use serde_json::json;

const REQUESTS: &str = "oona.kernels.requests";
const WINDOW_MS: i64 = 120_000;
const SKEW_MS: i64 = 5_000;

/// Both stores, at the same time.
fn stands(hands: &Hands) -> [Stand; 2] {
    [
        Stand::at(hands.clock()),
        Stand::redis().with_clock(hands.clock()),
    ]
}

/// Appends a message as a peer would.
async fn append(stand: &Stand, stream: &str, message: &Message) {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    append_signed(stand, stream, &payload).await;
}

async fn append_signed(stand: &Stand, stream: &str, payload: &[u8]) {
    let keyring = Keyring::new(&Secret::new(SECRET.to_owned()).unwrap(), &[]);
    let signature = String::from_utf8(keyring.sign(payload).to_vec()).unwrap();
    stand.append_raw(stream, payload, Some(&signature)).await;
}

/// The bytes of the first entry of a stream.
async fn first_payload(stand: &Stand, stream: &str) -> Bytes {
    let entries = stand.store.range(&StreamName::from(stream), None, 1).await;
    entries.unwrap()[0].payload().unwrap().clone()
}

/// What a message of this type says of its time, from now on, and what is said of it.
type Case = (
    &'static str,
    u32,
    Option<i64>,
    Option<i64>,
    Result<(), (&'static str, &'static str)>,
);

fn boundaries() -> Vec<Case> {
    let (stale, expired) = (("expired", "window"), ("expired", "expired"));
    let future = ("from-future", "from-future");
    let (request, day) = (KERNEL_PREFETCH_REQUEST, 86_400_000);
    #[rustfmt::skip]
    let table = vec![
        ("now",                 request,               Some(0),               None,     Ok(())),
        ("as old as may be",    request,               Some(-WINDOW_MS),      None,     Ok(())),
        ("too old by 1 ms",     request,               Some(-WINDOW_MS - 1),  None,     Err(stale)),
        ("as early as may be",  request,               Some(SKEW_MS),         None,     Ok(())),
        ("too early by 1 ms",   request,               Some(SKEW_MS + 1),     None,     Err(future)),
        ("at its last ms",      request,               Some(-10),             Some(0),  Ok(())),
        ("one ms after that",   request,               Some(-10),             Some(-1), Err(expired)),
        ("without a time",      request,               None,                  None,     Ok(())),
        ("an answer, as old",   KERNEL_PREFETCH_READY, Some(-WINDOW_MS),      None,     Ok(())),
        ("an answer, too old",  KERNEL_PREFETCH_READY, Some(-WINDOW_MS - 1),  None,     Err(stale)),
        ("an error, too old",   KERNEL_PREFETCH_ERROR, Some(-WINDOW_MS - 1),  None,     Err(stale)),
        ("an update, too old",  KERNEL_CATALOG_UPDATE, Some(-WINDOW_MS - 1),  None,     Err(stale)),
        ("of no window, old",   TELEMETRY,             Some(-day),            None,     Ok(())),
        ("of no window, early", TELEMETRY,             Some(SKEW_MS + 1),     None,     Err(future)),
    ];
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_and_skews_are_kept_to_the_millisecond() {
    let hands = Hands::now();
    let from_now = |ms: i64| match u64::try_from(ms) {
        Ok(ms) => hands.time() + Duration::from_millis(ms),
        Err(_) => hands.time() - Duration::from_millis(ms.unsigned_abs()),
    };
    for stand in stands(&hands) {
        let bus = stand.bus(|_| {});
        let mut subscription = bus.join("workers");
        let mut filed = 0;
        for (name, message_type, created, expires, expected) in boundaries() {
            let message = Message {
                id: name.to_owned(),
                message_type,
                created_at: created.map(from_now),
                expires_at: expires.map(from_now),
                ..Message::default()
            };
            append(&stand, "oona.normal", &message).await;
            match expected {
                Ok(()) => {
                    let delivered = take(&mut subscription, 1).await.remove(0);
                    assert_eq!(delivered.message.id, name);
                }
                Err((class, detail)) => {
                    filed += 1;
                    let letter = bus.dead_letters(filed).await.pop().unwrap();
                    let told = (&*letter.event_id, &*letter.class, &*letter.detail);
                    assert_eq!(told, (name, class, detail));
                }
            }
        }
        bus.settled().await;
        assert_eq!(bus.dead_letters(0).await.len(), filed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_issue_time_is_refused_where_that_is_configured() {
    let stand = Stand::redis();
    let types = json!({"kernel_prefetch_request": {"missing_time": "refuse"}});
    let bus = stand.bus(|setup| setup.policy(Kind::Freshness, json!({ "types": types })));
    let mut subscription = bus.join("workers");
    for message_type in [KERNEL_PREFETCH_REQUEST, KERNEL_PREFETCH_READY] {
        let message = Message {
            id: message_type.to_string(),
            message_type,
            ..Message::default()
        };
        append(&stand, REQUESTS, &message).await;
    }
    let delivered = take(&mut subscription, 1).await.remove(0);
    assert_eq!(delivered.message.message_type, KERNEL_PREFETCH_READY);
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!((&*letter.class, &*letter.detail), ("expired", "no-time"));
}

/// How a nonce expires: with the message that bore it, by every clock. Until then a copy is a replay,
/// and from then on it is too old, so that there is no millisecond in which it passes.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_millisecond_in_which_a_copy_passes() {
    let hands = Hands::now();
    for stand in stands(&hands) {
        let bus = stand.bus(|_| {});
        let mut subscription = bus.join("workers");
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
        take(&mut subscription, 1).await;
        let payload = first_payload(&stand, REQUESTS).await;
        let mut classes = Vec::new();
        let moments = [0, 1, 60_000, 59_999, 1, 4_999, 1, 1];
        for (number, later) in moments.into_iter().enumerate() {
            hands.forward(Duration::from_millis(later));
            append_signed(&stand, REQUESTS, &payload).await;
            let letters = bus.dead_letters(number + 1).await;
            classes.push(letters[number].class.clone());
        }
        let replays = ["replay"; 4];
        assert_eq!(
            classes[..4],
            replays,
            "to the last millisecond of the window"
        );
        assert_eq!(classes[4..], ["expired"; 4]);
        assert!(subscription.ready(10).is_empty());
    }
}

/// Checks that of a message and its copies one is delivered and the others are filed as replays.
async fn one_passes(
    subscription: &mut Subscription,
    bus: &TestBus,
    copies: usize,
) -> Vec<DeadLetterView> {
    let first = take(subscription, 1).await.remove(0);
    let letters = bus.dead_letters(copies).await;
    assert_eq!(letters.len(), copies);
    for letter in &letters {
        assert_eq!(
            (&*letter.class, &letter.event_id),
            ("replay", &first.message.id)
        );
    }
    bus.settled().await;
    assert!(subscription.ready(10).is_empty());
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn of_copies_in_one_batch_one_passes() {
    for stand in [Stand::memory(), Stand::redis()] {
        let bus = stand.bus(|_| {});
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
        let payload = first_payload(&stand, REQUESTS).await;
        for _ in 0..20 {
            append_signed(&stand, REQUESTS, &payload).await;
        }
        one_passes(&mut bus.join("workers"), &bus, 20).await;
        // Each group has its own.
        take(&mut bus.join("others"), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_another_stream_is_a_replay() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    let payload = first_payload(&stand, REQUESTS).await;
    let streams = ["oona.emergency", "oona.normal", "oona.kernels.ready"];
    for stream in streams {
        append_signed(&stand, stream, &payload).await;
    }
    one_passes(&mut bus.join("workers"), &bus, streams.len()).await;
}

/// Readers of several hosts meet copies of the same messages at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn of_copies_that_replicas_read_at_once_one_passes() {
    const COUNT: usize = 50;
    let stand = Stand::redis();
    let hosts = [stand.bus(|_| {}), stand.bus(|_| {}), stand.bus(|_| {})];
    for number in 0..COUNT {
        let message = Message {
            id: format!("event-{number}"),
            message_type: KERNEL_PREFETCH_REQUEST,
            created_at: Some(oona::clock::system()()),
            ..Message::default()
        };
        for _ in 0..3 {
            append(&stand, REQUESTS, &message).await;
        }
    }
    let members = hosts.each_ref().map(|host| host.join("workers"));
    let mut taken = Vec::new();
    let mut members = members.into_iter().collect::<Vec<_>>();
    eventually(async || {
        for member in &mut members {
            for delivery in member.ready(COUNT) {
                taken.push(delivery.message.id.clone());
                member.ack(delivery.id).unwrap();
            }
        }
        (taken.len() >= COUNT).then_some(())
    })
    .await;
    let letters = hosts[0].dead_letters(2 * COUNT).await;
    hosts[0].settled().await;
    assert!(letters.iter().all(|letter| letter.class == "replay"));
    assert_eq!((taken.len(), letters.len()), (COUNT, 2 * COUNT));
    let ids: BTreeSet<_> = taken.into_iter().collect();
    assert_eq!(ids.len(), COUNT, "each once");
    assert!(members.iter_mut().all(|member| member.ready(10).is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_after_a_restart_is_a_replay() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|_| {});
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    take(&mut bus.join("workers"), 1).await;
    bus.settled().await;
    assert!(bus.shutdown().await);
    stand.restart().await;
    let payload = first_payload(&stand, REQUESTS).await;
    append_signed(&stand, REQUESTS, &payload).await;
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("workers");
    let letters = bus.dead_letters(1).await;
    assert_eq!(letters[0].class, "replay");
    assert!(subscription.ready(10).is_empty());
}

/// A message that has been redelivered, retried and redriven is each time itself, and a copy of any of
/// these is not.
#[tokio::test(flavor = "multi_thread")]
async fn redelivery_retry_and_redrive_are_no_replays_and_their_copies_are() {
    let stand = Stand::redis();
    let bus = stand.bus(|setup| {
        setup.config.consume.ack_deadline = Duration::from_secs(10);
        setup.policy(
            Kind::DeadLetter,
            json!({"attempts_max": 2, "delay_base_ms": 1}),
        );
    });
    let mut subscription = bus.join("workers");
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 1)).await;
    next(&mut subscription).await;
    // Lost with its subscriber, which is one failed attempt; then refused, which is the other.
    drop(subscription);
    let mut subscription = bus.join("workers");
    let retried = next(&mut subscription).await;
    assert_eq!((retried.message.attempt, retried.redelivered), (1, true));
    subscription.nack(retried.id, Nack::default()).unwrap();
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!(letter.class, "out-of-attempts");
    bus.bus
        .redrive(letter.id.parse().unwrap(), None)
        .await
        .unwrap();
    let redriven = take(&mut subscription, 1).await.remove(0);
    assert_eq!(
        (redriven.message.attempt, redriven.message.redrives),
        (0, 1)
    );
    bus.settled().await;
    // The original, its retry, what came back from the dead letters, and what was read ahead and released.
    let written = stand.store.range(&REQUESTS.into(), None, 10).await.unwrap();
    assert!(written.len() >= 3);
    for (number, entry) in written.iter().enumerate() {
        append_signed(&stand, REQUESTS, entry.payload().unwrap()).await;
        let letters = bus.dead_letters(number + 1).await;
        assert!(letters.iter().all(|letter| letter.class == "replay"));
    }
    assert!(subscription.ready(10).is_empty());
}

/// Far more distinct nonces than may be held, each message with a copy. The window refuses, loudly; what
/// it refuses waits and is delivered once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn under_a_load_of_nonces_far_above_the_bound_none_passes_twice() {
    const HELD: usize = 20;
    const COUNT: usize = 200;
    let hands = Hands::now();
    for stand in stands(&hands) {
        let bus =
            stand.bus(|setup| {
                setup.config.consume.nonces_max = HELD;
                setup.config.consume.claim_idle = Duration::from_millis(500);
                setup.config.consume.ack_deadline = Duration::from_millis(250);
                setup.policy(Kind::Freshness, json!({
                "types": {"kernel_prefetch_request": {"window_ms": 1_000}}, "clock_skew_ms": 0,
            }));
            });
        for number in 0..COUNT {
            // Without a time it does not age, so that all of them can be delivered in the end.
            let message = Message {
                id: format!("event-{number}"),
                message_type: KERNEL_PREFETCH_REQUEST,
                ..Message::default()
            };
            append(&stand, REQUESTS, &message).await;
        }
        let metrics = bus.bus.metrics();
        let mut subscription = bus.join("workers");
        let mut ids = BTreeSet::new();
        let mut refused = 0;
        while ids.len() < COUNT {
            // As many as there is room for, and no more until time has passed.
            let room = HELD.min(COUNT - ids.len());
            for delivery in take(&mut subscription, room).await {
                assert!(ids.insert(delivery.message.id.clone()), "twice");
            }
            assert!(metrics.nonces.get() <= i64::try_from(HELD).unwrap());
            if ids.len() < COUNT {
                eventually(async || (metrics.nonces_refused.get() > refused).then_some(())).await;
                assert!(subscription.ready(HELD).is_empty(), "the window is full");
                refused = metrics.nonces_refused.get();
                hands.forward(Duration::from_millis(1_001));
            }
        }
        bus.settled().await;
        assert!(bus.dead_letters(0).await.is_empty(), "nothing is lost");
    }
}
