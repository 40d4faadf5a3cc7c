//! For each law a policy that breaks it, and no other.

use std::marker::PhantomData;

use oona_core::policy::{
    Admission, AdmissionVerdict, Arrival, BusState, Candidate, Failed, Fate, FateVerdict, Fault,
    FreshnessVerdict, Judgement, Lookup, Priority, Route, Subject,
};
use oona_core::symbols::Symbol;
use oona_wasm::LATE_MAX;

use super::rules::{BACKPRESSURE, DEAD_LETTER, FRESHNESS, ROUTING};
use super::*;

/// Decides by a function of one question, and of how often it was asked before.
struct By<K: Recorded, F>(F, u64, PhantomData<K>);

impl<K: Recorded, F> Decide<K> for By<K, F>
where
    F: FnMut(Timestamp, &K::State, &K::Question, u64) -> Result<K::Decision, Fault> + Send,
{
    fn decide(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        _text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Result<(), Fault> {
        decisions.clear();
        for question in questions {
            let decision = (self.0)(now, state, question, self.1)?;
            self.1 += 1;
            decisions.push(decision);
        }
        Ok(())
    }
}

/// Which laws it breaks, with what contradicts the first.
fn broken<K: Recorded, F>(rules: &[Rule<K>], decide: F) -> (Vec<String>, String)
where
    F: Fn(Timestamp, &K::State, &K::Question, u64) -> Result<K::Decision, Fault>
        + Send
        + Copy
        + 'static,
{
    let names = cases::names(&[]);
    let fresh = || Ok(Box::new(By::<K, F>(decide, 0, PhantomData)) as Decider<K>);
    let words = Vocabulary::of("{}", "{}", &names);
    let options = LawOptions {
        runs: 400,
        ..LawOptions::default()
    };
    let report = try_all(&fresh, &words, &names, &options, rules).expect("it starts");
    assert_eq!(
        report.kept,
        report.laws.iter().all(|law| law.broken.is_none())
    );
    let broken: Vec<_> = report
        .laws
        .into_iter()
        .filter_map(|law| Some((law.name, law.broken?)))
        .collect();
    let what = broken
        .first()
        .map(|(_, broken)| broken.what.clone())
        .unwrap_or_default();
    (broken.into_iter().map(|(name, _)| name).collect(), what)
}

#[track_caller]
fn check<K: Recorded, F>(rules: &[Rule<K>], expected: &str, words: &str, decide: F)
where
    F: Fn(Timestamp, &K::State, &K::Question, u64) -> Result<K::Decision, Fault>
        + Send
        + Copy
        + 'static,
{
    let (names, what) = broken(rules, decide);
    let expected: Vec<_> = Some(expected)
        .filter(|name| !name.is_empty())
        .into_iter()
        .collect();
    assert_eq!(names, expected, "{what}");
    assert!(what.contains(words), "{what}");
}

const REASON: Symbol = Symbol(1);

fn to() -> Route {
    Route::To {
        stream: Symbol(1),
        reason: REASON,
    }
}

#[test]
fn breaches_of_routing_are_found() {
    check(&ROUTING, "", "", |_, (), _, _| Ok(to()));
    check(
        &ROUTING,
        "emergencies-are-routed",
        "reject",
        |_, (), subject: &Subject, _| {
            let quiet =
                subject.message_type == EMERGENCY_SIGNAL && subject.priority == Priority::Low;
            Ok(if quiet {
                Route::Reject { reason: REASON }
            } else {
                to()
            })
        },
    );
    check(
        &ROUTING,
        "it-is-a-pure-function",
        "later in a batch",
        |_, (), _, asked| {
            Ok(Route::To {
                stream: Symbol(1 + u32::from(asked == 2)),
                reason: REASON,
            })
        },
    );
}

#[test]
fn a_rare_failure_is_found_and_shrunk() {
    let (names, what) = broken(&ROUTING, |_, (), subject: &Subject, _| {
        if subject.attempt > 6 {
            return Err(Fault::Trap("seven".to_owned()));
        }
        Ok(to())
    });
    assert_eq!(names[0], "it-never-fails");
    assert_eq!(what, "it trapped: seven");
    let names = cases::names(&[]);
    let decide = |_, _: &(), subject: &Subject, _| match subject.attempt {
        0..=6 => Ok(to()),
        _ => Err(Fault::Trap("seven".to_owned())),
    };
    let fresh = || Ok(Box::new(By::<policy::Routing, _>(decide, 0, PhantomData)) as Decider<_>);
    let words = Vocabulary::of("{}", "{}", &names);
    let report = |seed| {
        let options = LawOptions {
            seed,
            ..LawOptions::default()
        };
        try_all(&fresh, &words, &names, &options, &ROUTING).expect("it starts")
    };
    let first = report(7);
    let smallest = first.laws[0].broken.clone().expect("it is found");
    assert_eq!(smallest.message.attempt, 7, "the smallest that fails");
    assert_eq!(smallest.message.attributes, Default::default());
    assert_eq!(report(7), first, "the same seed finds the same");
    let case = smallest
        .as_case("it-never-fails")
        .replace("\"?\"", "\"route\"");
    let parsed = crate::cases::Cases::parse("a.toml", &format!("kind = 'routing'\n{case}"));
    let parsed = parsed.expect("it can be pasted into a file of cases");
    assert_eq!(parsed.cases[0].said().expect("a message").0.attempt, 7);
}

fn admission(verdict: AdmissionVerdict, pressure: f32) -> Admission {
    Admission {
        verdict,
        reason: REASON,
        pressure,
    }
}

const ADMIT: AdmissionVerdict = AdmissionVerdict::Admit;
const REJECT: AdmissionVerdict = AdmissionVerdict::Reject { retry_after_ms: 1 };

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn used(candidate: &Candidate) -> f32 {
    (candidate.depth as f32 / candidate.capacity as f32).min(1.0)
}

#[test]
fn breaches_of_backpressure_are_found() {
    let fair = |_: Timestamp, _: &BusState, candidate: &Candidate, _: u64| {
        let room = candidate.depth < candidate.capacity;
        let verdict = if room || candidate.subject.priority == Priority::Emergency {
            ADMIT
        } else {
            REJECT
        };
        Ok(admission(verdict, used(candidate)))
    };
    check(&BACKPRESSURE, "", "", fair);
    check(
        &BACKPRESSURE,
        "emergencies-come-first",
        "for an emergency",
        |_, _, candidate: &Candidate, _| {
            let noisy = candidate.subject.priority == Priority::Emergency;
            Ok(admission(
                if noisy { REJECT } else { ADMIT },
                used(candidate),
            ))
        },
    );
    check(
        &BACKPRESSURE,
        "more-depth-never-admits-more",
        "at depth",
        |_, _, candidate: &Candidate, _| {
            let odd = candidate.depth < 100;
            Ok(admission(if odd { REJECT } else { ADMIT }, used(candidate)))
        },
    );
    check(
        &BACKPRESSURE,
        "pressure-rises-with-depth",
        "pressure",
        |_, _, candidate: &Candidate, _| Ok(admission(ADMIT, 1.0 - used(candidate))),
    );
    check(
        &BACKPRESSURE,
        "pressure-rises-with-depth",
        "pressure 1.5",
        |_, _, _, _| Ok(admission(ADMIT, 1.5)),
    );
}

fn judgement(verdict: FreshnessVerdict) -> Judgement {
    Judgement {
        verdict,
        reason: REASON,
    }
}

fn fresh_for(remember_ms: u64) -> Judgement {
    judgement(FreshnessVerdict::Fresh { remember_ms })
}

fn age(now: Timestamp, arrival: &Arrival) -> u64 {
    let created_at = arrival.subject.created_at.map_or(0, Timestamp::as_millis);
    now.as_millis().saturating_sub(created_at)
}

#[test]
fn breaches_of_freshness_are_found() {
    let exact = |now, (): &(), arrival: &Arrival, _: u64| {
        Ok(match arrival.nonce {
            NonceSeen::OtherEntry => judgement(FreshnessVerdict::Replay),
            _ if age(now, arrival) > 120_000 => judgement(FreshnessVerdict::Stale),
            _ => fresh_for(1),
        })
    };
    check(&FRESHNESS, "", "", exact);
    check(
        &FRESHNESS,
        "one-age-divides",
        "stale",
        move |now, (), arrival: &Arrival, _| {
            if age(now, arrival) < 1_000 && arrival.nonce != NonceSeen::OtherEntry {
                return Ok(judgement(FreshnessVerdict::Stale));
            }
            exact(now, &(), arrival, 0)
        },
    );
    check(
        &FRESHNESS,
        "a-redelivery-is-no-replay",
        "replay",
        |_, (), arrival: &Arrival, _| {
            Ok(match arrival.nonce {
                NonceSeen::Unseen => fresh_for(1),
                _ => judgement(FreshnessVerdict::Replay),
            })
        },
    );
    check(
        &FRESHNESS,
        "a-replay-is-refused",
        "on another entry",
        |_, (), _: &Arrival, _| Ok(fresh_for(1)),
    );
}

#[test]
fn breaches_of_dead_letter_are_found() {
    let fate = |verdict| Fate {
        verdict,
        reason: REASON,
    };
    let retry = move |delay_ms| fate(FateVerdict::Retry { delay_ms });
    check(&DEAD_LETTER, "", "", move |_, (), failed: &Failed, _| {
        let class = REASON;
        let over = failed.subject.attempt >= 1_000;
        Ok(if over {
            fate(FateVerdict::DeadLetter { class })
        } else {
            retry(1)
        })
    });
    check(
        &DEAD_LETTER,
        "retrying-ends",
        "after",
        move |_, (), _: &Failed, _| Ok(retry(1)),
    );
    check(
        &DEAD_LETTER,
        "delays-are-bounded",
        "retry after",
        move |_, (), failed: &Failed, _| {
            Ok(if failed.subject.attempt < 1_000 {
                retry(DELAY_MS_MAX + 1)
            } else {
                fate(FateVerdict::Discard)
            })
        },
    );
}

/// Keeps some bytes of each message, up to a bound.
struct Keeping {
    bytes: usize,
    bound: usize,
    kept: usize,
}

impl Decide<policy::Routing> for Keeping {
    fn decide(
        &mut self,
        _now: Timestamp,
        (): &(),
        questions: &[Subject],
        _text: &Arc<dyn Lookup>,
        decisions: &mut Vec<Route>,
    ) -> Result<(), Fault> {
        self.kept = self.bound.min(self.kept + self.bytes * questions.len());
        *decisions = vec![to(); questions.len()];
        Ok(())
    }

    fn memory_bytes(&self) -> Option<usize> {
        Some(self.kept.next_multiple_of(65_536))
    }
}

#[test]
fn leaks_are_found_and_caches_are_none() {
    for (bytes, bound, leaks) in [
        (0, usize::MAX, false),
        (4, usize::MAX, true),
        (1_000, usize::MAX, true),
        (1_000, 1 << 20, false),
        (16, ROUND * BATCH * 32, false),
    ] {
        let keeping = move || Keeping {
            bytes,
            bound,
            kept: 0,
        };
        let fresh = || Ok(Box::new(keeping()) as Decider<policy::Routing>);
        let names = cases::names(&[]);
        let words = Vocabulary::of("{}", "{}", &names);
        let options = LawOptions {
            runs: 1,
            ..LawOptions::default()
        };
        let report = try_all(&fresh, &words, &names, &options, &ROUTING).expect("it starts");
        let broken = report.laws.iter().filter(|law| law.broken.is_some());
        let broken: Vec<_> = broken.map(|law| law.name.as_str()).collect();
        let expected = if leaks {
            &["it-leaks-nothing"][..]
        } else {
            &[]
        };
        assert_eq!(broken, expected, "{bytes} bytes of each, up to {bound}");
    }
}

/// Answers, but passes the deadline of some of its calls.
struct Late {
    calls: u32,
    is_late: fn(u32) -> bool,
}

impl Decide<policy::Routing> for Late {
    fn decide(
        &mut self,
        _now: Timestamp,
        (): &(),
        questions: &[Subject],
        _text: &Arc<dyn Lookup>,
        decisions: &mut Vec<Route>,
    ) -> Result<(), Fault> {
        self.calls += 1;
        if (self.is_late)(self.calls) {
            return Err(Fault::Deadline { limit_ms: 10 });
        }
        *decisions = vec![to(); questions.len()];
        Ok(())
    }
}

/// Whether a call is late, by its number.
type IsLate = fn(u32) -> bool;

#[test]
fn a_busy_machine_breaks_no_law_and_a_slow_policy_does() {
    let names = cases::names(&[]);
    let words = Vocabulary::of("{}", "{}", &names);
    let cases: [(&str, IsLate, bool); 5] = [
        ("never late", |_| false, true),
        ("late once", |call| call == 7, true),
        ("late at first", |call| call <= LATE_MAX, true),
        ("always late", |_| true, false),
        ("late every other time", |call| call % 2 == 0, false),
    ];
    for (what, is_late, in_time) in cases {
        let fresh = || Ok(Box::new(Late { calls: 0, is_late }) as Decider<policy::Routing>);
        let options = LawOptions {
            runs: 40,
            ..LawOptions::default()
        };
        let report = try_all(&fresh, &words, &names, &options, &ROUTING).expect("it starts");
        assert_eq!(report.kept, in_time, "{what}: {report:?}");
        let broken = report.laws[0].broken.as_ref();
        let expected = (!in_time).then_some("it took longer than its 10 ms");
        assert_eq!(broken.map(|broken| broken.what.as_str()), expected);
    }
}

#[test]
fn a_boundary_that_is_not_where_the_configuration_puts_it_is_found() {
    let names = cases::names(&[]);
    for (config, exact) in [
        (r#"{"window_ms": 120000}"#, true),
        (r#"{"types": {"3": {"window_ms": 119999}}}"#, true),
        (r#"{"window_ms": 119998}"#, false),
        (r#"{"window_ms": 60000}"#, false),
        ("{}", true),
    ] {
        let decide = |now, _: &(), arrival: &Arrival, _| {
            Ok(match arrival.nonce {
                NonceSeen::OtherEntry => judgement(FreshnessVerdict::Replay),
                _ if age(now, arrival) > 120_000 => judgement(FreshnessVerdict::Stale),
                _ => fresh_for(1),
            })
        };
        let fresh = || {
            let by = By::<policy::Freshness, _>(decide, 0, PhantomData);
            Ok(Box::new(by) as Decider<policy::Freshness>)
        };
        let words = Vocabulary::of("{}", config, &names);
        let options = LawOptions {
            runs: 100,
            ..LawOptions::default()
        };
        let report = try_all(&fresh, &words, &names, &options, &FRESHNESS).expect("it starts");
        let broken = report.laws.iter().filter(|law| law.broken.is_some());
        let broken: Vec<_> = broken.map(|law| law.name.as_str()).collect();
        let expected: &[_] = if exact { &[] } else { &["the-window-is-exact"] };
        assert_eq!(broken, expected, "{config}");
    }
}
