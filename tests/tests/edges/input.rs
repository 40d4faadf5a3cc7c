//! What comes in wrong over the edges, and the typed answer that it gets.

use super::*;

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
            Some(Request::Credit(Credit {
                messages: 1,
                bytes: 0,
            })),
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
