//! What can be set; `config.schema.json` says what it means.

use std::collections::BTreeMap;

use oona_policy_sdk::config::MessageType;
use serde::{Deserialize, Serialize};

/// The configuration of this policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How far clocks may differ, in ms.
    pub clock_skew_ms: u64,
    /// What holds for some types. All others have neither window nor nonce.
    pub types: BTreeMap<MessageType, TypeRule>,
    /// The window of types that do not have their own, in ms.
    pub window_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        let kernels = (6..=9).map(|number| (MessageType(number), TypeRule::default()));
        Self {
            clock_skew_ms: 5_000,
            types: kernels.collect(),
            window_ms: 120_000,
        }
    }
}

/// What holds for one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TypeRule {
    /// What becomes of a message that does not say when it was issued.
    pub missing_time: MissingTime,
    /// Whether a second entry with the same nonce is a replay.
    pub nonce: bool,
    /// How old a message may be, in ms; `window_ms` of the configuration if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
}

impl Default for TypeRule {
    fn default() -> Self {
        Self {
            missing_time: MissingTime::Accept,
            nonce: true,
            window_ms: None,
        }
    }
}

/// What becomes of a message that does not say when it was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingTime {
    /// Its nonce alone tells.
    Accept,
    /// It counts as stale.
    Refuse,
}
