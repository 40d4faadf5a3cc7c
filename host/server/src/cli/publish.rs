//! `oona publish`: one message, or many.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, IsTerminal, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use futures_util::stream::{self, Stream, StreamExt};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use oona_core::policy::Priority;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::interval;

use super::client::{self, Server};
use super::output::Output;
use super::{EXIT_FAILED, EXIT_OK, Failure};
use crate::proto::publish_response::Outcome;
use crate::proto::{self, PublishRequest, PublishResponse};

/// How many messages may be on their way to the bus before their outcomes are known.
const UNDER_WAY_MAX: usize = 1_024;

/// A command that takes longer shows its progress.
const PATIENCE: Duration = Duration::from_secs(2);

/// The slowest publish that is measured, in µs. What is slower counts as this.
const LATENCY_US_MAX: u64 = 60_000_000;

const HELP: &str = "\
The exit code is 0 if every message was accepted, 1 if one was rejected. Accepted means written.

Examples:
  oona publish '{\"loss\": 0.25}' --type telemetry --source trainer
  oona publish --type emergency_signal --priority emergency 'stop' --attr origin=watchdog
  oona publish --file kernel.bin --type kernel_prefetch_request
  oona publish 'load' --count 100000 --output json";

/// Publish a message, or many of them
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Publish {
    /// The content; without it and without --file, standard input is read
    #[arg(value_name = "PAYLOAD", conflicts_with = "file")]
    payload: Option<String>,
    /// Read the content from a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Type of the message: a name such as `telemetry`, or a number
    #[arg(long = "type", value_name = "TYPE", default_value = "telemetry")]
    #[arg(value_parser = client::parse_type)]
    message_type: u32,
    /// low, normal, high, critical or emergency; without it, what the type implies
    #[arg(long, value_parser = parse_priority)]
    priority: Option<Priority>,
    /// The subsystem that publishes
    #[arg(long, default_value = "cli")]
    source: String,
    /// What the message is about
    #[arg(long, default_value = "")]
    key: String,
    /// An attribute; may be given several times
    #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = client::parse_attribute)]
    attributes: Vec<(String, String)>,
    /// How long the message is of use, in milliseconds
    #[arg(long, value_name = "MS")]
    ttl_ms: Option<u64>,
    /// Identity of the message; one is made without it
    #[arg(long, conflicts_with = "count")]
    id: Option<String>,
    /// Publish it this many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How many a second at most; as many as the bus takes without it
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    let known = || Priority::ALL.map(Priority::name).join(", ");
    Priority::from_name(text).ok_or_else(|| format!("no priority; use one of {}", known()))
}

/// Runs the command.
pub(super) fn run(args: &Publish) -> Result<u8, Failure> {
    let payload = payload(args)?;
    client::run(async {
        if args.count == 1 {
            one(args, payload).await
        } else {
            many(args, payload).await
        }
    })
}

fn payload(args: &Publish) -> Result<Bytes, Failure> {
    if let Some(text) = &args.payload {
        return Ok(text.clone().into());
    }
    if let Some(file) = &args.file {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(bytes.into());
    }
    let mut stdin = io::stdin();
    if stdin.is_terminal() {
        let what = "nothing to publish; give a payload, --file FILE, or pipe one in";
        return Err(Failure::Usage(what.to_owned()));
    }
    let mut bytes = Vec::new();
    stdin
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    Ok(bytes.into())
}

fn request(args: &Publish, payload: Bytes, sequence: u64) -> PublishRequest {
    PublishRequest {
        sequence,
        id: args.id.clone().unwrap_or_default(),
        message_type: args.message_type,
        priority: args
            .priority
            .map_or(0, |priority| proto::Priority::from(priority).into()),
        source: args.source.clone(),
        key: args.key.clone(),
        payload,
        attributes: client::attributes(&args.attributes),
        created_at_ms: None,
        ttl_ms: args.ttl_ms,
    }
}

/// What became of one message.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
enum Told {
    Accepted {
        stream: String,
        entry: String,
        lane: String,
        reason: String,
        pressure: f64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    Rejected {
        cause: String,
        reason: String,
        detail: String,
        retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
}

impl Told {
    fn of(response: PublishResponse) -> anyhow::Result<Self> {
        Ok(
            match response
                .outcome
                .context("the bus answered without an outcome")?
            {
                Outcome::Accepted(accepted) => Self::Accepted {
                    stream: accepted.stream,
                    entry: accepted.entry,
                    lane: accepted.lane,
                    reason: accepted.reason,
                    pressure: accepted.pressure,
                    duplicate: accepted.duplicate,
                },
                Outcome::Rejected(rejected) => Self::Rejected {
                    cause: rejected.cause,
                    reason: rejected.reason,
                    detail: rejected.detail,
                    retry_after_ms: rejected.retry_after_ms,
                    limit: rejected.limit,
                    size: rejected.size,
                },
            },
        )
    }

    fn text(&self) -> String {
        match self {
            Self::Accepted {
                stream,
                entry,
                lane,
                reason,
                pressure,
                duplicate,
            } => {
                let before = if *duplicate { " before" } else { "" };
                format!(
                    "accepted{before}: {stream} {entry} ({lane}; {reason}; pressure {pressure:.2})"
                )
            }
            Self::Rejected {
                cause,
                reason,
                detail,
                retry_after_ms,
                ..
            } => {
                let detail = if detail.is_empty() { reason } else { detail };
                let after = retry_after_ms.map(|ms| format!("; try again after {ms} ms"));
                format!("rejected: {cause}: {detail}{}", after.unwrap_or_default())
            }
        }
    }
}

async fn one(args: &Publish, payload: Bytes) -> Result<u8, Failure> {
    let mut bus = args.server.bus().await?;
    let response = bus.publish(request(args, payload, 0)).await;
    let response = response.map_err(|status| client::failure(&status))?;
    let told = Told::of(response.into_inner())?;
    args.output
        .write(&told, Told::text)
        .map_err(anyhow::Error::from)?;
    Ok(if matches!(told, Told::Accepted { .. }) {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

/// What became of many messages.
#[derive(Debug, Default, Serialize)]
struct Summary {
    published: u64,
    accepted: u64,
    rejected: u64,
    reasons: BTreeMap<String, u64>,
    seconds: f64,
    per_second: f64,
    latency_ms: Latency,
}

#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Summary {
    fn text(&self) -> String {
        let Latency { p50, p95, p99 } = self.latency_ms;
        let reasons = self.reasons.iter();
        let reasons: String = reasons
            .map(|(reason, count)| format!("\n  rejected {count}: {reason}"))
            .collect();
        format!(
            "{} published in {:.1} s ({:.0} a second): {} accepted, {} rejected\n\
             latency p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms{reasons}",
            self.published, self.seconds, self.per_second, self.accepted, self.rejected
        )
    }
}

async fn many(args: &Publish, payload: Bytes) -> Result<u8, Failure> {
    let mut bus = args.server.bus().await?;
    let window = Arc::new(Window::default());
    let start = Instant::now();
    let responses = bus
        .publish_stream(requests(args, payload, Arc::clone(&window)))
        .await;
    let mut responses = responses
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let mut tally = Tally::new(args.count);
    while tally.summary.published < args.count {
        let response = responses
            .message()
            .await
            .map_err(|status| client::failure(&status))?;
        let Some(response) = response else {
            let missing = args.count - tally.summary.published;
            return Err(Failure::Failed(anyhow::anyhow!(
                "the bus ended the stream; the outcome of {missing} messages is unknown"
            )));
        };
        let took = window.answered(response.sequence);
        tally.note(Told::of(response)?, took, start.elapsed());
    }
    let summary = tally.finish(start.elapsed());
    args.output
        .write(&summary, Summary::text)
        .map_err(anyhow::Error::from)?;
    Ok(if summary.rejected == 0 {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

/// The messages that are on their way.
struct Window {
    free: Semaphore,
    sent: Mutex<HashMap<u64, Instant>>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            free: Semaphore::new(UNDER_WAY_MAX),
            sent: Mutex::default(),
        }
    }
}

impl Window {
    /// Waits for a place.
    async fn send(&self, sequence: u64) {
        let place = self
            .free
            .acquire()
            .await
            .expect("the semaphore is never closed");
        place.forget();
        self.sent().insert(sequence, Instant::now());
    }

    /// Frees a place; answers how long it was taken.
    fn answered(&self, sequence: u64) -> Duration {
        self.free.add_permits(1);
        let sent = self.sent().remove(&sequence);
        sent.map_or(Duration::ZERO, |sent| sent.elapsed())
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages, no faster than asked and no more under way than the window holds.
fn requests(
    args: &Publish,
    payload: Bytes,
    window: Arc<Window>,
) -> impl Stream<Item = PublishRequest> + Send + 'static {
    let template = request(args, payload, 0);
    let pace = args
        .rate
        .map(|rate| interval(Duration::from_secs(1).div_f64(rate as f64)));
    let sequences = stream::iter(0..args.count);
    stream::unfold((sequences, pace), move |(mut sequences, mut pace)| {
        let window = Arc::clone(&window);
        let template = template.clone();
        async move {
            let sequence = sequences.next().await?;
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            window.send(sequence).await;
            Some((
                PublishRequest {
                    sequence,
                    ..template
                },
                (sequences, pace),
            ))
        }
    })
}

/// Counts outcomes, and shows how far it is.
struct Tally {
    summary: Summary,
    micros: Histogram<u64>,
    count: u64,
    progress: Option<ProgressBar>,
}

impl Tally {
    fn new(count: u64) -> Self {
        let micros = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self {
            summary: Summary::default(),
            micros: micros.expect("the bounds are constant and in order"),
            count,
            progress: None,
        }
    }

    fn note(&mut self, told: Told, took: Duration, elapsed: Duration) {
        let summary = &mut self.summary;
        summary.published += 1;
        match told {
            Told::Accepted { .. } => summary.accepted += 1,
            Told::Rejected { cause, reason, .. } => {
                summary.rejected += 1;
                *summary
                    .reasons
                    .entry(format!("{cause}: {reason}"))
                    .or_default() += 1;
            }
        }
        self.micros
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if elapsed > PATIENCE {
            let progress = self.progress.get_or_insert_with(|| progress(self.count));
            progress.set_position(self.summary.published);
        }
    }

    fn finish(mut self, elapsed: Duration) -> Summary {
        if let Some(progress) = self.progress {
            progress.finish_and_clear();
        }
        let ms = |quantile| self.micros.value_at_quantile(quantile) as f64 / 1_000.0;
        self.summary.latency_ms = Latency {
            p50: ms(0.5),
            p95: ms(0.95),
            p99: ms(0.99),
        };
        self.summary.seconds = elapsed.as_secs_f64();
        self.summary.per_second = self.summary.published as f64 / self.summary.seconds;
        self.summary
    }
}

/// On standard error, and only if that is a terminal.
fn progress(count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta} left");
    let progress = ProgressBar::new(count);
    progress.with_style(style.expect("the template is constant and valid"))
}
