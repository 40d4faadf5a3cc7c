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
    let silent = matches!(
        facts.store,
        StoreFacts::Trouble {
            trouble: StoreTrouble::Silent(_),
            ..
        }
    );
    Report::new(findings, !silent)
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
