//! `oona dlq redrive | purge`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use indicatif::ProgressBar;
use tonic::Streaming;

use super::super::client::{self, Server};
use super::super::output::{self, Output};
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::FilterArgs;
use crate::proto::{
    DeadLetterFilter, MovedDeadLetter, PurgeDeadLettersRequest, RedriveDeadLettersRequest,
};

const REDRIVE_HELP: &str = "\
Each goes back in one atomic step, as a message that starts anew: no failed attempts, issued now. What
somebody else has redriven meanwhile is `gone`, and is not redriven twice. What fails again and comes
back to the dead letters is not redriven a second time by the same command. Exit code 1 if one of them
could not be redriven.

Examples:
  oona dlq redrive 1795486001197-0
  oona dlq redrive --class out-of-attempts --newer-than 1h --per-second 50
  oona dlq redrive --all --to oona.normal --dry-run";

#[derive(Args, Debug)]
#[command(after_help = REDRIVE_HELP)]
pub(in crate::cli) struct Redrive {
    #[command(flatten)]
    which: Which,
    /// Where to; to where each came from without it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "STREAM"
    )]
    to: String,
    /// How many in a second at most
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
}

const PURGE_HELP: &str = "\
What is purged is gone for good. Asks first on a terminal, and wants --yes elsewhere.

Examples:
  oona dlq purge 1795486001197-0
  oona dlq purge --class stale --older-than 7d --dry-run
  oona dlq purge --all --yes --message 'the test of last night'";

#[derive(Args, Debug)]
#[command(after_help = PURGE_HELP)]
pub(in crate::cli) struct Purge {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// On which dead letters something is done.
#[derive(Args, Debug)]
struct Which {
    /// These
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// How many at most, the oldest
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit log
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

impl Which {
    /// The filter, unless single ones are named.
    fn filter(&self) -> Result<Option<DeadLetterFilter>, Failure> {
        match (self.ids.is_empty(), self.filter.fits_all()) {
            (true, true) if !self.all => Err(Failure::Usage(
                "which dead letters? name them, say what they have in common (--class, --type, \
                 --older-than …), or say --all"
                    .to_owned(),
            )),
            (false, false) => Err(Failure::Usage(
                "name dead letters, or say what they have in common: not both".to_owned(),
            )),
            (true, _) => Ok(Some(self.filter.wire())),
            (false, true) => Ok(None),
        }
    }
}

pub(super) async fn redrive(args: &Redrive) -> Result<u8, Failure> {
    let which = &args.which;
    let request = RedriveDeadLettersRequest {
        ids: which.ids.clone(),
        filter: which.filter()?,
        to: args.to.clone(),
        per_second: args.per_second,
        limit: which.limit.unwrap_or(0),
        dry_run: which.dry_run,
        message: which.message.clone(),
    };
    let mut admin = which.server.admin().await?;
    let moved = admin.redrive_dead_letters(request).await;
    let moved = moved.map_err(|status| client::failure(&status))?;
    follow(which, moved.into_inner()).await
}

pub(super) async fn purge(args: &Purge) -> Result<u8, Failure> {
    let which = &args.which;
    let filter = which.filter()?;
    if !args.yes && !which.dry_run && !agreed()? {
        return Ok(EXIT_FAILED);
    }
    let request = PurgeDeadLettersRequest {
        ids: which.ids.clone(),
        filter,
        limit: which.limit.unwrap_or(0),
        dry_run: which.dry_run,
        message: which.message.clone(),
    };
    let mut admin = which.server.admin().await?;
    let moved = admin.purge_dead_letters(request).await;
    let moved = moved.map_err(|status| client::failure(&status))?;
    follow(which, moved.into_inner()).await
}

/// Whether whoever sits at the terminal means it.
fn agreed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "what is purged is gone for good: say --yes, or look first with --dry-run".to_owned(),
        ));
    }
    let mut answer = String::new();
    let asked = write!(
        io::stderr(),
        "What is purged is gone for good. Go on? [y/N] "
    )
    .and_then(|()| io::stdin().read_line(&mut answer));
    asked.map_err(anyhow::Error::from)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Tells of each as it comes, and sums up.
async fn follow(which: &Which, mut moved: Streaming<MovedDeadLetter>) -> Result<u8, Failure> {
    let progress = ProgressBar::new_spinner();
    let mut outcomes = BTreeMap::<String, u64>::new();
    loop {
        let next = moved.message().await;
        let Some(moved) = next.map_err(|status| client::failure(&status))? else {
            break;
        };
        let wrote = progress.suspend(|| which.output.write(&moved, line));
        wrote.map_err(anyhow::Error::from)?;
        *outcomes.entry(moved.outcome).or_default() += 1;
        progress.set_message(sum(&outcomes));
        progress.tick();
    }
    progress.finish_and_clear();
    if !which.output.is_json() {
        output::say(&sum(&outcomes));
    }
    Ok(if outcomes.contains_key("failed") {
        EXIT_FAILED
    } else {
        EXIT_OK
    })
}

fn line(moved: &MovedDeadLetter) -> String {
    let MovedDeadLetter {
        id,
        outcome,
        stream,
        entry,
        detail,
    } = moved;
    match &**outcome {
        "redriven" => format!("{id}  redriven to {stream}, entry {entry}"),
        "failed" => format!("{id}  failed: {detail}"),
        outcome => format!("{id}  {outcome}"),
    }
}

fn sum(outcomes: &BTreeMap<String, u64>) -> String {
    if outcomes.is_empty() {
        return "no dead letters fit".to_owned();
    }
    let counts = outcomes
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"));
    counts.collect::<Vec<_>>().join(", ")
}
