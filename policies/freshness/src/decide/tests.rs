use oona_policy_sdk::configure;
use oona_policy_sdk::freshness::ArrivalRecord;
use oona_policy_sdk::testing::{TestMessage, TestNames, check_schema};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000_000;
const KERNEL: u32 = 6;
const REPORT: u32 = 3;

fn kernel() -> TestMessage {
    TestMessage::default().message_type(KERNEL)
}

fn decide(config: &str, now: u64, message: &TestMessage, nonce: Nonce) -> (Decision, String) {
    let mut names = TestNames::default();
    let policy: Freshness = configure(config, &mut names).unwrap();
    let record = ArrivalRecord {
        message: message.record,
        nonce,
    };
    let text = message.text(&names);
    let decision = policy.decide(now, &Arrival::new(&record, 0, &text));
    (decision, names.name(decision.reason).to_owned())
}

#[track_caller]
fn check(message: &TestMessage, nonce: Nonce, verdict: Verdict, remember: u64, reason: &str) {
    let (decision, why) = decide("{}", NOW, message, nonce);
    let found = (decision.verdict, decision.remember, why.as_str());
    assert_eq!(
        found,
        (verdict, remember, reason),
        "{:?} {nonce:?}",
        message.record
    );
}

#[test]
fn boundaries_are_exact_to_the_millisecond() {
    let report = || TestMessage::default().message_type(REPORT);
    let unseen = Nonce::Unseen;
    check(
        &report().created_at(NOW + 5_000),
        unseen,
        Verdict::Fresh,
        0,
        "fresh",
    );
    check(
        &report().created_at(NOW + 5_001),
        unseen,
        Verdict::FromFuture,
        0,
        "from-future",
    );
    check(
        &report().expires_at(NOW),
        unseen,
        Verdict::Fresh,
        0,
        "fresh",
    );
    check(
        &report().expires_at(NOW - 1),
        unseen,
        Verdict::Stale,
        0,
        "expired",
    );
    check(&report().created_at(1), unseen, Verdict::Fresh, 0, "fresh");

    check(
        &kernel().created_at(NOW),
        unseen,
        Verdict::Fresh,
        125_001,
        "fresh",
    );
    check(
        &kernel().created_at(NOW - 120_000),
        unseen,
        Verdict::Fresh,
        5_001,
        "fresh",
    );
    check(
        &kernel().created_at(NOW - 120_001),
        unseen,
        Verdict::Stale,
        0,
        "window",
    );
    check(&kernel(), unseen, Verdict::Fresh, 125_001, "fresh");
}

#[test]
fn a_redelivery_is_no_replay() {
    let message = kernel().created_at(NOW);
    check(&message, Nonce::SameEntry, Verdict::Fresh, 125_001, "fresh");
    check(&message, Nonce::OtherEntry, Verdict::Replay, 0, "replay");
}

#[test]
fn types_without_nonces_know_no_replays() {
    let report = TestMessage::default().message_type(REPORT).created_at(NOW);
    check(&report, Nonce::OtherEntry, Verdict::Fresh, 0, "fresh");
}

#[test]
fn too_old_comes_before_seen_before() {
    let old = kernel().created_at(NOW - 120_001);
    check(&old, Nonce::OtherEntry, Verdict::Stale, 0, "window");
}

#[test]
fn types_have_rules_of_their_own() {
    let config = r#"{"types": {
        "telemetry": {"nonce": false, "window_ms": 10},
        "4711": {"missing_time": "refuse"}
    }}"#;
    let check = |message: TestMessage, verdict, reason: &str| {
        let (decision, why) = decide(config, NOW, &message, Nonce::OtherEntry);
        assert_eq!(
            (decision.verdict, why.as_str()),
            (verdict, reason),
            "{:?}",
            message.record
        );
    };
    let of = |message_type| TestMessage::default().message_type(message_type);
    check(of(4).created_at(NOW - 10), Verdict::Fresh, "fresh");
    check(of(4).created_at(NOW - 11), Verdict::Stale, "window");
    check(of(4711), Verdict::Stale, "no-time");
    check(of(4711).created_at(NOW), Verdict::Replay, "replay");
    check(of(KERNEL).created_at(1), Verdict::Fresh, "fresh");
}

proptest! {
    /// What is too old stays too old, and what was fresh when older is fresh when younger.
    #[test]
    fn age_only_ever_makes_stale(
        created_at in 1u64..2_000_000,
        now in 0u64..2_000_000,
        later in 1u64..300_000,
    ) {
        let message = kernel().created_at(created_at).expires_at(created_at + 100_000);
        let stale = |now| decide("{}", now, &message, Nonce::Unseen).0.verdict == Verdict::Stale;
        prop_assert!(!stale(now) || stale(now + later));
    }

    /// A copy is a replay for as long as its nonce is remembered, and too old from then on, even by a
    /// clock that is behind by as much as it may be.
    #[test]
    fn no_copy_passes(age in 0u64..=120_000, skew in 0u64..=5_000) {
        let message = kernel().created_at(NOW - age);
        let (first, _) = decide("{}", NOW, &message, Nonce::Unseen);
        prop_assert_eq!(first.verdict, Verdict::Fresh);
        let forgotten = NOW + first.remember;
        let (copy, _) = decide("{}", forgotten - skew, &message, Nonce::Unseen);
        prop_assert_eq!(copy.verdict, Verdict::Stale);
    }
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<Freshness>();
}

#[test]
fn a_wrong_configuration_is_named() {
    let refused = |config| configure::<Freshness>(config, &mut TestNames::default()).unwrap_err();
    let wrong_type = refused(r#"{"types": {"telemetri": {}}}"#);
    assert!(
        wrong_type.contains("`telemetri` is neither a message type"),
        "{wrong_type}"
    );
    let unknown = refused(r#"{"window": 1}"#);
    assert!(unknown.contains("unknown field `window`"), "{unknown}");
}
