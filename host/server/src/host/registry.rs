//! What the registry of a host stands on: keys, tokens, the decision log, the cache.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::HostError;
use crate::access::Access;
use crate::chain::chain;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::decisions::{DecisionLog, LogFile};
use crate::gates::Trust;
use crate::policies::Policies;
use crate::registry::{Registry, RegistryOptions};
use crate::signature::{PublicKey, TrustedKeys};
use crate::store::Store;

/// Whom this host believes.
pub(super) fn trust(config: &Config) -> Result<Trust, ConfigError> {
    let keys = config.policies.trusted_keys.iter().map(|path| {
        let key = PublicKey::read(path);
        key.map_err(|error| config.refusal(&["policies", "trusted_keys"], chain(&error)))
    });
    Ok(Trust {
        keys: TrustedKeys::new(keys.collect::<Result<_, _>>()?),
        allow_unsigned: config.policies.allow_unsigned,
    })
}

/// Who may administer.
pub(super) fn access(config: &Config) -> Result<Access, ConfigError> {
    let Some(path) = &config.access.tokens_file else {
        return Ok(Access::default());
    };
    Access::read(path).map_err(|error| config.refusal(&["access", "tokens_file"], error))
}

/// The decision log, and the task that writes it.
pub(super) fn decisions(
    config: &Config,
) -> Result<(Arc<DecisionLog>, Option<JoinHandle<()>>), HostError> {
    let policies = &config.policies;
    let file = policies.record_file.clone().map(|path| LogFile {
        path,
        bytes_max: policies.record_bytes_max,
    });
    DecisionLog::new(policies.record_every, file).map_err(|source| HostError::DecisionLog {
        path: policies.record_file.clone().unwrap_or_default(),
        source,
    })
}

/// The registry in the store of this host.
pub(super) fn registry(
    config: &Config,
    store: &Arc<dyn Store>,
    policies: &Policies,
    trust: &Trust,
) -> Registry {
    let options = RegistryOptions {
        host: config.bus.host.clone(),
        trust: trust.clone(),
        cache: config.registry.cache_directory.clone(),
        poll: config.registry.poll,
    };
    Registry::new(
        Arc::clone(store),
        policies.clone(),
        options,
        clock::system(),
    )
}
