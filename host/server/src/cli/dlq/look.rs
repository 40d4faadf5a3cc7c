//! `oona dlq list | show | stats`.

use std::io::{self, Write as _};

use anyhow::Context;
use clap::Args;
use oona_core::envelope::message_type;
use serde::Serialize;
use serde_json::Value;

use super::super::client::{self, Server};
use super::super::output::{self, Output};
use super::super::{EXIT_OK, Failure, instant};
use super::FilterArgs;
use crate::proto::{
    DeadLetter, DeadLetterStatsRequest, GetDeadLetterRequest, GetDeadLetterResponse,
    ListDeadLettersRequest,
};

/// How much of a payload is shown to people, in bytes.
const PAYLOAD_SHOWN: usize = 1_024;

const LIST_HELP: &str = "\
Examples:
  oona dlq list
  oona dlq list --class out-of-attempts --older-than 1h --limit 500
  oona dlq list --type kernel_prefetch_request --output json | jq .event_id";

#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    filter: FilterArgs,
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Only those after this one; see the end of a list
    #[arg(long, default_value = "", value_name = "ID")]
    after: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

const SHOW_HELP: &str = "\
Examples:
  oona dlq show 1795486001197-0
  oona dlq show 1795486001197-0 --payload > payload.bin
  oona dlq show 1795486001197-0 --output json | oona explain -";

#[derive(Args, Debug)]
#[command(after_help = SHOW_HELP)]
pub(in crate::cli) struct Show {
    /// Which
    #[arg(value_name = "ID")]
    id: String,
    /// Write the content of the message, byte for byte, and nothing else
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

const STATS_HELP: &str = "\
Examples:
  oona dlq stats
  oona dlq stats --newer-than 1h --output json";

#[derive(Args, Debug)]
#[command(after_help = STATS_HELP)]
pub(in crate::cli) struct Stats {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn list(args: &List) -> Result<u8, Failure> {
    let request = ListDeadLettersRequest {
        filter: Some(args.filter.wire()),
        after: args.after.clone(),
        limit: args.limit,
    };
    let mut admin = args.server.admin().await?;
    let response = admin.list_dead_letters(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    for letter in &response.letters {
        args.output
            .write(letter, line)
            .map_err(anyhow::Error::from)?;
    }
    if args.output.is_json() {
        return Ok(EXIT_OK);
    }
    if response.letters.is_empty() && response.next.is_empty() {
        output::say("no dead letters");
    }
    if response.foreign > 0 {
        output::say(&format!(
            "{} entries of the dead-letter stream are no dead letters of this bus",
            response.foreign
        ));
    }
    if !response.next.is_empty() {
        output::say(&format!("more: --after {}", response.next));
    }
    Ok(EXIT_OK)
}

/// `1795486001197-0  2026-11-24T02:06:41Z  poison  telemetry  oona.normal  workers  4 attempts  attempts: why`.
fn line(letter: &DeadLetter) -> String {
    let kind = match letter.message_type {
        0 => "entry".to_owned(),
        number => type_name(number),
    };
    let attempts = match letter.attempts {
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    let detail = if letter.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", letter.detail)
    };
    format!(
        "{}  {}  {}  {kind}  from {} of {}  {attempts}  {}{detail}",
        letter.id,
        instant(letter.at_ms),
        letter.class,
        letter.group,
        letter.stream,
        letter.reason,
    )
}

fn type_name(number: u32) -> String {
    message_type::name(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// One letter, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    letter: &'a DeadLetter,
    /// Whether a key of the bus verifies the original.
    verified: Option<bool>,
    /// The message as case files have it; `oona explain` reads it.
    message: Value,
    /// The fields of the entry as it was read, in hex.
    original: Vec<(String, String)>,
}

pub(super) async fn show(args: &Show) -> Result<u8, Failure> {
    let request = GetDeadLetterRequest {
        id: args.id.clone(),
    };
    let mut admin = args.server.admin().await?;
    let response = admin.get_dead_letter(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    if args.payload {
        let written = io::stdout().write_all(&response.payload);
        written.map_err(anyhow::Error::from)?;
        return Ok(EXIT_OK);
    }
    let letter = response
        .letter
        .as_ref()
        .context("the bus did not say which")?;
    let original = response.original.iter();
    let original = original.map(|field| {
        let name = String::from_utf8_lossy(&field.name).into_owned();
        (name, crate::signature::hex(&field.value))
    });
    let shown = Shown {
        letter,
        verified: response.verified,
        message: serde_json::from_str(&response.message_json).context("the bus told no JSON")?,
        original: original.collect(),
    };
    args.output
        .write(&shown, |_| in_full(letter, &response))
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

fn in_full(letter: &DeadLetter, response: &GetDeadLetterResponse) -> String {
    let signature = match response.verified {
        None => "not looked at: the bus has no key",
        Some(true) => "good",
        Some(false) => "no key of the bus verifies it",
    };
    let mut lines = vec![
        format!("dead letter  {}", letter.id),
        format!(
            "event        {} ({})",
            letter.event_id,
            type_name(letter.message_type)
        ),
        format!("class        {}, filed by {}", letter.class, letter.policy),
        format!("reason       {}", letter.reason),
        format!("failure      {}: {}", letter.failure, letter.detail),
        format!(
            "from         {} of {}, entry {}",
            letter.group, letter.stream, letter.entry
        ),
        format!(
            "attempts     {}, first {}, last {}; redriven {} times before",
            letter.attempts,
            instant(letter.first_failed_ms),
            instant(letter.at_ms),
            letter.redrives,
        ),
        format!("signature    {signature}"),
    ];
    let attributes = letter.attributes.iter();
    lines.extend(attributes.map(|(key, value)| format!("attribute    {key} = {value}")));
    lines.push(format!("payload      {} bytes", letter.payload_size));
    match std::str::from_utf8(&response.payload) {
        Ok(text) if text.len() <= PAYLOAD_SHOWN && !text.is_empty() => lines.push(text.to_owned()),
        Ok("") => {}
        _ => lines.push(format!("(see oona dlq show {} --payload)", letter.id)),
    }
    lines.join("\n")
}

pub(super) async fn stats(args: &Stats) -> Result<u8, Failure> {
    let request = DeadLetterStatsRequest {
        filter: Some(args.filter.wire()),
    };
    let mut admin = args.server.admin().await?;
    let response = admin.dead_letter_stats(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let stats: Value =
        serde_json::from_str(&response.stats_json).context("the bus told no JSON")?;
    args.output
        .write(&stats, figures)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

fn figures(stats: &Value) -> String {
    let time = |name: &str| stats[name].as_u64().map(instant);
    let mut text = format!("{} dead letters", stats["count"]);
    if let (Some(oldest), Some(newest)) = (time("oldest_ms"), time("newest_ms")) {
        text += &format!(
            ", {} bytes of payload, from {oldest} to {newest}",
            stats["payload_bytes"]
        );
    }
    for (name, of) in [
        ("class", "classes"),
        ("reason", "reasons"),
        ("failure", "failures"),
        ("type", "message_types"),
        ("source", "sources"),
        ("stream", "streams"),
        ("group", "groups"),
    ] {
        let counts = stats[of].as_object().into_iter().flatten();
        let mut counts: Vec<_> = counts
            .map(|(name, count)| (count.as_u64().unwrap_or(0), name))
            .collect();
        counts.sort_by_key(|(count, name)| (std::cmp::Reverse(*count), *name));
        let counts: Vec<_> = counts
            .iter()
            .map(|(count, name)| format!("{name} {count}"))
            .collect();
        if !counts.is_empty() {
            text += &format!("\n{name:<8} {}", counts.join(", "));
        }
    }
    text
}
