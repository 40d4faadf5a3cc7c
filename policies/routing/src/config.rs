//! What can be set; `config.schema.json` says what it means.

use oona_policy_sdk::Priority;
use oona_policy_sdk::config::{MessageType, PriorityName};
use serde::{Deserialize, Serialize};

/// The configuration of this policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// From which priority on a message travels on the emergency stream.
    pub emergency_from: PriorityName,
    /// Exceptions, in their order.
    pub rules: Vec<Rule>,
    /// The streams.
    pub streams: Streams,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            emergency_from: PriorityName(Priority::High),
            rules: Vec::new(),
            streams: Streams::default(),
        }
    }
}

/// The streams. Those that are not set share the normal one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// What has no stream of its own.
    pub normal: String,
    /// What cannot wait.
    pub emergency: String,
    /// Telemetry packets.
    pub telemetry: Option<String>,
    /// Updates of the training system's policy.
    pub policy: Option<String>,
    /// Kernels that are asked for.
    pub kernels_requests: Option<String>,
    /// Kernels that are there, and updates of their catalog.
    pub kernels_ready: Option<String>,
    /// Kernels that could not be had.
    pub kernels_errors: Option<String>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            normal: "oona.normal".into(),
            emergency: "oona.emergency".into(),
            telemetry: Some("oona.telemetry".into()),
            policy: Some("oona.policy".into()),
            kernels_requests: Some("oona.kernels.requests".into()),
            kernels_ready: Some("oona.kernels.ready".into()),
            kernels_errors: Some("oona.kernels.errors".into()),
        }
    }
}

/// An exception. Applies to a message that meets all of its conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, for people and counters: the reason is `rule:NAME`.
    pub name: String,
    /// Only messages of this type.
    #[serde(default)]
    pub message_type: Option<MessageType>,
    /// Only messages of this source.
    #[serde(default)]
    pub source: Option<String>,
    /// Only messages with this attribute.
    #[serde(default)]
    pub attribute: Option<Attribute>,
    /// Only messages of this priority or over.
    #[serde(default)]
    pub priority_from: Option<PriorityName>,
    /// Where they go; without one they are refused.
    #[serde(default)]
    pub stream: Option<String>,
}

/// An attribute with a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// Its key.
    pub name: String,
    /// Its value.
    pub value: String,
}
