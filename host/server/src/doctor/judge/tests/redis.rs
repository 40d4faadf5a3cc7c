//! What is said of a server.

use super::super::super::Level::{Error, Note, Ok as Good, Warning};
use super::super::super::facts::{
    Facts, Latency, PersistenceFacts, RedisFacts, Role, StoreFacts, StoreTrouble,
};
use super::super::judge;
use super::{Expected, check, good, good_redis};
use crate::store::redis::Refusal;

/// A host that has all it wants, beside this server.
fn of(redis: RedisFacts) -> Facts {
    Facts {
        store: StoreFacts::Redis(Box::new(redis)),
        ..good()
    }
}

/// The same of a server.
#[track_caller]
fn check_redis(name: &str, change: impl FnOnce(&mut RedisFacts), expected: Expected) {
    let mut redis = good_redis();
    change(&mut redis);
    check(name, &of(redis), expected);
}

fn refusal(command: &str, key: &str, code: &str, detail: &str) -> Refusal {
    Refusal {
        command: command.to_owned(),
        key: key.to_owned(),
        code: code.to_owned(),
        detail: detail.to_owned(),
    }
}

#[test]
fn a_server_that_cannot_be_looked_at() {
    let refuses = |code: &str| StoreTrouble::Refuses {
        code: code.to_owned(),
        detail: "as it says".to_owned(),
    };
    let table: [(StoreTrouble, Expected, bool); 4] = [
        (
            StoreTrouble::Silent("refused".to_owned()),
            (Error, "does not answer at db:6379: refused", "--redis"),
            false,
        ),
        (
            StoreTrouble::LockedOut("WRONGPASS".to_owned()),
            (Error, "lets nobody in", "OONA_STORE_URL"),
            true,
        ),
        (
            refuses("NOPERM"),
            (Error, "may not be asked", "+info"),
            true,
        ),
        (
            refuses("BUSY"),
            (Error, "BUSY as it says", "SCRIPT KILL"),
            true,
        ),
    ];
    for (trouble, expected, answers) in table {
        let store = StoreFacts::Trouble {
            address: "db:6379".to_owned(),
            trouble,
        };
        let facts = Facts { store, ..good() };
        check("redis", &facts, expected);
        assert_eq!(judge(&facts).store_answers, answers);
    }
}

#[test]
fn what_a_server_is() {
    let table: [(&str, &str, Expected); 6] = [
        ("7.0.15", "standalone", (Good, "7.0.15 at db:6379", "")),
        ("6.2.0", "standalone", (Good, "6.2.0", "")),
        (
            "6.0.20",
            "standalone",
            (Error, "6.0.20", "Redis 6.2 or later"),
        ),
        ("", "standalone", (Error, "", "Redis 6.2 or later")),
        (
            "7.0.15",
            "sentinel",
            (Error, "a Sentinel", "redis+sentinel://"),
        ),
        (
            "7.0.15",
            "cluster",
            (Warning, "cluster mode", "all hash slots"),
        ),
    ];
    for (version, mode, expected) in table {
        let change = |redis: &mut RedisFacts| {
            redis.version = version.to_owned();
            redis.mode = mode.to_owned();
        };
        check_redis("redis", change, expected);
    }
    let loading = |redis: &mut RedisFacts| redis.loading = true;
    check_redis("redis state", loading, (Error, "still reads", "loading:0"));
    let few = |redis: &mut RedisFacts| redis.clients_max = Some(1_000);
    let expected = (Warning, "there would be 2052", "maxclients 2052");
    check_redis("redis clients", few, expected);
}

#[test]
fn who_writes_to_a_server() {
    let master = "other:6379".to_owned();
    let replica = |redis: &mut RedisFacts| redis.role = Role::Replica { master };
    check_redis("redis role", replica, (Error, "other:6379", "store.url"));
    for (replicas, level) in [(0, Error), (1, Error), (2, Good)] {
        let mut redis = good_redis();
        redis.role = Role::Master { replicas };
        let facts = Facts {
            replicas_min: 2,
            ..of(redis)
        };
        let advice = ["store.replicas_min", ""][usize::from(level == Good)];
        check("redis role", &facts, (level, "a master", advice));
    }
}

#[test]
fn how_a_server_keeps_what_it_was_given() {
    type Row<'a> = (bool, Option<&'a str>, Option<&'a str>, Expected);
    let table: [Row<'_>; 7] = [
        (true, Some("always"), None, (Good, "on disk", "")),
        (
            true,
            Some("everysec"),
            None,
            (Note, "every second", "appendfsync always"),
        ),
        (
            true,
            None,
            None,
            (Note, "may not be asked", "appendfsync always"),
        ),
        (
            true,
            Some("no"),
            None,
            (Warning, "many seconds", "appendfsync always"),
        ),
        (false, None, Some(""), (Warning, "none", "appendonly yes")),
        (
            false,
            None,
            Some("3600 1"),
            (Warning, "snapshots", "appendonly yes"),
        ),
        (false, None, None, (Warning, "snapshots", "appendonly yes")),
    ];
    for (append_only, fsync, save, expected) in table {
        let change = |redis: &mut RedisFacts| {
            redis.persistence.append_only = append_only;
            redis.persistence.append_fsync = fsync.map(str::to_owned);
            redis.persistence.save = save.map(str::to_owned);
        };
        check_redis("redis persistence", change, expected);
    }
    let mut redis = good_redis();
    redis.persistence.append_only = false;
    redis.role = Role::Master { replicas: 1 };
    let facts = Facts {
        replicas_min: 1,
        ..of(redis)
    };
    let expected = (Note, "unless a replica has it", "appendonly yes");
    check("redis persistence", &facts, expected);
}

#[test]
fn a_disk_that_fails() {
    type Fail = fn(&mut PersistenceFacts);
    let table: [(Fail, Expected); 3] = [
        (
            |it| it.append_ok = false,
            (Error, "nothing is accepted", "CONFIG GET dir"),
        ),
        (
            |it| it.snapshot_ok = false,
            (Warning, "snapshot", "CONFIG GET dir"),
        ),
        (
            |it| it.rewrite_ok = false,
            (Warning, "rewritten", "CONFIG GET dir"),
        ),
    ];
    for (fail, expected) in table {
        check_redis("redis disk", |redis| fail(&mut redis.persistence), expected);
    }
}

#[test]
fn what_becomes_of_a_server_that_is_full() {
    let table: [(&str, Expected); 3] = [
        ("noeviction", (Good, "keeps", "")),
        (
            "allkeys-lru",
            (Warning, "drops messages", "maxmemory-policy noeviction"),
        ),
        (
            "volatile-ttl",
            (Warning, "forgets nonces", "maxmemory-policy noeviction"),
        ),
    ];
    for (policy, expected) in table {
        let change = |redis: &mut RedisFacts| redis.memory.eviction = policy.to_owned();
        check_redis("redis eviction", change, expected);
    }
    let table: [(u64, u64, Expected); 4] = [
        (10, 0, (Note, "without a limit", "maxmemory")),
        (79 << 20, 100 << 20, (Good, "79 MiB of 100 MiB", "")),
        (
            80 << 20,
            100 << 20,
            (Warning, "80 MiB of 100 MiB", "dlq purge"),
        ),
        (101 << 20, 100 << 20, (Warning, "101 MiB", "raise")),
    ];
    for (used, max, expected) in table {
        let change = |redis: &mut RedisFacts| {
            (redis.memory.used_bytes, redis.memory.max_bytes) = (used, max);
        };
        check_redis("redis memory", change, expected);
    }
}

#[test]
fn how_fast_a_server_answers() {
    let table: [(u64, u64, Expected); 4] = [
        (5_000, 25_000, (Good, "p50 5.00 ms, p99 25.00 ms", "")),
        (5_001, 6_000, (Warning, "p50", "near Redis")),
        (100, 25_001, (Warning, "p99", "SLOWLOG")),
        (90, 1_234, (Good, "p50 0.09 ms, p99 1.23 ms of 100", "")),
    ];
    for (p50_us, p99_us, expected) in table {
        let change = |redis: &mut RedisFacts| {
            redis.latency = Some(Latency {
                pings: 100,
                p50_us,
                p99_us,
            });
        };
        check_redis("redis latency", change, expected);
    }
    let none = |redis: &mut RedisFacts| redis.latency = None;
    check_redis("redis latency", none, (Warning, "no PING", "--latency"));
}

#[test]
fn how_far_clocks_are_apart() {
    let table: [(Option<i64>, Expected); 7] = [
        (Some(0), (Good, "0 ms ahead", "")),
        (Some(2_500), (Good, "2500 ms ahead", "")),
        (Some(-2_500), (Good, "2500 ms behind", "")),
        (Some(2_501), (Warning, "ahead", "NTP")),
        (Some(-5_000), (Warning, "behind", "NTP")),
        (Some(-5_001), (Error, "5000 ms are forgiven", "NTP")),
        (None, (Warning, "does not tell", "TIME")),
    ];
    for (ahead_ms, expected) in table {
        let change = |redis: &mut RedisFacts| redis.clock_ahead_ms = ahead_ms;
        check_redis("clock", change, expected);
    }
}

#[test]
fn what_a_user_may_not_do_is_told_with_the_command_that_allows_it() {
    const COMMAND: &str = "this user has no permissions to run the 'xadd' command";
    const KEY: &str = "this user has no permissions to access one of the keys used as arguments";
    let table: [(Option<Vec<Refusal>>, Expected); 5] = [
        (None, (Warning, "could not be found out", "ACL GETUSER")),
        (
            Some(vec![refusal("XADD", "a", "NOPERM", COMMAND)]),
            (Error, "XADD may not be used", "ACL SETUSER oona +xadd"),
        ),
        (
            Some(vec![refusal("MULTI", "", "NOPERM", COMMAND)]),
            (Error, "MULTI may not be used", "+multi +exec +discard"),
        ),
        (
            Some(vec![
                refusal("XADD", "a", "NOPERM", KEY),
                refusal("XLEN", "a", "NOPERM", KEY),
                refusal("ZADD", "{a}:delayed", "NOPERM", KEY),
                refusal("GET", "oona:event:id", "NOPERM", KEY),
            ]),
            (Error, "not be touched", "oona '~a' '~oona:*' '~{a}:*'"),
        ),
        (
            Some(vec![
                refusal("XADD", "a", "NOPERM", COMMAND),
                refusal("XLEN", "b", "NOPERM", KEY),
            ]),
            (
                Error,
                "XADD may not be used, b not be touched",
                "+xadd '~b'",
            ),
        ),
    ];
    for (refusals, expected) in table {
        let change = |redis: &mut RedisFacts| redis.refusals = refusals;
        check_redis("redis permissions", change, expected);
    }
}

#[test]
fn what_a_server_refuses_to_anybody_is_told_once_with_a_remedy() {
    for (code, advice) in [
        ("READONLY", "master"),
        ("OOM", "maxmemory"),
        ("MISCONF", "CONFIG GET dir"),
        ("NOREPLICAS", "min-replicas-to-write"),
        ("LOADING", "loading:0"),
        ("BUSY", "SCRIPT KILL"),
        ("MOVED", "hash slots"),
        ("ERR", "log of Redis"),
    ] {
        let each = |command| refusal(command, "a", code, "as it says");
        let refusals = vec![each("XADD"), each("SET")];
        let change = |redis: &mut RedisFacts| redis.refusals = Some(refusals);
        let found = "XADD would be refused";
        check_redis("redis writes", change, (Error, found, advice));
    }
}
