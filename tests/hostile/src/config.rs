//! How it is told to misbehave.

use serde::{Deserialize, Serialize};

/// A JSON Schema of [`Config`].
pub const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

/// The configuration of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How it misbehaves.
    pub mode: Mode,
    /// When.
    pub at: When,
    /// How many calls of `decide` it answers properly before.
    pub after: u32,
    /// Where it routes to when it behaves.
    pub stream: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Good,
            at: When::Decide,
            after: 0,
            stream: "oona.normal".into(),
        }
    }
}

/// When a policy misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// While it decides.
    Decide,
    /// While it is configured.
    Configure,
}

/// How a policy misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Not at all.
    Good,
    /// It never returns.
    Loop,
    /// It allocates for as long as it is given memory.
    Memory,
    /// It keeps 64 KiB of each call, and answers properly for as long as there is memory.
    Grow,
    /// It calls itself without end.
    Recursion,
    /// It traps.
    Trap,
    /// It answers a million decisions; while it is configured, an error of 8 MiB.
    HugeAnswer,
    /// It answers one decision less than it was asked for.
    TooFew,
    /// It answers one decision more than it was asked for.
    TooMany,
    /// It routes to a stream that is no symbol.
    UnknownStream,
    /// It routes to no stream.
    NoStream,
    /// It gives a reason that is no symbol.
    UnknownReason,
    /// It gives no reason.
    NoReason,
    /// It interns names: one while it decides, which it must not; a million while it is configured.
    Intern,
    /// It reads a message that is not in its batch.
    ForeignMessage,
    /// It refuses its configuration; while it decides, it rejects every message.
    Refuse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_lists_what_the_configuration_takes() {
        let schema: serde_json::Value = serde_json::from_str(CONFIG_SCHEMA).unwrap();
        let default = serde_json::to_value(Config::default()).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), default.as_object().unwrap().len());
        for (name, property) in properties {
            assert_eq!(property["default"], default[name], "{name}");
            for word in property["enum"].as_array().into_iter().flatten() {
                let config = serde_json::json!({name: word});
                let config: Config = serde_json::from_value(config).unwrap();
                assert_eq!(serde_json::to_value(config).unwrap()[name], *word);
            }
        }
        assert!(serde_json::from_str::<Config>(r#"{"mood": "good"}"#).is_err());
    }
}
