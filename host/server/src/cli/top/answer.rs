//! What is read of a host's answer, and of what is in it for others nothing.

use std::collections::BTreeMap;

use oona_core::policy::Mode;
use oona_core::rolling::{Span, Summary};
use oona_core::trend::Point;
use serde::Deserialize;

use crate::alerts::AlertStatus;
use crate::bus::{GroupStatus, StreamStatus};
use crate::latency::Stage;
use crate::overview::{DeadLetters, StageLatency};

/// How a host is. See [`Overview`](crate::overview::Overview).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) at_ms: u64,
    pub(super) version: String,
    pub(super) status: Status,
    pub(super) trends: BTreeMap<String, Vec<Point>>,
    pub(super) span: Span,
    pub(super) stages: Vec<StageLatency>,
    pub(super) latencies: Vec<Latency>,
    pub(super) decisions: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) dead_letters: DeadLetters,
    #[serde(default)]
    pub(super) alerts: Vec<AlertStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) ready: bool,
    pub(super) reasons: Vec<String>,
    pub(super) store: Store,
    pub(super) mode_status: ModeStatus,
    pub(super) breakers: Vec<Breaker>,
    pub(super) streams: Vec<StreamStatus>,
    pub(super) policies: Vec<Policy>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Store {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) durable: bool,
    pub(super) up: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ModeStatus {
    pub(super) mode: Mode,
    pub(super) reason: String,
    pub(super) forced: Option<Forced>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Breaker {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) forced: Option<Forced>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Forced {
    by: String,
    message: String,
}

impl Forced {
    /// Who, and why if he said so.
    pub(super) fn words(&self) -> String {
        let Self { by, message } = self;
        match message.as_str() {
            "" => format!("forced by {by}"),
            message => format!("forced by {by}: {message}"),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Policy {
    pub(super) kind: String,
    pub(super) version: Version,
    pub(super) since_ms: u64,
    pub(super) decisions: u64,
    pub(super) failures: u64,
    pub(super) fallback: Option<Fallback>,
    pub(super) candidate: Option<Candidate>,
    pub(super) not_started: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Version {
    name: String,
    version: String,
    source: String,
}

impl Version {
    /// `name@version`, and whether it is a native build.
    pub(super) fn words(&self) -> String {
        let Self {
            name,
            version,
            source,
        } = self;
        match source.as_str() {
            "native" => format!("{name}@{version} native"),
            _ => format!("{name}@{version}"),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fallback {
    pub(super) from: Version,
    pub(super) fault: String,
}

/// What is tried beside the policy in use.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Candidate {
    pub(super) version: Version,
    pub(super) mode: CandidateMode,
    pub(super) decisions: u64,
    pub(super) disagreements: u64,
    pub(super) faults: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CandidateMode {
    Shadow,
    Canary { per_mille: u16 },
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Latency {
    pub(super) stage: Stage,
    pub(super) stream: String,
    pub(super) priority: String,
    pub(super) outcome: String,
    #[serde(flatten)]
    pub(super) summary: Summary,
}

/// The group that has most to do, and with as much, the one that has waited longest.
pub(super) fn worst_group(stream: &StreamStatus) -> Option<&GroupStatus> {
    let to_do = |group: &&GroupStatus| (group.lag + group.pending, group.oldest_age_ms);
    stream.groups.iter().max_by_key(to_do)
}
