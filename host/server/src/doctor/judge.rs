//! What facts mean: a pure function, tested from tables.
//!
//! An error is what keeps a host from starting, from writing, or from deciding as it is configured to. A
//! warning works today and loses or exposes something one day.

mod keys;
mod machine;
mod permissions;
mod policies;
mod redis;
#[cfg(test)]
mod tests;

use super::facts::{Facts, StoreFacts, StoreTrouble};
use super::{Finding, Report};
use crate::alerts::IdleRule;

/// What to do where something could not be found out in time.
const AGAIN: &str =
    "run `oona doctor` again; if it stays so, look at the disk and the load of this machine";

/// Judges all facts.
#[must_use]
pub fn judge(facts: &Facts) -> Report {
    let mut findings = vec![machine::configuration(&facts.configuration)];
    match &facts.store {
        StoreFacts::Memory => findings.push(memory()),
        StoreFacts::Redis(redis) => findings.extend(redis::redis(redis, facts)),
        StoreFacts::Trouble { address, trouble } => {
            findings.push(redis::trouble(address, trouble));
        }
    }
    findings.extend(keys::signing(&facts.signing));
    findings.extend(keys::trust(facts.trust.as_ref()));
    findings.extend(policies::policies(facts.policies.as_ref()));
    findings.push(keys::tokens(facts));
    findings.push(machine::address(&facts.address));
    findings.push(machine::descriptors(facts));
    findings.extend(machine::records(facts.records.as_ref()));
    findings.extend(objectives(&facts.idle_rules));
    let silent = matches!(
        facts.store,
        StoreFacts::Trouble {
            trouble: StoreTrouble::Silent(_),
            ..
        }
    );
    Report::new(findings, !silent)
}

/// Whether somebody is called before a budget is spent.
fn objectives(idle: &[IdleRule]) -> Vec<Finding> {
    const CHECK: &str = "objectives";
    if idle.is_empty() {
        return vec![Finding::ok(CHECK, "every alert on a budget can fire")];
    }
    let finding = |rule: &IdleRule| {
        let key = rule.objective.key();
        let advice = format!("promise more in `{key}`, or for less time in `objectives.period_ms`");
        Finding::warning(CHECK, rule.to_string(), advice)
    };
    idle.iter().map(finding).collect()
}

fn memory() -> Finding {
    Finding::warning(
        "store",
        "memory: not durable, what it holds ends with the process",
        "keep messages in Redis: `store.kind = \"redis\"` and `store.url`, without --dev",
    )
}

fn unknown(check: &str) -> Finding {
    Finding::warning(check, "could not be found out in time", AGAIN)
}
