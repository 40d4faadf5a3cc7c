//! What commands write: results to standard output, as text or JSON, and words about them to
//! standard error.

use std::error::Error;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::chain::chain;

/// In which form a command writes its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// The flag that every command with a result has.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// For people, or for programs: one JSON object a line
    #[arg(long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

impl Output {
    /// Whether the result is for programs.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Writes one result: `value` for programs, what `text` makes of it for people.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written, for instance because the reader of a pipe has gone.
    pub fn write<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let line = match self.format {
            Format::Json => serde_json::to_string(value)?,
            Format::Text => text(value),
        };
        write_line(&line)
    }
}

/// Writes a line to standard output, at once.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn write_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Says something about the work to standard error. If nobody can be told, nobody is.
pub fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Says why a command failed: the error and, after colons, what lies behind it.
pub(super) fn complain(failure: &dyn Error) {
    say(&format!("oona: {}", chain(failure)));
}

/// `1 decision`, `0 failures`.
pub(super) fn plural(count: u64, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}
