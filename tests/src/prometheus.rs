//! A real Prometheus that scrapes a host, ended with the test.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::wait_until;
use crate::http::{Answer, get_in_one_piece};
use crate::place::Place;

/// A running `prometheus`.
#[derive(Debug)]
pub struct Prometheus {
    place: Place,
    directory: TempDir,
    child: Child,
}

impl Prometheus {
    /// Starts one that scrapes this host once a second.
    ///
    /// # Panics
    ///
    /// If there is no `prometheus`, or it does not start.
    #[must_use]
    pub fn of(host: SocketAddr) -> Self {
        let place = Place::hold();
        let directory = TempDir::new().expect("a temporary directory");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n- job_name: oona\n  static_configs: [{{targets: ['{host}']}}]\n"
        );
        let path = directory.path().join("prometheus.yml");
        fs::write(&path, config).expect("a file in a temporary directory");
        let log = File::create(directory.path().join("log")).expect("it can be written");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{}", place.port))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a prometheus: tests/setup.sh prometheus installs it");
        let started = Self {
            place,
            directory,
            child,
        };
        let is_ready = || {
            TcpStream::connect(started.address()).is_ok()
                && get_in_one_piece(started.address(), "/-/ready").status == 200
        };
        assert!(wait_until(is_ready), "it is not ready: {}", started.log());
        started
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.place.port))
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What a query finds now: its series.
    ///
    /// # Errors
    ///
    /// What is wrong with the query.
    pub fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in query.bytes() {
            let _ = write!(path, "%{byte:02x}");
        }
        let answer: Answer = get_in_one_piece(self.address(), &path);
        let told = answer.json();
        let found = told["data"]["result"].as_array();
        found.cloned().ok_or_else(|| told.to_string())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
