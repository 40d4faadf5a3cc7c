//! Names in a configuration: priorities and message types.

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

use crate::Priority;

/// Names of priorities, from least to most urgent.
const PRIORITIES: [(Priority, &str); 5] = [
    (Priority::Low, "low"),
    (Priority::Normal, "normal"),
    (Priority::High, "high"),
    (Priority::Critical, "critical"),
    (Priority::Emergency, "emergency"),
];

/// Message types that have a name, with the number that they have on the wire.
pub const MESSAGE_TYPES: [(u32, &str); 14] = [
    (0, "unspecified"),
    (1, "system_state"),
    (2, "adaptation_command"),
    (3, "field_report"),
    (4, "telemetry"),
    (5, "policy_update"),
    (6, "kernel_prefetch_request"),
    (7, "kernel_prefetch_ready"),
    (8, "kernel_prefetch_error"),
    (9, "kernel_catalog_update"),
    (10, "emergency_signal"),
    (20, "bsds_issued"),
    (21, "bsds_failed"),
    (22, "benchmark_report"),
];

/// Wire number of an emergency signal.
pub const EMERGENCY_SIGNAL: u32 = 10;

/// A priority, by its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PriorityName(pub Priority);

impl<'de> Deserialize<'de> for PriorityName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = PRIORITIES.iter().find(|(_, known)| *known == name);
        known.map(|(priority, _)| Self(*priority)).ok_or_else(|| {
            D::Error::custom(format!(
                "`{name}` is no priority: low, normal, high, critical or emergency"
            ))
        })
    }
}

impl Serialize for PriorityName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = PRIORITIES
            .iter()
            .find(|(known, _)| *known == self.0)
            .map(|(_, name)| *name);
        serializer.serialize_str(name.unwrap_or_default())
    }
}

/// A message type: its name in lower case, or its wire number in digits for one that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageType(pub u32);

impl<'de> Deserialize<'de> for MessageType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = MESSAGE_TYPES.iter().find(|(_, known)| *known == name);
        let number = known
            .map(|(number, _)| *number)
            .or_else(|| name.parse().ok());
        number.map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "`{name}` is neither a message type nor the number of one"
            ))
        })
    }
}

impl Serialize for MessageType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match MESSAGE_TYPES.iter().find(|(known, _)| *known == self.0) {
            Some((_, name)) => serializer.serialize_str(name),
            None => serializer.serialize_str(&self.0.to_string()),
        }
    }
}
