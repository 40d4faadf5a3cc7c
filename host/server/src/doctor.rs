//! What stands between a configuration and a bus that works, and what to do about it.
//!
//! Facts are gathered first ([`gather`]), each within a deadline and without changing anything: the store
//! is only read, policies are compiled and thrown away. Then they are judged ([`judge`]), which is a pure
//! function. What a fact means, and what to do about it, is said there and nowhere else.

pub mod facts;
mod gather;
mod judge;

use serde::Serialize;

pub use self::gather::gather;
pub use self::judge::judge;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and is worth knowing.
    Note,
    /// Works, and will hurt one day: something may be lost, or somebody may do what he should not.
    Warning,
    /// Does not work, or not as it is configured.
    Error,
}

impl Level {
    /// The name, in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do. There is always something to do about a warning or an error.
    pub advice: Option<String>,
}

impl Finding {
    /// What was found may quote others, who write over several lines.
    fn ok(check: &str, found: impl Into<String>) -> Self {
        let found = found.into();
        Self {
            check: check.to_owned(),
            level: Level::Ok,
            found: found.split_whitespace().collect::<Vec<_>>().join(" "),
            advice: None,
        }
    }

    fn note(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Note,
            advice: Some(advice.into()),
            ..Self::ok(check, found)
        }
    }

    fn warning(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::note(check, found, advice)
        }
    }

    fn error(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            ..Self::note(check, found, advice)
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing is an error.
    pub healthy: bool,
    /// Whether the store answers.
    pub store_answers: bool,
    /// How many findings are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// Each, in the order in which a host meets what it is about.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(findings: Vec<Finding>, store_answers: bool) -> Self {
        let count = |level| {
            let of_it = findings.iter().filter(|finding| finding.level == level);
            of_it.count()
        };
        let errors = count(Level::Error);
        Self {
            healthy: errors == 0,
            store_answers,
            errors,
            warnings: count(Level::Warning),
            findings,
        }
    }
}
