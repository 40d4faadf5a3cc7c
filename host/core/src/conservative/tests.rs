use proptest::prelude::*;

use super::*;

/// Each step: time, depth, breaker open, budget spent; the transition that follows.
type Step = (u64, u64, bool, bool, Option<(Mode, Reason)>);

#[track_caller]
fn check(steps: &[Step]) {
    let mut machine = Conservative::new(ConservativeConfig::default());
    for (index, (ms, depth_max, breaker_open, budget_spent, expected)) in steps.iter().enumerate() {
        let signals = Signals {
            depth_max: *depth_max,
            breaker_open: *breaker_open,
            budget_spent: *budget_spent,
            budget_low: false,
        };
        let transition = machine.observe(Timestamp::from_millis(*ms), signals);
        let expected = expected.map(|(to, reason)| Transition { to, reason });
        assert_eq!(transition, expected, "step {index}");
    }
}

const INTO: Mode = Mode::Conservative;
const BACK: Option<(Mode, Reason)> = Some((Mode::Normal, Reason::Recovered));

#[test]
fn high_water_trips_it_and_low_water_lets_it_recover() {
    check(&[
        (0, 3_999, false, false, None),
        (1, 4_000, false, false, Some((INTO, Reason::HighWater))),
        (2, 1_000, false, false, None),
        (70_000, 1_000, false, false, None),
        (70_001, 999, false, false, None),
        (130_000, 0, false, false, None),
        (130_001, 0, false, false, BACK),
    ]);
}

#[test]
fn a_break_in_the_recovery_begins_it_anew() {
    check(&[
        (0, 0, true, false, Some((INTO, Reason::BreakerOpen))),
        (1, 0, false, false, None),
        (50_000, 2_000, false, false, None),
        (50_001, 0, false, false, None),
        (110_000, 0, false, false, None),
        (110_001, 0, false, false, BACK),
    ]);
}

#[test]
fn a_clock_that_is_set_back_begins_the_recovery_anew() {
    check(&[
        (9_000_000, 0, true, false, Some((INTO, Reason::BreakerOpen))),
        (9_000_001, 0, false, false, None),
        (1_000_000, 0, false, false, None),
        (1_059_999, 0, false, false, None),
        (1_060_000, 0, false, false, BACK),
    ]);
}

#[test]
fn a_spent_budget_trips_it() {
    check(&[
        (0, 0, false, true, Some((INTO, Reason::BudgetSpent))),
        (90_000, 0, false, true, None),
        (90_001, 0, false, false, None),
        (150_001, 0, false, false, BACK),
    ]);
}

#[test]
fn a_budget_that_is_nearly_spent_trips_it() {
    let mut machine = Conservative::new(ConservativeConfig::default());
    let at = Timestamp::from_millis;
    let low = Signals {
        budget_low: true,
        ..Signals::default()
    };
    let change = |to, reason| Some(Transition { to, reason });
    // When; what is observed; what is told.
    let table = [
        (0, Signals::default(), None),
        (1, low, change(INTO, Reason::BudgetLow)),
        (90_000, low, None),
        (90_001, Signals::default(), None),
        (150_000, Signals::default(), None),
        (
            150_001,
            Signals::default(),
            change(Mode::Normal, Reason::Recovered),
        ),
        (
            150_002,
            Signals {
                budget_spent: true,
                ..low
            },
            change(INTO, Reason::BudgetSpent),
        ),
    ];
    for (ms, signals, expected) in table {
        assert_eq!(machine.observe(at(ms), signals), expected, "at {ms} ms");
    }
}

proptest! {
    /// It never changes twice within its recovery window, and recovers once the cause is gone.
    #[test]
    fn it_never_flaps_and_always_recovers(
        steps in prop::collection::vec((1u64..20_000, 0u64..6_000, any::<bool>()), 1..200)
    ) {
        let mut machine = Conservative::new(ConservativeConfig::default());
        let mut now = Timestamp::EPOCH;
        let mut entered = None;
        for (wait, depth_max, breaker_open) in steps {
            now = now + Duration::from_millis(wait);
            let signals = Signals { depth_max, breaker_open, ..Signals::default() };
            match machine.observe(now, signals) {
                Some(Transition { to: Mode::Conservative, .. }) => entered = Some(now),
                Some(_) => {
                    let since = entered.take().expect("it was entered before it was left");
                    prop_assert!(now.since(since) >= Duration::from_secs(60));
                }
                None => {}
            }
        }
        machine.observe(now, Signals::default());
        machine.observe(now + Duration::from_secs(60), Signals::default());
        prop_assert_eq!(machine.mode(), Mode::Normal);
    }
}

fn forced(to: Mode) -> Forced<Mode> {
    Forced {
        to,
        by: "ada".to_owned(),
        message: String::new(),
        at: Timestamp::EPOCH,
    }
}

#[test]
fn a_forced_mode_holds_and_the_machine_goes_on_beneath() {
    let mut machine = Conservative::new(ConservativeConfig::default());
    let change = |to, reason| Some(Transition { to, reason });
    assert_eq!(machine.release(), None);
    assert_eq!(machine.force(forced(INTO)), change(INTO, Reason::Forced));
    assert_eq!(machine.force(forced(INTO)), None, "it was already");
    assert_eq!(machine.reason(), Reason::Forced);
    assert_eq!(machine.release(), change(Mode::Normal, Reason::Released));
    assert_eq!(machine.force(forced(Mode::Normal)), None);
    let deep = Signals {
        depth_max: 4_000,
        ..Signals::default()
    };
    assert_eq!(machine.observe(Timestamp::EPOCH, deep), None, "it is held");
    assert_eq!(machine.mode(), Mode::Normal);
    assert_eq!(machine.mode_beneath(), INTO);
    assert_eq!(machine.release(), change(INTO, Reason::Released));
    assert_eq!(machine.reason(), Reason::HighWater, "why it is so now");
}

/// What can happen to it.
#[derive(Clone, Debug)]
enum Event {
    Observe(u64, Signals),
    Force(Mode),
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    let signals = (
        0u64..6_000,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    let signals = signals.prop_map(
        |(depth_max, breaker_open, budget_spent, budget_low)| Signals {
            depth_max,
            breaker_open,
            budget_spent,
            budget_low,
        },
    );
    prop_oneof![
        8 => (0u64..40_000, signals).prop_map(|(wait, signals)| Event::Observe(wait, signals)),
        1 => prop_oneof![Just(Mode::Normal), Just(Mode::Conservative)].prop_map(Event::Force),
        1 => Just(Event::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Over whatever happens: a forced mode holds until it is released, every change of the mode is
    /// told, the machine beneath never leaves within its window, and it recovers once the cause is gone.
    #[test]
    fn forced_or_not_it_keeps_its_invariants(events in prop::collection::vec(event(), 0..300)) {
        let mut machine = Conservative::new(ConservativeConfig::default());
        let mut now = Timestamp::EPOCH;
        let (mut shown, mut beneath) = (Mode::Normal, Mode::Normal);
        let mut held = None;
        let mut entered = now;
        for event in events.into_iter().chain([Event::Release]) {
            let told = match event {
                Event::Observe(wait, signals) => {
                    now = now + Duration::from_millis(wait);
                    machine.observe(now, signals)
                }
                Event::Force(to) => {
                    held = Some(to);
                    machine.force(forced(to))
                }
                Event::Release => {
                    held = None;
                    machine.release()
                }
            };
            let mode = machine.mode();
            prop_assert_eq!(mode, held.unwrap_or(machine.mode_beneath()));
            prop_assert_eq!(told.map_or(shown, |told| told.to), mode, "every change is told");
            prop_assert!(told.is_none_or(|told| told.to != shown), "and nothing else");
            shown = mode;
            if machine.mode_beneath() != beneath {
                beneath = machine.mode_beneath();
                match beneath {
                    Mode::Conservative => entered = now,
                    Mode::Normal => prop_assert!(now.since(entered) >= Duration::from_secs(60)),
                }
            }
        }
        machine.observe(now, Signals::default());
        machine.observe(now + Duration::from_secs(60), Signals::default());
        prop_assert_eq!(machine.mode(), Mode::Normal);
    }
}
