//! `oona demo`: what the bus is for, in twenty seconds.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oona_wasm::EngineConfig;

use super::output::{Output, say};
use super::{EXIT_FAILED, EXIT_OK, Failure, serve};
use crate::demo::{self, DemoError, DemoOptions, Listener, Notice, Report, SECONDS_MIN};
use crate::shutdown::Signals;

const HELP: &str = "\
Nothing is needed but the components: the bus runs in this process, in memory. Five producers publish
to two subscribers, one of which dies; the routing policy is replaced under load; a hostile one is
refused, another contained; a dead letter is redriven. The exit code is 1 if a message is not
accounted for.

The console is served all the while, at the address that is told first. On a terminal it stays after the
account, with some messages a second, until Ctrl-C.

Examples:
  oona demo
  oona demo --end
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
    /// End after the account, on a terminal too
    #[arg(long)]
    end: bool,
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
    let report = runtime.block_on(play(args, options, &bar, listener))?;
    Ok(if report.balanced {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

async fn play(
    args: &Demo,
    options: DemoOptions,
    bar: &ProgressBar,
    listener: Listener,
) -> Result<Report, Failure> {
    let demo = demo::Demo::open(options, listener).await?;
    let console = format!("http://{}/", demo.address());
    show(bar, Notice::Event(&format!("console   {console}")));
    let played = demo.play().await;
    bar.finish_and_clear();
    let report = match played {
        Ok(report) => report,
        Err(error) => {
            demo.end().await;
            return Err(error.into());
        }
    };
    let written = args.output.write(&report, ToString::to_string);
    if written.is_ok() && stays(args) {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        say(&format!(
            "\nthe console stays at {console} with some messages a second; Ctrl-C ends the demo"
        ));
        let enough = async {
            signals.next().await;
        };
        demo.go_on(enough).await?;
    }
    demo.end().await;
    written.map_err(anyhow::Error::from)?;
    Ok(report)
}

/// Whether somebody is there to look when the account has been told.
fn stays(args: &Demo) -> bool {
    let by_hand = io::stdin().is_terminal() && io::stdout().is_terminal();
    by_hand && !args.end && !args.output.is_json()
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
