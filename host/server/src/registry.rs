//! The registry of policies: what every replica of the host follows.
//!
//! Artifacts are kept in the store under their digest; what is in use follows from an append-only list
//! of changes beside them ([`oona_core::registry`]). To activate is to hold the candidate against the
//! gates, keep the artifact, and append one entry: that entry is the step at which all hosts change
//! over, and whatever dies before it has changed nothing. Who appends says what he has read last, so
//! that nothing is decided about a list that has changed meanwhile. Each host reads the list every
//! `registry.poll_ms`, and at once after it has appended itself. What it read it writes to its cache,
//! so that it starts with the same policies while the store is away, and so that a store that has lost
//! its data gets the list back from whichever host comes first.

mod apply;
mod artifacts;
mod cache;
mod follow;
mod judge;
mod list;
mod proposal;
mod restore;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use oona_core::entry::EntryId;
use oona_core::policy::Kind;
use oona_core::registry::{Action, Activation, Change, Choice, Registry as State, Revision};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use self::apply::Here;
use self::cache::Line;
use crate::clock::Clock;
use crate::gates::{self, Candidate, Passage, Trust};
use crate::policies::{ActivationReport, Policies};
use crate::store::{Store, StreamName};
use crate::sync::lock;

pub use self::follow::{Follower, begin};
pub use self::proposal::{
    Author, Outcome, Proposal, Refused, RegistryError, Standing, TrialHere, Use, Wanted,
};

/// The stream that holds the list of changes.
pub const LIST: &str = "oona.registry";

/// How long whoever activates waits for his own host to change over.
pub const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

/// How many changes a host holds for those who ask for the history. Older ones are in the store.
pub const CHANGES_MAX: usize = 10_000;

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
    /// The bytes of what is in use and tried: a store that has lost them gets them back.
    components: Mutex<BTreeMap<String, Bytes>>,
    /// What this host has to tell the list, and has not written yet.
    notes: Mutex<VecDeque<Change>>,
    /// How far this host has read.
    read: watch::Sender<Read>,
    /// How far each kind has followed: the last entry that it has acted upon.
    reached: watch::Sender<BTreeMap<Kind, EntryId>>,
    /// Wakes the one who reads.
    wake: Notify,
    /// When the list was last read, in ms since the epoch; at first, when this was made.
    heard_ms: AtomicU64,
}

/// How far a host has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Read {
    /// The last entry.
    after: Option<EntryId>,
    /// How often the store has lost entries that this host had read.
    losses: u64,
}

/// What this host has read, and what came of it here.
#[derive(Default)]
struct Followed {
    state: State,
    changes: Vec<Numbered>,
    /// The list as it was read, while it is no longer than [`CHANGES_MAX`].
    lines: Vec<Line>,
    /// When each artifact was pushed last.
    pushed: BTreeMap<String, Revision>,
    /// What came of the list on this host, by kind.
    here: BTreeMap<Kind, Here>,
    /// What each activation has decided on this host: how often for each reason. By age.
    mixes: BTreeMap<(Revision, Kind), Mix>,
}

/// How often each reason was given.
pub type Mix = BTreeMap<String, u64>;

/// A change, and what came of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// The change.
    pub change: Numbered,
    /// What it has decided on this host, if it is an activation.
    pub decisions: Option<Mix>,
    /// The gates that what it put in use was let through, in its trial too.
    pub forced: Vec<String>,
}

/// A change and its number.
#[derive(Clone, Debug, Serialize)]
pub struct Numbered {
    /// The entry that holds it.
    #[serde(skip)]
    pub entry: EntryId,
    /// Its number.
    pub revision: Revision,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
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
        let heard_ms = AtomicU64::new(clock().as_millis());
        Self(Arc::new(Inner {
            heard_ms,
            store,
            policies,
            clock,
            options,
            followed: Mutex::default(),
            components: Mutex::default(),
            notes: Mutex::default(),
            read: watch::channel(Read::default()).0,
            reached: watch::channel(BTreeMap::new()).0,
            wake: Notify::new(),
        }))
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
        self.catch_up().await?;
        if let Wanted::InUse(kind) = proposal.wanted
            && self.in_use(kind).is_none()
        {
            return self.propose_own(kind, proposal, usage, author).await;
        }
        let (component, signatures) = self.component(&proposal.wanted).await?;
        let (inner, bytes, held) = (Arc::clone(&self.0), component.clone(), signatures.clone());
        let (config, forced) = (proposal.config, proposal.forced);
        let expected = proposal.kind;
        let passed = spawn_blocking(move || {
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
            let artifact = artifacts::described(&loaded, component.len(), signatures);
            return Ok(Outcome {
                gates,
                kind,
                artifact: Some(artifact),
                revision: None,
                activation: None,
            });
        }
        let artifact = self.keep(&loaded, &component, signatures, author).await?;
        let choice = Choice {
            digest: Some(artifact.digest.clone()),
            config: Some(config),
        };
        let action = usage.of(kind, choice, &gates);
        let (revision, activation) = self.append_and_follow(action, kind, author).await?;
        Ok(Outcome {
            gates,
            kind,
            artifact: Some(artifact),
            revision: Some(revision),
            activation,
        })
    }

    /// As [`Registry::propose`]: another configuration for what each host was started with.
    async fn propose_own(
        &self,
        kind: Kind,
        proposal: Proposal,
        usage: Use,
        author: &Author,
    ) -> Result<Outcome, RegistryError> {
        let (policies, forced) = (self.0.policies.clone(), proposal.forced);
        let config = proposal
            .config
            .unwrap_or_else(|| policies.config(kind).to_string());
        let passed =
            spawn_blocking(move || gates::pass_own(&policies, kind, &config, &forced)).await;
        let Passage {
            gates,
            config,
            refusal,
            ..
        } = passed.map_err(|error| RegistryError::Broken(error.to_string()))?;
        if let Some(refusal) = refusal {
            self.0.policies.refused(Some(kind), &refusal);
            return Err(Box::new(Refused { refusal, gates }).into());
        }
        let (mut revision, mut activation) = (None, None);
        if !proposal.dry_run {
            let choice = Choice {
                digest: None,
                config: Some(config),
            };
            let action = usage.of(kind, choice, &gates);
            let (number, report) = self.append_and_follow(action, kind, author).await?;
            (revision, activation) = (Some(number), report);
        }
        Ok(Outcome {
            gates,
            kind,
            artifact: None,
            revision,
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
}

fn list() -> StreamName {
    LIST.into()
}
