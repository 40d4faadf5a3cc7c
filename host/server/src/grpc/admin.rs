//! `Admin`: policies and their registry, decisions, dead letters, breakers and mode, status.

mod broadcast;
mod controls;
mod convert;
mod letters;
mod watch;

use futures_util::stream::BoxStream;
use oona_core::policy::Kind;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use self::convert::{kind, optional_kind, refusal, signatures};
use crate::access::{Access, Denied, Right};
use crate::bus::Bus;
use crate::explain;
use crate::gates::Gate;
use crate::overview::overview;
use crate::proto;
use crate::registry::{Author, Outcome, Proposal, Registry, Use, Wanted};

/// How many changes a history tells unless it is asked for another number.
const HISTORY_DEFAULT: usize = 50;

/// What the service stands on.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// The registry that this host follows.
    pub registry: Registry,
    /// Who may call.
    pub access: Access,
}

/// The service.
#[derive(Debug)]
pub struct Admin {
    bus: Bus,
    registry: Registry,
    access: Access,
}

impl Admin {
    /// Administers this bus.
    #[must_use]
    pub fn new(bus: Bus, options: AdminOptions) -> Self {
        let AdminOptions { registry, access } = options;
        Self {
            bus,
            registry,
            access,
        }
    }

    /// The name of whoever calls, if he may.
    fn who(&self, metadata: &MetadataMap, right: Right) -> Result<String, Status> {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let token = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let who = self.access.who(token, text("oona-user"), right);
        who.map_err(|denied| match denied {
            Denied::Unknown => Status::unauthenticated(denied.to_string()),
            Denied::Lacks { .. } => Status::permission_denied(denied.to_string()),
        })
    }

    fn author<T>(&self, request: &Request<T>, message: &str) -> Result<Author, Status> {
        Ok(Author {
            by: self.who(request.metadata(), Right::WritePolicies)?,
            message: message.to_owned(),
        })
    }

    fn status_of(&self, kind: Kind) -> proto::PolicyStatus {
        let mut policies = self.bus.policies().list().into_iter();
        let policy = policies.find(|policy| policy.kind == kind);
        policy.map_or_else(Default::default, |policy| {
            convert::policy(&policy, &self.registry)
        })
    }
}

#[tonic::async_trait]
impl proto::admin_server::Admin for Admin {
    async fn push_policy(
        &self,
        request: Request<proto::PushPolicyRequest>,
    ) -> Result<Response<proto::PushPolicyResponse>, Status> {
        let author = self.author(&request, &request.get_ref().message)?;
        let request = request.into_inner();
        let held = signatures(request.signatures);
        let pushed = self.registry.push(request.component, held, &author).await;
        let artifact = pushed.map_err(|error| refusal(&error))?;
        Ok(Response::new(proto::PushPolicyResponse {
            artifact: Some(convert::artifact(&artifact)),
        }))
    }

    async fn activate_policy(
        &self,
        request: Request<proto::ActivatePolicyRequest>,
    ) -> Result<Response<proto::ActivatePolicyResponse>, Status> {
        let author = self.author(&request, &request.get_ref().message)?;
        let request = request.into_inner();
        let of = optional_kind(&request.kind)?;
        let wanted = match (request.component.is_empty(), request.digest.is_empty(), of) {
            (false, true, _) => {
                Wanted::Component(request.component, signatures(request.signatures))
            }
            (true, false, _) => Wanted::Digest(request.digest),
            (true, true, Some(kind)) if request.config_json.is_some() => Wanted::InUse(kind),
            // An empty component is refused by the first gate, in its own words.
            (true, true, _) => Wanted::Component(request.component, Vec::new()),
            (false, false, _) => {
                return Err(Status::invalid_argument(
                    "a component and a digest: send one of them",
                ));
            }
        };
        let forced = request.force.iter().map(|name| name.parse::<Gate>());
        let proposal = Proposal {
            wanted,
            kind: of,
            config: request.config_json,
            forced: forced
                .collect::<Result<_, _>>()
                .map_err(Status::invalid_argument)?,
            dry_run: request.dry_run,
        };
        let usage = match request.trial {
            Some(trial) => convert::trial(&trial)?,
            None => Use::Active,
        };
        let before = Kind::ALL.map(|kind| self.status_of(kind));
        let outcome = self.registry.propose(proposal, usage, &author).await;
        let Outcome {
            gates,
            kind,
            revision,
            activation,
            ..
        } = outcome.map_err(|error| refusal(&error))?;
        let of_kind = |policy: &proto::PolicyStatus| policy.kind == kind.name();
        let replaced = before
            .into_iter()
            .find(of_kind)
            .filter(|_| activation.is_some());
        Ok(Response::new(proto::ActivatePolicyResponse {
            policy: Some(self.status_of(kind)),
            replaced,
            prepared_in_us: activation.map_or(0, |report| report.activation.took_us),
            gates: gates.iter().map(convert::gate).collect(),
            revision: revision.unwrap_or(0),
        }))
    }

    async fn rollback_policy(
        &self,
        request: Request<proto::RollbackPolicyRequest>,
    ) -> Result<Response<proto::ActivatePolicyResponse>, Status> {
        let author = self.author(&request, &request.get_ref().message)?;
        let request = request.into_inner();
        let of = kind(&request.kind)?;
        let before = self.status_of(of);
        let back = self.registry.roll_back(of, request.revision, &author).await;
        let (revision, _, report) = back.map_err(|error| refusal(&error))?;
        Ok(Response::new(proto::ActivatePolicyResponse {
            policy: Some(self.status_of(of)),
            replaced: Some(before),
            prepared_in_us: report.map_or(0, |report| report.activation.took_us),
            gates: Vec::new(),
            revision,
        }))
    }

    async fn conclude_trial(
        &self,
        request: Request<proto::ConcludeTrialRequest>,
    ) -> Result<Response<proto::ActivatePolicyResponse>, Status> {
        let author = self.author(&request, &request.get_ref().message)?;
        let request = request.into_inner();
        let of = kind(&request.kind)?;
        let before = self.status_of(of);
        let concluded = self.registry.conclude(of, request.promote, &author).await;
        let (revision, report) = concluded.map_err(|error| refusal(&error))?;
        Ok(Response::new(proto::ActivatePolicyResponse {
            policy: Some(self.status_of(of)),
            replaced: request.promote.then_some(before),
            prepared_in_us: report.map_or(0, |report| report.activation.took_us),
            gates: Vec::new(),
            revision,
        }))
    }

    async fn list_policies(
        &self,
        request: Request<proto::ListPoliciesRequest>,
    ) -> Result<Response<proto::ListPoliciesResponse>, Status> {
        self.who(request.metadata(), Right::ReadPolicies)?;
        let policies = self.bus.policies().list();
        let policies = policies
            .iter()
            .map(|policy| convert::policy(policy, &self.registry));
        Ok(Response::new(proto::ListPoliciesResponse {
            policies: policies.collect(),
        }))
    }

    async fn list_artifacts(
        &self,
        request: Request<proto::ListArtifactsRequest>,
    ) -> Result<Response<proto::ListArtifactsResponse>, Status> {
        self.who(request.metadata(), Right::ReadPolicies)?;
        let artifacts = self
            .registry
            .artifacts()
            .iter()
            .map(convert::artifact)
            .collect();
        Ok(Response::new(proto::ListArtifactsResponse { artifacts }))
    }

    async fn get_artifact(
        &self,
        request: Request<proto::GetArtifactRequest>,
    ) -> Result<Response<proto::GetArtifactResponse>, Status> {
        self.who(request.metadata(), Right::ReadPolicies)?;
        let found = self.registry.artifact(&request.get_ref().digest).await;
        let (artifact, component) = found.map_err(|error| refusal(&error))?;
        Ok(Response::new(proto::GetArtifactResponse {
            artifact: Some(convert::artifact(&artifact)),
            component,
        }))
    }

    async fn policy_history(
        &self,
        request: Request<proto::PolicyHistoryRequest>,
    ) -> Result<Response<proto::PolicyHistoryResponse>, Status> {
        self.who(request.metadata(), Right::ReadPolicies)?;
        let request = request.into_inner();
        let of = optional_kind(&request.kind)?;
        let limit = match request.limit {
            0 => HISTORY_DEFAULT,
            limit => limit as usize,
        };
        let changes = self.registry.history(of, limit);
        let changes = changes.iter().map(convert::change);
        Ok(Response::new(proto::PolicyHistoryResponse {
            changes_json: changes.collect::<Result<_, _>>()?,
        }))
    }

    type WatchDecisionsStream = BoxStream<'static, Result<proto::RecordedDecision, Status>>;

    async fn watch_decisions(
        &self,
        request: Request<proto::WatchDecisionsRequest>,
    ) -> Result<Response<Self::WatchDecisionsStream>, Status> {
        self.who(request.metadata(), Right::ReadPolicies)?;
        let log = self.bus.policies().decisions();
        Ok(Response::new(watch::decisions(log, request.get_ref())?))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        self.who(request.metadata(), Right::ReadPolicies)?;
        let asked = convert::question(request.get_ref())?;
        let bus = self.bus.clone();
        // Instances are started for it.
        let explained = tokio::task::spawn_blocking(move || explain::explain(&bus, &asked));
        let explained = explained
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let explained = explained.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let decisions = explained.iter().map(convert::json);
        Ok(Response::new(proto::ExplainResponse {
            decisions_json: decisions.collect::<Result<_, _>>()?,
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<proto::ListDeadLettersRequest>,
    ) -> Result<Response<proto::ListDeadLettersResponse>, Status> {
        self.who(request.metadata(), Right::ReadDeadLetters)?;
        letters::list(&self.bus, request.into_inner()).await
    }

    async fn get_dead_letter(
        &self,
        request: Request<proto::GetDeadLetterRequest>,
    ) -> Result<Response<proto::GetDeadLetterResponse>, Status> {
        self.who(request.metadata(), Right::ReadDeadLetters)?;
        letters::get(&self.bus, &request.get_ref().id).await
    }

    type RedriveDeadLettersStream = BoxStream<'static, Result<proto::MovedDeadLetter, Status>>;

    async fn redrive_dead_letters(
        &self,
        request: Request<proto::RedriveDeadLettersRequest>,
    ) -> Result<Response<Self::RedriveDeadLettersStream>, Status> {
        let who = self.who(request.metadata(), Right::WriteDeadLetters)?;
        letters::redrive(&self.bus, &who, request.into_inner()).await
    }

    type PurgeDeadLettersStream = BoxStream<'static, Result<proto::MovedDeadLetter, Status>>;

    async fn purge_dead_letters(
        &self,
        request: Request<proto::PurgeDeadLettersRequest>,
    ) -> Result<Response<Self::PurgeDeadLettersStream>, Status> {
        let who = self.who(request.metadata(), Right::WriteDeadLetters)?;
        letters::purge(&self.bus, &who, request.into_inner()).await
    }

    async fn dead_letter_stats(
        &self,
        request: Request<proto::DeadLetterStatsRequest>,
    ) -> Result<Response<proto::DeadLetterStatsResponse>, Status> {
        self.who(request.metadata(), Right::ReadDeadLetters)?;
        letters::stats(&self.bus, request.into_inner()).await
    }

    async fn broadcast(
        &self,
        request: Request<proto::BroadcastRequest>,
    ) -> Result<Response<proto::BroadcastResponse>, Status> {
        let who = self.who(request.metadata(), Right::WriteBus)?;
        let told = broadcast::broadcast(&self.bus, &who, request.into_inner());
        told.await.map(Response::new)
    }

    async fn get_housekeeping(
        &self,
        request: Request<proto::GetHousekeepingRequest>,
    ) -> Result<Response<proto::GetHousekeepingResponse>, Status> {
        self.who(request.metadata(), Right::ReadBus)?;
        Ok(Response::new(proto::GetHousekeepingResponse {
            status_json: convert::json(&self.bus.housekeeping())?,
        }))
    }

    async fn run_housekeeping(
        &self,
        request: Request<proto::RunHousekeepingRequest>,
    ) -> Result<Response<proto::RunHousekeepingResponse>, Status> {
        let who = self.who(request.metadata(), Right::WriteBus)?;
        tracing::info!(target: "oona::audit", by = who, "housekeeping");
        let report = self.bus.keep_house().await;
        let report = report.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(proto::RunHousekeepingResponse {
            report_json: convert::json(&report)?,
        }))
    }

    async fn list_breakers(
        &self,
        request: Request<proto::ListBreakersRequest>,
    ) -> Result<Response<proto::ListBreakersResponse>, Status> {
        self.who(request.metadata(), Right::ReadBus)?;
        Ok(Response::new(controls::breakers(&self.bus)))
    }

    async fn force_breaker(
        &self,
        request: Request<proto::ForceBreakerRequest>,
    ) -> Result<Response<proto::BreakerStatus>, Status> {
        let who = self.who(request.metadata(), Right::WriteBus)?;
        controls::force_breaker(&self.bus, &who, request.into_inner()).map(Response::new)
    }

    async fn get_mode(
        &self,
        request: Request<proto::GetModeRequest>,
    ) -> Result<Response<proto::ModeStatus>, Status> {
        self.who(request.metadata(), Right::ReadBus)?;
        Ok(Response::new(controls::mode(&self.bus)))
    }

    async fn force_mode(
        &self,
        request: Request<proto::ForceModeRequest>,
    ) -> Result<Response<proto::ModeStatus>, Status> {
        let who = self.who(request.metadata(), Right::WriteBus)?;
        controls::force_mode(&self.bus, &who, request.into_inner()).map(Response::new)
    }

    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let status = self.bus.status();
        Ok(Response::new(proto::StatusResponse {
            ready: status.ready,
            reasons: status.reasons.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            json: convert::json(&status)?,
        }))
    }

    async fn overview(
        &self,
        request: Request<proto::OverviewRequest>,
    ) -> Result<Response<proto::OverviewResponse>, Status> {
        self.who(request.metadata(), Right::ReadBus)?;
        let span = convert::span(&request.get_ref().span)?;
        let right = Right::ReadDeadLetters;
        let lacks = self.who(request.metadata(), right).is_err();
        let lacks = lacks.then_some(right);
        let overview = overview(&self.bus, &self.registry, span, lacks).await;
        Ok(Response::new(proto::OverviewResponse {
            json: convert::json(&overview)?,
        }))
    }
}
