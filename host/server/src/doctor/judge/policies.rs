//! The policies to start with.

use std::path::Path;

use super::super::Finding;
use super::super::facts::{ComponentFacts, DirectoryFacts, PoliciesFacts, PolicyFacts};
use super::unknown;

/// Where they are, and how each does.
pub(super) fn policies(policies: Option<&PoliciesFacts>) -> Vec<Finding> {
    let Some(policies) = policies else {
        return vec![unknown("policies")];
    };
    let mut findings = vec![directory(&policies.directory)];
    match &policies.loaded {
        Ok(loaded) => findings.extend(loaded.iter().map(policy)),
        Err(reason) => findings.push(Finding::error(
            "policies",
            reason.clone(),
            "correct it there; `oona policy inspect FILE` shows what a policy can be told",
        )),
    }
    findings
}

fn directory(directory: &DirectoryFacts) -> Finding {
    const CHECK: &str = "policy directory";
    match directory {
        DirectoryFacts::Found(path) => Finding::ok(CHECK, placed(path)),
        DirectoryFacts::Nowhere => Finding::note(
            CHECK,
            "none: the built-in policies decide",
            "name one in `policies.directory`, or with --policies, to replace policies by copying them",
        ),
        DirectoryFacts::Missing(path) => Finding::error(
            CHECK,
            format!("{} is no directory", placed(path)),
            format!(
                "mkdir -p {}, or correct `policies.directory`",
                path.display()
            ),
        ),
    }
}

/// A path, and what it is relative to.
fn placed(path: &Path) -> String {
    let from = if path.is_relative() {
        " (relative to the current directory)"
    } else {
        ""
    };
    format!("{}{from}", path.display())
}

fn policy(policy: &PolicyFacts) -> Finding {
    let check = format!("{} policy", policy.kind);
    let version = &policy.version;
    match &policy.component {
        ComponentFacts::None => Finding::ok(&check, format!("{version}, built in")),
        ComponentFacts::Loaded { file, vouched } => Finding::ok(
            &check,
            format!("{version} from {}, {vouched}", file.display()),
        ),
        ComponentFacts::Unsigned { file, reason } => Finding::error(
            &check,
            format!("{}: {reason}; {version} would decide", file.display()),
            format!(
                "oona policy sign {} with a key of `policies.trusted_keys`; where that is not wanted, \
                 `policies.allow_unsigned = true` and no such key",
                file.display()
            ),
        ),
        ComponentFacts::Refused { file, reason } => Finding::error(
            &check,
            format!("{}: {reason}; {version} would decide", file.display()),
            format!(
                "build it again (oona policy build) and copy it to {file}; what it is now: \
                 oona policy inspect {file}",
                file = file.display()
            ),
        ),
    }
}
