//! Files that are read or written at start, and how many may be open.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access as Permission, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::super::facts::{
    ConfigurationFacts, DescriptorFacts, FileFacts, RecordFacts, TokensFacts, TrustFacts,
};
use crate::access::Access;
use crate::chain::chain;
use crate::config::{Config, Origin};
use crate::signature::PublicKey;

/// That others than owner and group may read a file.
const READ_BY_ALL: u32 = 0o004;

/// That others than the owner may write a file.
const WRITTEN_BY_OTHERS: u32 = 0o022;

/// Where the configuration came from.
pub(super) fn configuration(config: &Config, file: Option<PathBuf>) -> ConfigurationFacts {
    let url = &config.store.url;
    // What is left out when it is shown are user and password.
    let secret = url.reveal() != url.to_string();
    let in_file = matches!(config.locate(&["store", "url"]), Some(Origin::File { .. }));
    ConfigurationFacts {
        holds_password: secret && in_file,
        readable_by_all: file
            .as_deref()
            .is_some_and(|file| allows(file, READ_BY_ALL)),
        file,
    }
}

fn allows(file: &Path, mode: u32) -> bool {
    fs::metadata(file).is_ok_and(|found| found.permissions().mode() & mode != 0)
}

fn described(path: &Path, problem: Option<String>) -> FileFacts {
    FileFacts {
        path: path.to_owned(),
        problem,
        writable_by_others: allows(path, WRITTEN_BY_OTHERS),
    }
}

/// Whose signatures of policies count.
pub(super) fn trust(config: &Config) -> TrustFacts {
    let keys = config.policies.trusted_keys.iter().map(|path| {
        let problem = PublicKey::read(path).err().map(|error| chain(&error));
        described(path, problem)
    });
    TrustFacts {
        allow_unsigned: config.policies.allow_unsigned,
        keys: keys.collect(),
    }
}

/// The file of tokens.
pub(super) fn tokens(config: &Config) -> Option<TokensFacts> {
    let path = config.access.tokens_file.as_deref()?;
    let access = Access::read(path);
    Some(TokensFacts {
        count: access.as_ref().ok().and_then(Access::count).unwrap_or(0),
        file: described(path, access.err()),
    })
}

/// How many files may be open.
pub(super) fn descriptors(config: &Config) -> DescriptorFacts {
    DescriptorFacts {
        limit: getrlimit(Resource::Nofile).current,
        connections_max: config.server.connections_max,
        subscribers_max: config.server.subscribers_max,
    }
}

/// The file of decisions, and the room for it. The one before it has the same name with `.1`.
pub(super) fn records(config: &Config) -> Option<RecordFacts> {
    let path = config.policies.record_file.clone()?;
    let mut before = path.clone().into_os_string();
    before.push(".1");
    let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let held = size(&path) + size(Path::new(&before));
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let room = statvfs(directory).ok();
    Some(RecordFacts {
        problem: not_writable(&path, directory),
        growth_bytes: (2 * config.policies.record_bytes_max).saturating_sub(held),
        free_bytes: room.map(|room| room.f_bavail.saturating_mul(room.f_frsize)),
        path,
    })
}

/// Why a file cannot be written in a directory, if it cannot.
fn not_writable(path: &Path, directory: &Path) -> Option<String> {
    if !directory.is_dir() {
        return Some(format!("{} is no directory", directory.display()));
    }
    if path.is_dir() {
        return Some(format!("{} is a directory", path.display()));
    }
    let both = [Some(directory), path.exists().then_some(path)];
    let mut refused = both.into_iter().flatten().filter_map(|place| {
        let error = access(place, Permission::WRITE_OK).err()?;
        Some(format!("{} cannot be written: {error}", place.display()))
    });
    refused.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_file_can_be_written_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let told = |path: &Path| not_writable(path, path.parent().unwrap());
        assert_eq!(told(&here.join("records")), None);
        let nowhere = told(&here.join("nowhere/records")).unwrap();
        assert!(nowhere.ends_with("nowhere is no directory"), "{nowhere}");
        let itself = told(here).unwrap();
        assert!(itself.ends_with(" is a directory"), "{itself}");
    }

    #[test]
    fn who_may_write_a_file_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for (mode, open) in [(0o600, false), (0o644, false), (0o664, true), (0o602, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(described(&file, None).writable_by_others, open, "{mode:o}");
        }
    }
}
