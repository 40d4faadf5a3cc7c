//! `oona policy replay`: what a candidate would have decided.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oona_core::policy::Kind;
use oona_wasm::{Artifact, Names};

use super::super::client::{self, Server};
use super::super::output::{Output, plural};
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::{config, load};
use crate::cases;
use crate::chain::chain;
use crate::decisions::{self, HELD_MAX, Recorded};
use crate::proto::{ListPoliciesRequest, WatchDecisionsRequest};
use crate::replay::{self, Log, LogError, Replayed};

/// How many pairs are shown to people. JSON has all.
const PAIRS_SHOWN: usize = 20;

const REPLAY_HELP: &str = "\
Asks the candidate about decisions on record, and tells what would have been different. Without --log
the bus is asked for what it holds in memory, the last decisions of each kind; with --log the file of
policies.record_file is read, the one before it too, on all cores and in bounded memory. Exit code 1 if the candidate fails on any.

Examples:
  oona policy replay routing.wasm
  oona policy replay routing.wasm --log decisions.jsonl --since 1h
  oona policy replay backpressure.wasm --config stricter.toml --log decisions.jsonl --output json";

#[derive(Args, Debug)]
#[command(after_help = REPLAY_HELP)]
pub(in crate::cli) struct Replay {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its configuration, as TOML or, if the name ends in .json, as JSON; without it, that of the policy
    /// in use, or with --log its defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The decision log; what the bus holds in memory without it
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Only decisions that are no older than this: 10m, 1h, 7d
    #[arg(long, value_name = "DURATION", value_parser = super::duration_ms)]
    since: Option<u64>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Replay) -> Result<u8, Failure> {
    let artifact = load(&args.file)?;
    let from_ms = args.since.map_or(0, |since| now_ms().saturating_sub(since));
    let given = args.config.as_deref().map(config).transpose()?;
    let replayed = match &args.log {
        Some(path) => {
            let log = log(path, from_ms)?;
            let config = given.unwrap_or_else(|| "{}".to_owned());
            over_log(&artifact, &config, &log)?
        }
        None => {
            let kind = artifact.kind();
            let (records, in_use) = client::run(from_bus(&args.server, kind))?;
            let config = given.unwrap_or_else(|| inherited(&artifact, in_use));
            over_records(&artifact, &config, records, from_ms)?
        }
    };
    if replayed.decisions == 0 && replayed.unreadable == 0 {
        let what = format!(
            "there are no recorded decisions of a {} policy: see policies.record_every and policies.record_file",
            artifact.kind()
        );
        return Err(Failure::Failed(anyhow::anyhow!(what)));
    }
    args.output
        .write(&replayed, text)
        .map_err(anyhow::Error::from)?;
    Ok(if replayed.faults == 0 {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

/// The configuration in use, if the candidate takes it; else its defaults.
fn inherited(artifact: &Artifact, in_use: String) -> String {
    let fits = serde_json::from_str(&in_use)
        .is_ok_and(|config| crate::policies::check_against(artifact, &config).is_ok());
    if fits { in_use } else { "{}".to_owned() }
}

fn over_log(artifact: &Artifact, config: &str, log: &Log) -> Result<Replayed, Failure> {
    let length = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    let bytes: u64 = log.files.iter().map(length).sum();
    let failed = |error: LogError| anyhow::anyhow!(chain(&error));
    let looking = bar(bytes, "bytes searched for streams");
    let streams = replay::streams(log, &|count| looking.inc(count)).map_err(failed)?;
    looking.finish_and_clear();
    let names = cases::names(&streams.into_iter().collect::<Vec<_>>());
    let reading = bar(bytes, "bytes of decisions");
    let replayed = replay::replay_log(artifact, config, &names, log, &|count| reading.inc(count));
    reading.finish_and_clear();
    Ok(replayed.map_err(failed)?)
}

fn over_records(
    artifact: &Artifact,
    config: &str,
    mut records: Vec<Arc<Recorded>>,
    from_ms: u64,
) -> Result<Replayed, Failure> {
    records.retain(|record| record.at_ms >= from_ms);
    let progress = bar(records.len() as u64, "decisions");
    let done = |count| progress.inc(count);
    let replayed = replay::replay(artifact, config, &names(&records), &records, &done);
    progress.finish_and_clear();
    Ok(replayed.map_err(|error| anyhow::anyhow!(chain(&error)))?)
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} {msg}, {eta} left");
    let bar = ProgressBar::new(length).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The streams of every bus by default, and those that are on record.
fn names(records: &[Arc<Recorded>]) -> Names {
    let named = records
        .iter()
        .flat_map(|record| [&record.decision.stream, &record.state.stream]);
    let named: std::collections::BTreeSet<_> = named.flatten().cloned().collect();
    cases::names(&named.into_iter().collect::<Vec<_>>())
}

/// The files of a decision log.
fn log(path: &Path, from_ms: u64) -> Result<Log, Failure> {
    let files = decisions::files(path);
    if files.is_empty() {
        return Err(Failure::Usage(format!(
            "there is no decision log {}",
            path.display()
        )));
    }
    Ok(Log { files, from_ms })
}

/// The decisions that a bus holds, and the configuration of the policy that it uses.
async fn from_bus(server: &Server, kind: Kind) -> Result<(Vec<Arc<Recorded>>, String), Failure> {
    let request = WatchDecisionsRequest {
        kind: kind.name().to_owned(),
        last: u32::try_from(HELD_MAX).unwrap_or(u32::MAX),
        ..Default::default()
    };
    let mut admin = server.admin().await?;
    let response = admin.list_policies(ListPoliciesRequest {}).await;
    let policies = response
        .map_err(|status| client::failure(&status))?
        .into_inner()
        .policies;
    let in_use = policies
        .into_iter()
        .find(|policy| policy.kind == kind.name());
    let config = in_use.map_or_else(|| "{}".to_owned(), |policy| policy.config_json);
    let response = admin.watch_decisions(request).await;
    let mut decisions = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let mut records = Vec::new();
    while let Some(next) = decisions
        .message()
        .await
        .map_err(|status| client::failure(&status))?
    {
        let record = serde_json::from_str(&next.json).context("the bus told no JSON")?;
        records.push(Arc::new(record));
    }
    Ok((records, config))
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn text(replayed: &Replayed) -> String {
    let Replayed {
        decisions,
        stand_for,
        changed,
        faults,
        fault,
        unreadable,
        pairs,
        streams,
        ..
    } = replayed;
    let share = 100.0 * *changed as f64 / (*decisions).max(1) as f64;
    let mut lines = vec![format!(
        "{}, {changed} would be different ({share:.2} %)",
        plural(*decisions, "decision")
    )];
    if stand_for > decisions {
        let every = *stand_for as f64 / (*decisions).max(1) as f64;
        lines.push(format!(
            "a sample: one decision in {every:.0} is on record, {stand_for} were made"
        ));
    }
    if let Some(fault) = fault {
        lines.push(format!("it fails on {faults} of them: {fault}"));
    }
    if *unreadable > 0 {
        lines.push(format!(
            "{unreadable} records are no question to this kind of policy, or cannot be read"
        ));
    }
    for pair in pairs.iter().take(PAIRS_SHOWN) {
        lines.push(format!("{:>9}  {} -> {}", pair.count, pair.from, pair.to));
        if let Some(example) = pair.examples.first() {
            let message = &example.message;
            lines.push(format!(
                "{:>9}  such as {} {}",
                "", message.message_type, message.id
            ));
        }
    }
    if pairs.len() > PAIRS_SHOWN {
        lines.push(format!(
            "and {} more pairs: see --output json",
            pairs.len() - PAIRS_SHOWN
        ));
    }
    lines.extend(
        streams
            .iter()
            .filter(|load| load.before != load.after)
            .map(|load| {
                format!(
                    "{}: {} messages instead of {}",
                    load.stream, load.after, load.before
                )
            }),
    );
    lines.join("\n")
}
