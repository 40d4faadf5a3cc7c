//! `oona dlq`: dead letters, and what an operator decides about them.

mod act;
mod look;

use clap::{Args, Subcommand};

use super::client;
use super::{Failure, client::parse_type};
use crate::proto::DeadLetterFilter;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List dead letters, oldest first
    List(look::List),
    /// Show one with its content
    Show(look::Show),
    /// Count them by class, reason, type and stream
    Stats(look::Stats),
    /// Send them back to where they came from, or elsewhere
    Redrive(act::Redrive),
    /// Let them go for good
    Purge(act::Purge),
}

pub(super) fn run(command: Command) -> Result<u8, Failure> {
    client::run(async {
        match command {
            Command::List(args) => look::list(&args).await,
            Command::Show(args) => look::show(&args).await,
            Command::Stats(args) => look::stats(&args).await,
            Command::Redrive(args) => act::redrive(&args).await,
            Command::Purge(args) => act::purge(&args).await,
        }
    })
}

/// Which dead letters are meant: all words must fit.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which")]
struct FilterArgs {
    /// Filed under this class
    #[arg(long)]
    class: Option<String>,
    /// For this reason, as the policy says
    #[arg(long)]
    reason: Option<String>,
    /// Whose delivery failed like this: handler-error, poison, timeout, subscriber-lost, stale, replay,
    /// from-future, unverifiable or undecodable
    #[arg(long, value_name = "HOW")]
    failure: Option<String>,
    /// From this stream
    #[arg(long)]
    stream: Option<String>,
    /// Which this consumer group could not handle
    #[arg(long)]
    group: Option<String>,
    /// Messages of this type: a name, or a number
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    message_type: Option<u32>,
    /// The message with this event id
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Filed longer ago than this: 10m, 1h, 7d
    #[arg(long, value_name = "DURATION", value_parser = super::duration_ms)]
    older_than: Option<u64>,
    /// Filed no longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = super::duration_ms)]
    newer_than: Option<u64>,
}

impl FilterArgs {
    fn wire(&self) -> DeadLetterFilter {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        DeadLetterFilter {
            class: text(&self.class),
            reason: text(&self.reason),
            failure: text(&self.failure),
            stream: text(&self.stream),
            group: text(&self.group),
            message_type: self.message_type,
            event_id: text(&self.event),
            older_than_ms: self.older_than,
            newer_than_ms: self.newer_than,
        }
    }

    fn fits_all(&self) -> bool {
        self.wire() == DeadLetterFilter::default()
    }
}
