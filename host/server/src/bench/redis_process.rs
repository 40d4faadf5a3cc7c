//! A Redis for the time of the benchmark.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
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
    /// It cannot be given a configuration.
    #[error("cannot write a configuration for redis-server")]
    Config(#[source] io::Error),
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
    /// A file with more options, which it may write to.
    config: Option<PathBuf>,
    options: Vec<String>,
    directory: PathBuf,
    process: Option<Process>,
}

/// A server that is told of a file that is too long as it is told of a full disk, not ended by the signal.
const WITHOUT_SIGNAL: &str = r#"trap "" XFSZ; exec redis-server "$@""#;

/// What a shell ends with if there is no such program.
const NOT_FOUND: i32 = 127;

impl RedisProcess {
    /// One that keeps nothing.
    pub(super) async fn start() -> Result<Self, StartError> {
        Self::start_in(&std::env::temp_dir(), &["--appendonly", "no"]).await
    }

    /// One in this directory, with these options. It never writes snapshots.
    pub(super) async fn start_in(directory: &Path, options: &[&str]) -> Result<Self, StartError> {
        let mut redis = Self {
            port: free_port()?,
            config: None,
            options: options.iter().map(ToString::to_string).collect(),
            directory: directory.to_owned(),
            process: None,
        };
        redis.restart().await?;
        Ok(redis)
    }

    /// A Sentinel, with this configuration.
    pub(super) async fn start_sentinel(directory: &Path, config: &str) -> Result<Self, StartError> {
        let file = directory.join("sentinel.conf");
        std::fs::write(&file, config).map_err(StartError::Config)?;
        let mut sentinel = Self {
            port: free_port()?,
            config: Some(file),
            options: vec!["--sentinel".to_owned()],
            directory: directory.to_owned(),
            process: None,
        };
        sentinel.restart().await?;
        Ok(sentinel)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its process, while it runs.
    pub(super) fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Ends it without a word, as a crash would.
    pub(super) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Asks it something, as somebody beside the bus.
    pub(super) async fn ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words.first().copied().unwrap_or_default());
        command.arg(&words[1..]).query_async(&mut connection).await
    }

    /// Waits until its process has ended by itself. `false` if it has not in time.
    pub(super) async fn ends(&mut self) -> bool {
        let ended = async {
            let mut looks = interval(LOOK);
            while self.ended().is_none() {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, ended).await.is_ok()
    }

    /// Starts it (again), on the same port and with the data that it had.
    pub(super) async fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        let log = self.directory.join(format!("redis-{}.log", self.port));
        let process = Process::spawn(
            Command::new("sh")
                .args(["-c", WITHOUT_SIGNAL, "redis-server"])
                .args(&self.config)
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
        match answers.unwrap_or(false) {
            true => Ok(()),
            false if self.ended().and_then(|status| status.code()) == Some(NOT_FOUND) => {
                Err(StartError::Missing(io::ErrorKind::NotFound.into()))
            }
            false => Err(StartError::Silent(last_line(&log))),
        }
    }

    /// Waits until it has read what it had written, and answers. `false` if it has ended.
    async fn answers(&mut self) -> bool {
        let mut turns = interval(LOOK);
        while ping(&self.url()).await.is_err() {
            if self.ended().is_some() {
                return false;
            }
            turns.tick().await;
        }
        true
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.ended()
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
