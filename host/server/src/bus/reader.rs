//! Brings entries to a subscription: what dead consumers left, then what is new.
//!
//! Each subscription has up to two readers, one for the urgent streams and one for all others, so
//! that a backlog in the one never stands before the other.

use std::sync::Arc;
use std::time::Duration;

use oona_core::entry::Entry;
use oona_core::schedule::Backoff;
use tokio::time::Instant;

use super::desk::Desk;
use super::inspect::{Found, Inspector};
use super::shared::Shared;
use crate::store::{ClaimRequest, GroupStart, ReadRequest, StoreError, StreamName};

/// Claims are looked for this many times within the idle time after which they may be made.
const CLAIMS_PER_IDLE: u32 = 4;

/// See the module.
pub(super) struct Reader {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    consumer: Arc<str>,
    streams: Vec<StreamName>,
    emergency: bool,
    inspector: Inspector,
}

impl Reader {
    pub(super) fn new(
        shared: Arc<Shared>,
        desk: Arc<Desk>,
        consumer: Arc<str>,
        streams: Vec<StreamName>,
    ) -> Self {
        let urgent = |stream| shared.config.streams.is_urgent(stream);
        let emergency = streams.first().is_some_and(urgent);
        let inspector = Inspector::new(
            Arc::clone(&shared),
            Arc::clone(&desk.group),
            Arc::clone(&consumer),
        );
        Self {
            shared,
            desk,
            consumer,
            streams,
            emergency,
            inspector,
        }
    }

    /// Reads until the subscription ends or the bus shuts down.
    pub(super) async fn run(mut self, start: GroupStart) {
        let mut failures = 0;
        let mut joined = false;
        let mut claimed_at = None;
        while !self.shared.shutdown.is_cancelled() {
            let stop = self.shared.shutdown.clone();
            let room = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                room = self.desk.room(self.emergency, self.streams.len()) => room,
            };
            let Some(count) = room else { break };
            let now = (self.shared.clock)();
            let permit = {
                let mut breaker = self.shared.consume_breaker();
                // An operator pauses the normal streams, never what cannot wait.
                if self.emergency {
                    breaker.try_acquire_beneath(now)
                } else {
                    breaker.try_acquire(now)
                }
            };
            let permit = match permit {
                Ok(permit) => permit,
                Err(open) => {
                    self.pause(open.retry_after).await;
                    continue;
                }
            };
            let done = self.round(count, start, &mut joined, &mut claimed_at).await;
            let fault = done.as_ref().is_err_and(StoreError::is_fault);
            self.shared
                .record_consume_breaker((self.shared.clock)(), permit, !fault);
            match done {
                Ok(()) => failures = 0,
                Err(error) => {
                    joined = false;
                    let wait = Backoff::default().delay(failures);
                    failures += 1;
                    tracing::warn!(
                        group = %self.desk.group,
                        %error,
                        retry_in_ms = wait.as_millis(),
                        "reading failed"
                    );
                    self.pause(wait).await;
                }
            }
        }
        self.desk.reader_ended();
    }

    /// Claims if it is time to, then reads.
    async fn round(
        &mut self,
        count: usize,
        start: GroupStart,
        joined: &mut bool,
        claimed_at: &mut Option<Instant>,
    ) -> Result<(), StoreError> {
        if !*joined {
            for stream in &self.streams {
                self.shared
                    .store
                    .ensure_group(stream, &self.desk.group, start)
                    .await?;
            }
            *joined = true;
        }
        let every = self.shared.config.consume.claim_idle / CLAIMS_PER_IDLE;
        if claimed_at.is_none_or(|at| at.elapsed() >= every) {
            let left = self.claim(count).await?;
            *claimed_at = Some(Instant::now());
            if left {
                return Ok(());
            }
        }
        let found = self.read(count).await?;
        self.take_in(found).await;
        Ok(())
    }

    async fn read(&self, count: usize) -> Result<Vec<Found>, StoreError> {
        let request = ReadRequest {
            group: &self.desk.group,
            consumer: &self.consumer,
            streams: &self.streams,
            count,
            block: self
                .shared
                .config
                .consume
                .block
                .min(self.until_next_claim()),
        };
        let entries = self.shared.read(request).await?;
        let found = |(index, entry): (usize, Entry)| Found {
            stream: self.streams[index].clone(),
            entry,
            deliveries: 1,
        };
        Ok(entries.into_iter().map(found).collect())
    }

    /// Takes over what consumers left that are idle for too long. Whether there was any.
    async fn claim(&mut self, count: usize) -> Result<bool, StoreError> {
        let mut any = false;
        for stream in self.streams.clone() {
            let request = ClaimRequest {
                stream: &stream,
                group: &self.desk.group,
                consumer: &self.consumer,
                idle_min: self.shared.config.consume.claim_idle,
                count,
            };
            let claimed = self.shared.claim(request).await?;
            let news: Vec<Found> = claimed
                .into_iter()
                .filter(|claimed| !self.desk.holds(&stream, claimed.entry.id))
                .map(|claimed| Found {
                    stream: stream.clone(),
                    entry: claimed.entry,
                    deliveries: claimed.deliveries,
                })
                .collect();
            if news.is_empty() {
                continue;
            }
            any = true;
            self.shared
                .metrics
                .claimed(&stream)
                .inc_by(news.len() as u64);
            self.take_in(news).await;
        }
        Ok(any)
    }

    /// Inspects what was found and hands it on.
    async fn take_in(&mut self, found: Vec<Found>) {
        if found.is_empty() {
            return;
        }
        let inspected = self.inspector.inspect(found).await;
        self.desk.judged(inspected.refused);
        self.desk.arrived(self.emergency, inspected.deliverable);
    }

    /// A blocking read must not outlast the time to the next claim.
    fn until_next_claim(&self) -> Duration {
        (self.shared.config.consume.claim_idle / CLAIMS_PER_IDLE).max(Duration::from_millis(1))
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}
