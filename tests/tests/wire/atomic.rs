//! A retry is one atomic step: shown with every crash that there can be.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Redis appends to this file what it does. A crash keeps a beginning of it, and the rest never was.
fn append_only_file(server: &RedisServer) -> PathBuf {
    let mut directory = server.directory().to_owned();
    if directory.join("appendonlydir").exists() {
        directory.push("appendonlydir");
    }
    let files = fs::read_dir(directory).unwrap();
    let mut files = files
        .map(|file| file.unwrap().path())
        .filter(|path| is_aof(path));
    files.next().expect("Redis keeps an append-only file")
}

/// Before Redis 7 there is one file; since, the one that grows has `.incr.` in its name.
fn is_aof(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.ends_with(".incr.aof") || name == "appendonly.aof"
}

/// Where each command of the file ends.
fn ends(file: &[u8]) -> Vec<usize> {
    let line = |from: usize| {
        let end = from + file[from..].iter().position(|byte| *byte == b'\n').unwrap();
        let number = std::str::from_utf8(&file[from + 1..end - 1]).unwrap();
        (number.parse::<usize>().unwrap(), end + 1)
    };
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < file.len() {
        let (arguments, mut next) = line(at);
        for _ in 0..arguments {
            let (length, begin) = line(next);
            next = begin + length + 2;
        }
        ends.push(next);
        at = next;
    }
    ends
}

/// In how many places a message of a stream is: yet to be read or finished there, waiting for its
/// retry, and filed.
const PLACES: &str = "
local unread, pending = 0, 0
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err and #groups > 0 then
  local group = {}
  for index = 1, #groups[1], 2 do group[groups[1][index]] = groups[1][index + 1] end
  pending = group['pending']
  unread = #redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+')
end
return {unread, pending, redis.call('ZCARD', KEYS[2]), redis.call('XLEN', KEYS[3])}
";

fn places(server: &RedisServer) -> Vec<u64> {
    let delayed = "{oona.telemetry}:delayed";
    server.ask(&[
        "EVAL",
        PLACES,
        "3",
        TELEMETRY_STREAM,
        delayed,
        "oona.deadletter",
    ])
}

/// Fails a message until it is filed, then has Redis crash after each command that it ever wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_one_atomic_step() {
    let mut stand = Stand::redis();
    let config = json!({"attempts_max": 3, "delay_base_ms": 5});
    let bus = stand.bus(|setup| setup.policy(Kind::DeadLetter, config));
    let mut subscription = bus.join("workers");
    bus.pending(TELEMETRY_STREAM, "workers", 0).await;
    publish_telemetry_unnamed(&bus, 1).await;
    for _ in 0..3 {
        let delivery = next(&mut subscription).await;
        subscription.nack(delivery.id, Nack::default()).unwrap();
    }
    bus.dead_letters(1).await;
    bus.settled().await;
    drop(subscription);
    assert!(bus.shutdown().await);
    let server = stand.server.as_mut().unwrap();
    assert_eq!(places(server), [0, 0, 0, 1], "it is filed");
    server.kill();
    let path = append_only_file(server);
    let whole = fs::read(&path).unwrap();
    let written = find(&whole, b"XADD").expect("it was published");
    let mut seen = BTreeSet::new();
    let crashes = ends(&whole).into_iter().filter(|end| *end > written);
    for end in crashes {
        fs::write(&path, &whole[..end]).unwrap();
        server.restart();
        let places = places(server);
        server.kill();
        // What a transaction had not finished when it ended is as if it had not begun.
        let sum: u64 = places.iter().sum();
        let last = String::from_utf8_lossy(&whole[..end]);
        let last: Vec<_> = last.rsplit("\r\n").take(20).collect();
        assert_eq!(sum, 1, "{places:?} with a crash after {last:?}");
        seen.insert(places);
    }
    // Every place that it passed through: to be read, pending, waiting, filed.
    assert_eq!(seen.len(), 4, "{seen:?}");
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
