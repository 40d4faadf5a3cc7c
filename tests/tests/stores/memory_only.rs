//! What only the memory store can be shown to do: it lives by any clock, and has a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oona::store::memory::{ENTRIES_MAX, MemoryStore};
use oona::store::{Append, NonceClaim, Step, Store, StoreError, StreamName};
use oona_core::Timestamp;
use oona_core::entry::{EntryId, Record};
use oona_core::policy::NonceSeen;

use super::{Bench, record};

/// A store, and the milliseconds by which it lives.
fn at(ms: u64) -> (Bench, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(ms));
    let look = Arc::clone(&clock);
    let store = MemoryStore::new(Arc::new(move || {
        Timestamp::from_millis(look.load(Ordering::Relaxed))
    }));
    let bench = Bench {
        store: Arc::new(store),
        server: None,
    };
    (bench, clock)
}

#[tokio::test]
async fn ids_ascend_though_the_clock_goes_back() {
    let (bench, clock) = at(1_000);
    let mut ids = bench.append("s", &["1", "2"]).await;
    for ms in [900, 1_000, 1_001] {
        clock.store(ms, Ordering::Relaxed);
        ids.extend(bench.append("s", &["later"]).await);
    }
    let ids: Vec<_> = ids
        .into_iter()
        .map(|EntryId { ms, seq }| (ms, seq))
        .collect();
    let expected = [(1_000, 0), (1_000, 1), (1_000, 2), (1_000, 3), (1_001, 0)];
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn idle_is_idle_to_the_millisecond() {
    let idle = Duration::from_millis(100);
    for (touched_at, asked_at, claimed) in [
        (0, 99, 0),
        (0, 100, 1),
        (50, 149, 0),
        (50, 150, 1),
        // The clock was set back.
        (0, -1_i64, 0),
    ] {
        let (bench, clock) = at(1_000);
        bench.group("s", "g").await;
        let ids = bench.append("s", &["1"]).await;
        bench.read("s", "g", "a", 1).await;
        clock.store(1_000 + touched_at, Ordering::Relaxed);
        let stream = StreamName::from("s");
        bench.store.touch(&stream, "g", "a", &ids).await.unwrap();
        clock.store(1_000_u64.saturating_add_signed(asked_at), Ordering::Relaxed);
        let found = bench.claim("s", "g", idle).await;
        assert_eq!(
            found.len(),
            claimed,
            "touched at {touched_at}, asked at {asked_at}"
        );
    }
}

#[tokio::test]
async fn a_nonce_is_known_until_its_last_millisecond() {
    let claim = |ms| NonceClaim {
        nonce: 7,
        owner: ("s".into(), EntryId { ms, seq: 0 }),
        ttl: Duration::from_millis(100),
    };
    for (asked_at, seen) in [(99, NonceSeen::OtherEntry), (100, NonceSeen::Unseen)] {
        let (bench, clock) = at(1_000);
        let first = bench.store.remember("g", &[claim(1)]).await.unwrap();
        assert_eq!(first, [NonceSeen::Unseen]);
        clock.store(1_000 + asked_at, Ordering::Relaxed);
        let again = bench.store.remember("g", &[claim(2)]).await.unwrap();
        assert_eq!(again, [seen], "asked at {asked_at}");
    }
}

#[tokio::test]
async fn a_full_store_refuses_and_nothing_is_half_done() {
    let (bench, _) = at(1_000);
    let store = &bench.store;
    bench.group("s", "g").await;
    let empty = Append {
        stream: "s".into(),
        record: Record {
            payload: bytes::Bytes::new(),
            signature: None,
        },
        once: None,
    };
    const BATCH: usize = 10_000;
    let batch = vec![empty; BATCH];
    for _ in 0..ENTRIES_MAX / BATCH {
        let written = store.append(&batch).await.unwrap();
        assert!(written.iter().all(Result::is_ok));
    }
    let refused =
        |error: &StoreError| matches!(error, StoreError::Refused { code, .. } if code == "FULL");
    let written = store.append(&batch[..1]).await.unwrap();
    assert!(refused(written[0].as_ref().unwrap_err()), "{written:?}");

    let id = bench.read("s", "g", "a", 1).await[0].id;
    let steps = [
        Step::Retry {
            record: record("again"),
            at: None,
        },
        Step::DeadLetter {
            stream: "dead".into(),
            record: record("filed"),
            original: None,
        },
    ];
    for step in &steps {
        assert!(!settles(store.as_ref(), id, step).await, "there is no room");
    }
    let depth = bench.depth("s").await;
    assert_eq!(
        (depth.length, depth.groups[0].pending),
        (ENTRIES_MAX as u64, 1)
    );
    assert_eq!(bench.depth("dead").await.length, 0);

    // What is finished makes room.
    let second = bench.read("s", "g", "a", 1).await[0].id;
    assert!(!settles(store.as_ref(), second, &steps[0]).await);
    assert!(bench.settle("s", "g", id, Step::Ack).await);
    assert_eq!(store.trim(&"s".into(), 0).await.unwrap(), 1);
    assert!(settles(store.as_ref(), second, &steps[1]).await);
    assert_eq!(bench.payloads("dead").await, ["filed"]);
}

/// Whether it is settled, or refused for want of room.
async fn settles(store: &dyn Store, id: EntryId, step: &Step) -> bool {
    let settlement = oona::store::Settlement {
        stream: "s".into(),
        id,
        step: step.clone(),
        receipt: None,
    };
    match store.settle("g", &[settlement]).await {
        Ok(settled) => settled[0],
        Err(error) => {
            assert_eq!(error.name(), "store-refused");
            false
        }
    }
}
