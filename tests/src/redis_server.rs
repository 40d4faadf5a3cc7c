//! A real Redis on a free port, in a directory of its own, ended with the test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::binary::wait_until;

/// A running `redis-server`. It keeps its data over [`RedisServer::kill`] and
/// [`RedisServer::restart`], and is ended when dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    options: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that writes every command to disk before it answers.
    ///
    /// # Panics
    ///
    /// If there is no `redis-server`, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`RedisServer::start`], with more options: `["--requirepass", "secret"]`.
    ///
    /// # Panics
    ///
    /// If there is no `redis-server`, or it does not start.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        let mut server = Self {
            port: free_port(),
            options: options.iter().map(ToString::to_string).collect(),
            directory: TempDir::new().expect("a temporary directory"),
            child: None,
        };
        server.restart();
        server
    }

    /// Where nobody listens, until [`RedisServer::restart`].
    ///
    /// # Panics
    ///
    /// If there is no free port.
    #[must_use]
    pub fn down() -> Self {
        Self {
            port: free_port(),
            options: Vec::new(),
            directory: TempDir::new().expect("a temporary directory"),
            child: None,
        }
    }

    /// Its address, without a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it without a word, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it (again), on the same port and with the data that it had.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        let log = self.directory.path().join("redis.log");
        let mut child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always"])
            .args(["--logfile", "redis.log", "--daemonize", "no"])
            .args(&self.options)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is needed: run `make setup`, which installs it");
        let ready = wait_until(|| {
            let ended = child.try_wait().expect("it is our child").is_some();
            ended || is_ready(self.port, &log)
        });
        let ended = child.try_wait().expect("it is our child").is_some();
        self.child = Some(child);
        assert!(
            ready && !ended,
            "redis-server does not start; it says:\n{}",
            fs::read_to_string(&log).unwrap_or_default()
        );
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Whether it accepts connections, and has read what it had written.
fn is_ready(port: u16, log: &Path) -> bool {
    let starts = fs::read_to_string(log).unwrap_or_default();
    let loaded = starts.rfind("Server initialized") < starts.rfind("Ready to accept connections");
    loaded && TcpStream::connect(("127.0.0.1", port)).is_ok()
}
