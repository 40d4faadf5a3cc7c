//! What is done to the bus: each fault is brought about, lasts, and is taken away again.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::super::BenchError;
use super::scene::Scene;

/// How long what was killed stays away.
const AWAY: Duration = Duration::from_secs(1);

/// How long a host or a subscriber is frozen: longer than it may take to acknowledge, and than it may be
/// idle until others claim what it has.
const FROZEN: Duration = Duration::from_secs(3);

/// How long Redis is frozen: longer than a host waits for an answer.
const REDIS_FROZEN: Duration = Duration::from_secs(6);

/// How long what is refused is refused.
const REFUSED: Duration = Duration::from_secs(2);

/// How many connections are cut at least, and within how many bytes of answers.
const CUTS: u64 = 6;
const CUT_AFTER_BYTES_MAX: u64 = 64 * 1_024;

/// How a slow network is.
const SLOW: Duration = Duration::from_secs(4);
const LATENCY: Duration = Duration::from_millis(100);
const BYTES_PER_SECOND: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];

/// Where nobody is.
const NOBODY: [&str; 2] = ["127.0.0.1", "1"];

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A host is killed, and started again
    HostKill,
    /// A host is frozen until others claim what it has, and goes on
    HostStop,
    /// A subscriber is killed, and started again
    SubscriberKill,
    /// A subscriber is frozen until others have what it had, and goes on
    SubscriberStop,
    /// Redis is killed, and started again with its file
    RedisKill,
    /// Redis is frozen for longer than hosts wait for it, and goes on
    RedisStop,
    /// Redis is shut down in good order, and started again with its data
    RedisRestart,
    /// The memory of Redis is full, and it refuses to write
    RedisFull,
    /// Redis is made a replica, which only reads, and a master again
    RedisReadOnly,
    /// Another Redis takes over; connections to the old one stay open and lead to a replica
    Failover,
    /// Redis is killed, and Sentinel has its replica take over
    SentinelFailover,
    /// Connections to Redis are cut in the middle of an answer, again and again
    ConnectionCut,
    /// The network to Redis is slow and narrow
    SlowNetwork,
    /// There is no room for the file of Redis, and it ends itself
    DiskFull,
    /// There is no room for the file of a Redis with `appendfsync everysec`, and it refuses to write
    DiskFullEverysec,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::HostKill,
        Self::HostStop,
        Self::SubscriberKill,
        Self::SubscriberStop,
        Self::RedisKill,
        Self::RedisStop,
        Self::RedisRestart,
        Self::RedisFull,
        Self::RedisReadOnly,
        Self::Failover,
        Self::SentinelFailover,
        Self::ConnectionCut,
        Self::SlowNetwork,
        Self::DiskFull,
        Self::DiskFullEverysec,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// When Redis carries to the disk what it has accepted.
    pub(super) const fn fsync(self) -> &'static str {
        match self {
            Self::DiskFullEverysec => "everysec",
            _ => "always",
        }
    }

    /// Whether hosts reach Redis through a proxy.
    pub(super) const fn needs_proxy(self) -> bool {
        matches!(
            self,
            Self::Failover | Self::ConnectionCut | Self::SlowNetwork
        )
    }

    /// Whether a second Redis follows the first.
    pub(super) const fn needs_replica(self) -> bool {
        matches!(self, Self::Failover | Self::SentinelFailover)
    }

    /// Whether hosts ask a Sentinel where Redis is, and wait for the replica.
    pub(super) const fn needs_sentinel(self) -> bool {
        matches!(self, Self::SentinelFailover)
    }

    /// Whether what groups have read and settled may be lost: a replica that is waited for has every
    /// message, but not yet who got it. Then one may come again without a mark that says so.
    pub(super) const fn forgets_deliveries(self) -> bool {
        matches!(self, Self::SentinelFailover)
    }

    /// Why it cannot be brought about here, if it cannot.
    pub(super) fn impossible(self) -> Option<&'static str> {
        let disk = matches!(self, Self::DiskFull | Self::DiskFullEverysec);
        (disk && !cfg!(target_os = "linux"))
            .then_some("only Linux limits the files of a process that runs")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// What is left to chance, the same for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    seed: Vec<u8>,
    thrown: u64,
}

impl Dice {
    pub(super) fn new(seed: u64, fault: Fault, round: u32) -> Self {
        Self {
            seed: format!("{seed}/{fault}/{round}").into_bytes(),
            thrown: 0,
        }
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.thrown += 1;
        let hash = Sha256::new().chain_update(&self.seed);
        let hash = hash.chain_update(self.thrown.to_be_bytes()).finalize();
        let number = hash
            .first_chunk()
            .map_or(0, |first| u64::from_be_bytes(*first));
        number % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }
}

/// Brings a fault about, and takes it away again. An error if it was not felt.
pub(super) async fn inflict(
    fault: Fault,
    scene: &mut Scene,
    dice: &mut Dice,
) -> Result<(), BenchError> {
    let one = dice.index(scene.hosts.len());
    match fault {
        Fault::HostKill => {
            scene.hosts[one].kill();
            sleep(AWAY).await;
            scene.ends_now();
            scene.hosts[one].restart().await?;
        }
        Fault::HostStop => {
            scene.hosts[one]
                .process()
                .freeze()
                .map_err(BenchError::Signal)?;
            sleep(FROZEN).await;
            scene.ends_now();
            scene.hosts[one]
                .process()
                .thaw()
                .map_err(BenchError::Signal)?;
        }
        Fault::SubscriberKill => {
            scene.subscribers[one].kill();
            sleep(AWAY).await;
            scene.ends_now();
            scene.subscribers[one].restart()?;
        }
        Fault::SubscriberStop => {
            let process = scene.subscribers[one].process();
            process.freeze().map_err(BenchError::Signal)?;
            sleep(FROZEN).await;
            scene.ends_now();
            let process = scene.subscribers[one].process();
            process.thaw().map_err(BenchError::Signal)?;
        }
        Fault::RedisKill => {
            scene.redis.kill();
            scene.is_refused(AWAY).await?;
            scene.ends_now();
            scene.redis.restart().await?;
        }
        Fault::RedisStop => {
            scene.redis.freeze().map_err(BenchError::Signal)?;
            scene.is_refused(REDIS_FROZEN).await?;
            scene.ends_now();
            scene.redis.thaw().map_err(BenchError::Signal)?;
        }
        Fault::RedisRestart => {
            // It ends instead of answering.
            drop(scene.redis.ask(&["SHUTDOWN"]).await);
            scene.ends("SHUTDOWN did not end Redis").await?;
            scene.is_refused(AWAY).await?;
            scene.ends_now();
            scene.redis.restart().await?;
        }
        Fault::RedisFull => {
            let used = scene.redis.used_memory().await?.to_string();
            let full = [["maxmemory-policy", "noeviction"], ["maxmemory", &used]];
            for [name, value] in full {
                scene.redis.ask(&["CONFIG", "SET", name, value]).await?;
            }
            scene.is_refused(REFUSED).await?;
            scene.ends_now();
            scene
                .redis
                .ask(&["CONFIG", "SET", "maxmemory", "0"])
                .await?;
        }
        Fault::RedisReadOnly => {
            scene
                .redis
                .ask(&["REPLICAOF", NOBODY[0], NOBODY[1]])
                .await?;
            scene.is_refused(REFUSED).await?;
            scene.ends_now();
            scene.redis.ask(&["REPLICAOF", "NO", "ONE"]).await?;
        }
        Fault::Failover => fail_over(scene).await?,
        Fault::SentinelFailover => be_taken_over(scene).await?,
        Fault::ConnectionCut => {
            let proxy = scene.proxy()?;
            for _ in 0..CUTS {
                let after = dice.below(CUT_AFTER_BYTES_MAX);
                let cuts = proxy.cuts();
                proxy.change(|way| way.cut_after = Some(after));
                scene
                    .until("no connection was cut", || proxy.cuts() > cuts)
                    .await?;
            }
            scene.ends_now();
            scene.proxy()?.change(|way| way.cut_after = None);
        }
        Fault::SlowNetwork => {
            let rate = BYTES_PER_SECOND[dice.index(BYTES_PER_SECOND.len())];
            scene.proxy()?.change(|way| {
                way.latency = LATENCY;
                way.bytes_per_second = Some(rate);
            });
            sleep(SLOW).await;
            scene.ends_now();
            let proxy = scene.proxy()?;
            proxy.change(|way| {
                way.latency = Duration::ZERO;
                way.bytes_per_second = None;
            });
            if proxy.delayed() == 0 {
                return Err(BenchError::NotFelt("nothing was delayed"));
            }
        }
        Fault::DiskFull => {
            scene.redis.fill_disk().map_err(BenchError::Signal)?;
            scene
                .ends("Redis goes on without room for its file")
                .await?;
            scene.is_refused(AWAY).await?;
            scene.ends_now();
            scene.redis.restart().await?;
        }
        Fault::DiskFullEverysec => {
            scene.redis.fill_disk().map_err(BenchError::Signal)?;
            scene.is_refused(REFUSED).await?;
            scene.ends_now();
            scene.redis.free_disk().map_err(BenchError::Signal)?;
        }
    }
    Ok(())
}

/// Another Redis takes over with all that was written, as `FAILOVER` does. The address leads there from the
/// next connection on, as a name or a virtual address would; connections that are open stay so, and lead
/// to what is a replica now.
async fn fail_over(scene: &mut Scene) -> Result<(), BenchError> {
    let replica = scene.replica.take();
    let mut replica = replica.ok_or(BenchError::NotFelt("there is no replica"))?;
    let to: SocketAddr = replica.address();
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    scene
        .redis
        .ask(&["FAILOVER", "TO", &host, &port, "TIMEOUT", "10000"])
        .await?;
    scene.is_refused(REFUSED).await?;
    scene.ends_now();
    scene.proxy()?.change(|way| way.to = to);
    std::mem::swap(&mut scene.redis, &mut replica);
    scene.replica = Some(replica);
    Ok(())
}

/// The master is gone, and the replica made one. The old one comes back as its replica.
async fn be_taken_over(scene: &mut Scene) -> Result<(), BenchError> {
    let replica = scene.replica.take();
    let mut replica = replica.ok_or(BenchError::NotFelt("there is no replica"))?;
    scene.redis.kill();
    scene.is_refused(AWAY).await?;
    replica.leads().await?;
    scene.ends_now();
    std::mem::swap(&mut scene.redis, &mut replica);
    replica.restart().await?;
    let master = scene.redis.address();
    let (host, port) = (master.ip().to_string(), master.port().to_string());
    replica.ask(&["REPLICAOF", &host, &port]).await?;
    scene.replica = Some(replica);
    Ok(())
}
