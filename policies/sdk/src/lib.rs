//! Write a policy for the Oona message bus.
//!
//! A policy is a pure function of a message, a snapshot of state, its configuration and the time. An
//! author writes a type, a `decide` function, and one macro line; the function is tested natively,
//! as any other.
//!
//! ```
//! use oona_policy_sdk::routing::{Decision, RoutingPolicy};
//! use oona_policy_sdk::testing::{TestMessage, TestNames};
//! use oona_policy_sdk::{Message, Names, Policy, Priority, Symbol};
//!
//! /// Sends what is urgent one way and the rest another.
//! struct ByUrgency {
//!     urgent: Symbol,
//!     usual: Symbol,
//!     priority: Symbol,
//! }
//!
//! #[derive(Default, serde::Deserialize)]
//! #[serde(deny_unknown_fields, default)]
//! struct Config {}
//!
//! impl Policy for ByUrgency {
//!     type Config = Config;
//!     const NAME: &'static str = "by-urgency";
//!     const VERSION: &'static str = "0.1.0";
//!     const CONFIG_SCHEMA: &'static str = r#"{"type": "object", "additionalProperties": false}"#;
//!
//!     fn new(_: Config, names: &mut dyn Names) -> Result<Self, String> {
//!         Ok(Self {
//!             urgent: names.intern("oona.emergency")?,
//!             usual: names.intern("oona.normal")?,
//!             priority: names.intern("priority")?,
//!         })
//!     }
//! }
//!
//! impl RoutingPolicy for ByUrgency {
//!     fn decide(&self, _now: u64, message: &Message<'_>) -> Decision {
//!         let urgent = message.priority >= Priority::High;
//!         Decision::route(if urgent { self.urgent } else { self.usual }, self.priority)
//!     }
//! }
//!
//! oona_policy_sdk::export_routing!(ByUrgency);
//!
//! let mut names = TestNames::default();
//! let policy = ByUrgency::new(Config {}, &mut names).unwrap();
//! let message = TestMessage::default().priority(Priority::Critical);
//! let decision = policy.decide(0, &message.view(&message.text(&names)));
//! assert_eq!(names.name(decision.stream), "oona.emergency");
//! ```

pub mod backpressure;
pub mod bindings;
pub mod config;
pub mod dead_letter;
pub mod freshness;
#[doc(hidden)]
pub mod guest;
pub mod kind;
mod message;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod routing;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

use serde::de::DeserializeOwned;

pub use bindings::routing::oona::policy::types::{Message as MessageRecord, Priority};
pub use message::{Message, Text};

/// An interned name. Zero is no name.
pub type Symbol = u32;

/// What every policy is, whatever its kind.
pub trait Policy: Sized + Send + Sync + 'static {
    /// Its configuration. `{}` must be a valid one, and mean the defaults. Say
    /// `#[serde(deny_unknown_fields)]`, so that a typo is an error and never a default.
    type Config: DeserializeOwned;

    /// Its name, for people: lower case, digits and hyphens.
    const NAME: &'static str;

    /// Its version, for people. Usually `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;

    /// A JSON Schema (2020-12) of [`Self::Config`]; the host validates against it. Usually
    /// `include_str!("../config.schema.json")`.
    const CONFIG_SCHEMA: &'static str;

    /// Takes the configuration and resolves every name that decisions will need.
    ///
    /// # Errors
    ///
    /// A sentence for the operator, if the configuration is no good.
    fn new(config: Self::Config, names: &mut dyn Names) -> Result<Self, String>;
}

/// Gives names their symbols, while a policy is configured.
pub trait Names {
    /// The symbol of `name`.
    ///
    /// # Errors
    ///
    /// If the name is empty or too long, or the host's table is full.
    fn intern(&mut self, name: &str) -> Result<Symbol, String>;
}

/// Reads a configuration and makes a policy of it.
///
/// # Errors
///
/// A sentence for the operator.
pub fn configure<P: Policy>(config: &str, names: &mut dyn Names) -> Result<P, String> {
    let config = serde_json::from_str(config);
    P::new(
        config.map_err(|error| format!("configuration: {error}"))?,
        names,
    )
}
