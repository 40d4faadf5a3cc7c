//! A store that has lost entries of the list: it was killed before they were on disk, or begins empty.
//!
//! Why: the list is the truth, and a host that follows what is left of it would silently go back. Each
//! host holds the list as it has read it. Trips when: the entry that it read last is not there. If what
//! is left is the beginning of what it holds, it writes the rest back, under the ids that the entries
//! had, each only after its predecessor: so hosts that do it at the same time write one list, and
//! revisions stay what they were. If others have begun a list of their own meanwhile, that is the list
//! from now on, on every host; what the old one said is put aside beside the cache, and its artifacts
//! are pushed again.

use oona_core::registry::{Action, Artifact};

use super::cache::{self, Line};
use super::follow::RETRY;
use super::{Author, Registry, list};
use crate::chain::chain;
use crate::store::StoreError;
use crate::sync::lock;

/// How often the list is compared anew, since others write to it at the same time.
const TRIES_MAX: usize = 16;

impl Registry {
    /// The store does not have what this host read last.
    pub(super) async fn lost(&self) -> Result<(), StoreError> {
        let held = self.held();
        for _ in 0..TRIES_MAX {
            let found = self.pages(None).await?;
            if held.starts_with(&found) {
                if self.write_back(&held, found.len()).await? {
                    tracing::warn!(
                        entries = held.len() - found.len(),
                        "the store had lost entries of the registry; they are written back"
                    );
                    self.0.read.send_modify(|read| read.losses += 1);
                    return Ok(());
                }
            } else if found.starts_with(&held) {
                // Somebody else was first.
                self.add(&found[held.len()..]);
                return Ok(());
            } else {
                self.follow_instead(&held, &found).await;
                return Ok(());
            }
        }
        // The next read begins again.
        tokio::time::sleep(RETRY).await;
        Ok(())
    }

    /// The whole list, as this host has read it; what is left of it, if it is too long to be held.
    fn held(&self) -> Vec<Line> {
        let followed = lock(&self.0.followed);
        let whole = followed.lines.len() as u64 == followed.state.revision();
        let lines = followed.lines.clone();
        drop(followed);
        if whole {
            return lines;
        }
        let cached = cache::list(self.cache());
        if cached.ends_with(&lines) {
            cached
        } else {
            lines
        }
    }

    /// Gives the store what it lacks; whether all of it came to its place.
    async fn write_back(&self, held: &[Line], from: usize) -> Result<bool, StoreError> {
        let artifacts: Vec<_> = lock(&self.0.followed).state.artifacts().cloned().collect();
        for artifact in &artifacts {
            self.give_back(artifact).await?;
        }
        let mut last = from.checked_sub(1).map(|index| held[index].id());
        for line in &held[from..] {
            let (id, record) = (Some(line.id()), line.record());
            let written = self
                .0
                .store
                .append_after(&list(), last, id, &record)
                .await?;
            if written.is_none() {
                return Ok(false);
            }
            last = id;
        }
        Ok(true)
    }

    /// Keeps the bytes of an artifact again, if this host has them; whether they are there now.
    async fn give_back(&self, artifact: &Artifact) -> Result<bool, StoreError> {
        match self.at_hand(&artifact.digest) {
            Some(bytes) => self
                .keep_bytes(&artifact.digest, &bytes)
                .await
                .map(|_| true),
            None => Ok(false),
        }
    }

    /// Follows another list from its beginning.
    async fn follow_instead(&self, held: &[Line], found: &[Line]) {
        tracing::error!(
            held = held.len(),
            found = found.len(),
            "the store has another list than this host had read; it is followed from its beginning, \
             and what was only in the old one has no effect any more"
        );
        let old: Vec<_> = lock(&self.0.followed).state.artifacts().cloned().collect();
        cache::put_aside(self.cache());
        cache::add(self.cache(), found);
        self.take_in_instead(found);
        let lacks = |artifact: &Artifact| {
            let followed = lock(&self.0.followed);
            followed.state.artifact(&artifact.digest).is_none()
        };
        for artifact in old.into_iter().filter(lacks) {
            let author = Author {
                by: format!("host {}", self.0.options.host),
                message: "the store had lost it".to_owned(),
            };
            match self.give_back(&artifact).await {
                Ok(true) => {
                    self.note(self.change(Action::Push(artifact), author.by, author.message));
                }
                Ok(false) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(artifact = artifact.digest, error, "it is not given back");
                }
            }
        }
    }
}
