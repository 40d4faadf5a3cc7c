//! `oona subscribe`: messages on standard output.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use oona_core::envelope::message_type;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::client::{self, Server};
use super::output::{Output, say};
use super::{EXIT_OK, Failure};
use crate::proto::subscribe_request::Request;
use crate::proto::subscribe_response::Response;
use crate::proto::{self, SubscribeRequest, SubscribeResponse};

/// How many deliveries may be on their way to this command.
const CREDIT: u32 = 256;

/// How many answers may wait to be sent to the bus.
const ANSWERS_MAX: usize = 64;

/// How long the bus may take to take note of the last acknowledgements.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);

const HELP: &str = "\
A message is acknowledged when it has been printed. With --no-ack it is not, and goes to another
subscriber of the group when this one ends. Every group gets every message.

Examples:
  oona subscribe
  oona subscribe --group audit --streams oona.emergency,oona.normal --output json
  oona subscribe --count 1 --start end";

/// Print messages as they come
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Subscribe {
    /// The consumer group
    #[arg(long, default_value = "cli")]
    group: String,
    /// The streams to read, separated by commas; all without it
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    streams: Vec<String>,
    /// Where a group begins that does not exist yet
    #[arg(long, value_enum, default_value_t)]
    start: Start,
    /// End after this many messages; on a signal without it
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Do not acknowledge
    #[arg(long)]
    no_ack: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Start {
    /// With the oldest message there is
    #[default]
    Beginning,
    /// With what is published from now on
    End,
}

/// Runs the command.
pub(super) fn run(args: &Subscribe) -> Result<u8, Failure> {
    client::run(follow(args))
}

async fn follow(args: &Subscribe) -> Result<u8, Failure> {
    let mut bus = args.server.bus().await?;
    let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
    let open = open(args);
    let allowed = open.credit.into();
    let mut session = Session {
        args,
        answers: Some(answers),
        printed: 0,
        allowed,
    };
    session.send(Request::Open(open)).await;
    let responses = bus.subscribe(ReceiverStream::new(outgoing)).await;
    let mut responses = responses
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let signal = tokio::signal::ctrl_c();
    tokio::pin!(signal);
    loop {
        let response = tokio::select! {
            _ = &mut signal => break,
            response = responses.message() => response.map_err(|status| client::failure(&status))?,
        };
        let Some(response) = response else { break };
        if session.handle(response).await? {
            break;
        }
    }
    session.farewell(responses).await;
    Ok(EXIT_OK)
}

fn open(args: &Subscribe) -> proto::Open {
    let credit = args.count.map_or(CREDIT, |count| {
        CREDIT.min(u32::try_from(count).unwrap_or(CREDIT))
    });
    let start = match args.start {
        Start::Beginning => proto::Start::Beginning,
        Start::End => proto::Start::End,
    };
    proto::Open {
        group: args.group.clone(),
        consumer: "cli".to_owned(),
        streams: args.streams.clone(),
        credit,
        credit_bytes: None,
        ack_deadline_ms: None,
        start: start.into(),
    }
}

/// One subscription of this command.
struct Session<'a> {
    args: &'a Subscribe,
    /// `None` once everything was said.
    answers: Option<mpsc::Sender<SubscribeRequest>>,
    printed: u64,
    /// How many deliveries the bus may have made in all.
    allowed: u64,
}

impl Session<'_> {
    /// Handles one response; answers whether all was printed that should be.
    async fn handle(&mut self, response: SubscribeResponse) -> Result<bool, Failure> {
        match response.response {
            Some(Response::Deliveries(batch)) => self.print(batch.deliveries).await,
            Some(Response::Lapsed(lapsed)) => {
                let count = lapsed.delivery_ids.len();
                say(&format!(
                    "{count} acknowledgements came too late; expect those messages again"
                ));
                Ok(false)
            }
            Some(Response::Opened(_)) | None => Ok(false),
        }
    }

    async fn print(&mut self, deliveries: Vec<proto::Delivery>) -> Result<bool, Failure> {
        let mut done = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let printed = Printed::of(&delivery);
            match self.args.output.write(&printed, Printed::text) {
                Ok(()) => done.push(delivery.id),
                // Whoever reads this has gone: what it did not read is not acknowledged.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.acknowledge(done).await;
                    return Ok(true);
                }
                Err(error) => return Err(Failure::Failed(error.into())),
            }
        }
        self.printed += done.len() as u64;
        let room = done.len() as u64;
        self.acknowledge(done).await;
        self.allow(room).await;
        Ok(self.args.count.is_some_and(|count| self.printed >= count))
    }

    /// Allows as many more messages as there is room for, and never more than are wanted.
    async fn allow(&mut self, room: u64) {
        let wanted = self
            .args
            .count
            .map_or(room, |count| room.min(count - self.allowed));
        if wanted > 0 {
            self.allowed += wanted;
            let messages = u32::try_from(wanted).unwrap_or(u32::MAX);
            self.send(Request::Credit(proto::Credit { messages, bytes: 0 }))
                .await;
        }
    }

    async fn acknowledge(&self, delivery_ids: Vec<u64>) {
        if !self.args.no_ack && !delivery_ids.is_empty() {
            self.send(Request::Ack(proto::Ack { delivery_ids })).await;
        }
    }

    /// If the bus does not listen any more, it says so in its own stream.
    async fn send(&self, request: Request) {
        if let Some(answers) = &self.answers {
            drop(
                answers
                    .send(SubscribeRequest {
                        request: Some(request),
                    })
                    .await,
            );
        }
    }

    /// Closes this side, and waits for the bus to close the other: then it has taken note of the last
    /// acknowledgement.
    async fn farewell(&mut self, mut responses: Streaming<SubscribeResponse>) {
        self.answers = None;
        let closed = async { while let Ok(Some(_)) = responses.message().await {} };
        if tokio::time::timeout(FAREWELL_TIME_MAX, closed)
            .await
            .is_err()
        {
            say("the bus did not confirm the last acknowledgements; expect those messages again");
        }
    }
}

/// A message as it is printed.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    stream: &'a str,
    entry: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    message_type: String,
    priority: &'static str,
    source: &'a str,
    key: &'a str,
    redelivered: bool,
    attempt: u32,
    deliveries: u32,
    created_at_ms: Option<u64>,
    attributes: &'a std::collections::BTreeMap<String, String>,
    #[serde(flatten)]
    payload: Payload<'a>,
}

/// As text if it is text, else in base64.
#[derive(Debug, Serialize)]
enum Payload<'a> {
    #[serde(rename = "payload")]
    Text(&'a str),
    #[serde(rename = "payload_base64")]
    Bytes(String),
}

impl<'a> Printed<'a> {
    fn of(delivery: &'a proto::Delivery) -> Self {
        let number = delivery.message_type;
        let name = message_type::name(number);
        let payload = std::str::from_utf8(&delivery.payload);
        Self {
            stream: &delivery.stream,
            entry: &delivery.entry,
            id: &delivery.message_id,
            message_type: name.map_or_else(|| number.to_string(), str::to_owned),
            priority: delivery.priority().said().unwrap_or_default().name(),
            source: &delivery.source,
            key: &delivery.key,
            redelivered: delivery.redelivered,
            attempt: delivery.attempt,
            deliveries: delivery.deliveries,
            created_at_ms: delivery.created_at_ms,
            attributes: &delivery.attributes,
            payload: payload.map_or_else(
                |_| Payload::Bytes(STANDARD.encode(&delivery.payload)),
                Payload::Text,
            ),
        }
    }

    fn text(&self) -> String {
        let again = if self.redelivered { " again" } else { "" };
        let payload = match &self.payload {
            Payload::Text(text) => (*text).to_owned(),
            Payload::Bytes(encoded) => format!("base64:{encoded}"),
        };
        let Self {
            stream,
            entry,
            message_type,
            priority,
            source,
            ..
        } = self;
        format!("{stream} {entry} {message_type} {priority} {source}{again}: {payload}")
    }
}
