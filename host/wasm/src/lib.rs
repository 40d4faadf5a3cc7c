//! Oona policies in their sandbox. The only crate that knows wasmtime; synchronous.

mod componentize;

pub use componentize::{ComponentizeError, componentize};
