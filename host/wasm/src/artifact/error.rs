//! Why a component is refused.

use oona_core::policy::{Fault, Kind};

use super::{COMPONENT_BYTES_MAX, LABEL_BYTES_MAX};
use crate::metadata::MetadataError;
use crate::wire::{HOST, interface};

/// Why something is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is nothing.
    #[error("it is empty: no component")]
    Empty,
    /// It is larger than [`COMPONENT_BYTES_MAX`].
    #[error("it has {bytes} bytes; a component may have {COMPONENT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is a core module.
    #[error("it is a core module, not a component: make one with `oona policy componentize`")]
    CoreModule,
    /// It is something else, or damaged.
    #[error("it is not a component: {0}")]
    Invalid(String),
    /// It imports what no policy may have.
    #[error("it imports `{import}`; a policy may import `{HOST}` and nothing else")]
    ForeignImport {
        /// The name of the import.
        import: String,
    },
    /// It imports something from the host that the host does not have.
    #[error("its imports are not those of its world: {0}")]
    WrongImport(String),
    /// It exports no kind of policy.
    #[error("it exports {exports}: none of the four kinds of policy")]
    NoPolicy {
        /// What it exports instead.
        exports: String,
    },
    /// It exports more than one kind of policy.
    #[error("it exports several kinds of policy: one component is one policy")]
    SeveralKinds,
    /// It is a policy of another kind.
    #[error("it exports `{}`, expected `{}`", interface(*found), interface(*expected))]
    WrongKind {
        /// The kind that was asked for.
        expected: Kind,
        /// The kind that it is.
        found: Kind,
    },
    /// It lacks a function of its world.
    #[error("it does not export `{name}`, as a {kind} policy must")]
    MissingExport {
        /// The kind that its interface says it is.
        kind: Kind,
        /// The function.
        name: &'static str,
    },
    /// A function has not the type that its world gives it.
    #[error("its `{export}` has another type than in its world: {reason}")]
    WrongType {
        /// The function.
        export: String,
        /// How they differ.
        reason: String,
    },
    /// It failed before anything was asked of it.
    #[error("it does not start")]
    Start(#[source] Fault),
    /// It failed when asked what it is.
    #[error("it does not say what it is")]
    Describe(#[source] Fault),
    /// It gives itself a name or version that cannot be shown.
    #[error(
        "its name and its version must have 1 to {LABEL_BYTES_MAX} bytes and no control characters: \
         \"{0}\""
    )]
    Label(String),
    /// What travels with it cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}
