//! What a candidate must pass before it is in use anywhere.
//!
//! In this order, and each is told of whatever the others said: is it a policy, is it vouched for,
//! does its configuration fit its schema, does it start, does it keep the laws of its kind, do the
//! cases pass that travel with it, and what would it have said to the last real messages. The first
//! four cannot be forced: a host would refuse what does not pass them. The others can, by name, since
//! a law or a case may be what the change is meant to change.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use oona_core::policy::Kind;
use oona_core::registry::Signature;
use oona_wasm::Artifact;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cases::{self, Case, Cases};
use crate::chain::chain;
use crate::laws::{self, LawOptions, LawReport};
use crate::policies::{ActivateError, Policies};
use crate::replay::{self, Replayed};
use crate::signature::{SignatureFile, TrustedKeys, hex};

/// On how many of the last decisions a candidate is tried.
pub const TRIAL_DECISIONS: usize = 1_000;

/// On how many generated inputs each law is tried.
pub const LAW_RUNS: u32 = 100;

/// Why a policy without a signature is refused, and what to do.
const UNSIGNED: &str = "the policy is not signed and policies.allow_unsigned is false; \
     sign it and name the key in policies.trusted_keys, or use `oona serve --dev`";

/// What a candidate must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// It is a policy: its world, and no import beyond it.
    Component,
    /// A key that this host trusts has signed it.
    Signature,
    /// Its configuration fits the schema that it declares.
    Config,
    /// It starts, takes its configuration, and answers plain questions.
    Start,
    /// It keeps the laws of its kind.
    Laws,
    /// The cases that travel with it pass.
    Cases,
    /// It does not fail on what the bus has decided on last.
    Trial,
}

impl Gate {
    /// All gates, in their order.
    pub const ALL: [Self; 7] = [
        Self::Component,
        Self::Signature,
        Self::Config,
        Self::Start,
        Self::Laws,
        Self::Cases,
        Self::Trial,
    ];

    /// The name, in commands and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Signature => "signature",
            Self::Config => "config",
            Self::Start => "start",
            Self::Laws => "laws",
            Self::Cases => "cases",
            Self::Trial => "trial",
        }
    }

    /// Whether an operator may let a candidate through that does not pass.
    #[must_use]
    pub const fn can_be_forced(self) -> bool {
        matches!(self, Self::Laws | Self::Cases | Self::Trial)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|gate| gate.name() == name);
        let gate = known.filter(|gate| gate.can_be_forced());
        gate.ok_or_else(|| {
            let forcible: Vec<_> = Self::ALL
                .into_iter()
                .filter(|gate| gate.can_be_forced())
                .map(Self::name)
                .collect();
            format!(
                "`{name}` cannot be forced; what can: {}",
                forcible.join(", ")
            )
        })
    }
}

/// How a candidate did at a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It passed.
    Passed,
    /// It did not, and is not activated.
    Failed,
    /// It did not, and was let through by name.
    Forced,
    /// There was nothing to hold it against, or an earlier gate had failed.
    Skipped,
}

impl Status {
    /// The name, in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Forced => "forced",
            Self::Skipped => "skipped",
        }
    }
}

/// What is told of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GateReport {
    /// Which.
    pub gate: Gate,
    /// How the candidate did.
    pub status: Status,
    /// What was found, in a sentence.
    pub detail: String,
    /// How long it took, in µs.
    pub took_us: u64,
}

/// What is to be activated.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The component.
    pub component: &'a [u8],
    /// The kind that it must be of; whichever it is without one.
    pub kind: Option<Kind>,
    /// Its signatures.
    pub signatures: &'a [Signature],
    /// Its configuration, a JSON object; that of the policy in use without one.
    pub config: Option<&'a str>,
}

/// Whom a host believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Keys whose signatures count.
    pub keys: TrustedKeys,
    /// Whether a policy without a signature may be used.
    pub allow_unsigned: bool,
}

impl Trust {
    /// Whether an artifact is vouched for; in words, either way.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn check(&self, digest: &str, signatures: &[Signature]) -> Result<String, String> {
        if let Some(key) = self.keys.verify(digest, signatures) {
            return Ok(format!("signed by {}", key.name()));
        }
        if self.allow_unsigned && self.keys.is_empty() {
            return Ok("not signed; this host allows that".to_owned());
        }
        Err(match (self.keys.is_empty(), signatures.is_empty()) {
            (true, _) => UNSIGNED.to_owned(),
            (false, true) => "the policy is not signed: use `oona policy sign`".to_owned(),
            (false, false) => {
                "none of its signatures is by a key of policies.trusted_keys".to_owned()
            }
        })
    }
}

impl Trust {
    /// Whether a component in a file is vouched for, by the signatures that stand beside it.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn check_file(&self, file: &Path, component: &[u8]) -> Result<String, String> {
        let beside = SignatureFile::read(file).map_err(|error| chain(&error))?;
        let signatures = beside.map(|beside| beside.signatures).unwrap_or_default();
        self.check(&hex(&Sha256::digest(component)), &signatures)
    }
}

/// What came of all gates.
#[derive(Debug)]
pub struct Passage {
    /// Each gate.
    pub gates: Vec<GateReport>,
    /// The candidate, if it is a policy.
    pub artifact: Option<Artifact>,
    /// The configuration that it was held against.
    pub config: String,
    /// Why it is not activated, as the first gate that it failed says it.
    pub refusal: Option<Refusal>,
}

/// Why a candidate is not activated.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not vouched for.
    #[error("{0}")]
    Unsigned(String),
    /// It is no policy, its configuration does not fit, or it does not start.
    #[error(transparent)]
    Policy(#[from] ActivateError),
    /// It failed a gate that can be forced.
    #[error("it did not pass the gate `{gate}`: {detail}; --force {gate} lets it through")]
    Gate {
        /// Which.
        gate: Gate,
        /// Why.
        detail: String,
    },
}

/// Holds a candidate against every gate. Compiles, starts and asks it: not for a thread that must not
/// wait.
#[must_use]
pub fn pass(
    policies: &Policies,
    trust: &Trust,
    candidate: Candidate<'_>,
    forced: &[Gate],
) -> Passage {
    let mut course = Course {
        forced,
        gates: Vec::with_capacity(Gate::ALL.len()),
        refusal: None,
    };
    let loaded = course.run(Gate::Component, || {
        let artifact = policies.load(candidate.kind, candidate.component)?;
        let told = format!(
            "a {} policy, {} {}",
            artifact.kind(),
            artifact.name(),
            artifact.version()
        );
        Ok((artifact, told))
    });
    let config = |artifact: &Artifact| match candidate.config {
        Some(config) => config.to_owned(),
        None => policies.config(artifact.kind()).to_string(),
    };
    let config = loaded.as_ref().map_or_else(String::new, config);
    if let Some(artifact) = &loaded {
        course.run(Gate::Signature, || {
            let told = trust.check(artifact.digest(), candidate.signatures);
            told.map(|told| ((), told)).map_err(Refusal::Unsigned)
        });
        configured(&mut course, policies, artifact, &config);
    }
    course.skip_the_rest();
    Passage {
        gates: course.gates,
        artifact: loaded,
        config,
        refusal: course.refusal,
    }
}

/// As [`pass`], for what this host was started with, in another configuration. It decides here already:
/// so it is a policy, and vouched for.
#[must_use]
pub fn pass_own(policies: &Policies, kind: Kind, config: &str, forced: &[Gate]) -> Passage {
    let mut course = Course {
        forced,
        gates: Vec::with_capacity(Gate::ALL.len()),
        refusal: None,
    };
    let own = policies.own(kind);
    course.run(Gate::Component, || {
        Ok((
            (),
            format!("the {kind} policy that this host was started with"),
        ))
    });
    course.skip(Gate::Signature, "it decides on this host already");
    if let Some(artifact) = &own {
        configured(&mut course, policies, artifact, config);
    } else {
        course.run(Gate::Config, || {
            policies.check_own_config(kind, config)?;
            Ok(((), "it fits the schema".to_owned()))
        });
        course.run(Gate::Start, || {
            policies.check_own_config(kind, config)?;
            Ok(((), "it takes it, and answers".to_owned()))
        });
        course.run(Gate::Laws, || {
            let options = law_options(Vec::new());
            judge(policies.check_own_laws(kind, config, &options)?)
        });
        course.skip(Gate::Cases, "none travel with the built-in policy");
        course.run(Gate::Trial, || {
            let records = policies.decisions().last(kind, TRIAL_DECISIONS);
            if records.is_empty() {
                return Ok(((), String::new()));
            }
            conclude(policies.replay_own(kind, config, &records)?)
        });
    }
    course.skip_the_rest();
    Passage {
        gates: course.gates,
        artifact: own,
        config: config.to_owned(),
        refusal: course.refusal,
    }
}

/// The gates of a policy that is loaded and vouched for.
fn configured(course: &mut Course<'_>, policies: &Policies, artifact: &Artifact, config: &str) {
    course.run(Gate::Config, || {
        policies.check_config(artifact, config)?;
        Ok(((), "it fits the schema".to_owned()))
    });
    course.run(Gate::Start, || {
        policies.try_out(artifact, config)?;
        Ok(((), "it starts and answers".to_owned()))
    });
    course.run(Gate::Laws, || laws(policies, artifact, config));
    course.run(Gate::Cases, || table(policies, artifact));
    course.run(Gate::Trial, || trial(policies, artifact, config));
}

/// The gates so far.
struct Course<'a> {
    forced: &'a [Gate],
    gates: Vec<GateReport>,
    refusal: Option<Refusal>,
}

/// What a gate found, and in words.
type Found<T> = Result<(T, String), Refusal>;

impl Course<'_> {
    /// Runs a gate, unless the candidate has failed before.
    fn run<T>(&mut self, gate: Gate, check: impl FnOnce() -> Found<T>) -> Option<T> {
        if self.refusal.is_some() {
            return None;
        }
        let begun = Instant::now();
        let (found, status, detail) = match check() {
            Ok((found, told)) if told.is_empty() => (
                Some(found),
                Status::Skipped,
                "there is nothing to hold it against".to_owned(),
            ),
            Ok((found, told)) => (Some(found), Status::Passed, told),
            Err(refusal) => {
                let detail = match &refusal {
                    Refusal::Gate { detail, .. } => detail.clone(),
                    other => chain(other),
                };
                let forced = gate.can_be_forced() && self.forced.contains(&gate);
                if !forced {
                    self.refusal = Some(refusal);
                }
                (
                    None,
                    if forced {
                        Status::Forced
                    } else {
                        Status::Failed
                    },
                    detail,
                )
            }
        };
        self.gates.push(GateReport {
            gate,
            status,
            detail,
            took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
        found
    }

    /// Has nothing to ask at a gate.
    fn skip(&mut self, gate: Gate, why: &str) {
        if self.refusal.is_none() {
            self.gates.push(GateReport {
                gate,
                status: Status::Skipped,
                detail: why.to_owned(),
                took_us: 0,
            });
        }
    }

    fn skip_the_rest(&mut self) {
        let told: Vec<_> = self.gates.iter().map(|report| report.gate).collect();
        let rest = Gate::ALL.into_iter().filter(|gate| !told.contains(gate));
        self.gates.extend(rest.map(|gate| GateReport {
            gate,
            status: Status::Skipped,
            detail: "an earlier gate was not passed".to_owned(),
            took_us: 0,
        }));
    }
}

/// Tries the laws of its kind and its own, on fewer inputs than its author should have.
fn laws(policies: &Policies, artifact: &Artifact, config: &str) -> Found<()> {
    let own = Cases::of(artifact).ok().flatten();
    let options = law_options(own.map_or_else(Vec::new, |cases| cases.laws));
    let report = laws::check(artifact, config, policies.names(), &options);
    judge(report.map_err(ActivateError::from)?)
}

fn law_options(own: Vec<Case>) -> LawOptions {
    LawOptions {
        runs: LAW_RUNS,
        own,
        ..LawOptions::default()
    }
}

/// Whether a candidate may go on after its laws were tried.
fn judge(report: LawReport) -> Found<()> {
    let count = report.laws.len();
    let mut laws = report.laws.into_iter();
    match laws.find_map(|law| Some((law.broken?, law.name, law.says))) {
        Some((broken, name, says)) => Err(Refusal::Gate {
            gate: Gate::Laws,
            detail: format!("it breaks `{name}` ({says}): {}", broken.what),
        }),
        None => Ok((
            (),
            format!("it keeps {count} laws on {LAW_RUNS} inputs each"),
        )),
    }
}

/// Asks the candidate about the cases that travel with it.
fn table(policies: &Policies, artifact: &Artifact) -> Found<()> {
    let failed = |detail: String| Refusal::Gate {
        gate: Gate::Cases,
        detail,
    };
    let cases = Cases::of(artifact).map_err(|error| failed(error.to_string()))?;
    let Some(cases) = cases.filter(|cases| !cases.cases.is_empty()) else {
        return Ok(((), String::new()));
    };
    let report = cases.run(artifact, &cases::with_usual_streams(policies.names()));
    let count = report.cases.len();
    match report.cases.into_iter().find(|case| !case.passed) {
        Some(case) => {
            let mut differences = case.differences.iter().map(ToString::to_string);
            let why = case
                .error
                .or_else(|| differences.next())
                .unwrap_or_default();
            let others = report.failed - 1;
            let others = if others == 0 {
                String::new()
            } else {
                format!(", and {others} more")
            };
            Err(failed(format!("`{}` fails: {why}{others}", case.name)))
        }
        None => Ok(((), format!("it passes its {count} cases"))),
    }
}

/// Tries the candidate on the last real decisions.
fn trial(policies: &Policies, artifact: &Artifact, config: &str) -> Found<()> {
    let records = policies.decisions().last(artifact.kind(), TRIAL_DECISIONS);
    if records.is_empty() {
        return Ok(((), String::new()));
    }
    let replayed = replay::replay(artifact, config, policies.names(), &records, &|_| {});
    conclude(replayed.map_err(|error| Refusal::Policy(error.into()))?)
}

/// Whether a candidate may go on after it was asked about the last decisions.
fn conclude(replayed: Replayed) -> Found<()> {
    let Replayed {
        decisions,
        changed,
        faults,
        fault,
        ..
    } = replayed;
    match fault {
        Some(fault) => Err(Refusal::Gate {
            gate: Gate::Trial,
            detail: format!("it fails on {faults} of the last {decisions} decisions: {fault}"),
        }),
        None => Ok((
            (),
            format!("of the last {decisions} decisions, {changed} would be different"),
        )),
    }
}
