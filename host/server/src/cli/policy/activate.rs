//! `oona policy activate`: another policy in the place of the one in use.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use oona_core::policy::Kind;
use serde::Serialize;

use super::super::client::{self, Server};
use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use super::{Policy, config, read};
use crate::proto::ActivatePolicyRequest;

const ACTIVATE_HELP: &str = "\
The bus checks the component first: its world, its imports, its configuration. One that is refused
leaves the policy in use where it is. No message is lost or delayed by the change.

Examples:
  oona policy activate target/policies/routing.wasm
  oona policy activate routing.wasm --config routing.toml --output json";

#[derive(Args, Debug)]
#[command(after_help = ACTIVATE_HELP)]
pub(in crate::cli) struct Activate {
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

pub(super) async fn run(args: &Activate) -> Result<u8, Failure> {
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
