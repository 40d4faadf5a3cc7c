//! The routing policy that ships with Oona: by what a message is, and how urgent it is.
//!
//! In this order, the first that applies:
//!
//! 1. An emergency (an emergency signal, or a message of priority `emergency`) goes to the emergency
//!    stream. No rule can take it elsewhere.
//! 2. The rules of the configuration, as they stand.
//! 3. A message of priority `emergency_from` or over (by default `high`) goes to the emergency
//!    stream, whatever its type.
//! 4. Each type has its stream; one that is not configured, or a type that nobody knows, has the
//!    normal stream.

mod config;
mod decide;

pub use config::{Attribute, Config, Rule, Streams};
pub use decide::Routing;

oona_policy_sdk::export_routing!(Routing);
