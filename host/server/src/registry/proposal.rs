//! What somebody wants of the registry, and what comes of it.

use bytes::Bytes;
use oona_core::policy::Kind;
use oona_core::registry::{Activation, Artifact, Revision, Signature};
use oona_core::stage::{Stage, StageMode, Thresholds};
use serde::Serialize;

use crate::gates::{Gate, GateReport, Refusal};
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
    /// The artifact.
    pub artifact: Artifact,
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
    /// The store does not take part. What was asked may have been done if it was under way.
    #[error("the registry cannot be reached; nothing that is in use has changed")]
    Store(#[from] StoreError),
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
}
