//! The freshness policy that ships with Oona: whether a message is still worth delivering, and
//! whether it is the first of its kind.
//!
//! Why: an order that was right two minutes ago may be wrong now, and a message that somebody has
//! copied onto the stream again must not be obeyed twice. In this order, the first that applies:
//!
//! 1. Issued more than `clock_skew_ms` after now: from the future. It would be fresh for too long.
//! 2. Its time to live has passed: stale.
//! 3. Its type has a window, and it is older: stale. If it does not say when it was issued, then as
//!    `missing_time` says.
//! 4. Its type has nonces, and this one was seen on another entry: a replay. The same entry again is
//!    a redelivery, and no replay.
//! 5. Fresh. A nonce is remembered for as long as the message could pass the checks above.
//!
//! Every bound belongs to the fresh side: a message whose age is the window to the millisecond is
//! fresh, and a millisecond later it is stale.

mod config;
mod decide;

pub use config::{Config, MissingTime, TypeRule};
pub use decide::Freshness;

oona_policy_sdk::export_freshness!(Freshness);
