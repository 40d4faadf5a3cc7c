//! Hosts that share a Redis, and the command line that speaks to them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{self, Host, text, wait_until};
use crate::policies;
use crate::redis_server::RedisServer;

/// A Redis, a directory for what is written, and hosts that share both.
#[derive(Debug)]
pub struct Stand {
    /// The Redis.
    pub redis: RedisServer,
    directory: TempDir,
}

impl Stand {
    /// With a Redis that writes everything to disk.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn new() -> Self {
        Self::on(RedisServer::start())
    }

    /// On a Redis of one's own.
    ///
    /// # Panics
    ///
    /// If there is no directory to be had.
    #[must_use]
    pub fn on(redis: RedisServer) -> Self {
        Self {
            redis,
            directory: TempDir::new().expect("a temporary directory"),
        }
    }

    /// A file of this directory, by name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same, as an argument.
    ///
    /// # Panics
    ///
    /// If the temporary directory of this machine has no name in UTF-8.
    #[must_use]
    pub fn at(&self, name: &str) -> String {
        self.path(name)
            .to_str()
            .expect("a path in UTF-8")
            .to_owned()
    }

    /// A copy of a component, so that it can be signed.
    #[must_use]
    pub fn component(&self, name: &str) -> String {
        self.component_with(name, &[])
    }

    /// A copy of a component that says something more, in a section that nobody reads: so it has a
    /// digest of its own.
    ///
    /// # Panics
    ///
    /// If it cannot be written, or says more than 100 bytes.
    #[must_use]
    pub fn component_with(&self, name: &str, more: &[u8]) -> String {
        let mut bytes = policies::policy(name);
        if !more.is_empty() {
            let size = u8::try_from(more.len() + 2).expect("it is short");
            assert!(size < 128, "it is one byte of LEB128");
            bytes.extend_from_slice(&[0, size, 1, b'x']);
            bytes.extend_from_slice(more);
        }
        let path = self.path(&format!("{name}.wasm"));
        fs::write(&path, bytes).expect("a file in a temporary directory");
        path.to_str().expect("it is UTF-8").to_owned()
    }

    /// What the Redis answers to a command of one line.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn redis(&self, command: &str) -> String {
        let url = self.redis.url();
        let address = url.strip_prefix("redis://").expect("it has no password");
        let mut connection = TcpStream::connect(address).expect("it accepts connections");
        write!(connection, "{command}\r\n").expect("it takes commands");
        let mut line = String::new();
        let read = BufReader::new(connection).read_line(&mut line);
        read.expect("it answers");
        line.trim_end().to_owned()
    }

    /// A host with a cache of its own and these settings.
    #[must_use]
    pub fn host(&self, name: &str, settings: &[&str]) -> Host {
        self.host_at(&self.redis.url(), name, settings)
    }

    /// As [`Stand::host`], with another way to the Redis.
    #[must_use]
    pub fn host_at(&self, url: &str, name: &str, settings: &[&str]) -> Host {
        let cache = format!("registry.cache_directory={}", self.at(name));
        let url = format!("store.url={url}");
        let mut arguments = vec![
            "--set",
            &cache,
            "--set",
            &url,
            "--set",
            "registry.poll_ms=50",
        ];
        // Only the registry says what is in use.
        let none = format!("policies.directory={}", self.at("nothing"));
        arguments.extend(["--set", &none, "--set", "policies.watch=false"]);
        // A machine that runs other tests too is slow: that is no fault of a policy.
        arguments.extend(["--set", "policies.engine.call_ms_max=500"]);
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        Host::start(&arguments)
    }
}

/// A command to a host.
///
/// # Panics
///
/// If it cannot be started.
#[must_use]
pub fn oona(host: &Host, arguments: &[&str]) -> Output {
    oona_with(host, arguments, |_| {})
}

/// As [`oona()`], with a last word to the command.
///
/// # Panics
///
/// If it cannot be started.
#[must_use]
pub fn oona_with(host: &Host, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let directory = TempDir::new().expect("a temporary directory");
    let mut command = binary::command(&directory, arguments);
    command.args(["--server", &host.address.to_string()]);
    prepare(&mut command);
    command.output().expect("the binary starts")
}

/// What a command answers that must succeed.
///
/// # Panics
///
/// If it does not.
#[track_caller]
pub fn ask(host: &Host, arguments: &[&str]) -> Value {
    let output = oona(host, &[arguments, &["--output", "json"]].concat());
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON was asked for")
}

/// What a command says that must fail.
///
/// # Panics
///
/// If it does not.
#[track_caller]
#[must_use]
pub fn refused(host: &Host, arguments: &[&str]) -> String {
    let output = oona(host, arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments:?}: {}",
        text(&output.stdout)
    );
    text(&output.stderr).to_owned()
}

/// What a host says of its policy of a kind.
///
/// # Panics
///
/// If it says nothing.
#[must_use]
pub fn of_kind(host: &Host, kind: &str) -> Value {
    let list = ask(host, &["policy", "list"]);
    let mut policies = list["policies"].as_array().into_iter().flatten();
    let found = policies.find(|policy| policy["kind"] == kind);
    found.expect("there is one of each kind").clone()
}

/// Waits until a host has a policy in use, with this configuration.
///
/// # Panics
///
/// If it never has.
#[track_caller]
pub fn wait_for(host: &Host, kind: &str, name: &str, config: &Value) {
    let mut last = Value::Null;
    let there = wait_until(|| {
        last = of_kind(host, kind);
        last["name"] == name && last["config"] == *config
    });
    assert!(there, "expected {name} with {config}, but {last}");
}

/// The setting of a host that takes what nobody has signed.
pub const UNSIGNED: &str = "policies.allow_unsigned=true";

impl Default for Stand {
    fn default() -> Self {
        Self::new()
    }
}
