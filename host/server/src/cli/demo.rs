//! `oona demo`: what the bus is for, in twenty seconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oona_wasm::EngineConfig;

use super::output::{Output, say};
use super::{EXIT_FAILED, EXIT_OK, Failure, serve};
use crate::demo::{self, DemoError, DemoOptions, Notice, SECONDS_MIN};

const HELP: &str = "\
Nothing is needed but the components: the bus runs in this process, in memory. Five producers publish
to two subscribers, one of which dies; the routing policy is replaced under load; a hostile one is
refused, another contained; a dead letter is redriven. The exit code is 1 if a message is not
accounted for.

Examples:
  oona demo
  oona demo --seconds 60 --output json";

/// Show what the bus is for
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Demo {
    /// How long messages are published
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(SECONDS_MIN..=3_600))]
    seconds: u64,
    /// Directory with the components; target/policies, or `policies` beside the program, without it
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) fn run(args: &Demo) -> Result<u8, Failure> {
    let runtime = serve::runtime(&EngineConfig::default())?;
    let options = DemoOptions {
        length: Duration::from_secs(args.seconds),
        policies: args.policies.clone(),
    };
    let bar = progress_bar(args.seconds);
    let shown = bar.clone();
    let listener = Arc::new(move |notice: Notice<'_>| show(&shown, notice));
    let report = runtime.block_on(demo::run(options, listener))?;
    bar.finish_and_clear();
    args.output
        .write(&report, ToString::to_string)
        .map_err(anyhow::Error::from)?;
    Ok(if report.balanced {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

fn progress_bar(seconds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(seconds * 1_000).with_style(style)
}

fn show(bar: &ProgressBar, notice: Notice<'_>) {
    match notice {
        Notice::Event(event) if bar.is_hidden() => say(event),
        Notice::Event(event) => bar.println(event),
        Notice::Progress {
            elapsed,
            published,
            handled,
        } => {
            bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            bar.set_message(format!("{published} published, {handled} handled"));
        }
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Policies(missing) => Self::Usage(crate::chain::chain(&missing)),
            other => Self::Failed(other.into()),
        }
    }
}
