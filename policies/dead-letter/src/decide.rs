//! The decision. Pure; tested below without a host.

use oona_policy_sdk::dead_letter::{DeadLetterPolicy, Decision, Failed, Failure};
use oona_policy_sdk::{Names, Policy, Symbol};

use crate::config::{Config, Refused, Retried};

/// See the crate.
#[derive(Debug)]
pub struct DeadLetter {
    config: Config,
    names: Resolved,
}

/// Classes and reasons. Where a class says all there is to say, it is the reason too.
#[derive(Debug)]
struct Resolved {
    expired: Symbol,
    from_future: Symbol,
    handler_error: Symbol,
    out_of_attempts: Symbol,
    poison: Symbol,
    replay: Symbol,
    requested: Symbol,
    subscriber_lost: Symbol,
    timeout: Symbol,
    undecodable: Symbol,
    unverifiable: Symbol,
}

impl Policy for DeadLetter {
    type Config = Config;
    const NAME: &'static str = "dead-letter";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        config.check()?;
        Ok(Self {
            config,
            names: Resolved {
                expired: names.intern("expired")?,
                from_future: names.intern("from-future")?,
                handler_error: names.intern("handler-error")?,
                out_of_attempts: names.intern("out-of-attempts")?,
                poison: names.intern("poison")?,
                replay: names.intern("replay")?,
                requested: names.intern("requested")?,
                subscriber_lost: names.intern("subscriber-lost")?,
                timeout: names.intern("timeout")?,
                undecodable: names.intern("undecodable")?,
                unverifiable: names.intern("unverifiable")?,
            },
        })
    }
}

impl DeadLetterPolicy for DeadLetter {
    fn decide(&self, now: u64, failed: &Failed<'_>) -> Decision {
        let (config, names) = (&self.config, &self.names);
        match failed.failure {
            Failure::Poison => Decision::dead_letter(names.poison, names.poison),
            Failure::Unverifiable => Decision::dead_letter(names.unverifiable, names.unverifiable),
            Failure::Undecodable => Decision::dead_letter(names.undecodable, names.undecodable),
            Failure::FromFuture => refused(config.from_future, names.from_future),
            Failure::Replay => refused(config.replay, names.replay),
            Failure::Stale => refused(config.stale, names.expired),
            Failure::HandlerError => {
                let (class, reason) = (names.out_of_attempts, names.handler_error);
                self.again(now, failed, Retried::HandlerError, class, reason)
            }
            Failure::Timeout => {
                let (class, reason) = (names.out_of_attempts, names.timeout);
                self.again(now, failed, Retried::Timeout, class, reason)
            }
            Failure::SubscriberLost => {
                let (class, reason) = (names.poison, names.subscriber_lost);
                self.again(now, failed, Retried::SubscriberLost, class, reason)
            }
        }
    }
}

impl DeadLetter {
    /// Whether and when a message is tried again that failed for `reason`. `class` is where it is
    /// filed once it has failed too often.
    fn again(
        &self,
        now: u64,
        failed: &Failed<'_>,
        failure: Retried,
        class: Symbol,
        reason: Symbol,
    ) -> Decision {
        let config = &self.config;
        let message = &failed.message;
        if message.expires_at > 0 && now > message.expires_at {
            return refused(config.stale, self.names.expired);
        }
        if !config.retry.contains(&failure) {
            return Decision::dead_letter(reason, reason);
        }
        let failures = message.attempt.saturating_add(1);
        if failures >= config.attempts_max || failed.deliveries >= config.deliveries_max {
            return Decision::dead_letter(class, reason);
        }
        if failed.requested_delay > 0 {
            let delay = failed.requested_delay.min(config.delay_max_ms);
            return Decision::retry(delay, self.names.requested);
        }
        Decision::retry(config.delay_ms(message.id, message.attempt), reason)
    }
}

/// What becomes of a message that freshness has refused, or would refuse by now.
const fn refused(choice: Refused, class: Symbol) -> Decision {
    match choice {
        Refused::DeadLetter => Decision::dead_letter(class, class),
        Refused::Discard => Decision::discard(class),
    }
}

#[cfg(test)]
mod tests;
