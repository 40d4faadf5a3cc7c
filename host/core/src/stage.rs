//! A candidate on live traffic: when it has shown enough, and when too much.
//!
//! Why: laws and cases say what somebody thought of; traffic is what there is. A shadow decides
//! alongside and only its disagreement is recorded; a canary decides for a stated share of keys. Trips
//! when: it disagrees, fails, or takes more time than its thresholds allow, or nobody has decided about
//! it for so long that it is forgotten; it is taken back then. Recovers: not by itself. It is promoted,
//! if that was asked for, once it has decided on enough messages for long enough.

use serde::{Deserialize, Serialize};

use crate::registry::{Choice, Revision};
use crate::time::Timestamp;

/// How few decisions a rate of disagreement, or a mean of times, is not believed of.
pub const DECISIONS_MIN: u64 = 100;

/// How long a trial lasts if nobody says, in ms: a week.
pub const TRIAL_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;

/// A candidate that is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The number of the change that began it.
    pub revision: Revision,
    /// What is tried.
    #[serde(flatten)]
    pub choice: Choice,
    /// How.
    pub mode: StageMode,
    /// When it ends by itself.
    pub thresholds: Thresholds,
    /// Gates that it did not pass, and was let through by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
    /// Since when, by the clock of whoever judges it: each host counts from when it began to try.
    #[serde(skip)]
    pub since: Timestamp,
}

/// How a candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageMode {
    /// It decides alongside; what it decides is compared and forgotten.
    Shadow,
    /// It decides for so many of 1 000 keys, always the same ones.
    Canary {
        /// How many, 1 to 1 000.
        per_mille: u16,
    },
}

impl StageMode {
    /// Whether the candidate decides about what this hash stands for: that of a message's key, or of
    /// its id if it has none.
    #[must_use]
    pub fn decides(self, hash: u64) -> bool {
        match self {
            Self::Shadow => false,
            Self::Canary { per_mille } => hash % 1_000 < u64::from(per_mille),
        }
    }
}

/// When a trial ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// It is taken back if it disagrees on more than so many of a million decisions; at least
    /// [`DECISIONS_MIN`] are seen first.
    pub disagreements_per_million: u32,
    /// It is taken back after more failed calls than this.
    pub faults: u32,
    /// It is taken back if it takes more time than this for a decision, in the mean of at least
    /// [`DECISIONS_MIN`]; however long it takes without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_max: Option<TimeMax>,
    /// How long it must have been tried before it can be promoted, in ms.
    pub for_ms: u64,
    /// How long it is tried at most, in ms; it is taken back then.
    pub trial_ms_max: u64,
    /// On how many messages it must have decided before it can be promoted.
    pub decisions: u64,
    /// Whether it is promoted by itself; without, it waits for an operator.
    pub promote: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            disagreements_per_million: 1_000_000,
            faults: 0,
            time_max: None,
            for_ms: 60_000,
            trial_ms_max: TRIAL_MS_MAX,
            decisions: 1_000,
            promote: false,
        }
    }
}

/// How much time a candidate may take for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeMax {
    /// So many ns.
    Ns(u64),
    /// So many percent of what the version in use takes for the same messages.
    PercentOfInUse(u32),
}

/// What a host has seen of a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Messages that both have decided on.
    pub decisions: u64,
    /// Those on which they disagree.
    pub disagreements: u64,
    /// Calls of the candidate that failed.
    pub faults: u64,
    /// How the last of them failed.
    pub fault: Option<String>,
    /// Messages for which both were timed.
    pub timed: u64,
    /// How long the candidate took for those, in ns.
    pub took_ns: u64,
    /// How long the version in use took for those, in ns.
    pub in_use_ns: u64,
}

impl Seen {
    /// How long the candidate and the version in use take for a decision, in ns; zero of none.
    #[must_use]
    pub fn means_ns(&self) -> (u64, u64) {
        let mean = |took_ns: u64| took_ns.checked_div(self.timed).unwrap_or_default();
        (mean(self.took_ns), mean(self.in_use_ns))
    }

    /// Why it is too slow, if it is.
    fn too_slow(&self, max: TimeMax) -> Option<String> {
        if self.timed < DECISIONS_MIN {
            return None;
        }
        let (took_ns, in_use_ns) = self.means_ns();
        let (max_ns, allowed) = match max {
            TimeMax::Ns(ns) => (ns, format!("{} are allowed", in_us(ns))),
            TimeMax::PercentOfInUse(percent) => {
                let max_ns = u128::from(in_use_ns) * u128::from(percent) / 100;
                let max_ns = u64::try_from(max_ns).unwrap_or(u64::MAX);
                (max_ns, format!("{percent} % of that are allowed"))
            }
        };
        (took_ns > max_ns).then(|| {
            format!(
                "it takes {} for a decision, where the version in use takes {}; {allowed}",
                in_us(took_ns),
                in_us(in_use_ns)
            )
        })
    }
}

/// `1.234 µs`
fn in_us(ns: u64) -> String {
    format!("{}.{:03} µs", ns / 1_000, ns % 1_000)
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// It is put in use, for this reason.
    Promote(String),
    /// It is taken back, for this reason.
    Withdraw(String),
}

/// Judges a trial by what one host has seen of it.
#[must_use]
pub fn judge(stage: &Stage, seen: &Seen, now: Timestamp) -> Verdict {
    let limits = stage.thresholds;
    if seen.faults > u64::from(limits.faults) {
        let last = seen.fault.as_ref();
        let last = last.map_or_else(String::new, |fault| format!("; the last one: {fault}"));
        return Verdict::Withdraw(format!(
            "{} of its calls failed, {} are allowed{last}",
            seen.faults, limits.faults
        ));
    }
    if let Some(reason) = limits.time_max.and_then(|max| seen.too_slow(max)) {
        return Verdict::Withdraw(reason);
    }
    let per_million = u64::from(limits.disagreements_per_million);
    let too_many = u128::from(seen.disagreements) * 1_000_000
        > u128::from(seen.decisions) * u128::from(per_million);
    if seen.decisions >= DECISIONS_MIN && too_many {
        return Verdict::Withdraw(format!(
            "it disagrees on {} of {} decisions, {} in a million are allowed",
            seen.disagreements, seen.decisions, per_million
        ));
    }
    let tried_ms = now.as_millis().saturating_sub(stage.since.as_millis());
    let enough = seen.decisions >= limits.decisions && tried_ms >= limits.for_ms;
    if limits.promote && enough && !(too_many && seen.decisions > 0) {
        return Verdict::Promote(format!(
            "{} decisions in {tried_ms} ms, {} disagreements, {} faults",
            seen.decisions, seen.disagreements, seen.faults
        ));
    }
    if tried_ms > limits.trial_ms_max {
        return Verdict::Withdraw(format!(
            "it was tried for {tried_ms} ms, {} are allowed, and nobody has promoted it",
            limits.trial_ms_max
        ));
    }
    Verdict::Wait
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(thresholds: Thresholds) -> Stage {
        Stage {
            revision: 3,
            choice: Choice::default(),
            mode: StageMode::Shadow,
            thresholds,
            forced: Vec::new(),
            since: Timestamp::from_millis(10_000),
        }
    }

    #[test]
    fn a_trial_ends_by_its_thresholds_and_not_before() {
        let limits = Thresholds {
            disagreements_per_million: 10_000,
            faults: 1,
            time_max: Some(TimeMax::Ns(5_000)),
            for_ms: 1_000,
            trial_ms_max: 100_000,
            decisions: 200,
            promote: true,
        };
        let manual = Thresholds {
            promote: false,
            ..limits
        };
        let seen = |decisions, disagreements, faults| Seen {
            decisions,
            disagreements,
            faults,
            ..Seen::default()
        };
        let timed = |timed, took_us, in_use_us| Seen {
            timed,
            took_ns: timed * took_us * 1_000,
            in_use_ns: timed * in_use_us * 1_000,
            ..seen(150, 0, 0)
        };
        let by_ratio = Thresholds {
            time_max: Some(TimeMax::PercentOfInUse(300)),
            ..limits
        };
        let any_time = Thresholds {
            time_max: None,
            ..limits
        };
        let cases = [
            (limits, seen(0, 0, 0), 99_000, "wait"),
            (limits, seen(0, 0, 1), 10_500, "wait"),
            (limits, seen(0, 0, 2), 10_500, "withdraw"),
            (limits, seen(99, 99, 0), 10_500, "wait"),
            (limits, seen(100, 1, 0), 10_500, "wait"),
            (limits, seen(100, 2, 0), 10_500, "withdraw"),
            (limits, seen(200, 2, 0), 10_999, "wait"),
            (limits, seen(199, 1, 0), 11_000, "wait"),
            (limits, seen(200, 2, 0), 11_000, "promote"),
            (limits, seen(200, 3, 0), 11_000, "withdraw"),
            (manual, seen(200, 2, 0), 99_000, "wait"),
            (manual, seen(200, 3, 0), 99_000, "withdraw"),
            (limits, seen(200, 0, 0), 0, "wait"),
            (limits, timed(100, 5, 1), 10_500, "wait"),
            (limits, timed(99, 6, 1), 10_500, "wait"),
            (limits, timed(100, 6, 1), 10_500, "withdraw"),
            (by_ratio, timed(100, 6, 2), 10_500, "wait"),
            (by_ratio, timed(100, 7, 2), 10_500, "withdraw"),
            (by_ratio, timed(100, 1, 0), 10_500, "withdraw"),
            (any_time, timed(100, 900, 1), 10_500, "wait"),
            (manual, seen(9, 0, 0), 110_000, "wait"),
            (manual, seen(9, 0, 0), 110_001, "withdraw"),
        ];
        for (thresholds, seen, now, expected) in cases {
            let verdict = judge(&stage(thresholds), &seen, Timestamp::from_millis(now));
            let found = match verdict {
                Verdict::Wait => "wait",
                Verdict::Promote(_) => "promote",
                Verdict::Withdraw(_) => "withdraw",
            };
            assert_eq!(found, expected, "{seen:?} at {now}");
        }
    }

    #[test]
    fn a_few_decisions_promote_nothing_that_disagrees_too_often() {
        let limits = Thresholds {
            disagreements_per_million: 0,
            decisions: 10,
            for_ms: 0,
            promote: true,
            ..Thresholds::default()
        };
        let seen = Seen {
            decisions: 50,
            disagreements: 1,
            ..Seen::default()
        };
        assert_eq!(
            judge(&stage(limits), &seen, Timestamp::from_millis(10_000)),
            Verdict::Wait
        );
    }

    #[test]
    fn a_canary_decides_for_its_share_and_always_for_the_same() {
        let canary = StageMode::Canary { per_mille: 50 };
        let chosen = (0..100_000_u64)
            .filter(|hash| canary.decides(*hash))
            .count();
        assert_eq!(chosen, 5_000);
        assert!(canary.decides(1_049) && !canary.decides(1_050));
        assert!((0..2_000).all(|hash| !StageMode::Shadow.decides(hash)));
        assert!((0..2_000).all(|hash| StageMode::Canary { per_mille: 1_000 }.decides(hash)));
    }

    #[test]
    fn why_a_trial_ended_is_a_sentence() {
        let limits = Thresholds {
            time_max: Some(TimeMax::PercentOfInUse(200)),
            faults: 1,
            ..Thresholds::default()
        };
        let seen = Seen {
            timed: 1_000,
            took_ns: 9_500_000,
            in_use_ns: 3_040_000,
            ..Seen::default()
        };
        let failed = Seen {
            faults: 2,
            fault: Some("it trapped: out of luck".to_owned()),
            ..Seen::default()
        };
        let cases = [
            (
                seen,
                "it takes 9.500 µs for a decision, where the version in use takes 3.040 µs; \
                 200 % of that are allowed",
            ),
            (
                failed,
                "2 of its calls failed, 1 are allowed; the last one: it trapped: out of luck",
            ),
        ];
        for (seen, expected) in cases {
            let verdict = judge(&stage(limits), &seen, Timestamp::from_millis(10_000));
            assert_eq!(verdict, Verdict::Withdraw(expected.to_owned()));
        }
    }
}
