//! The edges of the real binary: HTTP, gRPC, command line, watched directory, signals.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use oona::proto::admin_client::AdminClient;
use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::subscribe_response::Response;
use oona::proto::{
    Ack, ActivatePolicyRequest, Credit, Delivery, Extend, ListPoliciesRequest, Nack, Open,
    PublishRequest, StatusRequest, SubscribeRequest, SubscribeResponse,
};
use oona_tests::binary::{Host, PATIENCE, command, text, wait_until};
use oona_tests::grpc::connect;
use oona_tests::http::{get, post};
use prost::Message;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

fn dev() -> Host {
    Host::start(&["--dev"])
}

async fn bus(address: SocketAddr) -> BusClient<Channel> {
    BusClient::new(connect(address).await.expect("the port is open"))
}

async fn admin(address: SocketAddr) -> AdminClient<Channel> {
    AdminClient::new(connect(address).await.expect("the port is open"))
}

fn telemetry(sequence: u64, payload: &str) -> PublishRequest {
    PublishRequest {
        sequence,
        message_type: 4,
        source: "test".to_owned(),
        payload: payload.as_bytes().to_vec().into(),
        ..PublishRequest::default()
    }
}

/// A subscriber over gRPC.
struct Subscriber {
    requests: mpsc::Sender<SubscribeRequest>,
    responses: Streaming<SubscribeResponse>,
    waiting: Vec<Delivery>,
}

impl Subscriber {
    async fn open(address: SocketAddr, open: Open) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let request = SubscribeRequest {
            request: Some(Request::Open(open)),
        };
        requests.send(request).await.expect("there is room");
        let responses = bus(address)
            .await
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

    async fn group(address: SocketAddr, group: &str, credit: u32) -> Self {
        let open = Open {
            group: group.to_owned(),
            credit,
            ..Open::default()
        };
        Self::open(address, open).await
    }

    async fn say(&self, request: Request) {
        let request = SubscribeRequest {
            request: Some(request),
        };
        self.requests
            .send(request)
            .await
            .expect("the stream is open");
    }

    async fn ack(&self, delivery_ids: Vec<u64>) {
        self.say(Request::Ack(Ack { delivery_ids })).await;
    }

    async fn response(&mut self) -> Option<Response> {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let response = response
            .expect("something comes in time")
            .expect("the stream is whole");
        response.and_then(|response| response.response)
    }

    async fn next(&mut self) -> Delivery {
        while self.waiting.is_empty() {
            match self.response().await {
                Some(Response::Deliveries(batch)) => self.waiting.extend(batch.deliveries),
                other => panic!("expected deliveries, got {other:?}"),
            }
        }
        self.waiting.remove(0)
    }

    async fn payload(&mut self) -> String {
        let delivery = self.next().await;
        self.ack(vec![delivery.id]).await;
        String::from_utf8_lossy(&delivery.payload).into_owned()
    }
}

#[test]
fn health_readiness_status_and_metrics_are_there() {
    let host = dev();
    let health = get(host.address, "/healthz");
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    assert!(wait_until(|| get(host.address, "/readyz").status == 200));
    assert_eq!(get(host.address, "/readyz").json()["ready"], true);
    let status = get(host.address, "/v1/status").json();
    assert_eq!(status["store"]["name"], "memory");
    assert_eq!(status["store"]["durable"], false);
    let metrics = get(host.address, "/metrics");
    let content_type = metrics.header("content-type");
    assert_eq!(
        content_type,
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(metrics.text().contains("oona_build_info{version="));
    assert!(metrics.text().ends_with("# EOF\n"));
    let nowhere = get(host.address, "/nowhere");
    assert_eq!(nowhere.status, 404);
    assert!(
        nowhere
            .text()
            .starts_with("/nowhere is not served; see /v1/publish")
    );
}

#[tokio::test]
async fn what_is_published_in_any_form_is_delivered() {
    let host = dev();
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "all", 16).await;

    let as_json = json!({
        "type": "telemetry", "priority": "normal", "source": "test", "payload": "as JSON",
        "attributes": { "colour": "blue" }, "ttl_ms": 60_000,
    });
    let answer = post(address, "/v1/publish", JSON, as_json.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["outcome"], "accepted");
    assert_eq!(answer["stream"], "oona.telemetry");
    let delivery = subscriber.next().await;
    assert_eq!(delivery.payload, "as JSON");
    assert_eq!(delivery.stream, "oona.telemetry");
    assert_eq!(answer["id"], delivery.entry);
    assert_eq!(delivery.message_type, 4);
    assert_eq!(delivery.source, "test");
    assert_eq!(delivery.attributes["colour"], "blue");
    assert_eq!(
        (delivery.redelivered, delivery.attempt, delivery.deliveries),
        (false, 0, 1)
    );
    subscriber.ack(vec![delivery.id]).await;

    let base64 = json!({ "type": 4, "payload_base64": "/wA=" }).to_string();
    assert_eq!(
        post(address, "/v1/publish", JSON, base64.as_bytes()).status,
        200
    );
    let delivery = subscriber.next().await;
    assert_eq!(&delivery.payload[..], [0xff, 0]);

    let protobuf = telemetry(7, "as protobuf").encode_to_vec();
    let answer = post(address, "/v1/publish", PROTOBUF, &protobuf);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some(PROTOBUF))
    );
    let response = oona::proto::PublishResponse::decode(&answer.body[..]).expect("a response");
    assert!(matches!(response.outcome, Some(Outcome::Accepted(_))));
    assert_eq!(subscriber.payload().await, "as protobuf");

    let response = bus(address).await.publish(telemetry(9, "over gRPC")).await;
    let response = response.expect("it answers").into_inner();
    assert_eq!(response.sequence, 9);
    assert!(matches!(response.outcome, Some(Outcome::Accepted(_))));
    assert_eq!(subscriber.payload().await, "over gRPC");

    let metrics = get(address, "/metrics");
    let counted = metrics.text().lines().any(|line| {
        line.starts_with("oona_publish_total{stream=\"oona.telemetry\",outcome=\"accepted\"")
    });
    assert!(counted, "{}", metrics.text());
}

#[tokio::test]
async fn a_stream_of_publishes_is_answered_and_keeps_its_order() {
    const COUNT: u64 = 5_000;
    let host = dev();
    let mut subscriber = Subscriber::group(host.address, "all", u32::MAX).await;
    let requests = (0..COUNT).map(|n| telemetry(n, &n.to_string()));
    let responses = bus(host.address)
        .await
        .publish_stream(tokio_stream::iter(requests))
        .await;
    let mut responses = responses.expect("it is opened").into_inner();
    let mut sequences = Vec::new();
    while let Some(response) = responses.message().await.expect("the stream is whole") {
        assert!(
            matches!(response.outcome, Some(Outcome::Accepted(_))),
            "{response:?}"
        );
        sequences.push(response.sequence);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (0..COUNT).collect::<Vec<_>>());
    for n in 0..COUNT {
        assert_eq!(subscriber.payload().await, n.to_string());
    }
}

#[test]
fn bad_input_over_http_gets_a_typed_answer_and_is_not_written() {
    let host = dev();
    let large = json!({ "type": 4, "payload": "x".repeat(262_145) }).to_string();
    let huge = "x".repeat(2_000_000);
    let reserved = json!({ "type": 4, "attributes": { "oona.id": "x" } }).to_string();
    let table: [(&str, &str, u16, &str, &str); 7] = [
        (JSON, "{", 400, "invalid", "EOF while parsing"),
        (JSON, "{}", 400, "invalid", "missing field `type`"),
        (
            JSON,
            &reserved,
            400,
            "invalid",
            "attribute `oona.id` is the bus's own",
        ),
        (
            JSON,
            &large,
            413,
            "too-large",
            "is 262145, and the limit is 262144",
        ),
        (
            JSON,
            &huge,
            413,
            "too-large",
            "the body (bytes) is 2000000, and the limit is",
        ),
        (PROTOBUF, "\u{1}", 400, "invalid", ""),
        (
            "text/plain",
            "hello",
            415,
            "invalid",
            "the content type must be application/json",
        ),
    ];
    for (form, body, status, cause, detail) in table {
        let shown = &body[..body.len().min(40)];
        let answer = post(host.address, "/v1/publish", form, body.as_bytes());
        assert_eq!(answer.status, status, "{shown}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["outcome"], "rejected", "{shown}");
        assert_eq!(answer["cause"], cause, "{shown}");
        assert!(
            answer["detail"]
                .as_str()
                .is_some_and(|told| told.contains(detail)),
            "{answer}"
        );
        let limited = status == 413;
        assert_eq!(
            answer["limit"].is_u64() && answer["size"].is_u64(),
            limited,
            "{answer}"
        );
    }
    assert_eq!(get(host.address, "/v1/publish").status, 405);
    let written = |status: serde_json::Value| {
        let streams = status["streams"].as_array().cloned().unwrap_or_default();
        streams
            .iter()
            .filter_map(|stream| stream["length"].as_u64())
            .sum::<u64>()
    };
    assert_eq!(written(get(host.address, "/v1/status").json()), 0);
}

#[tokio::test]
async fn bad_input_over_grpc_gets_a_typed_answer() {
    let host = dev();
    let mut client = bus(host.address).await;

    let unknown = PublishRequest {
        priority: 77,
        ..telemetry(0, "x")
    };
    let status = client
        .publish(unknown.clone())
        .await
        .expect_err("it is malformed");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("priority 77 is unknown"),
        "{status}"
    );

    // On a stream it is one message's fault, not that of the others.
    let mixed = tokio_stream::iter([
        PublishRequest {
            sequence: 1,
            ..unknown
        },
        telemetry(2, "x"),
    ]);
    let responses = client.publish_stream(mixed).await.expect("it is opened");
    let mut responses = responses.into_inner();
    let mut outcomes = Vec::new();
    while let Some(response) = responses.message().await.expect("the stream is whole") {
        outcomes.push((
            response.sequence,
            matches!(response.outcome, Some(Outcome::Accepted(_))),
        ));
    }
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(1, false), (2, true)]);

    let large = telemetry(3, &"x".repeat(262_145));
    let response = client
        .publish(large)
        .await
        .expect("it answers")
        .into_inner();
    let Some(Outcome::Rejected(rejected)) = response.outcome else {
        panic!("it is too large")
    };
    assert_eq!(rejected.cause, "too-large");
    assert_eq!(
        (rejected.limit, rejected.size),
        (Some(262_144), Some(262_145))
    );

    let huge = telemetry(4, &"x".repeat(1_000_000));
    let status = client.publish(huge).await.expect_err("it is not even read");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("limit"), "{status}");
}

#[tokio::test]
async fn a_subscription_that_asks_wrongly_is_told() {
    let host = dev();
    let group = |group: &str| Open {
        group: group.to_owned(),
        credit: 1,
        ..Open::default()
    };
    let table = [
        (None, "the first request must be `open`"),
        (
            Some(Request::Credit(Credit { messages: 1 })),
            "the first request must be `open`",
        ),
        (
            Some(Request::Open(group(""))),
            "a consumer group's name has 1 to 128 bytes",
        ),
        (
            Some(Request::Open(Open {
                streams: vec!["nope".to_owned()],
                ..group("g")
            })),
            "there is no stream `nope`; the bus has oona.emergency, oona.normal",
        ),
        (
            Some(Request::Open(Open {
                start: 9,
                ..group("g")
            })),
            "start 9 is unknown",
        ),
        (
            Some(Request::Open(Open {
                ack_deadline_ms: Some(0),
                ..group("g")
            })),
            "ack_deadline_ms must not be 0",
        ),
    ];
    for (request, told) in table {
        let shown = format!("{request:?}");
        let requests = tokio_stream::iter([SubscribeRequest { request }]);
        let responses = bus(host.address)
            .await
            .subscribe(requests)
            .await
            .expect("it is opened");
        let status = responses.into_inner().message().await.expect_err(&shown);
        assert_eq!(status.code(), Code::InvalidArgument, "{shown}");
        assert!(status.message().contains(told), "{shown}: {status}");
    }
}

#[tokio::test]
async fn a_subscriber_gets_no_more_than_its_credit() {
    let host = dev();
    let mut subscriber = Subscriber::group(host.address, "slow", 2).await;
    let mut client = bus(host.address).await;
    for n in 0..5 {
        client
            .publish(telemetry(n, &n.to_string()))
            .await
            .expect("it answers");
    }
    let first = subscriber.next().await;
    let second = subscriber.next().await;
    // What no credit was given for does not come: an answer to something else does.
    subscriber.ack(vec![first.id, second.id, 4_711]).await;
    match subscriber.response().await {
        Some(Response::Lapsed(lapsed)) => assert_eq!(lapsed.delivery_ids, [4_711]),
        other => panic!("expected to hear of 4711, got {other:?}"),
    }
    subscriber
        .say(Request::Credit(Credit { messages: 3 }))
        .await;
    for n in 2..5 {
        assert_eq!(subscriber.payload().await, n.to_string());
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_says_so() {
    let host = dev();
    let mut client = bus(host.address).await;
    client
        .publish(telemetry(0, "precious"))
        .await
        .expect("it answers");

    // Lost: the connection goes away.
    let mut lost = Subscriber::group(host.address, "workers", 1).await;
    let delivery = lost.next().await;
    lost.say(Request::Extend(Extend {
        delivery_id: delivery.id,
        by_ms: 600_000,
    }))
    .await;
    drop(lost);
    let mut next = Subscriber::group(host.address, "workers", 8).await;
    let delivery = next.next().await;
    assert_eq!(delivery.payload, "precious");
    assert!(delivery.redelivered);

    // Refused, to be tried at once.
    let nack = Nack {
        delivery_id: delivery.id,
        delay_ms: Some(1),
        reason: "not today".to_owned(),
        ..Nack::default()
    };
    next.say(Request::Nack(nack)).await;
    let delivery = next.next().await;
    assert_eq!(
        (&delivery.payload[..], delivery.redelivered),
        (&b"precious"[..], true)
    );
    assert!(delivery.attempt >= 1, "{delivery:?}");
    next.ack(vec![delivery.id]).await;

    // Another group sees it as new.
    let mut other = Subscriber::group(host.address, "audit", 8).await;
    assert!(!other.next().await.redelivered);
}

#[test]
fn the_command_line_publishes_and_subscribes() {
    let host = dev();
    let directory = TempDir::new().expect("a temporary directory");
    let server = host.address.to_string();
    let oona = |arguments: &[&str]| {
        let mut command = command(&directory, arguments);
        let output = command
            .env("OONA_ADDRESS", &server)
            .output()
            .expect("the binary starts");
        (
            output.status.code(),
            text(&output.stdout).to_owned(),
            text(&output.stderr).to_owned(),
        )
    };
    let lines = |text: &str| -> Vec<serde_json::Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    };

    let (code, out, err) = oona(&["publish", "hello", "--attr", "a=b", "--output", "json"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(lines(&out)[0]["outcome"], "accepted");
    let (code, out, _) = oona(&["publish", "urgent", "--priority", "critical"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("accepted: oona.emergency "), "{out}");

    let (code, out, err) = oona(&["subscribe", "--count", "2", "--output", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let mut payloads: Vec<_> = lines(&out)
        .iter()
        .map(|line| line["payload"].clone())
        .collect();
    payloads.sort_by_key(ToString::to_string);
    assert_eq!(payloads, ["hello", "urgent"]);
    let hello = lines(&out)
        .into_iter()
        .find(|line| line["payload"] == "hello");
    let hello = hello.expect("it was printed");
    assert_eq!(hello["type"], "telemetry");
    assert_eq!(hello["attributes"]["a"], "b");

    // They were acknowledged: what comes next is new.
    let (code, out, _) = oona(&["publish", "again", "--count", "300", "--output", "json"]);
    assert_eq!(code, Some(0));
    assert_eq!(lines(&out)[0]["accepted"], 300);
    let (code, out, err) = oona(&["subscribe", "--count", "300"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), 300);
    assert!(out.lines().all(|line| line.ends_with(": again")), "{out}");

    let too_long = "k".repeat(300);
    let (code, out, _) = oona(&["publish", "x", "--key", &too_long]);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        "rejected: too-large: the ordering key (bytes) is 300, and the limit is 256\n"
    );

    let (code, out, _) = oona(&["policy", "list", "--output", "json"]);
    assert_eq!(code, Some(0));
    let kinds: Vec<_> = lines(&out)[0]["policies"]
        .as_array()
        .map_or(Vec::new(), |policies| {
            policies
                .iter()
                .map(|policy| policy["kind"].clone())
                .collect()
        });
    assert_eq!(
        kinds,
        ["routing", "backpressure", "freshness", "dead-letter"]
    );
}

#[test]
fn the_port_file_holds_the_address_while_the_host_runs() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("port");
    let mut host = Host::start(&["--dev", "--port-file", path.to_str().expect("a plain path")]);
    let address = fs::read_to_string(&path).expect("it is written before the address is told");
    assert_eq!(address, format!("{}\n", host.address));
    host.signal("INT");
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
    assert!(!path.exists());
}

#[test]
fn a_store_that_is_down_at_start_is_waited_for() {
    let host = Host::start(&["--redis", "redis://user:hunter2@127.0.0.1:1"]);
    assert_eq!(get(host.address, "/healthz").status, 200);
    let readiness = get(host.address, "/readyz");
    assert_eq!(readiness.status, 503);
    let reasons = readiness.json()["reasons"].to_string();
    assert!(
        reasons.contains("store at 127.0.0.1:1 does not answer"),
        "{reasons}"
    );
    let body = json!({ "type": "telemetry", "payload": "x" }).to_string();
    let answer = post(host.address, "/v1/publish", JSON, body.as_bytes());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["cause"], "unavailable");
    assert!(
        answer.json()["retry_after_ms"].is_u64(),
        "{}",
        answer.text()
    );
    assert!(answer.header("retry-after").is_some(), "{}", answer.headers);
    assert!(!host.log().contains("hunter2"), "{}", host.log());
}

/// The components that `make policies` builds.
fn component(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test
        .ancestors()
        .nth(3)
        .expect("a test is in target/PROFILE/deps");
    let path = target.join("policies").join(name);
    assert!(
        path.exists(),
        "{} is not there: run make policies",
        path.display()
    );
    path
}

async fn routing(address: SocketAddr) -> oona::proto::PolicyStatus {
    let policies = admin(address)
        .await
        .list_policies(ListPoliciesRequest {})
        .await;
    let policies = policies.expect("it answers").into_inner().policies;
    policies
        .into_iter()
        .find(|policy| policy.kind == "routing")
        .expect("there is one")
}

async fn wait_for_generation(address: SocketAddr, generation: u64) -> oona::proto::PolicyStatus {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let policy = routing(address).await;
        if policy.generation >= generation {
            return policy;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {policy:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_copied_into_the_watched_directory_is_put_in_use() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().to_str().expect("a plain path");
    let host = Host::start(&[
        "--dev",
        "--policies",
        path,
        "--log-level",
        "info,oona=debug",
    ]);
    let before = routing(host.address).await;
    assert!(before.native, "{before:?}");

    // No policy: refused with its reason, and nothing changes.
    fs::write(directory.path().join("text.wasm"), "no component").expect("a file");
    host.wait_for_log("policy refused; the current one stays");
    assert_eq!(routing(host.address).await, before);

    fs::copy(component("routing.wasm"), directory.path().join("new.wasm")).expect("a copy");
    let after = wait_for_generation(host.address, before.generation + 1).await;
    assert!(!after.native && !after.digest.is_empty(), "{after:?}");
    let body = json!({ "type": "telemetry", "payload": "x" }).to_string();
    assert_eq!(
        post(host.address, "/v1/publish", JSON, body.as_bytes()).status,
        200
    );
}

#[tokio::test]
async fn a_policy_is_activated_over_grpc_or_refused_by_name() {
    let host = dev();
    let mut client = admin(host.address).await;
    let before = routing(host.address).await;
    let component = fs::read(component("routing.wasm")).expect("it can be read");
    let activate = |kind: &str, component: &[u8], config: Option<&str>| ActivatePolicyRequest {
        kind: kind.to_owned(),
        component: component.to_vec().into(),
        config_json: config.map(str::to_owned),
    };
    let table = [
        (activate("", b"no component", None), ""),
        (
            activate("router", &component, None),
            "`router` is no kind of policy",
        ),
        (activate("freshness", &component, None), "freshness"),
        (
            activate("", &component, Some("{\"nonsense\": 1}")),
            "nonsense",
        ),
        (activate("", &component, Some("{")), ""),
    ];
    for (request, told) in table {
        let status = client
            .activate_policy(request)
            .await
            .expect_err("it is refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(told), "{status}");
        assert_eq!(routing(host.address).await, before);
    }
    let response = client
        .activate_policy(activate("routing", &component, None))
        .await;
    let response = response.expect("it is a policy").into_inner();
    let policy = response.policy.expect("it is told what is in use");
    assert_eq!(
        (&*policy.kind, policy.generation),
        ("routing", before.generation + 1)
    );
    assert_eq!(response.replaced.as_ref(), Some(&before));
    assert_eq!(routing(host.address).await, policy);
    let status = client
        .status(StatusRequest {})
        .await
        .expect("it answers")
        .into_inner();
    assert!(status.ready, "{status:?}");
}

#[tokio::test]
async fn unsigned_policies_are_refused_unless_allowed() {
    let host = Host::start(&["--set", "store.kind=memory"]);
    let request = ActivatePolicyRequest::default();
    let status = admin(host.address).await.activate_policy(request).await;
    let status = status.expect_err("it is not signed");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("policies.allow_unsigned"),
        "{status}"
    );
}

#[tokio::test]
async fn the_first_signal_lets_work_be_finished() {
    let mut host = dev();
    let mut subscriber = Subscriber::group(host.address, "workers", 4).await;
    bus(host.address)
        .await
        .publish(telemetry(0, "in hand"))
        .await
        .expect("it answers");
    let delivery = subscriber.next().await;
    host.signal("TERM");
    host.wait_for_log("shutting down");
    // What is in hand can still be acknowledged; then the stream ends, and the host with it.
    subscriber.ack(vec![delivery.id]).await;
    let end = tokio::time::timeout(PATIENCE, subscriber.responses.message()).await;
    let status = end.expect("it ends in time").expect_err("it says why");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop(subscriber);
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
}

#[tokio::test]
async fn the_second_signal_ends_the_host_at_once() {
    let mut host = Host::start(&["--dev", "--set", "server.drain_ms=600000"]);
    let mut subscriber = Subscriber::group(host.address, "workers", 4).await;
    bus(host.address)
        .await
        .publish(telemetry(0, "in hand"))
        .await
        .expect("it answers");
    let delivery = subscriber.next().await;
    assert_eq!(delivery.payload, "in hand");
    host.signal("TERM");
    host.wait_for_log("shutting down");
    host.signal("INT");
    assert_eq!(host.wait().code(), Some(130), "{}", host.log());
}
