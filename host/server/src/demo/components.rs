//! The components that the demo shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use crate::host::policy_directory;

/// Configuration of the second routing policy: reports from the edge get a stream of their own.
pub(super) const SECOND_CONFIG: &str = r#"{"origins": ["edge"], "stream": "oona.telemetry"}"#;

/// A policy that never answers.
pub(super) const HOSTILE_AT_ONCE: &str = r#"{"mode": "loop"}"#;

/// A policy that behaves for ten calls and then never answers.
pub(super) const HOSTILE_LATER: &str = r#"{"mode": "loop", "after": 10}"#;

/// A component, compiled by nobody yet.
pub(super) struct Component {
    pub(super) name: &'static str,
    pub(super) bytes: Arc<[u8]>,
}

/// All that the demo needs.
pub(super) struct Components {
    pub(super) shipped: Vec<Component>,
    pub(super) second: Component,
    /// Where the second routing policy was read from.
    pub(super) second_path: PathBuf,
    pub(super) hostile: Component,
}

/// A component is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}; run `make policies`, or name their directory with --policies", path.display())]
pub struct MissingPolicies {
    path: PathBuf,
    source: io::Error,
}

impl Components {
    pub(super) fn read(directory: Option<&Path>) -> Result<Self, MissingPolicies> {
        let found = policy_directory(directory);
        let directory = found.as_deref().unwrap_or(Path::new("target/policies"));
        let read = |name: &'static str| {
            let path = directory.join(format!("{name}.wasm"));
            match fs::read(&path) {
                Ok(bytes) => Ok(Component {
                    name,
                    bytes: bytes.into(),
                }),
                Err(source) => Err(MissingPolicies { path, source }),
            }
        };
        let shipped = ["routing", "backpressure", "freshness", "dead-letter"];
        Ok(Self {
            shipped: shipped.into_iter().map(read).collect::<Result<_, _>>()?,
            second: read("routing-by-origin")?,
            second_path: directory.join("routing-by-origin.wasm"),
            hostile: read("hostile")?,
        })
    }
}
