//! Who may administer: tokens, and the rights that they give.
//!
//! Without a file of tokens everybody who reaches the port may do everything; the port is on loopback
//! then, unless that was asked for by name. With one, each call of the Admin service needs a token, in
//! the metadata `authorization: Bearer TOKEN`. The file holds no secret: only the SHA-256 of each token.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::signature::hex;

/// The longest name that somebody may give himself, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// See policies, their history, and decisions.
    #[serde(rename = "policies:read")]
    ReadPolicies,
    /// Change them: push, activate, try, roll back. Includes reading.
    #[serde(rename = "policies:write")]
    WritePolicies,
    /// See dead letters, their content included.
    #[serde(rename = "dead-letters:read")]
    ReadDeadLetters,
    /// Redrive and purge them. Includes reading.
    #[serde(rename = "dead-letters:write")]
    WriteDeadLetters,
    /// See how the bus protects itself and what it has cleared away.
    #[serde(rename = "bus:read")]
    ReadBus,
    /// Force breakers and the mode, broadcast, clear away. Includes reading.
    #[serde(rename = "bus:write")]
    WriteBus,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ReadPolicies,
        Self::WritePolicies,
        Self::ReadDeadLetters,
        Self::WriteDeadLetters,
        Self::ReadBus,
        Self::WriteBus,
    ];

    /// The name in the file of tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadPolicies => "policies:read",
            Self::WritePolicies => "policies:write",
            Self::ReadDeadLetters => "dead-letters:read",
            Self::WriteDeadLetters => "dead-letters:write",
            Self::ReadBus => "bus:read",
            Self::WriteBus => "bus:write",
        }
    }

    fn includes(self, other: Self) -> bool {
        let also = match self {
            Self::WritePolicies => Some(Self::ReadPolicies),
            Self::WriteDeadLetters => Some(Self::ReadDeadLetters),
            Self::WriteBus => Some(Self::ReadBus),
            Self::ReadPolicies | Self::ReadDeadLetters | Self::ReadBus => None,
        };
        self == other || also == Some(other)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The file of tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<Token>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// Who has it, for the audit log.
    name: String,
    /// SHA-256 of the token, in hex.
    sha256: String,
    rights: Vec<Right>,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Access(Option<Arc<Vec<Token>>>);

/// Why somebody may not do what he asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token, or one that nobody has been given.
    #[error("this host wants a token that it knows: pass it in OONA_TOKEN")]
    Unknown,
    /// The token does not allow it.
    #[error("`{name}` lacks the right {right}")]
    Lacks {
        /// Whose token.
        name: String,
        /// What it lacks.
        right: Right,
    },
}

impl Access {
    /// Reads a file of tokens.
    ///
    /// # Errors
    ///
    /// A sentence, if it cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let file: TokenFile = toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("{}:{line}: {}", path.display(), error.message())
        })?;
        for token in &file.token {
            let digits = token.sha256.len() == 64
                && token.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !digits || token.name.is_empty() || token.name.len() > NAME_BYTES_MAX {
                return Err(format!(
                    "{}: token `{}` needs a name and the 64 hex digits of its SHA-256: printf %s TOKEN | sha256sum",
                    path.display(),
                    token.name
                ));
            }
        }
        Ok(Self(Some(Arc::new(file.token))))
    }

    /// How many tokens there are. `None` if everybody may do everything.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        self.0.as_ref().map(|tokens| tokens.len())
    }

    /// The name under which somebody acts who has this token, as [`Access::who`] has it, and all that he may.
    ///
    /// # Errors
    ///
    /// If the token is not known.
    pub fn held(
        &self,
        token: Option<&str>,
        claimed: Option<&str>,
    ) -> Result<(String, Vec<Right>), Denied> {
        let may = |right: &Right| self.who(token, claimed, *right).is_ok();
        let rights: Vec<_> = Right::ALL.into_iter().filter(may).collect();
        match self.who(token, claimed, Right::ReadBus) {
            Ok(name) | Err(Denied::Lacks { name, .. }) => Ok((name, rights)),
            Err(unknown) => Err(unknown),
        }
    }

    /// The name under which somebody acts who has this token and says that he is `claimed`.
    ///
    /// # Errors
    ///
    /// If the token is not known, or does not allow what is asked for.
    pub fn who(
        &self,
        token: Option<&str>,
        claimed: Option<&str>,
        right: Right,
    ) -> Result<String, Denied> {
        let Some(tokens) = &self.0 else {
            let claimed: String = claimed
                .unwrap_or("somebody")
                .chars()
                .take(NAME_BYTES_MAX)
                .collect();
            return Ok(format!("{claimed} (not authenticated)"));
        };
        let digest = hex(&Sha256::digest(token.ok_or(Denied::Unknown)?));
        // Digests are compared, so the time it takes tells nothing about a token.
        let mut known = tokens.iter();
        let found = known.find(|known| known.sha256.eq_ignore_ascii_case(&digest));
        let found = found.ok_or(Denied::Unknown)?;
        if found.rights.iter().any(|held| held.includes(right)) {
            return Ok(found.name.clone());
        }
        Err(Denied::Lacks {
            name: found.name.clone(),
            right,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Access, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        fs::write(&path, text).unwrap();
        Access::read(&path)
    }

    #[test]
    fn a_token_gives_the_rights_it_was_given() {
        let digest = |token: &str| hex(&Sha256::digest(token));
        let text = format!(
            "[[token]]\nname = 'ada'\nsha256 = '{}'\nrights = ['policies:write']\n\
             [[token]]\nname = 'bob'\nsha256 = '{}'\nrights = ['policies:read']\n\
             [[token]]\nname = 'eve'\nsha256 = '{}'\nrights = []\n",
            digest("a"),
            digest("b").to_uppercase(),
            digest("e")
        );
        let access = file(&text).unwrap();
        let who = |token, right| {
            access
                .who(token, Some("root"), right)
                .map_err(|denied| denied.to_string())
        };
        use Right::{ReadPolicies, WritePolicies};
        let held = |token| access.held(token, None);
        let ada = vec![ReadPolicies, WritePolicies];
        assert_eq!(held(Some("a")), Ok(("ada".to_owned(), ada)));
        assert_eq!(held(Some("e")), Ok(("eve".to_owned(), Vec::new())));
        assert_eq!(held(Some("x")), Err(Denied::Unknown));
        assert_eq!(who(Some("a"), WritePolicies).unwrap(), "ada");
        assert_eq!(who(Some("a"), ReadPolicies).unwrap(), "ada");
        assert_eq!(who(Some("b"), ReadPolicies).unwrap(), "bob");
        assert_eq!(
            who(Some("b"), WritePolicies).unwrap_err(),
            "`bob` lacks the right policies:write"
        );
        assert_eq!(
            who(Some("e"), ReadPolicies).unwrap_err(),
            "`eve` lacks the right policies:read"
        );
        assert!(
            who(Some("x"), ReadPolicies)
                .unwrap_err()
                .contains("OONA_TOKEN")
        );
        assert!(who(None, ReadPolicies).unwrap_err().contains("OONA_TOKEN"));
    }

    #[test]
    fn without_a_file_everybody_may_and_it_is_said() {
        let access = Access::default();
        let who = access.who(None, Some("ada"), Right::WritePolicies);
        assert_eq!(who.unwrap(), "ada (not authenticated)");
        let (name, rights) = access.held(None, Some("console")).unwrap();
        assert_eq!((&*name, rights.len()), ("console (not authenticated)", 6));
        assert_eq!(
            access.who(None, None, Right::ReadPolicies).unwrap(),
            "somebody (not authenticated)"
        );
    }

    #[test]
    fn a_file_without_tokens_lets_nobody_in() {
        let access = file("").unwrap();
        assert_eq!(
            access.who(Some("a"), None, Right::ReadPolicies),
            Err(Denied::Unknown)
        );
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let wrong = |text: &str| file(text).unwrap_err();
        assert!(
            wrong("[[token]]\nname = 'a'\nsha = 'x'")
                .contains("tokens.toml:3: unknown field `sha`")
        );
        assert!(
            wrong("[[token]]\nname = 'a'\nsha256 = 'x'\nrights = []").contains("64 hex digits")
        );
        let right = "[[token]]\nname = 'a'\nsha256 = 'x'\nrights = ['all']";
        assert!(
            wrong(right).contains("unknown variant `all`, expected one of `policies:read`"),
            "{}",
            wrong(right)
        );
    }
}
