//! What a Redis is made to suffer.

use std::io;
use std::path::Path;
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::time::{interval, timeout};

use super::super::BenchError;
use super::super::process::Process;
use super::super::raw::Raw;
use super::super::redis_process::RedisProcess;

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
    pub(super) async fn follows(&self, patience: Duration) -> Result<(), BenchError> {
        let follows = async {
            let mut looks = interval(LOOK);
            loop {
                looks.tick().await;
                let told = self.ask(&["INFO", "replication"]).await?;
                let info: String = redis::from_redis_value(told).map_err(RedisError::from)?;
                if info.contains("master_link_status:up") {
                    return Ok(());
                }
            }
        };
        let followed = timeout(patience, follows).await;
        followed.unwrap_or(Err(BenchError::NotFelt("the replica does not follow")))
    }

    fn running(&mut self) -> io::Result<&mut Process> {
        self.process().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
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
