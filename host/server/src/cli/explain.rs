//! `oona explain`: what each policy decides on a message, and why.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::client::{self, Server};
use super::output::Output;
use super::{EXIT_OK, Failure};
use crate::explain;

const EXPLAIN_HELP: &str = "\
Every policy in use is asked about the message, in the order in which it would meet them, with the
state of the bus right now. Nothing is published, counted or changed. FILE holds a message as in a
case file, a line of `oona policy log --output json`, a message of `oona subscribe --output json`, or
a dead letter of `oona dlq show --output json`.

Examples:
  oona explain message.json
  oona policy log --last 1 --output json | oona explain -
  oona explain - <<< '{\"type\": \"telemetry\", \"priority\": \"low\"}'";

/// Tell what each policy in use decides on a message, and why
#[derive(Args, Debug)]
#[command(after_help = EXPLAIN_HELP)]
pub(super) struct Explain {
    /// A file with the message as JSON; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Decisions {
    decisions: Vec<Value>,
}

pub(super) fn run(args: &Explain) -> Result<u8, Failure> {
    client::run(explain(args))
}

async fn explain(args: &Explain) -> Result<u8, Failure> {
    let text = if args.file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        text
    } else {
        fs::read_to_string(&args.file)
            .with_context(|| format!("cannot read {}", args.file.display()))?
    };
    let value: Value = serde_json::from_str(text.trim())
        .map_err(|error| Failure::Usage(format!("{}: {error}", args.file.display())))?;
    let request = explain::request(&value);
    let mut admin = args.server.admin().await?;
    let response = admin.explain(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let decisions = response
        .decisions_json
        .iter()
        .map(|json| serde_json::from_str(json));
    let decisions = Decisions {
        decisions: decisions
            .collect::<Result<_, _>>()
            .context("the bus told no JSON")?,
    };
    args.output
        .write(&decisions, text_of)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

fn text_of(decisions: &Decisions) -> String {
    let lines = decisions.decisions.iter().map(|explained| {
        let text = |name: &str| explained[name].as_str().unwrap_or_default();
        let decision =
            serde_json::from_value::<crate::record::Decision>(explained["decision"].clone());
        let decision = decision.map_or_else(|_| String::new(), |decision| decision.to_string());
        format!(
            "{:<13} {decision}  by {} {} ({})",
            text("kind"),
            text("policy"),
            text("version"),
            text("digest")
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}
