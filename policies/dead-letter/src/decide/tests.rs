use oona_policy_sdk::configure;
use oona_policy_sdk::dead_letter::{FailedRecord, Verdict};
use oona_policy_sdk::testing::{TestMessage, TestNames, check_schema, failed};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000_000;

const FAILURES: [Failure; 9] = [
    Failure::HandlerError,
    Failure::Poison,
    Failure::Timeout,
    Failure::SubscriberLost,
    Failure::Stale,
    Failure::Replay,
    Failure::FromFuture,
    Failure::Unverifiable,
    Failure::Undecodable,
];

/// Without jitter, so that a table can say the delay.
const EVEN: &str = r#"{"jitter_percent": 0}"#;

/// A decision in words.
fn decide(config: &str, record: &FailedRecord) -> String {
    let mut names = TestNames::default();
    let policy: DeadLetter = configure(config, &mut names).unwrap();
    let message = TestMessage::from(record.message);
    let decision = policy.decide(NOW, &Failed::new(record, 0, &message.text(&names)));
    let reason = names.name(decision.reason);
    match decision.verdict {
        Verdict::Retry => format!("again in {}: {reason}", decision.delay),
        Verdict::DeadLetter => format!("file as {}: {reason}", names.name(decision.class)),
        Verdict::Discard => format!("let go: {reason}"),
    }
}

#[track_caller]
fn check(config: &str, record: FailedRecord, expected: &str) {
    assert_eq!(decide(config, &record), expected, "{record:?}");
}

fn after(failure: Failure, failures: u32) -> FailedRecord {
    failed(&TestMessage::default().attempt(failures), failure)
}

#[test]
fn every_failure_has_its_fate() {
    let first = |failure| after(failure, 0);
    check(
        EVEN,
        first(Failure::HandlerError),
        "again in 500: handler-error",
    );
    check(EVEN, first(Failure::Timeout), "again in 500: timeout");
    check(
        EVEN,
        first(Failure::SubscriberLost),
        "again in 500: subscriber-lost",
    );
    check(EVEN, first(Failure::Poison), "file as poison: poison");
    check(EVEN, first(Failure::Stale), "file as expired: expired");
    check(EVEN, first(Failure::Replay), "file as replay: replay");
    check(
        EVEN,
        first(Failure::FromFuture),
        "file as from-future: from-future",
    );
    check(
        EVEN,
        first(Failure::Unverifiable),
        "file as unverifiable: unverifiable",
    );
    check(
        EVEN,
        first(Failure::Undecodable),
        "file as undecodable: undecodable",
    );
}

#[test]
fn what_fails_again_waits_longer_until_it_has_failed_five_times() {
    for (failures, delay) in [(0, 500), (1, 1_000), (2, 2_000), (3, 4_000)] {
        let expected = format!("again in {delay}: handler-error");
        check(EVEN, after(Failure::HandlerError, failures), &expected);
    }
    for failures in [4, 5, u32::MAX] {
        check(
            EVEN,
            after(Failure::HandlerError, failures),
            "file as out-of-attempts: handler-error",
        );
        check(
            EVEN,
            after(Failure::Timeout, failures),
            "file as out-of-attempts: timeout",
        );
        check(
            EVEN,
            after(Failure::SubscriberLost, failures),
            "file as poison: subscriber-lost",
        );
    }
}

#[test]
fn an_entry_is_not_delivered_for_ever() {
    let delivered = |failure, deliveries| FailedRecord {
        deliveries,
        ..after(failure, 0)
    };
    check(
        EVEN,
        delivered(Failure::SubscriberLost, 9),
        "again in 500: subscriber-lost",
    );
    check(
        EVEN,
        delivered(Failure::SubscriberLost, 10),
        "file as poison: subscriber-lost",
    );
    check(
        EVEN,
        delivered(Failure::Timeout, 10),
        "file as out-of-attempts: timeout",
    );
}

#[test]
fn a_subscriber_may_ask_for_a_delay() {
    let asks = |requested_delay, failures| FailedRecord {
        requested_delay,
        ..after(Failure::HandlerError, failures)
    };
    check("{}", asks(1, 0), "again in 1: requested");
    check("{}", asks(60_000, 3), "again in 60000: requested");
    check("{}", asks(60_001, 3), "again in 60000: requested");
    check("{}", asks(1, 4), "file as out-of-attempts: handler-error");
}

#[test]
fn what_has_expired_meanwhile_is_not_tried_again() {
    let expires = |at| {
        failed(
            &TestMessage::default().expires_at(at),
            Failure::HandlerError,
        )
    };
    check(EVEN, expires(NOW), "again in 500: handler-error");
    check(EVEN, expires(NOW - 1), "file as expired: expired");
    check(
        r#"{"stale": "discard"}"#,
        expires(NOW - 1),
        "let go: expired",
    );
}

#[test]
fn what_freshness_refused_can_be_let_go() {
    for (key, failure, reason) in [
        ("stale", Failure::Stale, "expired"),
        ("replay", Failure::Replay, "replay"),
        ("from_future", Failure::FromFuture, "from-future"),
    ] {
        let config = format!(r#"{{"{key}": "discard"}}"#);
        check(&config, after(failure, 0), &format!("let go: {reason}"));
        check(&config, after(Failure::Poison, 0), "file as poison: poison");
    }
}

#[test]
fn a_failure_that_is_not_retried_is_filed_under_itself() {
    let config = r#"{"retry": ["timeout"], "jitter_percent": 0}"#;
    check(config, after(Failure::Timeout, 0), "again in 500: timeout");
    check(
        config,
        after(Failure::HandlerError, 0),
        "file as handler-error: handler-error",
    );
    check(
        config,
        after(Failure::SubscriberLost, 0),
        "file as subscriber-lost: subscriber-lost",
    );
    check(
        r#"{"retry": []}"#,
        after(Failure::Timeout, 0),
        "file as timeout: timeout",
    );
}

prop_compose! {
    fn any_failed()(
        failure in prop::sample::select(FAILURES.to_vec()),
        id in any::<u64>(),
        attempt in 0u32..8,
        deliveries in 1u32..14,
        requested_delay in prop_oneof![Just(0), any::<u64>()],
    ) -> FailedRecord {
        let message = TestMessage::default().id(id).attempt(attempt);
        FailedRecord { deliveries, requested_delay, ..failed(&message, failure) }
    }
}

proptest! {
    #[test]
    fn nothing_is_tried_for_ever_or_put_off_for_ever(record in any_failed()) {
        let mut names = TestNames::default();
        let policy: DeadLetter = configure("{}", &mut names).unwrap();
        let message = TestMessage::from(record.message);
        let decision = policy.decide(NOW, &Failed::new(&record, 0, &message.text(&names)));
        if decision.verdict == Verdict::Retry {
            prop_assert!(record.message.attempt < 4 && record.deliveries < 10);
            prop_assert!(decision.delay <= 72_000);
        }
        prop_assert!(decision.reason != 0);
        prop_assert_eq!(decision.class != 0, decision.verdict == Verdict::DeadLetter);
    }
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<DeadLetter>();
}

#[track_caller]
fn check_refused(config: &str, words: &str) {
    let error = configure::<DeadLetter>(config, &mut TestNames::default()).unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_wrong_configuration_is_named() {
    check_refused(r#"{"attempts": 1}"#, "unknown field `attempts`");
    check_refused(
        r#"{"attempts_max": 0}"#,
        "attempts_max is 0, and must be from 1 to 1000",
    );
    check_refused(r#"{"jitter_percent": 101}"#, "jitter_percent is 101");
    check_refused(
        r#"{"delay_max_ms": 499}"#,
        "delay_base_ms is 500, and more than delay_max_ms, 499",
    );
    check_refused(r#"{"retry": ["poison"]}"#, "unknown variant `poison`");
}
