use oona_policy_sdk::configure;
use oona_policy_sdk::dead_letter::Verdict;
use oona_policy_sdk::testing::{TestMessage, TestNames, check_schema, failed};

use super::*;

/// What must become of a message that has failed `attempt` times before, when, and why.
#[track_caller]
fn check(config: &str, failure: Failure, attempt: u32, verdict: Verdict, delay: u64, reason: &str) {
    let mut names = TestNames::default();
    let policy: TemplatePolicy = configure(config, &mut names).unwrap();
    let message = TestMessage::default().attempt(attempt);
    let text = message.text(&names);
    let record = failed(&message, failure);
    let decision = policy.decide(0, &Failed::new(&record, 0, &text));
    let decided = (
        decision.verdict,
        decision.delay,
        names.name(decision.reason),
    );
    assert_eq!(
        decided,
        (verdict, delay, reason),
        "{failure:?} after {attempt}"
    );
}

#[test]
fn the_delay_doubles_up_to_its_bound() {
    for (attempt, delay) in [(0, 1_000), (1, 2_000), (2, 4_000), (3, 8_000)] {
        check(
            "{}",
            Failure::HandlerError,
            attempt,
            Verdict::Retry,
            delay,
            "again",
        );
    }
    let long = r#"{"attempts_max": 100, "delay_ms_max": 5000}"#;
    check(long, Failure::Timeout, 90, Verdict::Retry, 5_000, "again");
}

#[test]
fn trying_ends() {
    check(
        "{}",
        Failure::HandlerError,
        4,
        Verdict::DeadLetter,
        0,
        "exhausted",
    );
    let once = r#"{"attempts_max": 1}"#;
    check(
        once,
        Failure::SubscriberLost,
        0,
        Verdict::DeadLetter,
        0,
        "exhausted",
    );
}

#[test]
fn what_can_end_no_differently_is_filed_at_once() {
    for failure in [
        Failure::Poison,
        Failure::Unverifiable,
        Failure::Undecodable,
        Failure::Stale,
        Failure::Replay,
        Failure::FromFuture,
    ] {
        check("{}", failure, 0, Verdict::DeadLetter, 0, "hopeless");
    }
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<TemplatePolicy>();
}
