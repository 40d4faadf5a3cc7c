//! Routing: to which stream?

pub use crate::bindings::routing::exports::oona::policy::routing::{Decision, Verdict};
use crate::{Message, Policy, Symbol};

/// A policy that routes.
pub trait RoutingPolicy: Policy {
    /// Decides on a message. `now` is in ms since the epoch.
    fn decide(&self, now: u64, message: &Message<'_>) -> Decision;
}

impl Decision {
    /// The message goes to `stream`.
    #[must_use]
    pub const fn route(stream: Symbol, reason: Symbol) -> Self {
        Self {
            verdict: Verdict::Route,
            stream,
            reason,
        }
    }

    /// The message is refused.
    #[must_use]
    pub const fn reject(reason: Symbol) -> Self {
        Self {
            verdict: Verdict::Reject,
            stream: 0,
            reason,
        }
    }
}

/// Exports a type that implements [`RoutingPolicy`] as a component. Does nothing in a native build.
#[macro_export]
macro_rules! export_routing {
    ($policy:ty) => {
        $crate::__export!(routing, Routing, $policy, Message);
    };
}
