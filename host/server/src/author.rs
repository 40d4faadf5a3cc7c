//! What the author of a policy has without a bus: a new crate to begin with, and a build of it.

pub mod build;
mod project;
pub mod scaffold;
pub mod toolchain;

use std::env;
use std::path::PathBuf;

/// Where this tool keeps what it can make again, for this user: `$XDG_CACHE_HOME/oona`, or
/// `~/.cache/oona`.
#[must_use]
pub fn cache_directory() -> PathBuf {
    let named = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = named.map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(env::temp_dir).join("oona")
}
