use oona_policy_sdk::backpressure::{CandidateRecord, Verdict};
use oona_policy_sdk::configure;
use oona_policy_sdk::testing::{TestMessage, TestNames, candidate, check_schema, idle_bus};
use proptest::prelude::*;

use super::*;

const EMERGENCY: Symbol = 1;
const NORMAL: Symbol = 2;
const OTHER: Symbol = 3;

const PRIORITIES: [Priority; 5] = [
    Priority::Low,
    Priority::Normal,
    Priority::High,
    Priority::Critical,
    Priority::Emergency,
];

fn names() -> TestNames {
    let mut names = TestNames::default();
    for name in ["emergency stream", "normal stream", "other stream"] {
        names.symbol(name);
    }
    names
}

fn of(priority: Priority, stream: Symbol, depth: u64) -> CandidateRecord {
    let message = TestMessage::default().priority(priority);
    CandidateRecord {
        depth,
        ..candidate(&message, stream)
    }
}

fn decide(config: &str, state: &BusState, record: &CandidateRecord) -> (Decision, String) {
    let mut names = names();
    let policy: Backpressure = configure(config, &mut names).unwrap();
    let message = TestMessage::from(record.message);
    let decision = policy.decide(0, state, &Candidate::new(record, 0, &message.text(&names)));
    (decision, names.name(decision.reason).to_owned())
}

#[track_caller]
fn check(config: &str, state: &BusState, record: CandidateRecord, verdict: Verdict, reason: &str) {
    let (decision, why) = decide(config, state, &record);
    assert_eq!(
        (decision.verdict, why.as_str()),
        (verdict, reason),
        "{record:?}"
    );
}

#[test]
fn each_priority_has_its_share() {
    let table = [
        (Priority::Low, 50),
        (Priority::Normal, 75),
        (Priority::High, 85),
        (Priority::Critical, 95),
        (Priority::Emergency, 100),
    ];
    // On the emergency stream nothing can move elsewhere, so each share shows.
    for (priority, share) in table {
        let state = BusState {
            normal_depth: 100,
            ..idle_bus()
        };
        check(
            "{}",
            &state,
            of(priority, EMERGENCY, share - 1),
            Verdict::Admit,
            "admitted",
        );
        let over = if share == 100 {
            (Verdict::Reject, "stream-full")
        } else {
            (Verdict::Defer, "over-capacity")
        };
        check("{}", &state, of(priority, EMERGENCY, share), over.0, over.1);
        check(
            "{}",
            &state,
            of(priority, EMERGENCY, 100),
            Verdict::Reject,
            "stream-full",
        );
    }
}

#[test]
fn what_is_urgent_moves_to_the_emergency_stream() {
    let state = idle_bus();
    check(
        "{}",
        &state,
        of(Priority::High, OTHER, 79),
        Verdict::Admit,
        "admitted",
    );
    check(
        "{}",
        &state,
        of(Priority::High, OTHER, 80),
        Verdict::Reroute,
        "stream-pressed",
    );
    check(
        "{}",
        &state,
        of(Priority::Normal, OTHER, 80),
        Verdict::Defer,
        "over-capacity",
    );
    let (decision, _) = decide("{}", &state, &of(Priority::High, OTHER, 80));
    assert_eq!(decision.stream, EMERGENCY);

    let pressed = BusState {
        emergency_depth: 50,
        ..state
    };
    check(
        "{}",
        &pressed,
        of(Priority::High, OTHER, 80),
        Verdict::Admit,
        "admitted",
    );
    check(
        "{}",
        &pressed,
        of(Priority::High, OTHER, 85),
        Verdict::Defer,
        "over-capacity",
    );
    check(
        "{}",
        &pressed,
        of(Priority::Emergency, OTHER, 85),
        Verdict::Reroute,
        "stream-pressed",
    );
}

#[test]
fn conservative_mode_sheds_all_but_emergencies() {
    let state = BusState {
        mode: Mode::Conservative,
        ..idle_bus()
    };
    check(
        "{}",
        &state,
        of(Priority::Low, OTHER, 24),
        Verdict::Admit,
        "admitted",
    );
    check(
        "{}",
        &state,
        of(Priority::Low, OTHER, 25),
        Verdict::Defer,
        "conservative",
    );
    check(
        "{}",
        &state,
        of(Priority::Critical, OTHER, 90),
        Verdict::Defer,
        "conservative",
    );
    check(
        "{}",
        &state,
        of(Priority::Emergency, EMERGENCY, 99),
        Verdict::Admit,
        "admitted",
    );
}

#[test]
fn a_violated_service_level_sheds_the_least_urgent() {
    let violated = |priority| CandidateRecord {
        slo: Slo::Violated,
        ..of(priority, OTHER, 0)
    };
    check(
        "{}",
        &idle_bus(),
        violated(Priority::Low),
        Verdict::Defer,
        "slo-violated",
    );
    check(
        "{}",
        &idle_bus(),
        violated(Priority::Normal),
        Verdict::Admit,
        "admitted",
    );
}

fn with_tokens(priority: Priority, tokens: u32) -> CandidateRecord {
    CandidateRecord {
        tokens,
        token_wait: 500,
        ..of(priority, EMERGENCY, 0)
    }
}

#[test]
fn emergency_tokens_are_kept_for_emergencies() {
    let state = idle_bus();
    let rate = "emergency-rate";
    check(
        "{}",
        &state,
        with_tokens(Priority::High, 61),
        Verdict::Admit,
        "admitted",
    );
    check(
        "{}",
        &state,
        with_tokens(Priority::High, 60),
        Verdict::Reroute,
        rate,
    );
    check(
        "{}",
        &state,
        with_tokens(Priority::Emergency, 1),
        Verdict::Admit,
        "admitted",
    );
    check(
        "{}",
        &state,
        with_tokens(Priority::Emergency, 0),
        Verdict::Reroute,
        rate,
    );
    let (decision, _) = decide("{}", &state, &with_tokens(Priority::Emergency, 0));
    assert_eq!(decision.stream, NORMAL);
}

#[test]
fn a_demoted_emergency_is_never_lost() {
    let full = BusState {
        normal_depth: 100,
        ..idle_bus()
    };
    check(
        "{}",
        &full,
        with_tokens(Priority::High, 0),
        Verdict::Defer,
        "emergency-rate",
    );
    check(
        "{}",
        &full,
        with_tokens(Priority::Emergency, 0),
        Verdict::Admit,
        "admitted",
    );
}

#[test]
fn an_emergency_leaves_a_full_emergency_stream() {
    let state = idle_bus();
    check(
        "{}",
        &state,
        of(Priority::Emergency, EMERGENCY, 100),
        Verdict::Reroute,
        "stream-pressed",
    );
    check(
        "{}",
        &state,
        of(Priority::Critical, EMERGENCY, 100),
        Verdict::Reject,
        "stream-full",
    );
}

#[test]
fn over_the_rate_can_mean_wait() {
    let config = r#"{"over_rate": "defer"}"#;
    let (decision, _) = decide(config, &idle_bus(), &with_tokens(Priority::Emergency, 0));
    assert_eq!(
        (decision.verdict, decision.retry_after),
        (Verdict::Defer, 500)
    );
}

#[test]
fn pressure_is_smooth() {
    let at = |depth| {
        decide(
            "{}",
            &idle_bus(),
            &of(Priority::Emergency, EMERGENCY, depth),
        )
        .0
        .pressure
    };
    assert_eq!([at(0), at(50), at(100), at(1_000)], [0.0, 0.5, 1.0, 1.0]);
    let steps = (0..100).map(|depth| at(depth + 1) - at(depth));
    assert!(
        steps.clone().all(|step| (0.0..0.016).contains(&step)),
        "{:?}",
        Vec::from_iter(steps)
    );
}

prop_compose! {
    fn any_bus()(
        conservative in any::<bool>(),
        emergency_depth in 0u64..130,
        normal_depth in 0u64..130,
    ) -> BusState {
        let mode = if conservative { Mode::Conservative } else { Mode::Normal };
        BusState { mode, emergency_depth, normal_depth, ..idle_bus() }
    }
}

prop_compose! {
    fn any_candidate(bus: BusState)(
        priority in prop::sample::select(PRIORITIES.to_vec()),
        stream in EMERGENCY..=OTHER,
        depth in 0u64..130,
        tokens in 0u32..=120,
        violated in any::<bool>(),
    ) -> CandidateRecord {
        // A stream has one depth, however it is looked at.
        let depth = match stream {
            EMERGENCY => bus.emergency_depth,
            NORMAL => bus.normal_depth,
            _ => depth,
        };
        let slo = if violated { Slo::Violated } else { Slo::Met };
        CandidateRecord { tokens, slo, ..of(priority, stream, depth) }
    }
}

fn any_case() -> impl Strategy<Value = (BusState, CandidateRecord)> {
    any_bus().prop_flat_map(|bus| (Just(bus), any_candidate(bus)))
}

proptest! {
    #[test]
    fn an_emergency_is_never_refused_before_lower_priorities(
        (bus, record) in any_case(),
        defer in any::<bool>(),
    ) {
        let config = if defer { r#"{"over_rate": "defer"}"# } else { "{}" };
        let (lower, _) = decide(config, &bus, &record);
        let mut record = record;
        record.message.priority = Priority::Emergency;
        let (emergency, _) = decide(config, &bus, &record);
        prop_assert!(emergency.is_accepted() || !lower.is_accepted(), "{record:?} {bus:?}");
    }

    /// While there is room anywhere, an emergency goes in: whatever the rate, the stream it is meant for
    /// and the service level.
    #[test]
    fn an_emergency_always_passes_in_conservative_mode((bus, record) in any_case()) {
        let bus = BusState { mode: Mode::Conservative, ..bus };
        let mut record = record;
        record.message.priority = Priority::Emergency;
        let room = record.depth < record.capacity
            || bus.emergency_depth < bus.emergency_capacity
            || (record.stream == EMERGENCY && bus.normal_depth < bus.normal_capacity);
        let (decision, why) = decide("{}", &bus, &record);
        prop_assert_eq!(decision.is_accepted(), room, "{}: {:?} {:?}", why, record, bus);
    }

    #[test]
    fn more_depth_never_admits_more((bus, record) in any_case(), more in 1u64..130) {
        let (before, _) = decide("{}", &bus, &record);
        let mut deeper = record;
        let mut bus = bus;
        deeper.depth += more;
        match record.stream {
            EMERGENCY => bus.emergency_depth += more,
            NORMAL => bus.normal_depth += more,
            _ => {}
        }
        let (after, _) = decide("{}", &bus, &deeper);
        prop_assert!(before.is_accepted() || !after.is_accepted(), "{record:?} {bus:?}");
        prop_assert!(after.pressure >= before.pressure);
    }
}

#[test]
fn the_schema_is_that_of_the_configuration() {
    check_schema::<Backpressure>();
}

#[track_caller]
fn check_refused(config: &str, words: &str) {
    let error = configure::<Backpressure>(config, &mut names()).unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_wrong_configuration_is_named() {
    check_refused(r#"{"drop_treshold": 1}"#, "unknown field `drop_treshold`");
    check_refused(
        r#"{"token_reserve": 1.5}"#,
        "token_reserve is 1.5, and a share is from 0 to 1",
    );
    check_refused(
        r#"{"admission": {"low": 0.9}}"#,
        "a more urgent priority needs at least",
    );
}
