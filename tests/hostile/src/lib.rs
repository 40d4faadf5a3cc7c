//! A routing policy that misbehaves as its configuration says: what the sandbox is tested with.
//!
//! It stands on the generated bindings rather than on the SDK's glue, which would not let it answer
//! too few decisions or too many.

#[cfg(target_arch = "wasm32")]
mod component;
mod config;

pub use config::{CONFIG_SCHEMA, Config, Mode, When};
