//! What makes each kind of policy worth having.

use oona_core::policy::{self, NonceSeen, Priority};

use super::generate::Sample;
use super::{ATTEMPTS_MAX, DELAY_MS_MAX, Desk, EMERGENCY_SIGNAL, Verdict};
use crate::record::{Decision, Message, MessageType, Recorded, State};

/// A kind that has laws of its own.
pub(crate) trait Lawful: Recorded {
    /// They.
    fn rules() -> &'static [Rule<Self>];
}

impl Lawful for policy::Routing {
    fn rules() -> &'static [Rule<Self>] {
        &ROUTING
    }
}

impl Lawful for policy::Backpressure {
    fn rules() -> &'static [Rule<Self>] {
        &BACKPRESSURE
    }
}

impl Lawful for policy::Freshness {
    fn rules() -> &'static [Rule<Self>] {
        &FRESHNESS
    }
}

impl Lawful for policy::DeadLetter {
    fn rules() -> &'static [Rule<Self>] {
        &DEAD_LETTER
    }
}

/// A law of one kind: its name, what it says, and what breaks it.
pub(crate) struct Rule<K: Recorded> {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) check: fn(&Desk<'_, K>, &Sample) -> Verdict,
}

pub(super) static ROUTING: [Rule<policy::Routing>; 1] = [Rule {
    name: "emergencies-are-routed",
    says: "an emergency, by type or by priority, is never rejected",
    check: |desk, sample| {
        let by_type = Message {
            message_type: MessageType(EMERGENCY_SIGNAL),
            ..sample.message.clone()
        };
        let by_priority = Message {
            priority: Priority::Emergency,
            ..sample.message.clone()
        };
        for message in [by_type, by_priority] {
            let decision = desk.ask(sample.now, &message, &sample.state)?;
            if decision.verdict != "route" {
                return Err(format!(
                    "{decision} for type {} and priority {:?}",
                    message.message_type, message.priority
                ));
            }
        }
        Ok(())
    },
}];

pub(super) static BACKPRESSURE: [Rule<policy::Backpressure>; 3] = [
    Rule {
        name: "emergencies-come-first",
        says: "where a lower priority is let in, an emergency that has a token is let in too",
        check: |desk, sample| {
            let state = State {
                tokens: Some(sample.state.tokens.unwrap_or(1).max(1)),
                ..sample.state.clone()
            };
            let lower = desk.ask(sample.now, &sample.message, &state)?;
            let message = Message {
                priority: Priority::Emergency,
                ..sample.message.clone()
            };
            let emergency = desk.ask(sample.now, &message, &state)?;
            if let_in(&lower) && !let_in(&emergency) {
                return Err(format!(
                    "{lower} for priority {:?}, and {emergency} for an emergency",
                    sample.message.priority
                ));
            }
            Ok(())
        },
    },
    Rule {
        name: "more-depth-never-admits-more",
        says: "what is refused is refused at every greater depth, everything else equal and the objective met",
        check: |desk, sample| {
            let at = |depth| State {
                depth: Some(depth),
                slo: None,
                ..sample.state.clone()
            };
            let depth = sample.state.depth.unwrap_or(0);
            let deeper = depth.saturating_add(sample.step);
            let before = desk.ask(sample.now, &sample.message, &at(depth))?;
            let after = desk.ask(sample.now, &sample.message, &at(deeper))?;
            if !let_in(&before) && let_in(&after) {
                return Err(format!(
                    "{before} at depth {depth}, and {after} at {deeper}"
                ));
            }
            Ok(())
        },
    },
    Rule {
        name: "pressure-rises-with-depth",
        says: "the pressure is from 0 to 1, and never falls as the stream fills",
        check: |desk, sample| {
            let depth = sample.state.depth.unwrap_or(0);
            let mut last = 0.0;
            for depth in [depth, depth.saturating_add(sample.step)] {
                let state = State {
                    depth: Some(depth),
                    ..sample.state.clone()
                };
                let pressure = desk
                    .ask(sample.now, &sample.message, &state)?
                    .pressure
                    .unwrap_or(f32::NAN);
                if !(last..=1.0).contains(&pressure) {
                    return Err(format!(
                        "pressure {pressure} at depth {depth}, after {last}"
                    ));
                }
                last = pressure;
            }
            Ok(())
        },
    },
];

pub(super) static FRESHNESS: [Rule<policy::Freshness>; 4] = [
    Rule {
        name: "one-age-divides",
        says: "a message that is fresh at some age is fresh at every smaller one: there is one boundary",
        check: |desk, sample| {
            // A message that was issued at zero is one that does not say when.
            let oldest = i64::try_from(sample.now)
                .unwrap_or(i64::MAX)
                .saturating_sub(1)
                .max(0);
            let age = sample.message.age_ms.unwrap_or(0).clamp(0, oldest);
            let step = i64::try_from(sample.step).unwrap_or(i64::MAX);
            let older = age.saturating_add(step).min(oldest);
            let verdict = |age_ms| {
                let message = Message {
                    age_ms: Some(age_ms),
                    created_at: None,
                    ..sample.message.clone()
                };
                desk.ask(sample.now, &message, &sample.state)
            };
            let (younger, older_one) = (verdict(age)?, verdict(older)?);
            if older_one.verdict == "fresh" && younger.verdict != "fresh" {
                return Err(format!(
                    "{younger} at {age} ms, and {older_one} at {older} ms"
                ));
            }
            Ok(())
        },
    },
    Rule {
        name: "the-window-is-exact",
        says: "the boundary is where a `window_ms` of the configuration puts it, within a millisecond; of a policy that has none nothing is asked",
        check: |desk, sample| {
            if desk.windows.is_empty() {
                return Ok(());
            }
            let verdict = |age: u64| {
                let message = Message {
                    age_ms: Some(i64::try_from(age).unwrap_or(i64::MAX)),
                    created_at: None,
                    // Nothing else makes it stale.
                    expires_at: None,
                    expires_in_ms: None,
                    ..sample.message.clone()
                };
                let state = State {
                    nonce: Some(NonceSeen::Unseen),
                    ..sample.state.clone()
                };
                desk.ask(sample.now, &message, &state)
            };
            let (mut fresh, mut stale) = (0, sample.now.saturating_sub(1));
            if verdict(fresh)?.verdict != "fresh" || verdict(stale)?.verdict != "stale" {
                return Ok(());
            }
            while stale - fresh > 1 {
                let age = fresh + (stale - fresh) / 2;
                match verdict(age)?.verdict.as_str() {
                    "fresh" => fresh = age,
                    _ => stale = age,
                }
            }
            if desk
                .windows
                .iter()
                .any(|window| window.abs_diff(fresh) <= 1)
            {
                return Ok(());
            }
            Err(format!(
                "fresh up to an age of {fresh} ms and stale from {stale} ms on, and the configuration says {:?}",
                desk.windows
            ))
        },
    },
    Rule {
        name: "a-redelivery-is-no-replay",
        says: "a nonce that is known from this very entry is no replay",
        check: |desk, sample| {
            let decision = desk.nonce(sample, NonceSeen::SameEntry)?;
            if decision.verdict == "replay" {
                return Err(decision.to_string());
            }
            Ok(())
        },
    },
    Rule {
        name: "a-replay-is-refused",
        says: "where a nonce is remembered, the same one on another entry is not fresh",
        check: |desk, sample| {
            let first = desk.nonce(sample, NonceSeen::Unseen)?;
            let again = desk.nonce(sample, NonceSeen::OtherEntry)?;
            if first.remember_ms > Some(0) && again.verdict == "fresh" {
                return Err(format!("{first}, and {again} on another entry"));
            }
            Ok(())
        },
    },
];

pub(super) static DEAD_LETTER: [Rule<policy::DeadLetter>; 2] = [
    Rule {
        name: "retrying-ends",
        says: "after 1 000 failures nothing is retried",
        check: |desk, sample| {
            let message = Message {
                attempt: sample.message.attempt.saturating_add(ATTEMPTS_MAX),
                ..sample.message.clone()
            };
            let decision = desk.ask(sample.now, &message, &sample.state)?;
            if decision.verdict == "retry" {
                return Err(format!("{decision} after {} failures", message.attempt));
            }
            Ok(())
        },
    },
    Rule {
        name: "delays-are-bounded",
        says: "no retry is put off for more than a week",
        check: |desk, sample| {
            let decision = desk.ask(sample.now, &sample.message, &sample.state)?;
            if decision.delay_ms > Some(DELAY_MS_MAX) {
                return Err(decision.to_string());
            }
            Ok(())
        },
    },
];

/// Whether the message gets onto a stream.
fn let_in(decision: &Decision) -> bool {
    matches!(decision.verdict.as_str(), "admit" | "reroute")
}
