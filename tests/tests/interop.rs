//! The wire, spoken with a second implementation: `tests/interop/peer.py`, a peer in Python that knows
//! Redis and the description of the wire, and nothing of Oona's. In both directions, over a real Redis
//! and with the real binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "interop/alert_reader.rs"]
mod alert_reader;
#[path = "interop/telemetry.rs"]
mod telemetry;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::{Credit, Delivery, Nack, PublishRequest};
use oona_core::envelope::message_type::{
    self, BSDS_ISSUED, EMERGENCY_SIGNAL, FIELD_REPORT, KERNEL_CATALOG_UPDATE,
    KERNEL_PREFETCH_ERROR, KERNEL_PREFETCH_READY, KERNEL_PREFETCH_REQUEST, POLICY_UPDATE,
    SYSTEM_STATE, TELEMETRY,
};
use oona_core::leyline::{
    DeliveryGuarantee, EmergencyLevel, EmergencySignal, EventEnvelope, HealthStatus,
    KernelArtifactError, KernelArtifactReady, KernelCatalogUpdate, KernelPrefetchRequest,
    MessagePriority, MetricPoint, PolicyUpdate, SystemHealth, TelemetryEvent, TelemetryLevel,
    TelemetryPacket, TraceSpan,
};
use oona_tests::binary::Host;
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::redis_server::RedisServer;
use prost::Message;
use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};
use tonic::transport::Channel;

const SECRET: &str = "shared with the peers";

/// Python, as `make setup` has prepared it.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peer/bin/python");
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/peer.py");

/// A running peer.
struct Peer {
    child: Child,
    /// Its standard input and output.
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Peer {
    fn start(redis: &RedisServer, secret: &str) -> Self {
        assert!(
            Path::new(PYTHON).exists(),
            "the peer is written in Python, with two packages: run `make setup`, which installs them"
        );
        let mut child = Command::new(PYTHON)
            .args([PEER, &redis.url(), secret])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let pipes = RefCell::new((child.stdin.take().unwrap(), output));
        Self { child, pipes }
    }

    /// Has it do something; answers what it says.
    #[track_caller]
    fn told(&self, command: &Value) -> Value {
        let (input, output) = &mut *self.pipes.borrow_mut();
        writeln!(input, "{command}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer.get("error"), None, "{command}: {answer}");
        answer
    }

    fn join(&self, stream: &str, group: &str) {
        self.told(&json!({"do": "join", "stream": stream, "group": group}));
    }

    #[track_caller]
    fn read(&self, stream: &str, group: &str) -> Value {
        self.told(&json!({"do": "read", "stream": stream, "group": group}))
    }

    /// Publishes; answers the bytes of the payload.
    fn publish(&self, mut what: Value) -> Vec<u8> {
        what["do"] = "publish".into();
        unhex(&self.told(&what)["payload"])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A Redis, a host on it, and a peer.
struct Bus {
    redis: RedisServer,
    host: Host,
    peer: Peer,
}

impl Bus {
    fn start(settings: &[&str]) -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        let mut arguments = vec!["--redis", &url];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        let host = Host::start_with(&arguments, |command| {
            command.env("ESPER_LEYLINE_SECRET", SECRET);
        });
        let peer = Peer::start(&redis, SECRET);
        Self { redis, host, peer }
    }

    async fn client(&self) -> BusClient<Channel> {
        BusClient::new(connect(self.host.address).await.unwrap())
    }

    async fn subscriber(&self, group: &str) -> Subscriber {
        Subscriber::group(self.host.address, group, 1_000).await
    }
}

/// Publishes over gRPC; answers the stream.
async fn publish(client: &mut BusClient<Channel>, request: PublishRequest) -> String {
    let response = client.publish(request).await.unwrap().into_inner();
    match response.outcome {
        Some(Outcome::Accepted(accepted)) => accepted.stream,
        other => panic!("it is not accepted: {other:?}"),
    }
}

async fn acked(subscriber: &mut Subscriber) -> Delivery {
    let delivery = subscriber.next().await;
    subscriber.ack(vec![delivery.id]).await;
    delivery
}

async fn refuse(subscriber: &Subscriber, delivery: &Delivery) {
    let nack = Nack {
        delivery_id: delivery.id,
        delay_ms: Some(1),
        reason: "not today".to_owned(),
        ..Nack::default()
    };
    subscriber.say(Request::Nack(nack)).await;
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn now() -> String {
    let now = oona::clock::system()().as_millis();
    let seconds = i64::try_from(now / 1_000).unwrap();
    Timestamp { seconds, nanos: 0 }.to_string()
}

fn attributes(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    all.iter().map(owned).collect()
}

/// What Oona's side writes, and how the peer reads it: type, payload, what it is, as JSON.
fn written_here() -> Vec<(u32, Vec<u8>, &'static str, Value)> {
    let telemetry = TelemetryPacket {
        packet_id: "packet-1".into(),
        timestamp: at(1_700_000_000),
        source_subsystem: "tolaria".into(),
        level: TelemetryLevel::Warning.into(),
        metrics: vec![MetricPoint {
            name: "loss".into(),
            value: 0.25,
            unit: "nats".into(),
            attributes: [("phase".to_owned(), "warm-up".to_owned())].into(),
        }],
        events: vec![TelemetryEvent {
            event_id: "e".into(),
            description: "spike".into(),
            level: TelemetryLevel::Error.into(),
            ..TelemetryEvent::default()
        }],
        spans: vec![TraceSpan {
            span_id: "s".into(),
            parent_span_id: "p".into(),
            name: "step".into(),
            start_time: at(1_700_000_000),
            end_time: at(1_700_000_001),
            ..TraceSpan::default()
        }],
        system_health: Some(SystemHealth {
            status: HealthStatus::Degraded.into(),
            summary: "slow".into(),
            indicators: [("gpu".to_owned(), "hot".to_owned())].into(),
        }),
    };
    let event = EventEnvelope {
        event_id: "event-1".into(),
        event_type: "report".into(),
        source_subsystem: "tamiyo".into(),
        created_at: at(1_700_000_000),
        processing_deadline: Some(Duration {
            seconds: 5,
            nanos: 0,
        }),
        ttl: Some(Duration {
            seconds: 60,
            nanos: 0,
        }),
        payload: vec![0, 255].into(),
        payload_type: "bytes".into(),
        content_encoding: "identity".into(),
        priority: MessagePriority::High.into(),
        routing_keys: vec!["a".into(), "b".into()],
        correlation_id: "c".into(),
        delivery_guarantee: DeliveryGuarantee::AtLeastOnce.into(),
        max_attempts: 5,
        current_attempt: 1,
    };
    let update = PolicyUpdate {
        version: 3,
        policy_id: "p".into(),
        training_run_id: "run".into(),
        issued_at: at(1_700_000_000),
        tamiyo_policy_version: "v".into(),
        payload: vec![7].into(),
    };
    let unlisted = EmergencySignal {
        version: 1,
        level: 9,
        reason: "a level of next year".into(),
        ..EmergencySignal::default()
    };
    let time = "2023-11-14T22:13:20Z";
    vec![
        (
            TELEMETRY,
            telemetry.encode_to_vec(),
            "TelemetryPacket",
            json!({
                "packet_id": "packet-1", "timestamp": time, "source_subsystem": "tolaria",
                "level": "TELEMETRY_LEVEL_WARNING",
                "metrics": [{"name": "loss", "value": 0.25, "unit": "nats", "attributes": {"phase": "warm-up"}}],
                "events": [{"event_id": "e", "description": "spike", "level": "TELEMETRY_LEVEL_ERROR"}],
                "spans": [{"span_id": "s", "parent_span_id": "p", "name": "step", "start_time": time,
                           "end_time": "2023-11-14T22:13:21Z"}],
                "system_health": {"status": "HEALTH_STATUS_DEGRADED", "summary": "slow", "indicators": {"gpu": "hot"}},
            }),
        ),
        (
            FIELD_REPORT,
            event.encode_to_vec(),
            "EventEnvelope",
            json!({
                "event_id": "event-1", "event_type": "report", "source_subsystem": "tamiyo", "created_at": time,
                "processing_deadline": "5s", "ttl": "60s", "payload": "AP8=", "payload_type": "bytes",
                "content_encoding": "identity", "priority": "MESSAGE_PRIORITY_HIGH", "routing_keys": ["a", "b"],
                "correlation_id": "c", "delivery_guarantee": "DELIVERY_GUARANTEE_AT_LEAST_ONCE",
                "max_attempts": 5, "current_attempt": 1,
            }),
        ),
        (
            POLICY_UPDATE,
            update.encode_to_vec(),
            "PolicyUpdate",
            json!({
                "version": 3, "policy_id": "p", "training_run_id": "run", "issued_at": time,
                "tamiyo_policy_version": "v", "payload": "Bw==",
            }),
        ),
        // Numbers that nobody has listed yet, outside and inside.
        (
            4_711,
            unlisted.encode_to_vec(),
            "EmergencySignal",
            json!({"version": 1, "level": 9, "reason": "a level of next year"}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_oona_publishes_a_peer_verifies_and_reads() {
    let bus = Bus::start(&[]);
    let mut client = bus.client().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let stranger = Peer::start(&bus.redis, "another secret");
    for (message_type, payload, payload_as, expected) in written_here() {
        let request = PublishRequest {
            message_type,
            source: "tolaria".to_owned(),
            payload: payload.clone().into(),
            attributes: attributes(&[("colour", "blue"), ("traceparent", trace)]),
            ..PublishRequest::default()
        };
        let stream = publish(&mut client, request).await;
        bus.peer.join(&stream, "peers");
        let read =
            json!({"do": "read", "stream": stream, "group": "peers", "payload_as": payload_as});
        let read = bus.peer.told(&read);
        assert_eq!(read["verified"], true, "{read}");
        assert_eq!(read["fields"], json!(["payload", "signature"]));
        assert_eq!(read["type"], message_type);
        assert_eq!(unhex(&read["payload"]), payload);
        assert_eq!(read["message"], expected);
        let said = read["attributes"].as_object().unwrap();
        assert_eq!(
            (&said["colour"], &said["traceparent"]),
            (&"blue".into(), &trace.into())
        );
        // The bus's own keys meet nobody else's.
        let others = said.keys().filter(|key| !key.starts_with("oona."));
        assert_eq!(others.count(), 2, "{read}");
        stranger.join(&stream, "strangers");
        let read = stranger.read(&stream, "strangers");
        assert_eq!(read["verified"], false, "by another secret: {read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_publishes_oona_delivers() {
    let bus = Bus::start(&[]);
    let mut subscriber = bus.subscriber("workers").await;
    // What Oona reads is what it would have written, and what the peer was told to write.
    for (message_type, payload, kind, message) in written_here() {
        let attributes = json!({"colour": "blue", "x": ""});
        let sent = bus.peer.publish(json!({
            "stream": "oona.normal", "type": message_type, "kind": kind, "message": message,
            "attributes": attributes, "fields": {"v": "2"},
            // Field 99, which is of next year too.
            "tail": "9a06016b",
        }));
        let delivery = acked(&mut subscriber).await;
        assert_eq!(delivery.message_type, message_type);
        assert_eq!(delivery.payload, sent, "to the byte");
        let (ours, theirs) = (&payload[..], &sent[..]);
        let same = match kind {
            "TelemetryPacket" => TelemetryPacket::decode(ours) == TelemetryPacket::decode(theirs),
            "EventEnvelope" => EventEnvelope::decode(ours) == EventEnvelope::decode(theirs),
            "PolicyUpdate" => PolicyUpdate::decode(ours) == PolicyUpdate::decode(theirs),
            _ => EmergencySignal::decode(ours) == EmergencySignal::decode(theirs),
        };
        assert!(same, "{kind} means the same");
        assert_eq!(json!(delivery.attributes), attributes);
        assert_eq!((delivery.attempt, delivery.redelivered), (0, false));
        if message_type == TELEMETRY {
            let identity = (
                &*delivery.message_id,
                &*delivery.source,
                delivery.created_at_ms,
            );
            assert_eq!(identity, ("packet-1", "tolaria", Some(1_700_000_000_000)));
        }
    }
    // Opaque payloads of every type, those without a name and those without a payload too.
    let listed = message_type::ALL.map(|(number, _)| number);
    let windowed = [
        KERNEL_PREFETCH_REQUEST,
        KERNEL_PREFETCH_READY,
        KERNEL_PREFETCH_ERROR,
        KERNEL_CATALOG_UPDATE,
    ];
    for message_type in listed
        .into_iter()
        .chain([77, i32::MAX.cast_unsigned(), u32::MAX])
    {
        if windowed.contains(&message_type) {
            continue; // They have tests of their own: they say when they were issued.
        }
        for payload in ["", "ff00ff"] {
            let on_the_wire = message_type.cast_signed();
            bus.peer
                .publish(json!({"stream": "oona.normal", "type": on_the_wire, "payload": payload}));
            let delivery = acked(&mut subscriber).await;
            assert_eq!(delivery.message_type, message_type);
            assert_eq!(delivery.payload, unhex(&payload.into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_signal_crosses_with_its_origin_reason_and_level() {
    let bus = Bus::start(&[]);
    let said = [
        ("origin", "tolaria"),
        ("reason", "loss is not a number"),
        ("level", "4"),
    ];
    let signal = EmergencySignal {
        version: 1,
        level: EmergencyLevel::Halt.into(),
        reason: "loss is not a number".into(),
        origin: "tolaria".into(),
        monotonic_time_ms: u64::MAX,
        run_id: "run-1".into(),
        attributes: [("rank".to_owned(), "0".to_owned())].into(),
        payload_checksum: vec![1, 2].into(),
        ..EmergencySignal::default()
    };
    // To a peer.
    let request = PublishRequest {
        message_type: EMERGENCY_SIGNAL,
        payload: signal.encode_to_vec().into(),
        attributes: attributes(&said),
        ..PublishRequest::default()
    };
    let stream = publish(&mut bus.client().await, request).await;
    assert_eq!(stream, "oona.emergency");
    bus.peer.join(&stream, "peers");
    let read = bus.peer.read(&stream, "peers");
    let message = json!({
        "version": 1, "level": "EMERGENCY_LEVEL_HALT", "reason": "loss is not a number",
        "origin": "tolaria", "monotonic_time_ms": u64::MAX.to_string(), "run_id": "run-1",
        "attributes": {"rank": "0"}, "payload_checksum": "AQI=",
    });
    assert_eq!(
        (&read["verified"], &read["message"]),
        (&true.into(), &message)
    );
    for (key, value) in said {
        assert_eq!(read["attributes"][key], value);
    }
    // From a peer, past what waits.
    let mut subscriber = bus.subscriber("workers").await;
    acked(&mut subscriber).await;
    let mut issued = message.clone();
    issued["triggered_at"] = now().into();
    bus.peer.publish(json!({
        "stream": "oona.emergency", "type": EMERGENCY_SIGNAL, "kind": "EmergencySignal", "message": issued,
        "attributes": BTreeMap::from(said),
    }));
    let delivery = acked(&mut subscriber).await;
    assert_eq!(delivery.stream, "oona.emergency");
    assert_eq!(delivery.priority(), oona::proto::Priority::Emergency);
    assert_eq!(delivery.attributes, attributes(&said));
    assert_eq!(delivery.source, "tolaria");
    let read = EmergencySignal::decode(delivery.payload).unwrap();
    assert!(read.triggered_at.is_some());
    assert_eq!(
        EmergencySignal {
            triggered_at: None,
            ..read
        },
        signal
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_oona_asks_for_is_answered_by_a_peer() {
    let bus = Bus::start(&[]);
    bus.peer.join("oona.kernels.requests", "prefetchers");
    let mut subscriber = bus.subscriber("kasmina").await;
    let mut client = bus.client().await;
    for (request_id, blueprint_id) in [("r-1", "conv"), ("r-2", "broken-conv")] {
        let asked = KernelPrefetchRequest {
            request_id: request_id.into(),
            blueprint_id: blueprint_id.into(),
            training_run_id: "run".into(),
            issued_at: Some(now().parse().unwrap()),
        };
        let request = PublishRequest {
            message_type: KERNEL_PREFETCH_REQUEST,
            payload: asked.encode_to_vec().into(),
            ..PublishRequest::default()
        };
        assert_eq!(publish(&mut client, request).await, "oona.kernels.requests");
        let seen = bus
            .peer
            .told(&json!({"do": "prefetch", "group": "prefetchers"}));
        assert_eq!(seen["verified"], true);
        assert_eq!(seen["message"]["training_run_id"], "run");
    }
    // Two requests and three answers. Which stream is read first is not said.
    let mut answers = BTreeMap::new();
    for _ in 0..5 {
        let delivery = acked(&mut subscriber).await;
        answers.insert(delivery.message_type, delivery);
    }
    let ready = &answers[&KERNEL_PREFETCH_READY];
    assert_eq!(ready.stream, "oona.kernels.ready");
    let ready = KernelArtifactReady::decode(&ready.payload[..]).unwrap();
    let expected = KernelArtifactReady {
        request_id: "r-1".into(),
        blueprint_id: "conv".into(),
        artifact_ref: "kernels/1".into(),
        checksum: "c0ffee".into(),
        guard_digest: "9a4d".into(),
        prewarm_p50_ms: 1.5,
        prewarm_p95_ms: 2.5,
    };
    assert_eq!(ready, expected);
    let update = &answers[&KERNEL_CATALOG_UPDATE];
    assert_eq!(update.stream, "oona.kernels.ready");
    let update = KernelCatalogUpdate::decode(&update.payload[..]).unwrap();
    assert_eq!(
        (&*update.blueprint_id, update.compile_ms, update.prewarm_ms),
        ("conv", 40.0, 2.0)
    );
    let error = &answers[&KERNEL_PREFETCH_ERROR];
    assert_eq!(error.stream, "oona.kernels.errors");
    let error = KernelArtifactError::decode(&error.payload[..]).unwrap();
    assert_eq!(
        (&*error.request_id, &*error.reason),
        ("r-2", "does not compile")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_a_peer_asks_for_is_answered_by_oona() {
    let bus = Bus::start(&[]);
    let mut prefetcher = bus.subscriber("prefetchers").await;
    bus.peer.publish(json!({
        "stream": "oona.kernels.requests", "type": KERNEL_PREFETCH_REQUEST, "kind": "KernelPrefetchRequest",
        "message": {"request_id": "r-1", "blueprint_id": "conv", "issued_at": now()},
    }));
    let delivery = acked(&mut prefetcher).await;
    assert_eq!(delivery.stream, "oona.kernels.requests");
    let asked = KernelPrefetchRequest::decode(delivery.payload).unwrap();
    let ready = KernelArtifactReady {
        request_id: asked.request_id.clone(),
        blueprint_id: asked.blueprint_id.clone(),
        artifact_ref: "kernels/2".into(),
        ..KernelArtifactReady::default()
    };
    let error = KernelArtifactError {
        request_id: asked.request_id,
        blueprint_id: asked.blueprint_id,
        reason: "and then it was gone".into(),
    };
    let answers = [
        (
            KERNEL_PREFETCH_READY,
            ready.encode_to_vec(),
            "oona.kernels.ready",
            "kernels/2",
        ),
        (
            KERNEL_PREFETCH_ERROR,
            error.encode_to_vec(),
            "oona.kernels.errors",
            "and then it was gone",
        ),
    ];
    for (message_type, payload, stream, told) in answers {
        let request = PublishRequest {
            message_type,
            payload: payload.into(),
            ..PublishRequest::default()
        };
        assert_eq!(publish(&mut bus.client().await, request).await, stream);
        bus.peer.join(stream, "peers");
        let read = bus.peer.read(stream, "peers");
        assert_eq!(read["verified"], true);
        assert_eq!(read["message"]["request_id"], "r-1");
        assert!(read["message"].to_string().contains(told), "{read}");
    }
}

/// Fails in turn at Oona and at the peer, as members of one group, until Oona gives up.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_one_has_counted_the_other_counts_on() {
    let stream = "oona.kernels.requests";
    let bus = Bus::start(&["policies.dead-letter.config.attempts_max=4"]);
    // Has credit for one, so that Oona reads no more than that until it gives more.
    let mut subscriber = Subscriber::group(bus.host.address, "workers", 1).await;
    let request = json!({"request_id": "r-1", "blueprint_id": "conv", "issued_at": now()});
    let sent = bus.peer.publish(json!({
        "stream": stream, "type": KERNEL_PREFETCH_REQUEST, "kind": "KernelPrefetchRequest",
        "message": request, "attributes": {"colour": "blue"},
    }));
    // Oona fails: its retry counts one, and the next reader is the peer.
    let first = subscriber.next().await;
    assert_eq!((first.attempt, first.redelivered), (0, false));
    refuse(&subscriber, &first).await;
    let read = bus.peer.read(stream, "workers");
    assert_eq!(
        (&read["verified"], &read["attributes"]["attempt"]),
        (&true.into(), &"1".into())
    );
    assert_eq!(read["attributes"]["colour"], "blue");
    assert_eq!(unhex(&read["payload"]), sent);
    // The peer fails, and writes it anew its way: Oona goes on from there, and sees no replay in it.
    let retried = bus
        .peer
        .told(&json!({"do": "retry", "stream": stream, "group": "workers", "id": read["id"]}));
    assert_eq!(retried["attempt"], 2);
    let credit = Credit {
        messages: 16,
        ..Credit::default()
    };
    subscriber.say(Request::Credit(credit)).await;
    let third = subscriber.next().await;
    assert_eq!((third.attempt, third.redelivered), (2, true));
    assert_eq!(
        (&third.payload[..], &*third.message_id),
        (&sent[..], &*first.message_id)
    );
    refuse(&subscriber, &third).await;
    let fourth = subscriber.next().await;
    assert_eq!(fourth.attempt, 3);
    refuse(&subscriber, &fourth).await;
    // Four have failed. The peer can read what was filed, as any entry.
    bus.peer.join("oona.deadletter", "readers");
    let letter = bus.peer.read("oona.deadletter", "readers");
    assert_eq!(
        (&letter["verified"], &letter["type"]),
        (&true.into(), &KERNEL_PREFETCH_REQUEST.into())
    );
    assert_eq!(unhex(&letter["payload"]), sent);
    let said = &letter["attributes"];
    assert_eq!(
        said["oona.dead_letter.class"], "out-of-attempts",
        "{letter}"
    );
    assert_eq!(
        (&said["colour"], &said["oona.dead_letter.detail"]),
        (&"blue".into(), &"not today".into())
    );
    assert_eq!(
        letter["fields"],
        json!(["original", "payload", "signature"])
    );
    assert_eq!(letter["message"]["request_id"], "r-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_signs_badly_is_quarantined_and_another_peer_can_read_why() {
    let bus = Bus::start(&[]);
    let mut subscriber = bus.subscriber("workers").await;
    bus.peer.join("oona.deadletter", "readers");
    for (sign, told) in [("another", "no key"), ("none", "not signed")] {
        let entry = bus.peer.told(&json!({
            "do": "publish", "stream": "oona.normal", "type": SYSTEM_STATE, "payload": "00ff", "sign": sign,
            "fields": {"who": "somebody"},
        }));
        let letter = bus.peer.read("oona.deadletter", "readers");
        assert_eq!(
            letter["verified"], true,
            "Oona vouches for what it says of it"
        );
        assert_eq!(
            letter["type"],
            message_type::UNSPECIFIED,
            "and not for what it claims to be"
        );
        let said = &letter["attributes"];
        assert_eq!(said["oona.dead_letter.class"], "unverifiable");
        assert_eq!(said["oona.dead_letter.entry"], entry["id"]);
        let detail = said["oona.dead_letter.detail"].as_str().unwrap();
        assert!(detail.contains(told), "{detail}");
        // All that it carried is in it.
        let stored = json!({"do": "entry", "stream": "oona.normal", "id": entry["id"]});
        let stored = bus.peer.told(&stored);
        let kept = letter["payload"].as_str().unwrap();
        for field in stored.as_object().unwrap().values() {
            assert!(kept.contains(field.as_str().unwrap()), "{field} in {kept}");
        }
    }
    bus.peer
        .publish(json!({"stream": "oona.normal", "type": BSDS_ISSUED, "payload": "00ff"}));
    let delivery = acked(&mut subscriber).await;
    assert_eq!(
        delivery.message_type, BSDS_ISSUED,
        "the next comes through, and they did not"
    );
}
