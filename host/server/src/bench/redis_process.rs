//! A Redis for the time of the benchmark.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{interval, timeout};

use super::process::Process;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Why there is no Redis, or no host.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not installed.
    #[error("cannot run redis-server ({0}); run `make setup`, or name a Redis with --redis")]
    Missing(#[source] io::Error),
    /// It does not answer.
    #[error("redis-server was started and does not answer; {0}")]
    Silent(String),
    /// There is no free port.
    #[error("there is no free port")]
    Port(#[source] io::Error),
    /// This program cannot be run again.
    #[error("cannot run this program as a host of its own")]
    Host(#[source] io::Error),
    /// The host says nothing.
    #[error("a host was started and does not serve; it says: {0}")]
    HostSilent(String),
}

/// Ended when dropped.
#[derive(Debug)]
pub(super) struct RedisProcess {
    port: u16,
    options: Vec<String>,
    directory: PathBuf,
    process: Option<Process>,
}

impl RedisProcess {
    /// One that keeps nothing.
    pub(super) async fn start() -> Result<Self, StartError> {
        Self::start_in(&std::env::temp_dir(), &["--appendonly", "no"]).await
    }

    /// One in this directory, with these options. It never writes snapshots.
    pub(super) async fn start_in(directory: &Path, options: &[&str]) -> Result<Self, StartError> {
        let mut redis = Self {
            port: free_port()?,
            options: options.iter().map(ToString::to_string).collect(),
            directory: directory.to_owned(),
            process: None,
        };
        redis.restart().await?;
        Ok(redis)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process, while it runs.
    pub(super) fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Ends it without a word, as a crash would.
    pub(super) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it (again), on the same port and with the data that it had.
    pub(super) async fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        let log = self.directory.join(format!("redis-{}.log", self.port));
        let process = Process::spawn(
            Command::new("redis-server")
                .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", ""])
                .arg("--logfile")
                .arg(&log)
                .args(&self.options)
                .current_dir(&self.directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        self.process = Some(process.map_err(StartError::Missing)?);
        let answers = timeout(PATIENCE, self.answers()).await;
        answers.map_err(|_| StartError::Silent(last_line(&log)))
    }

    /// Waits until it has read what it had written, and answers.
    async fn answers(&self) {
        let mut turns = interval(LOOK);
        while ping(&self.url()).await.is_err() {
            turns.tick().await;
        }
    }
}

async fn ping(url: &str) -> redis::RedisResult<()> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").query_async(&mut connection).await
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16, StartError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(StartError::Port)?;
    Ok(listener.local_addr().map_err(StartError::Port)?.port())
}

/// The last thing that a process has written.
pub(super) fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.trim_end()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}
