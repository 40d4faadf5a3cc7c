//! Between the registry and its messages.

use std::collections::BTreeMap;

use oona_core::Timestamp;
use oona_core::policy::Kind;
use oona_core::registry::{Artifact, Signature};
use oona_core::rolling::Span;
use oona_core::stage::{StageMode, Thresholds, TimeMax};
use oona_wasm::Source;
use prost::Message as _;
use serde::Serialize;
use serde_json::json;
use tonic::{Code, Status};

use crate::chain::chain;
use crate::explain::Asked;
use crate::gates::{GateReport, Refusal};
use crate::latency::no_span;
use crate::policies::PolicyStatus;
use crate::proto;
use crate::registry::{Registry, RegistryError, Told, Use};

/// Of a thousand keys, all.
const PER_MILLE_MAX: u32 = 1_000;

pub(super) fn kind(name: &str) -> Result<Kind, Status> {
    let kind = name.parse::<Kind>();
    kind.map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) fn optional_kind(name: &str) -> Result<Option<Kind>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    kind(name).map(Some)
}

pub(super) fn signatures(signatures: Vec<proto::Signature>) -> Vec<Signature> {
    let signatures = signatures.into_iter();
    signatures
        .map(|proto::Signature { key, signature }| Signature { key, signature })
        .collect()
}

/// What a failed call says.
pub(super) fn refusal(error: &RegistryError) -> Status {
    match error {
        RegistryError::Refused(refused) => {
            let (code, reason) = match &refused.refusal {
                Refusal::Unsigned(reason) => (Code::PermissionDenied, reason.clone()),
                refusal => (Code::InvalidArgument, chain(refusal)),
            };
            // Whoever asks can see how it did at each gate.
            let gates = refused.gates.iter().map(gate).collect();
            let details = proto::ActivatePolicyResponse {
                gates,
                ..Default::default()
            };
            Status::with_details(code, reason, details.encode_to_vec().into())
        }
        RegistryError::Store(_)
        | RegistryError::Unsure(_)
        | RegistryError::Lost
        | RegistryError::Contended
        | RegistryError::Behind => Status::unavailable(chain(error)),
        RegistryError::Unknown(reason) => Status::failed_precondition(reason),
        RegistryError::NotFollowed(_) => Status::aborted(chain(error)),
        RegistryError::Broken(_) => Status::internal(chain(error)),
    }
}

pub(super) fn artifact(artifact: &Artifact) -> proto::Artifact {
    let signatures = artifact.signatures.iter().cloned();
    proto::Artifact {
        digest: artifact.digest.clone(),
        kind: artifact.kind.name().to_owned(),
        name: artifact.name.clone(),
        version: artifact.version.clone(),
        size: artifact.bytes,
        signatures: signatures
            .map(|Signature { key, signature }| proto::Signature { key, signature })
            .collect(),
    }
}

pub(super) fn gate(report: &GateReport) -> proto::Gate {
    proto::Gate {
        gate: report.gate.name().to_owned(),
        status: report.status.name().to_owned(),
        detail: report.detail.clone(),
        took_us: report.took_us,
    }
}

pub(super) fn trial(trial: &proto::Trial) -> Result<Use, Status> {
    let mode = match trial.canary_per_mille {
        0 => StageMode::Shadow,
        share @ 1..=PER_MILLE_MAX => StageMode::Canary {
            per_mille: u16::try_from(share).unwrap_or(u16::MAX),
        },
        share => {
            let what =
                format!("a canary decides for 1 to {PER_MILLE_MAX} of 1 000 keys, not {share}");
            return Err(Status::invalid_argument(what));
        }
    };
    let default = Thresholds::default();
    let ns = trial.time_ns_max.map(TimeMax::Ns);
    let percent = trial.time_percent_max.map(TimeMax::PercentOfInUse);
    let thresholds = Thresholds {
        disagreements_per_million: trial
            .disagreements_per_million
            .unwrap_or(default.disagreements_per_million),
        faults: trial.faults,
        time_max: ns.or(percent),
        for_ms: trial.for_ms,
        trial_ms_max: trial.trial_ms_max.unwrap_or(default.trial_ms_max),
        decisions: trial.decisions,
        promote: trial.promote,
    };
    Ok(Use::Staged(mode, thresholds))
}

pub(super) fn policy(policy: &PolicyStatus, registry: &Registry) -> proto::PolicyStatus {
    let version = &policy.slot.version;
    let more = json!({
        "slot": policy.slot,
        "candidate": policy.candidate,
        "not_started": policy.not_started,
        "registry": registry.standing(policy.kind),
        "decisions": registry.mix_in_use(policy.kind),
    });
    proto::PolicyStatus {
        kind: version.kind.name().to_owned(),
        name: version.name.clone(),
        version: version.version.clone(),
        digest: version.digest.clone(),
        native: version.source == Source::Native,
        generation: policy.slot.generation,
        config_json: policy.config.to_string(),
        json: more.to_string(),
    }
}

pub(super) fn change(told: &Told) -> Result<String, Status> {
    let Told {
        change,
        decisions,
        forced,
    } = told;
    let value = serde_json::to_value(change);
    let mut value = value.map_err(|error| Status::internal(error.to_string()))?;
    if let Some(object) = value.as_object_mut() {
        if let Some(mix) = decisions {
            object.insert("decisions".to_owned(), json!(mix));
        }
        if !forced.is_empty() {
            object.insert("forced".to_owned(), json!(forced));
        }
    }
    json(&value)
}

pub(super) fn question(request: &proto::ExplainRequest) -> Result<Asked, Status> {
    let wrong =
        |what: &str, error: serde_json::Error| Status::invalid_argument(format!("{what}: {error}"));
    let states = request.state_json.iter().map(|(name, json)| {
        let state = serde_json::from_str(json).map_err(|error| wrong("state", error))?;
        Ok((kind(name)?, state))
    });
    Ok(Asked {
        message: serde_json::from_str(&request.message_json)
            .map_err(|error| wrong("message", error))?,
        states: states.collect::<Result<BTreeMap<_, _>, Status>>()?,
        now: request.now_ms.map(Timestamp::from_millis),
    })
}

/// The span that is asked for: a minute unless one is named.
pub(super) fn span(name: &str) -> Result<Span, Status> {
    match name {
        "" => Ok(Span::Minute),
        name => Span::from_name(name).ok_or_else(|| Status::invalid_argument(no_span(name))),
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Status> {
    serde_json::to_string(value).map_err(|error| Status::internal(error.to_string()))
}
