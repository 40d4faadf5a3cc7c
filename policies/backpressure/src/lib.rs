//! The backpressure policy that ships with Oona: who is let in when it gets crowded.
//!
//! Why: a stream that takes everything until it is full then refuses everything, the important with
//! the rest. Each priority is therefore admitted up to its own share of a stream's capacity. In this
//! order, the first that applies:
//!
//! 1. On the emergency stream, the rate: an emergency token is needed, and the last share of them
//!    (`token_reserve`) is for emergencies alone. What has none is demoted to the normal stream if
//!    there is room for it, or told to wait.
//! 2. Under its share the message is admitted.
//! 3. Over it, or over `emergency_threshold`, a message of priority `reroute_from` or over moves to
//!    the emergency stream, if that is not pressed itself and the bus is not in conservative mode.
//! 4. Over `drop_threshold` it is rejected; below, it is deferred.
//!
//! In conservative mode every share but that of emergencies shrinks by `conservative_factor`. An
//! emergency is never refused while anything of lower priority is let in.

mod config;
mod decide;

pub use config::{Admission, Config, OverRate};
pub use decide::Backpressure;

oona_policy_sdk::export_backpressure!(Backpressure);
