//! What Redis can do wrong, and what is said of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use oona::store::redis::RedisStore;
use oona::store::{
    Append, GroupStart, Once, ReadRequest, Settlement, Step, Store, StoreError, StreamName,
};
use oona_core::entry::EntryId;
use oona_tests::binary::PATIENCE;
use oona_tests::proxy::Proxy;
use oona_tests::redis_server::RedisServer;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{AT_ONCE, Bench, LONG, claim, eventually, now, operator, record, texts};

fn store(url: &str) -> RedisStore {
    RedisStore::new(url).expect("an address of Redis")
}

async fn order(server: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let mut connection = operator(server).await;
    let done: Result<redis::Value, _> = command.query_async(&mut connection).await;
    done.expect("it is done");
}

#[tokio::test]
async fn a_wrong_password_is_named_without_being_told() {
    let server = RedisServer::start_with(&["--requirepass", "right-one"]);
    let address = server.url().replace("redis://", "");
    for user in ["", ":wrong-one@", "nobody:wrong-one@"] {
        let error = store(&format!("redis://{user}{address}"))
            .ping()
            .await
            .unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(matches!(error, StoreError::Unusable { .. }), "{told}");
        assert!(
            told.contains("check user and password in store.url"),
            "{told}"
        );
        assert!(
            !told.contains("wrong-one") && !told.contains("right-one"),
            "{told}"
        );
    }
    let right = store(&format!("redis://:right-one@{address}"));
    right.ping().await.unwrap();
    let told = format!("{right:?} {:?}", right.info());
    assert!(!told.contains("right-one"), "{told}");
}

#[test]
fn an_address_that_is_none_is_refused_without_telling_the_password() {
    for url in [
        "",
        "localhost",
        "http://user:right-one@host",
        "redis://user:right-one@host:port",
        "redis://user:right-one@host/database",
        "redis://:right-one@",
    ] {
        let error = RedisStore::new(url).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.starts_with("not a Redis URL"), "{told}");
        assert!(!told.contains("right-one"), "{told}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_unavailable() {
    let nobody = RedisServer::down();
    for url in [nobody.url(), "redis://no-such-host.invalid".to_owned()] {
        let error = store(&url).ping().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.is_fault());
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_crash() {
    let mut bench = Bench::redis();
    bench.group("s", "g").await;
    bench.append("s", &["1", "2"]).await;
    let id = bench.read("s", "g", "a", 1).await[0].id;
    bench.server.as_mut().expect("it has one").kill();
    let batch = [Append {
        stream: "s".into(),
        record: record("3"),
        once: None,
    }];
    let error = bench.store.append(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let ack = [Settlement {
        stream: "s".into(),
        id,
        step: Step::Ack,
        receipt: None,
    }];
    assert!(bench.store.settle("g", &ack).await.is_err());
    bench.server.as_mut().expect("it has one").restart();
    // The next call makes a new connection.
    bench.store.ping().await.unwrap();
    assert_eq!(bench.payloads("s").await, ["1", "2"]);
    assert_eq!(bench.depth("s").await.groups[0].pending, 1);
    assert_eq!(bench.store.settle("g", &ack).await.unwrap(), [true]);
    // A reader has a connection of its own, and hears of the crash on it.
    let found = eventually(async || bench.try_read("s", "g", "a", 9).await.ok());
    assert_eq!(found.await.len(), 1);
}

#[tokio::test]
async fn a_read_that_waits_hears_of_a_crash() {
    let mut bench = Bench::redis();
    bench.group("s", "g").await;
    let store = Arc::clone(&bench.store);
    let waiting = tokio::spawn(async move {
        let request = ReadRequest {
            group: "g",
            consumer: "a",
            streams: &["s".into()],
            count: 1,
            block: LONG,
        };
        store.read(request).await
    });
    bench.until_a_read_waits().await;
    bench.server.as_mut().expect("it has one").kill();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn what_says_nothing_is_unavailable_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(&format!("redis://{}", silent.local_addr().unwrap()));
    let asked = timeout(PATIENCE, store.ping()).await.expect("it gives up");
    let error = asked.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_freezes_is_unavailable_in_time() {
    let mut bench = Bench::redis();
    bench.group("s", "g").await;
    bench.append("s", &["1"]).await;
    assert_eq!(bench.read("s", "g", "a", 1).await.len(), 1);
    let server = bench.server.as_ref().expect("it has one");
    order(server, &["CLIENT", "PAUSE", "3600000", "ALL"]).await;
    let batch = [Append {
        stream: "s".into(),
        record: record("2"),
        once: None,
    }];
    let asked = async {
        tokio::join!(
            bench.store.append(&batch),
            bench.store.ping(),
            bench.try_read("s", "g", "a", 1),
        )
    };
    let (append, ping, read) = timeout(PATIENCE, asked).await.expect("they give up");
    for error in [append.map(drop), ping, read.map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    bench.server.as_mut().expect("it has one").restart();
    bench.store.ping().await.unwrap();
    bench.append("s", &["3"]).await;
    let payloads = bench.payloads("s").await;
    assert_eq!(payloads, ["1", "3"], "what was paused was never done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_confirmed_while_it_crashed_is_there() {
    let mut bench = Bench::redis();
    let store = Arc::clone(&bench.store);
    let (confirmed, mut count) = tokio::sync::watch::channel(BTreeSet::new());
    let writer = tokio::spawn(async move {
        let batch = ["one", "two", "three"].map(|payload| Append {
            stream: "s".into(),
            record: record(payload),
            once: None,
        });
        loop {
            match store.append(&batch).await {
                Ok(ids) => confirmed.send_modify(|all: &mut BTreeSet<EntryId>| {
                    all.extend(ids.into_iter().flatten().map(|written| written.id));
                }),
                Err(error) => return (error, confirmed.borrow().clone()),
            }
        }
    });
    let enough = count.wait_for(|all| all.len() > 60);
    let enough = timeout(PATIENCE, enough).await.expect("it is written");
    drop(enough.unwrap());
    let server = bench.server.as_mut().expect("it has one");
    server.kill();
    let (error, confirmed) = writer.await.unwrap();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    server.restart();
    let stream = StreamName::from("s");
    let kept = bench.store.range(&stream, None, usize::MAX >> 1).await;
    let kept = kept.unwrap().into_iter().map(|entry| entry.id);
    let kept: BTreeSet<_> = kept.collect();
    assert!(confirmed.is_subset(&kept), "what was confirmed is kept");
}

#[tokio::test]
async fn a_server_that_only_reads_is_left_for_the_one_that_its_address_leads_to() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::to(&first.url());
    let store = store(&proxy.url());
    let stream = StreamName::from("s");
    let write = async || {
        let batch = [Append::new(stream.clone(), record("1"))];
        let mut written = store.append(&batch).await?;
        written.remove(0).map(drop)
    };
    store
        .ensure_group(&stream, "g", GroupStart::Beginning)
        .await
        .unwrap();
    write().await.unwrap();
    // A failover as a proxy or a name sees it: connections that are open still lead to the first.
    order(&first, &["REPLICAOF", "127.0.0.1", "1"]).await;
    proxy.lead_to(&second.url());
    let error = write().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused { code, .. } if code == "READONLY"),
        "{error}"
    );
    write().await.unwrap();
    assert_eq!(second.ask::<u64>(&["XLEN", "s"]), 1);
    assert_eq!(
        first.ask::<u64>(&["XLEN", "s"]),
        1,
        "nothing more was written"
    );
}

#[tokio::test]
async fn what_replicas_must_have_is_not_appended_without_them() {
    let (master, replica) = (RedisServer::start(), RedisServer::start());
    let store = store(&master.url()).with_replicas(1);
    let write = async || {
        let event = Once {
            event: "event".into(),
            window: LONG,
            note: "first".into(),
        };
        let batch = [Append {
            once: Some(event),
            ..Append::new("s".into(), record("1"))
        }];
        store.append(&batch).await?.remove(0)
    };
    // Neither what is new nor what was written before, and may be lost with this server.
    for _ in 0..2 {
        let error = write().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    }
    let port = master
        .url()
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    order(&replica, &["REPLICAOF", "127.0.0.1", &port]).await;
    let written = eventually(async || write().await.ok()).await;
    assert_eq!(written.before.as_deref(), Some(&b"first"[..]));
    assert_eq!(replica.ask::<u64>(&["XLEN", "s"]), 1);
}

#[tokio::test]
async fn a_full_server_refuses_and_nothing_is_half_done() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    bench.group("s", "g").await;
    bench.append("s", &["1", "2"]).await;
    let read = bench.read("s", "g", "a", 2).await;
    let (id, finished) = (read[0].id, read[1].id);
    let letter = bench.append("letters", &["letter"]).await[0];
    bench.group("later", "g").await;
    let waits = bench.append("later", &["waits"]).await[0];
    bench.read("later", "g", "a", 1).await;
    let retry = Step::Retry {
        record: record("waits"),
        at: Some(now()),
    };
    assert!(bench.settle("later", "g", waits, retry).await);
    let before = snapshot(&bench).await;
    order(server, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    order(server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let batch = [Append {
        stream: "s".into(),
        record: record("2"),
        once: None,
    }];
    let answers = bench.store.append(&batch).await.unwrap();
    let error = answers[0].as_ref().unwrap_err();
    assert!(
        matches!(error, StoreError::Refused { code, .. } if code == "OOM"),
        "{error}"
    );
    for (step, _) in settling_steps() {
        let settled = bench.store.settle("g", &[settlement(id, step)]).await;
        let error = settled.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    let later = StreamName::from("later");
    let redrive = || bench.redrive("letters", letter, "s");
    let promote = || bench.store.promote(&later, now() + LONG, 9);
    for error in [redrive().await.map(drop), promote().await.map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    assert_eq!(
        snapshot(&bench).await,
        before,
        "nothing was written or let go"
    );
    // What needs no room is done.
    assert!(bench.settle("s", "g", finished, Step::Ack).await);

    order(server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(redrive().await.unwrap().is_some());
    assert_eq!(promote().await.unwrap(), 1);
    let (filed, _) = settling_steps().pop().expect("there are some");
    assert!(bench.settle("s", "g", id, filed).await);
    assert_eq!(bench.payloads("dead").await, ["1, filed"]);
}

/// The steps that write, and where to.
fn settling_steps() -> Vec<(Step, &'static str)> {
    let retry = |at| Step::Retry {
        record: record("again"),
        at,
    };
    let filed = Step::DeadLetter {
        stream: "dead".into(),
        record: record("1, filed"),
        original: None,
    };
    let later = Some(now() + LONG);
    vec![
        (retry(later), "{s}:delayed"),
        (retry(None), "s"),
        (filed, "dead"),
    ]
}

fn settlement(id: EntryId, step: Step) -> Settlement {
    Settlement {
        stream: "s".into(),
        id,
        step,
        receipt: None,
    }
}

/// All that can be seen of the streams.
async fn snapshot(bench: &Bench) -> String {
    let streams = ["s", "dead", "letters", "later"].map(StreamName::from);
    let depths = bench.store.depths(&streams).await.unwrap();
    let mut payloads = Vec::new();
    for stream in &streams {
        payloads.push(bench.payloads(stream).await);
    }
    format!("{depths:?} {payloads:?}")
}

#[tokio::test]
async fn a_group_that_was_deleted_is_missed_until_it_is_made_again() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    let loss = [
        &["XGROUP", "DESTROY", "s", "g"][..],
        &["DEL", "s"],
        &["FLUSHALL"],
    ];
    for (words, left) in loss.into_iter().zip([&["1"][..], &[], &[]]) {
        bench.group("s", "g").await;
        let ids = bench.append("s", &["1"]).await;
        assert_eq!(bench.read("s", "g", "a", 9).await.len(), 1);
        order(server, words).await;
        let stream = StreamName::from("s");
        let answers = [
            bench.try_read("s", "g", "a", 1).await.map(drop),
            claim(&*bench.store, "s", "g", AT_ONCE, 9).await.map(drop),
            bench.store.touch(&stream, "g", "a", &ids).await,
        ];
        for answer in answers {
            let error = answer.unwrap_err();
            let named = matches!(&error, StoreError::NoGroup { group } if group == "g");
            assert!(named, "{words:?}: {error:?}");
        }
        for (step, _) in settling_steps() {
            let settled = bench.settle("s", "g", ids[0], step).await;
            assert!(!settled, "{words:?}");
        }
        assert_eq!(bench.payloads("s").await, left);
        bench.group("s", "g").await;
        assert_eq!(
            texts(&bench.read("s", "g", "a", 9).await),
            left,
            "{words:?}"
        );
        order(server, &["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn a_read_that_waits_hears_that_its_group_is_gone() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    bench.group("s", "g").await;
    let store = Arc::clone(&bench.store);
    let waiting = tokio::spawn(async move {
        let request = ReadRequest {
            group: "g",
            consumer: "a",
            streams: &["s".into()],
            count: 1,
            block: LONG,
        };
        store.read(request).await
    });
    bench.until_a_read_waits().await;
    order(server, &["XGROUP", "DESTROY", "s", "g"]).await;
    let heard = timeout(PATIENCE, waiting).await.expect("it hears").unwrap();
    let error = heard.unwrap_err();
    let named = matches!(&error, StoreError::NoGroup { group } if group == "g");
    assert!(named, "{error:?}");
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_refused_and_left_alone() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    order(server, &["SET", "other", "somebody else's"]).await;
    let other = StreamName::from("other");
    let store = &bench.store;
    let batch = ["other", "s"].map(|stream| Append {
        stream: stream.into(),
        record: record("1"),
        once: None,
    });
    let mut answers = store.append(&batch).await.unwrap();
    let letter = answers
        .pop()
        .expect("one for each")
        .expect("it is written")
        .id;
    let (one, fields) = ([EntryId::MAX], record("back").into_fields());
    let retry = Settlement {
        stream: other.clone(),
        id: EntryId::MAX,
        receipt: None,
        step: Step::Retry {
            record: record("again"),
            at: None,
        },
    };
    let streams = std::slice::from_ref(&other);
    let answers = [
        ("append", answers.remove(0).map(drop)),
        (
            "group",
            store.ensure_group(&other, "g", GroupStart::End).await,
        ),
        ("read", bench.try_read("other", "g", "a", 1).await.map(drop)),
        (
            "claim",
            claim(&**store, "other", "g", AT_ONCE, 9).await.map(drop),
        ),
        ("touch", store.touch(&other, "g", "a", &one).await),
        ("settle", store.settle("g", &[retry]).await.map(drop)),
        ("depths", store.depths(streams).await.map(drop)),
        ("oldest", store.oldest(streams).await.map(drop)),
        ("trim", store.trim(&other, 0).await.map(drop)),
        ("range", store.range(&other, None, 1).await.map(drop)),
        (
            "from",
            store
                .redrive(&other, letter, &"s".into(), &fields)
                .await
                .map(drop),
        ),
        (
            "to",
            store
                .redrive(&"s".into(), letter, &other, &fields)
                .await
                .map(drop),
        ),
    ];
    for (name, answer) in answers {
        let error = answer.expect_err(name);
        assert!(
            matches!(&error, StoreError::Refused { code, .. } if code == "WRONGTYPE"),
            "{name}: {error}"
        );
    }
    assert_eq!(bench.payloads("s").await, ["1"], "it was not moved");
    order(server, &["GETDEL", "other"]).await;
}

#[tokio::test]
async fn an_entry_is_kept_where_there_is_no_place_for_it() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    bench.group("s", "g").await;
    bench.append("s", &["1"]).await;
    let id = bench.read("s", "g", "a", 1).await[0].id;
    for (step, destination) in settling_steps() {
        if destination == "s" {
            continue;
        }
        order(server, &["SET", destination, "somebody else's"]).await;
        let settled = bench
            .store
            .settle("g", &[settlement(id, step.clone())])
            .await;
        let error = settled.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        order(server, &["DEL", destination]).await;
        assert_eq!(bench.depth("s").await.groups[0].pending, 1, "{step:?}");
    }
    let (filed, _) = settling_steps().pop().expect("there are some");
    assert!(bench.settle("s", "g", id, filed).await);
}
