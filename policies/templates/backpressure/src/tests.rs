use oona_policy_sdk::backpressure::Verdict;
use oona_policy_sdk::configure;
use oona_policy_sdk::testing::{TestMessage, TestNames, candidate, check_schema, idle_bus};

use super::*;

/// What must become of a message for a stream of 100 places, of which `depth` are taken, and why.
#[track_caller]
fn check(config: &str, priority: Priority, depth: u64, verdict: Verdict, reason: &str) {
    let mut names = TestNames::default();
    let policy: TemplatePolicy = configure(config, &mut names).unwrap();
    let message = TestMessage::default().priority(priority);
    let text = message.text(&names);
    let mut record = candidate(&message, 2);
    record.depth = depth;
    let decision = policy.decide(0, &idle_bus(), &Candidate::new(&record, 0, &text));
    let decided = (decision.verdict, names.name(decision.reason));
    assert_eq!(decided, (verdict, reason), "{priority:?} at {depth}");
}

#[test]
fn each_priority_has_its_share() {
    check("{}", Priority::Low, 49, Verdict::Admit, "room");
    check("{}", Priority::Low, 50, Verdict::Defer, "over-share");
    check("{}", Priority::Normal, 74, Verdict::Admit, "room");
    check("{}", Priority::Normal, 75, Verdict::Defer, "over-share");
    check("{}", Priority::Emergency, 99, Verdict::Admit, "room");
    check(
        r#"{"low_share": 0.1}"#,
        Priority::Low,
        10,
        Verdict::Defer,
        "over-share",
    );
}

#[test]
fn a_full_stream_refuses() {
    check("{}", Priority::Low, 100, Verdict::Reject, "full");
    check("{}", Priority::Emergency, 100, Verdict::Reject, "full");
}

#[test]
fn shares_are_in_order() {
    let config = r#"{"low_share": 0.9, "normal_share": 0.5}"#;
    let error = configure::<TemplatePolicy>(config, &mut TestNames::default()).unwrap_err();
    assert_eq!(error, "low_share is over normal_share");
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<TemplatePolicy>();
}
