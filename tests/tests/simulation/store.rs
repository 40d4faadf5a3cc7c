//! A host's way to the store: one store for all, and between each host and it whatever the weather
//! brings. What really happens in the store is written in the ledger, whatever the host hears of it.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oona::store::memory::MemoryStore;
use oona::store::{
    Append, ClaimRequest, Claimed, Dropped, GroupStart, Mended, NonceClaim, Oldest, ReadRequest,
    RemovedGroup, Settlement, Step, Store, StoreError, StoreInfo, StreamDepth, StreamName, Turns,
    Written,
};
use oona_core::Timestamp;
use oona_core::broadcast::Sight;
use oona_core::entry::{Entry, EntryId, Fields, Record};
use oona_core::policy::NonceSeen;

use crate::ledger::Origin;
use crate::link::Link;
use crate::world::short;

/// See the module.
pub(crate) struct FaultyStore {
    inner: Arc<MemoryStore>,
    link: Arc<Link>,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<MemoryStore>, link: Arc<Link>) -> Self {
        Self { inner, link }
    }

    fn note(&self, what: impl Display) {
        self.link.world.note(&self.link.name, what);
    }

    async fn append_now(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let answers = self.inner.append(batch).await?;
        for (append, answer) in batch.iter().zip(&answers) {
            let Ok(Written { id, before: None }) = answer else {
                continue;
            };
            let fields = append.record.clone().into_fields();
            let stream = &append.stream;
            let name = self.link.world.ledger(|ledger, _| {
                ledger.appended(stream, *id, &fields, Origin::Published);
                ledger.name(stream, *id, &fields)
            });
            self.note(format_args!("appends {name} as {stream} {}", short(*id)));
        }
        Ok(answers)
    }

    /// The fields of what is about to be settled.
    async fn before(&self, settlements: &[Settlement]) -> Result<Vec<Option<Fields>>, StoreError> {
        let mut before = Vec::with_capacity(settlements.len());
        for Settlement { stream, id, .. } in settlements {
            let found = self.inner.range(stream, id.previous(), 1).await?.pop();
            before.push(
                found
                    .filter(|entry| entry.id == *id)
                    .map(|entry| entry.fields),
            );
        }
        Ok(before)
    }

    async fn settle_now(
        &self,
        in_turn: bool,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let before = self.before(settlements).await?;
        let settled = if in_turn {
            self.inner.settle_in_turn(group, settlements).await?
        } else {
            self.inner.settle(group, settlements).await?
        };
        for ((settlement, fields), settled) in settlements.iter().zip(before).zip(&settled) {
            let Settlement {
                stream, id, step, ..
            } = settlement;
            let empty = Fields::new();
            let read = fields.as_ref().unwrap_or(&empty);
            let name = self
                .link
                .world
                .ledger(|ledger, _| ledger.name(stream, *id, read));
            let words = match step {
                Step::Ack => "finished".to_owned(),
                Step::Retry { at: None, .. } => "again at once".to_owned(),
                Step::Retry { at: Some(at), .. } => {
                    format!("again in {} ms", at.since(self.link.time()).as_millis())
                }
                Step::DeadLetter { .. } => "filed".to_owned(),
            };
            let missed = if *settled { "" } else { ", not pending" };
            let place = short(*id);
            self.note(format_args!(
                "settles {name} {stream} {place} in {group}: {words}{missed}"
            ));
            if *settled {
                self.link.world.ledger(|ledger, _| {
                    ledger.settled(&self.link, (group, stream, *id), fields.as_ref(), step);
                });
            }
        }
        Ok(settled)
    }

    async fn claim_now(
        &self,
        in_turn: bool,
        request: ClaimRequest<'_>,
    ) -> Result<Vec<Claimed>, StoreError> {
        let claimed = if in_turn {
            self.inner.claim_in_turn(request).await?
        } else {
            self.inner.claim(request).await?
        };
        if !claimed.is_empty() {
            let ids: Vec<_> = claimed.iter().map(|claimed| claimed.entry.id).collect();
            let (group, stream) = (request.group, request.stream);
            let places: Vec<_> = ids.iter().copied().map(short).collect();
            self.note(format_args!(
                "claims {stream} {} for {group}",
                places.join(" ")
            ));
            self.link
                .world
                .ledger(|ledger, _| ledger.claimed(group, stream, &ids));
        }
        Ok(claimed)
    }

    async fn redrive_now(
        &self,
        from: &StreamName,
        id: EntryId,
        to: &StreamName,
        fields: &Fields,
    ) -> Result<Option<EntryId>, StoreError> {
        let moved = self.inner.redrive(from, id, to, fields).await?;
        if let Some(moved) = moved {
            let name = self.link.world.ledger(|ledger, _| {
                ledger.appended(to, moved, fields, Origin::Redriven);
                ledger.name(to, moved, fields)
            });
            self.note(format_args!("redrives {name} as {to} {}", short(moved)));
        }
        Ok(moved)
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.link.call("ping", || self.inner.ping()).await
    }

    async fn append(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        self.link
            .pipeline("append", batch, |batch| self.append_now(batch))
            .await
    }

    async fn recall(&self, events: &[Arc<str>]) -> Result<Vec<Option<Written>>, StoreError> {
        self.link.call("recall", || self.inner.recall(events)).await
    }

    async fn append_after(
        &self,
        stream: &StreamName,
        last: Option<EntryId>,
        id: Option<EntryId>,
        record: &Record,
    ) -> Result<Option<EntryId>, StoreError> {
        self.link
            .call("append_after", || {
                self.inner.append_after(stream, last, id, record)
            })
            .await
    }

    async fn ensure_group(
        &self,
        stream: &StreamName,
        group: &str,
        start: GroupStart,
    ) -> Result<(), StoreError> {
        self.link
            .call("ensure_group", || {
                self.inner.ensure_group(stream, group, start)
            })
            .await
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Vec<(usize, Entry)>, StoreError> {
        self.link.wait("read", || self.inner.read(request)).await
    }

    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        self.link
            .call("claim", || self.claim_now(false, request))
            .await
    }

    async fn touch(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
        ids: &[EntryId],
    ) -> Result<(), StoreError> {
        self.link
            .call("touch", || self.inner.touch(stream, group, consumer, ids))
            .await
    }

    async fn settle(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let settle = |settlements| self.settle_now(false, group, settlements);
        self.link.pipeline("settle", settlements, settle).await
    }

    async fn sights(
        &self,
        stream: &StreamName,
        id: EntryId,
        receipt: &str,
        groups: &[String],
    ) -> Result<Vec<Sight>, StoreError> {
        self.link
            .call("sights", || self.inner.sights(stream, id, receipt, groups))
            .await
    }

    async fn promote(
        &self,
        stream: &StreamName,
        now: Timestamp,
        count: usize,
    ) -> Result<u64, StoreError> {
        self.link
            .call("promote", || self.inner.promote(stream, now, count))
            .await
    }

    async fn depths(&self, streams: &[StreamName]) -> Result<Vec<StreamDepth>, StoreError> {
        self.link
            .call("depths", || self.inner.depths(streams))
            .await
    }

    /// Nothing follows from it but what is shown, so no fault is spent on it.
    async fn oldest(&self, streams: &[StreamName]) -> Result<Vec<Oldest>, StoreError> {
        self.inner.oldest(streams).await
    }

    async fn trim(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        self.link
            .call("trim", || self.inner.trim(stream, length_max))
            .await
    }

    async fn drop_oldest(
        &self,
        stream: &StreamName,
        length_max: u64,
    ) -> Result<Dropped, StoreError> {
        self.link
            .call("drop_oldest", || self.inner.drop_oldest(stream, length_max))
            .await
    }

    async fn remove_idle_consumers(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<u64, StoreError> {
        let done = || self.inner.remove_idle_consumers(stream, idle);
        self.link.call("remove_idle_consumers", done).await
    }

    async fn remove_idle_groups(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<Vec<RemovedGroup>, StoreError> {
        let done = || self.inner.remove_idle_groups(stream, idle);
        self.link.call("remove_idle_groups", done).await
    }

    async fn range(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.link
            .call("range", || self.inner.range(stream, after, count))
            .await
    }

    async fn redrive(
        &self,
        from: &StreamName,
        id: EntryId,
        to: &StreamName,
        fields: &Fields,
    ) -> Result<Option<EntryId>, StoreError> {
        self.link
            .call("redrive", || self.redrive_now(from, id, to, fields))
            .await
    }

    async fn remove(&self, stream: &StreamName, ids: &[EntryId]) -> Result<u64, StoreError> {
        self.link
            .call("remove", || self.inner.remove(stream, ids))
            .await
    }

    async fn expire(
        &self,
        stream: &StreamName,
        before: Timestamp,
        length_max: u64,
    ) -> Result<u64, StoreError> {
        self.link
            .call("expire", || self.inner.expire(stream, before, length_max))
            .await
    }

    async fn last(&self, stream: &StreamName) -> Result<Option<EntryId>, StoreError> {
        self.link.call("last", || self.inner.last(stream)).await
    }

    async fn remember(
        &self,
        group: &str,
        claims: &[NonceClaim],
    ) -> Result<Vec<NonceSeen>, StoreError> {
        self.link
            .call("remember", || self.inner.remember(group, claims))
            .await
    }

    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        self.link
            .call("keep", || self.inner.keep(name, bytes))
            .await
    }

    async fn kept(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.link.call("kept", || self.inner.kept(name)).await
    }

    async fn leave(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
    ) -> Result<(), StoreError> {
        self.link
            .call("leave", || self.inner.leave(stream, group, consumer))
            .await
    }
}

#[async_trait]
impl Turns for FaultyStore {
    async fn read_in_turn(
        &self,
        request: ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        self.link
            .wait("read", || self.inner.read_in_turn(request))
            .await
    }

    async fn claim_in_turn(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        self.link
            .call("claim", || self.claim_now(true, request))
            .await
    }

    async fn settle_in_turn(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let settle = |settlements| self.settle_now(true, group, settlements);
        self.link.pipeline("settle", settlements, settle).await
    }

    async fn mend_turns(&self, stream: &StreamName, group: &str) -> Result<Mended, StoreError> {
        self.link
            .call("mend_turns", || self.inner.mend_turns(stream, group))
            .await
    }

    async fn thin(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        self.link
            .call("thin", || self.inner.thin(stream, length_max))
            .await
    }
}
