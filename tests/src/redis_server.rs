//! A real Redis on a free port, in a directory of its own, ended with the test.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::binary::wait_until;
use crate::place::Place;

/// A running `redis-server`. It keeps its data over [`RedisServer::kill`] and
/// [`RedisServer::restart`], and is ended when dropped.
#[derive(Debug)]
pub struct RedisServer {
    place: Place,
    options: Vec<String>,
    persists: bool,
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
            place: Place::hold(),
            options: options.iter().map(ToString::to_string).collect(),
            persists: true,
            directory: TempDir::new().expect("a temporary directory"),
            child: None,
        };
        server.restart();
        server
    }

    /// Starts one that keeps nothing on disk: whatever ends it, it begins with nothing.
    ///
    /// # Panics
    ///
    /// If there is no `redis-server`, or it does not start.
    #[must_use]
    pub fn start_forgetful() -> Self {
        let mut server = Self::down();
        server.persists = false;
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
            place: Place::hold(),
            options: Vec::new(),
            persists: true,
            directory: TempDir::new().expect("a temporary directory"),
            child: None,
        }
    }

    /// Its address, without a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.place.port)
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Asks it something, as somebody beside the bus.
    ///
    /// # Panics
    ///
    /// If it does not answer, or with something else than what is expected.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).expect("an address of Redis");
        let mut connection = client.get_connection().expect("it accepts connections");
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query(&mut connection).expect("it answers")
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
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
        let logged = fs::read_to_string(&log).map_or(0, |log| log.len());
        let mut child = Command::new("redis-server")
            .args([
                "--port",
                &self.place.port.to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .args(["--save", "", "--appendfsync", "always"])
            .args(["--appendonly", if self.persists { "yes" } else { "no" }])
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
            ended || is_ready(self.place.port, &log, logged)
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

/// Whether it accepts connections, and has read what it had written. What it logged before it was
/// started again says nothing.
fn is_ready(port: u16, log: &Path, logged: usize) -> bool {
    let log = fs::read_to_string(log).unwrap_or_default();
    let loaded = log[logged..].contains("Ready to accept connections");
    loaded && TcpStream::connect(("127.0.0.1", port)).is_ok()
}
