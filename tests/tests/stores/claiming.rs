//! How entries come from members that have left them.

use std::collections::BTreeMap;
use std::time::Duration;

use oona::store::{Step, StreamName};
use tokio::time::Instant;

use super::{AT_ONCE, Bench, LONG, claim, eventually, texts};

pub(super) async fn only_what_has_lain_long_enough_is_claimed(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1", "2", "3"]).await;
    let read = bench.read("s", "g", "dead", 2).await;
    assert_eq!(bench.claim("s", "g", LONG).await, []);
    let claimed = eventually(async || {
        let claimed = bench.claim("s", "g", Duration::from_millis(20)).await;
        (!claimed.is_empty()).then_some(claimed)
    });
    let claimed = claimed.await;
    let entries: Vec<_> = claimed
        .iter()
        .map(|claimed| claimed.entry.clone())
        .collect();
    assert_eq!(entries, read, "what was never read is not claimed");
    assert!(claimed.iter().all(|claimed| claimed.deliveries == 2));
    // Idle time has begun anew.
    assert_eq!(bench.claim("s", "g", LONG).await, []);
    let again = bench.claim("s", "g", AT_ONCE).await;
    assert!(
        again.iter().all(|claimed| claimed.deliveries == 3),
        "{again:?}"
    );
    // What was settled is not claimed.
    assert!(bench.settle("s", "g", read[0].id, Step::Ack).await);
    assert_eq!(bench.claim("s", "g", AT_ONCE).await.len(), 1);
}

pub(super) async fn as_many_are_claimed_as_were_asked_for(bench: &Bench) {
    bench.group("s", "g").await;
    let ids = bench.append("s", &["1", "2", "3"]).await;
    bench.read("s", "g", "dead", 9).await;
    for (count, expected) in [(0, &ids[..0]), (2, &ids[..2]), (9, &ids[..])] {
        let claimed = claim(&*bench.store, "s", "g", AT_ONCE, count).await;
        let claimed: Vec<_> = claimed.unwrap().iter().map(|c| c.entry.id).collect();
        assert_eq!(claimed, expected, "oldest first, of {count}");
    }
    bench.group("s", "h").await;
    assert_eq!(bench.claim("s", "h", AT_ONCE).await, [], "of another group");
}

pub(super) async fn claimers_at_once_get_each_entry_once(bench: &Bench) {
    let replica = bench.replica();
    let idle = Duration::from_millis(200);
    let mut attempt = 0;
    eventually(async || {
        attempt += 1;
        let stream = format!("s{attempt}");
        bench.group(&stream, "g").await;
        bench.append(&stream, &["payload"; 10]).await;
        bench.read(&stream, "g", "dead", 10).await;
        let mut times = BTreeMap::new();
        let mut first_at = None;
        while times.len() < 10 {
            let began = Instant::now();
            let (one, two) = tokio::join!(
                claim(&*bench.store, &stream, "g", idle, 5),
                claim(&*replica, &stream, "g", idle, 5),
            );
            for claimed in [one.unwrap(), two.unwrap()].concat() {
                first_at.get_or_insert(began);
                *times.entry(claimed.entry.id).or_insert(0) += 1;
            }
        }
        // Whoever is so slow that what was claimed lies idle again learns nothing.
        let quick = first_at.is_some_and(|at| at.elapsed() < idle);
        quick.then(|| assert!(times.values().all(|times| *times == 1), "{times:?}"))
    })
    .await;
}

pub(super) async fn what_is_gone_is_not_claimed(bench: &Bench) {
    bench.group("s", "g").await;
    let ids = bench.append("s", &["1", "2", "3", "4"]).await;
    bench.read("s", "g", "dead", 9).await;
    for id in [ids[0], ids[2], ids[3]] {
        assert!(bench.redrive("s", id, "other").await.unwrap().is_some());
    }
    assert!(
        bench.settle("s", "g", ids[3], Step::Ack).await,
        "it is in hand, though it is gone"
    );
    let claimed = claim(&*bench.store, "s", "g", AT_ONCE, 1).await.unwrap();
    assert_eq!(claimed.len(), 1, "what is gone does not stand in the way");
    assert_eq!(claimed[0].entry.id, ids[1]);
    assert_eq!(bench.claim("s", "g", AT_ONCE).await.len(), 1);
    assert_eq!(
        bench.depth("s").await.groups[0].pending,
        1,
        "nobody waits for what is gone"
    );
}

pub(super) async fn only_what_one_holds_is_touched(bench: &Bench) {
    let idle = Duration::from_millis(200);
    let mut attempt = 0;
    eventually(async || {
        attempt += 1;
        let stream = StreamName::from(format!("s{attempt}"));
        bench.group(&stream, "g").await;
        let ids = bench
            .append(&stream, &["touched", "foreign", "unread"])
            .await;
        bench.read(&stream, "g", "a", 1).await;
        bench.read(&stream, "g", "b", 1).await;
        let mut claimed = Vec::new();
        while claimed.is_empty() {
            let began = Instant::now();
            let touched = bench.store.touch(&stream, "g", "a", &ids);
            touched.await.unwrap();
            claimed = bench.claim(&stream, "g", idle).await;
            // Whoever is so slow that what was touched lies idle again learns nothing.
            if began.elapsed() >= idle {
                return None;
            }
        }
        let claimed: Vec<_> = claimed.into_iter().map(|claimed| claimed.entry).collect();
        assert_eq!(texts(&claimed), ["foreign"]);
        let all = bench.claim(&stream, "g", AT_ONCE).await;
        let deliveries: Vec<_> = all
            .iter()
            .map(|claimed| (claimed.entry.id, claimed.deliveries))
            .collect();
        let expected = [(ids[0], 2), (ids[1], 3)];
        assert_eq!(deliveries, expected, "to touch is not to deliver");
        Some(())
    })
    .await;
}

pub(super) async fn a_member_leaves_unless_it_has_something_pending(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1"]).await;
    let id = bench.read("s", "g", "a", 1).await[0].id;
    let stream = StreamName::from("s");
    for consumer in ["a", "never-there"] {
        bench.store.leave(&stream, "g", consumer).await.unwrap();
    }
    assert_eq!(bench.depth("s").await.groups[0].pending, 1);
    assert_eq!(
        bench.claim("s", "g", AT_ONCE).await.len(),
        1,
        "it is still there to be claimed"
    );
    assert!(bench.settle("s", "g", id, Step::Ack).await);
    bench.store.leave(&stream, "g", "claimer").await.unwrap();
    bench.append("s", &["2"]).await;
    assert_eq!(bench.read("s", "g", "a", 9).await.len(), 1, "it comes back");
    bench.store.leave(&"none".into(), "g", "a").await.unwrap();
}
