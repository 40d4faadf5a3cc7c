//! Secrets, from the environment variables that the configuration names. They are taken once, and
//! what is kept of them is wiped when it is dropped.

use std::env;

use oona_core::signing::{Keyring, Secret};

use crate::config::{Config, ConfigError};

/// The keys of this host; none if the variable that signs is not set.
pub(super) fn keyring(config: &Config) -> Result<Option<Keyring>, ConfigError> {
    let signing = &config.signing;
    if signing.secret_env.is_empty() {
        return Ok(None);
    }
    let accepted = signing.also_accept_env.iter().map(|variable| {
        let secret = secret(config, "also_accept_env", variable)?;
        secret.ok_or_else(|| refusal(config, "also_accept_env", variable, "is not set"))
    });
    let accepted = accepted.collect::<Result<Vec<_>, _>>()?;
    match secret(config, "secret_env", &signing.secret_env)? {
        Some(secret) => Ok(Some(Keyring::new(&secret, &accepted))),
        None if accepted.is_empty() => Ok(None),
        // Believing everything is not what somebody wants who rotates keys.
        None => Err(refusal(
            config,
            "secret_env",
            &signing.secret_env,
            "is not set",
        )),
    }
}

fn secret(config: &Config, key: &str, variable: &str) -> Result<Option<Secret>, ConfigError> {
    match env::var(variable) {
        Ok(value) => Secret::new(value)
            .map(Some)
            .map_err(|_| refusal(config, key, variable, "is empty; unset it to sign nothing")),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(refusal(config, key, variable, "is not valid UTF-8"))
        }
    }
}

fn refusal(config: &Config, key: &str, variable: &str, what: &str) -> ConfigError {
    let problem = format!("the environment variable {variable} {what}");
    config.refusal(&["signing", key], problem)
}
