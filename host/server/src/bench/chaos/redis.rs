//! What a Redis is made to suffer.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::time::{interval, timeout};

use super::super::BenchError;
use super::super::process::Process;
use super::super::raw::Raw;
use super::super::redis_process::{RedisProcess, StartError};

/// What Sentinels call the first Redis.
pub(super) const MASTER: &str = "chaos";

/// How long anything may take that is waited for. A Sentinel that was put aside for more than 2 s does nothing
/// for 30 s (`TILT`).
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks whether something has happened.
const LOOK: Duration = Duration::from_millis(10);

impl RedisProcess {
    /// It does not answer, and keeps its connections.
    pub(super) fn freeze(&mut self) -> io::Result<()> {
        self.running()?.freeze()
    }

    /// It goes on.
    pub(super) fn thaw(&mut self) -> io::Result<()> {
        self.running()?.thaw()
    }

    /// Its file cannot grow any more.
    pub(super) fn fill_disk(&mut self) -> io::Result<()> {
        let size = largest(self.directory())?;
        self.running()?.limit_files(Some(size))
    }

    /// Its file can grow again.
    pub(super) fn free_disk(&mut self) -> io::Result<()> {
        self.running()?.limit_files(None)
    }

    pub(super) async fn used_memory(&self) -> RedisResult<u64> {
        Raw::connect(&self.url()).await?.used_memory().await
    }

    /// Waits until it has all that its master has.
    pub(super) async fn follows(&self) -> Result<(), BenchError> {
        self.tells("master_link_status:up", "the replica does not follow")
            .await
    }

    /// Waits until it has taken over.
    pub(super) async fn leads(&self) -> Result<(), BenchError> {
        self.tells("role:master", "the replica did not take over")
            .await
    }

    async fn tells(&self, text: &str, otherwise: &'static str) -> Result<(), BenchError> {
        let told = async || {
            let info = self.ask(&["INFO", "replication"]).await?;
            let info: String = redis::from_redis_value(info)?;
            Ok(info.contains(text))
        };
        eventually(told, otherwise).await
    }

    /// Of a Sentinel: waits until it knows a replica that could take over.
    pub(super) async fn knows_replica(&self) -> Result<(), BenchError> {
        let known = async || {
            let replicas = self.ask(&["SENTINEL", "REPLICAS", MASTER]).await?;
            let replicas: Vec<BTreeMap<String, String>> = redis::from_redis_value(replicas)?;
            let link = |replica: &BTreeMap<_, _>| replica.get("master-link-status").cloned();
            Ok(replicas
                .iter()
                .filter_map(link)
                .any(|status| status == "ok"))
        };
        eventually(known, "the Sentinel knows no replica").await
    }

    fn running(&mut self) -> io::Result<&mut Process> {
        self.process().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A Sentinel of this master, which knows within moments that it is gone.
pub(super) async fn sentinel_of(
    master: SocketAddr,
    directory: &Path,
) -> Result<RedisProcess, StartError> {
    let (host, port) = (master.ip(), master.port());
    let config = format!(
        "sentinel monitor {MASTER} {host} {port} 1\n\
         sentinel down-after-milliseconds {MASTER} 500\n\
         sentinel failover-timeout {MASTER} 5000\n"
    );
    RedisProcess::start_sentinel(directory, &config).await
}

/// Waits until something is so. What cannot be asked yet is not.
async fn eventually(
    mut so: impl AsyncFnMut() -> Result<bool, RedisError>,
    otherwise: &'static str,
) -> Result<(), BenchError> {
    let wait = async {
        let mut looks = interval(LOOK);
        while !so().await.unwrap_or(false) {
            looks.tick().await;
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    waited.map_err(|_| BenchError::NotFelt(otherwise))
}

/// Size of the largest file there: the one that grows.
fn largest(directory: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.metadata()?;
        size = size.max(if found.is_dir() {
            largest(&entry.path())?
        } else {
            found.len()
        });
    }
    Ok(size)
}
