//! What can be wrong with a configuration, told with place, key and remedy.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The embedded default.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable of this name.
    Environment(String),
    /// A flag, as it was written.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A configuration that cannot be used: where, which key, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}", in_one_line(&format!("{origin}: {}{problem}", key_prefix(.key))))]
pub struct ConfigError {
    /// Where it was said.
    pub origin: Origin,
    /// Which key. Empty if the file as a whole is at fault.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    }
}

/// Names and values are repeated as they were given, which may be over several lines, or with what a
/// terminal takes for an order.
fn in_one_line(text: &str) -> String {
    let character = |character: char| {
        let plain = (!character.is_control()).then_some(character);
        let escaped = character.is_control().then(|| character.escape_debug());
        plain.into_iter().chain(escaped.into_iter().flatten())
    };
    text.chars().flat_map(character).collect()
}

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The file is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// There is no such key.
    #[error("unknown key; did you mean `{0}`?")]
    UnknownKey(String),
    /// There is no such key, and none that resembles it.
    #[error("unknown key; known here: {0}")]
    UnknownKeyAmong(String),
    /// There is no such variable.
    #[error("unknown; did you mean {0}?")]
    UnknownVariable(String),
    /// There is no such variable, and none that resembles it.
    #[error("unknown; variables that begin with OONA_ are settings, named after their keys")]
    UnknownVariableAtAll,
    /// The value is of another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The number is too small or too large.
    #[error("{value} is out of range; use {} to {}", range.start(), range.end())]
    OutOfRange {
        /// The number.
        value: i64,
        /// What it may be.
        range: RangeInclusive<i64>,
    },
    /// The word is none of those that are known.
    #[error("`{value}` is none of {choices}")]
    NoChoice {
        /// The word.
        value: String,
        /// Those that are known.
        choices: String,
    },
    /// The value is of the right type and still cannot be.
    #[error("{0}")]
    Invalid(String),
}
