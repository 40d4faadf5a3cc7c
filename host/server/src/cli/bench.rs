//! `oona bench`: how fast it is here, beside raw Redis; and how it bears time.

mod chaos;
mod soak;

use std::future::Future;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use oona_wasm::EngineConfig;

use super::output::Output;
use super::{EXIT_OK, Failure, serve};
use crate::bench::{self, BenchError, BenchOptions, Subject};
use crate::chain::chain;
use crate::shutdown::Signals;

const HELP: &str = "\
Everything is measured in one run, beside what raw Redis does with the same entries: on a noisy machine
only the ratios count. A redis-server is started for the time; one that is named must be empty.

Examples:
  oona bench
  oona bench swap
  oona bench policy --rounds 9
  oona bench replay --messages 1000000 --rounds 1
  oona bench audit --messages 1000000 --rounds 1
  oona bench --messages 200000 --output json";

/// Measure this machine, beside raw Redis
#[derive(Args, Debug)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many rounds count; one more is made first, to warm up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How many messages each round publishes and consumes, decisions it replays, and dead letters it audits
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

#[derive(Debug, Subcommand)]
enum Command {
    Soak(soak::Soak),
    Chaos(chaos::Chaos),
    #[command(hide = true)]
    ChaosSubscriber(chaos::ChaosSubscriber),
}

/// Runs the command.
pub(super) fn run(args: &Bench) -> Result<u8, Failure> {
    match &args.command {
        Some(Command::Soak(args)) => soak::run(args),
        Some(Command::Chaos(args)) => chaos::run(args),
        Some(Command::ChaosSubscriber(args)) => chaos::subscribe(args),
        None => measure(args),
    }
}

fn measure(args: &Bench) -> Result<u8, Failure> {
    let runtime = serve::runtime(&EngineConfig::default())?;
    let options = BenchOptions {
        rounds: args.rounds as usize,
        messages: args.messages as usize,
        only: args.only.clone(),
        redis: args.redis.clone(),
        policies: args.policies.clone(),
        native: args.native,
    };
    let progress = Progress::new("{bar:30} {pos}/{len} {msg}");
    let listener = progress.listener();
    let report = runtime.block_on(bench::run(&options, &listener))?;
    progress.finish();
    let text = |report: &bench::Report| report.to_string().trim_end().to_owned();
    args.output
        .write(&report, text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// How far it is, on standard error; silent where that is no terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new(template: &str) -> Self {
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(0).with_style(style))
    }

    fn listener(&self) -> impl Fn(usize, usize, &str) + Sync + use<> {
        let bar = self.0.clone();
        move |done, all, what| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(what.to_owned());
        }
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Runs to the end, or to a signal: then the processes that were started end with it.
fn interruptible<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, Failure> {
    let runtime = serve::runtime(&EngineConfig::default())?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        tokio::select! {
            done = work => Ok(done?),
            signal = signals.next() => Err(Failure::Failed(anyhow::anyhow!("ended by {signal}"))),
        }
    })
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
