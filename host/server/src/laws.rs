//! Laws that a policy must keep, whatever it is told: tried on thousands of generated messages, and
//! shrunk to the smallest counterexample.
//!
//! Some hold for every kind: it never fails, it is a pure function, it is in time. Others are what
//! makes a kind worth having: an emergency is never refused before what is less urgent, more depth
//! never admits more, one age divides the fresh from the stale, retrying ends. Teams add their own, in
//! the form of cases.

mod generate;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, Decide, Kind, NonceSeen, Priority};
use oona_wasm::{Artifact, Names, StartError, Version};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde::Serialize;
use serde_json::{Value, json};

use self::generate::{Sample, Vocabulary, sample};
use crate::cases::{self, Case};
use crate::record::{Decision, Message, MessageType, Recorded, State, Texts};

/// How many messages a batch has that must be decided in time.
const BATCH: usize = 256;

/// After how many failures nothing may be retried any more.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// How long a retry may be put off, in ms: a week.
pub const DELAY_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;

/// The wire number of an emergency signal.
const EMERGENCY_SIGNAL: u32 = oona_core::envelope::message_type::EMERGENCY_SIGNAL;

/// How laws are tried.
#[derive(Clone, Debug)]
pub struct LawOptions {
    /// On how many generated inputs each law is tried.
    pub runs: u32,
    /// What the inputs are generated from. The same seed gives the same inputs.
    pub seed: u64,
    /// Laws of one's own.
    pub own: Vec<Case>,
}

impl Default for LawOptions {
    fn default() -> Self {
        Self {
            runs: 2_000,
            seed: 0,
            own: Vec::new(),
        }
    }
}

/// How a policy did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LawReport {
    /// Whether it keeps all laws.
    pub kept: bool,
    /// What the inputs were generated from.
    pub seed: u64,
    /// Each law.
    pub laws: Vec<Law>,
}

/// How a policy did at one law.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Law {
    /// Its name.
    pub name: String,
    /// What it says.
    pub says: String,
    /// On how many inputs it was tried.
    pub tried: u32,
    /// The smallest input found that breaks it; none if it is kept.
    pub broken: Option<Counterexample>,
}

/// An input that breaks a law.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counterexample {
    /// What contradicts the law.
    pub what: String,
    /// When it is, in ms since the epoch.
    pub now: u64,
    /// The message.
    pub message: Message,
    /// What else the policy is told.
    pub state: State,
}

impl Counterexample {
    /// The same as a case, for a file of cases. What it expects is left to whoever mends the policy.
    #[must_use]
    pub fn as_case(&self, name: &str) -> String {
        let case = json!({
            "case": [{
                "name": name,
                "now": self.now,
                "message": self.message,
                "state": self.state,
                "expect": { "verdict": "?" },
            }],
        });
        toml::to_string(&case).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            says,
            tried,
            broken,
        } = self;
        match broken {
            None => write!(f, "kept    {name} ({tried}): {says}"),
            Some(Counterexample { what, .. }) => {
                write!(f, "BROKEN  {name}: {says}\n        {what}")
            }
        }
    }
}

/// Tries every law of its kind on a policy.
///
/// # Errors
///
/// If it does not start, or refuses its configuration.
pub fn check(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    options: &LawOptions,
) -> Result<LawReport, StartError> {
    match artifact.kind() {
        Kind::Routing => all::<policy::Routing>(artifact, config, names, options, &ROUTING),
        Kind::Backpressure => {
            all::<policy::Backpressure>(artifact, config, names, options, &BACKPRESSURE)
        }
        Kind::Freshness => all::<policy::Freshness>(artifact, config, names, options, &FRESHNESS),
        Kind::DeadLetter => {
            all::<policy::DeadLetter>(artifact, config, names, options, &DEAD_LETTER)
        }
    }
}

/// A law of one kind: its name, what it says, and what breaks it.
struct Rule<K: Recorded> {
    name: &'static str,
    says: &'static str,
    check: fn(&Desk<'_, K>, &Sample) -> Verdict,
}

/// What contradicts a law, in a sentence.
type Verdict = Result<(), String>;

const ROUTING: [Rule<policy::Routing>; 1] = [Rule {
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

const BACKPRESSURE: [Rule<policy::Backpressure>; 3] = [
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

const FRESHNESS: [Rule<policy::Freshness>; 3] = [
    Rule {
        name: "one-age-divides",
        says: "a message that is fresh at some age is fresh at every smaller one: there is one boundary, to the millisecond",
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

const DEAD_LETTER: [Rule<policy::DeadLetter>; 2] = [
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

/// Something that decides: an instance of a component.
type Decider<K> = Box<dyn Decide<K>>;

/// A policy on the desk.
struct Desk<'a, K: Recorded> {
    names: &'a Names,
    /// One that has been asked before.
    used: RefCell<Decider<K>>,
    /// Makes one that has not.
    fresh: &'a dyn Fn() -> Result<Decider<K>, StartError>,
}

impl<K: Recorded> Desk<'_, K> {
    fn ask(&self, now: u64, message: &Message, state: &State) -> Result<Decision, String> {
        let decided = decide(
            self.used.borrow_mut().as_mut(),
            self.names,
            now,
            std::slice::from_ref(message),
            state,
        )?;
        decided
            .into_iter()
            .next()
            .ok_or_else(|| "it decided nothing".to_owned())
    }

    fn nonce(&self, sample: &Sample, nonce: NonceSeen) -> Result<Decision, String> {
        let state = State {
            nonce: Some(nonce),
            ..sample.state.clone()
        };
        self.ask(sample.now, &sample.message, &state)
    }

    /// It never fails: no trap, no bound, no name that nobody knows.
    fn never_fails(&self, sample: &Sample) -> Verdict {
        self.ask(sample.now, &sample.message, &sample.state)
            .map(drop)
    }

    /// The same question has the same answer, in a fresh instance and in one that was used, alone and
    /// among others.
    fn is_pure(&self, sample: &Sample) -> Verdict {
        let used = self.ask(sample.now, &sample.message, &sample.state)?;
        let mut fresh = (self.fresh)().map_err(|error| error.to_string())?;
        let messages = [
            sample.message.clone(),
            sample.other.clone(),
            sample.message.clone(),
        ];
        let batch = decide(
            fresh.as_mut(),
            self.names,
            sample.now,
            &messages,
            &sample.state,
        )?;
        for (index, place) in [(0, "in a fresh instance"), (2, "later in a batch")] {
            if batch[index] != used {
                return Err(format!(
                    "{used} in a used instance, and {} {place}",
                    batch[index]
                ));
            }
        }
        Ok(())
    }

    fn is_in_time(&self, sample: &Sample) -> Verdict {
        let messages = vec![sample.message.clone(); BATCH];
        decide(
            self.used.borrow_mut().as_mut(),
            self.names,
            sample.now,
            &messages,
            &sample.state,
        )
        .map(drop)
    }

    fn keeps_own(&self, law: &Case, sample: &Sample) -> Verdict {
        let message = fixed(&sample.message, &law.message)?;
        let state = fixed(&sample.state, &law.state)?;
        let now = law.now.unwrap_or(sample.now);
        let decision = self.ask(now, &message, &state)?;
        let differences = law.differences(&decision);
        if differences.is_empty() {
            return Ok(());
        }
        let told: Vec<_> = differences.iter().map(ToString::to_string).collect();
        Err(format!("{decision}; {}", told.join(", ")))
    }
}

/// What was generated, with what a law says in its place.
fn fixed<T: Serialize + serde::de::DeserializeOwned>(
    generated: &T,
    said: &serde_json::Map<String, Value>,
) -> Result<T, String> {
    let mut value = serde_json::to_value(generated).map_err(|error| error.to_string())?;
    if let Some(object) = value.as_object_mut() {
        // Two ways to say the same would contradict each other.
        for (said_as, also) in [
            ("created_at", "age_ms"),
            ("age_ms", "created_at"),
            ("expires_at", "expires_in_ms"),
            ("expires_in_ms", "expires_at"),
        ] {
            if said.contains_key(said_as) {
                object.remove(also);
            }
        }
        object.extend(said.clone());
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn decide<K: Recorded>(
    decider: &mut dyn Decide<K>,
    names: &Names,
    now: u64,
    messages: &[Message],
    state: &State,
) -> Result<Vec<Decision>, String> {
    let now = Timestamp::from_millis(now);
    let mut whole = K::State::default();
    let mut questions = Vec::with_capacity(messages.len());
    for message in messages {
        let asked = K::question(message, state, now, &names.symbols);
        let (bus, question) = asked.map_err(|error| error.to_string())?;
        whole = bus;
        questions.push(question);
    }
    let text: Arc<dyn policy::Lookup> = Arc::new(Texts(messages.to_vec()));
    let mut decisions = Vec::with_capacity(questions.len());
    let decided = decider.decide(now, &whole, &questions, &text, &mut decisions);
    decided.map_err(|fault| fault.to_string())?;
    let in_words = decisions
        .iter()
        .map(|decision| <K as Recorded>::decision(decision, &names.symbols));
    Ok(in_words.collect())
}

fn all<K: Recorded>(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    options: &LawOptions,
    rules: &[Rule<K>],
) -> Result<LawReport, StartError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    let fresh = || Ok(Box::new(version.instance()?) as Decider<K>);
    let words = Vocabulary::of(config, names);
    try_all(&fresh, &words, names, options, rules)
}

fn try_all<K: Recorded>(
    fresh: &dyn Fn() -> Result<Decider<K>, StartError>,
    words: &Vocabulary,
    names: &Names,
    options: &LawOptions,
    rules: &[Rule<K>],
) -> Result<LawReport, StartError> {
    let desk = Desk {
        names,
        used: RefCell::new(fresh()?),
        fresh,
    };
    let mut laws = vec![
        tried(
            "it-never-fails",
            "no input makes it trap, pass a bound, or name what nobody knows",
            options,
            options.runs,
            words,
            K::KIND,
            |sample| desk.never_fails(sample),
        ),
        tried(
            "it-is-a-pure-function",
            "a fresh instance and a used one agree, and so do a batch and its messages one by one",
            options,
            options.runs,
            words,
            K::KIND,
            |sample| desk.is_pure(sample),
        ),
        tried(
            "it-is-in-time",
            "a batch of 256 is decided within the time of one call",
            options,
            options.runs.div_ceil(20),
            words,
            K::KIND,
            |sample| desk.is_in_time(sample),
        ),
    ];
    laws.extend(rules.iter().map(|rule| {
        tried(
            rule.name,
            rule.says,
            options,
            options.runs,
            words,
            K::KIND,
            |sample| (rule.check)(&desk, sample),
        )
    }));
    laws.extend(options.own.iter().map(|own| {
        tried(
            &own.name,
            "a law of your own",
            options,
            options.runs,
            words,
            K::KIND,
            |sample| desk.keeps_own(own, sample),
        )
    }));
    Ok(LawReport {
        kept: laws.iter().all(|law| law.broken.is_none()),
        seed: options.seed,
        laws,
    })
}

/// Tries a law, and shrinks what breaks it.
fn tried(
    name: &str,
    says: &str,
    options: &LawOptions,
    runs: u32,
    words: &Vocabulary,
    kind: Kind,
    check: impl Fn(&Sample) -> Verdict,
) -> Law {
    let config = Config {
        cases: runs,
        failure_persistence: None,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&options.seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let ran = runner.run(&sample(words, kind), |sample| {
        check(&sample).map_err(TestCaseError::fail)
    });
    let broken = match ran {
        Ok(()) => None,
        Err(TestError::Fail(reason, sample)) => Some(Counterexample {
            what: reason.message().to_owned(),
            now: sample.now,
            message: sample.message,
            state: sample.state,
        }),
        Err(TestError::Abort(reason)) => Some(Counterexample {
            what: format!("it could not be tried: {reason}"),
            now: cases::NOW_MS,
            message: Message::default(),
            state: State::default(),
        }),
    };
    Law {
        name: name.to_owned(),
        says: says.to_owned(),
        tried: runs,
        broken,
    }
}

#[cfg(test)]
mod tests;
