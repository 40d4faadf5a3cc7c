//! Watches the policy directory, and puts in use what is copied into it.
//!
//! A file that is being written is not a policy yet: a path is looked at when nothing has happened
//! to it for [`QUIET`]. What still does not load then is looked at once more after [`SECOND_LOOK`],
//! and refused with its reason if it is no better; the policy in use stays. Writing the same bytes
//! again does nothing, and neither does removing a file.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use oona_wasm::COMPONENT_BYTES_MAX;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::gates::Trust;
use crate::policies::{ActivateError, Policies};

/// How long nothing must have happened to a file before it is looked at.
pub const QUIET: Duration = Duration::from_millis(200);

/// How long after a look that failed the next and last one is taken.
pub const SECOND_LOOK: Duration = Duration::from_millis(500);

/// How many files may wait to be looked at. What happens to more of them is logged and passed over.
pub const FILES_MAX: usize = 64;

/// Why a directory is not watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", directory.display())]
pub struct WatchError {
    /// Which.
    pub directory: PathBuf,
    #[source]
    source: notify::Error,
}

/// Begins to watch `directory`, until `shutdown` fires.
///
/// # Errors
///
/// If the system cannot watch it, for instance because it is not there.
pub fn watch(
    directory: &Path,
    policies: Policies,
    trust: Trust,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, WatchError> {
    let inbox = Arc::new(Inbox::default());
    let outside = Arc::clone(&inbox);
    let refused = |source| WatchError {
        directory: directory.to_owned(),
        source,
    };
    let mut watcher =
        notify::recommended_watcher(move |event| outside.take_in(event)).map_err(refused)?;
    watcher
        .watch(directory, RecursiveMode::NonRecursive)
        .map_err(refused)?;
    let task = Task {
        inbox,
        policies,
        trust,
        waiting: Waiting::default(),
        seen: BTreeMap::new(),
    };
    Ok(tokio::spawn(task.run(watcher, shutdown)))
}

/// Paths that something has happened to. Filled by the watcher's own thread.
#[derive(Default)]
struct Inbox {
    paths: Mutex<BTreeSet<PathBuf>>,
    filled: Notify,
}

impl Inbox {
    fn take_in(&self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "watching the policy directory");
                return;
            }
        };
        // Looking at a file is no change, or each look would call for the next one.
        let wrote = !matches!(event.kind, EventKind::Access(access) if !is_close_write(access));
        if !wrote || matches!(event.kind, EventKind::Remove(_)) {
            return;
        }
        let mut paths = self.paths();
        for path in event.paths.into_iter().filter(|path| is_component(path)) {
            if paths.len() < FILES_MAX {
                paths.insert(path);
            } else {
                tracing::warn!(path = %path.display(), "passed over: too many files at once");
            }
        }
        drop(paths);
        self.filled.notify_one();
    }

    fn paths(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_close_write(access: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    access == AccessKind::Close(AccessMode::Write)
}

fn is_component(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "wasm")
}

/// Paths, and when each is to be looked at.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<PathBuf, Look>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    at: Instant,
    second: bool,
}

impl Waiting {
    /// Something has happened to a path: it is looked at when it has been quiet for long enough.
    fn touched(&mut self, path: PathBuf, now: Instant) {
        if self.0.len() >= FILES_MAX && !self.0.contains_key(&path) {
            tracing::warn!(path = %path.display(), "passed over: too many files at once");
            return;
        }
        self.0.insert(
            path,
            Look {
                at: now + QUIET,
                second: false,
            },
        );
    }

    /// The first look has failed: there will be a second one, unless something happens before.
    fn failed(&mut self, path: PathBuf, now: Instant) {
        self.0.entry(path).or_insert(Look {
            at: now + SECOND_LOOK,
            second: true,
        });
    }

    /// The next path whose time has come, and whether this is its second look.
    fn due(&mut self, now: Instant) -> Option<(PathBuf, bool)> {
        let due = self.0.iter().find(|(_, look)| look.at <= now);
        let (path, look) = due.map(|(path, look)| (path.clone(), *look))?;
        self.0.remove(&path);
        Some((path, look.second))
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|look| look.at).min()
    }
}

struct Task {
    inbox: Arc<Inbox>,
    policies: Policies,
    trust: Trust,
    waiting: Waiting,
    /// What each path held when it was last looked at.
    seen: BTreeMap<PathBuf, u64>,
}

impl Task {
    /// Runs until shutdown. The watcher watches as long as it lives.
    async fn run(mut self, watcher: RecommendedWatcher, shutdown: CancellationToken) {
        loop {
            let next = self.waiting.next();
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.inbox.filled.notified() => self.take_over(),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            while let Some((path, second)) = self.waiting.due(Instant::now()) {
                self.look(path, second).await;
            }
        }
        drop(watcher);
    }

    fn take_over(&mut self) {
        let now = Instant::now();
        for path in std::mem::take(&mut *self.inbox.paths()) {
            self.waiting.touched(path, now);
        }
    }

    async fn look(&mut self, path: PathBuf, second: bool) {
        let (policies, trust) = (self.policies.clone(), self.trust.clone());
        let seen = self.seen.get(&path).copied();
        let at = path.clone();
        let looked = move || activate(&policies, &trust, &at, seen);
        let looked = tokio::task::spawn_blocking(looked).await;
        let shown = path.display();
        match looked {
            Ok(Ok(Looked::Unchanged)) => {
                tracing::debug!(path = %shown, "the same policy as before");
            }
            Ok(Ok(Looked::Activated { hash, told })) => {
                tracing::info!(path = %shown, "policy in use: {told}");
                // Forgetting costs no more than an activation of the same bytes.
                if self.seen.len() >= FILES_MAX {
                    self.seen.clear();
                }
                self.seen.insert(path, hash);
            }
            Ok(Err(refused)) if second => {
                tracing::warn!(path = %shown, reason = %refused, "policy refused; the current one stays");
            }
            Ok(Err(refused)) => {
                tracing::debug!(path = %shown, reason = %refused, "not a policy yet");
                self.waiting.failed(path, Instant::now());
            }
            Err(panicked) => {
                tracing::error!(path = %shown, error = %panicked, "policy not checked");
            }
        }
    }
}

enum Looked {
    Unchanged,
    Activated { hash: u64, told: String },
}

/// Why a file was not put in use.
fn activate(
    policies: &Policies,
    trust: &Trust,
    path: &Path,
    seen: Option<u64>,
) -> Result<Looked, String> {
    let bytes = read(path).map_err(|error| error.to_string())?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let hash = hasher.finish();
    if seen == Some(hash) {
        return Ok(Looked::Unchanged);
    }
    trust.check_file(path, &bytes)?;
    let kind = policies
        .load(None, &bytes)
        .map_err(|error| chain(&error))?
        .kind();
    if policies.is_followed(kind) {
        return Err(ActivateError::Followed(kind).to_string());
    }
    let report = policies
        .activate(Some(kind), &bytes, None)
        .map_err(|error| chain(&error))?;
    Ok(Looked::Activated {
        hash,
        told: report.to_string(),
    })
}

/// Reads a component, unless it is larger than any may be.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > COMPONENT_BYTES_MAX as u64 {
        let what = format!("{size} bytes, and the limit is {COMPONENT_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_file_is_looked_at_when_it_has_been_quiet() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        waiting.touched("a.wasm".into(), start);
        waiting.touched("a.wasm".into(), start + 100 * MS);
        assert_eq!(waiting.next(), Some(start + 300 * MS));
        assert_eq!(waiting.due(start + 299 * MS), None);
        assert_eq!(
            waiting.due(start + 300 * MS),
            Some(("a.wasm".into(), false))
        );
        assert_eq!(waiting.due(start + 300 * MS), None);
        assert_eq!(waiting.next(), None);
    }

    #[test]
    fn a_failed_look_is_repeated_once_unless_the_file_changes() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        waiting.failed("a.wasm".into(), start);
        assert_eq!(waiting.due(start + 499 * MS), None);
        assert_eq!(waiting.due(start + 500 * MS), Some(("a.wasm".into(), true)));
        // Something happened while it was looked at: that counts, not the failure.
        waiting.touched("a.wasm".into(), start);
        waiting.failed("a.wasm".into(), start);
        assert_eq!(
            waiting.due(start + 200 * MS),
            Some(("a.wasm".into(), false))
        );
    }

    #[test]
    fn only_what_was_written_counts() {
        use notify::event::{AccessKind, AccessMode, CreateKind, RemoveKind};
        let table = [
            (EventKind::Create(CreateKind::File), "a.wasm", true),
            (EventKind::Create(CreateKind::File), "a.wasm.part", false),
            (
                EventKind::Access(AccessKind::Close(AccessMode::Write)),
                "a.wasm",
                true,
            ),
            (
                EventKind::Access(AccessKind::Close(AccessMode::Read)),
                "a.wasm",
                false,
            ),
            (
                EventKind::Access(AccessKind::Open(AccessMode::Any)),
                "a.wasm",
                false,
            ),
            (EventKind::Remove(RemoveKind::File), "a.wasm", false),
        ];
        for (kind, path, counts) in table {
            let inbox = Inbox::default();
            inbox.take_in(Ok(Event::new(kind).add_path(path.into())));
            assert_eq!(
                inbox.paths().contains(Path::new(path)),
                counts,
                "{kind:?} {path}"
            );
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let inbox = Inbox::default();
        for n in 0..2 * FILES_MAX {
            let kind = EventKind::Create(notify::event::CreateKind::File);
            inbox.take_in(Ok(Event::new(kind).add_path(format!("{n}.wasm").into())));
        }
        assert_eq!(inbox.paths().len(), FILES_MAX);
    }
}
