//! A policy on trial, on a machine that may have other things to do.
//!
//! Why: a deadline on live traffic is a matter of wall-clock time, and a call can pass it because its
//! thread was put aside. Where a policy is judged by single calls, that would blame it for the machine.
//! So an instance on trial is given its time by the clock of its thread; and since other tenants can
//! eat into that too, a late call is made again, in a fresh instance. Trips when: more than [`LATE_MAX`]
//! calls were late in one trial. What is too slow is so each time, and what is slow now and then is
//! late again and again. Recovers: not within the trial.

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup, PolicyKind};

use crate::version::StartError;

/// How many late calls are made again in one trial. A call that takes half its time is late only if
/// something else than its thread takes as much again; eight such accidents in a trial of
/// thousands of calls are no accidents. Who is too slow costs nine times the time of a call: 90 ms.
pub const LATE_MAX: u32 = 8;

/// See the module.
#[derive(Debug)]
pub struct Patient<D> {
    policy: D,
    /// How many late calls are made again from here on.
    forgiven: u32,
}

impl<D> Patient<D> {
    /// Is patient with a policy that begins anew after a failure, as an instance does.
    pub const fn new(policy: D) -> Self {
        Self {
            policy,
            forgiven: LATE_MAX,
        }
    }

    /// The policy.
    pub fn into_inner(self) -> D {
        self.policy
    }
}

/// Starts something, again if it is late.
pub(crate) fn in_time<T>(start: impl Fn() -> Result<T, StartError>) -> Result<T, StartError> {
    for _ in 0..LATE_MAX {
        match start() {
            Err(error) if error.is_late() => {}
            done => return done,
        }
    }
    start()
}

impl<K: PolicyKind, D: Decide<K>> Decide<K> for Patient<D> {
    fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault> {
        loop {
            let asked = self.policy.decide(now, state, questions, text, decisions);
            if !matches!(asked, Err(Fault::Deadline { .. })) || self.forgiven == 0 {
                return asked;
            }
            self.forgiven -= 1;
        }
    }

    fn memory_bytes(&self) -> Option<usize> {
        self.policy.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use oona_core::policy::{NoText, Routing, Subject};

    use super::*;

    /// Fails so many times, and counts how often it is asked.
    struct Failing {
        left: u32,
        asked: u32,
        fault: Fault,
    }

    impl Decide<Routing> for Failing {
        fn decide(
            &mut self,
            _now: Timestamp,
            _state: &(),
            _questions: &[Subject],
            _text: &Arc<dyn Lookup>,
            _decisions: &mut Vec<oona_core::policy::Route>,
        ) -> Result<(), Fault> {
            self.asked += 1;
            if self.left == 0 {
                return Ok(());
            }
            self.left -= 1;
            Err(self.fault.clone())
        }
    }

    /// How often one is asked that fails so many times, and whether it answers in the end; twice.
    #[track_caller]
    fn check(fault: &Fault, left: u32, expected: [(u32, bool); 2]) {
        let mut patient = Patient::new(Failing {
            left,
            asked: 0,
            fault: fault.clone(),
        });
        let text: Arc<dyn Lookup> = Arc::new(NoText);
        for expected in expected {
            patient.policy.asked = 0;
            let now = Timestamp::EPOCH;
            let asked = Decide::<Routing>::decide(&mut patient, now, &(), &[], &text, &mut vec![]);
            assert_eq!((patient.policy.asked, asked.is_ok()), expected, "{left}");
        }
    }

    #[test]
    fn who_is_late_is_asked_again_and_who_is_late_too_often_is_too_slow() {
        let late = Fault::Deadline { limit_ms: 10 };
        check(&late, 0, [(1, true), (1, true)]);
        check(&late, 3, [(4, true), (1, true)]);
        check(&late, LATE_MAX, [(LATE_MAX + 1, true), (1, true)]);
        check(&late, 99, [(LATE_MAX + 1, false), (1, false)]);
        let trap = Fault::Trap("once".to_owned());
        check(&trap, 1, [(1, false), (1, true)]);
    }
}
