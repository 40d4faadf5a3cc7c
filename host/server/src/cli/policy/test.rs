//! `oona policy test`: a table of cases.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use notify::{RecursiveMode, Watcher};
use serde::Serialize;

use super::super::output;
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::{cases, load};
use crate::cases::{Branch, CaseReport, Coverage, Report, coverage, junit, names};

/// How long a change may take to be all there: a build writes more than once.
const SETTLED: Duration = Duration::from_millis(100);

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
  oona policy test routing.wasm cases.yaml --coverage
  oona policy test routing.wasm cases.toml --output junit > report.xml
  oona policy test routing.wasm cases.toml --watch";

#[derive(Args, Debug)]
#[command(after_help = TEST_HELP)]
pub(in crate::cli) struct Test {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The table: TOML or, by the end of its name, .json or .yaml; the one that travels with the
    /// component without it
    #[arg(value_name = "CASES")]
    cases: Option<PathBuf>,
    /// A stream of your bus beside the usual ones; can be given more than once
    #[arg(long, value_name = "STREAM")]
    stream: Vec<String>,
    /// Tell which reasons, and which settings, no case reaches
    #[arg(long)]
    coverage: bool,
    /// Go on, and run again whenever one of the files changes
    #[arg(long)]
    watch: bool,
    /// For people, for programs (one JSON object a line), or for a CI server
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// In which form the report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
    Junit,
}

/// What is told of a table.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Coverage>,
}

pub(super) fn run(args: &Test) -> Result<u8, Failure> {
    if args.watch {
        return watch(args);
    }
    once(args)
}

fn once(args: &Test) -> Result<u8, Failure> {
    let artifact = load(&args.file)?;
    let cases = cases(args.cases.as_deref(), &artifact)?.ok_or_else(|| {
        let file = args.file.display();
        Failure::Usage(format!("no cases travel with {file}: name a file of them"))
    })?;
    let names = names(&args.stream);
    let report = cases.run(&artifact, &names);
    let coverage = args
        .coverage
        .then(|| coverage(&cases, &report, &artifact, &names));
    let told = Told { report, coverage };
    let text = match args.output {
        Format::Text => text(&told),
        Format::Json => serde_json::to_string(&told).map_err(anyhow::Error::from)?,
        Format::Junit => {
            let suite = args.cases.as_ref().unwrap_or(&args.file);
            junit(&suite.display().to_string(), &told.report)
        }
    };
    output::write_line(&text).map_err(anyhow::Error::from)?;
    Ok(if told.report.failed == 0 {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

/// Runs the table, and again after each change, until it is interrupted.
fn watch(args: &Test) -> Result<u8, Failure> {
    let (changed, changes) = mpsc::sync_channel(1);
    let files = [Some(&args.file), args.cases.as_ref()]
        .into_iter()
        .flatten();
    let files: Vec<_> = files
        .map(|file| file.canonicalize())
        .collect::<Result<_, _>>()
        .context("cannot watch")?;
    let watched = files.clone();
    let notice = move |event: notify::Result<notify::Event>| {
        let concerns = |event: &notify::Event| {
            !event.kind.is_access() && event.paths.iter().any(|path| watched.contains(path))
        };
        if event.is_ok_and(|event| concerns(&event)) {
            // One that waits is enough: everything is run anyway.
            let _ = changed.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(notice).context("cannot watch")?;
    // An editor replaces a file: its directory sees that.
    for directory in files.iter().filter_map(|file| file.parent()) {
        watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .context("cannot watch")?;
    }
    loop {
        if let Err(failure) = once(args) {
            output::complain(&failure);
        }
        changes.recv().context("nothing is watched any more")?;
        while changes.recv_timeout(SETTLED).is_ok() {}
        output::say("");
    }
}

fn text(told: &Told) -> String {
    let Told { report, coverage } = told;
    let mut lines: Vec<_> = report.cases.iter().map(line).collect();
    lines.push(format!(
        "{} passed, {} failed",
        report.passed, report.failed
    ));
    if let Some(coverage) = coverage {
        let reached =
            |branches: &[Branch]| branches.iter().filter(|branch| branch.cases > 0).count();
        for (what, branches) in [
            ("reasons", &coverage.reasons),
            ("settings", &coverage.configuration),
        ] {
            lines.push(format!(
                "{what:<9} {} of {} reached",
                reached(branches),
                branches.len()
            ));
        }
        lines.extend(
            coverage
                .missed()
                .map(|branch| format!("not reached: {}", branch.what)),
        );
    }
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
