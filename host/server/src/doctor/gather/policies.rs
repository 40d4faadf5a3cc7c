//! The policies, loaded by what loads them when a host starts.

use std::path::{Path, PathBuf};

use super::super::facts::{ComponentFacts, DirectoryFacts, PoliciesFacts, PolicyFacts};
use crate::chain::chain;
use crate::config::Config;
use crate::gates::Trust;
use crate::host::{component_file, policies_at_start, policy_directory};
use crate::policies::PolicyStatus;
use crate::signature::{PublicKey, TrustedKeys};
use crate::watch;

/// Compiles and tries the policies, and throws them away.
pub(super) fn policies(config: &Config) -> PoliciesFacts {
    // Nothing is kept of what is compiled here.
    let mut config = config.clone();
    config.policies.engine.cache_directory = None;
    let trust = trust(&config);
    let directory = policy_directory(config.policies.directory.as_deref());
    let policy = |status: PolicyStatus| {
        let file = component_file(&config, status.kind, directory.as_deref());
        PolicyFacts {
            kind: status.kind,
            version: status.slot.version.to_string(),
            component: component(file, status.not_started, &trust),
        }
    };
    let loaded = policies_at_start(&config, &trust);
    let loaded = loaded.map(|(policies, _)| policies.list().into_iter().map(policy).collect());
    PoliciesFacts {
        loaded: loaded.map_err(|error| chain(&error)),
        directory: found(directory),
    }
}

/// Whom a host believes, without the keys that cannot be read: those are told of elsewhere.
fn trust(config: &Config) -> Trust {
    let named = &config.policies.trusted_keys;
    let readable = named.iter().filter_map(|path| PublicKey::read(path).ok());
    Trust {
        keys: TrustedKeys::new(readable.collect()),
        // Whoever names a key wants signatures, whether it can be read or not.
        allow_unsigned: config.policies.allow_unsigned && named.is_empty(),
    }
}

fn found(directory: Option<PathBuf>) -> DirectoryFacts {
    match directory {
        None => DirectoryFacts::Nowhere,
        Some(directory) if directory.is_dir() => DirectoryFacts::Found(directory),
        Some(directory) => DirectoryFacts::Missing(directory),
    }
}

fn component(file: Option<PathBuf>, not_started: Option<String>, trust: &Trust) -> ComponentFacts {
    let Some(file) = file else {
        return ComponentFacts::None;
    };
    match (not_started, vouched(trust, &file)) {
        (None, vouched) => ComponentFacts::Loaded {
            vouched: vouched.and_then(Result::ok).unwrap_or_default(),
            file,
        },
        (Some(_), Some(Err(reason))) => ComponentFacts::Unsigned { file, reason },
        (Some(reason), _) => ComponentFacts::Refused {
            reason: without(&file, &reason),
            file,
        },
    }
}

/// A reason without the file before it.
fn without(file: &Path, reason: &str) -> String {
    let rest = reason.strip_prefix(&*file.display().to_string());
    rest.unwrap_or(reason).trim_start().to_owned()
}

/// Who vouches for a file, or why nobody does; nothing if it cannot be read.
fn vouched(trust: &Trust, file: &Path) -> Option<Result<String, String>> {
    let component = watch::read(file).ok()?;
    Some(trust.check_file(file, &component))
}
