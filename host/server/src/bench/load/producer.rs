//! A producer that keeps its pace, whatever the bus does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::super::PAYLOAD_BYTES;
use super::super::host_process::connect;
use super::super::ledger::id_of;
use super::{Load, PAUSE};
use crate::proto::bus_client::BusClient;
use crate::proto::publish_response::Outcome;
use crate::proto::{PublishRequest, PublishResponse, Rejected};

/// How often messages are sent.
const BEAT: Duration = Duration::from_millis(5);

/// How many publishes may wait for their outcome; at that, the pace is not kept.
const IN_FLIGHT_MAX: usize = 4_096;

/// How many messages one beat sends at most.
const BEAT_MESSAGES_MAX: u64 = 4_096;

/// How long the last outcomes may take.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub(in super::super) struct Producer {
    pub(in super::super) load: Arc<Load>,
    pub(in super::super) host: SocketAddr,
    /// Messages a second.
    pub(in super::super) rate: u32,
    /// Whether what could not be sent in time is sent as soon as it can be. Its latency counts from
    /// when it was due.
    pub(in super::super) catch_up: bool,
    /// The newest message that it has heard to be written.
    pub(in super::super) newest: Arc<AtomicU64>,
}

/// Publishes without an outcome, and when they were due, in µs of the load.
type InFlight = HashMap<u64, u64>;

impl Producer {
    /// Publishes until it is told to stop.
    pub(in super::super) async fn run(self, stop: CancellationToken) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(if self.catch_up {
            MissedTickBehavior::Burst
        } else {
            MissedTickBehavior::Skip
        });
        let mut due = 0.0;
        while !stop.is_cancelled() {
            let mut in_flight = InFlight::new();
            // A host that is gone is no failure here.
            drop(
                self.session(&mut beats, &mut due, &mut in_flight, &stop)
                    .await,
            );
            for number in in_flight.into_keys() {
                self.load.ledger.unknown(number);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// One connection, until it breaks or everything is said.
    async fn session(
        &self,
        beats: &mut Interval,
        due: &mut f64,
        in_flight: &mut InFlight,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut client = BusClient::new(connect(self.host).await?);
        let (requests, outgoing) = mpsc::channel(IN_FLIGHT_MAX);
        let responses = client.publish_stream(ReceiverStream::new(outgoing));
        let mut responses = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            responses = responses => responses?.into_inner(),
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                response = responses.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    self.heard(in_flight, response);
                }
                at = beats.tick(), if in_flight.len() < IN_FLIGHT_MAX => {
                    let at = self.load.micros(at.into_std());
                    *due += f64::from(self.rate) * BEAT.as_secs_f64();
                    let room = (IN_FLIGHT_MAX - in_flight.len()) as u64;
                    let count = (*due as u64).min(room).min(BEAT_MESSAGES_MAX);
                    *due -= count as f64;
                    for _ in 0..count {
                        let request = self.request(at);
                        in_flight.insert(request.sequence, at);
                        requests.send(request).await?;
                    }
                }
            }
        }
        drop(requests);
        let rest = async {
            while let Some(response) = responses.message().await? {
                self.heard(in_flight, response);
            }
            anyhow::Ok(())
        };
        timeout(FAREWELL_TIME_MAX, rest).await?
    }

    fn request(&self, due_us: u64) -> PublishRequest {
        let number = self.load.ledger.publish();
        let mut payload = vec![0x5a; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&due_us.to_be_bytes());
        PublishRequest {
            sequence: number,
            id: id_of(number),
            message_type: Load::type_of(number),
            source: "load".to_owned(),
            payload: payload.into(),
            ..PublishRequest::default()
        }
    }

    fn heard(&self, in_flight: &mut InFlight, response: PublishResponse) {
        let number = response.sequence;
        let Some(due) = in_flight.remove(&number) else {
            return;
        };
        match response.outcome {
            Some(Outcome::Accepted(_)) => {
                self.load.published(due);
                self.load.ledger.accepted(number);
                self.newest.fetch_max(number, Ordering::Relaxed);
            }
            Some(Outcome::Rejected(rejected)) => {
                self.load.refused(&rejected.cause, &rejected.reason);
                if may_be_written(&rejected) {
                    self.load.ledger.unknown(number);
                } else {
                    self.load.ledger.refused(number);
                }
            }
            None => self.load.ledger.unknown(number),
        }
    }
}

/// Only where the store did not answer is the outcome unknown: a breaker that is open and a store that
/// refuses have written nothing.
fn may_be_written(rejected: &Rejected) -> bool {
    rejected.cause == "unavailable" && rejected.reason == "store-unavailable"
}
