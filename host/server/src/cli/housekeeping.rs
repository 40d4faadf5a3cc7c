//! `oona housekeeping`: what a host has cleared away.

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{self, Server};
use super::output::Output;
use super::{EXIT_OK, Failure, instant};
use crate::proto::{GetHousekeepingRequest, RunHousekeepingRequest};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell what the last round removed, and all since the host started
    Show(Show),
    /// Make a round now, and tell what it removed
    Run(Run),
}

const SHOW_HELP: &str = "\
Examples:
  oona housekeeping show
  oona housekeeping show --output json | jq .totals.dropped";

#[derive(Args, Debug)]
#[command(after_help = SHOW_HELP)]
pub(super) struct Show {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

const RUN_HELP: &str = "\
A round removes what housekeeping.* and streams.overflow of the host at --server say, and no more.

Examples:
  oona housekeeping run
  oona housekeeping run --output json | jq .took_ms";

#[derive(Args, Debug)]
#[command(after_help = RUN_HELP)]
pub(super) struct Run {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: Command) -> Result<u8, Failure> {
    client::run(async {
        match command {
            Command::Show(args) => show(&args).await,
            Command::Run(args) => round(&args).await,
        }
    })
}

async fn show(args: &Show) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let response = admin.get_housekeeping(GetHousekeepingRequest {}).await;
    let response = response.map_err(|status| client::failure(&status))?;
    tell(args.output, &response.into_inner().status_json, account)
}

async fn round(args: &Run) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let response = admin.run_housekeeping(RunHousekeepingRequest {}).await;
    let response = response.map_err(|status| client::failure(&status))?;
    tell(args.output, &response.into_inner().report_json, removed)
}

fn tell(output: Output, json: &str, text: fn(&Value) -> String) -> Result<u8, Failure> {
    let value: Value = serde_json::from_str(json).context("the bus told no JSON")?;
    output.write(&value, text).map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// The last round, and the sums.
fn account(status: &Value) -> String {
    let last = match &status["last"] {
        Value::Null => "no round yet".to_owned(),
        last => removed(last),
    };
    let totals = &status["totals"];
    let count = |name: &str| totals[name].as_u64().unwrap_or(0);
    format!(
        "{last}\nsince start: {} rounds, {} failed; {}",
        count("rounds"),
        count("failed"),
        things(&[
            (count("trimmed"), "finished messages"),
            (count("dropped"), "unfinished messages"),
            (count("expired"), "expired messages"),
            (count("consumers"), "idle consumers"),
            (count("groups"), "idle groups"),
            (count("abandoned"), "messages of idle groups"),
            (count("dead_letters"), "dead letters"),
        ])
    )
}

/// What one round removed.
fn removed(report: &Value) -> String {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let mut text = format!(
        "round of {}, {} ms: {}",
        instant(number("at_ms")),
        number("took_ms"),
        things(&[(number("dead_letters"), "dead letters")])
    );
    for (stream, removals) in report["streams"].as_object().into_iter().flatten() {
        let count = |name: &str| removals[name].as_u64().unwrap_or(0);
        let groups = removals["groups"].as_array().map_or(0, Vec::len);
        let told = things(&[
            (count("trimmed"), "finished messages"),
            (count("dropped"), "unfinished messages"),
            (count("expired"), "expired messages"),
            (count("consumers"), "idle consumers"),
            (groups as u64, "idle groups"),
        ]);
        text += &format!("\n{stream}: {told}");
    }
    if let Some(why) = report["failed"].as_str() {
        text += &format!("\nended early: {why}");
    }
    text
}

fn things(counts: &[(u64, &str)]) -> String {
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<_> = some
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if some.is_empty() {
        return "nothing".to_owned();
    }
    some.join(", ")
}
