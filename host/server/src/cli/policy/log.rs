//! `oona policy log`: decisions as they are made.

use anyhow::Context;
use clap::Args;
use oona_core::policy::Kind;

use super::super::client::{self, Server};
use super::super::output::{self, Output};
use super::super::{EXIT_OK, Failure};
use crate::decisions::Recorded;
use crate::proto::WatchDecisionsRequest;

const LOG_HELP: &str = "\
One decision in policies.record_every is recorded, with all that the policy was told. Ends with ctrl-c.

Examples:
  oona policy log --follow
  oona policy log --follow --kind backpressure --reason capacity
  oona policy log --type telemetry --last 100 --output json > decisions.jsonl";

#[derive(Args, Debug)]
#[command(after_help = LOG_HELP)]
pub(in crate::cli) struct Log {
    /// Only decisions of this kind of policy
    #[arg(long)]
    kind: Option<Kind>,
    /// Only with this reason
    #[arg(long, default_value = "", value_name = "REASON")]
    reason: String,
    /// Only about this stream
    #[arg(long, default_value = "", value_name = "STREAM")]
    stream: String,
    /// Only about messages of this type, a name or a number
    #[arg(long = "type", default_value = "", value_name = "TYPE")]
    message_type: String,
    /// Only by this policy: its name, version, or the first 12 digits of its digest
    #[arg(long, default_value = "", value_name = "VERSION")]
    version: String,
    /// Begin with so many of the last ones
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    last: u32,
    /// Go on with those to come
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: &Log) -> Result<u8, Failure> {
    let request = WatchDecisionsRequest {
        kind: args
            .kind
            .map_or_else(String::new, |kind| kind.name().to_owned()),
        reason: args.reason.clone(),
        stream: args.stream.clone(),
        message_type: args.message_type.clone(),
        version: args.version.clone(),
        last: args.last,
        follow: args.follow,
    };
    let mut admin = args.server.admin().await?;
    let response = admin.watch_decisions(request).await;
    let mut decisions = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    loop {
        let next = tokio::select! {
            next = decisions.message() => next.map_err(|status| client::failure(&status))?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(next) = next else { return Ok(EXIT_OK) };
        if next.left_out > 0 {
            output::say(&format!(
                "{} were left out: more than can be shown",
                next.left_out
            ));
        }
        let recorded: Recorded =
            serde_json::from_str(&next.json).context("the bus told no JSON")?;
        args.output
            .write(&recorded, line)
            .map_err(anyhow::Error::from)?;
    }
}

fn line(recorded: &Recorded) -> String {
    let Recorded {
        at_ms,
        kind,
        message,
        decision,
        policy,
        version,
        digest,
        fault,
        ..
    } = recorded;
    let failed = fault.as_ref().map_or_else(String::new, |fault| {
        format!(", since the one in use failed: {fault}")
    });
    format!(
        "{}  {kind:<12} {} {} {}: {decision}  by {policy} {version} ({digest}){failed}",
        super::instant(*at_ms),
        message.message_type,
        serde_json::to_value(message.priority)
            .unwrap_or_default()
            .as_str()
            .unwrap_or_default(),
        message.id,
    )
}
