//! Which policies are in use, and since when: the fold of an append-only list.
//!
//! The list of changes is kept in the store. Every replica of the host reads the same list in the same
//! order, and folds it here into the same state: so they agree without talking to each other, whenever
//! each of them started, and whatever was lost between two of its steps. A change that makes no sense
//! any more when it is read (its trial is over, its artifact was never pushed) is passed over by all.
//! The list is the audit log of policies too: who, when, what, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Kind;
use crate::stage::{Stage, StageMode, Thresholds};
use crate::time::Timestamp;

pub use self::attempt::Attempt;

/// Number of a change: its place in the list, from 1.
pub type Revision = u64;

/// How many activations of a kind can be gone back to. Older ones stay in the list.
pub const HISTORY_MAX: usize = 1_000;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, in ms since the epoch, by the clock of the host that wrote it.
    pub at_ms: u64,
    /// Who: the name of a token, or of a host.
    pub by: String,
    /// Why, in the words of whoever did it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// An artifact is there from now on.
    Push(Artifact),
    /// A version is in use from now on, on every host.
    Activate {
        /// The kind.
        kind: Kind,
        /// What is in use.
        #[serde(flatten)]
        choice: Choice,
        /// Gates that it did not pass, and was let through by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forced: Vec<String>,
        /// The activation that it goes back to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reverts_to: Option<Revision>,
    },
    /// A version is tried on live traffic from now on, beside the one in use.
    Stage {
        /// The kind.
        kind: Kind,
        /// What is tried.
        #[serde(flatten)]
        choice: Choice,
        /// How.
        mode: StageMode,
        /// When it is promoted or taken back by itself.
        thresholds: Thresholds,
        /// Gates that it did not pass, and was let through by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forced: Vec<String>,
    },
    /// What is tried is in use from now on.
    Promote {
        /// The kind.
        kind: Kind,
        /// The trial that this is about: any other is left alone.
        stage: Revision,
    },
    /// What is tried is no longer tried.
    Withdraw {
        /// The kind.
        kind: Kind,
        /// The trial that this is about: any other is left alone.
        stage: Revision,
    },
    /// A host took a version out that failed too often. For the record: each host protects itself.
    FellBack {
        /// The kind.
        kind: Kind,
        /// The activation that failed there; 0 for what the host was started with.
        activation: Revision,
        /// What decides there instead.
        to: String,
    },
}

/// What is in use: an artifact and its configuration, or what each host has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The artifact, by its digest. None: what the host was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its configuration, a JSON object. None: what the host was configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// A component that was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// SHA-256 of the component, in hex: its address.
    pub digest: String,
    /// Its kind.
    pub kind: Kind,
    /// The name it gives itself.
    pub name: String,
    /// The version it gives itself.
    pub version: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// A signature of an artifact. Whether it is worth anything is for each host to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The public key, as 64 hex digits.
    pub key: String,
    /// The Ed25519 signature, as 128 hex digits.
    pub signature: String,
}

/// An activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Its number.
    pub revision: Revision,
    /// What it put in use.
    #[serde(flatten)]
    pub choice: Choice,
    /// When, in ms since the epoch.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// Why.
    pub message: String,
    /// Gates that it was let through, in its trial too.
    pub forced: Vec<String>,
    /// The activation that it goes back to.
    pub reverts_to: Option<Revision>,
    /// The trial that it ended.
    pub promotes: Option<Revision>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    revision: Revision,
    artifacts: BTreeMap<String, Artifact>,
    kinds: BTreeMap<Kind, KindState>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct KindState {
    history: Vec<Activation>,
    stage: Option<Stage>,
}

impl Registry {
    /// Takes in the next change of the list. What makes no sense any more changes nothing but the
    /// number.
    pub fn apply(&mut self, change: &Change) {
        self.revision += 1;
        match &change.action {
            Action::Push(artifact) => self.push(artifact),
            Action::Activate {
                kind,
                choice,
                forced,
                reverts_to,
            } => {
                if self.knows(choice) {
                    let activation = Activation {
                        forced: forced.clone(),
                        reverts_to: *reverts_to,
                        ..self.activation(choice.clone(), change)
                    };
                    self.activate(*kind, activation);
                }
            }
            Action::Stage {
                kind,
                choice,
                mode,
                thresholds,
                forced,
            } => {
                if self.knows(choice) {
                    let stage = Stage {
                        revision: self.revision,
                        choice: choice.clone(),
                        mode: *mode,
                        thresholds: *thresholds,
                        forced: forced.clone(),
                        since: Timestamp::from_millis(change.at_ms),
                    };
                    self.kinds.entry(*kind).or_default().stage = Some(stage);
                }
            }
            Action::Promote { kind, stage } => {
                if let Some(stage) = self.take_stage(*kind, *stage) {
                    let activation = Activation {
                        promotes: Some(stage.revision),
                        forced: stage.forced,
                        ..self.activation(stage.choice, change)
                    };
                    self.activate(*kind, activation);
                }
            }
            Action::Withdraw { kind, stage } => drop(self.take_stage(*kind, *stage)),
            Action::FellBack { .. } => {}
        }
    }

    /// Counts an entry of the list that is no change: it has a number too, on every host.
    pub fn pass_over(&mut self) {
        self.revision += 1;
    }

    /// The number of the last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The artifact with this digest.
    #[must_use]
    pub fn artifact(&self, digest: &str) -> Option<&Artifact> {
        self.artifacts.get(digest)
    }

    /// All artifacts, by digest.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.artifacts.values()
    }

    /// What is in use; `None` if the registry says nothing of this kind.
    #[must_use]
    pub fn active(&self, kind: Kind) -> Option<&Activation> {
        self.kinds.get(&kind)?.history.last()
    }

    /// What is tried.
    #[must_use]
    pub fn stage(&self, kind: Kind) -> Option<&Stage> {
        self.kinds.get(&kind)?.stage.as_ref()
    }

    /// Activations of a kind, oldest first.
    #[must_use]
    pub fn history(&self, kind: Kind) -> &[Activation] {
        self.kinds.get(&kind).map_or(&[], |state| &state.history)
    }

    /// What a rollback goes back to: an activation by its number, or, without one, the last before
    /// the one in use that was something else. To go back twice goes back two steps, not forth
    /// again. `Some(None)` is what the hosts were started with.
    #[must_use]
    pub fn rollback_target(&self, kind: Kind, to: Option<Revision>) -> Option<Option<&Activation>> {
        let history = self.history(kind);
        if let Some(to) = to {
            let found = history.iter().find(|activation| activation.revision == to);
            return found.map(Some);
        }
        let current = history.last()?;
        let origin = self.origin(kind, current);
        if origin.choice == Choice::default() {
            return None;
        }
        let before = history
            .iter()
            .rev()
            .filter(|activation| activation.revision < origin.revision);
        let mut others = before.map(|activation| self.origin(kind, activation));
        Some(others.find(|activation| activation.choice != current.choice))
    }

    /// The activation that this one goes back to in the end, or itself.
    fn origin<'a>(&'a self, kind: Kind, activation: &'a Activation) -> &'a Activation {
        let mut origin = activation;
        // Each step goes to a smaller number, so this ends.
        while let Some(to) = origin.reverts_to.filter(|to| *to < origin.revision)
            && let Some(earlier) = self
                .history(kind)
                .iter()
                .find(|earlier| earlier.revision == to)
        {
            origin = earlier;
        }
        origin
    }

    fn knows(&self, choice: &Choice) -> bool {
        let digest = choice.digest.as_ref();
        digest.is_none_or(|digest| self.artifacts.contains_key(digest))
    }

    /// An artifact that is pushed again keeps what it has and gains signatures.
    fn push(&mut self, artifact: &Artifact) {
        let known = self.artifacts.entry(artifact.digest.clone());
        let known = known.or_insert_with(|| artifact.clone());
        for signature in &artifact.signatures {
            if !known.signatures.contains(signature) {
                known.signatures.push(signature.clone());
            }
        }
    }

    fn activation(&self, choice: Choice, change: &Change) -> Activation {
        Activation {
            revision: self.revision,
            choice,
            at_ms: change.at_ms,
            by: change.by.clone(),
            message: change.message.clone(),
            forced: Vec::new(),
            reverts_to: None,
            promotes: None,
        }
    }

    /// Whatever was tried was tried beside the predecessor, so its trial ends.
    fn activate(&mut self, kind: Kind, activation: Activation) {
        let state = self.kinds.entry(kind).or_default();
        state.stage = None;
        state.history.push(activation);
        if state.history.len() > HISTORY_MAX {
            state.history.remove(0);
        }
    }

    fn take_stage(&mut self, kind: Kind, revision: Revision) -> Option<Stage> {
        let stage = &mut self.kinds.get_mut(&kind)?.stage;
        stage.take_if(|stage| stage.revision == revision)
    }
}

mod attempt;

#[cfg(test)]
mod tests;
