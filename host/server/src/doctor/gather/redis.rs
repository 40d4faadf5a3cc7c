//! How a server of Redis is, read from what it tells of itself.

use std::time::{Duration, Instant};

use redis::{Value, cmd};
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use super::super::facts::{
    Latency, MemoryFacts, PersistenceFacts, RedisFacts, Role, StoreFacts, StoreTrouble,
};
use crate::bus::RetryOrder;
use crate::clock;
use crate::config::Config;
use crate::registry::LIST;
use crate::store::StoreError;
use crate::store::redis::reply;
use crate::store::redis::{Needs, Probe, Refusal, Visit, field};

/// How long a server may take for everything together.
const SERVER_TIME_MAX: Duration = Duration::from_secs(20);

/// How often a server is asked how long it takes to answer.
const PINGS: usize = 100;

/// How long all of that may take. What was measured by then counts.
const PINGS_TIME_MAX: Duration = Duration::from_secs(3);

/// How a server is.
pub(super) async fn redis(probe: &Probe, config: &Config) -> StoreFacts {
    let looked = timeout(SERVER_TIME_MAX, look(probe, config)).await;
    let too_slow = || {
        let words = format!("no answer within {} s", SERVER_TIME_MAX.as_secs());
        Err(StoreTrouble::Silent(words))
    };
    match looked.map_or_else(|_| too_slow(), |looked| looked.map_err(trouble)) {
        Ok(facts) => StoreFacts::Redis(Box::new(facts)),
        Err(trouble) => StoreFacts::Trouble {
            address: probe.address().to_owned(),
            trouble,
        },
    }
}

fn trouble(error: StoreError) -> StoreTrouble {
    match error {
        StoreError::Unavailable { detail, .. } => StoreTrouble::Silent(detail),
        StoreError::Unusable { detail, .. } => StoreTrouble::LockedOut(detail),
        StoreError::Refused { code, detail, .. } => StoreTrouble::Refuses { code, detail },
        StoreError::NoGroup { group } => StoreTrouble::Refuses {
            code: "NOGROUP".to_owned(),
            detail: group,
        },
    }
}

async fn look(probe: &Probe, config: &Config) -> Result<RedisFacts, StoreError> {
    let mut visit = probe.visit().await?;
    let info = visit.info("default").await?;
    let mut facts = RedisFacts {
        address: probe.address().to_owned(),
        ..told(&info)
    };
    facts.persistence.append_fsync = setting(&mut visit, "appendfsync").await;
    facts.persistence.save = setting(&mut visit, "save").await;
    facts.latency = latency(&mut visit).await;
    facts.clock_ahead_ms = clock_ahead_ms(&mut visit).await;
    facts.user = visit
        .ask(cmd("ACL").arg("WHOAMI"))
        .await
        .ok()
        .and_then(|user| reply::text(user).ok());
    facts.refusals = refusals(probe, config).await;
    Ok(facts)
}

/// What `INFO` tells.
fn told(info: &str) -> RedisFacts {
    let text = |name| field(info, name).unwrap_or_default().to_owned();
    let number = |name| field(info, name).and_then(|text| text.parse().ok());
    let count = |name| number(name).unwrap_or(0);
    // A server that does not tell of success has not failed either.
    let succeeded = |name| field(info, name).is_none_or(|status| status == "ok");
    let role = match field(info, "role") {
        Some("slave") => Role::Replica {
            master: format!("{}:{}", text("master_host"), text("master_port")),
        },
        _ => Role::Master {
            replicas: count("connected_slaves"),
        },
    };
    RedisFacts {
        version: text("redis_version"),
        mode: text("redis_mode"),
        loading: count("loading") == 1,
        clients: count("connected_clients"),
        clients_waiting: count("blocked_clients"),
        clients_max: number("maxclients"),
        role,
        persistence: PersistenceFacts {
            append_only: count("aof_enabled") == 1,
            append_ok: succeeded("aof_last_write_status"),
            rewrite_ok: succeeded("aof_last_bgrewrite_status"),
            snapshot_ok: succeeded("rdb_last_bgsave_status"),
            ..PersistenceFacts::default()
        },
        memory: MemoryFacts {
            used_bytes: count("used_memory"),
            max_bytes: count("maxmemory"),
            eviction: text("maxmemory_policy"),
        },
        ..RedisFacts::default()
    }
}

/// A setting of the server, if it may be asked for.
async fn setting(visit: &mut Visit<'_>, name: &str) -> Option<String> {
    let answer = visit.ask(cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
    let mut pair = reply::list(answer).ok()?.into_iter();
    reply::text(pair.nth(1)?).ok()
}

/// How long answers take. Nothing if there is none, as from a server that loads its data.
async fn latency(visit: &mut Visit<'_>) -> Option<Latency> {
    let deadline = Deadline::now() + PINGS_TIME_MAX;
    let mut taken_us = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = Instant::now();
        match timeout_at(deadline, visit.ask(&cmd("PING"))).await {
            Ok(Ok(_)) => taken_us.push(micros(begun.elapsed())),
            _ => break,
        }
    }
    taken_us.sort_unstable();
    let last = taken_us.len().checked_sub(1)?;
    let quantile = |percent: usize| taken_us[last * percent / 100];
    Some(Latency {
        pings: taken_us.len(),
        p50_us: quantile(50),
        p99_us: quantile(99),
    })
}

/// How far the clock of this machine is ahead. The server looked at its own half-way through.
async fn clock_ahead_ms(visit: &mut Visit<'_>) -> Option<i64> {
    let now = clock::system();
    let before = now();
    let answer = visit.ask(&cmd("TIME")).await.ok()?;
    let half_way_ms = before.as_millis().midpoint(now().as_millis());
    Some(i64::try_from(half_way_ms).ok()? - time_ms(answer)?)
}

/// What `TIME` answers, seconds and µs, as ms since the epoch.
fn time_ms(answer: Value) -> Option<i64> {
    let mut parts = reply::list(answer).ok()?.into_iter();
    let mut next = || -> Option<i64> { reply::text(parts.next()?).ok()?.parse().ok() };
    Some(next()? * 1_000 + next()? / 1_000)
}

/// What the server would refuse of what a host asks.
async fn refusals(probe: &Probe, config: &Config) -> Option<Vec<Refusal>> {
    let bus = &config.bus;
    let streams = bus.streams.destinations().chain([&bus.streams.dead_letter]);
    let needs = Needs {
        streams: streams.cloned().collect(),
        lists: vec![LIST.into()],
        turns: bus.consume.retry_order == RetryOrder::Block,
        replicas: config.store.replicas_min > 0,
    };
    let visit = probe.visit().await.ok()?;
    visit.rehearse(&needs.commands()).await.ok()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_of_itself_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\
            # Clients\r\nconnected_clients:7\r\nmaxclients:10000\r\nblocked_clients:3\r\n\
            # Memory\r\nused_memory:1000\r\nmaxmemory:2000\r\nmaxmemory_policy:allkeys-lru\r\n\
            # Persistence\r\nloading:1\r\nrdb_last_bgsave_status:err\r\naof_enabled:1\r\n\
            # Replication\r\nrole:slave\r\nmaster_host:db\r\nmaster_port:6379\r\n";
        let facts = told(info);
        assert_eq!((&*facts.version, &*facts.mode), ("7.0.15", "standalone"));
        assert_eq!((facts.clients, facts.clients_waiting), (7, 3));
        assert_eq!(facts.clients_max, Some(10_000));
        assert!(facts.loading && facts.persistence.append_only);
        assert!(facts.persistence.append_ok && !facts.persistence.snapshot_ok);
        assert_eq!(facts.memory.eviction, "allkeys-lru");
        let master = "db:6379".to_owned();
        assert_eq!(facts.role, Role::Replica { master });
        let master = told("role:master\r\nconnected_slaves:2\r\n");
        assert_eq!(master.role, Role::Master { replicas: 2 });
    }

    #[test]
    fn the_time_of_a_server_is_read_to_the_millisecond() {
        let text = |text: &str| Value::BulkString(text.into());
        let time = Value::Array(vec![text("1795486001"), text("197999")]);
        assert_eq!(time_ms(time), Some(1_795_486_001_197));
        assert_eq!(time_ms(Value::Array(vec![text("1")])), None);
    }
}
