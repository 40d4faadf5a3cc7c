//! Order among messages that share a key: which of the store's steps this bus uses.
//!
//! With `consume.retry_order = "block"` a retry holds up the messages of its key and no others, and
//! the store's [`Turns`](crate::store::Turns) see to it. Else nothing here costs anything.

use oona_core::entry::Entry;

use super::config::RetryOrder;
use super::shared::Shared;
use crate::store::{
    ClaimRequest, Claimed, GroupDepth, ReadRequest, Settlement, StoreError, StreamName,
};

impl Shared {
    fn in_turn(&self) -> bool {
        self.config.consume.retry_order == RetryOrder::Block
    }

    pub(super) async fn read(
        &self,
        request: ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        if self.in_turn() {
            self.store.read_in_turn(request).await
        } else {
            self.store.read(request).await
        }
    }

    pub(super) async fn claim(
        &self,
        request: ClaimRequest<'_>,
    ) -> Result<Vec<Claimed>, StoreError> {
        if self.in_turn() {
            self.store.claim_in_turn(request).await
        } else {
            self.store.claim(request).await
        }
    }

    pub(super) async fn settle(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        if self.in_turn() {
            self.store.settle_in_turn(group, settlements).await
        } else {
            self.store.settle(group, settlements).await
        }
    }

    /// Removes finished entries of a stream that is too long; answers how many.
    pub(super) async fn trim(&self, stream: &StreamName) -> Result<u64, StoreError> {
        let length_max = self.config.stream_length_max;
        let trimmed = self.store.trim(stream, length_max).await?;
        if self.in_turn() {
            Ok(trimmed + self.store.thin(stream, length_max).await?)
        } else {
            Ok(trimmed)
        }
    }

    /// Passes on the turns of a stream whose entry is gone.
    pub(super) async fn mend_turns(
        &self,
        stream: &StreamName,
        groups: &[GroupDepth],
    ) -> Result<(), StoreError> {
        if !self.in_turn() {
            return Ok(());
        }
        for group in groups {
            let mended = self.store.mend_turns(stream, &group.name).await?;
            let in_line = i64::try_from(mended.in_line).unwrap_or(i64::MAX);
            self.metrics.in_line(stream).set(in_line);
            self.metrics.turns_mended(stream).inc_by(mended.passed);
            if mended.passed > 0 {
                tracing::warn!(
                    turns = mended.passed,
                    %stream,
                    group = %group.name,
                    "passed on the turns of messages that are gone"
                );
            }
        }
        Ok(())
    }
}
