//! What Redis can do wrong, and what is said of it.

use std::time::Duration;

use oona::store::redis::RedisStore;
use oona::store::{Append, ReadRequest, Settlement, Step, Store, StoreError, StreamName};
use oona_core::entry::EntryId;
use oona_tests::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;

use super::{Bench, eventually, record};

fn store(url: &str) -> RedisStore {
    RedisStore::new(url).expect("an address of Redis")
}

/// A connection beside the store, as an operator has it.
async fn operator(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("an address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("it accepts connections")
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
    }];
    let error = bench.store.append(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let ack = [Settlement {
        stream: "s".into(),
        id,
        step: Step::Ack,
    }];
    assert!(bench.store.settle("g", &ack).await.is_err());
    bench.server.as_mut().expect("it has one").restart();
    // The next call makes a new connection.
    bench.store.ping().await.unwrap();
    assert_eq!(bench.payloads("s").await, ["1", "2"]);
    assert_eq!(bench.depth("s").await.groups[0].pending, 1);
    assert_eq!(bench.store.settle("g", &ack).await.unwrap(), [true]);
    // A reader has a connection of its own, and hears of the crash on it.
    let found = eventually(async || {
        let request = ReadRequest {
            group: "g",
            consumer: "a",
            streams: &["s".into()],
            count: 9,
            block: Duration::from_millis(1),
        };
        bench.store.read(request).await.ok()
    });
    assert_eq!(found.await.len(), 1);
}

#[tokio::test]
async fn a_read_that_waits_hears_of_a_crash() {
    let mut bench = Bench::redis();
    bench.group("s", "g").await;
    let store = std::sync::Arc::clone(&bench.store);
    let waiting = tokio::spawn(async move {
        let request = ReadRequest {
            group: "g",
            consumer: "a",
            streams: &["s".into()],
            count: 1,
            block: Duration::from_secs(3_600),
        };
        store.read(request).await
    });
    let server = bench.server.as_mut().expect("it has one");
    let mut look = operator(server).await;
    eventually(async || {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut look)
            .await
            .ok()?;
        clients.contains("cmd=xreadgroup").then_some(())
    })
    .await;
    server.kill();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_full_server_refuses_and_nothing_is_half_done() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    bench.group("s", "g").await;
    bench.append("s", &["1"]).await;
    let id = bench.read("s", "g", "a", 1).await[0].id;
    order(server, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    order(server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let batch = [Append {
        stream: "s".into(),
        record: record("2"),
    }];
    let answers = bench.store.append(&batch).await.unwrap();
    let error = answers[0].as_ref().unwrap_err();
    assert!(
        matches!(error, StoreError::Refused { code, .. } if code == "OOM"),
        "{error}"
    );
    let dead_letter = || {
        [Settlement {
            stream: "s".into(),
            id,
            step: Step::DeadLetter {
                stream: "dead".into(),
                record: record("1, filed"),
            },
        }]
    };
    let error = bench.store.settle("g", &dead_letter()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert_eq!(
        bench.depth("s").await.groups[0].pending,
        1,
        "it was not let go"
    );
    assert_eq!(bench.payloads("dead").await.len(), 0);
    order(server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(
        bench.store.settle("g", &dead_letter()).await.unwrap(),
        [true]
    );
    assert_eq!(bench.payloads("dead").await, ["1, filed"]);
}

#[tokio::test]
async fn a_group_that_was_deleted_is_missed() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    bench.group("s", "g").await;
    order(server, &["DEL", "s"]).await;
    let request = ReadRequest {
        group: "g",
        consumer: "a",
        streams: &["s".into()],
        count: 1,
        block: Duration::from_millis(1),
    };
    let error = bench.store.read(request).await.unwrap_err();
    assert!(matches!(error, StoreError::NoGroup { .. }), "{error}");
    bench.group("s", "g").await;
    assert_eq!(bench.read("s", "g", "a", 1).await, []);
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_refused_and_left_alone() {
    let bench = Bench::redis();
    let server = bench.server.as_ref().expect("it has one");
    order(server, &["SET", "s", "somebody else's"]).await;
    let stream = StreamName::from("s");
    let batch = [Append {
        stream: stream.clone(),
        record: record("1"),
    }];
    let answers = bench.store.append(&batch).await.unwrap();
    let error = answers[0].as_ref().unwrap_err();
    assert!(
        matches!(error, StoreError::Refused { code, .. } if code == "WRONGTYPE"),
        "{error}"
    );
    assert!(bench.store.range(&stream, None, 1).await.is_err());
    assert!(
        bench
            .store
            .redrive(&stream, EntryId::MIN, &"t".into(), &Vec::new())
            .await
            .is_err()
    );
}
