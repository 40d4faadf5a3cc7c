//! A Redis for the time of the benchmark, that keeps nothing.

use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{interval, timeout};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no Redis.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not installed.
    #[error("cannot run redis-server ({0}); run `make setup`, or name a Redis with --redis")]
    Missing(#[source] io::Error),
    /// It does not answer.
    #[error("redis-server was started and does not answer")]
    Silent,
    /// There is no free port.
    #[error("there is no free port")]
    Port(#[source] io::Error),
}

/// Ended when dropped.
pub(super) struct RedisProcess {
    port: u16,
    child: Child,
}

impl RedisProcess {
    pub(super) async fn start() -> Result<Self, StartError> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(StartError::Port)?;
        let port = listener.local_addr().map_err(StartError::Port)?.port();
        drop(listener);
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(StartError::Missing)?;
        let process = Self { port, child };
        let answers = timeout(PATIENCE, process.answers()).await;
        answers.map_err(|_| StartError::Silent)?;
        Ok(process)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn answers(&self) {
        let mut turns = interval(Duration::from_millis(10));
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .is_err()
        {
            turns.tick().await;
        }
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
