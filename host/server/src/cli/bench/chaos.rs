//! `oona bench chaos`: real faults under load, and the account of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use oona_wasm::EngineConfig;

use super::{Progress, interruptible};
use crate::bench::chaos::{self, ChaosOptions, ChaosReport, Fault, SubscriberOptions};
use crate::cli::output::Output;
use crate::cli::{EXIT_FAILED, EXIT_OK, Failure, serve};

const HELP: &str = "\
Every round starts a Redis, two hosts, and a producer and a subscriber at each, all but the producers as
processes of their own. During the load one fault is brought about, lasts, and is taken away; then
everything is handled, and the account is drawn up. A pause is a time without a delivery; recovery counts
from the end of the fault until every host accepts and delivers again. Refused publishes were not
written; of unknown ones the producer has heard nothing, or that the store did not answer. The exit code
is 1 if an account does not balance, something does not recover, or a fault could not be brought about:
then the logs are kept.

Examples:
  oona bench chaos
  oona bench chaos --rounds 5 --fault redis-kill --fault host-stop
  oona bench chaos --seed 7 --output json";

/// Kill, freeze, fill up and cut off what there is, under load: does every account balance?
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Chaos {
    /// How often each fault is brought about
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Which fault; may be given several times; all without it
    #[arg(long = "fault", value_enum, value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Messages a second, from both producers
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=20_000))]
    rate: u32,
    /// What is left to chance (when, which, how much) is the same for the same seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory with the components; target/policies, or `policies` beside the program, without it
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// A subscriber of `oona bench chaos`
#[derive(Args, Debug)]
pub(super) struct ChaosSubscriber {
    #[arg(long)]
    host: SocketAddr,
    #[arg(long)]
    name: String,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    poison_every: u64,
}

/// Runs the command.
pub(super) fn run(args: &Chaos) -> Result<u8, Failure> {
    let options = ChaosOptions {
        rounds: args.rounds,
        faults: args.faults.clone(),
        rate: args.rate,
        seed: args.seed,
        policies: args.policies.clone(),
    };
    let progress = Progress::new("{bar:30} {pos}/{len} {msg}");
    let listener = progress.listener();
    let report = interruptible(chaos::run(&options, &listener))?;
    progress.finish();
    let text = |report: &ChaosReport| report.to_string().trim_end().to_owned();
    args.output
        .write(&report, text)
        .map_err(anyhow::Error::from)?;
    Ok(if report.is_good() {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

/// Runs a process of the command.
pub(super) fn subscribe(args: &ChaosSubscriber) -> Result<u8, Failure> {
    let options = SubscriberOptions {
        host: args.host,
        name: args.name.clone(),
        poison_every: args.poison_every,
    };
    let runtime = serve::runtime(&EngineConfig::default())?;
    runtime.block_on(chaos::subscribe(options));
    Ok(EXIT_OK)
}
