use proptest::prelude::*;

use super::*;

const DAYS_30: Duration = Duration::from_secs(30 * 24 * 3_600);

fn at(minute: u64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + minute * MINUTE_MS)
}

fn tally(good: u64, total: u64) -> Tally {
    Tally { good, total }
}

/// What happened for some time: until which minute, and how many of 1000 events a minute were bad.
type Stretch = (u64, u64);

fn after(target: f64, stretches: &[Stretch]) -> (Objective, Timestamp) {
    let mut objective = Objective::new(target, DAYS_30, 1_000);
    let mut minute = 0;
    for (until, bad) in stretches {
        while minute < *until {
            objective.record(at(minute), tally(1_000 - bad, 1_000));
            minute += 1;
        }
    }
    (objective, at(minute.saturating_sub(1)))
}

/// How far over its limit the worst rule is, in whole percent of it.
fn percent(objective: &Objective, now: Timestamp, rules: &[BurnRule]) -> u64 {
    let worst = objective.worst(now, rules).expect("there are rules");
    (worst.excess() * 100.0).round() as u64
}

#[test]
fn burn_rates_are_those_of_the_workbook() {
    const DAY: u64 = 24 * 60;
    // What happened; how far the page and the ticket are, in percent of what they take to fire.
    let table: [(&[Stretch], u64, u64); 9] = [
        (&[(10, 0)], 0, 0),
        // 144 times too fast for an hour is ten times the limit of the first page.
        (&[(DAY, 0), (DAY + 60, 144)], 1_000, 576),
        (&[(60, 14)], 233, 1_400),
        (&[(60, 15)], 250, 1_500),
        // Over: the short window takes the page back, the ticket stays.
        (&[(60, 100), (70, 0)], 1_111, 8_571),
        (&[(60, 100), (120, 0)], 0, 5_000),
        (&[(3 * DAY, 1)], 17, 100),
        (&[(3 * DAY, 2)], 33, 200),
        (&[(3 * DAY, 6), (3 * DAY + 361, 0)], 0, 0),
    ];
    for (stretches, page, ticket) in table {
        let (objective, now) = after(0.999, stretches);
        let found = (
            percent(&objective, now, &PAGE),
            percent(&objective, now, &TICKET),
        );
        assert_eq!(found, (page, ticket), "{stretches:?}");
    }
}

#[test]
fn limits_are_shares_of_the_budget_of_a_period() {
    // Days of the period; the limits over one hour, six hours, three days.
    let table = [
        (30.0, [14.4, 6.0, 1.0]),
        (90.0, [43.2, 18.0, 3.0]),
        (15.0, [7.2, 3.0, 1.0]),
        (7.0, [3.36, 1.4, 1.0]),
        // A budget that lasts for its period calls nobody.
        (1.0, [1.0, 1.0, 1.0]),
    ];
    for (days, expected) in table {
        let period = Duration::from_secs_f64(days * 24.0 * 3_600.0);
        let rules = PAGE.iter().chain(&TICKET);
        for (rule, expected) in rules.zip(expected) {
            let found = rule.factor(period);
            assert!((found - expected).abs() < 1e-9, "{days} days: {found}");
        }
    }
}

#[test]
fn a_rule_fires_if_nothing_is_good_unless_it_never_can() {
    let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
    // How many of a hundred events may be bad; of which period; which rules can fire, over 1 h, 6 h and 3 days.
    let table = [
        (1, days(30), [true, true, true]),
        (5, days(30), [true, true, true]),
        (6, days(30), [true, true, true]),
        (7, days(30), [false, true, true]),
        (16, days(30), [false, true, true]),
        (17, days(30), [false, false, true]),
        (99, days(30), [false, false, true]),
        (2, days(90), [true, true, true]),
        (3, days(90), [false, true, true]),
        (5, days(90), [false, true, true]),
        (6, days(90), [false, false, true]),
        (34, days(90), [false, false, false]),
        (29, days(7), [true, true, true]),
        (30, days(7), [false, true, true]),
        (99, days(1), [true, true, true]),
    ];
    for (bad, period, expected) in table {
        let mut objective = Objective::new(1.0 - f64::from(bad) / 100.0, period, 1);
        for minute in 0..3 * 24 * 60 {
            objective.record(at(minute), tally(0, 1));
        }
        let now = at(3 * 24 * 60 - 1);
        let rules = PAGE.iter().chain(&TICKET);
        for (rule, expected) in rules.zip(expected) {
            assert_eq!(objective.can_fire(rule), expected, "{bad} %, {rule:?}");
            let burn = objective.worst(now, &[*rule]).expect("there is a rule");
            assert_eq!(burn.excess() > 1.0, expected, "{bad} %, {burn:?}");
        }
    }
}

#[test]
fn a_budget_is_what_may_be_bad_within_its_period() {
    let table: [(f64, &[Stretch], f64); 6] = [
        (0.95, &[], 1.0),
        (0.95, &[(60, 0)], 1.0),
        (0.95, &[(60, 25)], 0.5),
        (0.95, &[(60, 50)], 0.0),
        (0.95, &[(60, 100)], -1.0),
        (0.999, &[(999, 0), (1_000, 1_000)], 0.0),
    ];
    for (target, stretches, left) in table {
        let (objective, now) = after(target, stretches);
        let found = objective.budget_left(now);
        assert!((found - left).abs() < 1e-9, "{stretches:?}: {found}");
    }
}

#[test]
fn a_budget_comes_back_when_its_period_has_passed() {
    let mut objective = Objective::new(0.9, Duration::from_secs(3_600), 1);
    objective.record(at(0), tally(0, 100));
    assert_eq!(objective.tally(at(59)).total, 100);
    let hours = |hours: u64| Timestamp::from_millis(at(0).as_millis() + hours * HOUR_MS);
    assert_eq!(objective.tally(hours(1)), Tally::default());
    assert_eq!(objective.budget_left(hours(1)), 1.0);
}

#[test]
fn nearly_spent_is_said_of_what_is_still_being_spent() {
    let table: [(&[Stretch], bool); 6] = [
        (&[], false),
        (&[(60, 44)], false),
        (&[(60, 45)], false),
        // Nine tenths are gone, and the last minutes take from what is left.
        (&[(60, 45), (65, 60)], true),
        (&[(60, 200)], true),
        (&[(60, 200), (65, 0)], false),
    ];
    for (stretches, expected) in table {
        let (objective, now) = after(0.95, stretches);
        assert_eq!(
            objective.is_nearly_spent(now, 0.1, Duration::ZERO),
            expected,
            "{stretches:?}"
        );
    }
}

#[test]
fn too_few_events_say_nothing() {
    for (events, expected) in [(999, false), (1_000, true)] {
        let mut objective = Objective::new(0.95, DAYS_30, 1_000);
        objective.record(at(0), tally(0, events));
        assert_eq!(
            objective.is_nearly_spent(at(0), 0.1, Duration::ZERO),
            expected
        );
        assert_eq!(percent(&objective, at(0), &PAGE) > 100, expected);
        assert_eq!(objective.burn_rate(at(0), Window::Hour).round(), 20.0);
    }
}

#[test]
fn a_cold_start_says_little_of_a_period() {
    for (minute, expected) in [(0, false), (1, false), (59, false), (60, true)] {
        let mut objective = Objective::new(0.95, DAYS_30, 1_000);
        // Looks without events do not count.
        objective.record(at(0), Tally::default());
        objective.record(at(10), tally(954, 1_000));
        objective.record(at(10 + minute), tally(9, 10));
        let hour = Duration::from_secs(3_600);
        let found = objective.is_nearly_spent(at(10 + minute), 0.1, hour);
        assert_eq!(found, expected, "{minute} minutes after the first event");
    }
}

#[test]
fn a_clock_that_is_set_back_takes_only_what_it_said_of_the_future() {
    const DAY: u64 = 24 * 60;
    let (good, bad) = (tally(100, 100), tally(0, 7));
    // To which minute the clock jumps; to which it is set back; what an hour, and three days, hold then, and half an
    // hour later.
    let table = [
        (100, 100, (107, 107), (107, 107)),
        // By one slice it goes on with the one that is under way.
        (101, 100, (107, 107), (107, 107)),
        // The hour that is under way cannot be told apart.
        (102, 100, (100, 107), (100, 107)),
        (100 + DAY, 100, (100, 100), (100, 100)),
        (100 + 365 * DAY, 100, (100, 100), (100, 100)),
    ];
    for (ahead, back, then, later) in table {
        let mut objective = Objective::new(0.5, DAYS_30, 1);
        objective.record(at(back), good);
        objective.record(at(ahead), bad);
        let held = |objective: &Objective, now| {
            let events = |window| objective.events(now, window).total;
            (events(Window::Hour), events(Window::ThreeDays))
        };
        // A look without events is enough.
        objective.record(at(back), Tally::default());
        assert_eq!(held(&objective, at(back)), then, "from {ahead} to {back}");
        assert_eq!(held(&objective, at(back + 30)), later, "from {ahead}");
        objective.record(at(back + 30), good);
        let (hour, days) = held(&objective, at(back + 30));
        assert_eq!((hour, days), (later.0 + 100, later.1 + 100));
        assert_eq!(objective.events(at(back + 30), Window::FiveMinutes), good);
    }
}

#[test]
fn a_clock_that_began_in_the_future_is_no_reason_to_wait_longer() {
    let mut objective = Objective::new(0.95, DAYS_30, 1);
    for minute in [1_000_000, 0, 60] {
        objective.record(at(minute), tally(0, 10));
    }
    assert!(objective.is_nearly_spent(at(60), 0.1, Duration::from_secs(3_600)));
}

#[test]
fn counts_that_go_back_are_none() {
    let table = [
        (tally(5, 9), tally(2, 4), tally(3, 5)),
        (tally(2, 4), tally(5, 9), tally(0, 0)),
        (tally(9, 9), tally(2, 4), tally(5, 5)),
    ];
    for (after, before, expected) in table {
        assert_eq!(after.since(before), expected);
    }
}

proptest! {
    /// Each window holds what is young enough, give or take the slice that it begins in; memory is bounded.
    #[test]
    fn windows_agree_with_a_list(
        events in prop::collection::vec((0u64..500, 0u64..5, 1u64..5), 1..300),
        later in 0u64..10_000,
    ) {
        let (mut objective, mut list, mut now) = (Objective::new(0.5, DAYS_30, 1), Vec::new(), 0);
        for (step, bad, good) in events {
            now += step;
            objective.record(at(now), tally(good, good + bad));
            list.push((now, good + bad));
        }
        let end = now + later;
        let within = |minutes: u64| -> u64 {
            let young = list.iter().filter(|(at, _)| at + minutes > end);
            young.map(|(_, count)| count).sum()
        };
        for window in Window::ALL {
            let (minutes, found) = (window.minutes(), objective.events(at(end), window).total);
            let slice = if minutes > MINUTES_MAX { 60 } else { 0 };
            prop_assert!((within(minutes - slice)..=within(minutes)).contains(&found), "{window:?}");
        }
        prop_assert!(objective.minutes.0.len() as u64 <= MINUTES_MAX);
        prop_assert!(objective.hours.0.len() as u64 <= HOURS_MAX);
    }
}
