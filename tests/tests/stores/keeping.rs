//! What is known of streams, what is taken from them, and the nonces.

use std::time::Duration;

use bytes::Bytes;
use oona::store::{Dropped, NonceClaim, Oldest, RemovedGroup, Settlement, Step, StreamName};
use oona_core::Timestamp;
use oona_core::dead_letter::audit::Stride;
use oona_core::entry::EntryId;
use oona_core::policy::NonceSeen;

use super::{AT_ONCE, Bench, LONG, eventually, now, record, texts};

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

pub(super) async fn the_oldest_is_what_each_group_has_yet_to_finish(bench: &Bench) {
    let streams: [StreamName; 2] = ["none".into(), "s".into()];
    let oldest = async || {
        let mut oldest = bench.store.oldest(&streams).await.unwrap();
        assert_eq!(oldest[0], Oldest::default(), "in the order asked");
        let Oldest {
            held,
            mut unfinished,
        } = oldest.remove(1);
        unfinished.sort_unstable();
        (held, unfinished)
    };
    let of = |fast, slow| vec![("fast".to_owned(), fast), ("slow".to_owned(), slow)];
    let ids = bench.append("s", &["1", "2", "3"]).await;
    assert_eq!(oldest().await, (Some(ids[0]), Vec::new()));
    bench.group("s", "fast").await;
    bench.group("s", "slow").await;
    let (first, second) = (Some(ids[0]), Some(ids[1]));
    assert_eq!(oldest().await, (first, of(first, first)), "nothing is read");
    for entry in bench.read("s", "fast", "a", 9).await {
        bench.settle("s", "fast", entry.id, Step::Ack).await;
    }
    bench.read("s", "slow", "a", 2).await;
    assert_eq!(oldest().await, (first, of(None, first)), "one is pending");
    bench.settle("s", "slow", ids[0], Step::Ack).await;
    assert_eq!(oldest().await, (first, of(None, second)));
    bench.settle("s", "slow", ids[1], Step::Ack).await;
    assert_eq!(oldest().await, (first, of(None, Some(ids[2]))), "unread");
    bench.store.trim(&"s".into(), 1).await.unwrap();
    assert_eq!(oldest().await.0, Some(ids[2]));
}

pub(super) async fn depth_is_right_though_entries_were_taken_out(bench: &Bench) {
    let stream = StreamName::from("s");
    bench.group("s", "g").await;
    let ids = bench.append("s", &["1", "2", "3", "4", "5"]).await;
    bench.read("s", "g", "a", 1).await;
    for id in [ids[0], ids[2]] {
        assert!(bench.redrive("s", id, "other").await.unwrap().is_some());
    }
    let seen = async || {
        let depth = bench.depth("s").await;
        let group = &depth.groups[0];
        (depth.length, group.lag, group.pending, depth.unfinished)
    };
    assert_eq!(seen().await, (3, 3, 1, 4));
    assert_eq!(bench.claim("s", "g", AT_ONCE).await, []);
    assert_eq!(seen().await, (3, 3, 0, 3));
    assert_eq!(texts(&bench.read("s", "g", "a", 2).await), ["2", "4"]);
    assert_eq!(seen().await, (3, 1, 2, 3));
    for id in [ids[1], ids[3]] {
        assert!(bench.settle("s", "g", id, Step::Ack).await);
    }
    assert_eq!(bench.store.trim(&stream, 0).await.unwrap(), 2);
    assert_eq!(seen().await, (1, 1, 0, 1));
    bench.append("s", &["6"]).await;
    assert_eq!(seen().await, (2, 2, 0, 2));
    // Redis 7.0 counts what was deleted unread, where all before it is gone.
    let taken = bench.redrive("s", ids[4], "other").await.unwrap();
    assert!(taken.is_some());
    assert_eq!(seen().await, (1, 1, 0, 1));
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

pub(super) async fn a_long_stream_is_trimmed_at_once(bench: &Bench) {
    let stream = StreamName::from("s");
    bench.group("s", "g").await;
    bench.append("s", &["payload"; 2_500]).await;
    let read = bench.read("s", "g", "a", 2_400).await;
    let settlement = |entry: &oona_core::entry::Entry| Settlement {
        stream: stream.clone(),
        id: entry.id,
        step: Step::Ack,
        receipt: None,
    };
    let settlements: Vec<_> = read.iter().map(settlement).collect();
    let settled = bench.store.settle("g", &settlements).await.unwrap();
    assert!(settled.iter().all(|settled| *settled));
    assert_eq!(bench.store.trim(&stream, 150).await.unwrap(), 2_350);
    assert_eq!(bench.store.trim(&stream, 0).await.unwrap(), 50);
    assert_eq!(bench.depth("s").await.length, 100);
}

pub(super) async fn a_range_is_read_page_by_page(bench: &Bench) {
    let ids = bench.append("s", &["1", "2", "3"]).await;
    let stream = StreamName::from("s");
    assert_eq!(bench.store.range(&stream, None, 0).await.unwrap(), []);
    let page = async |after| texts(&bench.store.range(&stream, after, 2).await.unwrap());
    assert_eq!(page(None).await, ["1", "2"]);
    assert_eq!(page(Some(ids[1])).await, ["3"]);
    assert_eq!(page(Some(ids[2])).await.len(), 0);
    assert_eq!(page(ids[1].previous()).await, ["2", "3"]);
    assert_eq!(bench.payloads("none").await.len(), 0);
}

pub(super) async fn a_step_over_entries_reads_each_nth(bench: &Bench) {
    let ids = bench
        .append("s", &["0", "1", "2", "3", "4", "5", "6"])
        .await;
    let stream = StreamName::from("s");
    let step = async |after, count, skip, every| {
        let stride = Stride { skip, every };
        let found = bench
            .store
            .sample(&stream, after, count, stride)
            .await
            .unwrap();
        (found.seen, found.last, texts(&found.entries))
    };
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let last = Some(ids[6]);
    assert_eq!(
        step(None, 9, 0, 1).await,
        (7, last, texts(&["0", "1", "2", "3", "4", "5", "6"]))
    );
    assert_eq!(step(None, 9, 1, 3).await, (7, last, texts(&["1", "4"])));
    assert_eq!(
        step(None, 4, 0, 2).await,
        (4, Some(ids[3]), texts(&["0", "2"]))
    );
    assert_eq!(
        step(Some(ids[3]), 4, 2, 1_000_000).await,
        (3, last, texts(&["6"]))
    );
    assert_eq!(step(Some(ids[3]), 4, 3, 1).await, (3, last, texts(&[])));
    assert_eq!(step(last, 4, 0, 1).await, (0, None, texts(&[])));
    let found = bench
        .store
        .sample(&stream, None, 4, Stride::NOTHING)
        .await
        .unwrap();
    assert_eq!(
        (found.seen, found.last, found.entries.len()),
        (4, Some(ids[3]), 0)
    );
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
    let replica = bench.replica();
    let redrive = || bench.store.redrive(&from, id, &to, &fields);
    let (one, two) = tokio::join!(redrive(), replica.redrive(&from, id, &to, &fields));
    let moved = [one.unwrap(), two.unwrap()];
    assert_eq!(moved.iter().flatten().count(), 1, "{moved:?}");
    assert_eq!(redrive().await.unwrap(), None);
    assert_eq!(bench.payloads("dead").await, ["another"]);
    let read = bench.read("s", "g", "a", 9).await;
    assert_eq!(read.len(), 1);
    assert_eq!(moved.into_iter().flatten().next(), Some(read[0].id));
    assert_eq!(read[0].fields, fields, "fields that nobody knows are kept");
}

pub(super) async fn what_is_kept_is_what_was_kept_last(bench: &Bench) {
    let first = Bytes::from_static(b"\0asm\xff\r\n");
    assert_eq!(bench.store.kept("one").await.unwrap(), None);
    let wrong = Bytes::from_static(b"wrong");
    bench.store.keep("one", &wrong).await.unwrap();
    bench.store.keep("one", &first.clone()).await.unwrap();
    let large = Bytes::from(vec![7; 4 << 20]);
    bench.store.keep("two", &large).await.unwrap();
    let replica = bench.replica();
    assert_eq!(replica.kept("one").await.unwrap(), Some(first));
    assert_eq!(replica.kept("two").await.unwrap(), Some(large));
}

pub(super) async fn an_entry_is_appended_after_the_one_that_is_meant(bench: &Bench) {
    let stream = StreamName::from("list");
    let id = |ms| EntryId { ms, seq: 0 };
    let append = |last, id, text: &'static str| {
        let (store, stream) = (bench.replica(), stream.clone());
        async move {
            let record = record(text);
            store.append_after(&stream, last, id, &record).await
        }
    };
    let one = append(None, Some(id(1)), "one").await.unwrap();
    assert_eq!(one, Some(id(1)), "under the id that was given");
    assert_eq!(append(None, None, "late").await.unwrap(), None);
    assert_eq!(append(Some(id(2)), None, "wrong").await.unwrap(), None);
    let two = append(one, None, "two").await.unwrap();
    assert!(two > one);
    // Of many at once, one comes to the place.
    let third = || append(two, None, "three");
    let all = tokio::join!(third(), third(), third(), third());
    let all = [all.0, all.1, all.2, all.3];
    let written = all.iter().filter(|answer| matches!(answer, Ok(Some(_))));
    assert_eq!(written.count(), 1, "{all:?}");
    let held = bench.store.range(&stream, None, 9).await.unwrap();
    assert_eq!(texts(&held), ["one", "two", "three"]);
    // A stream that was emptied takes ids that it had before.
    let ids: Vec<_> = held.iter().map(|entry| entry.id).collect();
    bench.store.remove(&stream, &ids).await.unwrap();
    assert_eq!(append(None, Some(id(1)), "one").await.unwrap(), Some(id(1)));
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
    let replica = bench.replica();
    let (a, b) = tokio::join!(bench.store.remember("g", &a), replica.remember("g", &b));
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

pub(super) async fn entries_are_removed_whatever_became_of_them(bench: &Bench) {
    let dead = StreamName::from("dead");
    assert_eq!(bench.store.last(&dead).await.unwrap(), None);
    assert_eq!(bench.store.remove(&dead, &[EntryId::MIN]).await.unwrap(), 0);
    let ids = bench.append("dead", &["1", "2", "3"]).await;
    assert_eq!(bench.store.last(&dead).await.unwrap(), Some(ids[2]));
    let some = [ids[0], ids[2], EntryId::MIN];
    assert_eq!(bench.store.remove(&dead, &some).await.unwrap(), 2);
    assert_eq!(bench.store.remove(&dead, &some).await.unwrap(), 0);
    assert_eq!(bench.payloads("dead").await, ["2"]);
    assert_eq!(bench.store.last(&dead).await.unwrap(), Some(ids[1]));
}

pub(super) async fn what_is_too_old_or_too_much_expires(bench: &Bench) {
    let dead = StreamName::from("dead");
    let ever = Timestamp::EPOCH;
    let expire = |before, length_max| bench.store.expire(&dead, before, length_max);
    assert_eq!(expire(ever, 0).await.unwrap(), 0, "there is no such stream");
    bench.append("dead", &["1", "2", "3", "4"]).await;
    assert_eq!(expire(ever, 4).await.unwrap(), 0);
    assert_eq!(expire(ever, 3).await.unwrap(), 1, "the oldest");
    assert_eq!(bench.payloads("dead").await, ["2", "3", "4"]);
    let first = bench.store.range(&dead, None, 1).await.unwrap()[0].id.ms;
    assert_eq!(expire(Timestamp::from_millis(first), 9).await.unwrap(), 0);
    let later = now() + LONG;
    assert_eq!(expire(later, 9).await.unwrap(), 3);
    assert!(bench.payloads("dead").await.is_empty());
}

pub(super) async fn the_oldest_are_dropped_and_what_was_unfinished_is_counted(bench: &Bench) {
    let stream = StreamName::from("s");
    let drop_oldest = async |length_max| {
        let Dropped {
            finished,
            unfinished,
        } = bench.store.drop_oldest(&stream, length_max).await.unwrap();
        (finished, unfinished)
    };
    assert_eq!(drop_oldest(0).await, (0, 0), "there is no such stream");
    let ids = bench.append("s", &["1", "2", "3", "4", "5", "6"]).await;
    assert_eq!(
        drop_oldest(6).await,
        (0, 0),
        "it is no longer than it may be"
    );
    bench.group("s", "g").await;
    bench.group("s", "h").await;
    bench.read("s", "g", "a", 3).await;
    bench.read("s", "h", "a", 2).await;
    for (group, id) in [("g", ids[0]), ("h", ids[0]), ("g", ids[1]), ("h", ids[1])] {
        bench.settle("s", group, id, Step::Ack).await;
    }
    // Two are finished by both; `g` has the third in hand, and `h` has not read it.
    assert_eq!(drop_oldest(4).await, (2, 0));
    assert_eq!(drop_oldest(3).await, (0, 1));
    assert_eq!(bench.payloads("s").await, ["4", "5", "6"]);
    assert!(
        !bench.settle("s", "g", ids[2], Step::Ack).await,
        "whoever had it in hand has it no longer"
    );
    assert_eq!(bench.claim("s", "g", AT_ONCE).await, []);
    let depth = bench.depth("s").await;
    assert_eq!((depth.length, depth.unfinished), (3, 3));
    assert_eq!(texts(&bench.read("s", "h", "a", 9).await), ["4", "5", "6"]);
    assert_eq!(drop_oldest(0).await, (0, 3));
    bench.append("t", &["1", "2"]).await;
    let nobody_reads = bench.store.drop_oldest(&"t".into(), 1).await.unwrap();
    assert_eq!(nobody_reads.unfinished, 1, "nobody has finished it");
}

pub(super) async fn each_is_dropped_once_whoever_asks(bench: &Bench) {
    let stream = StreamName::from("s");
    bench.group("s", "g").await;
    bench.append("s", &["payload"; 1_000]).await;
    let replica = bench.replica();
    let (one, other) = tokio::join!(
        bench.store.drop_oldest(&stream, 100),
        replica.drop_oldest(&stream, 100)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.unfinished + other.unfinished, 900);
    assert_eq!(one.finished + other.finished, 0);
    assert_eq!(bench.depth("s").await.length, 100);
}

pub(super) async fn idle_consumers_go_unless_they_hold_something(bench: &Bench) {
    let stream = StreamName::from("s");
    let remove = |idle| bench.store.remove_idle_consumers(&stream, idle);
    assert_eq!(remove(AT_ONCE).await.unwrap(), 0, "there is no such stream");
    bench.group("s", "g").await;
    bench.append("s", &["1", "2", "3"]).await;
    let held = bench.read("s", "g", "holds", 1).await.remove(0).id;
    bench.read("s", "g", "reads", 1).await;
    let done = bench.read("s", "g", "done", 1).await.remove(0).id;
    assert!(bench.settle("s", "g", done, Step::Ack).await);
    assert_eq!(remove(LONG).await.unwrap(), 0, "nobody is idle for so long");
    assert_eq!(
        remove(AT_ONCE).await.unwrap(),
        1,
        "only `done` holds nothing"
    );
    assert_eq!(bench.depth("s").await.groups[0].pending, 2);
    assert!(bench.settle("s", "g", held, Step::Ack).await);
    assert_eq!(remove(AT_ONCE).await.unwrap(), 1);
    assert_eq!(bench.depth("s").await.groups[0].pending, 1);
    // A name that is gone comes back with its next read.
    bench.append("s", &["4"]).await;
    assert_eq!(bench.read("s", "g", "holds", 1).await.len(), 1);
}

pub(super) async fn an_idle_group_goes_and_tells_what_it_had_to_do(bench: &Bench) {
    let stream = StreamName::from("s");
    let remove = |idle| bench.store.remove_idle_groups(&stream, idle);
    assert_eq!(
        remove(AT_ONCE).await.unwrap(),
        [],
        "there is no such stream"
    );
    bench.append("s", &["1", "2", "3"]).await;
    bench.group("s", "g").await;
    bench.group("s", "deserted").await;
    bench.group("s", "quiet").await;
    for entry in bench.read("s", "quiet", "a", 9).await {
        bench.settle("s", "quiet", entry.id, Step::Ack).await;
    }
    let id = bench.read("s", "g", "a", 2).await[0].id;
    bench.settle("s", "g", id, Step::Ack).await;
    assert_eq!(remove(LONG).await.unwrap(), []);
    assert_eq!(bench.depth("s").await.groups.len(), 3);
    let replica = bench.replica();
    let (one, other) = tokio::join!(
        remove(AT_ONCE),
        replica.remove_idle_groups(&stream, AT_ONCE)
    );
    let mut gone = [one.unwrap(), other.unwrap()].concat();
    gone.sort_by(|one, other| one.name.cmp(&other.name));
    let removed = |name: &str, unfinished| RemovedGroup {
        name: name.to_owned(),
        unfinished,
    };
    // One in hand, one not read; and all three.
    assert_eq!(gone, [removed("deserted", 3), removed("g", 2)]);
    let left = bench.depth("s").await.groups;
    let left: Vec<_> = left.iter().map(|group| &*group.name).collect();
    assert_eq!(left, ["quiet"], "it has nothing to finish");
    assert_eq!(bench.payloads("s").await.len(), 3, "the messages stay");
}
