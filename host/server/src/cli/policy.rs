//! `oona policy`: what a platform engineer does with policies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use oona_core::policy::Kind;
use serde::Serialize;

use super::client::{self, Server};
use super::output::{self, Output};
use super::{EXIT_OK, Failure};
use crate::proto::{self, ActivatePolicyRequest, ListPoliciesRequest};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put a policy in the place of the one in use
    Activate(Activate),
    /// List the policies in use
    List(List),
    /// Make a component of a core WebAssembly module
    Componentize(Componentize),
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Activate(args) => client::run(activate(&args)),
        Command::List(args) => client::run(list(&args)),
        Command::Componentize(args) => componentize(&args),
    }
}

const ACTIVATE_HELP: &str = "\
The bus checks the component first: its world, its imports, its configuration. One that is refused
leaves the policy in use where it is. No message is lost or delayed by the change.

Examples:
  oona policy activate target/policies/routing.wasm
  oona policy activate routing.wasm --config routing.toml --output json";

#[derive(Args, Debug)]
#[command(after_help = ACTIVATE_HELP)]
pub(super) struct Activate {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The kind it must be of; whichever it is without it
    #[arg(long)]
    kind: Option<Kind>,
    /// Its configuration, as TOML or, if the name ends in .json, as JSON; the current one without it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

async fn activate(args: &Activate) -> Result<u8, Failure> {
    let component = read(&args.file)?;
    let config_json = args.config.as_deref().map(config).transpose()?;
    let request = ActivatePolicyRequest {
        kind: args
            .kind
            .map_or_else(String::new, |kind| kind.name().to_owned()),
        component: component.into(),
        config_json,
    };
    let mut admin = args.server.admin().await?;
    let response = admin.activate_policy(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let activated = Activated {
        policy: response
            .policy
            .map(Policy::from)
            .context("the bus did not say what is in use")?,
        replaced: response.replaced.map(Policy::from),
        prepared_in_us: response.prepared_in_us,
    };
    args.output
        .write(&activated, Activated::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

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

const LIST_HELP: &str = "\
Example:
  oona policy list --output json";

#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(super) struct List {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

async fn list(args: &List) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let response = admin.list_policies(ListPoliciesRequest {}).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let policies = Policies {
        policies: response.policies.into_iter().map(Policy::from).collect(),
    };
    args.output
        .write(&policies, Policies::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
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

#[derive(Debug, Serialize)]
struct Policies {
    policies: Vec<Policy>,
}

impl Policies {
    fn text(&self) -> String {
        self.policies
            .iter()
            .map(Policy::text)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[derive(Debug, Serialize)]
struct Activated {
    policy: Policy,
    replaced: Option<Policy>,
    prepared_in_us: u64,
}

impl Activated {
    fn text(&self) -> String {
        let ms = self.prepared_in_us as f64 / 1_000.0;
        let replaced = self
            .replaced
            .as_ref()
            .map(|replaced| format!("replaced: {}\n", replaced.text()));
        format!(
            "in use:   {}\n{}checked and compiled in {ms:.1} ms",
            self.policy.text(),
            replaced.unwrap_or_default()
        )
    }
}

const COMPONENTIZE_HELP: &str = "\
A policy written in Rust is built for wasm32-unknown-unknown, which yields a core module that
carries the description of its world. This turns it into the component that a bus loads. No server
and no other tool is needed.

Example:
  cargo build --target wasm32-unknown-unknown --profile policy -p oona-policy-routing
  oona policy componentize oona_policy_routing.wasm --out routing.wasm";

#[derive(Args, Debug)]
#[command(after_help = COMPONENTIZE_HELP)]
pub(super) struct Componentize {
    /// The core module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where to write the component
    #[arg(long, short, alias = "output", value_name = "FILE")]
    out: PathBuf,
}

fn componentize(args: &Componentize) -> Result<u8, Failure> {
    let module = read(&args.module)?;
    let component = oona_wasm::componentize(&module)
        .with_context(|| format!("cannot make a component of {}", args.module.display()))?;
    replace(&args.out, &component)?;
    output::say(&format!(
        "{}: {} bytes",
        args.out.display(),
        component.len()
    ));
    Ok(EXIT_OK)
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
