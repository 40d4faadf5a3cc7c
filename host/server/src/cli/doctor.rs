//! `oona doctor`: what stands between this configuration and a bus that works.

use clap::Args;

use super::output::{Output, plural};
use super::serve::runtime;
use super::settings::Settings;
use super::{EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, Failure};
use crate::config::Config;
use crate::doctor::{Finding, Level, Report, gather, judge};

const HELP: &str = "\
It looks with the settings of `oona serve`: the same file, environment and flags. Nothing is changed:
the store is only read, policies are compiled and thrown away, the port is closed again. Which
commands a user of Redis may give is found out by queueing them in a transaction that is discarded;
what is forbidden is in its `ACL LOG` then.

Exit codes:
  0    no finding is an error
  1    at least one is
  2    the configuration cannot be read
  3    the store does not answer

Examples:
  oona doctor
  oona doctor --config oona.toml --redis redis://db:6379
  oona doctor --output json | jq -r '.findings[] | select(.level != \"ok\") | .advice'";

/// Check configuration, store, policies and machine, and say what to do
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) fn run(args: &Doctor) -> Result<u8, Failure> {
    let sources = args.settings.sources();
    let config = Config::load(&sources)?;
    let runtime = runtime(&config.policies.engine)?;
    let facts = runtime.block_on(gather(&config, sources.file));
    // What did not answer in time is not waited for.
    runtime.shutdown_background();
    let report = judge(&facts?);
    let written = args.output.write(&report, text);
    written.map_err(anyhow::Error::from)?;
    Ok(exit_code(&report))
}

fn exit_code(report: &Report) -> u8 {
    match (report.store_answers, report.healthy) {
        (false, _) => EXIT_UNAVAILABLE,
        (true, false) => EXIT_FAILED,
        (true, true) => EXIT_OK,
    }
}

/// A line for each finding, with what to do beneath those that need it, and how many these are.
fn text(report: &Report) -> String {
    let checks = report.findings.iter().map(|finding| finding.check.len());
    let width = checks.max().unwrap_or_default();
    let mut lines: Vec<_> = report
        .findings
        .iter()
        .flat_map(|finding| told(finding, width))
        .collect();
    lines.push(format!(
        "{}, {}",
        counted(report.errors, "error"),
        counted(report.warnings, "warning")
    ));
    lines.join("\n")
}

fn told(finding: &Finding, width: usize) -> Vec<String> {
    let Finding {
        check,
        level,
        found,
        advice,
    } = finding;
    let name = level.name();
    let mut lines = vec![format!("{name:<7}  {check:<width$}  {found}")];
    let advice = advice.as_ref().filter(|_| *level >= Level::Warning);
    lines.extend(advice.map(|advice| format!("{:<7}  {:<width$}  → {advice}", "", "")));
    lines
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        some => plural(some as u64, what),
    }
}
