//! What lies in the store, as somebody sees it who is no host.

use std::time::Duration;

use oona_core::dead_letter::DeadLetter;
use oona_core::entry::EntryId;
use tokio::time::{Instant, interval, timeout};

use super::BenchError;
use super::ledger::{Ledger, number_of};
use crate::bus::Streams;
use crate::store::redis::RedisStore;
use crate::store::{Store, StoreError, StreamName};

/// How many dead letters are read at once.
const PAGE: usize = 1_000;

/// How long what is under way at the end may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(60);

/// How long what a subscriber has handled may take to be entered in the account, once nothing is left.
const QUIET: Duration = Duration::from_secs(5);

/// Between two looks whether it is done.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct StoreView {
    store: RedisStore,
    streams: Vec<StreamName>,
    dead_letters: StreamName,
    /// The last dead letter that was read.
    read: Option<EntryId>,
}

impl StoreView {
    pub(super) fn new(url: &str) -> Result<Self, BenchError> {
        let store = RedisStore::new(url).map_err(|error| BenchError::Bus(error.to_string()))?;
        let streams = Streams::default();
        Ok(Self {
            store,
            streams: streams.destinations().cloned().collect(),
            dead_letters: streams.dead_letter,
            read: None,
        })
    }

    /// Enters in the ledger the dead letters that have come since the last look.
    pub(super) async fn read_dead_letters(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        loop {
            let page = self
                .store
                .range(&self.dead_letters, self.read, PAGE)
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            self.read = Some(last.id);
            for entry in &page {
                let letter = DeadLetter::decode(entry).ok();
                let message = letter.as_ref().and_then(DeadLetter::message);
                if let Some(number) = message.and_then(|message| number_of(&message.id)) {
                    ledger.dead_lettered(number);
                }
            }
        }
    }

    /// Waits until everything is handled and settled, or nothing more can come. What is not by then shows in
    /// the account.
    pub(super) async fn drain(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let done = async {
            let mut looks = interval(LOOK);
            let mut quiet_since = Instant::now();
            loop {
                looks.tick().await;
                self.read_dead_letters(ledger).await?;
                let finished = self.unfinished().await? == 0;
                if finished && (ledger.tally().open == 0 || quiet_since.elapsed() >= QUIET) {
                    return Ok(());
                }
                if !finished {
                    quiet_since = Instant::now();
                }
            }
        };
        timeout(DRAIN_TIME_MAX, done).await.unwrap_or(Ok(()))
    }

    /// How much the groups have yet to finish, retries that wait for their time included.
    pub(super) async fn unfinished(&self) -> Result<u64, StoreError> {
        let depths = self.store.depths(&self.streams).await?;
        let depths = depths.iter();
        Ok(depths.map(|depth| depth.unfinished + depth.delayed).sum())
    }
}
