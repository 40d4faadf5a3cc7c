use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn breaker() -> Breaker {
    Breaker::new(BreakerConfig::default())
}

fn call(breaker: &mut Breaker, ms: u64, ok: bool) {
    let permit = breaker.try_acquire(at(ms)).unwrap();
    breaker.record(at(ms), permit, ok);
}

fn tripped() -> Breaker {
    let mut breaker = breaker();
    (0..3).for_each(|_| call(&mut breaker, 0, false));
    breaker
}

#[test]
fn failures_in_a_row_trip_it() {
    let mut breaker = breaker();
    for ok in [false, false, true, false, false] {
        call(&mut breaker, 0, ok);
    }
    assert_eq!(breaker.state(at(0)), BreakerState::Closed);
    call(&mut breaker, 0, false);
    assert_eq!(breaker.state(at(0)), BreakerState::Open);
    let open = breaker.try_acquire(at(10_000)).unwrap_err();
    assert_eq!(open.retry_after, Duration::from_millis(20_000));
}

#[test]
fn it_opens_to_the_millisecond() {
    let mut breaker = tripped();
    assert_eq!(breaker.state(at(29_999)), BreakerState::Open);
    assert!(breaker.try_acquire(at(29_999)).is_err());
    assert_eq!(breaker.state(at(30_000)), BreakerState::HalfOpen);
    assert!(breaker.try_acquire(at(30_000)).is_ok());
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_it_open() {
    let mut breaker = breaker();
    (0..3).for_each(|_| call(&mut breaker, 9_000_000, false));
    assert_eq!(breaker.state(at(9_000_000)), BreakerState::Open);
    assert_eq!(breaker.state(at(1_000_000)), BreakerState::HalfOpen);
    assert!(breaker.try_acquire(at(1_000_000)).is_ok());
}

#[test]
fn all_trials_must_succeed() {
    let mut breaker = tripped();
    let permits: Vec<_> = (0..5)
        .map(|_| breaker.try_acquire(at(30_000)).unwrap())
        .collect();
    assert!(breaker.try_acquire(at(30_000)).is_err(), "a sixth trial");
    for permit in permits {
        assert_eq!(breaker.state(at(30_001)), BreakerState::HalfOpen);
        breaker.record(at(30_001), permit, true);
    }
    assert_eq!(breaker.state(at(30_001)), BreakerState::Closed);
}

#[test]
fn one_failed_trial_opens_it_again() {
    let mut breaker = tripped();
    let first = breaker.try_acquire(at(30_000)).unwrap();
    let second = breaker.try_acquire(at(30_000)).unwrap();
    breaker.record(at(31_000), first, false);
    assert_eq!(breaker.state(at(60_999)), BreakerState::Open);
    breaker.record(at(31_001), second, true);
    assert_eq!(
        breaker.state(at(60_999)),
        BreakerState::Open,
        "a late answer counts no more"
    );
    assert_eq!(breaker.state(at(61_000)), BreakerState::HalfOpen);
}

#[test]
fn trials_that_are_never_reported_come_back() {
    let mut breaker = tripped();
    let lost: Vec<_> = (0..5)
        .map(|_| breaker.try_acquire(at(30_000)).unwrap())
        .collect();
    assert!(breaker.try_acquire(at(59_999)).is_err());
    assert!(breaker.try_acquire(at(60_000)).is_ok());
    drop(lost);
}

#[test]
fn a_permit_given_back_is_given_out_again() {
    let mut breaker = tripped();
    let permits: Vec<_> = (0..5)
        .map(|_| breaker.try_acquire(at(30_000)).unwrap())
        .collect();
    permits
        .into_iter()
        .for_each(|permit| breaker.give_back(permit));
    assert!(breaker.try_acquire(at(30_000)).is_ok());
}

proptest! {
    /// What is said to be refused is refused, and nothing else.
    #[test]
    fn it_says_ahead_what_it_refuses(
        steps in prop::collection::vec((0u64..20_000, any::<bool>(), any::<bool>()), 0..80)
    ) {
        let mut breaker = breaker();
        let mut now = at(0);
        let mut held = Vec::new();
        for (wait, answered, ok) in steps {
            now = now + Duration::from_millis(wait);
            let refused = breaker.refuses_for(now);
            match breaker.try_acquire(now) {
                Ok(permit) => {
                    prop_assert_eq!(refused, None);
                    held.push(permit);
                }
                Err(open) => prop_assert_eq!(refused, Some(open.retry_after)),
            }
            if answered && let Some(permit) = held.pop() {
                breaker.record(now, permit, ok);
            }
        }
    }

    /// Whatever happened, once the store answers again the breaker closes.
    #[test]
    fn it_always_recovers(calls in prop::collection::vec((0u64..40_000, any::<bool>()), 0..60)) {
        let mut breaker = breaker();
        let mut now = 0;
        for (wait, ok) in calls {
            now += wait;
            if let Ok(permit) = breaker.try_acquire(at(now)) {
                breaker.record(at(now), permit, ok);
            }
        }
        now += 60_000;
        (0..5).for_each(|_| call(&mut breaker, now, true));
        prop_assert_eq!(breaker.state(at(now)), BreakerState::Closed);
    }
}

fn forced(to: Position) -> Forced<Position> {
    Forced {
        to,
        by: "ada".to_owned(),
        message: "maintenance".to_owned(),
        at: at(0),
    }
}

#[test]
fn forced_open_it_refuses_whatever_succeeds_and_says_so() {
    let mut breaker = breaker();
    breaker.force(forced(Position::Open));
    let open = breaker.try_acquire(at(9_000_000)).unwrap_err();
    assert_eq!((open.forced, open.name()), (true, "breaker-forced-open"));
    assert_eq!(open.retry_after, FORCED_RETRY_AFTER);
    assert_eq!(open.to_string(), "an operator has forced the breaker open");
    let permit = breaker.try_acquire_beneath(at(0)).unwrap();
    breaker.record(at(0), permit, true);
    assert_eq!(breaker.state(at(0)), BreakerState::Open);
    assert_eq!(breaker.state_beneath(at(0)), BreakerState::Closed);
    assert_eq!(breaker.reason(at(0)), BreakerReason::Forced);
    assert_eq!(breaker.release(), Some(forced(Position::Open)));
    call(&mut breaker, 0, true);
}

#[test]
fn forced_closed_it_lets_all_through_and_the_machine_goes_on() {
    let mut breaker = tripped();
    breaker.force(forced(Position::Closed));
    (0..50).for_each(|_| call(&mut breaker, 1, false));
    assert_eq!(breaker.state(at(1)), BreakerState::Closed);
    breaker.release();
    assert_eq!(breaker.state(at(1)), BreakerState::Open);
    assert_eq!(breaker.state(at(30_000)), BreakerState::HalfOpen);
}

#[test]
fn each_change_is_told_once_with_its_reason() {
    let mut breaker = tripped();
    let told = |breaker: &mut Breaker, ms| {
        let transition = breaker.transition(at(ms))?;
        assert_eq!(breaker.transition(at(ms)), None, "told twice");
        Some((transition.to.name(), transition.reason))
    };
    assert_eq!(told(&mut breaker, 0), Some(("open", "failures")));
    assert_eq!(told(&mut breaker, 30_000), Some(("half-open", "waited")));
    call(&mut breaker, 30_000, false);
    assert_eq!(told(&mut breaker, 30_000), Some(("open", "trial-failed")));
    breaker.force(forced(Position::Closed));
    assert_eq!(told(&mut breaker, 30_001), Some(("closed", "forced")));
    breaker.force(forced(Position::Open));
    assert_eq!(told(&mut breaker, 30_002), Some(("open", "forced")));
    breaker.release();
    assert_eq!(told(&mut breaker, 30_003), None, "it is open by itself");
    (0..5).for_each(|_| call(&mut breaker, 60_000, true));
    assert_eq!(
        told(&mut breaker, 60_000),
        Some(("closed", "trials-passed"))
    );
    breaker.force(forced(Position::Open));
    breaker.transition(at(60_001));
    breaker.release();
    assert_eq!(told(&mut breaker, 60_002), Some(("closed", "released")));
}

/// What can happen to a breaker.
#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Acquire,
    AcquireBeneath,
    /// One of the calls under way ends.
    Finish(usize, bool),
    GiveBack(usize),
    Force(Position),
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u64..20_000).prop_map(Event::Wait),
        6 => Just(Event::Acquire),
        1 => Just(Event::AcquireBeneath),
        // Failures come in rows.
        4 => (any::<usize>(), prop::bool::weighted(0.3)).prop_map(|(which, ok)| Event::Finish(which, ok)),
        1 => any::<usize>().prop_map(Event::GiveBack),
        1 => prop_oneof![Just(Position::Open), Just(Position::Closed)].prop_map(Event::Force),
        1 => Just(Event::Release),
    ]
}

/// A breaker under events, with the account that the invariants are checked against.
struct Watched {
    breaker: Breaker,
    now: u64,
    under_way: Vec<Permit>,
    forced: Option<Position>,
    /// When the machine opened last.
    opened: Option<u64>,
    beneath: BreakerState,
    shown: BreakerState,
    /// Trials out or done, by period.
    trials: std::collections::BTreeMap<u64, u32>,
}

impl Watched {
    fn new() -> Self {
        Self {
            breaker: breaker(),
            now: 0,
            under_way: Vec::new(),
            forced: None,
            opened: None,
            beneath: BreakerState::Closed,
            shown: BreakerState::Closed,
            trials: std::collections::BTreeMap::new(),
        }
    }

    fn acquired(&mut self, acquired: Result<Permit, Open>) {
        let Ok(permit) = acquired else { return };
        let half_open = self.breaker.state_beneath(at(self.now)) == BreakerState::HalfOpen;
        if half_open && permit.period != NO_PERIOD {
            let given = self.trials.entry(permit.period).or_default();
            *given += 1;
            assert!(*given <= 5, "half-open lets {given} through");
        }
        self.under_way.push(permit);
    }

    fn step(&mut self, event: &Event) {
        let now = at(self.now);
        match event {
            Event::Wait(ms) => self.now += ms,
            Event::Acquire => {
                let acquired = self.breaker.try_acquire(now);
                match self.forced {
                    Some(Position::Open) => assert!(acquired.is_err(), "it is forced open"),
                    Some(Position::Closed) => assert!(acquired.is_ok(), "it is forced closed"),
                    None => {}
                }
                self.acquired(acquired);
            }
            Event::AcquireBeneath => {
                let acquired = self.breaker.try_acquire_beneath(now);
                self.acquired(acquired);
            }
            Event::Finish(_, _) | Event::GiveBack(_) if self.under_way.is_empty() => {}
            Event::Finish(which, ok) => {
                let permit = self.under_way.swap_remove(which % self.under_way.len());
                self.breaker.record(now, permit, *ok);
            }
            Event::GiveBack(which) => {
                let permit = self.under_way.swap_remove(which % self.under_way.len());
                if let Some(given) = self.trials.get_mut(&permit.period) {
                    *given -= 1;
                }
                self.breaker.give_back(permit);
            }
            Event::Force(to) => {
                self.forced = Some(*to);
                self.breaker.force(forced(*to));
            }
            Event::Release => {
                let released = self.breaker.release().map(|forced| forced.to);
                assert_eq!(released, self.forced.take());
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let now = at(self.now);
        let shown = self.breaker.state(now);
        match self.forced {
            Some(to) => assert_eq!(shown, to.state(), "a force holds until it is released"),
            None => assert_eq!(shown, self.breaker.state_beneath(now)),
        }
        let told = self.breaker.transition(now);
        assert_eq!(told.map_or(self.shown, |told| told.from), self.shown);
        assert_eq!(told.map_or(self.shown, |told| told.to), shown);
        self.shown = shown;
        let beneath = self.breaker.state_beneath(now);
        if beneath == self.beneath {
            return;
        }
        let since = self.opened.map(|opened| self.now - opened);
        if self.beneath == BreakerState::Open {
            assert!(since >= Some(30_000), "open for {since:?} only");
        }
        if beneath == BreakerState::Open {
            assert!(
                since.is_none_or(|since| since >= 30_000),
                "it flaps: {since:?}"
            );
            self.opened = Some(self.now);
        }
        self.beneath = beneath;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Over whatever happens: a force holds until it is released; by itself the breaker never opens
    /// twice within its window and never lets more than its trials through; and once the store answers
    /// again and nobody forces it, it closes.
    #[test]
    fn forced_or_not_it_keeps_its_invariants(events in prop::collection::vec(event(), 0..300)) {
        let mut watched = Watched::new();
        events.iter().for_each(|event| watched.step(event));
        watched.step(&Event::Release);
        // Trials that nobody reports any more come back after their time.
        for _ in 0..2 {
            watched.step(&Event::Wait(30_000));
        }
        watched.under_way.clear();
        // One round of trials may have been begun by calls that nobody will report.
        for _ in 0..10 {
            watched.step(&Event::Acquire);
            let permit = watched.under_way.pop();
            prop_assert!(permit.is_some(), "it lets trials through");
            watched.under_way.extend(permit);
            watched.step(&Event::Finish(0, true));
        }
        prop_assert_eq!(watched.breaker.state(at(watched.now)), BreakerState::Closed);
    }
}
