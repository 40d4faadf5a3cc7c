//! Laws that a policy must keep, whatever it is told: tried on thousands of generated messages, and
//! shrunk to the smallest counterexample.
//!
//! Some hold for every kind: it never fails, it is a pure function, it is in time, it leaks nothing.
//! Others are what makes a kind worth having: an emergency is never refused before what is less urgent, more depth
//! never admits more, one age divides the fresh from the stale, retrying ends. Teams add their own, in
//! the form of cases.

mod generate;
mod rules;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, Decide, Kind, NonceSeen};
use oona_wasm::{Artifact, Names, Patient, StartError, Version};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde::Serialize;
use serde_json::{Value, json};

use self::generate::{Sample, Vocabulary, sample};
pub(crate) use self::rules::Lawful;
use self::rules::Rule;
use crate::cases::{self, Case};
use crate::native;
use crate::record::{Decision, Message, Recorded, State, Texts};

/// How many messages a batch has that must be decided in time.
const BATCH: usize = 256;

/// How many batches are decided before its memory is looked at again, and how often it is looked at.
/// What keeps 4 bytes of each message needs another page of 64 KiB by then.
const ROUND: usize = 64;
const ROUNDS: usize = 4;

/// In how many steps a counterexample is made smaller at most.
const SHRINKS_MAX: u32 = 10_000;

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
        Kind::Routing => of_artifact::<policy::Routing>(artifact, config, names, options),
        Kind::Backpressure => of_artifact::<policy::Backpressure>(artifact, config, names, options),
        Kind::Freshness => of_artifact::<policy::Freshness>(artifact, config, names, options),
        Kind::DeadLetter => of_artifact::<policy::DeadLetter>(artifact, config, names, options),
    }
}

fn of_artifact<K: Lawful>(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    options: &LawOptions,
) -> Result<LawReport, StartError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    let words = Vocabulary::of_policy(artifact, config, names);
    all(&version, &words, names, options)
}

/// As [`check`], of what this host was started with, as it is configured.
///
/// # Errors
///
/// As [`check`].
pub(crate) fn of_native<K: Lawful>(
    version: &Arc<Version<K>>,
    names: &Names,
    options: &LawOptions,
) -> Result<LawReport, StartError> {
    let words = Vocabulary::of(native::config_schema(K::KIND), version.config(), names);
    all(version, &words, names, options)
}

/// What a policy decides on generated inputs, and why: each verdict with each reason that occurs.
///
/// # Errors
///
/// If it does not start, or refuses its configuration.
pub fn outcomes(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    options: &LawOptions,
) -> Result<BTreeSet<Outcome>, StartError> {
    match artifact.kind() {
        Kind::Routing => outcomes_of::<policy::Routing>(artifact, config, names, options),
        Kind::Backpressure => outcomes_of::<policy::Backpressure>(artifact, config, names, options),
        Kind::Freshness => outcomes_of::<policy::Freshness>(artifact, config, names, options),
        Kind::DeadLetter => outcomes_of::<policy::DeadLetter>(artifact, config, names, options),
    }
}

/// A verdict, and its reason.
pub type Outcome = (String, String);

fn outcomes_of<K: Recorded>(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    options: &LawOptions,
) -> Result<BTreeSet<Outcome>, StartError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    let fresh = || Ok(Box::new(version.on_trial()?) as Decider<K>);
    let words = Vocabulary::of_policy(artifact, config, names);
    let desk = Desk::new(names, &words, &fresh)?;
    let found = RefCell::new(BTreeSet::new());
    let look = |sample: &Sample| {
        let decision = desk.ask(sample.now, &sample.message, &sample.state)?;
        found
            .borrow_mut()
            .insert((decision.verdict, decision.reason));
        Ok(())
    };
    tried("outcomes", "", options, options.runs, &words, K::KIND, look);
    Ok(found.into_inner())
}

/// What contradicts a law, in a sentence.
type Verdict = Result<(), String>;

/// Something that decides: an instance of a component.
type Decider<K> = Box<dyn Decide<K>>;

/// A policy on the desk.
struct Desk<'a, K: Recorded> {
    names: &'a Names,
    /// One that has been asked before.
    used: RefCell<Patient<Decider<K>>>,
    /// Makes one that has not.
    make: &'a dyn Fn() -> Result<Decider<K>, StartError>,
    /// How old a message may be by its configuration, in ms.
    windows: &'a [u64],
}

impl<'a, K: Recorded> Desk<'a, K> {
    fn new(
        names: &'a Names,
        words: &'a Vocabulary,
        make: &'a dyn Fn() -> Result<Decider<K>, StartError>,
    ) -> Result<Self, StartError> {
        Ok(Self {
            names,
            used: RefCell::new(Patient::new(make()?)),
            make,
            windows: &words.windows,
        })
    }

    /// One that was asked nothing yet.
    fn fresh(&self) -> Result<Patient<Decider<K>>, String> {
        let made = (self.make)().map_err(|error| error.to_string())?;
        Ok(Patient::new(made))
    }

    fn ask(&self, now: u64, message: &Message, state: &State) -> Result<Decision, String> {
        let decided = decide(
            &mut *self.used.borrow_mut(),
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
        let mut fresh = self.fresh()?;
        let messages = [
            sample.message.clone(),
            sample.other.clone(),
            sample.message.clone(),
        ];
        let batch = decide(&mut fresh, self.names, sample.now, &messages, &sample.state)?;
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
            &mut *self.used.borrow_mut(),
            self.names,
            sample.now,
            &messages,
            &sample.state,
        )
        .map(drop)
    }

    /// Once it is warm, more calls need no more memory.
    fn leaks_nothing(&self, sample: &Sample) -> Verdict {
        let mut policy = self.fresh()?;
        if policy.memory_bytes().is_none() {
            return Ok(());
        }
        let pair = [&sample.message, &sample.other];
        let messages: Vec<_> = pair.into_iter().cycle().take(BATCH).cloned().collect();
        let asked = Asked::<K>::new(self.names, sample.now, &messages, &sample.state)?;
        let mut sizes: Vec<usize> = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            for _ in 0..ROUND {
                asked.decide(&mut policy)?;
            }
            let size = policy.memory_bytes().unwrap_or_default() >> 10;
            if sizes.last().is_some_and(|before| size <= *before) {
                return Ok(());
            }
            sizes.push(size);
        }
        Err(format!(
            "its memory grows with every {ROUND} batches of {BATCH}: {sizes:?} KiB"
        ))
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
    let decisions = Asked::<K>::new(names, now, messages, state)?.decide(decider)?;
    let in_words = decisions
        .iter()
        .map(|decision| <K as Recorded>::decision(decision, &names.symbols));
    Ok(in_words.collect())
}

/// What a policy is asked about a batch.
struct Asked<K: Recorded> {
    now: Timestamp,
    state: K::State,
    questions: Vec<K::Question>,
    text: Arc<dyn policy::Lookup>,
}

impl<K: Recorded> Asked<K> {
    fn new(names: &Names, now: u64, messages: &[Message], state: &State) -> Result<Self, String> {
        let now = Timestamp::from_millis(now);
        let mut whole = K::State::default();
        let mut questions = Vec::with_capacity(messages.len());
        for message in messages {
            let asked = K::question(message, state, now, &names.symbols);
            let (bus, question) = asked.map_err(|error| error.to_string())?;
            whole = bus;
            questions.push(question);
        }
        Ok(Self {
            now,
            state: whole,
            questions,
            text: Arc::new(Texts(messages.to_vec())),
        })
    }

    fn decide(&self, decider: &mut dyn Decide<K>) -> Result<Vec<K::Decision>, String> {
        let mut decisions = Vec::with_capacity(self.questions.len());
        decider
            .decide(
                self.now,
                &self.state,
                &self.questions,
                &self.text,
                &mut decisions,
            )
            .map_err(|fault| fault.to_string())?;
        Ok(decisions)
    }
}

fn all<K: Lawful>(
    version: &Arc<Version<K>>,
    words: &Vocabulary,
    names: &Names,
    options: &LawOptions,
) -> Result<LawReport, StartError> {
    let fresh = || Ok(Box::new(version.on_trial()?) as Decider<K>);
    try_all(&fresh, words, names, options, K::rules())
}

fn try_all<K: Recorded>(
    fresh: &dyn Fn() -> Result<Decider<K>, StartError>,
    words: &Vocabulary,
    names: &Names,
    options: &LawOptions,
    rules: &[Rule<K>],
) -> Result<LawReport, StartError> {
    let desk = Desk::new(names, words, fresh)?;
    let found = Cell::new(false);
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
            "a batch of 256 is decided within the time of one call, counting only the time in which its thread runs",
            options,
            options.runs.div_ceil(20),
            words,
            K::KIND,
            |sample| desk.is_in_time(sample),
        ),
        tried(
            "it-leaks-nothing",
            "once it is warm, deciding needs no more memory",
            options,
            options.runs.div_ceil(400),
            words,
            K::KIND,
            // What leaks does so on most messages: the first one will do, for each smaller one takes as
            // long as it did.
            |sample| {
                if found.get() {
                    return Ok(());
                }
                let verdict = desk.leaks_nothing(sample);
                found.set(verdict.is_err());
                verdict
            },
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
        max_shrink_iters: SHRINKS_MAX,
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
