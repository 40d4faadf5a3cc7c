//! `oona policy replay`: what a candidate would have decided.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oona_core::policy::Kind;
use oona_wasm::Names;

use super::super::client::{self, Server};
use super::super::output::{self, Output};
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::{config, load};
use crate::cases;
use crate::chain::chain;
use crate::decisions::{self, HELD_MAX, Recorded};
use crate::proto::WatchDecisionsRequest;
use crate::replay::{self, Replayed};

/// How many records are replayed at most. What is older is left out, and said.
const RECORDS_MAX: usize = 5_000_000;

/// How many pairs are shown to people. JSON has all.
const PAIRS_SHOWN: usize = 20;

const REPLAY_HELP: &str = "\
Asks the candidate about decisions on record, and tells what would have been different. Without --log
the bus is asked for what it holds in memory, the last decisions of each kind; with --log the file of
policies.record_file is read, the one before it too. Exit code 1 if the candidate fails on any.

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
    /// Its configuration, as TOML or, if the name ends in .json, as JSON; its defaults without it
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
    let config = args
        .config
        .as_deref()
        .map(config)
        .transpose()?
        .unwrap_or_else(|| "{}".to_owned());
    let from = args.since.map_or(0, |since| now_ms().saturating_sub(since));
    let mut records = match &args.log {
        Some(log) => from_files(log, artifact.kind(), from)?,
        None => client::run(from_bus(&args.server, artifact.kind()))?,
    };
    records.retain(|record| record.at_ms >= from);
    if records.is_empty() {
        let what = format!(
            "there are no recorded decisions of a {} policy: see policies.record_every and policies.record_file",
            artifact.kind()
        );
        return Err(Failure::Failed(anyhow::anyhow!(what)));
    }
    let progress = bar(records.len() as u64, "decisions");
    let done = |count| progress.inc(count);
    let replayed = replay::replay(&artifact, &config, &names(&records), &records, &done);
    progress.finish_and_clear();
    let replayed = replayed.map_err(|error| anyhow::anyhow!(chain(&error)))?;
    args.output
        .write(&replayed, text)
        .map_err(anyhow::Error::from)?;
    Ok(if replayed.faults == 0 {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
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

/// The decisions of a kind in a log, as far back as they go.
fn from_files(log: &Path, kind: Kind, from: u64) -> Result<Vec<Arc<Recorded>>, Failure> {
    let files = decisions::files(log);
    if files.is_empty() {
        return Err(Failure::Usage(format!(
            "there is no decision log {}",
            log.display()
        )));
    }
    let mut records = Vec::new();
    let mut unreadable = 0_u64;
    for file in &files {
        let shown = file.display();
        let opened = File::open(file).with_context(|| format!("cannot read {shown}"))?;
        let length = opened.metadata().map_or(0, |metadata| metadata.len());
        let progress = bar(length, "bytes read");
        for line in BufReader::with_capacity(1 << 20, opened).lines() {
            let line = line.with_context(|| format!("cannot read {shown}"))?;
            progress.inc(line.len() as u64 + 1);
            match serde_json::from_str::<Recorded>(&line) {
                Ok(record) if record.kind == kind && record.at_ms >= from => {
                    records.push(Arc::new(record));
                }
                Ok(_) => {}
                // The last line may be half written; any other is said below.
                Err(_) => unreadable += 1,
            }
        }
        progress.finish_and_clear();
    }
    if unreadable > 0 {
        output::say(&format!("{unreadable} lines of the log could not be read"));
    }
    if records.len() > RECORDS_MAX {
        let surplus = records.len() - RECORDS_MAX;
        output::say(&format!(
            "the oldest {surplus} decisions are left out: {RECORDS_MAX} are replayed at most"
        ));
        records.drain(..surplus);
    }
    Ok(records)
}

async fn from_bus(server: &Server, kind: Kind) -> Result<Vec<Arc<Recorded>>, Failure> {
    let request = WatchDecisionsRequest {
        kind: kind.name().to_owned(),
        last: u32::try_from(HELD_MAX).unwrap_or(u32::MAX),
        ..Default::default()
    };
    let mut admin = server.admin().await?;
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
    Ok(records)
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
        "{decisions} decisions, {changed} would be different ({share:.2} %)"
    )];
    if let Some(fault) = fault {
        lines.push(format!("it fails on {faults} of them: {fault}"));
    }
    if *unreadable > 0 {
        lines.push(format!(
            "{unreadable} records are no question to this kind of policy"
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
