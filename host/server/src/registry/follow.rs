//! Following the list: read, fold, act.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oona_core::entry::EntryId;
use oona_core::policy::Kind;
use oona_core::registry::{Action, Activation, Choice, Revision};
use oona_core::stage::{self, Stage, Verdict};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cache::{self, Line};
use super::{Applied, CHANGES_MAX, Mix, Numbered, Registry, RegistryError, list};
use crate::chain::chain;
use crate::policies::{ActivationReport, FellBack};
use crate::store::StoreError;
use crate::sync::lock;

/// How many entries are read at once.
const PAGE: usize = 256;

/// How long the first read may take before a host goes by its cache.
const FIRST_READ: Duration = Duration::from_secs(2);

/// How many activations' decisions are remembered.
const MIXES_MAX: usize = 1_000;

/// How long after a read that failed the next one is tried.
const RETRY: Duration = Duration::from_secs(1);

/// Reads the list for the first time, and brings this host to what it says. If the store does not
/// answer, the cache says what it said last.
pub async fn begin(registry: Registry) -> Follower {
    let mut follower = Follower {
        registry,
        after: None,
        silent: false,
    };
    match timeout(FIRST_READ, follower.news()).await {
        Ok(Ok(lines)) => {
            cache::rewrite(follower.cache(), &lines);
            follower.take_in(&lines);
        }
        _ => {
            let lines = cache::list(follower.cache());
            tracing::warn!(
                changes = lines.len(),
                "the registry does not answer; going by the cache"
            );
            cache::rewrite(follower.cache(), &lines);
            follower.take_in(&lines);
        }
    }
    follower.silent = follower.act().await.is_err();
    follower
}

/// Follows the list.
#[derive(Debug)]
pub struct Follower {
    registry: Registry,
    /// The last entry that was read.
    after: Option<EntryId>,
    /// Whether the store did not answer last time, and that has been said. It is asked again soon.
    silent: bool,
}

impl Follower {
    /// Follows until `shutdown` fires.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.follow() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            self.judge().await;
            let inner = Arc::clone(&self.registry.0);
            let pause = if self.silent {
                RETRY
            } else {
                inner.options.poll
            };
            tokio::select! {
                () = inner.wake.notified(), if !self.silent => {}
                () = sleep(pause) => {}
            }
            let followed = match self.news().await {
                Ok(lines) => {
                    cache::add(self.cache(), &lines);
                    self.take_in(&lines);
                    self.act().await
                }
                Err(error) => Err(error),
            };
            let was_silent = std::mem::replace(&mut self.silent, followed.is_err());
            if let Err(error) = followed
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

    fn cache(&self) -> Option<&Path> {
        self.registry.0.options.cache.as_deref()
    }

    /// What the list has gained since it was last read.
    async fn news(&self) -> Result<Vec<Line>, StoreError> {
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let after = lines.last().map(Line::id).or(self.after);
            let page = self.registry.0.store.range(&list(), after, PAGE).await?;
            let full = page.len() == PAGE;
            lines.extend(page.into_iter().map(|entry| {
                Line {
                    at: (entry.id.ms, entry.id.seq),
                    change: entry
                        .payload()
                        .and_then(|json| serde_json::from_slice(json).ok()),
                }
            }));
            if !full {
                return Ok(lines);
            }
        }
    }

    fn take_in(&mut self, lines: &[Line]) {
        let mut followed = lock(&self.registry.0.followed);
        for line in lines {
            self.after = Some(line.id());
            let Some(change) = &line.change else {
                followed.state.pass_over();
                tracing::warn!(entry = %line.id(), "an entry of the registry is no change; every host passes it over");
                continue;
            };
            followed.state.apply(change);
            let revision = followed.state.revision();
            followed.changes.push(Numbered {
                revision,
                change: change.clone(),
            });
        }
        let surplus = followed.changes.len().saturating_sub(CHANGES_MAX);
        followed.changes.drain(..surplus);
    }

    /// Brings the policies of this host to what the list says, as far as the store lets it.
    async fn act(&self) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            let standing = self.registry.standing(kind);
            if let Some(active) = standing.active {
                self.activate(kind, &active).await?;
            }
            self.stage(kind, standing.stage).await?;
        }
        let reached = self.after.unwrap_or(EntryId::MIN);
        self.registry.0.reached.send_replace(reached);
        Ok(())
    }

    async fn activate(&self, kind: Kind, active: &Activation) -> Result<(), StoreError> {
        let registry = &self.registry;
        let done = lock(&registry.0.followed)
            .applied
            .get(&kind)
            .map(|applied| applied.revision);
        if done == Some(active.revision) {
            return Ok(());
        }
        let outcome = match self.component(&active.choice).await {
            // It is tried again soon.
            Err(RegistryError::Store(error)) => return Err(error),
            Err(refused) => Err(chain(&refused)),
            Ok(component) => {
                let policies = registry.0.policies.clone();
                let config = active.choice.config.clone();
                let activated = tokio::task::spawn_blocking(move || {
                    policies.follow(kind, component.as_deref(), config.as_deref())
                });
                match activated.await {
                    Ok(activated) => activated.map_err(|error| chain(&error)),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        self.applied(kind, done.unwrap_or(0), active.revision, outcome);
        Ok(())
    }

    fn applied(
        &self,
        kind: Kind,
        before: Revision,
        revision: Revision,
        outcome: Result<ActivationReport, String>,
    ) {
        if let Err(reason) = &outcome {
            tracing::error!(%kind, revision, reason, "this host does not follow the registry; the policy in use stays");
        }
        let mix: Mix = self.registry.0.policies.take_mix(kind);
        let mut followed = lock(&self.registry.0.followed);
        followed.mixes.insert((kind, before), mix);
        while followed.mixes.len() > MIXES_MAX {
            followed.mixes.pop_first();
        }
        followed.applied.insert(kind, Applied { revision, outcome });
    }

    async fn component(&self, choice: &Choice) -> Result<Option<bytes::Bytes>, RegistryError> {
        let Some(digest) = &choice.digest else {
            return Ok(None);
        };
        let registry = &self.registry;
        let bytes = registry.fetch(digest).await?;
        let signatures = registry.find(digest)?.signatures;
        let trusted = registry.0.options.trust.check(digest, &signatures);
        trusted
            .map_err(|reason| RegistryError::Unknown(format!("{reason} (artifact {digest})")))?;
        Ok(Some(bytes))
    }

    async fn stage(&self, kind: Kind, stage: Option<Stage>) -> Result<(), StoreError> {
        let registry = &self.registry;
        let running = lock(&registry.0.followed).staged.get(&kind).copied();
        let Some(stage) = stage else {
            if running.is_some() {
                registry.0.policies.unstage(kind);
                lock(&registry.0.followed).staged.remove(&kind);
            }
            return Ok(());
        };
        if running == Some(stage.revision) {
            return Ok(());
        }
        let revision = stage.revision;
        let staged = match self.component(&stage.choice).await {
            Err(RegistryError::Store(error)) => return Err(error),
            Err(refused) => Err(chain(&refused)),
            Ok(None) => Err("a trial needs an artifact".to_owned()),
            Ok(Some(component)) => {
                let policies = registry.0.policies.clone();
                let staged =
                    tokio::task::spawn_blocking(move || policies.stage(kind, &component, stage));
                match staged.await {
                    Ok(staged) => staged.map_err(|error| chain(&error)),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        if let Err(reason) = staged {
            tracing::error!(%kind, revision, reason, "this host does not try the candidate");
            registry.0.policies.unstage(kind);
        }
        lock(&registry.0.followed).staged.insert(kind, revision);
        Ok(())
    }

    /// Ends trials whose thresholds say so, and tells of versions that this host took out.
    async fn judge(&self) {
        let registry = &self.registry;
        let now = (registry.0.clock)();
        for kind in Kind::ALL {
            let Some(status) = registry.0.policies.staged(kind) else {
                continue;
            };
            let stage = status.stage.revision;
            let (action, reason) = match stage::judge(&status.stage, status.seen, now) {
                Verdict::Wait => continue,
                Verdict::Promote(reason) => (Action::Promote { kind, stage }, reason),
                Verdict::Withdraw(reason) => (Action::Withdraw { kind, stage }, reason),
            };
            tracing::info!(%kind, stage, reason, ?action, "a trial ends by its thresholds");
            if registry.note(action, reason).await.is_ok() {
                // What was noted is read with the next page; until then it is not noted again.
                registry.0.policies.unstage(kind);
            }
        }
        let fallen = registry.0.policies.take_fallbacks();
        for FellBack {
            kind,
            from,
            to,
            fault,
        } in fallen
        {
            let activation = lock(&registry.0.followed)
                .applied
                .get(&kind)
                .map_or(0, |applied| applied.revision);
            let action = Action::FellBack {
                kind,
                activation,
                to,
            };
            drop(
                registry
                    .note(action, format!("{from} was taken out: {fault}"))
                    .await,
            );
        }
    }
}
