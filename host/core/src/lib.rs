//! Every decision of the Oona host, without I/O.
//!
//! There is no runtime here, no Redis, no clock, no environment and no randomness: time and state
//! are arguments, effects are return values. The adapters in `host/server` wait, ask, and perform.

pub mod alert;
pub mod breaker;
pub mod broadcast;
pub mod bucket;
pub mod budget;
pub mod conservative;
pub mod dead_letter;
pub mod delivery;
pub mod depth;
pub mod entry;
pub mod envelope;
pub mod force;
pub mod journey;
pub mod lanes;
pub mod leyline;
pub mod limits;
pub mod minute;
pub mod nonces;
pub mod objective;
pub mod outage;
pub mod outcome;
pub mod policy;
pub mod registry;
pub mod rolling;
pub mod sampling;
pub mod schedule;
pub mod signing;
pub mod slo;
pub mod stage;
pub mod symbols;
pub mod telemetry;
pub mod time;
pub mod trace_context;
pub mod trend;

pub use entry::{Entry, EntryId, Record};
pub use envelope::Message;
pub use outcome::Outcome;
pub use symbols::{Symbol, Symbols};
pub use time::Timestamp;
