//! `oona policy test`: a table of cases.

use std::path::PathBuf;

use clap::Args;

use super::super::output::Output;
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::{cases, load};
use crate::cases::{CaseReport, Report, names};

const TEST_HELP: &str = "\
The policy runs in the same sandbox as on a bus, and no bus is needed. A case says a message, what else
the policy is told, and what it must answer; what is left out is at the default of a bus at rest:

  kind = 'routing'

  [[case]]
  name = 'an emergency goes first'
  message = { type = 'emergency_signal', priority = 'low' }
  expect = { verdict = 'route', stream = 'oona.emergency' }

Exit code 1 if a case fails.

Examples:
  oona policy test routing.wasm cases.toml
  oona policy test routing.wasm cases.json --output json";

#[derive(Args, Debug)]
#[command(after_help = TEST_HELP)]
pub(in crate::cli) struct Test {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The table: TOML or, if the name ends in .json, JSON
    #[arg(value_name = "CASES")]
    cases: PathBuf,
    /// A stream of your bus beside the usual ones; can be given more than once
    #[arg(long, value_name = "STREAM")]
    stream: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Test) -> Result<u8, Failure> {
    let artifact = load(&args.file)?;
    let cases = cases(&args.cases, artifact.kind())?;
    let report = cases.run(&artifact, &names(&args.stream));
    args.output
        .write(&report, text)
        .map_err(anyhow::Error::from)?;
    Ok(if report.failed == 0 {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

fn text(report: &Report) -> String {
    let mut lines: Vec<_> = report.cases.iter().map(line).collect();
    lines.push(format!(
        "{} passed, {} failed",
        report.passed, report.failed
    ));
    lines.join("\n")
}

fn line(case: &CaseReport) -> String {
    let decided = case.decided.as_deref().unwrap_or("no decision");
    let mut line = if case.passed {
        format!("ok      {}: {decided}", case.name)
    } else {
        format!("FAILED  {}: {decided}", case.name)
    };
    for difference in &case.differences {
        line += &format!("\n        {difference}");
    }
    if let Some(error) = &case.error {
        line += &format!("\n        {error}");
    }
    line
}
