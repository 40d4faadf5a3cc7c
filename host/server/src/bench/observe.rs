//! Publishing while everything is observed, beside publishing while nothing is.
//!
//! Both hosts count; what is left out of one is all that is made of it: latencies, journeys, traces, alerts,
//! audits, telemetry, and whoever looks. The other does all of that, most of it more often than by default, and
//! is looked at once a second by a scraper and by a console.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::raw::Raw;
use super::report::Samples;
use super::{BenchError, BenchOptions, STREAM, Scratch, WARM_UP, publish, start_with};
use crate::alerts::http_client;
use crate::host::Host;
use crate::metrics::Metrics;

/// How often a host is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a scraper and a console ask for.
const LOOKED_AT: [&str; 2] = ["/metrics", "/v1/overview?span=1m"];

/// A collector that takes spans and keeps none.
struct Collector;

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A host of each sort, on one Redis.
pub(super) struct Pair {
    seen: Host,
    unseen: Host,
    /// The collector, and who looks.
    around: [JoinHandle<()>; 2],
}

impl Pair {
    pub(super) async fn start(
        options: &BenchOptions,
        url: &str,
        scratch: &Scratch,
    ) -> Result<Self, BenchError> {
        let client = http_client(LOOK).map_err(not_seen)?;
        let (collector, endpoint) = collect().await?;
        let everything = [
            ("telemetry.interval_ms", "1000".to_owned()),
            ("dead_letters.audit_interval_ms", "1000".to_owned()),
            ("tracing.otlp_endpoint", endpoint),
        ];
        let nothing = [
            ("telemetry.interval_ms", "0".to_owned()),
            ("dead_letters.audit_interval_ms", "0".to_owned()),
            ("tracing.journeys_max", "0".to_owned()),
            ("alerts.look_ms", "60000".to_owned()),
        ];
        let seen = start_with(options, url, scratch, &everything, Metrics::new()).await?;
        let unseen = Metrics::without_latencies();
        let unseen = start_with(options, url, scratch, &nothing, unseen).await?;
        look(&client, seen.address()).await.map_err(not_seen)?;
        let looking = tokio::spawn(keep_looking(client, seen.address()));
        Ok(Self {
            seen,
            unseen,
            around: [collector, looking],
        })
    }

    /// Each to warm up; then one, the other, the other, the one: so that neither has the better half of a round.
    pub(super) async fn measure(
        &self,
        raw: &mut Raw,
        messages: usize,
        samples: &mut Samples,
    ) -> Result<(), BenchError> {
        let hosts = [&self.seen, &self.unseen];
        for host in hosts {
            publish::throughput(host.bus(), messages / WARM_UP).await?;
            raw.forget(STREAM).await?;
        }
        let mut took = [Duration::ZERO; 2];
        for which in [0, 1, 1, 0] {
            let host = hosts[which];
            took[which] += publish::throughput(host.bus(), messages).await?;
            raw.forget(STREAM).await?;
        }
        let [seen, unseen] = took;
        samples.rate("publish-seen", 2 * messages, seen);
        samples.rate("publish-unseen", 2 * messages, unseen);
        Ok(())
    }

    pub(super) async fn end(self) {
        for task in self.around {
            task.abort();
        }
        tokio::join!(self.seen.shutdown(), self.unseen.shutdown());
    }
}

/// Serves a collector on a free port. Answers with its address.
async fn collect() -> Result<(JoinHandle<()>, String), BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|error| BenchError::Bus(error.to_string()))?;
    let address = listener.local_addr();
    let address = address.map_err(|error| BenchError::Bus(error.to_string()))?;
    let server = Server::builder().add_service(TraceServiceServer::new(Collector));
    let serving = async move {
        // It ends when the benchmark does.
        drop(
            server
                .serve_with_incoming(TcpIncoming::from(listener))
                .await,
        );
    };
    Ok((tokio::spawn(serving), format!("http://{address}")))
}

/// Looks at a host, as a scraper and a console do.
async fn look(client: &Client, host: SocketAddr) -> reqwest::Result<()> {
    for path in LOOKED_AT {
        let answer = client.get(format!("http://{host}{path}")).send().await?;
        answer.error_for_status()?.bytes().await?;
    }
    Ok(())
}

async fn keep_looking(client: Client, host: SocketAddr) {
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        if let Err(error) = look(&client, host).await {
            tracing::warn!(%error, "the host was not looked at");
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn not_seen(error: reqwest::Error) -> BenchError {
    BenchError::Bus(error.to_string())
}
