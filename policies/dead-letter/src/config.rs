//! What can be set; `config.schema.json` says what it means.

use serde::{Deserialize, Serialize};

/// The longest delay that can be set, in ms: a day.
const DELAY_MS_MAX: u64 = 86_400_000;

/// The most attempts, deliveries, and so on that can be set.
const COUNT_MAX: u32 = 1_000;

/// The largest factor that can be set.
const FACTOR_MAX: u64 = 100;

/// The configuration of this policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often handling a message may fail.
    pub attempts_max: u32,
    /// How often one entry may be delivered.
    pub deliveries_max: u32,
    /// The delay after the first failure, in ms.
    pub delay_base_ms: u64,
    /// What it is multiplied with after each further one.
    pub delay_factor: u64,
    /// The longest delay before jitter, in ms.
    pub delay_max_ms: u64,
    /// By how many percent a delay may be shorter or longer.
    pub jitter_percent: u64,
    /// Failures that are retried.
    pub retry: Vec<Retried>,
    /// What becomes of messages from the future.
    pub from_future: Refused,
    /// What becomes of replays.
    pub replay: Refused,
    /// What becomes of messages that are too old.
    pub stale: Refused,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            deliveries_max: 10,
            delay_base_ms: 500,
            delay_factor: 2,
            delay_max_ms: 60_000,
            jitter_percent: 20,
            retry: vec![
                Retried::HandlerError,
                Retried::SubscriberLost,
                Retried::Timeout,
            ],
            from_future: Refused::DeadLetter,
            replay: Refused::DeadLetter,
            stale: Refused::DeadLetter,
        }
    }
}

/// A failure that may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retried {
    /// The subscriber said no.
    HandlerError,
    /// The subscriber went away.
    SubscriberLost,
    /// The subscriber did not answer in time.
    Timeout,
}

/// What becomes of a message that freshness has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// It is filed.
    DeadLetter,
    /// It is let go, counted and logged.
    Discard,
}

impl Config {
    /// Checks what a type cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (count_max, base) = (u64::from(COUNT_MAX), self.delay_base_ms);
        let numbers = [
            ("attempts_max", u64::from(self.attempts_max), 1, count_max),
            (
                "deliveries_max",
                u64::from(self.deliveries_max),
                1,
                count_max,
            ),
            ("delay_base_ms", base, 0, DELAY_MS_MAX),
            ("delay_factor", self.delay_factor, 1, FACTOR_MAX),
            ("delay_max_ms", self.delay_max_ms, 0, DELAY_MS_MAX),
            ("jitter_percent", self.jitter_percent, 0, 100),
        ];
        for (name, value, min, max) in numbers {
            if !(min..=max).contains(&value) {
                return Err(format!(
                    "{name} is {value}, and must be from {min} to {max}"
                ));
            }
        }
        if base > self.delay_max_ms {
            let max = self.delay_max_ms;
            return Err(format!(
                "delay_base_ms is {base}, and more than delay_max_ms, {max}"
            ));
        }
        Ok(())
    }
}
