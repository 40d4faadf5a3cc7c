//! The dead-letter policy that ships with Oona: what becomes of a message that could not be handled.
//!
//! Why: most failures pass, so a message is tried again, each time later than before; some do not,
//! and a message that fails for ever must not keep its subscriber from all others. In this order,
//! the first that applies:
//!
//! 1. Nothing can come of it: poison, unverifiable, undecodable. It is filed.
//! 2. Freshness refused it: stale, a replay, from the future. It is filed or discarded, as
//!    configured. A message that has expired while it was being handled is stale, too.
//! 3. Its failure is none that is retried. It is filed under it.
//! 4. It has failed `attempts_max` times, or its entry was delivered `deliveries_max` times. It is
//!    filed as out of attempts; one that took its subscriber down at last, as poison.
//! 5. It is tried again: after the delay that the subscriber asked for, or one that grows with each
//!    attempt.
//!
//! Delays are spread by a hash of the message and the attempt, so that messages that failed together
//! do not come back together, and the same question still gets the same answer.

mod backoff;
mod config;
mod decide;

pub use config::{Config, Refused, Retried};
pub use decide::DeadLetter;

oona_policy_sdk::export_dead_letter!(DeadLetter);
