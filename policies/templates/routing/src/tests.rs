use oona_policy_sdk::configure;
use oona_policy_sdk::testing::{TestMessage, TestNames, check_schema};

use super::*;

/// Where a message must go, and why.
#[track_caller]
fn check(config: &str, message: &TestMessage, stream: &str, reason: &str) {
    let mut names = TestNames::default();
    let policy: TemplatePolicy = configure(config, &mut names).unwrap();
    let decision = policy.decide(0, &message.view(&message.text(&names)));
    let decided = (names.name(decision.stream), names.name(decision.reason));
    assert_eq!(decided, (stream, reason), "{message:?}");
}

fn of(customer: &str) -> TestMessage {
    TestMessage::default().attribute("customer", customer)
}

#[test]
fn a_listed_value_goes_apart() {
    check("{}", &of("acme"), "oona.telemetry", "attribute");
    check("{}", &of("other"), "oona.normal", "usual");
    let config = r#"{"attribute": "region", "values": ["eu"], "stream": "oona.policy"}"#;
    let european = TestMessage::default().attribute("region", "eu");
    check(config, &european, "oona.policy", "attribute");
    check(config, &of("acme"), "oona.normal", "usual");
}

#[test]
fn what_is_urgent_keeps_its_way() {
    let emergency = of("acme").priority(Priority::Emergency);
    check("{}", &emergency, "oona.emergency", "emergency");
    let high = of("other").priority(Priority::High);
    check("{}", &high, "oona.emergency", "priority");
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<TemplatePolicy>();
}
