//! A subscriber that handles what comes, from its host whenever that is there.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::super::host_process::connect;
use super::super::ledger::number_of;
use super::{GROUP, Handling, PAUSE, RETRY_DELAY, Witness};
use crate::proto::bus_client::BusClient;
use crate::proto::subscribe_request::Request;
use crate::proto::subscribe_response::Response;
use crate::proto::{Ack, Credit, Delivery, Nack, Open, RESPONSE_BYTES_MAX, SubscribeRequest};

/// How many deliveries a subscriber takes at once.
const CREDIT: u32 = 1_024;

/// How many answers may wait to be sent to the host.
const ANSWERS_MAX: usize = 64;

/// See the module.
pub(in super::super) struct Subscriber {
    pub(in super::super) witness: Arc<dyn Witness>,
    pub(in super::super) host: SocketAddr,
    pub(in super::super) name: String,
    /// One message in so many can never be handled.
    pub(in super::super) poison_every: u64,
}

type Requests = mpsc::Sender<SubscribeRequest>;

impl Subscriber {
    /// Handles messages until it is told to stop.
    pub(in super::super) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // A host that is gone is no failure here; the next one delivers again what was not
                // acknowledged.
                _ = self.session() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn session(&self) -> anyhow::Result<()> {
        let mut client =
            BusClient::new(connect(self.host).await?).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let (requests, outgoing) = mpsc::channel(ANSWERS_MAX);
        let open = Open {
            group: GROUP.to_owned(),
            consumer: self.name.clone(),
            credit: CREDIT,
            ..Open::default()
        };
        say(&requests, Request::Open(open)).await?;
        let responses = client.subscribe(ReceiverStream::new(outgoing)).await?;
        let mut responses = responses.into_inner();
        while let Some(response) = responses.message().await? {
            if let Some(Response::Deliveries(batch)) = response.response {
                self.handle(&requests, batch.deliveries).await?;
            }
        }
        Ok(())
    }

    async fn handle(&self, requests: &Requests, batch: Vec<Delivery>) -> anyhow::Result<()> {
        let messages = u32::try_from(batch.len())?;
        let mut delivery_ids = Vec::with_capacity(batch.len());
        let mut handled = Vec::with_capacity(batch.len());
        let mut nacks = Vec::new();
        for delivery in batch {
            let Some(number) = number_of(&delivery.message_id) else {
                delivery_ids.push(delivery.id);
                continue;
            };
            self.witness.came(number, &delivery);
            match Handling::of(number, self.poison_every) {
                Handling::FailsOnce if delivery.attempt == 0 => {
                    nacks.push(nack(delivery.id, Handling::FailsOnce));
                }
                Handling::Poison => nacks.push(nack(delivery.id, Handling::Poison)),
                Handling::Done | Handling::FailsOnce => {
                    delivery_ids.push(delivery.id);
                    handled.push(number);
                }
            }
        }
        self.witness.handled(&handled)?;
        for nack in nacks {
            say(requests, Request::Nack(nack)).await?;
        }
        say(requests, Request::Ack(Ack { delivery_ids })).await?;
        say(requests, Request::Credit(Credit { messages, bytes: 0 })).await
    }
}

fn nack(delivery_id: u64, handling: Handling) -> Nack {
    let poison = handling == Handling::Poison;
    let delay_ms = u64::try_from(RETRY_DELAY.as_millis()).unwrap_or(u64::MAX);
    Nack {
        delivery_id,
        poison,
        delay_ms: (!poison).then_some(delay_ms),
        reason: "the load wants it so".to_owned(),
    }
}

async fn say(requests: &Requests, request: Request) -> anyhow::Result<()> {
    let request = Some(request);
    Ok(requests.send(SubscribeRequest { request }).await?)
}
