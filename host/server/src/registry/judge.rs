//! Trials that end by themselves, versions that were taken out, and writing both down.
//!
//! What a trial costs ends on this host at once, whether the store answers or not; the list hears of it
//! as soon as it can. What could not be written is written later, and once.

use std::time::Duration;

use oona_core::policy::Kind;
use oona_core::registry::{Action, Change, Revision};
use oona_core::stage::{self, Verdict};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Registry;
use super::follow::RETRY;
use crate::chain::chain;
use crate::policies::FellBack;
use crate::sync::lock;

/// How often trials are judged.
const EVERY: Duration = Duration::from_millis(100);

/// How many notes wait for the store. Beyond, the oldest is given up, with a word in the log.
const NOTES_MAX: usize = 256;

/// Judges trials, and collects what the policies tell, for ever.
pub(super) async fn watch_trials(registry: Registry) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for kind in Kind::ALL {
            registry.judge(kind);
        }
        for fallen in registry.0.policies.take_fallbacks() {
            registry.fell_back(fallen);
        }
    }
}

/// Writes notes to the list, for ever.
pub(super) async fn write_notes(registry: Registry) {
    let mut read = registry.0.read.subscribe();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        while let Some(change) = registry.next_note() {
            read.borrow_and_update();
            match registry.append_once(&change).await {
                Ok(Some(_)) => registry.written(&change),
                // Others were first: once they are read, this may be said already.
                Ok(None) => drop(tokio::time::timeout(RETRY, read.changed()).await),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "a note waits for the registry");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

impl Registry {
    /// Ends the trial of a kind, if its thresholds say so.
    fn judge(&self, kind: Kind) {
        let Some(status) = self.0.policies.staged(kind) else {
            return;
        };
        let stage = status.stage.revision;
        let now = (self.0.clock)();
        let (action, reason) = match stage::judge(&status.stage, &status.seen, now) {
            Verdict::Wait => return,
            Verdict::Promote(reason) => (Action::Promote { kind, stage }, reason),
            Verdict::Withdraw(reason) => {
                self.0.policies.unstage(kind);
                if let Some(here) = lock(&self.0.followed).here.get_mut(&kind) {
                    here.withdraw(stage, &reason);
                }
                (Action::Withdraw { kind, stage }, reason)
            }
        };
        let mut notes = lock(&self.0.notes);
        if notes.iter().any(|note| note.action == action) {
            return;
        }
        // It would have been promoted, and the list did not hear of it in time.
        notes.retain(|note| note.action != Action::Promote { kind, stage });
        drop(notes);
        tracing::info!(%kind, stage, reason, ?action, "a trial ends by its thresholds");
        self.note(self.change(action, self.name(), reason));
    }

    fn fell_back(&self, fallen: FellBack) {
        let FellBack {
            kind,
            from,
            to,
            fault,
            generation,
        } = fallen;
        let activation = lock(&self.0.followed)
            .here
            .get(&kind)
            .map_or(0, |here| here.activation(generation));
        let action = Action::FellBack {
            kind,
            activation,
            to,
        };
        // Before any change of the version only what a host was to start with can have failed.
        let message = match generation {
            0 => format!("not put in use when the host started: {fault}"),
            _ => format!("{from} was taken out: {fault}"),
        };
        self.note(self.change(action, self.name(), message));
    }

    fn name(&self) -> String {
        format!("host {}", self.0.options.host)
    }

    /// Has a change written as soon as the store takes it.
    pub(super) fn note(&self, change: Change) {
        let mut notes = lock(&self.0.notes);
        if notes.len() >= NOTES_MAX
            && let Some(lost) = notes.pop_front()
        {
            tracing::error!(change = ?lost, "never written to the registry: too many notes wait");
        }
        notes.push_back(change);
    }

    /// The next note that is still news.
    fn next_note(&self) -> Option<Change> {
        loop {
            let change = lock(&self.0.notes).front().cloned()?;
            if !self.is_known(&change) {
                return Some(change);
            }
            self.written(&change);
        }
    }

    fn written(&self, change: &Change) {
        lock(&self.0.notes).retain(|note| note != change);
    }

    /// Whether the list says it already, or it is about a trial that is over.
    fn is_known(&self, change: &Change) -> bool {
        let followed = lock(&self.0.followed);
        let over = |kind: Kind, stage: Revision| {
            let tried = followed.state.stage(kind);
            tried.is_none_or(|tried| tried.revision != stage)
        };
        match &change.action {
            Action::Promote { kind, stage } | Action::Withdraw { kind, stage } => {
                over(*kind, *stage)
            }
            Action::Push(artifact) => followed.state.artifact(&artifact.digest).is_some(),
            _ => {
                let mut latest = followed.changes.iter().rev();
                latest.any(|numbered| numbered.change == *change)
            }
        }
    }
}
