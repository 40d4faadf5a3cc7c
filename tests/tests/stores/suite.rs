//! What every store does.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use oona::store::{
    Append, GroupStart, NonceClaim, ReadRequest, Settlement, Step, StoreError, StreamName,
};
use oona_core::Timestamp;
use oona_core::entry::{EntryId, Record};
use oona_core::policy::NonceSeen;

use super::{Bench, eventually, record, texts};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

const AT_ONCE: Duration = Duration::ZERO;

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = since_epoch.expect("it is past 1970").as_millis();
    Timestamp::from_millis(u64::try_from(ms).expect("it is before the end of time"))
}

pub(super) async fn appended_entries_have_ascending_ids_and_keep_their_bytes(bench: &Bench) {
    let odd: Vec<u8> = (0..=255).collect();
    let stream = StreamName::from("s");
    let append = |payload: Vec<u8>, signature: Option<&'static str>| Append {
        stream: stream.clone(),
        record: Record {
            payload: payload.into(),
            signature: signature.map(Bytes::from),
        },
    };
    let batch = [
        append(odd.clone(), Some("signed")),
        append(Vec::new(), None),
        append(vec![0; 300_000], Some("")),
    ];
    let ids = bench.store.append(&batch).await.unwrap();
    let ids: Vec<EntryId> = ids.into_iter().map(Result::unwrap).collect();
    let later = bench.append("s", &["later"]).await;
    assert!(ids.is_sorted() && ids[2] < later[0], "{ids:?} {later:?}");

    let entries = bench.store.range(&stream, None, 10).await.unwrap();
    assert_eq!(entries.len(), 4);
    for (entry, (id, append)) in entries.iter().zip(ids.iter().zip(batch)) {
        assert_eq!(entry.id, *id);
        assert_eq!(entry.fields, append.record.into_fields());
    }
    assert_eq!(bench.store.append(&[]).await.unwrap().len(), 0);
}

pub(super) async fn a_group_begins_where_it_was_told_and_is_made_once(bench: &Bench) {
    bench.append("s", &["before"]).await;
    let stream = StreamName::from("s");
    for (group, start) in [("old", GroupStart::Beginning), ("new", GroupStart::End)] {
        bench
            .store
            .ensure_group(&stream, group, start)
            .await
            .unwrap();
    }
    bench.append("s", &["after"]).await;
    assert_eq!(
        texts(&bench.read("s", "old", "a", 9).await),
        ["before", "after"]
    );
    assert_eq!(texts(&bench.read("s", "new", "a", 9).await), ["after"]);
    // Made again, it stays where it is.
    bench
        .store
        .ensure_group(&stream, "old", GroupStart::Beginning)
        .await
        .unwrap();
    assert_eq!(bench.read("s", "old", "a", 9).await, []);
    assert_eq!(bench.depth("s").await.groups.len(), 2);
    // A group may come before its stream.
    bench.group("none-yet", "g").await;
    assert_eq!(bench.read("none-yet", "g", "a", 9).await, []);
}

pub(super) async fn a_read_gives_each_entry_to_one_member_of_each_group(bench: &Bench) {
    bench.group("s", "g").await;
    bench.group("s", "h").await;
    bench.append("s", &["1", "2", "3"]).await;
    assert_eq!(texts(&bench.read("s", "g", "a", 2).await), ["1", "2"]);
    assert_eq!(texts(&bench.read("s", "g", "b", 2).await), ["3"]);
    assert_eq!(bench.read("s", "g", "a", 2).await, []);
    assert_eq!(texts(&bench.read("s", "h", "a", 9).await), ["1", "2", "3"]);
}

pub(super) async fn a_read_tells_the_stream_and_takes_so_many_from_each(bench: &Bench) {
    let streams = ["one", "two", "three"].map(StreamName::from);
    for stream in &streams {
        bench.group(stream, "g").await;
    }
    bench.append("one", &["1a", "1b", "1c"]).await;
    bench.append("three", &["3a"]).await;
    let request = ReadRequest {
        group: "g",
        consumer: "a",
        streams: &streams,
        count: 2,
        block: Duration::from_millis(1),
    };
    let found = bench.store.read(request).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(index, entry)| (*index, texts(std::slice::from_ref(entry)).remove(0)))
        .collect();
    let expected = [(0, "1a"), (0, "1b"), (2, "3a")];
    assert_eq!(
        found,
        expected.map(|(index, text)| (index, text.to_owned()))
    );
}

pub(super) async fn a_read_waits_for_what_comes(bench: &Bench) {
    bench.group("s", "g").await;
    let request = ReadRequest {
        group: "g",
        consumer: "a",
        streams: &["s".into()],
        count: 9,
        block: LONG,
    };
    let read = bench.store.read(request);
    let append = bench.append("s", &["late"]);
    let (found, _) = tokio::join!(read, append);
    assert_eq!(found.unwrap().len(), 1);
}

pub(super) async fn a_read_without_a_group_says_so(bench: &Bench) {
    bench.append("s", &["1"]).await;
    let streams = ["s".into()];
    let request = ReadRequest {
        group: "gone",
        consumer: "a",
        streams: &streams,
        count: 9,
        block: Duration::from_millis(1),
    };
    let error = bench.store.read(request).await.unwrap_err();
    assert!(matches!(error, StoreError::NoGroup { .. }), "{error}");
    assert!(!error.is_fault());
    // To settle for a group that is gone is to settle nothing.
    assert!(!bench.settle("s", "gone", EntryId::MIN, Step::Ack).await);
}

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

pub(super) async fn a_touched_entry_is_not_claimed(bench: &Bench) {
    bench.group("s", "g").await;
    let ids = bench.append("s", &["touched", "foreign", "left"]).await;
    bench.read("s", "g", "a", 1).await;
    bench.read("s", "g", "b", 1).await;
    bench.read("s", "g", "a", 1).await;
    let idle = Duration::from_millis(300);
    let stream = StreamName::from("s");
    let claimed = eventually(async || {
        let touched = bench.store.touch(&stream, "g", "a", &ids[..2]).await;
        touched.unwrap();
        let claimed = bench.claim("s", "g", idle).await;
        (!claimed.is_empty()).then_some(claimed)
    });
    // The second entry is not `a`'s, so touching it had no effect.
    let claimed: Vec<_> = claimed.await.into_iter().map(|c| c.entry).collect();
    assert!(
        !texts(&claimed).contains(&"touched".to_owned()),
        "{claimed:?}"
    );
    let touched = bench.claim("s", "g", AT_ONCE).await;
    let touched = touched.iter().find(|claimed| claimed.entry.id == ids[0]);
    assert_eq!(touched.unwrap().deliveries, 2, "to touch is not to deliver");
}

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

pub(super) async fn a_retry_is_written_as_it_is_settled(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1", "2", "3"]).await;
    let read = bench.read("s", "g", "a", 3).await;
    let settlement = |index: usize, step: Step| Settlement {
        stream: "s".into(),
        id: read[index].id,
        step,
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
    };
    assert!(bench.settle("s", "g", id, filed()).await);
    assert!(!bench.settle("s", "g", id, filed()).await);
    assert_eq!(bench.payloads("dead").await, ["poison, filed"]);
    assert_eq!(bench.depth("s").await.unfinished, 0);
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
    let promote = || bench.store.promote(&stream, due, 20);
    let (one, two) = tokio::join!(promote(), promote());
    assert_eq!((one.unwrap(), two.unwrap()), (20, 20));
    assert_eq!(promote().await.unwrap(), 10);
    assert_eq!(
        texts(&bench.read("s", "g", "a", 99).await),
        payloads,
        "in the order of their time"
    );
}

pub(super) async fn depth_is_what_the_slowest_group_has_to_do(bench: &Bench) {
    assert_eq!(
        bench.depth("none").await,
        oona::store::StreamDepth::default()
    );
    bench.append("s", &["1", "2", "3", "4"]).await;
    let depth = bench.depth("s").await;
    assert_eq!(
        (depth.length, depth.unfinished),
        (4, 4),
        "nobody has read it"
    );
    bench.group("s", "fast").await;
    bench.group("s", "slow").await;
    for entry in bench.read("s", "fast", "a", 9).await {
        bench.settle("s", "fast", entry.id, Step::Ack).await;
    }
    let slow = bench.read("s", "slow", "a", 3).await;
    bench.settle("s", "slow", slow[1].id, Step::Ack).await;
    let depth = bench.depth("s").await;
    assert_eq!((depth.length, depth.unfinished, depth.delayed), (4, 3, 0));
    let mut groups: Vec<_> = depth
        .groups
        .iter()
        .map(|g| (&*g.name, g.lag, g.pending))
        .collect();
    groups.sort_unstable();
    assert_eq!(groups, [("fast", 0, 0), ("slow", 1, 2)]);
    let both = bench
        .store
        .depths(&["none".into(), "s".into()])
        .await
        .unwrap();
    assert_eq!(
        (both[0].length, both[1].length),
        (0, 4),
        "in the order asked"
    );
}

pub(super) async fn only_what_every_group_has_finished_is_trimmed(bench: &Bench) {
    let stream = StreamName::from("s");
    let ids = bench.append("s", &["1", "2", "3", "4", "5", "6"]).await;
    assert_eq!(
        bench.store.trim(&stream, 0).await.unwrap(),
        0,
        "there is no group"
    );
    assert_eq!(bench.store.trim(&"none".into(), 0).await.unwrap(), 0);
    bench.group("s", "g").await;
    bench.group("s", "h").await;
    assert_eq!(
        bench.store.trim(&stream, 0).await.unwrap(),
        0,
        "nobody has read"
    );
    bench.read("s", "g", "a", 9).await;
    bench.read("s", "h", "a", 4).await;
    for id in [ids[0], ids[1], ids[3], ids[4]] {
        bench.settle("s", "g", id, Step::Ack).await;
    }
    for id in &ids[..4] {
        bench.settle("s", "h", *id, Step::Ack).await;
    }
    // `g` still has the third in hand; two are finished by both.
    assert_eq!(
        bench.store.trim(&stream, 5).await.unwrap(),
        1,
        "down to the length"
    );
    assert_eq!(bench.store.trim(&stream, 0).await.unwrap(), 1, "no further");
    assert_eq!(bench.payloads("s").await, ["3", "4", "5", "6"]);
    assert!(bench.settle("s", "g", ids[2], Step::Ack).await);
    assert_eq!(
        bench.store.trim(&stream, 1).await.unwrap(),
        2,
        "`h` has not read the fifth"
    );
    assert_eq!(texts(&bench.read("s", "h", "a", 9).await), ["5", "6"]);
}

pub(super) async fn a_range_is_read_page_by_page(bench: &Bench) {
    let ids = bench.append("s", &["1", "2", "3"]).await;
    let stream = StreamName::from("s");
    let page = async |after| texts(&bench.store.range(&stream, after, 2).await.unwrap());
    assert_eq!(page(None).await, ["1", "2"]);
    assert_eq!(page(Some(ids[1])).await, ["3"]);
    assert_eq!(page(Some(ids[2])).await.len(), 0);
    assert_eq!(page(ids[1].previous()).await, ["2", "3"]);
    assert_eq!(bench.payloads("none").await.len(), 0);
}

pub(super) async fn a_dead_letter_is_redriven_once(bench: &Bench) {
    bench.group("s", "g").await;
    let id = bench.append("dead", &["letter", "another"]).await[0];
    let (from, to) = (StreamName::from("dead"), StreamName::from("s"));
    let mut fields = record("back").into_fields();
    fields.push((
        Bytes::from_static(b"\xffunknown"),
        Bytes::from_static(b"\0"),
    ));
    let redrive = || bench.store.redrive(&from, id, &to, &fields);
    let (one, two) = tokio::join!(redrive(), redrive());
    let moved = [one.unwrap(), two.unwrap()];
    assert_eq!(moved.iter().flatten().count(), 1, "{moved:?}");
    assert_eq!(redrive().await.unwrap(), None);
    assert_eq!(bench.payloads("dead").await, ["another"]);
    let read = bench.read("s", "g", "a", 9).await;
    assert_eq!(read.len(), 1);
    assert_eq!(moved.into_iter().flatten().next(), Some(read[0].id));
    assert_eq!(read[0].fields, fields, "fields that nobody knows are kept");
}

pub(super) async fn a_nonce_belongs_to_the_entry_that_bore_it_first(bench: &Bench) {
    let claim = |nonce, stream: &str, ms| NonceClaim {
        nonce,
        owner: (stream.into(), EntryId { ms, seq: 0 }),
        ttl: LONG,
    };
    let claims = [
        claim(1, "s", 1),
        claim(2, "s", 2),
        claim(1, "s", 1),
        claim(1, "s", 3),
    ];
    let seen = bench.store.remember("g", &claims).await.unwrap();
    use NonceSeen::{OtherEntry, SameEntry, Unseen};
    assert_eq!(seen, [Unseen, Unseen, SameEntry, OtherEntry]);
    let elsewhere = [claim(1, "t", 1), claim(u64::MAX, "t", 1)];
    let seen = bench.store.remember("g", &elsewhere).await.unwrap();
    assert_eq!(seen, [OtherEntry, Unseen], "the stream is part of an entry");
    let seen = bench.store.remember("h", &elsewhere).await.unwrap();
    assert_eq!(seen, [Unseen, Unseen], "each group has its own");
    let (a, b) = ([claim(9, "s", 1)], [claim(9, "s", 2)]);
    let (a, b) = tokio::join!(bench.store.remember("g", &a), bench.store.remember("g", &b));
    let both = [a.unwrap()[0], b.unwrap()[0]];
    assert!(
        both.contains(&Unseen) && both.contains(&OtherEntry),
        "{both:?}"
    );
}

pub(super) async fn a_nonce_is_forgotten_when_its_time_is_over(bench: &Bench) {
    let claim = |ms, ttl| NonceClaim {
        nonce: 7,
        owner: ("s".into(), EntryId { ms, seq: 0 }),
        ttl: Duration::from_millis(ttl),
    };
    let first = bench.store.remember("g", &[claim(1, 50)]).await.unwrap();
    assert_eq!(first, [NonceSeen::Unseen]);
    eventually(async || {
        let seen = bench
            .store
            .remember("g", &[claim(2, 3_600_000)])
            .await
            .unwrap();
        (seen == [NonceSeen::Unseen]).then_some(())
    })
    .await;
    let other = bench.store.remember("g", &[claim(1, 50)]).await.unwrap();
    assert_eq!(other, [NonceSeen::OtherEntry]);
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
    bench.store.leave(&"none".into(), "g", "a").await.unwrap();
}
