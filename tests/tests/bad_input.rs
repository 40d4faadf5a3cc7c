//! What comes in wrong, and what becomes of it: a clear word, and nothing lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "bad_input/outages.rs"]
mod outages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oona::bus::{DeadLetterView, Draft, Nack, Subscription};
use oona::store::StreamName;
use oona_core::entry::EntryId;
use oona_core::envelope::message_type::{KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_core::leyline::BusEnvelope;
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::policy::Kind;
use oona_core::signing::{Keyring, Secret};
use oona_tests::bus::{SECRET, Setup, Stand, TestBus, draft, eventually, next, take};
use prost::Message as _;
use serde_json::json;

/// More than a payload may have that is published here, in bytes.
const LARGE: usize = 1 << 20;

fn sign(secret: &str, payload: &[u8]) -> String {
    let keyring = Keyring::new(&Secret::new(secret.to_owned()).unwrap(), &[]);
    String::from_utf8(keyring.sign(payload).to_vec()).unwrap()
}

fn envelope(attributes: &[(&str, &str)]) -> Vec<u8> {
    let attributes = attributes.iter();
    BusEnvelope {
        message_type: 4,
        payload: b"content".to_vec().into(),
        attributes: attributes
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
    .encode_to_vec()
}

/// An entry that no bus would have written, and what is said of it.
struct Bad {
    name: &'static str,
    payload: Vec<u8>,
    signature: Option<String>,
    class: &'static str,
    detail: &'static str,
}

fn bad_entries() -> Vec<Bad> {
    let good = envelope(&[("oona.id", "good")]);
    let garbage = vec![0xff; 40];
    let odd = envelope(&[("oona.priority", "silly")]);
    let large = vec![0xff; LARGE];
    let ours = |payload: &[u8]| Some(sign(SECRET, payload));
    let theirs = Some(sign("other", &good));
    let no_base64 = Some("x".to_owned());
    let (not_its, of_garbage) = (ours(&garbage), ours(&garbage));
    let (of_odd, of_large) = (ours(&odd), ours(&large));
    #[rustfmt::skip]
    let table = [
        ("unsigned",           good.clone(),  None,       "unverifiable", "not signed"),
        ("another key",        good.clone(),  theirs,     "unverifiable", "no key"),
        ("no signature",       good.clone(),  no_base64,  "unverifiable", "base64"),
        ("not this one's",     good,          not_its,    "unverifiable", "no key"),
        ("large and unsigned", large.clone(), None,       "unverifiable", "not signed"),
        ("garbage",            garbage,       of_garbage, "undecodable",  "no envelope"),
        ("large garbage",      large,         of_large,   "undecodable",  "no envelope"),
        ("odd priority",       odd,           of_odd,     "undecodable",  "oona.priority"),
    ];
    let bad = |(name, payload, signature, class, detail)| Bad {
        name,
        payload,
        signature,
        class,
        detail,
    };
    table.into_iter().map(bad).collect()
}

async fn entries_that_cannot_be_believed_or_read_are_filed(stand: Stand) {
    let stream: StreamName = "oona.telemetry".into();
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    let mut expected = BTreeMap::new();
    for bad in bad_entries() {
        let signature = bad.signature.as_deref();
        let entry = stand.append_raw(&stream, &bad.payload, signature).await;
        expected.insert(entry.to_string(), bad);
    }
    let good = envelope(&[("oona.id", "good")]);
    let signature = sign(SECRET, &good);
    stand.append_raw(&stream, &good, Some(&signature)).await;

    let delivered = take(&mut subscription, 1).await.remove(0);
    assert_eq!(
        delivered.message.id, "good",
        "its neighbours do not harm it"
    );
    let letters = bus.dead_letters(expected.len()).await;
    bus.settled().await;
    assert_eq!(letters.len(), expected.len());
    for letter in &letters {
        let bad = expected.remove(&letter.entry).expect("each is filed once");
        let name = bad.name;
        assert_eq!(letter.class, bad.class, "{name}");
        assert!(
            letter.detail.contains(bad.detail),
            "{name}: {}",
            letter.detail
        );
        assert_eq!(
            (&*letter.stream, &*letter.group),
            ("oona.telemetry", "g"),
            "{name}"
        );
        // What goes back is what it was, to the byte.
        let redriven = bus
            .bus
            .redrive(letter.id.parse().unwrap(), None)
            .await
            .unwrap();
        let id: EntryId = redriven.id.parse().unwrap();
        let back = stand.store.range(&stream, id.previous(), 1).await.unwrap();
        assert_eq!(back[0].id, id, "{name}");
        let same = back[0].payload().is_some_and(|back| *back == bad.payload);
        assert!(same, "{name}: the payload has changed");
        let signature = bad.signature.as_deref().map(str::as_bytes);
        assert_eq!(back[0].signature().map(AsRef::as_ref), signature, "{name}");
    }
    // And it fails as it did.
    let again = bus.dead_letters(letters.len()).await;
    let classes = |letters: &[DeadLetterView]| -> Vec<_> {
        let mut classes: Vec<_> = letters.iter().map(|letter| letter.class.clone()).collect();
        classes.sort_unstable();
        classes
    };
    assert_eq!(classes(&again), classes(&letters));
    let text = bus.bus.metrics().render();
    let counted = text
        .lines()
        .any(|line| line.contains("dead") && line.contains("oona.telemetry"));
    assert!(counted, "dead letters are counted:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_cannot_be_believed_or_read_are_filed_in_memory() {
    entries_that_cannot_be_believed_or_read_are_filed(Stand::memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_cannot_be_believed_or_read_are_filed_in_redis() {
    entries_that_cannot_be_believed_or_read_are_filed(Stand::redis()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_without_an_envelope_is_filed_with_its_fields() {
    let stand = Stand::redis();
    let server = stand.server.as_ref().unwrap();
    let mut client = redis::Client::open(server.url()).unwrap();
    let bus = stand.bus(|_| {});
    let mut add = redis::cmd("XADD");
    add.arg("oona.normal")
        .arg("*")
        .arg("who")
        .arg("somebody else");
    let entry: String = add.query(&mut client).unwrap();
    let _subscription = bus.join("g");
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!((&*letter.class, &letter.entry), ("undecodable", &entry));
    assert!(letter.detail.contains("payload"), "{}", letter.detail);
    bus.bus
        .redrive(letter.id.parse().unwrap(), None)
        .await
        .unwrap();
    let mut range = redis::cmd("XREVRANGE");
    range
        .arg("oona.normal")
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1);
    let last: Vec<(String, Vec<(String, String)>)> = range.query(&mut client).unwrap();
    let fields = vec![("who".to_owned(), "somebody else".to_owned())];
    assert_eq!(last[0].1, fields, "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_or_too_large_is_refused_and_not_written() {
    let stand = Stand::memory();
    let bus = stand.bus(|_| {});
    let usual = || draft(TELEMETRY, 1);
    let attribute = |key: &str, value: &str| {
        let mut draft = usual();
        draft.attributes.insert(key.to_owned(), value.to_owned());
        draft
    };
    let large = Draft::new(TELEMETRY, vec![0; 256 * 1024 + 1]);
    let long_id = Draft {
        id: Some("x".repeat(129)),
        ..usual()
    };
    let table = [
        (large, RejectCause::TooLarge, "262144"),
        (
            attribute("text", &"x".repeat(9_000)),
            RejectCause::TooLarge,
            "8192",
        ),
        (long_id, RejectCause::TooLarge, "128"),
        (
            attribute("oona.priority", "high"),
            RejectCause::Invalid,
            "oona.",
        ),
    ];
    for (draft, expected, named) in table {
        match bus.bus.publish(draft).await {
            Outcome::Rejected { cause, detail, .. } => {
                assert_eq!(cause, expected, "{detail}");
                assert!(detail.contains(named), "{detail}");
            }
            accepted => panic!("{accepted:?}"),
        }
    }
    for stream in ["oona.telemetry", "oona.normal"] {
        let entries = stand.store.range(&stream.into(), None, 10).await.unwrap();
        assert!(entries.is_empty(), "{stream}");
    }
}

/// Limits are for those who publish here. A peer may have others, and what it wrote is read.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_signed_is_delivered_though_it_is_large() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    let payload = vec![7; LARGE];
    assert!(payload.len() > bus.bus.config().limits.payload_bytes_max);
    let envelope = BusEnvelope {
        message_type: 4,
        payload: payload.clone().into(),
        attributes: BTreeMap::new(),
    };
    let envelope = envelope.encode_to_vec();
    let signature = sign(SECRET, &envelope);
    stand
        .append_raw("oona.telemetry", &envelope, Some(&signature))
        .await;
    let mut subscription = bus.join("g");
    let delivery = next(&mut subscription).await;
    assert!(delivery.message.payload == payload, "to the byte");
    let poison = Nack {
        poison: true,
        ..Nack::default()
    };
    subscription.nack(delivery.id, poison).unwrap();
    let letter = bus.dead_letters(1).await.remove(0);
    assert_eq!(letter.payload_size, LARGE, "none is too large to be filed");
    bus.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_of_one_name_have_consumers_of_their_own() {
    let stand = Stand::redis();
    let hosts = [stand.bus(|_| {}), stand.bus(|_| {})];
    let mut members = [hosts[0].join("g"), hosts[1].join("g")];
    for number in 0..100 {
        hosts[number % 2]
            .publish(draft(KERNEL_PREFETCH_REQUEST, number))
            .await;
    }
    let mut ids = BTreeSet::new();
    while ids.len() < 100 {
        let [one, other] = &mut members;
        let delivery = tokio::select! {
            delivery = next(one) => { one.ack(delivery.id).unwrap(); delivery }
            delivery = next(other) => { other.ack(delivery.id).unwrap(); delivery }
        };
        assert!(!delivery.redelivered);
        assert!(ids.insert(delivery.message.id.clone()), "twice");
    }
    let mut client = redis::Client::open(stand.server.as_ref().unwrap().url()).unwrap();
    let mut info = redis::cmd("XINFO");
    info.arg("CONSUMERS").arg("oona.kernels.requests").arg("g");
    let consumers: Vec<BTreeMap<String, redis::Value>> = info.query(&mut client).unwrap();
    assert_eq!(consumers.len(), 2, "{consumers:?}");
}

/// A nonce window with room for `max`, held for an hour.
fn nonces(max: usize) -> impl FnOnce(&mut Setup) {
    move |setup| {
        setup.config.consume.nonces_max = max;
        setup.config.consume.claim_idle = Duration::from_millis(50);
        let types = json!({"kernel_prefetch_request": {"window_ms": 3_600_000}});
        setup.policy(Kind::Freshness, json!({ "types": types }));
    }
}

/// Publishes 30 messages to a window with room for 10, and sees 10 of them delivered.
async fn fill(bus: &TestBus, subscription: &mut Subscription) -> BTreeSet<String> {
    for number in 0..30 {
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
    }
    let taken = take(subscription, 10).await;
    // The others are looked at again and again, and wait.
    let claimed = bus.bus.metrics().claimed("oona.kernels.requests");
    let looks = claimed.get() + 40;
    eventually(async || (claimed.get() >= looks).then_some(())).await;
    assert!(subscription.ready(100).is_empty());
    assert!(bus.dead_letters(0).await.is_empty());
    assert_eq!(bus.bus.metrics().nonces.get(), 10, "none is forgotten");
    taken.iter().map(|taken| taken.message.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_window_that_is_full_refuses_and_forgets_nothing() {
    let stand = Stand::memory();
    let bus = stand.bus(nonces(10));
    let mut subscription = bus.join("g");
    let mut ids = fill(&bus, &mut subscription).await;
    drop(subscription);
    assert!(bus.shutdown().await);
    // An operator has raised the limit.
    let bus = stand.bus(nonces(1_000));
    let mut subscription = bus.join("g");
    for taken in take(&mut subscription, 20).await {
        ids.insert(taken.message.id.clone());
    }
    assert_eq!(ids.len(), 30, "each once");
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_window_that_is_full_has_room_again_when_time_has_passed() {
    let ahead_ms = Arc::new(AtomicU64::new(0));
    let (system, ahead) = (oona::clock::system(), Arc::clone(&ahead_ms));
    let clock = move || system() + Duration::from_millis(ahead.load(Ordering::Relaxed));
    let stand = Stand::at(Arc::new(clock));
    let bus = stand.bus(nonces(10));
    let mut subscription = bus.join("g");
    let handled = fill(&bus, &mut subscription).await;
    ahead_ms.store(7_200_000, Ordering::Relaxed);
    // What waited is too old by now: filed, and nothing is lost.
    let letters = bus.dead_letters(20).await;
    assert!(letters.iter().all(|letter| letter.class == "expired"));
    let filed: BTreeSet<_> = letters.into_iter().map(|letter| letter.event_id).collect();
    assert_eq!(filed.union(&handled).count(), 30, "each in one place");
    bus.publish(draft(KERNEL_PREFETCH_REQUEST, 30)).await;
    let taken = take(&mut subscription, 1).await;
    assert_eq!(taken[0].message.id, "event-30");
    bus.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_is_told_what_it_asked_wrongly() {
    let bus = Stand::memory().bus(|_| {});
    let subscribe = |group: &str, stream: &str| {
        let options = oona::bus::SubscribeOptions {
            streams: vec![stream.into()],
            ..oona::bus::SubscribeOptions::new(group)
        };
        bus.bus.subscribe(options).unwrap_err().to_string()
    };
    assert!(subscribe("", "oona.normal").contains("1 to 128 bytes"));
    assert!(subscribe(&"g".repeat(129), "oona.normal").contains("129"));
    let told = subscribe("g", "oona.nromal");
    assert!(
        told.contains("oona.nromal") && told.contains("oona.normal"),
        "{told}"
    );
    let told = subscribe("g", "oona.deadletter");
    assert!(told.contains("no stream `oona.deadletter`"), "{told}");
    let subscription = bus.join("g");
    let nobody = oona::bus::DeliveryId(7);
    let told = subscription.nack(nobody, Nack::default()).unwrap_err();
    assert!(
        told.to_string().contains("delivery 7 is not in flight"),
        "{told}"
    );
}
