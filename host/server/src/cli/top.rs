//! `oona top`: a host on one screen, for an operator who keeps it open.
//!
//! [`model`] decides what is shown, [`render`] what that looks like; [`screen`] waits for keys and answers.

mod answer;
mod ask;
mod model;
mod render;
mod screen;
mod words;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use oona_core::Timestamp;

use self::ask::{Answered, ask};
use self::model::Model;
use super::client::{self, Admin, Server};
use super::output::{Output, say, write_line};
use super::{EXIT_OK, Failure, duration_ms};
use crate::clock;

/// The width of a frame that goes to no terminal.
const WIDTH: u16 = 120;

/// Between two questions, in ms.
const INTERVAL_MS_MIN: u64 = 100;

/// See [`INTERVAL_MS_MIN`].
const INTERVAL_MS_MAX: u64 = 3_600_000;

const HELP: &str = "\
Streams with their rates, the age of their oldest message and their worst group; latencies; what policies
decide; mode, breakers and dead letters. When the connection is lost the last figures stay, in grey, and
it tries again. Keys: ? shows them. With tokens it needs the right bus:read.

Examples:
  oona top
  oona top --server db-1:7470 --interval 5s
  oona top --once
  oona top --output json | jq -c '.status.streams[] | {name, depth}'";

/// Keep an eye on a host: streams, latencies, policies, breakers, dead letters
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Top {
    /// Between two looks: 500ms, 1s, 1m
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = interval_ms)]
    interval: u64,
    /// Look once, and print that as text
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

fn interval_ms(text: &str) -> Result<u64, String> {
    let ms = duration_ms(text)?;
    if (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&ms) {
        return Ok(ms);
    }
    Err("an interval is 100ms to 1h".to_owned())
}

/// Runs the command.
pub(super) fn run(args: &Top) -> Result<u8, Failure> {
    let to_terminal = io::stdout().is_terminal();
    if !(to_terminal || args.once || args.output.is_json()) {
        return Err(Failure::Usage(
            "standard output is no terminal; use --once for one frame as text, or --output json \
             for one JSON object each interval"
                .to_owned(),
        ));
    }
    client::run(look(args))
}

async fn look(args: &Top) -> Result<u8, Failure> {
    let admin = args.server.admin().await?;
    let interval = Duration::from_millis(args.interval);
    let mut model = Model::new(&args.server.address, interval, now());
    let answered = ask(admin.clone(), model.span).await?;
    if args.once {
        return once(args.output, model, answered);
    }
    if args.output.is_json() {
        return print(&admin, model, answered).await;
    }
    model.answered(now(), answered.answer);
    screen::run(admin, model).await
}

fn now() -> Timestamp {
    clock::system()()
}

fn once(output: Output, mut model: Model, answered: Answered) -> Result<u8, Failure> {
    let text = if output.is_json() {
        answered.json
    } else {
        model.answered(now(), answered.answer);
        let terminal = io::stdout().is_terminal().then(crossterm::terminal::size);
        let width = terminal
            .and_then(Result::ok)
            .map_or(WIDTH, |(width, _)| width);
        render::text(&model, width)
    };
    write_line(&text).map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// Prints one answer after the other, until somebody ends it or nobody reads on.
async fn print(admin: &Admin, mut model: Model, first: Answered) -> Result<u8, Failure> {
    let signal = tokio::signal::ctrl_c();
    tokio::pin!(signal);
    let mut answered: Result<_, Failure> = Ok(first);
    loop {
        match answered {
            Ok(Answered { json, answer }) => {
                match write_line(&json) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(EXIT_OK),
                    written => written.map_err(anyhow::Error::from)?,
                }
                model.answered(now(), answer);
            }
            Err(failure) => {
                if model.lost.is_none() {
                    say(&format!("oona: connection lost, trying again: {failure}"));
                }
                model.lost(now(), failure.to_string());
            }
        }
        let wait = model.wait().unwrap_or(model.interval);
        let next = async {
            tokio::time::sleep(wait).await;
            ask(admin.clone(), model.span).await
        };
        answered = tokio::select! {
            _ = &mut signal => return Ok(EXIT_OK),
            answered = next => answered,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::interval_ms;

    #[test]
    fn an_interval_is_bounded() {
        let table = [
            ("100ms", Ok(100)),
            ("1h", Ok(3_600_000)),
            ("99ms", Err("an interval is 100ms to 1h".to_owned())),
            ("2h", Err("an interval is 100ms to 1h".to_owned())),
        ];
        for (text, expected) in table {
            assert_eq!(interval_ms(text), expected, "{text}");
        }
        assert!(interval_ms("often").is_err());
    }
}
