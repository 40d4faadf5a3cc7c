//! The list of changes: writing to it, waiting until this host has followed, and what it says.

use std::time::Duration;

use oona_core::entry::{EntryId, Record};
use oona_core::policy::Kind;
use oona_core::registry::{Action, Change, Revision};
use tokio::time::timeout;

use super::apply::Here;
use super::{
    Author, FOLLOWED_WITHIN, Followed, Mix, Numbered, Registry, RegistryError, Standing, Told, list,
};
use crate::policies::ActivationReport;
use crate::store::StoreError;
use crate::sync::lock;

/// How often an entry is tried whose place others have taken.
const APPENDS_MAX: u32 = 16;

impl Registry {
    /// The last `count` changes, of one kind or of all, oldest first; with what each activation has
    /// decided on this host.
    #[must_use]
    pub fn history(&self, kind: Option<Kind>, count: usize) -> Vec<Told> {
        let followed = lock(&self.0.followed);
        let about = |numbered: &&Numbered| match &numbered.change.action {
            Action::Push(artifact) => kind.is_none_or(|kind| kind == artifact.kind),
            Action::Activate { kind: of, .. }
            | Action::Stage { kind: of, .. }
            | Action::Promote { kind: of, .. }
            | Action::Withdraw { kind: of, .. }
            | Action::FellBack { kind: of, .. } => kind.is_none_or(|kind| kind == *of),
        };
        let mut found: Vec<_> = followed
            .changes
            .iter()
            .rev()
            .filter(about)
            .take(count)
            .cloned()
            .collect();
        found.reverse();
        let told = |change: Numbered| Told {
            decisions: self.mix(&followed, &change),
            forced: forced(&followed, &change),
            change,
        };
        found.into_iter().map(told).collect()
    }

    fn mix(&self, followed: &Followed, numbered: &Numbered) -> Option<Mix> {
        let (Action::Activate { kind, .. } | Action::Promote { kind, .. }) =
            &numbered.change.action
        else {
            return None;
        };
        let applied = followed.here.get(kind).and_then(|here| here.applied());
        if applied == Some(numbered.revision) {
            return Some(self.0.policies.mix(*kind));
        }
        followed.mixes.get(&(numbered.revision, *kind)).cloned()
    }

    /// How often each reason was given by the policy in use, on this host.
    #[must_use]
    pub fn mix_in_use(&self, kind: Kind) -> Mix {
        self.0.policies.mix_of_live(kind)
    }

    /// What the registry says of a kind, and what has come of it on this host.
    #[must_use]
    pub fn standing(&self, kind: Kind) -> Standing {
        let followed = lock(&self.0.followed);
        let here = followed.here.get(&kind);
        Standing {
            active: followed.state.active(kind).cloned(),
            stage: followed.state.stage(kind).cloned(),
            followed: here.and_then(Here::applied),
            refused: here.and_then(Here::refused),
            trial: here.and_then(Here::trial),
        }
    }

    pub(super) async fn append_and_follow(
        &self,
        action: Action,
        kind: Kind,
        author: &Author,
    ) -> Result<(Revision, Option<ActivationReport>), RegistryError> {
        let changes_use = matches!(action, Action::Activate { .. } | Action::Promote { .. });
        let entry = self.append(action, author).await?;
        if !self.acted(entry, kind).await {
            let seconds = FOLLOWED_WITHIN.as_secs();
            let standing = self.standing(kind);
            let why = standing
                .refused
                .unwrap_or_else(|| format!("it has not come to it for {seconds} s"));
            return Err(RegistryError::NotFollowed(why));
        }
        let followed = lock(&self.0.followed);
        let mut latest = followed.changes.iter().rev();
        let Some(mine) = latest.find(|numbered| numbered.entry == entry) else {
            return Err(RegistryError::Lost);
        };
        let revision = mine.revision;
        if !changes_use {
            return Ok((revision, None));
        }
        let outcome = followed
            .here
            .get(&kind)
            .and_then(|here| here.outcome(revision));
        match outcome {
            Some(Ok(report)) => Ok((revision, Some(report))),
            Some(Err(reason)) => Err(RegistryError::NotFollowed(reason)),
            // Another change came after it, and this host went there at once.
            None => Ok((revision, None)),
        }
    }

    /// Writes a change to the end of the list, as this host knows it. If others were first, this host
    /// reads what they have written, and tries again.
    pub(super) async fn append(
        &self,
        action: Action,
        author: &Author,
    ) -> Result<EntryId, RegistryError> {
        let change = self.change(action, author.by.clone(), author.message.clone());
        let losses = self.0.read.borrow().losses;
        for _ in 0..APPENDS_MAX {
            match self.append_once(&change).await {
                Ok(Some(entry)) => return Ok(entry),
                Ok(None) => self.catch_up().await?,
                Err(error @ StoreError::Unavailable { .. }) => {
                    return Err(RegistryError::Unsure(error));
                }
                Err(error) => return Err(error.into()),
            }
            if self.0.read.borrow().losses != losses {
                return Err(RegistryError::Lost);
            }
        }
        Err(RegistryError::Contended)
    }

    /// What this host does now, as an entry of the list.
    pub(super) fn change(&self, action: Action, by: String, message: String) -> Change {
        Change {
            at_ms: (self.0.clock)().as_millis(),
            by,
            message,
            action,
        }
    }

    /// Writes a change, if the last entry is the one that this host has read last.
    pub(super) async fn append_once(&self, change: &Change) -> Result<Option<EntryId>, StoreError> {
        let json = serde_json::to_vec(change);
        let json = json.unwrap_or_else(|error| unreachable!("a change is JSON: {error}"));
        let record = Record {
            payload: json.into(),
            signature: None,
        };
        let last = self.0.read.borrow().after;
        let store = &self.0.store;
        let written = store.append_after(&list(), last, None, &record).await;
        // Whatever the answer: it may have been written, and then this host follows it too.
        self.0.wake.notify_one();
        let written = written?;
        if written.is_some() {
            tracing::info!(target: "oona::audit", by = change.by, why = change.message, action = ?change.action, "policies");
        }
        Ok(written)
    }

    /// Reads whatever others have written, so that what is decided next is about what is in use.
    pub(super) async fn catch_up(&self) -> Result<(), RegistryError> {
        let mut read = self.0.read.subscribe();
        let before = *read.borrow();
        let last = self.0.store.last(&list()).await?;
        if last == before.after {
            return Ok(());
        }
        self.0.wake.notify_one();
        let caught_up = read.wait_for(|read| read.after >= last || read.losses != before.losses);
        match timeout(FOLLOWED_WITHIN, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(RegistryError::Behind),
        }
    }

    /// Waits until this host has read an entry; whether it has.
    pub(super) async fn has_read(&self, entry: EntryId) -> bool {
        let mut read = self.0.read.subscribe();
        let read = read.wait_for(|read| read.after >= Some(entry));
        within(FOLLOWED_WITHIN, read).await
    }

    /// Waits until a kind has acted upon an entry; whether it has.
    async fn acted(&self, entry: EntryId, kind: Kind) -> bool {
        let mut reached = self.0.reached.subscribe();
        let acted = reached.wait_for(|reached| reached.get(&kind).is_some_and(|at| *at >= entry));
        within(FOLLOWED_WITHIN, acted).await
    }
}

/// The gates that a change let something through. A promotion carries on what its trial was let
/// through.
fn forced(followed: &Followed, numbered: &Numbered) -> Vec<String> {
    match &numbered.change.action {
        Action::Activate { forced, .. } | Action::Stage { forced, .. } => forced.clone(),
        Action::Promote { kind, .. } => {
            let mut activations = followed.state.history(*kind).iter().rev();
            let mine = activations.find(|activation| activation.revision == numbered.revision);
            mine.map_or_else(Vec::new, |activation| activation.forced.clone())
        }
        _ => Vec::new(),
    }
}

async fn within<T, E>(limit: Duration, done: impl Future<Output = Result<T, E>>) -> bool {
    matches!(timeout(limit, done).await, Ok(Ok(_)))
}
