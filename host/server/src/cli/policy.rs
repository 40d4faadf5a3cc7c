//! `oona policy`: what a platform engineer does with policies.

mod activate;
mod bench;
mod build;
mod check;
mod componentize;
mod history;
mod inspect;
mod keys;
mod list;
mod log;
mod new;
mod push;
mod replay;
mod rollback;
mod test;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use indicatif::ProgressBar;
use oona_wasm::{Artifact, Engine, EngineConfig};
use serde::Serialize;

use super::{Failure, client, duration_ms, instant};
use crate::author;
use crate::cases::Cases;
use crate::chain::chain;
use crate::proto;
use crate::signature::SignatureFile;

/// How often a sign of life moves.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a crate to begin a policy with
    New(new::New),
    /// Build a policy: from source to a component
    Build(build::Build),
    /// Tell what a file is: kind, version, digest, imports, configuration
    Inspect(inspect::Inspect),
    /// Run a table of cases, in the sandbox and without a bus
    Test(test::Test),
    /// Try the laws of its kind on a policy, on generated messages
    Check(check::Check),
    /// Measure what a policy costs, beside another
    Bench(bench::Bench),
    /// Keep a policy in the registry, where every host finds it
    Push(push::Push),
    /// Put a policy in the place of the one in use, on every host
    Activate(activate::Activate),
    /// Try a policy beside the one in use: it is asked and compared
    Shadow(activate::Shadow),
    /// Try a policy on a share of the keys
    Canary(activate::Canary),
    /// Put the policy that is tried in use
    Promote(rollback::Promote),
    /// End the trial of a policy
    Withdraw(rollback::Withdraw),
    /// Go back to what was in use before, on every host
    Rollback(rollback::Rollback),
    /// List the policies in use, or what the registry keeps
    List(list::List),
    /// Tell who changed what, when and why, and what came of it
    History(history::History),
    /// Tell what is different between two activations
    Diff(history::Diff),
    /// Show decisions as they are made
    Log(log::Log),
    /// Tell what a policy would have decided on recorded decisions
    Replay(replay::Replay),
    /// Make a pair of keys to sign policies with
    Keygen(keys::Keygen),
    /// Sign a policy
    Sign(keys::Sign),
    /// Check who signed a policy
    Verify(keys::Verify),
    /// Make a component of a core WebAssembly module
    Componentize(componentize::Componentize),
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Push(args) => client::run(push::run(&args)),
        Command::Activate(args) => client::run(activate::activate(&args)),
        Command::Shadow(args) => client::run(activate::shadow(&args)),
        Command::Canary(args) => client::run(activate::canary(&args)),
        Command::Promote(args) => client::run(rollback::promote(&args)),
        Command::Withdraw(args) => client::run(rollback::withdraw(&args)),
        Command::Rollback(args) => client::run(rollback::rollback(&args)),
        Command::List(args) => client::run(list::run(&args)),
        Command::History(args) => client::run(history::history(&args)),
        Command::Diff(args) => client::run(history::diff(&args)),
        Command::Log(args) => client::run(log::run(&args)),
        Command::Replay(args) => replay::run(&args),
        Command::Keygen(args) => keys::keygen(&args),
        Command::Sign(args) => keys::sign(&args),
        Command::Verify(args) => keys::verify(&args),
        Command::Componentize(args) => componentize::run(&args),
    }
}

/// Which policy somebody means.
enum Which {
    /// The component in a file, and the signatures beside it.
    File(Vec<u8>, Vec<proto::Signature>),
    /// One in the registry.
    Digest(String),
}

impl Which {
    /// A file if there is one of that name, else a digest.
    fn find(named: &str) -> Result<Self, Failure> {
        let path = Path::new(named);
        let digits = named.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !path.exists() && digits && named.len() >= 6 {
            return Ok(Self::Digest(named.to_lowercase()));
        }
        signed(path)
    }
}

/// A component and the signatures beside it.
fn signed(path: &Path) -> Result<Which, Failure> {
    let component = read(path)?;
    let beside = SignatureFile::read(path).map_err(anyhow::Error::from)?;
    let signatures = beside.into_iter().flat_map(|beside| beside.signatures);
    let signatures = signatures.map(|signature| proto::Signature {
        key: signature.key,
        signature: signature.signature,
    });
    Ok(Which::File(component, signatures.collect()))
}

/// A sign of life on a terminal, until it is dropped.
fn busy(doing: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(doing);
    spinner.enable_steady_tick(TICK);
    spinner
}

/// A policy in a file, in a sandbox of its own.
fn load(file: &Path) -> Result<Artifact, Failure> {
    let _busy = busy("compiling");
    let config = EngineConfig {
        cache_directory: Some(author::cache_directory().join("compiled")),
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).map_err(anyhow::Error::from)?;
    let artifact = Artifact::load_any(&engine, &read(file)?);
    let artifact =
        artifact.map_err(|error| anyhow::anyhow!("{}: {}", file.display(), chain(&error)))?;
    Ok(artifact)
}

/// The cases in a file or, without one, those that travel with a policy.
fn cases(file: Option<&Path>, artifact: &Artifact) -> Result<Option<Cases>, Failure> {
    let Some(file) = file else {
        return Ok(Cases::of(artifact).map_err(anyhow::Error::from)?);
    };
    let kind = artifact.kind();
    let text = read(file)?;
    let shown = file.display().to_string();
    let text =
        String::from_utf8(text).map_err(|_| Failure::Usage(format!("{shown} is no text")))?;
    let cases = Cases::parse(&shown, &text).map_err(|error| Failure::Usage(error.to_string()))?;
    if cases.kind != kind {
        return Err(Failure::Usage(format!(
            "{shown} is about a {} policy, and this is a {kind} policy",
            cases.kind
        )));
    }
    Ok(Some(cases))
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
    status: serde_json::Value,
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
            status: serde_json::from_str(&status.json).unwrap_or_default(),
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
