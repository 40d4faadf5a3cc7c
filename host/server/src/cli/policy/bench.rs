//! `oona policy bench`: what one policy costs, beside another.

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;

use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use super::{config, read};
use crate::bench::candidate::{self, Measured};
use crate::chain::chain;

const BENCH_HELP: &str = "\
On a noisy machine only the ratio to another policy counts, measured in turns in the same run.

Examples:
  oona policy bench routing.wasm
  oona policy bench routing.wasm --against routing-before.wasm --rounds 9 --output json";

#[derive(Args, Debug)]
#[command(after_help = BENCH_HELP)]
pub(in crate::cli) struct Bench {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Another one, to be held against
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The configuration of both, as TOML or, if the name ends in .json, as JSON; their defaults without it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Bench) -> Result<u8, Failure> {
    let config = args.config.as_deref().map(config).transpose()?;
    let config = config.unwrap_or_else(|| "{}".to_owned());
    let measured = |file: &PathBuf| -> Result<Measured, Failure> {
        Ok(Measured {
            component: read(file)?,
            config: config.clone(),
        })
    };
    let policy = measured(&args.file)?;
    let against = args.against.as_ref().map(measured).transpose()?;
    let progress = ProgressBar::new(args.rounds.into());
    let listener = |round| progress.set_position(u64::from(round));
    let costs = candidate::measure(&policy, against.as_ref(), args.rounds, &listener);
    progress.finish_and_clear();
    let costs = costs.map_err(|error| anyhow::anyhow!(chain(&error)))?;
    let text = |costs: &candidate::Costs| costs.to_string().trim_end().to_owned();
    args.output
        .write(&costs, text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}
