//! Connections to a running bus.

use std::net::SocketAddr;

use oona::proto::bus_client::BusClient;
use oona::proto::subscribe_request::Request;
use oona::proto::subscribe_response::Response;
use oona::proto::{Ack, Delivery, Open, SubscribeRequest, SubscribeResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Status, Streaming};

use crate::binary::PATIENCE;

/// A connection.
///
/// # Errors
///
/// If nothing listens there.
pub async fn connect(address: SocketAddr) -> Result<Channel, Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await
}

/// A subscriber over gRPC.
#[derive(Debug)]
pub struct Subscriber {
    requests: mpsc::Sender<SubscribeRequest>,
    responses: Streaming<SubscribeResponse>,
    waiting: Vec<Delivery>,
}

impl Subscriber {
    /// Opens a subscription.
    ///
    /// # Panics
    ///
    /// If it is not taken.
    pub async fn open(address: SocketAddr, open: Open) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let request = SubscribeRequest {
            request: Some(Request::Open(open)),
        };
        requests.send(request).await.expect("there is room");
        let channel = connect(address).await.expect("the port is open");
        let responses = BusClient::new(channel)
            .subscribe(ReceiverStream::new(outgoing))
            .await;
        let responses = responses.expect("it is opened").into_inner();
        let mut subscriber = Self {
            requests,
            responses,
            waiting: Vec::new(),
        };
        assert!(matches!(
            subscriber.response().await,
            Some(Response::Opened(_))
        ));
        subscriber
    }

    /// A member of a group that reads every stream.
    ///
    /// # Panics
    ///
    /// If it is not taken.
    pub async fn group(address: SocketAddr, group: &str, credit: u32) -> Self {
        let open = Open {
            group: group.to_owned(),
            credit,
            ..Open::default()
        };
        Self::open(address, open).await
    }

    /// Says something.
    ///
    /// # Panics
    ///
    /// If the stream has ended.
    pub async fn say(&self, request: Request) {
        let request = SubscribeRequest {
            request: Some(request),
        };
        self.requests
            .send(request)
            .await
            .expect("the stream is open");
    }

    /// Says that deliveries are done.
    ///
    /// # Panics
    ///
    /// If the stream has ended.
    pub async fn ack(&self, delivery_ids: Vec<u64>) {
        self.say(Request::Ack(Ack { delivery_ids })).await;
    }

    /// The next response; `None` at the end.
    ///
    /// # Panics
    ///
    /// If there is none in time, or the stream breaks.
    pub async fn response(&mut self) -> Option<Response> {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let response = response
            .expect("something comes in time")
            .expect("the stream is whole");
        response.and_then(|response| response.response)
    }

    /// What the stream ends with, once it breaks.
    ///
    /// # Panics
    ///
    /// If it does not in time, or something else comes.
    pub async fn broken(&mut self) -> Status {
        let end = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        end.expect("it ends in time").expect_err("it says why")
    }

    /// The next delivery.
    ///
    /// # Panics
    ///
    /// If something else comes, or nothing.
    pub async fn next(&mut self) -> Delivery {
        while self.waiting.is_empty() {
            match self.response().await {
                Some(Response::Deliveries(batch)) => self.waiting.extend(batch.deliveries),
                other => panic!("expected deliveries, got {other:?}"),
            }
        }
        self.waiting.remove(0)
    }

    /// The content of the next delivery, acknowledged, as text.
    ///
    /// # Panics
    ///
    /// If something else comes, or nothing.
    pub async fn payload(&mut self) -> String {
        let delivery = self.next().await;
        self.ack(vec![delivery.id]).await;
        String::from_utf8_lossy(&delivery.payload).into_owned()
    }
}
