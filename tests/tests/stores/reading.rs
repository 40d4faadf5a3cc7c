//! How entries come to members of groups.

use bytes::Bytes;
use oona::store::{Append, GroupStart, ReadRequest, Step, StoreError, StreamName};
use oona_core::entry::{EntryId, Record};
use tokio::task::JoinSet;

use super::{AT_ONCE, Bench, LONG, claim, now, record, texts};
use std::time::Duration;

pub(super) async fn appended_entries_have_ascending_ids_and_keep_their_bytes(bench: &Bench) {
    let odd: Vec<u8> = (0..=255).collect();
    let stream = StreamName::from("s");
    let append = |payload: Vec<u8>, signature: Option<&'static str>| Append {
        stream: stream.clone(),
        record: Record {
            payload: payload.into(),
            signature: signature.map(Bytes::from),
        },
        once: None,
    };
    let batch = [
        append(odd.clone(), Some("signed")),
        append(Vec::new(), None),
        append(vec![0; 300_000], Some("")),
    ];
    let ids = bench.store.append(&batch).await.unwrap();
    let ids: Vec<EntryId> = ids.into_iter().map(|written| written.unwrap().id).collect();
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

pub(super) async fn members_at_once_get_each_entry_once(bench: &Bench) {
    bench.group("s", "g").await;
    let ids = bench.append("s", &["payload"; 200]).await;
    let mut members = JoinSet::new();
    for number in 0..4 {
        let store = bench.replica();
        members.spawn(async move {
            let request = ReadRequest {
                group: "g",
                consumer: &format!("member-{number}"),
                streams: &["s".into()],
                count: 7,
                block: Duration::from_millis(1),
            };
            let mut got = Vec::new();
            loop {
                let found = store.read(request).await.unwrap();
                if found.is_empty() {
                    return got;
                }
                got.extend(found.into_iter().map(|(_, entry)| entry.id));
            }
        });
    }
    let mut got = members.join_all().await.concat();
    got.sort_unstable();
    assert_eq!(got, ids);
}

pub(super) async fn a_read_for_nothing_gives_nothing(bench: &Bench) {
    bench.group("s", "g").await;
    bench.append("s", &["1"]).await;
    let streams = ["s".into()];
    for (streams, count) in [(&streams[..], 0), (&[], 1)] {
        let request = ReadRequest {
            group: "g",
            consumer: "a",
            streams,
            count,
            block: LONG,
        };
        assert_eq!(bench.store.read(request).await.unwrap(), []);
    }
    assert_eq!(texts(&bench.read("s", "g", "a", 1).await), ["1"]);
}

pub(super) async fn a_read_waits_for_whatever_is_written(bench: &Bench) {
    for way in ["append", "retry", "promotion", "dead letter", "redrive"] {
        bench.group(way, "g").await;
        bench.append(way, &["old"]).await;
        let id = bench.read(way, "g", "a", 1).await[0].id;
        let from = bench.append("from", &["old"]).await[0];
        bench.group("from", "g").await;
        bench.read("from", "g", "a", 1).await;
        let store = bench.replica();
        let waiting = tokio::spawn(async move {
            let request = ReadRequest {
                group: "g",
                consumer: "b",
                streams: &["from".into(), way.into()],
                count: 9,
                block: LONG,
            };
            store.read(request).await
        });
        bench.until_a_read_waits().await;
        assert!(!waiting.is_finished(), "{way}");
        write(bench, way, id, from).await;
        let found = waiting.await.unwrap().unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|(index, entry)| (index, entry.fields))
            .collect();
        assert_eq!(found, [(1, record("new").into_fields())], "{way}");
    }
}

/// Writes an entry to the stream that is named for the way in which it is done.
async fn write(bench: &Bench, way: &str, id: EntryId, from: EntryId) {
    let record = record("new");
    let retry = |at| Step::Retry {
        record: record.clone(),
        at,
    };
    let stream = StreamName::from(way);
    match way {
        "append" => drop(bench.append(way, &["new"]).await),
        "retry" => assert!(bench.settle(way, "g", id, retry(None)).await),
        "promotion" => {
            let due = now();
            assert!(bench.settle(way, "g", id, retry(Some(due))).await);
            assert_eq!(bench.store.promote(&stream, due, 9).await.unwrap(), 1);
        }
        "dead letter" => {
            let step = Step::DeadLetter {
                stream,
                record,
                original: None,
            };
            assert!(bench.settle("from", "g", from, step).await);
        }
        "redrive" => drop(bench.redrive("from", from, way).await.unwrap().unwrap()),
        _ => unreachable!("there is no other way"),
    }
}

pub(super) async fn a_group_that_is_missing_is_named(bench: &Bench) {
    bench.append("s", &["1"]).await;
    let store = &bench.store;
    for name in ["s", "none"] {
        let stream = StreamName::from(name);
        let answers = [
            bench.try_read(name, "gone", "a", 9).await.map(drop),
            claim(&**store, name, "gone", AT_ONCE, 9).await.map(drop),
            store.touch(&stream, "gone", "a", &[EntryId::MIN]).await,
        ];
        for answer in answers {
            let error = answer.unwrap_err();
            let named = matches!(&error, StoreError::NoGroup { group } if group == "gone");
            assert!(named && !error.is_fault(), "{error:?}");
        }
        // For a group that is gone there is nothing to settle, and nothing to leave.
        let retry = Step::Retry {
            record: record("again"),
            at: None,
        };
        assert!(!bench.settle(name, "gone", EntryId::MIN, retry).await);
        store.leave(&stream, "gone", "a").await.unwrap();
    }
    assert_eq!(bench.payloads("s").await, ["1"]);
    assert_eq!(bench.payloads("none").await.len(), 0);
}
