use oona_policy_sdk::config::MESSAGE_TYPES;
use oona_policy_sdk::configure;
use oona_policy_sdk::routing::Verdict;
use oona_policy_sdk::testing::{TestMessage, TestNames, check_schema};

use super::*;

const PRIORITIES: [Priority; 5] = [
    Priority::Low,
    Priority::Normal,
    Priority::High,
    Priority::Critical,
    Priority::Emergency,
];

/// Checks where `message` goes and why; `None` for refused.
#[track_caller]
fn check(config: &str, message: &TestMessage, stream: Option<&str>, reason: &str) {
    let mut names = TestNames::default();
    let policy: Routing = configure(config, &mut names).unwrap();
    check_policy(&policy, &names, message, stream, reason);
}

#[track_caller]
fn check_policy(
    policy: &Routing,
    names: &TestNames,
    message: &TestMessage,
    stream: Option<&str>,
    reason: &str,
) {
    let decision = policy.decide(0, &message.view(&message.text(names)));
    let routed = (decision.verdict == Verdict::Route).then(|| names.name(decision.stream));
    assert_eq!(
        (routed, names.name(decision.reason)),
        (stream, reason),
        "{:?}",
        message.record
    );
}

fn message(message_type: u32, priority: Priority) -> TestMessage {
    TestMessage::default()
        .message_type(message_type)
        .priority(priority)
}

/// The stream of a type whose priority is nothing special.
fn usual_stream(message_type: u32) -> &'static str {
    match message_type {
        4 => "oona.telemetry",
        5 => "oona.policy",
        6 => "oona.kernels.requests",
        7 | 9 => "oona.kernels.ready",
        8 => "oona.kernels.errors",
        _ => "oona.normal",
    }
}

#[test]
fn every_type_at_every_priority() {
    let types = MESSAGE_TYPES
        .into_iter()
        .map(|(number, _)| number)
        .chain([11, 999, u32::MAX]);
    for message_type in types {
        for priority in PRIORITIES {
            let emergency = message_type == EMERGENCY_SIGNAL || priority == Priority::Emergency;
            let (stream, reason) = if emergency {
                ("oona.emergency", "emergency")
            } else if priority >= Priority::High {
                ("oona.emergency", "priority")
            } else {
                (usual_stream(message_type), "type")
            };
            check("{}", &message(message_type, priority), Some(stream), reason);
        }
    }
}

#[test]
fn the_threshold_can_be_moved() {
    let config = r#"{"emergency_from": "critical"}"#;
    check(
        config,
        &message(4, Priority::High),
        Some("oona.telemetry"),
        "type",
    );
    check(
        config,
        &message(4, Priority::Critical),
        Some("oona.emergency"),
        "priority",
    );
}

#[test]
fn types_without_a_stream_share_the_normal_one() {
    let config = r#"{"streams": {"telemetry": null, "normal": "all"}}"#;
    check(config, &message(4, Priority::Normal), Some("all"), "type");
    check(
        config,
        &message(6, Priority::Normal),
        Some("oona.kernels.requests"),
        "type",
    );
}

const RULES: &str = r#"{"rules": [
    {"name": "no-reports", "message_type": "benchmark_report"},
    {"name": "lab", "attribute": {"name": "origin", "value": "lab"}, "stream": "lab"},
    {"name": "loud", "source": "tolaria", "priority_from": "high", "stream": "loud"},
    {"name": "unlisted", "message_type": "4711", "stream": "unlisted"}
]}"#;

#[test]
fn rules_come_before_priority_and_type() {
    let mut names = TestNames::default();
    let policy: Routing = configure(RULES, &mut names).unwrap();
    let tolaria = names.symbol("tolaria");
    let check = |message: TestMessage, stream, reason| {
        check_policy(&policy, &names, &message, stream, reason);
    };
    let lab = |message: TestMessage| message.attribute("origin", "lab");
    check(message(22, Priority::Critical), None, "rule:no-reports");
    check(lab(message(22, Priority::Low)), None, "rule:no-reports");
    check(lab(message(4, Priority::Critical)), Some("lab"), "rule:lab");
    check(
        message(4, Priority::Low).attribute("origin", "field"),
        Some("oona.telemetry"),
        "type",
    );
    check(
        message(1, Priority::High).source(tolaria),
        Some("loud"),
        "rule:loud",
    );
    check(
        message(1, Priority::Normal).source(tolaria),
        Some("oona.normal"),
        "type",
    );
    check(
        message(4711, Priority::Normal),
        Some("unlisted"),
        "rule:unlisted",
    );
}

#[test]
fn no_rule_takes_an_emergency_elsewhere() {
    let config = r#"{"rules": [{"name": "everything"}]}"#;
    check(
        config,
        &message(1, Priority::Critical),
        None,
        "rule:everything",
    );
    check(
        config,
        &message(1, Priority::Emergency),
        Some("oona.emergency"),
        "emergency",
    );
    check(
        config,
        &message(10, Priority::Low),
        Some("oona.emergency"),
        "emergency",
    );
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<Routing>();
}

#[track_caller]
fn check_refused(config: &str, words: &str) {
    let error = configure::<Routing>(config, &mut TestNames::default()).unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_wrong_configuration_is_named() {
    check_refused(r#"{"rulez": []}"#, "unknown field `rulez`");
    check_refused(r#"{"emergency_from": "urgent"}"#, "`urgent` is no priority");
    check_refused(r#"{"rules": [{"stream": "x"}]}"#, "missing field `name`");
    check_refused(
        r#"{"rules": [{"name": "a", "message_type": "telemetri"}]}"#,
        "`telemetri` is neither a message type nor the number of one",
    );
}
