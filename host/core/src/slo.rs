//! Whether a stream keeps its service level objective.
//!
//! Why: backpressure may shed low priorities before a queue is long, when writes have already become
//! slow. At risk when: the share of slow events in the window passes half of the error budget.
//! Violated when: it passes the whole of it. Recovers when: the slow events leave the window.
//!
//! The budget follows from the objective: "p95 under 25 ms" allows 5 % of events to be slower.

use crate::policy::Slo;
use crate::time::Timestamp;

/// How long an event counts, in seconds.
pub const WINDOW_SECONDS: usize = 60;

/// Fewer events than this in the window say nothing.
pub const EVENTS_MIN: u64 = 100;

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    total: u64,
    slow: u64,
}

/// Events of the last minute, by the second.
#[derive(Clone, Debug)]
pub struct SloWindow {
    seconds: [Second; WINDOW_SECONDS],
    budget_percent: u64,
}

impl SloWindow {
    /// Nothing has happened yet. Of all events `budget_percent` may be slow: 5 is an objective for p95.
    #[must_use]
    pub fn new(budget_percent: u32) -> Self {
        Self {
            seconds: [Second::default(); WINDOW_SECONDS],
            budget_percent: budget_percent.into(),
        }
    }

    /// Counts `total` events, of which `slow` missed the objective.
    pub fn record(&mut self, now: Timestamp, total: u64, slow: u64) {
        let number = now.as_millis() / 1_000;
        let index = usize::try_from(number % WINDOW_SECONDS as u64).unwrap_or(0);
        let second = &mut self.seconds[index];
        if second.number != number {
            *second = Second {
                number,
                ..Second::default()
            };
        }
        second.total += total;
        second.slow += slow;
    }

    /// How the objective fares at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> Slo {
        let number = now.as_millis() / 1_000;
        let oldest = number.saturating_sub(WINDOW_SECONDS as u64 - 1);
        let recent = self
            .seconds
            .iter()
            .filter(|second| (oldest..=number).contains(&second.number));
        let (total, slow) = recent.fold((0, 0), |(total, slow), second| {
            (total + second.total, slow + second.slow)
        });
        if total < EVENTS_MIN || slow * 200 <= total * self.budget_percent {
            Slo::Met
        } else if slow * 100 <= total * self.budget_percent {
            Slo::AtRisk
        } else {
            Slo::Violated
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(total: u64, slow: u64, expected: Slo) {
        let now = Timestamp::from_millis(1_000_000);
        let mut window = SloWindow::new(5);
        window.record(now, total, slow);
        assert_eq!(window.state(now), expected, "{slow} slow of {total}");
    }

    #[test]
    fn the_budget_is_five_percent() {
        check(0, 0, Slo::Met);
        check(99, 99, Slo::Met);
        check(1_000, 25, Slo::Met);
        check(1_000, 26, Slo::AtRisk);
        check(1_000, 50, Slo::AtRisk);
        check(1_000, 51, Slo::Violated);
    }

    #[test]
    fn the_budget_is_what_was_agreed() {
        let now = Timestamp::from_millis(1_000_000);
        let mut window = SloWindow::new(20);
        window.record(now, 1_000, 200);
        assert_eq!(window.state(now), Slo::AtRisk);
        window.record(now, 0, 1);
        assert_eq!(window.state(now), Slo::Violated);
    }

    #[test]
    fn slow_events_leave_the_window() {
        let mut window = SloWindow::new(5);
        window.record(Timestamp::from_millis(5_999), 1_000, 1_000);
        assert_eq!(window.state(Timestamp::from_millis(64_999)), Slo::Violated);
        assert_eq!(window.state(Timestamp::from_millis(65_000)), Slo::Met);
    }

    #[test]
    fn a_second_is_used_again_a_minute_later() {
        let mut window = SloWindow::new(5);
        window.record(Timestamp::from_millis(5_000), 1_000, 1_000);
        window.record(Timestamp::from_millis(65_000), 1_000, 0);
        assert_eq!(window.state(Timestamp::from_millis(65_000)), Slo::Met);
    }
}
