//! `oona policy history | diff`: who changed what, when and why, and what is different.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use clap::Args;
use oona_core::policy::Kind;
use serde::Serialize;
use serde_json::Value;

use super::super::client::{self, Admin, Server};
use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use crate::proto::{GetArtifactRequest, PolicyHistoryRequest};

const HISTORY_HELP: &str = "\
Each activation is shown with what the policy that it put in use has decided on the host that
answers: how many messages, and which share of them for which reason, before it and since. What a
canary or a fail-safe has decided meanwhile is not among it.

Examples:
  oona policy history
  oona policy history routing --limit 5 --output json";

#[derive(Args, Debug)]
#[command(after_help = HISTORY_HELP)]
pub(in crate::cli) struct History {
    /// The kind; all without it
    kind: Option<Kind>,
    /// How many changes, the last ones
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    limit: u32,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// The changes, as the bus tells them.
#[derive(Debug, Serialize)]
struct Changes {
    changes: Vec<Value>,
}

pub(super) async fn history(args: &History) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let changes = changes(&mut admin, args.kind, args.limit).await?;
    args.output
        .write(&Changes { changes }, |changes| {
            lines(&changes.changes).join("\n")
        })
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

async fn changes(admin: &mut Admin, kind: Option<Kind>, limit: u32) -> Result<Vec<Value>, Failure> {
    let request = PolicyHistoryRequest {
        kind: kind.map_or_else(String::new, |kind| kind.name().to_owned()),
        limit,
    };
    let response = admin.policy_history(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let changes = response
        .changes_json
        .iter()
        .map(|json| serde_json::from_str(json));
    Ok(changes
        .collect::<Result<_, _>>()
        .context("the bus told no JSON")?)
}

/// Each change, and under each activation its effect.
fn lines(changes: &[Value]) -> Vec<String> {
    let mut before: BTreeMap<&str, Decided> = BTreeMap::new();
    let told = changes.iter().map(|change| {
        let mut line = line(change);
        if let Some(after) = Decided::of(change) {
            let kind = change["kind"].as_str().unwrap_or_default();
            if after.count > 0 {
                line += &format!("\n      {}", after.text(before.get(kind)));
                before.insert(kind, after);
            }
        }
        line
    });
    told.collect()
}

/// What an activation has decided: how many messages, and how many of them for each reason.
struct Decided {
    count: u64,
    reasons: BTreeMap<String, u64>,
}

impl Decided {
    fn of(change: &Value) -> Option<Self> {
        let reasons = change["decisions"].as_object()?.iter();
        let reasons = reasons.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0)));
        let reasons: BTreeMap<_, _> = reasons.collect();
        let count = reasons.values().sum();
        Some(Self { count, reasons })
    }

    /// In percent, with one digit after the point.
    fn share(&self, reason: &str) -> String {
        let count = self.reasons.get(reason).copied().unwrap_or_default();
        let per_mille = u128::from(count) * 1_000 / u128::from(self.count.max(1));
        format!("{}.{} %", per_mille / 10, per_mille % 10)
    }

    /// `decided 50 (30 before it): origin 0.0 % -> 60.0 %, type 100.0 % -> 40.0 %`
    fn text(&self, before: Option<&Self>) -> String {
        let Some(before) = before else {
            let each = self.reasons.keys();
            let each = each.map(|reason| format!("{reason} {}", self.share(reason)));
            let each: Vec<_> = each.collect();
            return format!("decided {}: {}", self.count, each.join(", "));
        };
        let reasons: BTreeSet<_> = before.reasons.keys().chain(self.reasons.keys()).collect();
        let each = reasons.into_iter().map(|reason| {
            format!(
                "{reason} {} -> {}",
                before.share(reason),
                self.share(reason)
            )
        });
        let each: Vec<_> = each.collect();
        let (count, then) = (self.count, before.count);
        format!("decided {count} ({then} before it): {}", each.join(", "))
    }
}

/// `12  2026-11-23 19:58:49Z  ada  activate routing 0c43ccaa678f: why`
fn line(change: &Value) -> String {
    let text = |name: &str| change[name].as_str().unwrap_or_default();
    let digest = text("digest").get(..super::DIGEST_SHOWN).unwrap_or("");
    let what = match text("action") {
        "push" => format!(
            "push {} {} {} {digest}",
            text("kind"),
            text("name"),
            text("version")
        ),
        action @ ("activate" | "stage") if digest.is_empty() => {
            let with = match text("config") {
                "" => String::new(),
                config => format!(", with {config}"),
            };
            format!("{action} {} as the hosts were started{with}", text("kind"))
        }
        "promote" | "withdraw" => format!(
            "{} {} of revision {}",
            text("action"),
            text("kind"),
            change["stage"]
        ),
        "fell-back" => format!(
            "fell back {} from revision {} to {}",
            text("kind"),
            change["activation"],
            text("to")
        ),
        action => format!("{action} {} {digest}", text("kind")),
    };
    let back = change["reverts_to"]
        .as_u64()
        .map_or_else(String::new, |to| format!(", back to {to}"));
    let forced: Vec<_> = change["forced"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let forced = match forced.len() {
        0 => String::new(),
        _ => format!(", forced {}", forced.join(", ")),
    };
    let why = match text("message") {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let at = change["at_ms"].as_u64().unwrap_or_default();
    format!(
        "{:>4}  {}  {}  {what}{back}{forced}{why}",
        change["revision"],
        super::instant(at),
        text("by")
    )
}

const DIFF_HELP: &str = "\
Compares two activations by their numbers; without the second, with the one in use.

Examples:
  oona policy diff routing 12
  oona policy diff routing 12 15 --output json";

#[derive(Args, Debug)]
#[command(after_help = DIFF_HELP)]
pub(in crate::cli) struct Diff {
    /// The kind
    kind: Kind,
    /// The number of an activation; see `oona policy history`
    from: u64,
    /// The number of another one
    to: Option<u64>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// How two activations differ.
#[derive(Debug, Serialize)]
struct Difference {
    kind: Kind,
    from: u64,
    to: u64,
    changes: Vec<Changed>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Changed {
    what: String,
    from: Value,
    to: Value,
}

pub(super) async fn diff(args: &Diff) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let known = changes(&mut admin, Some(args.kind), u32::MAX).await?;
    let activations: Vec<_> = known
        .iter()
        .filter(|change| {
            change["action"] == "activate"
                || change["action"] == "promote"
                || change["action"] == "stage"
        })
        .collect();
    let find = |number: u64| {
        let found = activations
            .iter()
            .find(|change| change["revision"] == number);
        found.copied().cloned().ok_or_else(|| {
            Failure::Usage(format!(
                "no activation of a {} policy has number {number}; see `oona policy history {}`",
                args.kind, args.kind
            ))
        })
    };
    let last = activations
        .iter()
        .rev()
        .find(|change| change["action"] != "stage");
    let last = last
        .and_then(|change| change["revision"].as_u64())
        .unwrap_or_default();
    let to = args.to.unwrap_or(last);
    let resolve = |change: Value| match change["stage"].as_u64() {
        Some(stage) => find(stage),
        None => Ok(change),
    };
    let (from, to_change) = (resolve(find(args.from)?)?, resolve(find(to)?)?);
    let (one, other) = (
        described(&mut admin, &from).await?,
        described(&mut admin, &to_change).await?,
    );
    let mut changes = Vec::new();
    compare("", &one, &other, &mut changes);
    let difference = Difference {
        kind: args.kind,
        from: args.from,
        to,
        changes,
    };
    args.output
        .write(&difference, Difference::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// What an activation put in use: the artifact and its configuration.
async fn described(admin: &mut Admin, change: &Value) -> Result<Value, Failure> {
    let config = change["config"]
        .as_str()
        .map(serde_json::from_str::<Value>)
        .transpose();
    let config = config.context("the bus told no JSON")?.unwrap_or_default();
    let Some(digest) = change["digest"].as_str() else {
        return Ok(serde_json::json!({ "policy": "as the host was started", "config": config }));
    };
    let request = GetArtifactRequest {
        digest: digest.to_owned(),
    };
    let response = admin.get_artifact(request).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let artifact = response
        .artifact
        .context("the bus did not say what it keeps")?;
    Ok(serde_json::json!({
        "name": artifact.name,
        "version": artifact.version,
        "digest": artifact.digest,
        "size": artifact.size,
        "signed by": artifact.signatures.iter().map(|signature| &signature.key).collect::<Vec<_>>(),
        "config": config,
    }))
}

/// Every place at which two values differ.
fn compare(place: &str, one: &Value, other: &Value, changes: &mut Vec<Changed>) {
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        let keys: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
        for key in keys {
            let place = if place.is_empty() {
                key.clone()
            } else {
                format!("{place}.{key}")
            };
            let of = |object: &serde_json::Map<_, _>| object.get(key).cloned().unwrap_or_default();
            compare(&place, &of(one), &of(other), changes);
        }
    } else if one != other {
        changes.push(Changed {
            what: place.to_owned(),
            from: one.clone(),
            to: other.clone(),
        });
    }
}

impl Difference {
    fn text(&self) -> String {
        if self.changes.is_empty() {
            return format!("{} and {} are the same", self.from, self.to);
        }
        let lines = self
            .changes
            .iter()
            .map(|Changed { what, from, to }| format!("{what}\n  - {from}\n  + {to}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_effect_of_an_activation_is_told_as_shares() {
        let change = |revision: u64, decisions: Value| {
            json!({
                "revision": revision, "at_ms": 0, "by": "ada", "action": "activate",
                "kind": "routing", "digest": "0c43ccaa678f", "decisions": decisions,
            })
        };
        let other = json!({"revision": 3, "at_ms": 0, "by": "ada", "action": "push"});
        let changes = [
            change(1, json!({"type": 30})),
            change(2, json!({})),
            other,
            change(4, json!({"type": 16, "origin": 32})),
        ];
        let told = lines(&changes);
        let effect = |index: usize| {
            told[index]
                .split_once('\n')
                .map(|(_, effect)| effect.trim())
        };
        assert_eq!(effect(0), Some("decided 30: type 100.0 %"));
        assert_eq!(effect(1), None, "it has decided nothing");
        assert_eq!(effect(2), None);
        let shares = "decided 48 (30 before it): origin 0.0 % -> 66.6 %, type 100.0 % -> 33.3 %";
        assert_eq!(effect(3), Some(shares));
    }

    #[test]
    fn differences_are_told_by_their_place() {
        let mut changes = Vec::new();
        let one = json!({"name": "a", "config": {"x": 1, "y": [1]}});
        let other = json!({"name": "a", "config": {"x": 2, "z": true, "y": [1]}});
        compare("", &one, &other, &mut changes);
        let changed = |what: &str, from: Value, to: Value| Changed {
            what: what.to_owned(),
            from,
            to,
        };
        assert_eq!(
            changes,
            [
                changed("config.x", json!(1), json!(2)),
                changed("config.z", Value::Null, json!(true)),
            ]
        );
    }
}
