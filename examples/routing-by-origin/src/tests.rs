use oona_policy_routing::Routing as Shipped;
use oona_policy_sdk::config::MESSAGE_TYPES;
use oona_policy_sdk::configure;
use oona_policy_sdk::testing::{TestMessage, TestNames, check_schema};

use super::*;

const PRIORITIES: [Priority; 5] = [
    Priority::Low,
    Priority::Normal,
    Priority::High,
    Priority::Critical,
    Priority::Emergency,
];

/// Where the policy sends a message, and why.
fn route<P: RoutingPolicy>(config: &str, message: &TestMessage) -> (String, String) {
    let mut names = TestNames::default();
    let policy: P = configure(config, &mut names).unwrap();
    let decision = policy.decide(0, &message.view(&message.text(&names)));
    (
        names.name(decision.stream).to_owned(),
        names.name(decision.reason).to_owned(),
    )
}

#[track_caller]
fn check(config: &str, message: &TestMessage, stream: &str, reason: &str) {
    let (to, why) = route::<ByOrigin>(config, message);
    assert_eq!((to.as_str(), why.as_str()), (stream, reason), "{message:?}");
}

fn report(origin: &str) -> TestMessage {
    TestMessage::default()
        .message_type(3)
        .attribute("origin", origin)
}

#[test]
fn the_origin_decides() {
    check("{}", &report("edge"), "oona.telemetry", "origin");
    check("{}", &report("centre"), "oona.normal", "type");
    check(
        "{}",
        &report("edge ").message_type(4),
        "oona.telemetry",
        "type",
    );
    let config = r#"{"origins": ["lab", "field"], "stream": "oona.policy"}"#;
    check(config, &report("lab"), "oona.policy", "origin");
    check(
        config,
        &report("field").priority(Priority::High),
        "oona.policy",
        "origin",
    );
    check(config, &report("edge"), "oona.normal", "type");
    check(r#"{"origins": []}"#, &report("edge"), "oona.normal", "type");
}

#[test]
fn an_emergency_is_one_from_anywhere() {
    let emergency = report("edge").priority(Priority::Emergency);
    check("{}", &emergency, "oona.emergency", "emergency");
    check(
        "{}",
        &report("edge").message_type(10),
        "oona.emergency",
        "emergency",
    );
}

#[test]
fn everything_else_goes_where_the_shipped_policy_sends_it() {
    let listed = MESSAGE_TYPES.into_iter().map(|(number, _)| number);
    for message_type in listed.chain([11, u32::MAX]) {
        for priority in PRIORITIES {
            let message = TestMessage::default()
                .message_type(message_type)
                .priority(priority);
            let shipped = route::<Shipped>("{}", &message);
            assert_eq!(route::<ByOrigin>("{}", &message), shipped, "{message:?}");
        }
    }
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<ByOrigin>();
}

#[test]
fn a_wrong_key_is_named() {
    let error = configure::<ByOrigin>(r#"{"origin": []}"#, &mut TestNames::default()).unwrap_err();
    assert!(
        error.contains("unknown field `origin`, expected `origins`"),
        "{error}"
    );
}
