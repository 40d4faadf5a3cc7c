//! What becomes of entries, each in one step.

use std::time::Duration;

use bytes::Bytes;
use oona::store::{Receipted, Settlement, Step, StreamName};
use oona_core::broadcast::{Receipt, ReceiptOutcome, Sight, Standing};
use oona_core::entry::{EntryId, Record};
use tokio::task::JoinSet;

use super::{Bench, LONG, now, record, texts};

pub(super) async fn an_entry_is_settled_once(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1"]).await;
    let id = bench.read("s", "g", "a", 1).await[0].id;
    let retry = Step::Retry {
        record: record("again"),
        at: None,
    };
    assert!(bench.settle("s", "g", id, retry.clone()).await);
    for step in [retry, Step::Ack] {
        assert!(!bench.settle("s", "g", id, step).await);
    }
    assert_eq!(bench.payloads("s").await, ["1", "again"]);
    // What was never read, or never there, is not pending.
    let unread = bench.append("s", &["2"]).await[0];
    for id in [unread, EntryId::MIN, EntryId::MAX] {
        assert!(!bench.settle("s", "g", id, Step::Ack).await, "{id}");
    }
}

pub(super) async fn an_entry_settled_by_many_at_once_is_settled_once(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["payload"; 50]).await;
    let read = bench.read("s", "g", "a", 50).await;
    let settlement = |(number, id)| Settlement {
        stream: "s".into(),
        id,
        receipt: None,
        step: match number % 3 {
            0 => Step::Retry {
                record: record("again"),
                at: None,
            },
            1 => Step::Retry {
                record: record("later"),
                at: Some(now()),
            },
            _ => Step::DeadLetter {
                stream: "dead".into(),
                record: record("filed"),
                original: None,
            },
        },
    };
    let ids = read.iter().map(|entry| entry.id);
    let settlements: Vec<_> = ids.enumerate().map(settlement).collect();
    let mut settlers = JoinSet::new();
    for _ in 0..4 {
        let (store, settlements) = (bench.replica(), settlements.clone());
        settlers.spawn(async move { store.settle("g", &settlements).await.unwrap() });
    }
    let settled = settlers.join_all().await;
    for number in 0..50 {
        let times = settled.iter().filter(|settled| settled[number]).count();
        assert_eq!(times, 1, "of the one numbered {number}");
    }
    let depth = bench.depth("s").await;
    assert_eq!((depth.length, depth.delayed), (50 + 17, 17));
    assert_eq!(bench.payloads("dead").await, ["filed"; 16]);
}

pub(super) async fn each_group_settles_for_itself(bench: &Bench) {
    for stream in ["s", "t"] {
        bench.append(stream, &["1"]).await;
        bench.group(stream, "g").await;
        bench.group(stream, "h").await;
    }
    let mut settlements = Vec::new();
    for stream in ["t", "s"] {
        let id = bench.read(stream, "g", "a", 1).await[0].id;
        bench.read(stream, "h", "a", 1).await;
        settlements.push(Settlement {
            stream: stream.into(),
            id,
            step: Step::Ack,
            receipt: None,
        });
    }
    let store = &bench.store;
    assert_eq!(store.settle("g", &[]).await.unwrap().len(), 0);
    let settled = store.settle("g", &settlements).await.unwrap();
    assert_eq!(settled, [true, true]);
    for stream in ["s", "t"] {
        let mut groups = bench.depth(stream).await.groups;
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        let pending: Vec<_> = groups.iter().map(|group| group.pending).collect();
        assert_eq!(pending, [0, 1], "{stream}");
    }
    settlements.pop();
    assert_eq!(store.settle("h", &settlements).await.unwrap(), [true]);
}

pub(super) async fn a_retry_is_written_as_it_is_settled(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1", "2", "3"]).await;
    let read = bench.read("s", "g", "a", 3).await;
    let settlement = |index: usize, step: Step| Settlement {
        stream: "s".into(),
        id: read[index].id,
        step,
        receipt: None,
    };
    let retry = Step::Retry {
        record: record("1, second try"),
        at: None,
    };
    let settlements = [
        settlement(0, retry),
        settlement(1, Step::Ack),
        settlement(1, Step::Ack),
    ];
    let settled = bench.store.settle("g", &settlements).await.unwrap();
    assert_eq!(settled, [true, true, false]);
    let again = bench.read("s", "g", "a", 9).await;
    assert_eq!(texts(&again), ["1, second try"]);
    assert_eq!(again[0].fields, record("1, second try").into_fields());
    assert_eq!(bench.depth("s").await.groups[0].pending, 2);
}

pub(super) async fn a_dead_letter_is_written_as_it_is_settled(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["poison"]).await;
    let id = bench.read("s", "g", "a", 1).await[0].id;
    let filed = || Step::DeadLetter {
        stream: "dead".into(),
        record: record("poison, filed"),
        original: Some(Bytes::from_static(b"\xffas it was")),
    };
    assert!(bench.settle("s", "g", id, filed()).await);
    assert!(!bench.settle("s", "g", id, filed()).await);
    assert_eq!(bench.payloads("dead").await, ["poison, filed"]);
    let letters = bench.store.range(&"dead".into(), None, 9).await.unwrap();
    assert_eq!(letters[0].original().unwrap(), &b"\xffas it was"[..]);
    assert_eq!(bench.depth("s").await.unfinished, 0);
}

pub(super) async fn what_is_written_keeps_its_bytes(bench: &Bench) {
    let odd = Bytes::from_iter(0..=255);
    let records = [(odd.clone(), Some(odd)), (Bytes::new(), Some(Bytes::new()))];
    let unsigned = [(Bytes::from_static(b"\xff\0\r\n"), None)];
    for (payload, signature) in records.into_iter().chain(unsigned) {
        let record = Record { payload, signature };
        let retry = |at| Step::Retry {
            record: record.clone(),
            at,
        };
        let file = Step::DeadLetter {
            stream: "out".into(),
            record: record.clone(),
            original: None,
        };
        for step in [retry(None), retry(Some(now())), file] {
            bench.group("out", "g").await;
            let id = bench.append("out", &["in"]).await[0];
            bench.read("out", "g", "a", 1).await;
            assert!(bench.settle("out", "g", id, step.clone()).await);
            let promoted = bench.store.promote(&"out".into(), now() + LONG, 9).await;
            promoted.unwrap();
            let written = bench.read("out", "g", "a", 9).await;
            assert_eq!(written.len(), 1, "{step:?}");
            assert_eq!(written[0].fields, record.clone().into_fields(), "{step:?}");
        }
    }
}

pub(super) async fn a_retry_waits_for_its_time(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1", "2"]).await;
    let read = bench.read("s", "g", "a", 2).await;
    let start = now();
    // The same content twice: both are kept.
    for (entry, delay) in read.iter().zip([2_000, 1_000]) {
        let retry = Step::Retry {
            record: record("again"),
            at: Some(start + Duration::from_millis(delay)),
        };
        assert!(bench.settle("s", "g", entry.id, retry).await);
    }
    let depth = bench.depth("s").await;
    assert_eq!((depth.delayed, depth.unfinished), (2, 0));
    let stream = StreamName::from("s");
    for (at, moved, left) in [(999, 0, 2), (1_000, 1, 1), (1_001, 0, 1), (9_999, 1, 0)] {
        let at = start + Duration::from_millis(at);
        assert_eq!(bench.store.promote(&stream, at, 10).await.unwrap(), moved);
        assert_eq!(bench.depth("s").await.delayed, left);
    }
    let again = bench.read("s", "g", "a", 9).await;
    assert_eq!(texts(&again), ["again", "again"]);
    assert_eq!(again[0].fields, record("again").into_fields());
    assert_eq!(
        bench
            .store
            .promote(&"none".into(), now(), 10)
            .await
            .unwrap(),
        0
    );
}

pub(super) async fn each_group_has_its_own_retry(bench: &Bench) {
    bench.append("s", &["1"]).await;
    let at = now() + LONG;
    for group in ["g", "h"] {
        bench.group("s", group).await;
        let id = bench.read("s", group, "a", 1).await[0].id;
        let retry = Step::Retry {
            record: record("again"),
            at: Some(at),
        };
        assert!(bench.settle("s", group, id, retry).await);
    }
    assert_eq!(bench.depth("s").await.delayed, 2);
    assert_eq!(bench.store.promote(&"s".into(), at, 9).await.unwrap(), 2);
}

pub(super) async fn due_retries_are_promoted_once_whoever_asks(bench: &Bench) {
    bench.group("s", "g").await;
    let payloads: Vec<_> = (0..50).map(|n| format!("{n:02}")).collect();
    let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
    bench.append("s", &payloads).await;
    let start = now();
    for (n, entry) in bench.read("s", "g", "a", 50).await.iter().enumerate() {
        let retry = Step::Retry {
            record: record(payloads[n]),
            at: Some(start + Duration::from_millis(n as u64)),
        };
        assert!(bench.settle("s", "g", entry.id, retry).await);
    }
    let stream = StreamName::from("s");
    let due = start + LONG;
    let replica = bench.replica();
    replica.ping().await.unwrap();
    let (one, two) = tokio::join!(
        bench.store.promote(&stream, due, 20),
        replica.promote(&stream, due, 20),
    );
    assert_eq!((one.unwrap(), two.unwrap()), (20, 20));
    assert_eq!(bench.store.promote(&stream, due, 20).await.unwrap(), 10);
    assert_eq!(replica.promote(&stream, due, 20).await.unwrap(), 0);
    assert_eq!(
        texts(&bench.read("s", "g", "a", 99).await),
        payloads,
        "in the order of their time"
    );
}

/// Settles an entry, with a receipt under the name `r`.
async fn settle_with_receipt(
    bench: &Bench,
    group: &str,
    id: EntryId,
    step: Step,
    outcome: ReceiptOutcome,
) -> bool {
    let settlement = Settlement {
        stream: "s".into(),
        id,
        step,
        receipt: Some(Receipted {
            name: "r".to_owned(),
            outcome,
        }),
    };
    let plain = Settlement {
        id: EntryId::MAX,
        step: Step::Ack,
        receipt: None,
        ..settlement.clone()
    };
    // Between others, since each may make another number of replies.
    let three = [plain.clone(), settlement, plain];
    let settled = bench.store.settle(group, &three).await.unwrap();
    assert_eq!((settled.len(), settled[0], settled[2]), (3, false, false));
    settled[1]
}

pub(super) async fn a_receipt_is_written_with_its_settlement(bench: &Bench) {
    bench.group("s", "g").await;
    bench.group("s", "h").await;
    let id = bench.append("s", &["1"]).await[0];
    let groups = ["g".to_owned(), "h".to_owned()];
    let receipts = async || {
        let sights = bench.replica();
        let sights = sights.sights(&"s".into(), id, "r", &groups).await.unwrap();
        let outcome = |sight: &Sight| sight.receipt.map(|receipt| receipt.outcome);
        sights.iter().map(outcome).collect::<Vec<_>>()
    };
    use ReceiptOutcome::{Acked, DeadLettered, Retrying};
    let ack =
        async |group, outcome| settle_with_receipt(bench, group, id, Step::Ack, outcome).await;
    assert!(!ack("g", Acked).await, "nobody has read it");
    assert!(!ack("none", Acked).await);
    assert_eq!(
        receipts().await,
        [None, None],
        "what is not settled leaves none"
    );
    bench.read("s", "g", "a", 1).await;
    bench.read("s", "h", "a", 1).await;
    let retry = Step::Retry {
        record: record("again"),
        at: None,
    };
    assert!(settle_with_receipt(bench, "g", id, retry, Retrying).await);
    let letter = Step::DeadLetter {
        stream: "dead".into(),
        record: record("letter"),
        original: None,
    };
    assert!(settle_with_receipt(bench, "h", id, letter, DeadLettered).await);
    assert!(!ack("h", Acked).await, "it is settled once");
    assert_eq!(receipts().await, [Some(Retrying), Some(DeadLettered)]);
    assert_eq!(bench.payloads("s").await, ["1", "again"]);
    assert_eq!(bench.payloads("dead").await, ["letter"]);
    // The retry is settled under the same name: the last word counts.
    let again = bench.read("s", "g", "a", 1).await[0].id;
    assert!(settle_with_receipt(bench, "g", again, Step::Ack, Acked).await);
    assert_eq!(receipts().await, [Some(Acked), Some(DeadLettered)]);
    let sight = bench
        .store
        .sights(&"s".into(), id, "r", &groups)
        .await
        .unwrap()[0];
    let Some(Receipt { at, .. }) = sight.receipt else {
        panic!("{sight:?}")
    };
    assert!(at.as_millis() >= id.ms, "by the clock that dates entries");
}

pub(super) async fn sights_tell_where_each_group_stands(bench: &Bench) {
    for group in ["pending", "passed", "unread"] {
        bench.group("s", group).await;
    }
    let ids = bench.append("s", &["1", "2", "3"]).await;
    bench.read("s", "pending", "a", 2).await;
    bench.read("s", "passed", "a", 2).await;
    bench.settle("s", "passed", ids[1], Step::Ack).await;
    bench.read("s", "unread", "a", 1).await;
    let groups = ["none", "unread", "pending", "passed"].map(str::to_owned);
    let standings = async |stream: &str, id| {
        let sights = bench.store.sights(&stream.into(), id, "r", &groups).await;
        let sights = sights.unwrap();
        assert!(sights.iter().all(|sight| sight.receipt.is_none()));
        sights
            .iter()
            .map(|sight| sight.standing)
            .collect::<Vec<_>>()
    };
    use Standing::{NoGroup, Passed, Pending, Unread};
    assert_eq!(
        standings("s", ids[1]).await,
        [NoGroup, Unread, Pending, Passed]
    );
    assert_eq!(
        standings("s", ids[2]).await,
        [NoGroup, Unread, Unread, Unread]
    );
    assert_eq!(standings("none", ids[1]).await, [NoGroup; 4]);
    assert_eq!(
        bench
            .store
            .sights(&"s".into(), ids[0], "r", &[])
            .await
            .unwrap(),
        []
    );
}
