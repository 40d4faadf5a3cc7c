//! A server of Redis or Valkey.

use super::super::Finding;
use super::super::facts::{
    Facts, Latency, MemoryFacts, PersistenceFacts, RedisFacts, Role, StoreTrouble,
};
use super::permissions::{permissions, remedy, writes};
use crate::store::redis::{KEEPS_ALL, NEEDED, is_supported, victims};

/// Half of the answers should take no longer, in µs: a publish waits for one of them.
const P50_US_MAX: u64 = 5_000;

/// 99 of 100 should take no longer, in µs: a publish is to take less than that in 95 of 100 cases.
const P99_US_MAX: u64 = 25_000;

/// From how much of its memory on a server is cautioned of, in percent.
const MEMORY_PERCENT_MAX: u64 = 80;

/// How a setting of a server is changed at once, and for good.
const AT_ONCE: &str = "at once, and for good: redis-cli CONFIG SET";

/// Why a server could not be looked at.
pub(super) fn trouble(address: &str, trouble: &StoreTrouble) -> Finding {
    match trouble {
        StoreTrouble::Silent(detail) => Finding::error(
            "redis",
            format!("does not answer at {address}: {detail}"),
            "start Redis there, or name another with --redis or `store.url`; a bus without one: \
             oona serve --dev",
        ),
        StoreTrouble::LockedOut(detail) => Finding::error(
            "redis",
            format!("lets nobody in at {address}: {detail}"),
            "set OONA_STORE_URL=redis://USER:PASSWORD@HOST:PORT; `redis-cli ACL LIST` there shows \
             its users",
        ),
        StoreTrouble::Refuses { code, detail } if code == "NOPERM" => Finding::error(
            "redis",
            format!("may not be asked how it is at {address}: {detail}"),
            "let the user of `store.url` ask: redis-cli ACL SETUSER USER +info",
        ),
        StoreTrouble::Refuses { code, detail } => Finding::error(
            "redis",
            format!("refuses at {address}: {code} {detail}"),
            remedy(code),
        ),
    }
}

/// How a server is, in the order in which a host would notice.
pub(super) fn redis(redis: &RedisFacts, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        version(redis),
        state(redis),
        clients(redis, facts.descriptors.subscribers_max as u64),
        role(&redis.role, facts.replicas_min),
        permissions(redis),
    ];
    findings.extend(writes(redis));
    findings.push(persistence(&redis.persistence, facts.replicas_min));
    findings.push(disk(&redis.persistence));
    findings.push(eviction(&redis.memory));
    findings.push(memory(&redis.memory));
    findings.push(latency(redis.latency.as_ref()));
    findings.push(clock(redis.clock_ahead_ms, facts.clock_skew_ms));
    findings
}

fn version(redis: &RedisFacts) -> Finding {
    let RedisFacts {
        address, version, ..
    } = redis;
    let found = format!("{version} at {address}");
    match &*redis.mode {
        "sentinel" => Finding::error(
            "redis",
            format!("a Sentinel, and no store, at {address}"),
            "name it as one: `store.url = \"redis+sentinel://HOST:PORT/MASTER\"`",
        ),
        _ if !is_supported(version) => Finding::error(
            "redis",
            found,
            format!("install {NEEDED}, or a Valkey, and name it in `store.url`"),
        ),
        "cluster" => Finding::warning(
            "redis",
            format!("{found}, in cluster mode"),
            "use a server that holds all hash slots, or one without cluster mode: a host asks no other \
             node than this one",
        ),
        _ => Finding::ok("redis", found),
    }
}

fn state(redis: &RedisFacts) -> Finding {
    if redis.loading {
        return Finding::error(
            "redis state",
            "still reads its data, and takes no commands",
            "wait until `redis-cli INFO persistence` says loading:0; a host waits by itself",
        );
    }
    Finding::ok("redis state", "takes commands")
}

/// A host has one connection, and two for each subscription.
fn clients(redis: &RedisFacts, subscribers_max: u64) -> Finding {
    let needed = redis.clients + 1 + 2 * subscribers_max;
    let found = format!(
        "{} connected, {} of them waiting",
        redis.clients, redis.clients_waiting
    );
    match redis.clients_max {
        Some(max) if max < needed => Finding::warning(
            "redis clients",
            format!(
                "{found}; no more than {max}, and with all subscribers there would be {needed}"
            ),
            format!(
                "`maxclients {needed}` in redis.conf, or fewer subscribers: \
                 `server.subscribers_max = {}`",
                max.saturating_sub(redis.clients + 1) / 2
            ),
        ),
        _ => Finding::ok("redis clients", found),
    }
}

fn role(role: &Role, replicas_min: u32) -> Finding {
    match role {
        Role::Replica { master } => Finding::error(
            "redis role",
            format!("a replica of {master}: it takes no writes"),
            format!(
                "name the master in `store.url` ({master}), or the Sentinels that know it: \
                 redis+sentinel://HOST:PORT/MASTER"
            ),
        ),
        Role::Master { replicas } if *replicas < u64::from(replicas_min) => Finding::error(
            "redis role",
            format!(
                "a master; replicas that follow it: {replicas}, and publishes wait for {replicas_min}"
            ),
            format!("start replicas, or set `store.replicas_min = {replicas}`"),
        ),
        Role::Master { replicas } => Finding::ok(
            "redis role",
            format!("a master; replicas that follow it: {replicas}"),
        ),
    }
}

fn persistence(persistence: &PersistenceFacts, replicas_min: u32) -> Finding {
    const CHECK: &str = "redis persistence";
    let fsync = persistence.append_fsync.as_deref();
    let advice = format!(
        "`appendonly yes` and `appendfsync always` in redis.conf; {AT_ONCE} appendonly yes && \
         redis-cli CONFIG SET appendfsync always && redis-cli CONFIG REWRITE"
    );
    let found = match (persistence.append_only, fsync, persistence.save.as_deref()) {
        (true, Some("always"), _) => {
            return Finding::ok(CHECK, "what is accepted is on disk (appendfsync always)");
        }
        (true, Some("no"), _) => {
            "goes to disk when the system likes (appendfsync no): if the machine fails, many seconds of \
             accepted messages are lost"
        }
        (true, fsync, _) => {
            let found = match fsync {
                None => "an append-only file; how often it goes to disk may not be asked",
                Some(_) => {
                    "goes to disk every second: if the machine fails, up to that much is lost"
                }
            };
            return Finding::note(CHECK, found, advice);
        }
        (false, _, Some("")) => "none: if Redis ends, all messages are lost",
        (false, ..) => {
            "snapshots without an append-only file: if Redis fails, what came after the last one is \
             lost"
        }
    };
    if replicas_min > 0 {
        let found = format!("{found}, unless a replica has it (store.replicas_min)");
        return Finding::note(CHECK, found, advice);
    }
    Finding::warning(CHECK, found, advice)
}

fn disk(persistence: &PersistenceFacts) -> Finding {
    const ADVICE: &str = "look at the log of Redis, and make room or give it access in its directory: \
                          redis-cli CONFIG GET dir";
    let found = match persistence {
        PersistenceFacts {
            append_ok: false, ..
        } => {
            let found = "the last write to the append-only file failed: nothing is accepted";
            return Finding::error("redis disk", found, ADVICE);
        }
        PersistenceFacts {
            snapshot_ok: false, ..
        } => "the last snapshot failed",
        PersistenceFacts {
            rewrite_ok: false, ..
        } => "the append-only file could not be rewritten, and grows",
        _ => return Finding::ok("redis disk", "the last writes succeeded"),
    };
    Finding::warning("redis disk", found, ADVICE)
}

fn eviction(memory: &MemoryFacts) -> Finding {
    let policy = &memory.eviction;
    if policy == KEEPS_ALL {
        return Finding::ok("redis eviction", "keeps what it was given (noeviction)");
    }
    let limit = if memory.max_bytes == 0 {
        ", as soon as it has a limit"
    } else {
        ""
    };
    Finding::warning(
        "redis eviction",
        format!(
            "{} when its memory is full (maxmemory-policy {policy}){limit}",
            victims(policy)
        ),
        format!(
            "`maxmemory-policy {KEEPS_ALL}` in redis.conf; {AT_ONCE} maxmemory-policy {KEEPS_ALL} && \
             redis-cli CONFIG REWRITE"
        ),
    )
}

fn memory(memory: &MemoryFacts) -> Finding {
    let MemoryFacts {
        used_bytes: used,
        max_bytes: max,
        ..
    } = *memory;
    if max == 0 {
        return Finding::note(
            "redis memory",
            format!("{} in use, without a limit", mebibytes(used)),
            "`maxmemory` in redis.conf, less than the machine has: at it a host hears that Redis is full, \
             and without it the system may end Redis",
        );
    }
    let found = format!("{} of {} in use", mebibytes(used), mebibytes(max));
    if used.saturating_mul(100) < max.saturating_mul(MEMORY_PERCENT_MAX) {
        return Finding::ok("redis memory", found);
    }
    Finding::warning(
        "redis memory",
        found,
        "raise `maxmemory`, or keep less: `streams.length_max`, `dead_letters.length_max`, and \
         `oona dlq purge`",
    )
}

fn latency(latency: Option<&Latency>) -> Finding {
    let Some(Latency {
        pings,
        p50_us,
        p99_us,
    }) = latency
    else {
        return Finding::warning(
            "redis latency",
            "it answers no PING",
            "see what else is said of it here, then try: redis-cli --latency",
        );
    };
    let found = format!(
        "p50 {}, p99 {} of {pings} round trips",
        millis(*p50_us),
        millis(*p99_us)
    );
    if *p50_us <= P50_US_MAX && *p99_us <= P99_US_MAX {
        return Finding::ok("redis latency", found);
    }
    Finding::warning(
        "redis latency",
        format!("{found}: publishes wait for it"),
        "run the host near Redis; `redis-cli --latency` from here tells of the network, \
         `redis-cli SLOWLOG GET` of the server",
    )
}

/// Hosts whose clocks each differ by half of the skew differ by all of it.
fn clock(ahead_ms: Option<i64>, skew_ms: u64) -> Finding {
    let Some(ahead_ms) = ahead_ms else {
        return Finding::warning(
            "clock",
            "Redis does not tell its time",
            "compare the two by hand: redis-cli TIME; date +%s",
        );
    };
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let apart_ms = ahead_ms.unsigned_abs();
    let found = format!("{apart_ms} ms {side} that of Redis");
    let advice = "keep both machines on time with NTP: timedatectl set-ntp true";
    if apart_ms > skew_ms {
        let found = format!(
            "{found}, and {skew_ms} ms are forgiven: messages are taken for stale or from the future"
        );
        return Finding::error("clock", found, advice);
    }
    if apart_ms > skew_ms / 2 {
        let found = format!("{found}; {skew_ms} ms are forgiven between any two hosts");
        return Finding::warning("clock", found, advice);
    }
    Finding::ok("clock", found)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn millis(us: u64) -> String {
    format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10)
}
