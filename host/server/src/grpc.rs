//! The bus over gRPC: `oona.v1`, see `proto/oona.proto`.
//!
//! Nothing here decides. A publish becomes a [`Draft`](crate::bus::Draft), an outcome becomes a
//! response; a subscription is one stream out and one task that listens to its acknowledgements. What
//! is under way is bounded: publishes of one stream by `server.in_flight_max`, deliveries by the
//! subscriber's credit, the number of subscribers by `server.subscribers_max`.

mod admin;
pub mod convert;
mod publish;
mod subscribe;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use oona_core::trace_context::{self, TRACEPARENT, TRACESTATE};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::bus::Bus;
use crate::proto;
use crate::proto::admin_server::AdminServer;
use crate::proto::bus_server::BusServer;

pub use admin::{Admin, AdminOptions};

/// What a message may be larger than its payload and attributes: field numbers, lengths, names.
const MESSAGE_OVERHEAD_BYTES_MAX: usize = 16 * 1024;

/// Limits of the edge.
#[derive(Clone, Copy, Debug)]
pub struct GrpcLimits {
    /// How many publishes of one `PublishStream` may be under way.
    pub in_flight_max: usize,
    /// How many subscribers may be connected at once.
    pub subscribers_max: usize,
}

/// Both services, ready to be served.
#[must_use]
pub fn routes(bus: &Bus, limits: GrpcLimits, admin: AdminOptions) -> Routes {
    let message_max = &bus.config().limits;
    let request_max = message_max.payload_bytes_max
        + message_max.attribute_bytes_max
        + MESSAGE_OVERHEAD_BYTES_MAX;
    let service = BusService {
        bus: bus.clone(),
        in_flight_max: limits.in_flight_max,
        subscribers: Arc::new(Semaphore::new(limits.subscribers_max)),
        subscribers_max: limits.subscribers_max,
    };
    let service = BusServer::new(service).max_decoding_message_size(request_max);
    let admin = AdminServer::new(Admin::new(bus.clone(), admin));
    Routes::new(service).add_service(
        admin
            .max_decoding_message_size(proto::ADMIN_REQUEST_BYTES_MAX)
            .max_encoding_message_size(proto::ADMIN_REQUEST_BYTES_MAX),
    )
}

/// Publish and subscribe.
#[derive(Debug)]
struct BusService {
    bus: Bus,
    in_flight_max: usize,
    subscribers: Arc<Semaphore>,
    subscribers_max: usize,
}

#[tonic::async_trait]
impl proto::bus_server::Bus for BusService {
    async fn publish(
        &self,
        request: Request<proto::PublishRequest>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let said = |name| {
            request
                .metadata()
                .get(name)?
                .to_str()
                .ok()
                .map(str::to_owned)
        };
        let carried = [TRACEPARENT, TRACESTATE].map(|name| (name, said(name)));
        let mut request = request.into_inner();
        trace_context::inherit(&mut request.attributes, carried);
        publish::one(&self.bus, request).await.map(Response::new)
    }

    type PublishStreamStream = BoxStream<'static, Result<proto::PublishResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<proto::PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let outcomes = publish::many(self.bus.clone(), request.into_inner(), self.in_flight_max);
        Ok(Response::new(outcomes))
    }

    type SubscribeStream = BoxStream<'static, Result<proto::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let seat = Arc::clone(&self.subscribers)
            .try_acquire_owned()
            .map_err(|_| {
                let max = self.subscribers_max;
                Status::resource_exhausted(format!(
                    "{max} subscribers are connected, the limit; see server.subscribers_max"
                ))
            })?;
        let messages = subscribe::open(self.bus.clone(), request.into_inner(), seat);
        Ok(Response::new(messages))
    }
}
