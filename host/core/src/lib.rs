//! Every decision of the Oona host, without I/O.
//!
//! There is no runtime here, no Redis, no clock, no environment and no randomness: time and state
//! are arguments, effects are return values. The adapters in `host/server` wait, ask, and perform.

pub mod policy;
pub mod symbols;
pub mod time;

pub use time::Timestamp;
