//! `oona policy`: what a platform engineer does with policies.

mod activate;
mod componentize;
mod list;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

use super::{Failure, client};
use crate::proto;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put a policy in the place of the one in use
    Activate(activate::Activate),
    /// List the policies in use
    List(list::List),
    /// Make a component of a core WebAssembly module
    Componentize(componentize::Componentize),
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Activate(args) => client::run(activate::run(&args)),
        Command::List(args) => client::run(list::run(&args)),
        Command::Componentize(args) => componentize::run(&args),
    }
}

/// A policy in use.
#[derive(Debug, Serialize)]
struct Policy {
    kind: String,
    name: String,
    version: String,
    digest: String,
    native: bool,
    generation: u64,
    config: serde_json::Value,
}

impl From<proto::PolicyStatus> for Policy {
    fn from(status: proto::PolicyStatus) -> Self {
        Self {
            kind: status.kind,
            name: status.name,
            version: status.version,
            digest: status.digest,
            native: status.native,
            generation: status.generation,
            config: serde_json::from_str(&status.config_json).unwrap_or_default(),
        }
    }
}

impl Policy {
    fn text(&self) -> String {
        let Self {
            kind,
            name,
            version,
            generation,
            ..
        } = self;
        let origin = match self.digest.get(..DIGEST_SHOWN) {
            Some(digest) if !self.native => format!("sha256 {digest}"),
            _ => "built in".to_owned(),
        };
        format!("{kind:<13} {name} {version} ({origin}), generation {generation}")
    }
}

/// How many characters of a digest are enough to tell it from others.
const DIGEST_SHOWN: usize = 12;

/// A policy's configuration as JSON, whichever form it is written in.
fn config(file: &Path) -> Result<String, Failure> {
    let text = read(file)?;
    let text = String::from_utf8(text).with_context(|| format!("{} is no text", file.display()))?;
    if file
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        return Ok(text);
    }
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Failure::Usage(format!("{}:{line}: {}", file.display(), error.message()))
    })?;
    Ok(serde_json::to_string(&table).map_err(anyhow::Error::from)?)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes beside the target and renames, so that a watched directory never sees half a file.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}
