//! One alert: when it fires, and when it is over.
//!
//! Why: a value that stands at its threshold would call somebody every second. Fires when: the value is over
//! `fires_over` at so many looks in a row. Is over when: the value is under `clears_under`, at the first look.
//! Between the two nothing changes. A value that is no number changes nothing either.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// When an alert fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// A value over this is too much.
    pub fires_over: f64,
    /// A value under this is well again. Not more than `fires_over`.
    pub clears_under: f64,
    /// At how many looks in a row the value must be too much; 0 is as 1.
    pub looks: u32,
}

/// How an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is nothing.
    #[default]
    Ok,
    /// It is too much, and not yet for long enough.
    Pending,
    /// Somebody should look.
    Firing,
}

/// What others are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It fires from now on.
    Fired,
    /// It is over.
    Cleared,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Alert {
    state: State,
    /// Since when it is pending or fires.
    since: Option<Timestamp>,
    /// Looks in a row that were too much.
    over: u32,
}

impl Alert {
    /// How it is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when it is pending or fires.
    #[must_use]
    pub const fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Looks at a value; answers if that is worth telling.
    pub fn look(&mut self, now: Timestamp, rule: Rule, value: f64) -> Option<Change> {
        match self.state {
            State::Firing if value < rule.clears_under => {
                *self = Self::default();
                Some(Change::Cleared)
            }
            State::Firing => None,
            State::Ok | State::Pending if value > rule.fires_over => self.too_much(now, rule.looks),
            State::Pending if value <= rule.fires_over => {
                *self = Self::default();
                None
            }
            State::Ok | State::Pending => None,
        }
    }

    fn too_much(&mut self, now: Timestamp, looks: u32) -> Option<Change> {
        self.over += 1;
        if self.over < looks {
            self.state = State::Pending;
            self.since.get_or_insert(now);
            return None;
        }
        self.state = State::Firing;
        self.since = Some(now);
        Some(Change::Fired)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule of the predecessor's alert reader, with a for-count of three.
    const DEPTH: Rule = Rule {
        fires_over: 4_000.0,
        clears_under: 1_000.0,
        looks: 3,
    };

    /// Each step: the value, the state then, what is told.
    #[track_caller]
    fn check(rule: Rule, steps: &[(f64, State, Option<Change>)]) {
        let mut alert = Alert::default();
        for (index, (value, state, told)) in steps.iter().enumerate() {
            let now = Timestamp::from_millis(index as u64);
            assert_eq!(alert.look(now, rule, *value), *told, "step {index}");
            assert_eq!(alert.state(), *state, "step {index}");
            assert_eq!(alert.since().is_some(), *state != State::Ok, "step {index}");
        }
    }

    const FIRED: Option<Change> = Some(Change::Fired);
    const CLEARED: Option<Change> = Some(Change::Cleared);

    #[test]
    fn it_fires_after_its_for_count_and_clears_under_its_threshold() {
        check(
            DEPTH,
            &[
                (4_000.0, State::Ok, None),
                (4_001.0, State::Pending, None),
                (4_001.0, State::Pending, None),
                (4_001.0, State::Firing, FIRED),
                (9_000.0, State::Firing, None),
                (1_000.0, State::Firing, None),
                (999.0, State::Ok, CLEARED),
                (999.0, State::Ok, None),
            ],
        );
    }

    #[test]
    fn a_break_begins_the_count_anew() {
        check(
            DEPTH,
            &[
                (4_001.0, State::Pending, None),
                (4_001.0, State::Pending, None),
                (4_000.0, State::Ok, None),
                (4_001.0, State::Pending, None),
                (4_001.0, State::Pending, None),
                (4_001.0, State::Firing, FIRED),
            ],
        );
    }

    #[test]
    fn a_count_of_one_or_none_fires_at_once() {
        for looks in [0, 1] {
            let rule = Rule {
                fires_over: 0.5,
                clears_under: 0.5,
                looks,
            };
            let steps = [
                (1.0, State::Firing, FIRED),
                (0.0, State::Ok, CLEARED),
                (1.0, State::Firing, FIRED),
            ];
            check(rule, &steps);
        }
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let nan = f64::NAN;
        check(
            Rule { looks: 2, ..DEPTH },
            &[
                (nan, State::Ok, None),
                (4_001.0, State::Pending, None),
                (nan, State::Pending, None),
                (4_001.0, State::Firing, FIRED),
                (nan, State::Firing, None),
            ],
        );
    }

    #[test]
    fn it_fires_since_it_does_and_not_since_it_was_pending() {
        let mut alert = Alert::default();
        let at = Timestamp::from_millis;
        for ms in [10, 20] {
            assert_eq!(alert.look(at(ms), DEPTH, 5_000.0), None);
            assert_eq!(alert.since(), Some(at(10)));
        }
        assert_eq!(alert.look(at(30), DEPTH, 5_000.0), FIRED);
        assert_eq!(alert.since(), Some(at(30)));
    }

    proptest! {
        /// It fires exactly if the last looks were all too much since it was well, and what is told takes turns.
        #[test]
        fn it_is_as_a_list_of_looks_says(
            values in prop::collection::vec(0u32..6, 1..200),
            looks in 1u32..5,
        ) {
            let rule = Rule { fires_over: 3.0, clears_under: 2.0, looks };
            let (mut alert, mut firing, mut run) = (Alert::default(), false, 0);
            for value in values {
                run = if value > 3 { run + 1 } else { 0 };
                let was = firing;
                firing = if firing { value >= 2 } else { run >= looks };
                let told = alert.look(Timestamp::EPOCH, rule, value.into());
                prop_assert_eq!(alert.state() == State::Firing, firing);
                prop_assert_eq!(told == FIRED, !was && firing);
                prop_assert_eq!(told == CLEARED, was && !firing);
                run = if was && !firing { 0 } else { run };
            }
        }
    }
}
