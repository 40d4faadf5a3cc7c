//! Oona policies in their sandbox: load, bound, call, swap.
//!
//! The only crate that knows wasmtime, and synchronous throughout. From the outside in: an
//! [`Engine`] compiles; an [`Artifact`] is a component found to be a policy; a [`Version`] is that
//! with its configuration; an [`Instance`] of it decides. A [`Slot`] holds the version in use, lets
//! it be replaced at any moment, and gives each thread a [`Worker`] that always has an answer.

mod artifact;
mod componentize;
mod engine;
mod fault;
mod guest;
mod instance;
mod metadata;
mod patient;
mod slot;
mod symbols;
#[cfg(test)]
mod testing;
mod version;
mod wire;
mod wit;

pub use artifact::{Artifact, COMPONENT_BYTES_MAX, LABEL_BYTES_MAX, LoadError, digest};
pub use componentize::{ComponentizeError, componentize};
pub use engine::{Engine, EngineConfig, EngineError};
pub use instance::Instance;
pub use metadata::{CASES_BYTES_MAX, Metadata, MetadataError};
pub use patient::{LATE_MAX, Patient};
pub use slot::{
    Activation, Answer, Budget, Event, EventSink, Fallback, MakeNative, Native, Slot, SlotStatus,
    Worker,
};
pub use symbols::SymbolTable;
pub use version::{Names, Source, StartError, Version, VersionInfo};
pub use wire::Sandboxed;
pub use wit::{WIT, world};

/// Bytes as lower-case hex.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An error and its causes, in one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
