//! Traces of messages, as a collector gets them: real hosts on a real Redis, and a small OTLP receiver that the
//! test itself runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use oona::proto::PublishRequest;
use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request as Say;
use oona::proto::{Delivery, Nack};
use oona_core::trace_context::TraceContext;
use oona_tests::binary::{Host, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::{get, get_openmetrics, send};
use oona_tests::redis_server::RedisServer;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const TELEMETRY: u32 = 4;

/// An OTLP receiver that keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let names = resource.attributes.iter();
            let names = names.filter(|attribute| attribute.key == "service.name");
            let names = names.map(|attribute| format!("{:?}", attribute.value));
            self.services.lock().unwrap().extend(names);
            let scopes = of_resource.scope_spans.into_iter();
            let spans = scopes.flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a free port for as long as the test runs; answers with its address.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, format!("http://{address}"))
    }

    fn spans_of(&self, trace_id: u128) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        let of_trace = |span: &&Span| span.trace_id == trace_id.to_be_bytes();
        spans.iter().filter(of_trace).cloned().collect()
    }

    /// The spans of a trace, by name, when there are so many.
    #[track_caller]
    fn trace(&self, trace_id: u128, count: usize) -> BTreeMap<String, Span> {
        let all = wait_until(|| self.spans_of(trace_id).len() >= count);
        let spans = self.spans_of(trace_id);
        assert!(all && spans.len() == count, "{spans:#?}");
        let spans = spans.into_iter();
        spans.map(|span| (span.name.clone(), span)).collect()
    }
}

fn host(redis: &RedisServer, settings: &[&str]) -> Host {
    let url = redis.url();
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<_> = ["--redis", url.as_str()]
        .into_iter()
        .chain(settings)
        .collect();
    Host::start(&arguments)
}

async fn publish(address: SocketAddr, id: &str, attributes: &[(&str, &str)]) {
    let mut bus = BusClient::new(connect(address).await.unwrap());
    let attributes = attributes.iter();
    let owned = attributes.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let request = PublishRequest {
        id: id.to_owned(),
        message_type: TELEMETRY,
        source: "test".to_owned(),
        payload: b"payload".to_vec().into(),
        attributes: owned.collect(),
        ..PublishRequest::default()
    };
    let response = bus.publish(request).await.unwrap().into_inner();
    assert!(matches!(response.outcome, Some(Outcome::Accepted(_))));
}

fn context(delivery: &Delivery) -> TraceContext {
    TraceContext::parse(&delivery.attributes["traceparent"]).unwrap()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.clone()?.value);
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?} in {span:#?}"),
    }
}

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PRODUCER: u64 = 0x00f0_67aa_0ba9_02b7;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_shows_a_message_from_its_publish_to_its_ack_across_processes() {
    let (collector, endpoint) = Collector::start().await;
    let redis = RedisServer::start();
    let endpoint = format!("tracing.otlp_endpoint={endpoint}");
    let [publishing, delivering] = [0; 2].map(|_| host(&redis, &[&endpoint]));
    let carried = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1")];
    publish(publishing.address, "order-7", &carried).await;
    let mut subscriber = Subscriber::group(delivering.address, "workers", 10).await;
    let delivery = subscriber.next().await;
    let handed = context(&delivery);
    assert_eq!((handed.trace_id, handed.sampled), (TRACE, true));
    assert_eq!(delivery.attributes["tracestate"], "vendor=1");
    subscriber.ack(vec![delivery.id]).await;

    let spans = collector.trace(TRACE, 7);
    // Each span, the one above it, and its kind.
    let tree = [
        ("publish oona.telemetry", "", SpanKind::Producer),
        ("queue", "publish oona.telemetry", SpanKind::Internal),
        ("policy", "publish oona.telemetry", SpanKind::Internal),
        ("append", "publish oona.telemetry", SpanKind::Client),
        (
            "deliver oona.telemetry",
            "publish oona.telemetry",
            SpanKind::Consumer,
        ),
        (
            "process oona.telemetry",
            "deliver oona.telemetry",
            SpanKind::Consumer,
        ),
        (
            "ack oona.telemetry",
            "process oona.telemetry",
            SpanKind::Client,
        ),
    ];
    for (name, above, kind) in tree {
        let span = &spans[name];
        let parent = match above {
            "" => PRODUCER.to_be_bytes().to_vec(),
            above => spans[above].span_id.clone(),
        };
        assert_eq!(span.parent_span_id, parent, "{name}");
        assert_eq!(span.kind, i32::from(kind), "{name}");
        assert_eq!(attribute(span, "messaging.message.id"), "order-7", "{name}");
    }
    // The steps of a publish are within it, one after the other.
    let times = |name: &str| {
        let span = &spans[name];
        [span.start_time_unix_nano, span.end_time_unix_nano]
    };
    let [begins, ends] = times("publish oona.telemetry");
    let steps = ["queue", "policy", "append"].map(times).concat();
    assert!(begins <= steps[0] && steps[5] <= ends, "{spans:#?}");
    assert!(steps.is_sorted(), "{spans:#?}");
    let process = &spans["process oona.telemetry"];
    assert_eq!(process.span_id, handed.span_id.to_be_bytes());
    let operations = [
        ("publish oona.telemetry", "publish", "send"),
        ("deliver oona.telemetry", "deliver", "receive"),
        ("process oona.telemetry", "process", "process"),
        ("ack oona.telemetry", "ack", "settle"),
    ];
    for (name, operation, kind) in operations {
        let span = &spans[name];
        let expected = [
            ("messaging.system", "oona"),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", kind),
            ("messaging.destination.name", "oona.telemetry"),
        ];
        for (key, value) in expected {
            assert_eq!(attribute(span, key), value, "{name}");
        }
        if kind != "send" {
            assert_eq!(attribute(span, "messaging.consumer.group.name"), "workers");
        }
    }
    let decision = attribute(&spans["policy"], "oona.decision");
    assert!(decision.contains("routing@"), "{decision}");
    let services = collector.services.lock().unwrap().clone();
    assert!(
        services.iter().all(|name| name.contains("\"oona\"")),
        "{services:?}"
    );

    // The journeys of both hosts name the trace, and so do the exemplars.
    let trace_id = format!("{TRACE:032x}");
    for host in [&publishing, &delivering] {
        let journey = get(host.address, "/debug/trace/order-7").json();
        assert_eq!(journey["trace_id"], trace_id.as_str());
    }
    for (host, stage) in [
        (&publishing, "publish"),
        (&delivering, "delivery"),
        (&delivering, "handler"),
        (&delivering, "end_to_end"),
    ] {
        let bucket = format!("oona_{stage}_duration_seconds_bucket{{");
        let exemplar = format!(" # {{trace_id=\"{trace_id}\"}} ");
        let told = || {
            let exposition = get_openmetrics(host.address);
            let mut lines = exposition.text().lines();
            lines.any(|line| {
                let of_stream = line.contains("stream=\"oona.telemetry\"");
                line.starts_with(&bucket) && of_stream && line.contains(&exemplar)
            })
        };
        assert!(wait_until(told), "{stage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_comes_with_the_call_unless_the_message_has_its_own() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let of = |digit: char| format!("00-{}-00f067aa0ba902b7-01", digit.to_string().repeat(32));
    let over_http = |id: &str, header: &str, attributes: Value| {
        let message =
            json!({ "id": id, "type": "telemetry", "payload": "x", "attributes": attributes });
        let body = message.to_string();
        let head = format!(
            "POST /v1/publish HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\ntraceparent: {header}\r\ntracestate: vendor={id}\r\n",
            body.len()
        );
        assert_eq!(send(address, &head, body.as_bytes()).status, 200);
    };
    over_http("by-header", &of('1'), json!({}));
    over_http("by-attribute", &of('2'), json!({ "traceparent": of('3') }));
    let mut by_metadata = Request::new(PublishRequest {
        id: "by-metadata".to_owned(),
        message_type: TELEMETRY,
        ..PublishRequest::default()
    });
    let metadata = by_metadata.metadata_mut();
    metadata.insert("traceparent", of('4').parse().unwrap());
    metadata.insert("tracestate", "vendor=by-metadata".parse().unwrap());
    let mut bus = BusClient::new(connect(address).await.unwrap());
    bus.publish(by_metadata).await.unwrap();

    let mut subscriber = Subscriber::group(address, "workers", 10).await;
    for (id, trace, state) in [
        ("by-header", '1', Some("vendor=by-header")),
        ("by-attribute", '3', None),
        ("by-metadata", '4', Some("vendor=by-metadata")),
    ] {
        let delivery = subscriber.next().await;
        assert_eq!(delivery.message_id, id);
        let carried = |name: &str| delivery.attributes.get(name).map(String::as_str);
        assert_eq!(carried("traceparent"), Some(&*of(trace)), "{id}");
        assert_eq!(carried("tracestate"), state, "{id}");
        subscriber.ack(vec![delivery.id]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_is_told_beside_the_one_that_succeeds() {
    let (collector, endpoint) = Collector::start().await;
    let redis = RedisServer::start();
    let host = host(&redis, &[&format!("tracing.otlp_endpoint={endpoint}")]);
    publish(host.address, "order-8", &[("traceparent", TRACEPARENT)]).await;
    let mut subscriber = Subscriber::group(host.address, "workers", 10).await;
    let delivery = subscriber.next().await;
    let nack = Nack {
        delivery_id: delivery.id,
        ..Nack::default()
    };
    subscriber.say(Say::Nack(nack)).await;
    let again = subscriber.next().await;
    assert_ne!(context(&delivery), context(&again));
    subscriber.ack(vec![again.id]).await;
    // Four of the publish, three of each attempt.
    assert!(wait_until(|| collector.spans_of(TRACE).len() == 10));
    let spans = collector.spans_of(TRACE);
    let named = |name: &str| -> Vec<&Span> {
        let name = format!("{name} oona.telemetry");
        spans.iter().filter(|span| span.name == name).collect()
    };
    let publish = named("publish")[0];
    for deliver in named("deliver") {
        assert_eq!(deliver.parent_span_id, publish.span_id);
    }
    let retry = named("retry")[0];
    assert_eq!(
        retry.parent_span_id,
        context(&delivery).span_id.to_be_bytes()
    );
    assert_eq!(attribute(retry, "error.type"), "handler-error");
    let decision = attribute(retry, "oona.decision");
    assert!(decision.contains("dead-letter@"), "{decision}");
    let failed = named("process").into_iter();
    let failed: Vec<_> = failed
        .filter(|span| span.span_id == retry.parent_span_id)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].status.as_ref().map(|status| status.code), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_begins_where_there_is_none_or_what_there_is_is_malformed() {
    let (collector, endpoint) = Collector::start().await;
    let redis = RedisServer::start();
    let url = redis.url();
    // Of the variables that every program with OpenTelemetry knows, too.
    let host = Host::start_with(
        &["--redis", &url, "--set", "tracing.sample_every=1"],
        |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        },
    );
    let mut subscriber = Subscriber::group(host.address, "workers", 10).await;
    let malformed = [
        ("traceparent", "00-nonsense-01"),
        ("tracestate", "vendor=1"),
    ];
    for (id, attributes) in [("none", &[][..]), ("malformed", &malformed)] {
        publish(host.address, id, attributes).await;
        let delivery = subscriber.next().await;
        let begun = context(&delivery);
        assert!(!delivery.attributes.contains_key("tracestate"), "{id}");
        subscriber.ack(vec![delivery.id]).await;
        let spans = collector.trace(begun.trace_id, 7);
        assert_eq!(
            spans["publish oona.telemetry"].parent_span_id, [0_u8; 0],
            "{id}"
        );
    }
    // Whoever began a trace and does not record it is not overruled.
    let unsampled = TRACEPARENT.replace("-01", "-00");
    publish(host.address, "unsampled", &[("traceparent", &unsampled)]).await;
    let delivery = subscriber.next().await;
    assert_eq!(delivery.attributes["traceparent"], unsampled);
    subscriber.ack(vec![delivery.id]).await;
    publish(host.address, "last", &[]).await;
    let last = context(&subscriber.next().await);
    assert!(wait_until(|| collector.spans_of(last.trace_id).len() >= 5));
    assert_eq!(collector.spans_of(TRACE), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_does_no_harm() {
    let redis = RedisServer::start();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let endpoint = format!("tracing.otlp_endpoint=http://{address}");
    let settings = [&*endpoint, "tracing.sample_every=1", "tracing.queue_max=1"];
    let mut host = host(&redis, &settings);
    let mut subscriber = Subscriber::group(host.address, "workers", 100).await;
    for number in 0..50 {
        publish(host.address, &number.to_string(), &[]).await;
        let delivery = subscriber.next().await;
        subscriber.ack(vec![delivery.id]).await;
    }
    let lost = |reason: &str| {
        let start = format!("oona_spans_lost_total{{reason=\"{reason}\"}} ");
        let exposition = get(host.address, "/metrics");
        let mut lines = exposition.text().lines();
        let count = lines.find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok());
        count.unwrap_or(0)
    };
    for reason in ["not-taken", "queue-full"] {
        assert!(wait_until(|| lost(reason) > 0), "{reason}");
    }
    drop(subscriber);
    host.signal("TERM");
    assert!(host.wait().success());
}
