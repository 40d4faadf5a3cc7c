//! `oona mode`: whether a host sheds load, and what an operator forces.

use clap::{Args, Subcommand};

use super::breaker::forced_words;
use super::client::{self, Server};
use super::output::Output;
use super::{EXIT_OK, Failure};
use crate::proto::{ForceModeRequest, GetModeRequest, ModeStatus};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell in which mode a host is, and why
    Show(Show),
    /// Hold it in conservative mode: low priorities get less room, emergencies pass
    Conservative(Force),
    /// Hold it in normal mode
    Normal(Force),
    /// Let it follow its own rules again
    Auto(Force),
}

const SHOW_HELP: &str = "\
Examples:
  oona mode show
  oona mode show --output json | jq -r .mode";

#[derive(Args, Debug)]
#[command(after_help = SHOW_HELP)]
pub(super) struct Show {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

const FORCE_HELP: &str = "\
It concerns the host at --server alone, and holds until it is released with `oona mode auto` or the host ends.

Examples:
  oona mode conservative --message 'a training begins that must not be disturbed'
  oona mode normal --message 'the depth is a known backlog'
  oona mode auto";

#[derive(Args, Debug)]
#[command(after_help = FORCE_HELP)]
pub(super) struct Force {
    /// Why, for the audit log and for those who see it forced
    #[arg(
        long,
        short,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    message: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: Command) -> Result<u8, Failure> {
    client::run(async {
        match command {
            Command::Show(args) => show(&args).await,
            Command::Conservative(args) => force(&args, "conservative").await,
            Command::Normal(args) => force(&args, "normal").await,
            Command::Auto(args) => force(&args, "auto").await,
        }
    })
}

async fn show(args: &Show) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let response = admin.get_mode(GetModeRequest {}).await;
    let response = response.map_err(|status| client::failure(&status))?;
    tell(args.output, &response.into_inner())
}

async fn force(args: &Force, to: &str) -> Result<u8, Failure> {
    let request = ForceModeRequest {
        to: to.to_owned(),
        message: args.message.clone(),
    };
    let mut admin = args.server.admin().await?;
    let response = admin.force_mode(request).await;
    let response = response.map_err(|status| client::failure(&status))?;
    tell(args.output, &response.into_inner())
}

fn tell(output: Output, status: &ModeStatus) -> Result<u8, Failure> {
    output.write(status, line).map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// `conservative: forced by ada at 2026-11-24T02:06:41Z: why (by itself: normal)`.
fn line(status: &ModeStatus) -> String {
    let ModeStatus {
        mode,
        reason,
        automatic,
        forced,
    } = status;
    let why = forced.as_ref().map_or_else(
        || reason.clone(),
        |forced| format!("{} (by itself: {automatic})", forced_words(forced)),
    );
    format!("{mode}: {why}")
}
