//! `oona policy list`: which policies decide, what is tried beside them, what the registry keeps.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::super::client::{self, Server};
use super::super::output::{Output, plural};
use super::super::{EXIT_OK, Failure};
use super::Policy;
use crate::length::length;
use crate::proto::{self, ListArtifactsRequest, ListPoliciesRequest};

const LIST_HELP: &str = "\
Examples:
  oona policy list
  oona policy list --artifacts
  oona policy list --output json";

#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(in crate::cli) struct List {
    /// What the registry keeps, and not what is in use
    #[arg(long)]
    artifacts: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: &List) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    if args.artifacts {
        let response = admin.list_artifacts(ListArtifactsRequest {}).await;
        let response = response
            .map_err(|status| client::failure(&status))?
            .into_inner();
        let artifacts = Artifacts {
            artifacts: response.artifacts.into_iter().map(Artifact::from).collect(),
        };
        args.output
            .write(&artifacts, Artifacts::text)
            .map_err(anyhow::Error::from)?;
        return Ok(EXIT_OK);
    }
    let response = admin.list_policies(ListPoliciesRequest {}).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let policies = Policies {
        policies: response.policies.into_iter().map(Policy::from).collect(),
    };
    args.output
        .write(&policies, Policies::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

#[derive(Debug, Serialize)]
struct Policies {
    policies: Vec<Policy>,
}

impl Policies {
    fn text(&self) -> String {
        let told = self.policies.iter().map(|policy| {
            let mut lines = vec![policy.text()];
            lines.extend(doing(&policy.status));
            lines.extend(candidate(&policy.status["candidate"]));
            lines.join("\n    ")
        });
        told.collect::<Vec<_>>().join("\n")
    }
}

/// How the policy in use does, and why it is in use if nobody chose it.
fn doing(status: &Value) -> Vec<String> {
    let slot = &status["slot"];
    let budget = &slot["budget"];
    let number = |name: &str| budget[name].as_u64();
    let count = |name: &str| number(name).unwrap_or_default();
    let window = Duration::from_millis(count("failures_window_ms"));
    let mut lines = vec![format!(
        "{}, {}; {} of {} tolerated failures in {}",
        counted(&slot["decisions"], "decision"),
        counted(&slot["failures"], "failure"),
        budget["failures_recent"],
        budget["failures_max"],
        length(window)
    )];
    let slowest = in_ms(count("call_us_recent_max"));
    lines.push(match (number("call_ms_max"), number("memory_bytes_max")) {
        (Some(ms), Some(bytes)) => format!(
            "slowest call of late {slowest} by the clock, a batch; limit {ms} ms of CPU time; \
             memory {} of {} KiB",
            count("memory_bytes_used") / 1_024,
            bytes / 1_024
        ),
        _ => format!("slowest call of late {slowest}, without a limit: a native build"),
    });
    if let Some(fault) = slot["fallback"]["fault"].as_str() {
        let from = &slot["fallback"]["from"];
        let text = |name: &str| from[name].as_str().unwrap_or_default().to_owned();
        lines.push(format!(
            "fell back from {} {}: {fault}",
            text("name"),
            text("version")
        ));
    }
    if let Some(reason) = status["not_started"].as_str() {
        lines.push(format!("not what the host was to start with: {reason}"));
    }
    let registry = &status["registry"];
    match (
        registry["active"]["revision"].as_u64(),
        registry["followed"].as_u64(),
    ) {
        (Some(said), Some(followed)) if said == followed => {
            lines.push(format!("revision {said} of the registry"));
        }
        (Some(said), _) => lines.push(format!(
            "revision {said} of the registry, which this host has yet to follow"
        )),
        (None, _) => {}
    }
    if let Some(reason) = registry["refused"].as_str() {
        lines.push(format!("this host does not follow the registry: {reason}"));
    }
    lines.extend(forced("in use", &registry["active"]["forced"]));
    lines.extend(trial(registry));
    lines
}

fn forced(what: &str, forced: &Value) -> Option<String> {
    let gates: Vec<_> = forced
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    (!gates.is_empty()).then(|| format!("{what} though it did not pass: {}", gates.join(", ")))
}

/// What of a trial does not show in the candidate, since there is none on this host.
fn trial(registry: &Value) -> Vec<String> {
    let trial = &registry["trial"];
    let mut lines: Vec<_> = forced("tried", &registry["stage"]["forced"])
        .into_iter()
        .collect();
    if let Some(reason) = trial["refused"].as_str() {
        lines.push(format!(
            "this host does not try the candidate of revision {}: {reason}",
            trial["revision"]
        ));
    }
    if let Some(reason) = trial["withdrawn"].as_str() {
        lines.push(format!(
            "this host has taken back the candidate of revision {}: {reason}",
            trial["revision"]
        ));
    }
    lines
}

fn candidate(candidate: &Value) -> Vec<String> {
    let Some(name) = candidate["version"]["name"].as_str() else {
        return Vec::new();
    };
    let mode = match candidate["mode"]["canary"]["per_mille"].as_u64() {
        Some(share) => format!(
            "canary for {share} of 1 000 keys, {} decided",
            candidate["decided"]
        ),
        None => "shadow".to_owned(),
    };
    let mut lines = vec![format!(
        "tried beside it: {name} {}, {mode}: {} of {} decisions differ, {}",
        candidate["version"]["version"].as_str().unwrap_or_default(),
        candidate["disagreements"],
        candidate["decisions"],
        counted(&candidate["faults"], "failure")
    )];
    lines.extend(took(candidate));
    if let Some(fault) = candidate["failure"]["fault"].as_str() {
        let message = &candidate["failure"]["message"];
        let id = message["id"].as_str().unwrap_or("without an id");
        lines.push(format!(
            "  last failure: {fault}; asked about {} messages, first a {} ({id})",
            candidate["failure"]["batch"],
            message["type"].as_str().unwrap_or("message"),
        ));
    }
    let pairs = candidate["pairs"].as_array().into_iter().flatten();
    lines.extend(pairs.map(|pair| {
        let text = |name: &str| pair[name].as_str().unwrap_or_default();
        format!(
            "  {} -> {}: {}",
            text("in_use"),
            text("candidate"),
            pair["count"]
        )
    }));
    lines
}

/// How long a candidate takes, beside the version in use.
fn took(candidate: &Value) -> Option<String> {
    let number = |name: &str| candidate[name].as_u64().unwrap_or_default() as f64;
    let timed = number("timed");
    (timed > 0.0).then(|| {
        let (took, in_use) = (number("took_ns") / timed, number("in_use_ns") / timed);
        let ratio = took / in_use.max(1.0);
        format!(
            "  {:.3} µs for a decision, {ratio:.2} times the {:.3} µs of the one in use",
            took / 1e3,
            in_use / 1e3
        )
    })
}

fn counted(count: &Value, what: &str) -> String {
    plural(count.as_u64().unwrap_or_default(), what)
}

fn in_ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

/// A policy in the registry.
#[derive(Debug, Serialize)]
pub(super) struct Artifact {
    digest: String,
    kind: String,
    name: String,
    version: String,
    size: u64,
    signed_by: Vec<String>,
}

impl From<proto::Artifact> for Artifact {
    fn from(artifact: proto::Artifact) -> Self {
        let signatures = artifact.signatures.into_iter();
        Self {
            digest: artifact.digest,
            kind: artifact.kind,
            name: artifact.name,
            version: artifact.version,
            size: artifact.size,
            signed_by: signatures.map(|signature| signature.key).collect(),
        }
    }
}

impl Artifact {
    pub(super) fn text(&self) -> String {
        let Self {
            digest,
            kind,
            name,
            version,
            size,
            signed_by,
        } = self;
        let signed = match signed_by.len() {
            0 => "not signed".to_owned(),
            1 => "1 signature".to_owned(),
            count => format!("{count} signatures"),
        };
        format!("{kind:<13} {name} {version}, {size} bytes, {signed}, sha256 {digest}")
    }
}

#[derive(Debug, Serialize)]
struct Artifacts {
    artifacts: Vec<Artifact>,
}

impl Artifacts {
    fn text(&self) -> String {
        if self.artifacts.is_empty() {
            return "the registry keeps nothing yet: see `oona policy push`".to_owned();
        }
        self.artifacts
            .iter()
            .map(Artifact::text)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
