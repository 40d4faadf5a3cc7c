//! What somebody wants of the registry, and what comes of it.

use bytes::Bytes;
use oona_core::policy::Kind;
use oona_core::registry::{Action, Activation, Artifact, Choice, Revision, Signature};
use oona_core::stage::{Stage, StageMode, Thresholds};
use serde::Serialize;

use crate::gates::{Gate, GateReport, Refusal, Status};
use crate::policies::ActivationReport;
use crate::store::StoreError;

/// Which version somebody means.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// This component.
    Component(Bytes, Vec<Signature>),
    /// The artifact with this digest, or the only one whose digest begins so.
    Digest(String),
    /// The one in use, of this kind: for another configuration.
    InUse(Kind),
}

/// Who asks, and why.
#[derive(Clone, Debug, Default)]
pub struct Author {
    /// Who.
    pub by: String,
    /// Why, in his words.
    pub message: String,
}

/// How a version is to be used.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// It decides.
    Active,
    /// It is tried beside the one that decides.
    Staged(StageMode, Thresholds),
}

impl Use {
    /// The change that says so, and what was forced for it.
    pub(super) fn of(self, kind: Kind, choice: Choice, gates: &[GateReport]) -> Action {
        let forced = gates
            .iter()
            .filter(|report| report.status == Status::Forced);
        let forced = forced.map(|report| report.gate.name().to_owned()).collect();
        match self {
            Self::Active => Action::Activate {
                kind,
                choice,
                forced,
                reverts_to: None,
            },
            Self::Staged(mode, thresholds) => Action::Stage {
                kind,
                choice,
                mode,
                thresholds,
                forced,
            },
        }
    }
}

/// What somebody wants in use.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Which version.
    pub wanted: Wanted,
    /// The kind that it must be of.
    pub kind: Option<Kind>,
    /// Its configuration; that of the version in use without one.
    pub config: Option<String>,
    /// Gates that it may fail.
    pub forced: Vec<Gate>,
    /// Whether to stop after the gates.
    pub dry_run: bool,
}

/// What came of a proposal.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it did at each gate.
    pub gates: Vec<GateReport>,
    /// Its kind.
    pub kind: Kind,
    /// The artifact; none if it is what each host was started with.
    pub artifact: Option<Artifact>,
    /// The number of the change; none after a dry run.
    pub revision: Option<Revision>,
    /// What came of it on this host; none after a dry run, and of a trial.
    pub activation: Option<ActivationReport>,
}

/// Why the registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A gate was not passed. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Box<Refused>),
    /// The store does not take part, and nothing was written to the list.
    #[error("the registry cannot be reached; nothing that is in use has changed")]
    Store(#[from] StoreError),
    /// The store was asked to write the change, and its answer did not come.
    #[error(
        "the registry did not answer when the change was written: it is not known whether it is in use; \
         `oona policy history` says so once the registry answers"
    )]
    Unsure(#[source] StoreError),
    /// The store lost entries of the list meanwhile. The hosts give it back what they have.
    #[error(
        "the registry has lost entries meanwhile, and the hosts have written back what they had: \
         see `oona policy history`, and try again"
    )]
    Lost,
    /// Others write to the list all the time.
    #[error(
        "others have written to the registry all the time; nothing that is in use has changed: try again"
    )]
    Contended,
    /// This host does not come to read the list.
    #[error(
        "this host has not caught up with the registry; nothing that is in use has changed: try again"
    )]
    Behind,
    /// There is nothing of that sort.
    #[error("{0}")]
    Unknown(String),
    /// The list has the change, and this host could not follow it.
    #[error("the change is in the registry, but this host does not follow it: {0}")]
    NotFollowed(String),
    /// A task of this host ended where it should not have.
    #[error("the gates were not finished: {0}")]
    Broken(String),
}

/// A proposal that did not pass.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// Why: the first gate that it failed.
    pub refusal: Refusal,
    /// Each gate.
    pub gates: Vec<GateReport>,
}

/// What the registry says of a kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standing {
    /// The activation in use; none if the registry says nothing.
    pub active: Option<Activation>,
    /// What is tried.
    pub stage: Option<Stage>,
    /// The last activation that this host has acted upon.
    pub followed: Option<Revision>,
    /// Why this host does not follow it, if it does not.
    pub refused: Option<String>,
    /// The trial, on this host.
    pub trial: Option<TrialHere>,
}

/// What has become of a trial on one host.
#[derive(Clone, Debug, Serialize)]
pub struct TrialHere {
    /// The number of the change that began it.
    pub revision: Revision,
    /// Why this host does not try the candidate, if it does not.
    pub refused: Option<String>,
    /// Why this host has taken it back, if it has: the list may have yet to hear of it.
    pub withdrawn: Option<String>,
}
