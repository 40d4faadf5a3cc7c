//! Tables of cases: what a policy must decide on which message. Run in the real sandbox, with no bus.

mod coverage;
mod junit;

use std::fmt;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{self, Decide, Kind};
use oona_wasm::{Artifact, Names, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::coverage::{Branch, Coverage, coverage};
pub use self::junit::junit;
use crate::chain::chain;
use crate::record::{Decision, Message, Recorded, State, Texts};

/// When it is in a case that does not say: in ms since the epoch.
pub const NOW_MS: u64 = 1_700_000_000_000;

/// How much a number with a point may differ from what is expected.
const TOLERANCE: f64 = 1e-4;

/// A file of cases, and of laws in the same form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The kind of policy that they are about.
    pub kind: Kind,
    /// The configuration of all that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// What must be decided.
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
    /// What must be decided whatever is not said: fields that are left out take any value.
    #[serde(default, rename = "law")]
    pub laws: Vec<Case>,
}

/// One case, or one law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// When it is, in ms since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<u64>,
    /// The configuration of this case alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// The message, as fields of [`Message`].
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub message: Map<String, Value>,
    /// What else the policy is told, as fields of [`State`].
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub state: Map<String, Value>,
    /// What it must answer, as fields of [`Decision`]; or `refused`, a part of the words with which it
    /// refuses its configuration.
    pub expect: Map<String, Value>,
}

/// A file that holds no cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{place}: {problem}")]
pub struct CasesError {
    /// Which file.
    pub file: String,
    /// `:12`, if a line is to blame.
    place: String,
    /// What is wrong.
    pub problem: String,
}

/// How a policy did at its cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How many passed.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// Each.
    pub cases: Vec<CaseReport>,
}

/// How a policy did at one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was decided, in words.
    pub decided: Option<String>,
    /// The same, field by field; nothing if the configuration was refused.
    pub decision: Option<Decision>,
    /// Where that is not what was expected.
    pub differences: Vec<Difference>,
    /// Why nothing was decided.
    pub error: Option<String>,
}

/// A field that is not as expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Which.
    pub field: String,
    /// What was expected.
    pub expected: Value,
    /// What was decided.
    pub got: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            expected,
            got,
        } = self;
        write!(f, "{field}: expected {expected}, got {got}")
    }
}

impl Cases {
    /// Reads a file of cases: JSON or YAML if its name ends in `.json`, `.yaml` or `.yml`, else TOML.
    ///
    /// # Errors
    ///
    /// If it is none, has an unknown key, a message or state that is none, or nothing to expect.
    pub fn parse(file: &str, text: &str) -> Result<Self, CasesError> {
        let at = |line: Option<usize>, problem: String| CasesError {
            file: file.to_owned(),
            place: line.map_or_else(String::new, |line| format!(":{line}")),
            problem,
        };
        let cases: Self = if file.ends_with(".json") {
            serde_json::from_str(text).map_err(|error| at(Some(error.line()), error.to_string()))?
        } else if file.ends_with(".yaml") || file.ends_with(".yml") {
            serde_saphyr::from_str(text).map_err(|error| {
                let line = error
                    .location()
                    .and_then(|at| usize::try_from(at.line()).ok());
                at(line, error.without_snippet().to_string())
            })?
        } else {
            toml::from_str(text).map_err(|error| {
                let line = error
                    .span()
                    .map(|span| text[..span.start].matches('\n').count() + 1);
                at(line, error.message().to_owned())
            })?
        };
        let mut names = std::collections::BTreeSet::new();
        for case in cases.cases.iter().chain(&cases.laws) {
            let wrong = |problem: String| at(None, format!("`{}`: {problem}", case.name));
            if !names.insert(&case.name) {
                return Err(wrong("there is another one of this name".to_owned()));
            }
            if case.expect.is_empty() {
                return Err(wrong("it expects nothing".to_owned()));
            }
            case.said().map_err(wrong)?;
            expectation(&case.expect).map_err(wrong)?;
        }
        if cases.cases.is_empty() && cases.laws.is_empty() {
            return Err(at(
                None,
                "it holds neither a [[case]] nor a [[law]]".to_owned(),
            ));
        }
        Ok(cases)
    }

    /// The table that travels with a component, if there is one.
    ///
    /// # Errors
    ///
    /// If it is none, or about another kind of policy.
    pub fn of(artifact: &Artifact) -> Result<Option<Self>, CasesError> {
        let Some(text) = &artifact.metadata().cases else {
            return Ok(None);
        };
        let file = "its cases.json";
        let cases = Self::parse(file, text)?;
        if cases.kind == artifact.kind() {
            return Ok(Some(cases));
        }
        Err(CasesError {
            file: file.to_owned(),
            place: String::new(),
            problem: format!("it is about a {} policy", cases.kind),
        })
    }

    /// The configuration of a case: its own, or that of the file, or nothing.
    fn config_of(&self, case: &Case) -> Value {
        let config = case.config.as_ref().or(self.config.as_ref());
        config.cloned().unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// Asks the policy about every case.
    #[must_use]
    pub fn run(&self, artifact: &Artifact, names: &Names) -> Report {
        let reports = self.cases.iter().map(|case| {
            let config = self.config_of(case).to_string();
            case.run(artifact, &config, names)
        });
        let cases: Vec<_> = reports.collect();
        let passed = cases.iter().filter(|report| report.passed).count();
        Report {
            passed,
            failed: cases.len() - passed,
            cases,
        }
    }
}

impl Case {
    /// The message and the state that it says.
    ///
    /// # Errors
    ///
    /// If they are none.
    pub fn said(&self) -> Result<(Message, State), String> {
        let message = serde_json::from_value(Value::Object(self.message.clone()));
        let message = message.map_err(|error| format!("its message: {error}"))?;
        let state = serde_json::from_value(Value::Object(self.state.clone()));
        Ok((
            message,
            state.map_err(|error| format!("its state: {error}"))?,
        ))
    }

    /// Where a decision is not what is expected.
    #[must_use]
    pub fn differences(&self, decision: &Decision) -> Vec<Difference> {
        let decided = serde_json::to_value(decision).unwrap_or_default();
        let expected = self
            .expect
            .iter()
            .filter(|(field, expected)| !alike(expected, &decided[field.as_str()]));
        let different = expected.map(|(field, expected)| Difference {
            field: field.clone(),
            expected: expected.clone(),
            got: decided[field.as_str()].clone(),
        });
        different.collect()
    }

    fn run(&self, artifact: &Artifact, config: &str, names: &Names) -> CaseReport {
        let decided = match artifact.kind() {
            Kind::Routing => self.ask::<policy::Routing>(artifact, config, names),
            Kind::Backpressure => self.ask::<policy::Backpressure>(artifact, config, names),
            Kind::Freshness => self.ask::<policy::Freshness>(artifact, config, names),
            Kind::DeadLetter => self.ask::<policy::DeadLetter>(artifact, config, names),
        };
        let refused = self.expect.get("refused").and_then(Value::as_str);
        let decision = decided.as_ref().ok().cloned();
        let (decided, differences, error) = match (decided, refused) {
            (Ok(decision), None) => (
                Some(decision.to_string()),
                self.differences(&decision),
                None,
            ),
            (Ok(decision), Some(_)) => {
                let error = "its configuration was to be refused, and is not".to_owned();
                (Some(decision.to_string()), Vec::new(), Some(error))
            }
            (Err(error), Some(words)) if error.contains(words) => (Some(error), Vec::new(), None),
            (Err(error), _) => (None, Vec::new(), Some(error)),
        };
        CaseReport {
            name: self.name.clone(),
            passed: differences.is_empty() && error.is_none(),
            decided,
            decision,
            differences,
            error,
        }
    }

    fn ask<K: Recorded>(
        &self,
        artifact: &Artifact,
        config: &str,
        names: &Names,
    ) -> Result<Decision, String> {
        let (message, state) = self.said()?;
        let now = Timestamp::from_millis(self.now.unwrap_or(NOW_MS));
        let words = |error: &dyn std::error::Error| chain(error);
        let checked = serde_json::from_str(config).map_err(|error| words(&error))?;
        crate::policies::check_against(artifact, &checked).map_err(|error| words(&error))?;
        let version =
            Version::<K>::new(artifact, config, names.clone()).map_err(|error| words(&error))?;
        let mut instance = version.on_trial().map_err(|error| words(&error))?;
        let (whole, question) =
            K::question(&message, &state, now, &names.symbols).map_err(|error| words(&error))?;
        let mut decisions = Vec::with_capacity(1);
        let text = Texts::one(&message);
        let asked = instance.decide(now, &whole, &[question], &text, &mut decisions);
        asked.map_err(|error| words(&error))?;
        Ok(<K as Recorded>::decision(&decisions[0], &names.symbols))
    }
}

/// Whether what is expected can be: known fields, of the right type.
fn expectation(expect: &Map<String, Value>) -> Result<(), String> {
    if expect.contains_key("refused") {
        return match (expect.len(), &expect["refused"]) {
            (1, Value::String(_)) => Ok(()),
            _ => Err("`refused` is a text, and nothing else can be expected with it".to_owned()),
        };
    }
    let mut whole = serde_json::json!({ "verdict": "", "reason": "" });
    if let Some(whole) = whole.as_object_mut() {
        whole.extend(expect.clone());
    }
    let read = serde_json::from_value::<Decision>(whole);
    read.map(drop)
        .map_err(|error| format!("its expectation: {error}"))
}

fn alike(expected: &Value, got: &Value) -> bool {
    match (expected.as_f64(), got.as_f64()) {
        (Some(expected), Some(got)) => (expected - got).abs() <= TOLERANCE,
        _ => expected == got,
    }
}

/// The names of a desk without a bus: the streams of every bus by default, and those that are said.
#[must_use]
pub fn names(streams: &[String]) -> Names {
    let symbols = oona_wasm::SymbolTable::default();
    let said = streams.iter().map(|stream| symbols.intern(stream));
    let streams = Arc::new(said.collect());
    with_usual_streams(&Names { symbols, streams })
}

/// The same names, and the streams of every bus by default: those that cases speak of.
#[must_use]
pub fn with_usual_streams(names: &Names) -> Names {
    let symbols = names.symbols.clone();
    let usual = crate::bus::Streams::default();
    let usual = usual.destinations().map(|stream| symbols.intern(stream));
    let streams = names.streams.iter().copied().chain(usual);
    Names {
        streams: Arc::new(streams.collect()),
        symbols: symbols.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_place() {
        let check = |file: &str, text: &str, expected: &str| {
            let error = Cases::parse(file, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "a.toml",
            "kind = 'router'",
            "a.toml:1: unknown variant `router`",
        );
        check(
            "a.toml",
            "kind = 'routing'",
            "neither a [[case]] nor a [[law]]",
        );
        check(
            "a.toml",
            "kind = 'routing'\n[[case]]\nnam = 'x'",
            "a.toml:3: unknown field `nam`, expected one of `name`",
        );
        let case = |more: &str| format!("kind = 'routing'\n[[case]]\nname = 'x'\n{more}");
        check("a.toml", &case("expect = {}"), "`x`: it expects nothing");
        check(
            "a.toml",
            &case("expect = { verdict = 'route', steam = 'a' }"),
            "unknown field `steam`",
        );
        check(
            "a.toml",
            &case("expect = { verdict = 1 }"),
            "its expectation: invalid type",
        );
        check(
            "a.toml",
            &case("expect = { verdict = 'route' }\nmessage = { kind = 1 }"),
            "its message: unknown field `kind`",
        );
        check(
            "a.toml",
            &case("expect = { verdict = 'route' }\nstate = { dept = 1 }"),
            "its state: unknown field `dept`",
        );
        check(
            "a.toml",
            &case("expect = { refused = 'a', verdict = 'route' }"),
            "nothing else can be expected",
        );
        let twice = case(
            "expect = { verdict = 'route' }\n[[case]]\nname = 'x'\nexpect = { verdict = 'route' }",
        );
        check("a.toml", &twice, "another one of this name");
        check("a.json", "{\n\"kind\": 1}", "a.json:2: ");
        check("a.yaml", "kind: routing\ncase:\n  - nam: x", "a.yaml:3: ");
    }

    #[test]
    fn all_forms_say_the_same() {
        let toml = "kind = 'freshness'\n[[case]]\nname = 'a'\nmessage = { age_ms = 5 }\nexpect = { verdict = 'fresh' }";
        let json = r#"{"kind": "freshness", "case": [{"name": "a", "message": {"age_ms": 5}, "expect": {"verdict": "fresh"}}]}"#;
        let yaml = "kind: freshness\ncase:\n  - name: a\n    message: { age_ms: 5 }\n    expect: { verdict: fresh }\n";
        assert_eq!(Cases::parse("a.toml", toml), Cases::parse("a.json", json));
        assert_eq!(Cases::parse("a.toml", toml), Cases::parse("a.yaml", yaml));
    }
}
