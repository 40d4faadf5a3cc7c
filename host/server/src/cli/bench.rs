//! `oona bench`: how fast it is here, beside raw Redis.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oona_wasm::EngineConfig;

use super::output::Output;
use super::{EXIT_OK, Failure, serve};
use crate::bench::{self, BenchError, BenchOptions, Subject};
use crate::chain::chain;

const HELP: &str = "\
Everything is measured in one run, beside what raw Redis does with the same entries: on a noisy machine
only the ratios count. A redis-server is started for the time; one that is named must be empty.

Examples:
  oona bench
  oona bench swap
  oona bench policy --rounds 9
  oona bench --messages 200000 --output json";

/// Measure this machine, beside raw Redis
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Bench {
    /// How many rounds count; one more is made first, to warm up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How many messages each round publishes and consumes
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    messages: u32,
    /// What is measured; everything without it
    #[arg(value_enum, value_name = "SUBJECT")]
    only: Vec<Subject>,
    /// Address of an empty Redis to use
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Directory with the components; target/policies, or `policies` beside the program, without it
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    /// Decide with the native builds; swaps are then left out
    #[arg(long)]
    native: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) fn run(args: &Bench) -> Result<u8, Failure> {
    let runtime = serve::runtime(&EngineConfig::default())?;
    let options = BenchOptions {
        rounds: args.rounds as usize,
        messages: args.messages as usize,
        only: args.only.clone(),
        redis: args.redis.clone(),
        policies: args.policies.clone(),
        native: args.native,
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let listener = |done: usize, all: usize, what: &str| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
    };
    let report = runtime.block_on(bench::run(&options, &listener))?;
    bar.finish_and_clear();
    let text = |report: &bench::Report| report.to_string().trim_end().to_owned();
    args.output
        .write(&report, text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Policy { .. } | BenchError::NotEmpty(_) => Self::Usage(error.to_string()),
            BenchError::Start(_) | BenchError::Redis(_) => Self::Unavailable(chain(&error)),
            other => Self::Failed(other.into()),
        }
    }
}
