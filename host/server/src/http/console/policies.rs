//! Policies: what is in use, what is kept, and changing it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Console, Refusal, body, parsed, request};
use crate::proto::admin_server::Admin as _;
use crate::proto::{
    ActivatePolicyRequest, ActivatePolicyResponse, Artifact, ConcludeTrialRequest, Gate,
    ListArtifactsRequest, ListPoliciesRequest, PolicyHistoryRequest, PolicyStatus,
    RollbackPolicyRequest,
};

/// What is in use, what is kept, and who changed what.
pub(super) async fn list(
    State(console): State<Console>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let admin = &console.admin;
    let asked = request(&headers, ListPoliciesRequest {});
    let listed = admin.list_policies(asked).await?.into_inner();
    let asked = request(&headers, ListArtifactsRequest {});
    let kept = admin.list_artifacts(asked).await?.into_inner();
    let asked = request(&headers, PolicyHistoryRequest::default());
    let changes = admin.policy_history(asked).await?.into_inner().changes_json;
    Ok(Json(json!({
        "policies": listed.policies.iter().map(policy).collect::<Vec<_>>(),
        "artifacts": kept.artifacts.iter().map(artifact).collect::<Vec<_>>(),
        "history": changes.iter().map(|change| parsed(change)).collect::<Vec<_>>(),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Activate {
    /// Of an artifact; that of the version in use without.
    #[serde(default)]
    digest: String,
    /// Its configuration; the current one without.
    config: Option<Value>,
    #[serde(default)]
    message: String,
}

/// Puts an artifact in use, or another configuration.
pub(super) async fn activate(
    State(console): State<Console>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    let Activate {
        digest,
        config,
        message,
    } = body(&bytes)?;
    let asked = ActivatePolicyRequest {
        kind,
        digest,
        config_json: config.map(|config| config.to_string()),
        message,
        ..ActivatePolicyRequest::default()
    };
    let done = console.admin.activate_policy(request(&headers, asked));
    Ok(changed(&done.await?.into_inner()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollBack {
    /// The activation to go back to; the last that was something else without.
    revision: Option<u64>,
    #[serde(default)]
    message: String,
}

/// Goes back.
pub(super) async fn roll_back(
    State(console): State<Console>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    let RollBack { revision, message } = body(&bytes)?;
    let asked = RollbackPolicyRequest {
        kind,
        revision,
        message,
    };
    let done = console.admin.rollback_policy(request(&headers, asked));
    Ok(changed(&done.await?.into_inner()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conclude {
    promote: bool,
    #[serde(default)]
    message: String,
}

/// Puts what is tried in use, or ends its trial.
pub(super) async fn conclude(
    State(console): State<Console>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    let Conclude { promote, message } = body(&bytes)?;
    let asked = ConcludeTrialRequest {
        kind,
        promote,
        message,
    };
    let done = console.admin.conclude_trial(request(&headers, asked));
    Ok(changed(&done.await?.into_inner()))
}

fn changed(done: &ActivatePolicyResponse) -> Json<Value> {
    Json(json!({
        "policy": done.policy.as_ref().map(policy),
        "replaced": done.replaced.as_ref().map(policy),
        "revision": done.revision,
        "gates": gates(&done.gates),
    }))
}

fn policy(status: &PolicyStatus) -> Value {
    json!({
        "kind": status.kind,
        "name": status.name,
        "version": status.version,
        "digest": status.digest,
        "native": status.native,
        "generation": status.generation,
        "config": parsed(&status.config_json),
        "status": parsed(&status.json),
    })
}

fn artifact(artifact: &Artifact) -> Value {
    let signed_by = artifact.signatures.iter().map(|signature| &signature.key);
    json!({
        "digest": artifact.digest,
        "kind": artifact.kind,
        "name": artifact.name,
        "version": artifact.version,
        "size": artifact.size,
        "signed_by": signed_by.collect::<Vec<_>>(),
    })
}

/// How a candidate did at each gate; nothing if it met none.
pub(super) fn gates(gates: &[Gate]) -> Value {
    let told = gates
        .iter()
        .map(|gate| json!({ "gate": gate.gate, "status": gate.status, "detail": gate.detail }));
    match told.collect::<Vec<_>>() {
        none if none.is_empty() => Value::Null,
        some => some.into(),
    }
}
