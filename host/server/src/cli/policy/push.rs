//! `oona policy push`: a policy into the registry.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::client::{self, Server};
use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use super::list::Artifact;
use super::{Which, busy, signed};
use crate::proto::PushPolicyRequest;

const PUSH_HELP: &str = "\
The registry keeps the component under its digest, with the signatures of FILE.sig, where every host
finds it. Nothing is in use because of it: see `oona policy activate` and `oona policy shadow`.

Example:
  oona policy push routing.wasm --message 'release 2.1'";

#[derive(Args, Debug)]
#[command(after_help = PUSH_HELP)]
pub(in crate::cli) struct Push {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Why, for the audit log
    #[arg(long, short, default_value = "", value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: &Push) -> Result<u8, Failure> {
    let (component, signatures) = match signed(&args.file)? {
        Which::File(component, signatures) => (component, signatures),
        Which::Digest(_) => unreachable!("a file was named"),
    };
    let request = PushPolicyRequest {
        component: component.into(),
        signatures,
        message: args.message.clone(),
    };
    let mut admin = args.server.admin().await?;
    let pushing = busy("the bus looks at it");
    let response = admin.push_policy(request).await;
    drop(pushing);
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let artifact = response
        .artifact
        .context("the bus did not say what it keeps")?;
    let artifact = Artifact::from(artifact);
    args.output
        .write(&artifact, Artifact::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}
