//! `oona bench soak`: whether memory and latency stay flat.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::{Progress, interruptible};
use crate::bench::soak::{self, Fsync, SoakOptions, SoakReport};
use crate::cli::output::Output;
use crate::cli::{EXIT_FAILED, EXIT_OK, Failure, duration_ms};

const HELP: &str = "\
A Redis and a host are started for the time, each a process of its own. A producer keeps its pace over
gRPC, a subscriber handles what comes; one message in 200 is retried, one in 10 000 becomes a dead
letter. Latency counts from when a message was due. The last tenth is held against the sixth, since what is
bounded fills up first: flat is memory up to 1.1 times, latency up to 1.5 times. The exit code is 1 if that is exceeded, or if a
message is not accounted for. Of less than an hour only the account is judged.

Examples:
  oona bench soak --for 1h --rate 1000 --picture soak.svg
  oona bench soak --for 2m --rate 5000 --fsync always --csv soak.csv --output json";

/// Run a steady load for a long time: is memory flat, is latency flat?
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Soak {
    /// How long the load goes on, for instance 90s, 10m or 1h
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration_ms)]
    time_ms: u64,
    /// Messages a second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: u32,
    /// When Redis carries what it has accepted to the disk
    #[arg(long, value_enum, default_value_t)]
    fsync: Fsync,
    /// File for a picture of memory and latency, an SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// File for all samples
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Directory with the components; target/policies, or `policies` beside the program, without it
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Less is no load.
const TIME_MS_MIN: u64 = 1_000;

/// Runs the command.
pub(super) fn run(args: &Soak) -> Result<u8, Failure> {
    if args.time_ms < TIME_MS_MIN {
        let text =
            "--for is too short: a soak takes a second at least, and an hour to mean something";
        return Err(Failure::Usage(text.to_owned()));
    }
    // An hour later is too late to hear of it.
    for path in [&args.picture, &args.csv].into_iter().flatten() {
        write(path, "")?;
    }
    let options = SoakOptions {
        time: Duration::from_millis(args.time_ms),
        rate: args.rate,
        fsync: args.fsync,
        policies: args.policies.clone(),
    };
    let progress = Progress::new("{bar:30} {pos}/{len} s  {msg}");
    let listener = progress.listener();
    let report = interruptible(soak::run(&options, &listener))?;
    progress.finish();
    if let Some(path) = &args.picture {
        write(path, &report.picture())?;
    }
    if let Some(path) = &args.csv {
        write(path, &report.csv())?;
    }
    let text = |report: &SoakReport| report.to_string().trim_end().to_owned();
    args.output
        .write(&report, text)
        .map_err(anyhow::Error::from)?;
    Ok(if report.is_good() {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = std::fs::write(path, text);
    Ok(written.with_context(|| format!("cannot write {}", path.display()))?)
}
