//! The command line: verbs grouped as people look for them.
//!
//! Every command has `--help` with an example and an exit code that means something ([`Failure`]).
//! What a command is for goes to standard output; what it says about its work goes to standard
//! error, so that output can be piped.

mod bench;
mod breaker;
mod broadcast;
mod client;
mod demo;
mod dlq;
mod doctor;
mod explain;
mod housekeeping;
mod mode;
pub mod output;
mod policy;
mod publish;
mod serve;
mod settings;
mod subscribe;
mod top;

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use output::{Format, Output};

use crate::config::ConfigError;

/// Exit code of a command that did what it was asked.
pub const EXIT_OK: u8 = 0;
/// Exit code of a command that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a command that was asked wrongly: usage or configuration.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of a command that reached no server or no store.
pub const EXIT_UNAVAILABLE: u8 = 3;
/// Exit code of a server that a second signal ended at once.
pub const EXIT_INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    asked wrongly: usage or configuration
  3    unavailable: no server, or no store, answers
  130  ended at once by a second signal

Start here:
  oona demo                   what it is for, in 20 s
  oona serve --dev            a bus in memory, on this machine
  oona publish 'hello'        a message onto it
  oona subscribe --count 1    and back";

/// Oona, a message bus whose behaviour can be changed while it runs.
#[derive(Debug, Parser)]
#[command(name = "oona", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Bench),
    Demo(demo::Demo),
    Serve(serve::Serve),
    Doctor(doctor::Doctor),
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Broadcast(broadcast::Broadcast),
    Explain(explain::Explain),
    Top(top::Top),
    /// Make, ship, watch and take back policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Look at dead letters, redrive or purge them
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Force the breakers of a host open or closed, or release them
    #[command(subcommand)]
    Breaker(breaker::Command),
    /// See what a host has cleared away, or have it clear away
    #[command(subcommand)]
    Housekeeping(housekeeping::Command),
    /// Force a host into conservative or normal mode, or release it
    #[command(subcommand)]
    Mode(mode::Command),
}

/// Why a command ended without doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is at fault. Exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Asked wrongly. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers. Exit code 3.
    #[error("{0}")]
    Unavailable(String),
    /// Everything else. Exit code 1.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => EXIT_USAGE,
            Self::Unavailable(_) => EXIT_UNAVAILABLE,
            Self::Failed(_) => EXIT_FAILED,
        }
    }
}

/// Parses the command line, runs the command, and says what went wrong if something did.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(usage) => return print_usage(&usage),
    };
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn parse() -> Result<Cli, clap::Error> {
    let mut matches = flowing(Cli::command()).try_get_matches()?;
    let parsed = Cli::from_arg_matches_mut(&mut matches);
    parsed.map_err(|error| error.format(&mut Cli::command()))
}

/// Leaves it to the width of the terminal where the lines of an epilogue end.
fn flowing(command: clap::Command) -> clap::Command {
    let epilogue = command.get_after_help().map(|text| flow(&text.to_string()));
    let command = match epilogue {
        Some(text) => command.after_help(text),
        None => command,
    };
    command.mut_subcommands(flowing)
}

/// Joins the lines of each paragraph. Lines that begin with a space stand by themselves.
fn flow(text: &str) -> String {
    let mut flowing = String::with_capacity(text.len());
    let mut is_open = false;
    for line in text.lines() {
        let continues = !line.is_empty() && !line.starts_with(' ');
        if !flowing.is_empty() {
            flowing.push(if is_open && continues { ' ' } else { '\n' });
        }
        flowing.push_str(line);
        is_open = continues;
    }
    flowing
}

fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Subscribe(args) => subscribe::run(&args),
        Command::Broadcast(args) => broadcast::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Policy(command) => policy::run(command),
        Command::Dlq(command) => dlq::run(command),
        Command::Breaker(command) => breaker::run(command),
        Command::Housekeeping(command) => housekeeping::run(command),
        Command::Mode(command) => mode::run(command),
    }
}

/// A length of time, such as `500ms`, `30s`, `10m`, `1h` or `7d`, in ms.
fn duration_ms(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    u64::try_from(duration.as_millis()).map_err(|_| "that is too long".to_owned())
}

/// A time in ms since the epoch, as `2026-11-23T19:58:49Z`.
fn instant(ms: u64) -> String {
    // The last second that it writes is in the year 9999.
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Help and version go to standard output and are no failure; anything else is a wrong usage.
fn print_usage(usage: &clap::Error) -> ExitCode {
    let printed = usage.print();
    match (usage.exit_code(), printed) {
        (0, _) => ExitCode::from(EXIT_OK),
        _ => ExitCode::from(EXIT_USAGE),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, flow, flowing};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn paragraphs_flow_and_examples_stand_by_themselves() {
        let text = "One\ntwo.\n\nThree\nfour:\n  oona a\n  oona b";
        assert_eq!(flow(text), "One two.\n\nThree four:\n  oona a\n  oona b");
    }

    #[test]
    fn no_epilogue_is_broken_by_hand() {
        let command = flowing(Cli::command());
        let demo = command.find_subcommand("demo").expect("there is one");
        let epilogue = demo.get_after_help().expect("it has one").to_string();
        let within_a_line = "Five producers publish to two subscribers";
        assert!(epilogue.contains(within_a_line), "{epilogue}");
    }
}
