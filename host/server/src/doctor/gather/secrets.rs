//! What is known of secrets without knowing them.

use std::env::{self, VarError};

use zeroize::Zeroizing;

use super::super::facts::{SecretFacts, SigningFacts};
use crate::config::SigningConfig;

/// Looks at the environment variables that the configuration names.
pub(super) fn signing(config: &SigningConfig) -> SigningFacts {
    let signs = read(&config.secret_env);
    let signs_with = signs.as_ref().ok().map(|secret| secret.as_str());
    let accepted = config.also_accept_env.iter().map(|variable| {
        let facts = describe(&read(variable), signs_with);
        (variable.clone(), facts)
    });
    SigningFacts {
        variable: config.secret_env.clone(),
        accepted: accepted.collect(),
        secret: describe(&signs, signs_with),
    }
}

/// What a variable holds, wiped when it is dropped.
fn read(variable: &str) -> Result<Zeroizing<String>, VarError> {
    if variable.is_empty() {
        return Err(VarError::NotPresent);
    }
    env::var(variable).map(Zeroizing::new)
}

fn describe(held: &Result<Zeroizing<String>, VarError>, signs_with: Option<&str>) -> SecretFacts {
    match held {
        Err(VarError::NotPresent) => SecretFacts::Unset,
        Err(VarError::NotUnicode(_)) => SecretFacts::NotText,
        Ok(secret) if secret.is_empty() => SecretFacts::Empty,
        Ok(secret) => SecretFacts::Set {
            bytes: secret.len(),
            padded: secret.trim().len() != secret.len(),
            signs: Some(secret.as_str()) == signs_with,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_described_and_not_told() {
        let held = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        let set = |bytes, padded, signs| SecretFacts::Set {
            bytes,
            padded,
            signs,
        };
        let table = [
            (Err(VarError::NotPresent), SecretFacts::Unset),
            (Err(VarError::NotUnicode("x".into())), SecretFacts::NotText),
            (held(""), SecretFacts::Empty),
            (held("hunter2"), set(7, false, true)),
            (held("hunter2\n"), set(8, true, false)),
            (held("another"), set(7, false, false)),
        ];
        for (held, facts) in table {
            assert_eq!(describe(&held, Some("hunter2")), facts);
        }
    }
}
