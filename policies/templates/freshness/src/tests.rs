use oona_policy_sdk::configure;
use oona_policy_sdk::testing::{TestMessage, TestNames, arrival, check_schema};

use super::*;

const NOW: u64 = 1_700_000_000_000;

/// What a message is at `NOW`, and why.
#[track_caller]
fn check(config: &str, message: &TestMessage, nonce: Nonce, verdict: Verdict, reason: &str) {
    let mut names = TestNames::default();
    let policy: TemplatePolicy = configure(config, &mut names).unwrap();
    let text = message.text(&names);
    let record = arrival(message, nonce);
    let decision = policy.decide(NOW, &Arrival::new(&record, 0, &text));
    let decided = (decision.verdict, names.name(decision.reason));
    assert_eq!(decided, (verdict, reason), "{message:?}");
}

fn aged(ms: u64) -> TestMessage {
    TestMessage::default().created_at(NOW - ms)
}

#[test]
fn the_last_millisecond_counts() {
    check("{}", &aged(60_000), Nonce::Unseen, Verdict::Fresh, "fresh");
    check("{}", &aged(60_001), Nonce::Unseen, Verdict::Stale, "old");
    let strict = r#"{"age_ms_max": 1}"#;
    check(strict, &aged(1), Nonce::Unseen, Verdict::Fresh, "fresh");
    check(strict, &aged(2), Nonce::Unseen, Verdict::Stale, "old");
    let expired = aged(2).expires_at(NOW - 1);
    check("{}", &expired, Nonce::Unseen, Verdict::Stale, "expired");
}

#[test]
fn an_event_is_delivered_once() {
    check("{}", &aged(0), Nonce::SameEntry, Verdict::Fresh, "fresh");
    check("{}", &aged(0), Nonce::OtherEntry, Verdict::Replay, "replay");
    let often = r#"{"once": false}"#;
    check(often, &aged(0), Nonce::OtherEntry, Verdict::Fresh, "fresh");
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<TemplatePolicy>();
}
