//! What a table of cases reaches of a policy: its reasons, and what can be set.
//!
//! Which reasons there are is found out by asking: the policy is tried on generated inputs, with every
//! configuration of the table. What can be set, its schema tells.

use std::collections::{BTreeMap, BTreeSet};

use oona_wasm::{Artifact, Names};
use serde::Serialize;
use serde_json::Value;

use super::{Cases, Report};
use crate::laws::{self, LawOptions};

/// On how many generated inputs a policy is tried with each configuration.
const RUNS: u32 = 500;

/// What a table reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Each verdict with each reason: `route (priority)`.
    pub reasons: Vec<Branch>,
    /// Each key of the configuration, at its default and set; each value of those that have a list.
    pub configuration: Vec<Branch>,
}

/// Something that a case can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// What.
    pub what: String,
    /// How many cases reach it.
    pub cases: usize,
}

impl Coverage {
    /// What no case reaches.
    pub fn missed(&self) -> impl Iterator<Item = &Branch> {
        let all = self.reasons.iter().chain(&self.configuration);
        all.filter(|branch| branch.cases == 0)
    }
}

/// Tells what a table reaches of a policy. `report` is how the policy did at it.
#[must_use]
pub fn coverage(cases: &Cases, report: &Report, artifact: &Artifact, names: &Names) -> Coverage {
    let schema = serde_json::from_str(artifact.config_schema()).unwrap_or_default();
    let mut keys = Vec::new();
    leaves(&schema, &mut Vec::new(), &mut keys);
    let mut configuration: BTreeMap<String, usize> = keys
        .iter()
        .flat_map(Key::branches)
        .map(|branch| (branch, 0))
        .collect();
    let mut reasons: BTreeMap<laws::Outcome, usize> = BTreeMap::new();
    let mut configurations = BTreeSet::from(["{}".to_owned()]);
    for (case, told) in cases.cases.iter().zip(&report.cases) {
        // A configuration that is refused reaches nothing.
        let Some(decision) = &told.decision else {
            continue;
        };
        let outcome = (decision.verdict.clone(), decision.reason.clone());
        *reasons.entry(outcome).or_default() += 1;
        let config = cases.config_of(case);
        for key in &keys {
            *configuration.entry(key.branch(&config)).or_default() += 1;
        }
        configurations.insert(config.to_string());
    }
    for config in configurations {
        // One that is refused by the policy itself has no reasons.
        let options = LawOptions {
            runs: RUNS,
            ..LawOptions::default()
        };
        let found = laws::outcomes(artifact, &config, names, &options);
        for outcome in found.unwrap_or_default() {
            reasons.entry(outcome).or_default();
        }
    }
    let reasons = reasons
        .into_iter()
        .map(|((verdict, reason), cases)| Branch {
            what: format!("{verdict} ({reason})"),
            cases,
        });
    let configuration = configuration
        .into_iter()
        .map(|(what, cases)| Branch { what, cases });
    Coverage {
        reasons: reasons.collect(),
        configuration: configuration.collect(),
    }
}

/// A key of a configuration.
struct Key {
    path: Vec<String>,
    default: Option<Value>,
    /// All that it can be, if that is a list.
    values: Option<Vec<Value>>,
}

impl Key {
    fn name(&self) -> String {
        self.path.join(".")
    }

    fn branches(&self) -> Vec<String> {
        let name = self.name();
        match &self.values {
            Some(values) => values
                .iter()
                .map(|value| format!("{name} = {value}"))
                .collect(),
            None => vec![format!("{name} left out"), format!("{name} set")],
        }
    }

    /// Which of its branches a configuration takes.
    fn branch(&self, config: &Value) -> String {
        let name = self.name();
        let given = self
            .path
            .iter()
            .try_fold(config, |value, part| value.get(part));
        let value = given.or(self.default.as_ref());
        match (&self.values, value) {
            (Some(_), Some(value)) => format!("{name} = {value}"),
            (Some(_), None) => format!("{name} left out"),
            (None, _) if given.is_none() || given == self.default.as_ref() => {
                format!("{name} left out")
            }
            (None, _) => format!("{name} set"),
        }
    }
}

/// The keys of a schema that hold values, with those of the objects in it.
fn leaves(schema: &Value, path: &mut Vec<String>, keys: &mut Vec<Key>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        if property["properties"].is_object() {
            leaves(property, path, keys);
        } else {
            let boolean = property["type"] == "boolean";
            let either = boolean.then(|| vec![Value::Bool(false), Value::Bool(true)]);
            keys.push(Key {
                path: path.clone(),
                default: property.get("default").cloned(),
                values: property["enum"].as_array().cloned().or(either),
            });
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_has_a_branch_for_each_thing_that_it_can_be() {
        let schema = json!({"properties": {
            "age": {"type": "integer", "default": 5},
            "once": {"type": "boolean", "default": true},
            "mode": {"enum": ["a", "b"], "default": "a"},
            "share": {"properties": {"low": {"type": "number"}}},
        }});
        let mut keys = Vec::new();
        leaves(&schema, &mut Vec::new(), &mut keys);
        let all: Vec<_> = keys.iter().flat_map(Key::branches).collect();
        let expected = [
            "age left out",
            "age set",
            "mode = \"a\"",
            "mode = \"b\"",
            "once = false",
            "once = true",
            "share.low left out",
            "share.low set",
        ];
        assert_eq!(all, expected);
        let taken =
            |config: Value| -> Vec<_> { keys.iter().map(|key| key.branch(&config)).collect() };
        let left_out = [
            "age left out",
            "mode = \"a\"",
            "once = true",
            "share.low left out",
        ];
        assert_eq!(taken(json!({})), left_out);
        assert_eq!(taken(json!({"age": 5})), left_out);
        let set = json!({"age": 6, "mode": "b", "once": false, "share": {"low": 0.5}});
        assert_eq!(
            taken(set),
            ["age set", "mode = \"b\"", "once = false", "share.low set"]
        );
    }
}
