//! Everything that reads bytes from outside, as functions of those bytes: what must hold of each,
//! whatever they are.
//!
//! A target fails by panicking. `tests/tests/fuzz_corpus.rs` gives each what is in `fuzz/corpus`, and
//! mutations of that; `fuzz/` gives it what libFuzzer makes up by what the code does.

use std::fs;
use std::path::{Path, PathBuf};

mod bus;
mod cases;
mod component;
mod config;
mod decisions;
mod entry;
mod envelope;
mod keys;
pub mod mutate;
mod registry;
mod reply;

/// What is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its corpus, and of its program in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// How many mutations `make test` tries: about a second of them.
    pub mutations: u64,
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    target("cases", cases::cases, 200),
    target("component", component::component, 400),
    target("config", config::config, 500),
    target("decisions", decisions::decisions, 150),
    target("entry", entry::entry, 10_000),
    target("envelope", envelope::envelope, 10_000),
    target("explain", bus::explain, 100),
    target("keys", keys::keys, 1_000),
    target("registry", registry::registry, 5_000),
    target("reply", reply::reply, 10_000),
    target("request", bus::request, 100),
];

const fn target(name: &'static str, run: fn(&[u8]), mutations: u64) -> Target {
    Target {
        name,
        run,
        mutations,
    }
}

/// Gives `bytes` to the target of this name.
///
/// # Panics
///
/// If something does not hold, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").run)(bytes);
}

impl Target {
    /// Where its corpus is.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        root().join("corpus").join(self.name)
    }

    /// Its corpus, by name of the file.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn corpus(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(self.directory()).expect("every target has a corpus");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        let read = |path: PathBuf| {
            let bytes = fs::read(&path).expect("a file of the corpus can be read");
            (path, bytes)
        };
        paths.into_iter().map(read).collect()
    }
}

/// The directory `fuzz`.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}
