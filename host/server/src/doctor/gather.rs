//! Gathers facts. Nothing is judged here, and nothing is changed.
//!
//! The store is looked at before policies are compiled, one after the other: else the time that the store
//! takes to answer would be that of a busy machine.

mod address;
mod files;
mod policies;
mod redis;
mod secrets;

use std::path::PathBuf;
use std::time::Duration;

use oona_core::policy::Kind;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::facts::{Facts, Gathered, StoreFacts};
use crate::alerts::idle_rules;
use crate::config::{Config, ConfigError, StoreKind};
use crate::store::redis::Probe;

/// How long files may take, each kind of them.
const FILES_TIME_MAX: Duration = Duration::from_secs(5);

/// How long policies may take to be compiled and tried, all of them.
const POLICIES_TIME_MAX: Duration = Duration::from_secs(60);

/// Gathers what there is to know about a host of this configuration, which was read from `file`.
///
/// # Errors
///
/// If the address of the store is none.
pub async fn gather(config: &Config, file: Option<PathBuf>) -> Result<Facts, ConfigError> {
    let store = store(config).await?;
    let trust = of_files(config, files::trust).await;
    Ok(Facts {
        configuration: files::configuration(config, file),
        store,
        replicas_min: config.store.replicas_min,
        clock_skew_ms: clock_skew_ms(config),
        signing: secrets::signing(&config.signing),
        trust,
        policies: in_time(POLICIES_TIME_MAX, config, policies::policies).await,
        tokens: of_files(config, files::tokens).await,
        address: address::address(config.server.listen).await,
        descriptors: files::descriptors(config),
        idle_rules: idle_rules(&config.objectives),
        records: of_files(config, files::records).await,
    })
}

async fn store(config: &Config) -> Result<StoreFacts, ConfigError> {
    if config.store.kind == StoreKind::Memory {
        return Ok(StoreFacts::Memory);
    }
    let probe = Probe::new(config.store.url.reveal());
    // The error's source may quote the address, and the address may hold a password.
    let probe = probe.map_err(|error| config.refusal(&["store", "url"], error.to_string()))?;
    Ok(redis::redis(&probe, config).await)
}

/// What the freshness policy is told, or assumes.
fn clock_skew_ms(config: &Config) -> u64 {
    let told = &config.policies.of(Kind::Freshness).config["clock_skew_ms"];
    let assumed = || oona_policy_freshness::Config::default().clock_skew_ms;
    told.as_u64().unwrap_or_else(assumed)
}

async fn of_files<T: Send + 'static>(
    config: &Config,
    look: impl FnOnce(&Config) -> T + Send + 'static,
) -> Gathered<T> {
    in_time(FILES_TIME_MAX, config, look).await
}

/// Looks on a thread that may wait. One that waits too long is left to itself.
async fn in_time<T: Send + 'static>(
    time: Duration,
    config: &Config,
    look: impl FnOnce(&Config) -> T + Send + 'static,
) -> Gathered<T> {
    let config = config.clone();
    let looking = spawn_blocking(move || look(&config));
    timeout(time, looking).await.ok()?.ok()
}
