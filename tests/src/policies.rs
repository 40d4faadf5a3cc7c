//! Components as `make policies` builds them, and a bus for them to decide about.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oona_wasm::{Names, SymbolTable};

/// The streams of the test bus: those of the default configuration.
pub const STREAMS: [&str; 8] = [
    "oona.normal",
    "oona.emergency",
    "oona.control",
    "oona.telemetry",
    "oona.policy",
    "oona.kernels.requests",
    "oona.kernels.ready",
    "oona.kernels.errors",
];

/// The component `NAME.wasm`.
///
/// # Panics
///
/// If it has not been built.
#[must_use]
pub fn policy(name: &str) -> Vec<u8> {
    let path = directory().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `make policies`", path.display());
    })
}

/// Where the components are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies")
}

/// The names of a bus with [`STREAMS`].
#[must_use]
pub fn names() -> Names {
    let symbols = SymbolTable::default();
    let streams: BTreeSet<_> = STREAMS
        .into_iter()
        .map(|name| symbols.intern(name))
        .collect();
    Names {
        symbols,
        streams: Arc::new(streams),
    }
}
