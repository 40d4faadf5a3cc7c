//! A candidate on live traffic: when it has shown enough, and when too much.
//!
//! Why: laws and cases say what somebody thought of; traffic is what there is. A shadow decides
//! alongside and only its disagreement is recorded; a canary decides for a stated share of keys. Trips
//! when: it disagrees or fails more than its thresholds allow; it is taken back then. Recovers: not by
//! itself. It is promoted, if that was asked for, once it has decided on enough messages for long
//! enough.

use serde::{Deserialize, Serialize};

use crate::registry::{Choice, Revision};
use crate::time::Timestamp;

/// How few decisions a rate of disagreement is not believed of.
pub const DECISIONS_MIN: u64 = 100;

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
    /// Since when.
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
    /// How long it must have been tried before it can be promoted, in ms.
    pub for_ms: u64,
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
            for_ms: 60_000,
            decisions: 1_000,
            promote: false,
        }
    }
}

/// What a host has seen of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Messages that both have decided on.
    pub decisions: u64,
    /// Those on which they disagree.
    pub disagreements: u64,
    /// Calls of the candidate that failed.
    pub faults: u64,
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
pub fn judge(stage: &Stage, seen: Seen, now: Timestamp) -> Verdict {
    let limits = stage.thresholds;
    if seen.faults > u64::from(limits.faults) {
        return Verdict::Withdraw(format!(
            "{} of its calls failed, {} are allowed",
            seen.faults, limits.faults
        ));
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
            since: Timestamp::from_millis(10_000),
        }
    }

    #[test]
    fn a_trial_ends_by_its_thresholds_and_not_before() {
        let limits = Thresholds {
            disagreements_per_million: 10_000,
            faults: 1,
            for_ms: 1_000,
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
        ];
        for (thresholds, seen, now, expected) in cases {
            let verdict = judge(&stage(thresholds), seen, Timestamp::from_millis(now));
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
            faults: 0,
        };
        assert_eq!(
            judge(&stage(limits), seen, Timestamp::from_millis(10_000)),
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
}
