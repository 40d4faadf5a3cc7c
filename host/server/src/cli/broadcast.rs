//! `oona broadcast`: a message that must be known to have arrived.

use clap::Args;

use super::client::{self, Server};
use super::output::{self, Output};
use super::{EXIT_FAILED, EXIT_OK, Failure};
use crate::proto::{BroadcastRequest, BroadcastResponse, GroupReport, PublishRequest};

const HELP: &str = "\
The message goes to the control stream, which every subscriber to all streams reads before everything else.
What is not acknowledged by the deadline is delivered all the same; the answer only waits no longer. Exit
code 0 if every group has acknowledged, 1 if one has not.

A group is `acked`, `retrying` (it failed, and will try again), `dead-lettered` or `discarded` (it failed for
good), `delivered` (in hand, not answered), `unread` (nobody there to read it) or `no-group`.

Examples:
  oona broadcast 'roll back to 41' --group trainers --group kernels
  oona broadcast 'halt' --deadline 2s --attr run=7
  oona broadcast 'halt' --output json | jq -r '.groups[] | select(.status != \"acked\") | .group'";

/// Publish a message to all who must know, and wait for their acknowledgements
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Broadcast {
    /// The content
    #[arg(value_name = "PAYLOAD")]
    payload: String,
    /// A group to wait for; may be given several times. Without it, all that read the control stream
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// How long to wait: 500ms, 2s. As the bus is configured without it
    #[arg(long, value_name = "DURATION", value_parser = super::duration_ms)]
    deadline: Option<u64>,
    /// Type of the message: a name such as `policy_update`, or a number
    #[arg(long = "type", value_name = "TYPE", default_value = "emergency_signal")]
    #[arg(value_parser = client::parse_type)]
    message_type: u32,
    /// The subsystem that broadcasts
    #[arg(long, default_value = "cli")]
    source: String,
    /// An attribute; may be given several times
    #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = client::parse_attribute)]
    attributes: Vec<(String, String)>,
    /// Identity of the message; one is made without it
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) fn run(args: &Broadcast) -> Result<u8, Failure> {
    client::run(async {
        let mut admin = args.server.admin().await?;
        let response = admin.broadcast(request(args)).await;
        let response = response.map_err(|status| client::failure(&status))?;
        let response = response.into_inner();
        let written = args.output.write(&response, table);
        written.map_err(anyhow::Error::from)?;
        if !args.output.is_json() {
            output::say(&sum(&response));
        }
        Ok(if response.all_acked {
            EXIT_OK
        } else {
            EXIT_FAILED
        })
    })
}

fn request(args: &Broadcast) -> BroadcastRequest {
    let message = PublishRequest {
        id: args.id.clone(),
        message_type: args.message_type,
        source: args.source.clone(),
        payload: args.payload.clone().into(),
        attributes: client::attributes(&args.attributes),
        ..PublishRequest::default()
    };
    BroadcastRequest {
        message: Some(message),
        groups: args.groups.clone(),
        deadline_ms: args.deadline,
    }
}

/// One line for each group.
fn table(response: &BroadcastResponse) -> String {
    let width = response.groups.iter().map(|group| group.group.len()).max();
    let width = width.unwrap_or(0);
    let line = |group: &GroupReport| {
        let after = group.after_ms;
        let after = after.map_or_else(String::new, |ms| format!("after {ms} ms"));
        let how = match (&*group.status, group.receipt) {
            ("acked", false) => ", without a receipt",
            _ => "",
        };
        let line = format!("{:width$}  {:<13}  {after}{how}", group.group, group.status);
        line.trim_end().to_owned()
    };
    let lines: Vec<_> = response.groups.iter().map(line).collect();
    lines.join("\n")
}

fn sum(response: &BroadcastResponse) -> String {
    let BroadcastResponse {
        stream,
        entry,
        took_ms,
        groups,
        ..
    } = response;
    let acked = groups.iter().filter(|group| group.status == "acked");
    let (acked, all) = (acked.count(), groups.len());
    if all == 0 {
        return format!("nobody reads {stream}; it is there as entry {entry}");
    }
    format!("{acked} of {all} groups have acknowledged entry {entry} of {stream}, in {took_ms} ms")
}
