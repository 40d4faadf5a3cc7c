//! `Admin`: activate, list, status.

use oona_core::policy::Kind;
use oona_wasm::{Activation, Source, VersionInfo};
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::bus::Bus;
use crate::policies::{ActivateError, ActivationReport, PolicyStatus};
use crate::proto;

/// What an administrator may do.
#[derive(Clone, Copy, Debug)]
pub struct AdminOptions {
    /// Whether policies without a signature may be activated.
    pub allow_unsigned: bool,
}

/// The service.
#[derive(Debug)]
pub struct Admin {
    bus: Bus,
    options: AdminOptions,
}

impl Admin {
    /// Administers this bus.
    #[must_use]
    pub fn new(bus: Bus, options: AdminOptions) -> Self {
        Self { bus, options }
    }
}

#[tonic::async_trait]
impl proto::admin_server::Admin for Admin {
    async fn activate_policy(
        &self,
        request: Request<proto::ActivatePolicyRequest>,
    ) -> Result<Response<proto::ActivatePolicyResponse>, Status> {
        if !self.options.allow_unsigned {
            return Err(Status::permission_denied(UNSIGNED));
        }
        let request = request.into_inner();
        let kind = kind(&request.kind)?;
        let policies = self.bus.policies().clone();
        // Compiling takes tens of milliseconds, seconds for a large component.
        let activated = tokio::task::spawn_blocking(move || {
            let before = policies.list();
            let config = request.config_json.as_deref();
            let report = policies.activate(kind, &request.component, config);
            report.map(|report| activation(&report, &before, &policies.list()))
        });
        let response = activated
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        response.map(Response::new).map_err(|error| refusal(&error))
    }

    async fn list_policies(
        &self,
        _: Request<proto::ListPoliciesRequest>,
    ) -> Result<Response<proto::ListPoliciesResponse>, Status> {
        let policies = self.bus.policies().list().iter().map(status).collect();
        Ok(Response::new(proto::ListPoliciesResponse { policies }))
    }

    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let status = self.bus.status();
        let json = serde_json::to_string(&status);
        Ok(Response::new(proto::StatusResponse {
            ready: status.ready,
            reasons: status.reasons,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            json: json.map_err(|error| Status::internal(error.to_string()))?,
        }))
    }
}

/// Why a policy without a signature is refused, and what to do.
pub(crate) const UNSIGNED: &str = "the policy is not signed and policies.allow_unsigned is false; \
     set it to true, or use `oona serve --dev`";

fn kind(name: &str) -> Result<Option<Kind>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let kind = name.parse::<Kind>();
    kind.map(Some)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

fn refusal(error: &ActivateError) -> Status {
    Status::invalid_argument(crate::chain::chain(error))
}

/// What an activation tells. The configurations are those before and after it.
fn activation(
    report: &ActivationReport,
    before: &[PolicyStatus],
    after: &[PolicyStatus],
) -> proto::ActivatePolicyResponse {
    let Activation {
        version,
        replaced,
        generation,
        took_us,
        ..
    } = &report.activation;
    let config = |policies: &[PolicyStatus]| {
        let found = policies.iter().find(|policy| policy.kind == report.kind);
        found.map_or(Value::Null, |policy| policy.config.clone())
    };
    proto::ActivatePolicyResponse {
        policy: Some(describe(version, *generation, &config(after))),
        replaced: Some(describe(
            replaced,
            generation.saturating_sub(1),
            &config(before),
        )),
        prepared_in_us: *took_us,
    }
}

fn status(policy: &PolicyStatus) -> proto::PolicyStatus {
    describe(&policy.slot.version, policy.slot.generation, &policy.config)
}

fn describe(version: &VersionInfo, generation: u64, config: &Value) -> proto::PolicyStatus {
    proto::PolicyStatus {
        kind: version.kind.name().to_owned(),
        name: version.name.clone(),
        version: version.version.clone(),
        digest: version.digest.clone(),
        native: version.source == Source::Native,
        generation,
        config_json: config.to_string(),
    }
}
