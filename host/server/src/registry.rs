//! The registry of policies: what every replica of the host follows.
//!
//! Artifacts are kept in the store under their digest; what is in use follows from an append-only list
//! of changes beside them ([`oona_core::registry`]). To activate is to hold the candidate against the
//! gates, keep the artifact, and append one entry: that entry is the step at which all hosts change
//! over, and whatever dies before it has changed nothing. Each host reads the list every
//! `registry.poll_ms`, and at once after it has appended itself. What it read it writes to its cache,
//! so that it starts with the same policies while the store is away.

mod cache;
mod follow;
mod proposal;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use oona_core::entry::{EntryId, Record};
use oona_core::policy::Kind;
use oona_core::registry::{
    Action, Activation, Artifact, Change, Choice, Registry as State, Revision, Signature,
};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::gates::{self, Candidate, Passage, Refusal, Trust};
use crate::policies::{ActivationReport, Policies};
use crate::store::{Append, Store, StoreError, StreamName};
use crate::sync::lock;

pub use self::follow::{Follower, begin};
pub use self::proposal::{
    Author, Outcome, Proposal, Refused, RegistryError, Standing, Use, Wanted,
};

/// The stream that holds the list of changes.
pub const LIST: &str = "oona.registry";

/// How long whoever activates waits for his own host to change over.
pub const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

/// How many changes a host holds for those who ask for the history. Older ones are in the store.
pub const CHANGES_MAX: usize = 10_000;

/// The fewest digits of a digest that name an artifact.
const DIGEST_PREFIX_MIN: usize = 6;

/// What a registry is told at the start.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// The name of this host, in the audit log.
    pub host: String,
    /// Whom this host believes.
    pub trust: Trust,
    /// Where artifacts and the list are kept beside the store; nowhere without.
    pub cache: Option<PathBuf>,
    /// How often the list is read.
    pub poll: Duration,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    policies: Policies,
    clock: Clock,
    options: RegistryOptions,
    followed: Mutex<Followed>,
    /// How far this host has followed: the last entry that it has acted upon.
    reached: watch::Sender<EntryId>,
    /// Wakes the one who follows.
    wake: Notify,
}

/// What this host has read, and what came of it here.
#[derive(Default)]
struct Followed {
    state: State,
    changes: Vec<Numbered>,
    /// What came of the last activation of each kind on this host.
    applied: BTreeMap<Kind, Applied>,
    /// Which trial of each kind runs on this host, or failed to.
    staged: BTreeMap<Kind, Revision>,
    /// What each activation has decided on this host: how often for each reason.
    mixes: BTreeMap<(Kind, Revision), Mix>,
}

/// How often each reason was given.
pub type Mix = BTreeMap<String, u64>;

/// A change and its number.
#[derive(Clone, Debug, Serialize)]
pub struct Numbered {
    /// Its number.
    pub revision: Revision,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
}

/// What came of an activation on this host.
#[derive(Clone, Debug)]
struct Applied {
    revision: Revision,
    outcome: Result<ActivationReport, String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Registry(at {})",
            lock(&self.0.followed).state.revision()
        )
    }
}

impl Registry {
    /// A registry over a store. Nothing is read before [`begin`].
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        policies: Policies,
        options: RegistryOptions,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            policies,
            clock,
            options,
            followed: Mutex::default(),
            reached: watch::channel(EntryId::MIN).0,
            wake: Notify::new(),
        }))
    }

    /// Keeps an artifact, and says in the list that it is there.
    ///
    /// # Errors
    ///
    /// If it is no policy, is not vouched for, or the store does not take it.
    pub async fn push(
        &self,
        component: Bytes,
        signatures: Vec<Signature>,
        author: &Author,
    ) -> Result<Artifact, RegistryError> {
        let (inner, bytes, held) = (Arc::clone(&self.0), component.clone(), signatures.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = inner.policies.load(None, &bytes).map_err(Refusal::from)?;
            inner
                .options
                .trust
                .check(loaded.digest(), &held)
                .map_err(Refusal::Unsigned)?;
            Ok(loaded)
        });
        let loaded = loaded
            .await
            .map_err(|error| RegistryError::Broken(error.to_string()))?;
        let loaded = loaded.map_err(|refusal| {
            Box::new(Refused {
                refusal,
                gates: Vec::new(),
            })
        })?;
        self.keep(&loaded, &component, signatures, author).await
    }

    /// Puts a version in use, on every host, or tries it there beside the one in use.
    ///
    /// # Errors
    ///
    /// If it does not pass a gate that was not forced, or the store does not take it. What is in use
    /// stays.
    pub async fn propose(
        &self,
        proposal: Proposal,
        usage: Use,
        author: &Author,
    ) -> Result<Outcome, RegistryError> {
        let (component, signatures) = self.component(&proposal.wanted).await?;
        let (inner, bytes, held) = (Arc::clone(&self.0), component.clone(), signatures.clone());
        let (config, forced) = (proposal.config, proposal.forced);
        let expected = proposal.kind;
        let passed = tokio::task::spawn_blocking(move || {
            let candidate = Candidate {
                component: &bytes,
                kind: expected,
                signatures: &held,
                config: config.as_deref(),
            };
            gates::pass(&inner.policies, &inner.options.trust, candidate, &forced)
        });
        let Passage {
            gates,
            artifact,
            config,
            refusal,
        } = passed
            .await
            .map_err(|error| RegistryError::Broken(error.to_string()))?;
        let loaded = match (refusal, artifact) {
            (None, Some(artifact)) => artifact,
            (Some(refusal), _) => {
                self.0.policies.refused(expected, &refusal);
                return Err(Box::new(Refused { refusal, gates }).into());
            }
            (None, None) => return Err(RegistryError::Broken("no artifact".to_owned())),
        };
        let kind = loaded.kind();
        if proposal.dry_run {
            let artifact = described(&loaded, component.len(), signatures);
            return Ok(Outcome {
                gates,
                artifact,
                revision: None,
                activation: None,
            });
        }
        let artifact = self.keep(&loaded, &component, signatures, author).await?;
        let choice = Choice {
            digest: Some(artifact.digest.clone()),
            config: Some(config),
        };
        let forced = gates
            .iter()
            .filter(|report| report.status == gates::Status::Forced);
        let action = match usage {
            Use::Active => Action::Activate {
                kind,
                choice,
                forced: forced.map(|report| report.gate.name().to_owned()).collect(),
                reverts_to: None,
            },
            Use::Staged(mode, thresholds) => Action::Stage {
                kind,
                choice,
                mode,
                thresholds,
            },
        };
        let (revision, activation) = self.append_and_follow(action, kind, author).await?;
        Ok(Outcome {
            gates,
            artifact,
            revision: Some(revision),
            activation,
        })
    }

    /// Goes back: to an activation by its number, or to the last before the one in use that was
    /// something else. No gate stands in the way: it has been in use.
    ///
    /// # Errors
    ///
    /// If there is nothing to go back to, or the store does not take it.
    pub async fn roll_back(
        &self,
        kind: Kind,
        to: Option<Revision>,
        author: &Author,
    ) -> Result<(Revision, Activation, Option<ActivationReport>), RegistryError> {
        self.catch_up().await?;
        let action = {
            let followed = lock(&self.0.followed);
            let target = followed.state.rollback_target(kind, to).ok_or_else(|| {
                RegistryError::Unknown(match to {
                    Some(to) => format!("no activation of a {kind} policy has number {to}: see `oona policy history {kind}`"),
                    None => format!("there is nothing to go back to: no other {kind} policy was in use before"),
                })
            })?;
            Action::Activate {
                kind,
                choice: target
                    .map(|target| target.choice.clone())
                    .unwrap_or_default(),
                forced: Vec::new(),
                reverts_to: target.map(|target| target.revision),
            }
        };
        let (revision, report) = self.append_and_follow(action, kind, author).await?;
        let active = lock(&self.0.followed).state.active(kind).cloned();
        let active = active
            .ok_or_else(|| RegistryError::Unknown("another change came between".to_owned()))?;
        Ok((revision, active, report))
    }

    /// Puts what is tried in use, or ends its trial.
    ///
    /// # Errors
    ///
    /// If nothing is tried, or the store does not take it.
    pub async fn conclude(
        &self,
        kind: Kind,
        promote: bool,
        author: &Author,
    ) -> Result<(Revision, Option<ActivationReport>), RegistryError> {
        self.catch_up().await?;
        let stage = lock(&self.0.followed)
            .state
            .stage(kind)
            .map(|stage| stage.revision);
        let stage = stage.ok_or_else(|| {
            RegistryError::Unknown(format!(
                "no {kind} policy is tried; see `oona policy shadow --help`"
            ))
        })?;
        let action = if promote {
            Action::Promote { kind, stage }
        } else {
            Action::Withdraw { kind, stage }
        };
        self.append_and_follow(action, kind, author).await
    }

    /// Writes to the list that a host took a version out. Called by those who follow.
    async fn note(&self, action: Action, message: String) -> Result<(), StoreError> {
        let author = Author {
            by: format!("host {}", self.0.options.host),
            message,
        };
        self.append(action, &author).await.map(drop)
    }

    /// The last `count` changes, of one kind or of all, oldest first; with what each activation has
    /// decided on this host.
    #[must_use]
    pub fn history(&self, kind: Option<Kind>, count: usize) -> Vec<(Numbered, Option<Mix>)> {
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
        let with_mix = |numbered: Numbered| {
            let mix = self.mix(&followed, &numbered);
            (numbered, mix)
        };
        found.into_iter().map(with_mix).collect()
    }

    fn mix(&self, followed: &Followed, numbered: &Numbered) -> Option<Mix> {
        let (Action::Activate { kind, .. } | Action::Promote { kind, .. }) =
            &numbered.change.action
        else {
            return None;
        };
        let key = (*kind, numbered.revision);
        let current = followed
            .applied
            .get(kind)
            .is_some_and(|applied| applied.revision == numbered.revision);
        if current {
            return Some(self.0.policies.mix(*kind));
        }
        followed.mixes.get(&key).cloned()
    }

    /// How often each reason was given by the policy in use, on this host.
    #[must_use]
    pub fn mix_in_use(&self, kind: Kind) -> Mix {
        self.0.policies.mix(kind)
    }

    /// What the registry says of a kind: the activation in use, the trial, and why this host does not
    /// follow, if it does not.
    #[must_use]
    pub fn standing(&self, kind: Kind) -> Standing {
        let followed = lock(&self.0.followed);
        let applied = followed.applied.get(&kind);
        Standing {
            active: followed.state.active(kind).cloned(),
            stage: followed.state.stage(kind).cloned(),
            followed: applied.map(|applied| applied.revision),
            refused: applied.and_then(|applied| applied.outcome.clone().err()),
        }
    }

    /// All artifacts.
    #[must_use]
    pub fn artifacts(&self) -> Vec<Artifact> {
        lock(&self.0.followed).state.artifacts().cloned().collect()
    }

    /// An artifact, and its bytes.
    ///
    /// # Errors
    ///
    /// If there is none with this digest, or the store does not answer.
    pub async fn artifact(&self, digest: &str) -> Result<(Artifact, Bytes), RegistryError> {
        let artifact = self.find(digest)?;
        let bytes = self.fetch(&artifact.digest).await?;
        Ok((artifact, bytes))
    }

    /// Keeps an artifact and says so, unless that is known already.
    async fn keep(
        &self,
        loaded: &oona_wasm::Artifact,
        component: &Bytes,
        signatures: Vec<Signature>,
        author: &Author,
    ) -> Result<Artifact, RegistryError> {
        let artifact = described(loaded, component.len(), signatures);
        let known = lock(&self.0.followed)
            .state
            .artifact(&artifact.digest)
            .cloned();
        let news = known.as_ref().is_none_or(|known| {
            artifact
                .signatures
                .iter()
                .any(|signature| !known.signatures.contains(signature))
        });
        if news {
            self.0
                .store
                .keep(&kept_name(&artifact.digest), component)
                .await?;
            cache::keep_artifact(self.0.options.cache.as_deref(), &artifact.digest, component);
            let (entry, _) = self.append(Action::Push(artifact.clone()), author).await?;
            self.wait(entry).await;
        }
        Ok(artifact)
    }

    /// The component that is meant, and the signatures that are known of it.
    async fn component(&self, wanted: &Wanted) -> Result<(Bytes, Vec<Signature>), RegistryError> {
        let digest = match wanted {
            Wanted::Component(bytes, signatures) => return Ok((bytes.clone(), signatures.clone())),
            Wanted::Digest(digest) => digest.clone(),
            Wanted::InUse(kind) => {
                let active = lock(&self.0.followed)
                    .state
                    .active(*kind)
                    .and_then(|active| active.choice.digest.clone());
                active.ok_or_else(|| {
                    RegistryError::Unknown(format!(
                        "the {kind} policy in use is not from the registry: name a FILE or a digest"
                    ))
                })?
            }
        };
        let (artifact, bytes) = self.artifact(&digest).await?;
        Ok((bytes, artifact.signatures))
    }

    fn find(&self, digest: &str) -> Result<Artifact, RegistryError> {
        let followed = lock(&self.0.followed);
        let mut found = followed
            .state
            .artifacts()
            .filter(|artifact| artifact.digest.starts_with(digest));
        match (found.next(), found.next()) {
            (Some(artifact), None) if digest.len() >= DIGEST_PREFIX_MIN => Ok(artifact.clone()),
            (Some(_), Some(_)) => Err(RegistryError::Unknown(format!(
                "several artifacts begin with `{digest}`: give more digits"
            ))),
            _ => Err(RegistryError::Unknown(format!(
                "the registry has no artifact `{digest}`: see `oona policy list --artifacts`"
            ))),
        }
    }

    /// The bytes of an artifact, from the cache or the store, and nothing but what its digest says.
    async fn fetch(&self, digest: &str) -> Result<Bytes, RegistryError> {
        if let Some(bytes) = cache::artifact(self.0.options.cache.as_deref(), digest) {
            return Ok(bytes);
        }
        let kept = self.0.store.kept(&kept_name(digest)).await?;
        let bytes = kept.ok_or_else(|| {
            RegistryError::Unknown(format!(
                "the bytes of artifact {digest} are gone from the store: push it again"
            ))
        })?;
        if cache::digest(&bytes) != digest {
            return Err(RegistryError::Unknown(format!(
                "the store holds other bytes under {digest}: they are not used"
            )));
        }
        cache::keep_artifact(self.0.options.cache.as_deref(), digest, &bytes);
        Ok(bytes)
    }

    async fn append_and_follow(
        &self,
        action: Action,
        kind: Kind,
        author: &Author,
    ) -> Result<(Revision, Option<ActivationReport>), RegistryError> {
        let changes_use = matches!(action, Action::Activate { .. } | Action::Promote { .. });
        let (entry, change) = self.append(action, author).await?;
        if !self.wait(entry).await {
            let seconds = FOLLOWED_WITHIN.as_secs();
            return Err(RegistryError::NotFollowed(format!(
                "it has not read it for {seconds} s"
            )));
        }
        let followed = lock(&self.0.followed);
        let mine = followed
            .changes
            .iter()
            .rev()
            .find(|numbered| numbered.change == change);
        let revision = mine.map_or_else(|| followed.state.revision(), |numbered| numbered.revision);
        if !changes_use {
            return Ok((revision, None));
        }
        match followed.applied.get(&kind) {
            Some(applied) if applied.revision == revision => match &applied.outcome {
                Ok(report) => Ok((revision, Some(report.clone()))),
                Err(reason) => Err(RegistryError::NotFollowed(reason.clone())),
            },
            // Another change came after it, and this host went there at once.
            _ => Ok((revision, None)),
        }
    }

    async fn append(
        &self,
        action: Action,
        author: &Author,
    ) -> Result<(EntryId, Change), StoreError> {
        let change = Change {
            at_ms: (self.0.clock)().as_millis(),
            by: author.by.clone(),
            message: author.message.clone(),
            action,
        };
        let json = serde_json::to_vec(&change);
        let json = json.unwrap_or_else(|error| unreachable!("a change is JSON: {error}"));
        let record = Record {
            payload: json.into(),
            signature: None,
        };
        let append = Append {
            stream: list(),
            record,
        };
        let written = self.0.store.append(&[append]).await;
        // Whatever the answer: it may have been written, and then this host follows it too.
        self.0.wake.notify_one();
        let mut written = written?;
        let entry = written
            .pop()
            .unwrap_or_else(|| unreachable!("one answer for each"))?;
        tracing::info!(target: "oona::audit", by = change.by, why = change.message, action = ?change.action, "policies");
        Ok((entry, change))
    }

    /// Follows whatever others have written, so that what is decided next is about what is in use.
    async fn catch_up(&self) -> Result<(), RegistryError> {
        let reached = Some(*self.0.reached.borrow()).filter(|reached| *reached != EntryId::MIN);
        let news = self
            .0
            .store
            .range(&list(), reached, usize::from(u16::MAX))
            .await?;
        if let Some(last) = news.last() {
            self.0.wake.notify_one();
            self.wait(last.id).await;
        }
        Ok(())
    }

    /// Waits until this host has acted upon an entry; whether it has.
    async fn wait(&self, entry: EntryId) -> bool {
        let mut reached = self.0.reached.subscribe();
        let followed = timeout(
            FOLLOWED_WITHIN,
            reached.wait_for(|reached| *reached >= entry),
        )
        .await;
        matches!(followed, Ok(Ok(_)))
    }
}

fn list() -> StreamName {
    LIST.into()
}

/// Under which name the store keeps an artifact.
fn kept_name(digest: &str) -> String {
    format!("policy:{digest}")
}

fn described(loaded: &oona_wasm::Artifact, size: usize, signatures: Vec<Signature>) -> Artifact {
    Artifact {
        digest: loaded.digest().to_owned(),
        kind: loaded.kind(),
        name: loaded.name().to_owned(),
        version: loaded.version().to_owned(),
        bytes: size as u64,
        signatures,
    }
}
