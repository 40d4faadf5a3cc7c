//! `oona policy activate | shadow | canary`: another policy in the place of the one in use, or beside it.

use anyhow::Context;
use clap::Args;
use oona_core::policy::Kind;
use oona_core::stage::TimeMax;
use prost::Message as _;
use serde::Serialize;
use std::path::PathBuf;
use tonic::Status;

use super::super::client::{self, Server};
use super::super::output::{self, Output};
use super::super::{EXIT_OK, Failure};
use super::{Policy, Which, busy, config};
use crate::proto::{self, ActivatePolicyRequest, ActivatePolicyResponse, Trial};

const ACTIVATE_HELP: &str = "\
The candidate is held against the gates first: its world and imports, its signature, its
configuration, whether it starts, the laws of its kind, the cases that travel with it, and the last
decisions of the bus. One that is refused leaves the policy in use where it is. Every host of the
registry changes over; no message is lost or delayed by it.

Without POLICY the one in use gets another configuration, which is an activation too.

Examples:
  oona policy activate routing.wasm --message 'edge traffic to its own stream'
  oona policy activate 0c43ccaa678f --config routing.toml
  oona policy activate --kind backpressure --config stricter.toml
  oona policy activate routing.wasm --dry-run --output json";

#[derive(Args, Debug)]
#[command(after_help = ACTIVATE_HELP)]
pub(in crate::cli) struct Activate {
    #[command(flatten)]
    proposal: ProposalArgs,
}

const SHADOW_HELP: &str = "\
The candidate decides alongside on live traffic, on every host; what it decides is compared and
forgotten. `oona policy list` shows how often it disagrees, by pairs of reasons, with examples.
It is taken back by itself when it passes a threshold, and promoted by itself with --promote. The
reason is in the log of the host, and in `oona policy history`.

Examples:
  oona policy shadow routing.wasm
  oona policy shadow routing.wasm --disagreements-max 1% --for 10m --promote
  oona policy shadow routing.wasm --time-max 2x --at-most 1d
  oona policy promote routing";

#[derive(Args, Debug)]
#[command(after_help = SHADOW_HELP)]
pub(in crate::cli) struct Shadow {
    #[command(flatten)]
    proposal: ProposalArgs,
    #[command(flatten)]
    thresholds: ThresholdArgs,
}

const CANARY_HELP: &str = "\
The candidate decides for a share of the keys, always the same ones: a message without a key counts
by its id. For all others the policy in use decides. Both are compared, as with `oona policy shadow`.

Examples:
  oona policy canary routing.wasm --share 5%
  oona policy canary routing.wasm --share 0.5% --disagreements-max 2% --for 1h --promote";

#[derive(Args, Debug)]
#[command(after_help = CANARY_HELP)]
pub(in crate::cli) struct Canary {
    #[command(flatten)]
    proposal: ProposalArgs,
    /// For how many of the keys it decides: 0.1% to 100%
    #[arg(long, value_name = "PERCENT", value_parser = per_mille)]
    share: u32,
    #[command(flatten)]
    thresholds: ThresholdArgs,
}

#[derive(Args, Debug)]
struct ProposalArgs {
    /// The component: a file, or the digest of one in the registry (6 digits are enough)
    #[arg(value_name = "POLICY")]
    policy: Option<String>,
    /// The kind it must be of; whichever it is without it
    #[arg(long)]
    kind: Option<Kind>,
    /// Its configuration, as TOML or, if the name ends in .json, as JSON; the current one without it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Why, for the audit log
    #[arg(long, short, default_value = "", value_name = "TEXT")]
    message: String,
    /// Let it through a gate that it does not pass
    #[arg(long, value_name = "GATE")]
    force: Vec<String>,
    /// Stop after the gates, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
struct ThresholdArgs {
    /// Take it back if it disagrees on more than this share of the decisions
    #[arg(long, value_name = "PERCENT", value_parser = per_million)]
    disagreements_max: Option<u32>,
    /// Take it back after more failed calls than this
    #[arg(long, value_name = "CALLS", default_value_t = 0)]
    faults_max: u32,
    /// Take it back if it takes longer than this for a decision, in the mean of at least 100: 20us, or
    /// 1.5x the time of the one in use
    #[arg(long, value_name = "TIME", value_parser = time_max)]
    time_max: Option<TimeMax>,
    /// Take it back after this long, if nothing has promoted it
    #[arg(long = "at-most", value_name = "DURATION", default_value = "7d", value_parser = super::duration_ms)]
    trial_ms_max: u64,
    /// Promote it no sooner than this: 500ms, 30s, 10m, 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = super::duration_ms)]
    for_ms: u64,
    /// Promote it after no fewer decisions than this
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    decisions: u64,
    /// Promote it by itself then; without, `oona policy promote` does
    #[arg(long)]
    promote: bool,
}

impl ThresholdArgs {
    fn trial(&self, canary_per_mille: u32) -> Trial {
        Trial {
            canary_per_mille,
            disagreements_per_million: self.disagreements_max,
            faults: self.faults_max,
            for_ms: self.for_ms,
            decisions: self.decisions,
            promote: self.promote,
            time_ns_max: match self.time_max {
                Some(TimeMax::Ns(ns)) => Some(ns),
                _ => None,
            },
            time_percent_max: match self.time_max {
                Some(TimeMax::PercentOfInUse(percent)) => Some(percent),
                _ => None,
            },
            trial_ms_max: Some(self.trial_ms_max),
        }
    }
}

pub(super) async fn activate(args: &Activate) -> Result<u8, Failure> {
    propose(&args.proposal, None).await
}

pub(super) async fn shadow(args: &Shadow) -> Result<u8, Failure> {
    propose(&args.proposal, Some(args.thresholds.trial(0))).await
}

pub(super) async fn canary(args: &Canary) -> Result<u8, Failure> {
    propose(&args.proposal, Some(args.thresholds.trial(args.share))).await
}

async fn propose(args: &ProposalArgs, trial: Option<Trial>) -> Result<u8, Failure> {
    let which = args.policy.as_deref().map(Which::find).transpose()?;
    if which.is_none() && (args.kind.is_none() || args.config.is_none()) {
        let what =
            "name a POLICY, or --kind and --config for another configuration of the one in use";
        return Err(Failure::Usage(what.to_owned()));
    }
    let mut request = ActivatePolicyRequest {
        kind: args
            .kind
            .map_or_else(String::new, |kind| kind.name().to_owned()),
        config_json: args.config.as_deref().map(config).transpose()?,
        message: args.message.clone(),
        force: args.force.clone(),
        dry_run: args.dry_run,
        trial,
        ..Default::default()
    };
    match which {
        Some(Which::File(component, signatures)) => {
            request.component = component.into();
            request.signatures = signatures;
        }
        Some(Which::Digest(digest)) => request.digest = digest,
        None => {}
    }
    let mut admin = args.server.admin().await?;
    let trying = busy("the bus tries it");
    let response = admin.activate_policy(request).await;
    drop(trying);
    let response = response.map_err(|status| refused(&status))?.into_inner();
    let told = Told {
        tried: trial.is_some(),
        dry_run: args.dry_run,
        ..Told::new(response)?
    };
    args.output
        .write(&told, Told::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// Says how the candidate did at each gate before it says why it was refused.
fn refused(status: &Status) -> Failure {
    if let Ok(details) = ActivatePolicyResponse::decode(status.details()) {
        for gate in details.gates.into_iter().map(Gate::from) {
            output::say(&gate.text());
        }
    }
    client::failure(status)
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Told {
    policy: Option<Policy>,
    replaced: Option<Policy>,
    prepared_in_us: u64,
    revision: u64,
    gates: Vec<Gate>,
    tried: bool,
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Gate {
    gate: String,
    status: String,
    detail: String,
    took_us: u64,
}

impl From<proto::Gate> for Gate {
    fn from(gate: proto::Gate) -> Self {
        let proto::Gate {
            gate,
            status,
            detail,
            took_us,
        } = gate;
        Self {
            gate,
            status,
            detail,
            took_us,
        }
    }
}

impl Gate {
    fn text(&self) -> String {
        format!("{:<10} {:<8} {}", self.gate, self.status, self.detail)
    }
}

impl Told {
    pub(super) fn new(response: ActivatePolicyResponse) -> Result<Self, Failure> {
        let policy = response
            .policy
            .context("the bus did not say what is in use")?;
        Ok(Self {
            policy: Some(policy.into()),
            replaced: response.replaced.map(Policy::from),
            prepared_in_us: response.prepared_in_us,
            revision: response.revision,
            gates: response.gates.into_iter().map(Gate::from).collect(),
            tried: false,
            dry_run: false,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = self.gates.iter().map(Gate::text).collect();
        let policy = self.policy.as_ref().map(Policy::text).unwrap_or_default();
        if self.dry_run {
            lines.push(format!("in use:   {policy}"));
            lines.push("dry run: nothing has changed".to_owned());
            return lines.join("\n");
        }
        lines.push(format!("in use:   {policy}"));
        if self.tried {
            lines.push("the candidate is tried beside it: see `oona policy list`".to_owned());
        }
        if let Some(replaced) = &self.replaced {
            lines.push(format!("replaced: {}", replaced.text()));
        }
        let ms = self.prepared_in_us as f64 / 1_000.0;
        let took = if self.prepared_in_us > 0 {
            format!(", loaded and tried in {ms:.1} ms")
        } else {
            String::new()
        };
        lines.push(format!("revision {}{took}", self.revision));
        lines.join("\n")
    }
}

/// A time for one decision: `20us`, `500ns` or `1ms`, or `1.5x` what the one in use takes.
fn time_max(text: &str) -> Result<TimeMax, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let wrong = || format!("`{text}` is no time for a decision, such as 20us or 1.5x");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let scale = match unit {
        "x" => 100.0,
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        _ => return Err(wrong()),
    };
    let scaled = (number * scale).round();
    if !(1.0..=1e9).contains(&scaled) {
        return Err(format!(
            "`{text}` is out of range: up to 1000ms, or 10000000x"
        ));
    }
    // Within the range of either type.
    Ok(match unit {
        "x" => TimeMax::PercentOfInUse(scaled as u32),
        _ => TimeMax::Ns(scaled as u64),
    })
}

/// A share in percent, as so many of a million.
fn per_million(text: &str) -> Result<u32, String> {
    let number = text.trim_end_matches('%').trim();
    let percent: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no percentage, such as 2.5%"))?;
    if !(0.0..=100.0).contains(&percent) {
        return Err("a percentage is from 0% to 100%".to_owned());
    }
    // At most a million, and not negative.
    Ok((percent * 10_000.0).round() as u32)
}

/// A share in percent, as so many of a thousand; at least one.
fn per_mille(text: &str) -> Result<u32, String> {
    match per_million(text)? / 1_000 {
        0 => Err("a canary decides for 0.1% of the keys at least".to_owned()),
        share => Ok(share),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_or_a_ratio() {
        assert_eq!(time_max("20us"), Ok(TimeMax::Ns(20_000)));
        assert_eq!(time_max("0.5µs"), Ok(TimeMax::Ns(500)));
        assert_eq!(time_max("1ms"), Ok(TimeMax::Ns(1_000_000)));
        assert_eq!(time_max("1.5x"), Ok(TimeMax::PercentOfInUse(150)));
        for wrong in ["", "x", "20", "20s", "0x", "-1us", "1.2.3us", "2000ms"] {
            assert!(time_max(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(per_million("1%"), Ok(10_000));
        assert_eq!(per_million("0.01"), Ok(100));
        assert_eq!(per_million("100%"), Ok(1_000_000));
        assert_eq!(per_mille("5%"), Ok(50));
        assert_eq!(per_mille("0.1%"), Ok(1));
        for wrong in ["", "x", "-1%", "101%", "nan"] {
            assert!(per_million(wrong).is_err(), "{wrong}");
        }
        assert!(per_mille("0.05%").is_err());
    }
}
