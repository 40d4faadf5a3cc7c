//! Service level objectives: what is promised, what of it was kept, and how fast the rest is used up.
//!
//! An objective says which share of events must be good, say 95 % of publishes under 25 ms. What may be bad
//! within a period is its error budget. The burn rate is how fast that is used up: at 1 it lasts for the period, at
//! 10 for a tenth of it.
//!
//! Alerts follow "Multiwindow, Multi-Burn-Rate Alerts" of the Site Reliability Workbook (Beyer et al., O'Reilly
//! 2018, chapter 5, "Alerting on SLOs", <https://sre.google/workbook/alerting-on-slos/>): a long window says that
//! enough has been lost to matter, a short one of a twelfth that it is still being lost, so that the alert is over
//! soon after its cause. Windows and shares of the budget are those of its table 5-8: 2 % within an hour, 5 % within six,
//! 10 % within three days. What that is as a burn rate depends on the period: of 30 days it is 14.4, 6 and 1.
//!
//! No budget burns faster than if every event is bad, which is `1 / (1 - target)`: 20 where 95 % must be good. A rule
//! that asks for more can never fire: even a window in which nothing is good spends less than its share.
//!
//! Counts are kept by slices of time, of a minute for the last six hours and of an hour for the period, so memory
//! is bounded. A window is the slice that is under way and those before it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 3_600_000;

/// The longest period of a budget.
pub const PERIOD_MAX: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Minutes that are held: the longest window that is counted by minutes.
const MINUTES_MAX: u64 = 6 * 60;

/// Hours that are held: the longest period.
const HOURS_MAX: u64 = 90 * 24;

/// A stretch of time that a burn rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// Five minutes.
    FiveMinutes,
    /// Half an hour.
    HalfHour,
    /// An hour.
    Hour,
    /// Six hours.
    SixHours,
    /// Three days.
    ThreeDays,
}

impl Window {
    /// All of them, from short to long.
    pub const ALL: [Self; 5] = [
        Self::FiveMinutes,
        Self::HalfHour,
        Self::Hour,
        Self::SixHours,
        Self::ThreeDays,
    ];

    /// Its name: `5m`, `30m`, `1h`, `6h`, `3d`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::HalfHour => "30m",
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::ThreeDays => "3d",
        }
    }

    const fn minutes(self) -> u64 {
        match self {
            Self::FiveMinutes => 5,
            Self::HalfHour => 30,
            Self::Hour => 60,
            Self::SixHours => 6 * 60,
            Self::ThreeDays => 3 * 24 * 60,
        }
    }
}

/// A pair of windows over both of which a budget must burn too fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurnRule {
    /// Says that enough was lost.
    pub long: Window,
    /// Says that it still is.
    pub short: Window,
    /// The share of the period's budget that is too much to lose within the long window.
    pub share: f64,
}

impl BurnRule {
    /// The burn rate that spends this share within the long window, if the budget is for `period`. Never less than 1,
    /// at which a budget lasts for its period.
    #[must_use]
    pub fn factor(&self, period: Duration) -> f64 {
        let windows = period.as_secs_f64() / (self.long.minutes() * 60) as f64;
        (self.share * windows).max(1.0)
    }
}

/// What somebody is woken for.
pub const PAGE: [BurnRule; 2] = [
    BurnRule {
        long: Window::Hour,
        short: Window::FiveMinutes,
        share: 0.02,
    },
    BurnRule {
        long: Window::SixHours,
        short: Window::HalfHour,
        share: 0.05,
    },
];

/// What is looked at on the next day.
pub const TICKET: [BurnRule; 1] = [BurnRule {
    long: Window::ThreeDays,
    short: Window::SixHours,
    share: 0.1,
}];

/// Events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that were good.
    pub good: u64,
    /// All.
    pub total: u64,
}

impl Tally {
    /// What came after `before`; nothing if a count went back.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let total = self.total.saturating_sub(before.total);
        let good = self.good.saturating_sub(before.good).min(total);
        Self { good, total }
    }

    /// Those that were not good.
    #[must_use]
    pub const fn bad(self) -> u64 {
        self.total.saturating_sub(self.good)
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.total += other.total;
    }
}

/// How fast the pair of windows that is worst burns, as a multiple of what its rule allows: over 1 is too fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burn {
    /// Which pair.
    pub rule: BurnRule,
    /// How fast it may burn: [`BurnRule::factor`].
    pub factor: f64,
    /// The lower one of its two burn rates.
    pub rate: f64,
}

impl Burn {
    /// The rate, as a multiple of what the rule allows.
    #[must_use]
    pub fn excess(&self) -> f64 {
        self.rate / self.factor
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Objective {
    /// The share of events that may be bad.
    allowed: f64,
    period: Duration,
    /// Fewer events than this say nothing.
    events_min: u64,
    /// When the first event was counted.
    since: Option<Timestamp>,
    minutes: Ring<MINUTE_MS>,
    hours: Ring<HOUR_MS>,
}

impl Objective {
    /// An objective that `target` of all events, from 0 to less than 1, are good within `period`, [`PERIOD_MAX`] at
    /// most. Where there were fewer than `events_min` nothing is judged: of a handful, one is a lot.
    #[must_use]
    pub fn new(target: f64, period: Duration, events_min: u64) -> Self {
        Self {
            allowed: (1.0 - target).max(f64::EPSILON),
            period: period.min(PERIOD_MAX),
            events_min,
            since: None,
            minutes: Ring::default(),
            hours: Ring::default(),
        }
    }

    /// Counts events. A `now` that goes back by a slice at most counts with the slice that is under way; what is
    /// further in the future was counted by a wrong clock, and is forgotten.
    pub fn record(&mut self, now: Timestamp, events: Tally) {
        if events != Tally::default() {
            let since = self.since.unwrap_or(now);
            self.since = Some(since.min(now));
        }
        self.minutes.record(now, events, MINUTES_MAX);
        self.hours.record(now, events, HOURS_MAX);
    }

    /// The share of events that must be good.
    #[must_use]
    pub fn target(&self) -> f64 {
        1.0 - self.allowed
    }

    /// The events of the period.
    #[must_use]
    pub fn tally(&self, now: Timestamp) -> Tally {
        let ms = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        self.hours.last(now, ms.div_ceil(HOUR_MS))
    }

    /// The share of the period's budget that is left: 1 is all, 0 nothing, less than 0 more than that was spent.
    #[must_use]
    pub fn budget_left(&self, now: Timestamp) -> f64 {
        1.0 - self.rate(self.tally(now))
    }

    /// How fast the budget burns over a window; 0 without events.
    #[must_use]
    pub fn burn_rate(&self, now: Timestamp, window: Window) -> f64 {
        self.rate(self.events(now, window))
    }

    /// Which of these rules is nearest to its limit, or furthest over it. Windows of too few events
    /// do not burn.
    #[must_use]
    pub fn worst(&self, now: Timestamp, rules: &[BurnRule]) -> Option<Burn> {
        let burn = |rule: &BurnRule| {
            let rate = self
                .judged(now, rule.long)
                .min(self.judged(now, rule.short));
            Burn {
                rule: *rule,
                factor: rule.factor(self.period),
                rate,
            }
        };
        let by_excess = |one: &Burn, other: &Burn| one.excess().total_cmp(&other.excess());
        rules.iter().map(burn).max_by(by_excess)
    }

    /// How fast the budget burns if every event is bad.
    #[must_use]
    pub fn rate_max(&self) -> f64 {
        1.0 / self.allowed
    }

    /// Whether a rule can fire at all.
    #[must_use]
    pub fn can_fire(&self, rule: &BurnRule) -> bool {
        rule.factor(self.period) < self.rate_max()
    }

    /// Whether no more than `reserve` of the budget is left, and it is still being spent: over the last five minutes
    /// faster than would last for the period. A budget that nobody spends any more needs no protection. Nothing is said
    /// before events were counted for `after`: what is slow in the first minutes says little of a period of days.
    #[must_use]
    pub fn is_nearly_spent(&self, now: Timestamp, reserve: f64, after: Duration) -> bool {
        self.since.is_some_and(|since| now.since(since) >= after)
            && self.tally(now).total >= self.events_min
            && self.budget_left(now) <= reserve
            && self.burn_rate(now, Window::FiveMinutes) > 1.0
    }

    /// The burn rate of a window that holds enough events; of a short one, some.
    fn judged(&self, now: Timestamp, window: Window) -> f64 {
        let is_short = matches!(window, Window::FiveMinutes | Window::HalfHour);
        let events = self.events(now, window);
        if !is_short && events.total < self.events_min {
            return 0.0;
        }
        self.rate(events)
    }

    fn events(&self, now: Timestamp, window: Window) -> Tally {
        match window.minutes() {
            minutes if minutes <= MINUTES_MAX => self.minutes.last(now, minutes),
            minutes => self.hours.last(now, minutes / 60),
        }
    }

    fn rate(&self, events: Tally) -> f64 {
        if events.total == 0 {
            return 0.0;
        }
        events.bad() as f64 / events.total as f64 / self.allowed
    }
}

/// Events by slices of so many ms, the oldest first.
#[derive(Clone, Debug, Default)]
struct Ring<const MS: u64>(VecDeque<(u64, Tally)>);

impl<const MS: u64> Ring<MS> {
    fn record(&mut self, now: Timestamp, events: Tally, slices_max: u64) {
        let number = now.as_millis() / MS;
        if self.0.back().is_some_and(|(last, _)| *last > number + 1) {
            self.0.retain(|(at, _)| *at <= number);
        }
        if events == Tally::default() {
            return;
        }
        match self.0.back_mut() {
            Some((last, tally)) if *last >= number => tally.add(events),
            _ => self.0.push_back((number, events)),
        }
        while self.0.len() as u64 > slices_max {
            self.0.pop_front();
        }
    }

    fn last(&self, now: Timestamp, slices: u64) -> Tally {
        let oldest = (now.as_millis() / MS + 1).saturating_sub(slices);
        let young = self.0.iter().rev().take_while(|(at, _)| *at >= oldest);
        young.fold(Tally::default(), |mut sum, (_, tally)| {
            sum.add(*tally);
            sum
        })
    }
}

#[cfg(test)]
mod tests;
