//! What became of all messages, fault by fault.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::super::BenchError;
use super::super::ledger::Tally;
use super::super::load::Refusals;
use super::super::report::count;
use super::{ChaosOptions, Fault, Outcome};
use crate::chain::chain;

/// How the bus bore all faults.
#[derive(Clone, Debug, Serialize)]
pub struct ChaosReport {
    /// How often each fault was to be brought about.
    pub rounds: u32,
    /// Messages a second.
    pub rate: u32,
    /// What was left to chance follows from it.
    pub seed: u64,
    /// Each fault.
    pub faults: Vec<Row>,
    /// Whether every account balances, everything recovered, and no round broke off.
    pub balanced: bool,
    /// Where the logs of all processes are, if something is wrong.
    pub logs: Option<PathBuf>,
}

/// All rounds of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub fault: Fault,
    /// How often it was brought about.
    pub rounds: u32,
    /// What became of all messages.
    pub account: Tally,
    /// What was left in the store that nobody has finished.
    pub unfinished: u64,
    /// Why publishes were refused, as `cause/reason`, and how many.
    pub refusals: Refusals,
    /// The longest time without a delivery, in ms.
    pub pause_ms_max: u64,
    /// From the end of the fault until every host accepts and delivers, the longest, in ms.
    pub recovery_ms_max: u64,
    /// How often that did not happen in time.
    pub not_recovered: u32,
    /// Whether every account balances.
    pub balanced: bool,
    /// Why it cannot be brought about here, if it cannot: then nothing is said.
    pub skipped: Option<&'static str>,
    /// Why a round broke off, if one did.
    pub error: Option<String>,
}

impl Row {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            fault,
            rounds: 0,
            account: Tally::default(),
            unfinished: 0,
            refusals: Refusals::default(),
            pause_ms_max: 0,
            recovery_ms_max: 0,
            not_recovered: 0,
            balanced: true,
            skipped: fault.impossible(),
            error: None,
        }
    }

    /// Whether there are no more rounds.
    pub(super) fn is_over(&self) -> bool {
        self.skipped.is_some() || self.error.is_some()
    }

    pub(super) fn add(&mut self, outcome: &Outcome) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let tally = outcome.tally;
        let unmarked = if self.fault.forgets_deliveries() {
            0
        } else {
            tally.unmarked
        };
        let wrong = tally.open + tally.contradicted + unmarked + outcome.unfinished;
        self.rounds += 1;
        self.account += tally;
        self.unfinished += outcome.unfinished;
        for (why, number) in &outcome.refusals {
            *self.refusals.entry(why.clone()).or_default() += number;
        }
        self.pause_ms_max = self.pause_ms_max.max(ms(outcome.pause_max));
        match outcome.recovery {
            Some(time) => self.recovery_ms_max = self.recovery_ms_max.max(ms(time)),
            None => self.not_recovered += 1,
        }
        self.balanced &= tally.accepted > 0 && wrong == 0;
    }

    pub(super) fn broke_off(&mut self, error: &BenchError) {
        self.error = Some(chain(error));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.balanced && self.not_recovered == 0 && self.error.is_none()
    }
}

impl ChaosReport {
    pub(super) fn new(options: &ChaosOptions) -> Self {
        Self {
            rounds: options.rounds,
            rate: options.rate,
            seed: options.seed,
            faults: Vec::new(),
            balanced: true,
            logs: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn add(&mut self, row: Row) {
        self.balanced &= row.is_good();
        self.faults.push(row);
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.balanced
    }
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "two hosts, {} messages/s in all, --seed {}; the longest pause and recovery of all rounds\n",
            count(self.rate.into()),
            self.seed
        )?;
        writeln!(
            f,
            "{:<19} {:>6} {:>9} {:>8} {:>8} {:>9} {:>11} {:>13} {:>5} {:>9} {:>9}",
            "fault",
            "rounds",
            "accepted",
            "refused",
            "unknown",
            "delivered",
            "redelivered",
            "dead-lettered",
            "lost",
            "pause",
            "recovery"
        )?;
        for row in &self.faults {
            write!(f, "{row}")?;
        }
        let verdict = if self.balanced {
            "every account balances"
        } else {
            "NOT EVERYTHING IS IN ORDER"
        };
        write!(f, "\n{verdict}")?;
        if let Some(logs) = &self.logs {
            write!(f, "; the logs of all processes are in {}", logs.display())?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.skipped {
            return writeln!(f, "{:<19} left out: {why}", self.fault);
        }
        let ms = |ms: u64| format!("{:.1} s", ms as f64 / 1e3);
        let account = &self.account;
        writeln!(
            f,
            "{:<19} {:>6} {:>9} {:>8} {:>8} {:>9} {:>11} {:>13} {:>5} {:>9} {:>9}",
            self.fault,
            self.rounds,
            count(account.accepted),
            count(account.refused),
            count(account.unknown),
            count(account.delivered),
            count(account.redelivered),
            count(account.dead_lettered),
            count(account.open),
            ms(self.pause_ms_max),
            ms(self.recovery_ms_max),
        )?;
        if let Some(error) = &self.error {
            writeln!(f, "    BROKE OFF: {error}")?;
        }
        if self.not_recovered > 0 {
            writeln!(f, "    DID NOT RECOVER in {} rounds", self.not_recovered)?;
        }
        if !self.balanced {
            writeln!(
                f,
                "    DOES NOT BALANCE: {} twice without a mark, {} refused and delivered, {} unfinished",
                account.unmarked, account.contradicted, self.unfinished
            )?;
        }
        Ok(())
    }
}
