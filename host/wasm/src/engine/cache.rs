//! Compiled policies on disk: a policy is compiled once per machine (36 ms) and loaded after that
//! (0.1 ms).
//!
//! What is loaded is machine code, so a file is believed only if nobody else could have written it:
//! the directory belongs to this user and to nobody else (mode 0700), and each file begins with the
//! digest of what follows, so that a torn or damaged one is noticed. Whatever is not believed is
//! compiled again and replaced. A file is named for the component and for everything about the
//! engine that compiled code depends on.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::hex;

/// How many compiled policies are kept; the oldest go first. One takes about 100 KiB.
const FILES_MAX: usize = 64;

/// The first bytes of a file: what it is, and in which layout.
const MAGIC: &[u8] = b"oona-compiled-1\n";

const DIGEST_BYTES: usize = 32;

/// Access bits of everybody but the owner.
const OTHERS: u32 = 0o077;

pub(super) struct Cache {
    directory: PathBuf,
    /// Tells engines apart whose code is not interchangeable.
    engine: String,
}

impl Cache {
    /// Opens the directory, and makes it if need be. Without it the engine compiles each time, so
    /// that is a warning and no error.
    pub(super) fn open(directory: &Path, engine: &Engine) -> Option<Self> {
        match prepare(directory) {
            Ok(()) => Some(Self {
                directory: directory.to_owned(),
                engine: fingerprint(engine),
            }),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "compiled policies are not kept");
                None
            }
        }
    }

    /// The compiled form of the component with this digest, if it is there and sound.
    pub(super) fn get(&self, digest: &str, engine: &Engine) -> Option<Component> {
        let path = self.path(digest);
        let file = fs::read(&path).ok()?;
        let Some(code) = sound(&file) else {
            tracing::warn!(path = %path.display(), "a damaged compiled policy is replaced");
            return None;
        };
        // SAFETY: the bytes are what `put` wrote, by the digest before them, and nobody but this
        // user can write into the directory. wasmtime checks its own version and settings besides.
        let loaded = unsafe { Component::deserialize(engine, code) };
        loaded
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "a compiled policy is replaced");
            })
            .ok()
    }

    /// Keeps a compiled component. If that fails it is compiled again next time.
    pub(super) fn put(&self, digest: &str, component: &Component) {
        let path = self.path(digest);
        let kept = component
            .serialize()
            .map_err(io::Error::other)
            .and_then(|code| replace(&path, &code))
            .and_then(|()| self.prune());
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "a compiled policy is not kept");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.directory
            .join(format!("{digest}-{}.compiled", self.engine))
    }

    /// Removes the oldest files over the limit.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort_unstable();
        let excess = files.len().saturating_sub(FILES_MAX);
        for (_, path) in files.drain(..excess) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Makes the directory for this user alone, or checks that it is so.
fn prepare(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let found = fs::metadata(directory)?;
    let own = found.uid() == rustix::process::geteuid().as_raw();
    if own && found.mode() & OTHERS == 0 {
        return Ok(());
    }
    let refused = "others can write there: it must belong to this user, with mode 0700";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
}

/// The code in a file, if the file is whole.
fn sound(file: &[u8]) -> Option<&[u8]> {
    let rest = file.strip_prefix(MAGIC)?;
    let (digest, code) = rest.split_at_checked(DIGEST_BYTES)?;
    (Sha256::digest(code).as_slice() == digest).then_some(code)
}

/// Writes beside the file and renames, so that no reader sees half of it.
fn replace(path: &Path, code: &[u8]) -> io::Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    let written = file
        .write_all(MAGIC)
        .and_then(|()| file.write_all(&Sha256::digest(code)))
        .and_then(|()| file.write_all(code))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What could not be written may not be removable either; `prune` gets it in the end.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Everything about the engine that compiled code depends on, in 16 hex digits.
fn fingerprint(engine: &Engine) -> String {
    let mut hasher = DigestHasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex(&hasher.0.finalize()[..8])
}

/// The standard library's hashers may change from one release to the next; this one does not.
struct DigestHasher(Sha256);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use oona_core::policy::Kind;

    use super::*;
    use crate::testing::{self, Guest};
    use crate::{Artifact, EngineConfig};

    fn engine(directory: &Path) -> std::sync::Arc<crate::Engine> {
        let cache_directory = Some(directory.to_owned());
        crate::Engine::new(EngineConfig {
            cache_directory,
            ..testing::config()
        })
        .unwrap()
    }

    /// Loads the guest with an engine of its own, as the next process would.
    #[track_caller]
    fn load(directory: &Path) {
        let bytes = Guest::default().component();
        let artifact = Artifact::load(&engine(directory), Kind::Routing, &bytes).unwrap();
        assert_eq!(artifact.name(), "by-hand");
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    /// Whether the next load reads the file, rather than writing it anew.
    #[track_caller]
    fn is_used(directory: &Path, path: &Path) -> bool {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        load(directory);
        fs::metadata(path).unwrap().modified().unwrap() == old
    }

    #[test]
    fn a_policy_is_compiled_once() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("compiled");
        load(&directory);
        let [file] = files(&directory).try_into().unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        assert!(is_used(&directory, &file));
    }

    #[test]
    fn what_is_damaged_or_foreign_is_compiled_again() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("compiled");
        load(&directory);
        let [file] = files(&directory).try_into().unwrap();
        let whole = fs::read(&file).unwrap();
        let flipped = {
            let mut flipped = whole.clone();
            *flipped.last_mut().unwrap() ^= 1;
            flipped
        };
        let foreign = {
            let code = b"sound, but not compiled by us";
            [MAGIC, &Sha256::digest(code), code].concat()
        };
        let damaged: [&[u8]; 6] = [
            b"",
            b"garbage",
            MAGIC,
            &whole[..whole.len() - 1],
            &flipped,
            &foreign,
        ];
        for bytes in damaged {
            fs::write(&file, bytes).unwrap();
            assert!(
                !is_used(&directory, &file),
                "{} bytes were believed",
                bytes.len()
            );
            assert_eq!(fs::read(&file).unwrap().len(), whole.len());
            assert!(is_used(&directory, &file));
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o750, 0o701] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            load(directory.path());
            assert_eq!(files(directory.path()), Vec::<PathBuf>::new(), "{mode:o}");
        }
    }

    #[test]
    fn engines_of_other_settings_do_not_share_code() {
        let directory = tempfile::tempdir().unwrap();
        let one = engine(directory.path());
        let other = Engine::new(wasmtime::Config::new().consume_fuel(true)).unwrap();
        assert_eq!(fingerprint(one.wasmtime()).len(), 16);
        assert_ne!(fingerprint(one.wasmtime()), fingerprint(&other));
    }

    #[test]
    fn the_oldest_files_go_first() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("compiled");
        load(&directory);
        for number in 0..FILES_MAX as u64 {
            let file = fs::File::create(directory.join(format!("{number}.compiled"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number))
                .unwrap();
        }
        let cache = Cache::open(&directory, engine(&directory).wasmtime()).unwrap();
        cache.prune().unwrap();
        assert_eq!(files(&directory).len(), FILES_MAX);
        assert!(!directory.join("0.compiled").exists());
        assert!(directory.join("1.compiled").exists());
    }
}
