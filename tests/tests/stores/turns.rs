//! How the messages of one key are kept in their order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oona::store::{Append, ClaimRequest, Mended, ReadRequest, Settlement, Step, Store, StoreError};
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId, Record};
use oona_core::envelope::Message;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{AT_ONCE, Bench, LONG, eventually, now, record};

/// Messages by their names: `a2` has the key `a`; `-2` has none.
pub(super) fn keyed(name: &str) -> Record {
    encoded(&Message {
        id: name.to_owned(),
        key: name[..1].replace('-', ""),
        payload: name.to_owned().into(),
        ..Message::default()
    })
}

fn encoded(message: &Message) -> Record {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    Record {
        payload: payload.into(),
        signature: None,
    }
}

pub(super) fn name(entry: &Entry) -> String {
    let payload = entry.payload().expect("it has one");
    let message = Message::decode(payload, entry.id).expect("it is one");
    String::from_utf8_lossy(&message.payload).into_owned()
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(name).collect()
}

impl Bench {
    pub(super) async fn append_keyed(&self, names: &[&str]) -> Vec<EntryId> {
        let append = |name: &&str| Append::new("s".into(), keyed(name));
        let batch: Vec<_> = names.iter().map(append).collect();
        let written = self.store.append(&batch).await.expect("it is written");
        let ids = written.into_iter().map(|one| one.expect("each is").id);
        ids.collect()
    }

    /// What is handed out to a member of `group` right now.
    pub(super) async fn handed(&self, group: &str, count: usize) -> Vec<Entry> {
        let handed = read(&*self.store, group, "m", count, Duration::from_millis(1)).await;
        handed.expect("it is read")
    }

    pub(super) async fn left(&self, idle_min: Duration) -> Vec<(String, u32)> {
        let request = ClaimRequest {
            stream: &"s".into(),
            group: "g",
            consumer: "claimer",
            idle_min,
            count: 9,
        };
        let claimed = self.store.claim_in_turn(request).await;
        let claimed = claimed.expect("it is claimed").into_iter();
        let claimed = claimed.map(|claimed| (name(&claimed.entry), claimed.deliveries));
        claimed.collect()
    }

    async fn end(&self, id: EntryId, step: Step) -> bool {
        end(&*self.store, "g", id, step).await
    }

    pub(super) async fn mended(&self) -> Mended {
        let mended = self.store.mend_turns(&"s".into(), "g").await;
        mended.expect("it is done")
    }
}

async fn read(
    store: &dyn Store,
    group: &str,
    consumer: &str,
    count: usize,
    block: Duration,
) -> Result<Vec<Entry>, StoreError> {
    let request = ReadRequest {
        group,
        consumer,
        streams: &["s".into()],
        count,
        block,
    };
    let found = store.read_in_turn(request).await?;
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

pub(super) async fn end(store: &dyn Store, group: &str, id: EntryId, step: Step) -> bool {
    let settlement = Settlement {
        stream: "s".into(),
        id,
        step,
        receipt: None,
    };
    let settled = store.settle_in_turn(group, &[settlement]).await;
    settled.expect("it is settled")[0]
}

fn again(name: &str, at: Option<Timestamp>) -> Step {
    Step::Retry {
        record: keyed(name),
        at,
    }
}

pub(super) async fn a_key_is_handed_out_one_at_a_time(bench: &Bench) {
    bench.group("s", "g").await;
    bench
        .append_keyed(&["a1", "b1", "a2", "-1", "a3", "b2", "-2"])
        .await;
    let first = bench.handed("g", 9).await;
    assert_eq!(names(&first), ["a1", "b1", "-1", "-2"]);
    assert!(bench.handed("g", 9).await.is_empty(), "the others wait");
    let depth = bench.depth("s").await;
    assert_eq!(
        (depth.unfinished, depth.length),
        (7, 7),
        "what waits is unfinished, and nothing is written anew"
    );
    assert_eq!(bench.mended().await.in_line, 3);
    assert!(bench.end(first[0].id, Step::Ack).await);
    assert!(!bench.end(first[0].id, Step::Ack).await, "once");
    let next = bench.handed("g", 9).await;
    assert_eq!(names(&next), ["a2"]);
    bench.append_keyed(&["a4", "c1"]).await;
    assert_eq!(names(&bench.handed("g", 9).await), ["c1"]);
    for expected in ["a3", "a4"] {
        let before = bench.handed("g", 9).await;
        assert!(before.is_empty(), "{before:?}");
        let held = if expected == "a3" {
            next[0].id
        } else {
            first_of(bench, "a3").await
        };
        assert!(bench.end(held, Step::Ack).await);
        assert_eq!(names(&bench.handed("g", 9).await), [expected]);
    }
    assert!(bench.end(first[1].id, Step::Ack).await);
    assert_eq!(names(&bench.handed("g", 9).await), ["b2"]);
}

/// The entry of this name.
async fn first_of(bench: &Bench, wanted: &str) -> EntryId {
    let entries = bench.store.range(&"s".into(), None, 100).await.unwrap();
    let found = entries.iter().find(|entry| name(entry) == wanted);
    found.expect("it is there").id
}

pub(super) async fn a_retry_keeps_the_turn_of_its_key(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append_keyed(&["a1", "a2", "b1"]).await;
    let first = bench.handed("g", 9).await;
    assert_eq!(names(&first), ["a1", "b1"]);
    // At once: it is written behind a2, and comes before it.
    assert!(bench.end(first[0].id, again("a1", None)).await);
    let second = bench.handed("g", 9).await;
    assert_eq!(names(&second), ["a1"]);
    // Later: nobody overtakes it while it waits.
    let due = now() + LONG;
    assert!(bench.end(second[0].id, again("a1", Some(due))).await);
    bench.append_keyed(&["a3", "c1"]).await;
    assert_eq!(names(&bench.handed("g", 9).await), ["c1"]);
    assert_eq!(bench.mended().await.passed, 0, "it is not lost");
    assert_eq!(bench.store.promote(&"s".into(), due, 9).await.unwrap(), 1);
    assert_eq!(bench.mended().await.passed, 0, "it is not lost");
    let third = bench.handed("g", 9).await;
    assert_eq!(names(&third), ["a1"]);
    assert!(bench.end(third[0].id, Step::Ack).await);
    assert_eq!(names(&bench.handed("g", 9).await), ["a2"]);
}

pub(super) async fn a_dead_letter_passes_the_turn_on(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append_keyed(&["a1", "a2"]).await;
    let first = bench.handed("g", 9).await;
    let letter = Step::DeadLetter {
        stream: "dead".into(),
        record: record("filed"),
        original: Some("as it was".into()),
    };
    assert!(bench.end(first[0].id, letter.clone()).await);
    assert!(!bench.end(first[0].id, letter).await);
    assert_eq!(bench.payloads("dead").await, ["filed"]);
    assert_eq!(names(&bench.handed("g", 9).await), ["a2"]);
}

pub(super) async fn each_group_has_turns_of_its_own(bench: &Bench) {
    // Names that could be taken for one another if they were only strung together.
    for group in ["g", "g1", "g/1"] {
        bench.group("s", group).await;
    }
    bench.append_keyed(&["1-", "a1", "a2"]).await;
    for group in ["g", "g1", "g/1"] {
        assert_eq!(
            names(&bench.handed(group, 9).await),
            ["1-", "a1"],
            "{group}"
        );
    }
    let a1 = first_of(bench, "a1").await;
    let due = now();
    assert!(end(&*bench.store, "g/1", a1, again("a1", Some(due))).await);
    bench.store.promote(&"s".into(), due, 9).await.unwrap();
    assert_eq!(names(&bench.handed("g/1", 9).await), ["a1"]);
    assert!(bench.end(a1, Step::Ack).await);
    let of_g = names(&bench.handed("g", 9).await);
    assert_eq!(
        of_g,
        ["a2"],
        "the retry of another group stands in line as any"
    );

    // A retry that says for whom it is takes no turn of others.
    let meant = Message {
        id: "z".into(),
        key: "z".into(),
        payload: "z1".into(),
        retry_group: Some("g1".into()),
        ..Message::default()
    };
    let append = |message: &Message| Append::new("s".into(), encoded(message));
    let batch = [append(&meant), append(&meant)];
    bench.store.append(&batch).await.unwrap();
    assert_eq!(names(&bench.handed("g/1", 9).await), ["z1", "z1"]);
    let of_g1 = names(&bench.handed("g1", 9).await);
    assert_eq!(of_g1.iter().filter(|name| *name == "z1").count(), 1);
}

pub(super) async fn what_a_dead_member_had_is_claimed_and_what_waits_is_not(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append_keyed(&["a1", "-1", "a2"]).await;
    bench.handed("g", 9).await;
    assert!(bench.left(LONG).await.is_empty());
    let left = bench.left(AT_ONCE).await;
    assert_eq!(left, [("a1".to_owned(), 2), ("-1".to_owned(), 2)]);
    assert!(bench.end(first_of(bench, "a1").await, Step::Ack).await);
    let next = bench.handed("g", 9).await;
    assert_eq!(names(&next), ["a2"]);
    let left = bench.left(AT_ONCE).await;
    let expected = [("-1".to_owned(), 3), ("a2".to_owned(), 2)];
    assert_eq!(left, expected, "what waited was delivered once so far");
    // What hosts had read before they kept the order takes its turn when it is claimed.
    bench.append_keyed(&["a3", "b1", "b2"]).await;
    bench.read("s", "g", "old", 9).await;
    let left: Vec<_> = bench
        .left(AT_ONCE)
        .await
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(left, ["-1", "a2", "b1"]);
    assert!(bench.end(next[0].id, Step::Ack).await);
    assert_eq!(names(&bench.handed("g", 9).await), ["a3"]);
}

pub(super) async fn a_read_waits_for_a_turn_or_an_entry(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append_keyed(&["a1", "a2"]).await;
    let first = bench.handed("g", 9).await;
    for expected in ["a2", "c1"] {
        let store = bench.replica();
        let waiting = tokio::spawn(async move { read(&*store, "g", "waiter", 9, LONG).await });
        bench.until_a_read_waits().await;
        if expected == "a2" {
            assert!(bench.end(first[0].id, Step::Ack).await);
        } else {
            // What must stand in line does not end the wait.
            bench.append_keyed(&["a3"]).await;
            bench.append_keyed(&["c1"]).await;
        }
        let handed = tokio::time::timeout(oona_tests::binary::PATIENCE, waiting).await;
        assert_eq!(names(&handed.unwrap().unwrap().unwrap()), [expected]);
    }
    let began = Instant::now();
    let short = Duration::from_millis(30);
    assert!(
        read(&*bench.store, "g", "m", 9, short)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(began.elapsed() >= short);
    assert!(
        read(&*bench.store, "g", "m", 0, LONG)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(super) async fn turns_are_taken_once_by_many_at_once(bench: &Bench) {
    const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
    bench.group("s", "g").await;
    let all: Vec<_> = (0..40)
        .flat_map(|n| KEYS.map(|key| format!("{key}{n}")))
        .collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    bench.append_keyed(&all).await;
    let handled: Arc<Mutex<Vec<String>>> = Arc::default();
    let in_hand: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let mut members = JoinSet::new();
    for member in 0..4 {
        let (store, handled) = (bench.replica(), Arc::clone(&handled));
        let in_hand = Arc::clone(&in_hand);
        members.spawn(async move {
            let lock = || handled.lock().unwrap_or_else(PoisonError::into_inner);
            let hands = || in_hand.lock().unwrap_or_else(PoisonError::into_inner);
            let consumer = format!("m{member}");
            while lock().len() < 200 {
                let wait = Duration::from_millis(20);
                for entry in read(&*store, "g", &consumer, 3, wait).await.unwrap() {
                    let (name, key) = (name(&entry), name(&entry)[..1].to_owned());
                    let other = hands().insert(key.clone(), name.clone());
                    assert_eq!(other, None, "in hand together with {name}");
                    tokio::task::yield_now().await;
                    hands().remove(&key);
                    lock().push(name);
                    assert!(end(&*store, "g", entry.id, Step::Ack).await);
                }
            }
        });
    }
    members.join_all().await;
    let handled = handled.lock().unwrap_or_else(PoisonError::into_inner);
    for key in KEYS {
        let of_key: Vec<_> = handled
            .iter()
            .filter(|name| name.starts_with(key))
            .collect();
        let expected: Vec<_> = (0..40).map(|n| format!("{key}{n}")).collect();
        assert_eq!(of_key, expected.iter().collect::<Vec<_>>());
    }
}

pub(super) async fn turns_of_what_is_gone_are_passed_on(bench: &Bench) {
    bench.group("s", "g").await;
    bench
        .append_keyed(&["a1", "a2", "a3", "a4", "a5", "a6"])
        .await;
    let a1 = bench.handed("g", 9).await[0].id;
    // Settled by a host that does not keep the order.
    assert!(bench.settle("s", "g", a1, Step::Ack).await);
    assert!(bench.handed("g", 9).await.is_empty());
    let expected = Mended {
        passed: 1,
        in_line: 4,
    };
    assert_eq!(bench.mended().await, expected);
    assert_eq!(bench.mended().await.passed, 0, "once");
    let a2 = bench.handed("g", 9).await;
    assert_eq!(names(&a2), ["a2"]);
    // Deleted before it was read again.
    assert!(bench.end(a2[0].id, again("a2", None)).await);
    let entries = bench.store.range(&"s".into(), None, 9).await.unwrap();
    let last = entries.last().expect("the retry").id;
    assert_eq!(bench.mended().await.passed, 0, "somebody will read it");
    bench.store.remove(&"s".into(), &[last]).await.unwrap();
    assert_eq!(bench.mended().await.passed, 1);
    let a3 = bench.handed("g", 9).await;
    assert_eq!(names(&a3), ["a3"]);
    // Deleted while it stood in line: the next one comes.
    let a4 = first_of(bench, "a4").await;
    bench.store.remove(&"s".into(), &[a4]).await.unwrap();
    assert!(bench.end(a3[0].id, Step::Ack).await);
    let a5 = eventually(async || {
        let handed = bench.handed("g", 9).await;
        (!handed.is_empty()).then_some(handed)
    })
    .await;
    assert_eq!(names(&a5), ["a5"]);
    // Deleted while a member that died had it: whoever would claim it finds out.
    bench.store.remove(&"s".into(), &[a5[0].id]).await.unwrap();
    assert_eq!(bench.mended().await.passed, 0, "it is in hand");
    assert!(bench.left(AT_ONCE).await.is_empty());
    assert_eq!(names(&bench.handed("g", 9).await), ["a6"]);
    assert_eq!(bench.depth("s").await.groups[0].pending, 1);
}

pub(super) async fn what_was_finished_behind_one_that_waits_is_thinned(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append_keyed(&["a1", "a2"]).await;
    bench.append_keyed(&["-1"; 30]).await;
    let read = bench.handed("g", 30).await;
    assert_eq!(read.len(), 29);
    for entry in &read[1..] {
        assert!(bench.end(entry.id, Step::Ack).await);
    }
    let stream = "s".into();
    assert_eq!(bench.store.trim(&stream, 5).await.unwrap(), 0);
    assert_eq!(bench.store.thin(&stream, 5).await.unwrap(), 27);
    let left = bench.store.range(&stream, None, 99).await.unwrap();
    assert_eq!(names(&left), ["a1", "a2", "-1", "-1", "-1"]);
    assert_eq!(bench.store.thin(&stream, 0).await.unwrap(), 1);
    let depth = bench.depth("s").await;
    assert_eq!((depth.groups[0].pending, depth.groups[0].lag), (2, 2));
    bench.group("s", "h").await;
    bench.handed("g", 9).await;
    assert_eq!(
        bench.store.thin(&stream, 0).await.unwrap(),
        0,
        "another group has not read it"
    );
    assert_eq!(bench.store.thin(&"none".into(), 0).await.unwrap(), 0);
}

pub(super) async fn a_missing_group_is_named_and_has_nothing_to_settle(bench: &Bench) {
    bench.append_keyed(&["a1"]).await;
    let error = read(&*bench.store, "none", "m", 1, AT_ONCE).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, StoreError::NoGroup { group } if group == "none"),
        "{error}"
    );
    let request = ClaimRequest {
        stream: &"s".into(),
        group: "none",
        consumer: "m",
        idle_min: AT_ONCE,
        count: 1,
    };
    let error = bench.store.claim_in_turn(request).await.unwrap_err();
    assert!(matches!(error, StoreError::NoGroup { .. }), "{error}");
    let id = first_of(bench, "a1").await;
    assert!(!end(&*bench.store, "none", id, Step::Ack).await);
    assert_eq!(bench.mended().await, Mended::default());
}

/// Or it would be cleared away as idle, and its group with it.
pub(super) async fn whoever_reads_in_turn_is_active(bench: &Bench) {
    bench.group("s", "g").await;
    let removed = async || {
        let stream = oona::store::StreamName::from("s");
        let removed = bench.store.remove_idle_consumers(&stream, AT_ONCE);
        removed.await.unwrap()
    };
    assert!(bench.handed("g", 9).await.is_empty());
    assert_eq!(removed().await, 1, "it was known");
    bench.append_keyed(&["a1", "a2"]).await;
    assert_eq!(bench.handed("g", 9).await.len(), 1);
    assert_eq!(removed().await, 0, "it has something in hand");
    assert!(bench.end(first_of(bench, "a1").await, Step::Ack).await);
    assert_eq!(names(&bench.handed("g", 9).await), ["a2"]);
}

/// Envelopes as anybody may write them: fields in any order, twice, and such as nobody knows.
fn envelopes() -> impl Strategy<Value = Vec<u8>> {
    let field = |tag: u8, content: Vec<u8>| {
        let mut bytes = vec![tag];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend(content);
        bytes
    };
    const NAMES: [&str; 5] = ["oona.key", "oona.retry_group", "oona.id", "other", ""];
    const VALUES: [&str; 6] = ["", "k", "g", "h", "schlüssel", "0:1:"];
    let pair = (
        prop::sample::select(&NAMES[..]),
        prop::sample::select(&VALUES[..]),
    );
    let attribute = pair.prop_map(move |(name, value)| {
        let mut pair = field(0x0a, name.into());
        pair.extend(field(0x12, value.into()));
        field(0x1a, pair)
    });
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let odd = prop::sample::select(vec![
        vec![0x08, 0x86, 0x80, 0x01],
        vec![0x7d, 1, 2, 3, 4],
        vec![0x79, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![0x7a, 2, 0x1a, 0xff],
    ]);
    let part = prop_oneof![
        4 => attribute,
        1 => payload.prop_map(move |bytes| field(0x12, bytes)),
        1 => odd,
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

/// How much of two equal messages each store hands out says whether it saw a key.
#[tokio::test(flavor = "multi_thread")]
async fn both_stores_see_the_same_key_in_any_envelope() {
    let benches = [Bench::memory(), Bench::redis()];
    for bench in &benches {
        bench.group("s", "g").await;
    }
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let mut seen = BTreeMap::new();
    for _ in 0..300 {
        let envelope = envelopes().new_tree(&mut runner).unwrap().current();
        let mut handed = Vec::new();
        for bench in &benches {
            let record = Record {
                payload: envelope.clone().into(),
                signature: None,
            };
            let append = Append::new("s".into(), record);
            let batch = [append.clone(), append];
            bench.store.append(&batch).await.unwrap();
            let mut count = Vec::new();
            loop {
                let entries = bench.handed("g", 9).await;
                count.push(entries.len());
                for entry in &entries {
                    assert!(bench.end(entry.id, Step::Ack).await);
                }
                if entries.is_empty() {
                    break;
                }
            }
            handed.push(count);
        }
        assert_eq!(handed[0], handed[1], "of {envelope:02x?}");
        *seen.entry(handed.remove(0)).or_insert(0) += 1;
    }
    assert!(
        seen.len() == 2 && seen.values().all(|times| *times > 50),
        "{seen:?}"
    );
}

/// Nothing that stands in an entry stops the others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_envelope_is_handed_out() {
    let bench = Bench::redis();
    bench.group("s", "g").await;
    let mut payloads: Vec<Vec<u8>> = vec![
        vec![],
        vec![0x1a],
        vec![0x1a, 0xff],
        vec![0xff; 400],
        vec![0x1a, 3, 0x0a, 0xff, 0xff],
        vec![0x0b, 0x1a, 0],
    ];
    let mut whole = keyed("a1").payload.to_vec();
    payloads.extend((0..whole.len()).map(|end| whole[..end].to_vec()));
    whole.push(0xff);
    payloads.push(whole);
    for payload in payloads {
        let record = Record {
            payload: payload.clone().into(),
            signature: None,
        };
        let batch = [Append::new("s".into(), record)];
        bench.store.append(&batch).await.unwrap();
        let handed = bench.handed("g", 9).await;
        assert_eq!(handed.len(), 1, "{payload:02x?}");
        assert!(bench.end(handed[0].id, Step::Ack).await);
    }
}
