//! `oona policy check`: the laws that a policy must keep.

use std::path::PathBuf;

use clap::Args;

use super::super::output::{self, Output};
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::{busy, cases, config, load};
use crate::cases::names;
use crate::chain::chain;
use crate::laws::{self, LawOptions, LawReport};

const CHECK_HELP: &str = "\
Each law is tried on thousands of generated messages, and what breaks one is shrunk to the smallest
that does, as a case that can be pasted into a file of cases. Laws of your own are [[law]] entries in
such a file: what they say is fixed, all else takes any value. Exit code 1 if a law is broken.

Examples:
  oona policy check routing.wasm
  oona policy check routing.wasm --config routing.toml --runs 20000 --seed 7
  oona policy check routing.wasm --cases cases.toml --output json";

#[derive(Args, Debug)]
#[command(after_help = CHECK_HELP)]
pub(in crate::cli) struct Check {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its configuration, as TOML or, if the name ends in .json, as JSON; its defaults without it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file with laws of your own; those that travel with the component without it
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// On how many inputs each law is tried
    #[arg(long, default_value_t = 2_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    runs: u32,
    /// What the inputs are generated from; the same seed gives the same inputs
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// A stream of your bus beside the usual ones; can be given more than once
    #[arg(long, value_name = "STREAM")]
    stream: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Check) -> Result<u8, Failure> {
    let artifact = load(&args.file)?;
    let config = args.config.as_deref().map(config).transpose()?;
    let config = config.unwrap_or_else(|| "{}".to_owned());
    let own = cases(args.cases.as_deref(), &artifact)?;
    let options = LawOptions {
        runs: args.runs,
        seed: args.seed,
        own: own.map(|cases| cases.laws).unwrap_or_default(),
    };
    let trying = busy("trying the laws");
    let report = laws::check(&artifact, &config, &names(&args.stream), &options);
    drop(trying);
    let report =
        report.map_err(|error| anyhow::anyhow!("{}: {}", args.file.display(), chain(&error)))?;
    args.output
        .write(&report, text)
        .map_err(anyhow::Error::from)?;
    for law in report.laws.iter().filter(|_| !args.output.is_json()) {
        if let Some(broken) = &law.broken {
            output::say(&format!(
                "\n# the smallest input found that breaks {}:\n{}",
                law.name,
                broken.as_case(&law.name)
            ));
        }
    }
    Ok(if report.kept { EXIT_OK } else { EXIT_FAILED })
}

fn text(report: &LawReport) -> String {
    let mut lines: Vec<_> = report.laws.iter().map(ToString::to_string).collect();
    lines.push(format!("seed {}", report.seed));
    lines.join("\n")
}
