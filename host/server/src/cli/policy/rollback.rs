//! `oona policy rollback | promote | withdraw`: back, and the end of a trial.

use clap::Args;
use oona_core::policy::Kind;

use super::super::client::{self, Server};
use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use super::activate::Told;
use crate::proto::{ConcludeTrialRequest, RollbackPolicyRequest};

const ROLLBACK_HELP: &str = "\
Goes back to the last activation that was something else, its configuration included, or to one by
its number. To go back twice goes back two steps. Every host follows, in less than a second.

Examples:
  oona policy rollback routing --message 'edge is starved'
  oona policy rollback routing --to 12";

#[derive(Args, Debug)]
#[command(after_help = ROLLBACK_HELP)]
pub(in crate::cli) struct Rollback {
    /// The kind
    kind: Kind,
    /// The number of the activation to go back to; see `oona policy history`
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Why, for the audit log
    #[arg(long, short, default_value = "", value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

const PROMOTE_HELP: &str = "\
Example:
  oona policy promote routing --message 'a day without disagreement'";

#[derive(Args, Debug)]
#[command(after_help = PROMOTE_HELP)]
pub(in crate::cli) struct Promote {
    #[command(flatten)]
    trial: TrialArgs,
}

const WITHDRAW_HELP: &str = "\
Example:
  oona policy withdraw routing";

#[derive(Args, Debug)]
#[command(after_help = WITHDRAW_HELP)]
pub(in crate::cli) struct Withdraw {
    #[command(flatten)]
    trial: TrialArgs,
}

#[derive(Args, Debug)]
struct TrialArgs {
    /// The kind
    kind: Kind,
    /// Why, for the audit log
    #[arg(long, short, default_value = "", value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn rollback(args: &Rollback) -> Result<u8, Failure> {
    let request = RollbackPolicyRequest {
        kind: args.kind.name().to_owned(),
        revision: args.to,
        message: args.message.clone(),
    };
    let mut admin = args.server.admin().await?;
    let response = admin.rollback_policy(request).await;
    let response = response.map_err(|status| client::failure(&status))?;
    tell(response.into_inner(), args.output)
}

pub(super) async fn promote(args: &Promote) -> Result<u8, Failure> {
    conclude(&args.trial, true).await
}

pub(super) async fn withdraw(args: &Withdraw) -> Result<u8, Failure> {
    conclude(&args.trial, false).await
}

async fn conclude(args: &TrialArgs, promote: bool) -> Result<u8, Failure> {
    let request = ConcludeTrialRequest {
        kind: args.kind.name().to_owned(),
        promote,
        message: args.message.clone(),
    };
    let mut admin = args.server.admin().await?;
    let response = admin.conclude_trial(request).await;
    let response = response.map_err(|status| client::failure(&status))?;
    tell(response.into_inner(), args.output)
}

fn tell(response: crate::proto::ActivatePolicyResponse, output: Output) -> Result<u8, Failure> {
    let told = Told::new(response)?;
    output
        .write(&told, Told::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}
