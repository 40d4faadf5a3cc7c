//! `oona breaker`: what an operator forces on the breakers of a host.

use clap::{Args, Subcommand};

use super::client::{self, Server};
use super::output::Output;
use super::{EXIT_OK, Failure, instant};
use crate::proto::{BreakerStatus, ForceBreakerRequest, Forced, ListBreakersRequest};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell how they are
    List(List),
    /// Hold one open: its calls are refused
    Open(Force),
    /// Hold one closed: its calls pass, whether they fail or not
    Close(Force),
    /// Let it follow its own rules again
    Release(Force),
}

const LIST_HELP: &str = "\
Examples:
  oona breaker list
  oona breaker list --output json | jq -r '.name + \" \" + .state'";

#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(super) struct List {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

const FORCE_HELP: &str = "\
It concerns the host at --server alone, and holds until it is released or the host ends. While `publish` is
held open the host refuses every publish, emergencies too, with the reason breaker-forced-open. While
`consume` is held open its subscribers get nothing from the normal streams; the emergency lane goes on.

Examples:
  oona breaker open publish --message 'the store moves'
  oona breaker open consume --message 'the handlers are being replaced'
  oona breaker close publish --message 'the faults are known'
  oona breaker release publish";

#[derive(Args, Debug)]
#[command(after_help = FORCE_HELP)]
pub(super) struct Force {
    /// Which: publish or consume
    #[arg(value_name = "NAME")]
    name: String,
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
            Command::List(args) => list(&args).await,
            Command::Open(args) => force(&args, "open").await,
            Command::Close(args) => force(&args, "closed").await,
            Command::Release(args) => force(&args, "auto").await,
        }
    })
}

async fn list(args: &List) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let response = admin.list_breakers(ListBreakersRequest {}).await;
    let response = response.map_err(|status| client::failure(&status))?;
    for breaker in &response.into_inner().breakers {
        let written = args.output.write(breaker, line);
        written.map_err(anyhow::Error::from)?;
    }
    Ok(EXIT_OK)
}

async fn force(args: &Force, to: &str) -> Result<u8, Failure> {
    let request = ForceBreakerRequest {
        name: args.name.clone(),
        to: to.to_owned(),
        message: args.message.clone(),
    };
    let mut admin = args.server.admin().await?;
    let response = admin.force_breaker(request).await;
    let response = response.map_err(|status| client::failure(&status))?;
    let written = args.output.write(&response.into_inner(), line);
    written.map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// `publish   open       forced by ada at 2026-11-24T02:06:41Z: the store moves (by itself: closed)`.
fn line(breaker: &BreakerStatus) -> String {
    let BreakerStatus {
        name,
        state,
        reason,
        automatic,
        forced,
    } = breaker;
    let why = forced.as_ref().map_or_else(
        || reason.clone(),
        |forced| format!("{} (by itself: {automatic})", forced_words(forced)),
    );
    format!("{name:<9} {state:<10} {why}")
}

pub(super) fn forced_words(forced: &Forced) -> String {
    let Forced { by, message, .. } = forced;
    let why = if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    };
    format!("forced by {by} at {}{why}", instant(forced.at_ms))
}
