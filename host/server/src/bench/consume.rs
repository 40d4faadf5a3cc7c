//! Consuming: read, verify, judge, deliver, acknowledge; until the last acknowledgement is in Redis.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::raw::Raw;
use super::report::Samples;
use super::{BenchError, GROUP, STREAM};
use crate::bus::{Bus, SubscribeOptions};
use crate::proto::bus_client::BusClient;
use crate::proto::subscribe_request::Request;
use crate::proto::subscribe_response::Response;
use crate::proto::{Ack, Credit, Open, SubscribeRequest};

/// How many deliveries may be in flight.
const IN_FLIGHT: usize = 2_048;

/// In this process.
pub(super) async fn embedded(
    bus: &Bus,
    raw: &mut Raw,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let options = SubscribeOptions {
        streams: vec![STREAM.into()],
        in_flight_max: IN_FLIGHT,
        ..SubscribeOptions::new(GROUP)
    };
    let begun = Instant::now();
    let subscription = bus.subscribe(options);
    let mut subscription = subscription.map_err(|error| BenchError::Bus(error.to_string()))?;
    let ended = || BenchError::Bus("the subscription ended".to_owned());
    let mut left = messages;
    while left > 0 {
        let first = subscription.next().await.ok_or_else(ended)?;
        let more = subscription.ready(IN_FLIGHT);
        for delivery in std::iter::once(first).chain(more) {
            let acknowledged = subscription.ack(delivery.id);
            acknowledged.map_err(|error| BenchError::Bus(error.to_string()))?;
            left -= 1;
        }
    }
    finished(raw).await?;
    samples.rate("consume", messages, begun.elapsed());
    subscription.close();
    Ok(())
}

/// Over one gRPC stream.
pub(super) async fn grpc(
    channel: &Channel,
    raw: &mut Raw,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let (requests, outgoing) = mpsc::channel(64);
    let say = async |request| {
        let request = Some(request);
        let said = requests.send(SubscribeRequest { request }).await;
        said.map_err(|_| BenchError::Bus("the subscription ended".to_owned()))
    };
    let begun = Instant::now();
    let open = Open {
        group: GROUP.to_owned(),
        streams: vec![STREAM.to_owned()],
        credit: IN_FLIGHT as u32,
        ..Open::default()
    };
    say(Request::Open(open)).await?;
    let call = BusClient::new(channel.clone())
        .max_decoding_message_size(crate::proto::RESPONSE_BYTES_MAX)
        .subscribe(ReceiverStream::new(outgoing))
        .await;
    let mut responses = call?.into_inner();
    let mut left = messages;
    while left > 0 {
        let response = responses.message().await?;
        let Some(Response::Deliveries(batch)) = response.and_then(|said| said.response) else {
            continue;
        };
        let delivery_ids: Vec<_> = batch
            .deliveries
            .iter()
            .map(|delivery| delivery.id)
            .collect();
        left = left.saturating_sub(delivery_ids.len());
        let messages = delivery_ids.len() as u32;
        say(Request::Ack(Ack { delivery_ids })).await?;
        say(Request::Credit(Credit { messages, bytes: 0 })).await?;
    }
    finished(raw).await?;
    samples.rate("consume-grpc", messages, begun.elapsed());
    Ok(())
}

/// Waits until Redis knows every acknowledgement.
async fn finished(raw: &mut Raw) -> Result<(), BenchError> {
    let mut looks = interval(Duration::from_millis(1));
    while raw.unfinished(STREAM).await? > 0 {
        looks.tick().await;
    }
    Ok(())
}
