//! `oona explain`: what each policy decides on a message, and why.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{self, Server};
use super::output::Output;
use super::{EXIT_OK, Failure};
use crate::proto::ExplainRequest;

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
    let request = request(&value);
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

/// From whichever form the message is in.
fn request(value: &Value) -> ExplainRequest {
    if let (Some(kind), Some(_)) = (value["kind"].as_str(), value.get("decision")) {
        // A recorded decision: the policy of its kind is told what it was told then.
        return ExplainRequest {
            message_json: value["message"].to_string(),
            state_json: HashMap::from([(kind.to_owned(), value["state"].to_string())]),
            now_ms: value["at_ms"].as_u64(),
        };
    }
    if let (Some(message), Some(failure)) = (value.get("message"), value.get("failure")) {
        // A dead letter: the policy that filed it is told how the delivery failed.
        let state = json!({ "failure": failure });
        return ExplainRequest {
            message_json: message.to_string(),
            state_json: HashMap::from([("dead-letter".to_owned(), state.to_string())]),
            now_ms: value["at_ms"].as_u64(),
        };
    }
    if let Some(id) = value
        .get("id")
        .filter(|_| value.get("message_type").is_some())
    {
        // A delivered message.
        let field = |name: &str| value.get(name).cloned().unwrap_or_default();
        let message = json!({
            "id": id,
            "type": field("message_type"),
            "priority": field("priority"),
            "source": field("source"),
            "key": field("key"),
            "attempt": field("attempt"),
            "created_at": field("created_at_ms"),
            "attributes": field("attributes"),
        });
        let known = message
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null());
        let known: serde_json::Map<_, _> = known
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        return ExplainRequest {
            message_json: Value::Object(known).to_string(),
            ..Default::default()
        };
    }
    ExplainRequest {
        message_json: value.to_string(),
        ..Default::default()
    }
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
