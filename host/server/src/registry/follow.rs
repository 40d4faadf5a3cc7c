//! Following the list: read, fold, and have each kind act.
//!
//! One task reads; each kind is brought to its state by one of its own, so that a component that takes
//! seconds to compile keeps no other kind from going back; one judges trials, whether the store
//! answers or not, and one writes down what they find.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use oona_core::Timestamp;
use oona_core::policy::Kind;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::Hand;
use super::cache::{self, Line};
use super::{CHANGES_MAX, Followed, Numbered, Read, Registry, judge, list};
use crate::chain::chain;
use crate::store::StoreError;
use crate::sync::lock;

/// How many entries are read at once.
const PAGE: usize = 256;

/// How long the first read may take before a host goes by its cache.
const FIRST_READ: Duration = Duration::from_secs(2);

/// How long after a read that failed the next one is tried.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Reads the list for the first time, and brings this host to what it says. If the store does not
/// answer, the cache says what it said last.
pub async fn begin(registry: Registry) -> Follower {
    let cached = cache::list(registry.cache());
    if !cached.is_empty() {
        cache::rewrite(registry.cache(), &cached);
        registry.take_in(&cached);
    }
    let silent = !matches!(timeout(FIRST_READ, registry.read()).await, Ok(Ok(())));
    if silent {
        tracing::warn!(
            changes = cached.len(),
            "the registry does not answer; going by the cache"
        );
    }
    let mut hands = Kind::ALL.map(|kind| Hand::new(&registry, kind));
    join_all(hands.iter_mut().map(Hand::bring)).await;
    Follower {
        registry,
        hands,
        silent,
    }
}

/// Follows the list.
#[derive(Debug)]
pub struct Follower {
    registry: Registry,
    hands: [Hand; 4],
    /// Whether the store did not answer last time, and that has been said. It is asked again soon.
    silent: bool,
}

impl Follower {
    /// Follows until `shutdown` fires.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            registry,
            hands,
            silent,
        } = self;
        let mut tasks = JoinSet::new();
        for hand in hands {
            tasks.spawn(hand.keep_up());
        }
        tasks.spawn(judge::watch_trials(registry.clone()));
        tasks.spawn(judge::write_notes(registry.clone()));
        tasks.spawn(registry.keep_reading(silent));
        shutdown.cancelled().await;
        tasks.shutdown().await;
    }
}

impl Registry {
    async fn keep_reading(self, mut silent: bool) {
        loop {
            let inner = Arc::clone(&self.0);
            let pause = if silent { RETRY } else { inner.options.poll };
            tokio::select! {
                () = inner.wake.notified(), if !silent => {}
                () = sleep(pause) => {}
            }
            let read = self.read().await;
            let was_silent = std::mem::replace(&mut silent, read.is_err());
            if !silent {
                self.note_heard();
            }
            if let Err(error) = read
                && !was_silent
            {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "the registry does not answer; policies stay as they are"
                );
            }
        }
    }

    fn note_heard(&self) {
        let now = (self.0.clock)();
        self.0.heard_ms.store(now.as_millis(), Ordering::Relaxed);
    }

    /// When the list was last read.
    #[must_use]
    pub fn heard(&self) -> Timestamp {
        Timestamp::from_millis(self.0.heard_ms.load(Ordering::Relaxed))
    }

    /// Whether every kind has done what the list says, as far as this host has read it.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        let last = self.0.read.borrow().after;
        let reached = self.0.reached.borrow();
        let has = |kind: &Kind| reached.get(kind).copied() >= last;
        Kind::ALL.iter().all(has)
    }

    pub(super) fn cache(&self) -> Option<&Path> {
        self.0.options.cache.as_deref()
    }

    /// Takes in what the list has gained since it was last read. The entry that was read last is read
    /// again: if it is not there, the store has lost it, and maybe more.
    pub(super) async fn read(&self) -> Result<(), StoreError> {
        let last = lock(&self.0.followed).lines.last().cloned();
        let Some(last) = last else {
            return self.read_on().await;
        };
        let mut lines = self.pages(last.id().previous()).await?;
        if lines.first() != Some(&last) {
            return self.lost().await;
        }
        lines.remove(0);
        self.add(&lines);
        Ok(())
    }

    /// As [`Registry::read`], of a list of which nothing is held.
    async fn read_on(&self) -> Result<(), StoreError> {
        let after = self.0.read.borrow().after;
        let lines = self.pages(after).await?;
        self.add(&lines);
        Ok(())
    }

    /// Takes in news, and writes them to the cache.
    pub(super) fn add(&self, lines: &[Line]) {
        cache::add(self.cache(), lines);
        self.take_in(lines);
    }

    /// All entries after one.
    pub(super) async fn pages(
        &self,
        after: Option<oona_core::entry::EntryId>,
    ) -> Result<Vec<Line>, StoreError> {
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let after = lines.last().map(Line::id).or(after);
            let page = self.0.store.range(&list(), after, PAGE).await?;
            let full = page.len() == PAGE;
            lines.extend(page.iter().map(Line::of));
            if !full {
                return Ok(lines);
            }
        }
    }

    pub(super) fn take_in(&self, lines: &[Line]) {
        let Some(last) = lines.last() else { return };
        let mut followed = lock(&self.0.followed);
        lines.iter().for_each(|line| followed.take_in(line));
        drop(followed);
        self.0.read.send_modify(|read| {
            read.after = Some(last.id());
        });
    }

    /// Begins anew, with another list.
    pub(super) fn take_in_instead(&self, lines: &[Line]) {
        let mut followed = lock(&self.0.followed);
        *followed = Followed {
            here: std::mem::take(&mut followed.here),
            ..Followed::default()
        };
        lines.iter().for_each(|line| followed.take_in(line));
        drop(followed);
        self.0.read.send_modify(|read| {
            *read = Read {
                after: lines.last().map(Line::id),
                losses: read.losses + 1,
            };
        });
    }
}

impl Followed {
    fn take_in(&mut self, line: &Line) {
        use oona_core::registry::Action;
        self.lines.push(line.clone());
        if self.lines.len() > CHANGES_MAX {
            self.lines.remove(0);
        }
        let Some(change) = line.parsed() else {
            self.state.pass_over();
            tracing::warn!(entry = %line.id(), "an entry of the registry is no change; every host passes it over");
            return;
        };
        self.state.apply(&change);
        let revision = self.state.revision();
        if let Action::Push(artifact) = &change.action {
            self.pushed.insert(artifact.digest.clone(), revision);
        }
        self.changes.push(Numbered {
            entry: line.id(),
            revision,
            change,
        });
        if self.changes.len() > CHANGES_MAX {
            self.changes.remove(0);
        }
    }
}
