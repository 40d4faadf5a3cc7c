//! A host's way to the store: one store for all, and between each host and it whatever the weather
//! brings. What really happens in the store is written in the ledger, whatever the host hears of it.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oona::store::memory::MemoryStore;
use oona::store::{
    Append, ClaimRequest, Claimed, Dropped, GroupStart, Mended, NonceClaim, ReadRequest,
    RemovedGroup, Settlement, Step, Store, StoreError, StoreInfo, StreamDepth, StreamName, Turns,
    Written,
};
use oona_core::Timestamp;
use oona_core::broadcast::Sight;
use oona_core::entry::{Entry, EntryId, Fields, Record};
use oona_core::policy::NonceSeen;
use tokio::time::sleep;

use crate::ledger::Origin;
use crate::link::{Link, Weather};
use crate::world::short;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// The store refuses it.
    Refused,
    /// It never arrives.
    NotDone,
    /// It is done, and the answer is lost.
    LostReply,
    /// It arrives twice, and the first answer counts.
    Twice,
    /// Of a pipeline, only the first part arrives.
    Cut,
}

/// One call, and what will happen to it.
struct Fortune {
    fault: Fault,
    before: Duration,
    after: Duration,
}

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

    fn fortune(&self) -> Fortune {
        let world = &self.link.world;
        let (fault_in, slow_ms) = match self.link.weather() {
            Weather::Calm => (0, 0),
            Weather::Fair => (60, 3),
            Weather::Rough => (6, 150),
            Weather::Slow => (0, 2_500),
            Weather::Down | Weather::Deaf => (1, 50),
        };
        let struck = fault_in > 0 && world.one_in(fault_in);
        let fault = match self.link.weather() {
            Weather::Down => Fault::NotDone,
            Weather::Deaf => Fault::LostReply,
            _ if struck => *world.pick(&[
                Fault::Refused,
                Fault::NotDone,
                Fault::LostReply,
                Fault::LostReply,
                Fault::Twice,
                Fault::Cut,
            ]),
            _ => Fault::None,
        };
        if fault != Fault::None || slow_ms > 1_000 {
            self.link.disturb();
        }
        if fault != Fault::None {
            world.ledger(|ledger, _| ledger.totals.faults += 1);
        }
        // Most calls are quick, even where some are not.
        let most = if world.one_in(3) { slow_ms } else { 0 };
        Fortune {
            fault,
            before: world.ms(0, most),
            after: world.ms(0, most.max(1)),
        }
    }

    /// Makes a call that is done as a whole or not at all.
    async fn call<T, F>(&self, what: &str, done: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let line = self.link.line.lock().await;
        self.link.gate().await;
        let fortune = self.fortune();
        self.out(&fortune).await;
        let answer = match fortune.fault {
            Fault::Refused => Err(refused()),
            Fault::NotDone | Fault::Cut => Err(cut_off()),
            Fault::Twice => {
                let first = done().await;
                done().await.ok();
                first
            }
            Fault::None | Fault::LostReply => done().await,
        };
        drop(line);
        self.back(what, &fortune, answer).await
    }

    /// Sends a pipeline, of which each part is done as a whole or not at all.
    async fn pipeline<'a, P, T, F>(
        &self,
        what: &str,
        parts: &'a [P],
        done: impl Fn(&'a [P]) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let line = self.link.line.lock().await;
        self.link.gate().await;
        let fortune = self.fortune();
        self.out(&fortune).await;
        let answer = match fortune.fault {
            Fault::Refused => Err(refused()),
            Fault::NotDone => Err(cut_off()),
            Fault::Cut => {
                done(&parts[..parts.len() / 2]).await.ok();
                Err(cut_off())
            }
            Fault::Twice => {
                let first = done(parts).await;
                done(parts).await.ok();
                first
            }
            Fault::None | Fault::LostReply => done(parts).await,
        };
        drop(line);
        self.back(what, &fortune, answer).await
    }

    /// Makes a call that may wait, on a line of its own.
    async fn wait<T, F>(&self, what: &str, done: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.link.gate().await;
        let fortune = self.fortune();
        self.out(&fortune).await;
        let answer = match fortune.fault {
            Fault::Refused => Err(refused()),
            Fault::NotDone | Fault::Cut => Err(cut_off()),
            Fault::Twice => {
                let first = done().await;
                done().await.ok();
                first
            }
            Fault::None | Fault::LostReply => done().await,
        };
        self.back(what, &fortune, answer).await
    }

    async fn out(&self, fortune: &Fortune) {
        pass(fortune.before).await;
        self.link.gate().await;
    }

    async fn back<T>(
        &self,
        what: &str,
        fortune: &Fortune,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if fortune.fault != Fault::None {
            self.note(format_args!("{what} meets {:?}", fortune.fault));
        }
        pass(fortune.after).await;
        self.link.gate().await;
        if fortune.fault == Fault::LostReply {
            return Err(cut_off());
        }
        answer
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

async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn refused() -> StoreError {
    StoreError::Refused {
        address: "memory".to_owned(),
        code: "OOM".to_owned(),
        detail: "so the weather wills".to_owned(),
    }
}

fn cut_off() -> StoreError {
    StoreError::Unavailable {
        address: "memory".to_owned(),
        detail: "so the weather wills".to_owned(),
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.call("ping", || self.inner.ping()).await
    }

    async fn append(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        self.pipeline("append", batch, |batch| self.append_now(batch))
            .await
    }

    async fn recall(&self, events: &[Arc<str>]) -> Result<Vec<Option<Written>>, StoreError> {
        self.call("recall", || self.inner.recall(events)).await
    }

    async fn append_after(
        &self,
        stream: &StreamName,
        last: Option<EntryId>,
        id: Option<EntryId>,
        record: &Record,
    ) -> Result<Option<EntryId>, StoreError> {
        self.call("append_after", || {
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
        self.call("ensure_group", || {
            self.inner.ensure_group(stream, group, start)
        })
        .await
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Vec<(usize, Entry)>, StoreError> {
        self.wait("read", || self.inner.read(request)).await
    }

    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        self.call("claim", || self.claim_now(false, request)).await
    }

    async fn touch(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
        ids: &[EntryId],
    ) -> Result<(), StoreError> {
        self.call("touch", || self.inner.touch(stream, group, consumer, ids))
            .await
    }

    async fn settle(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let settle = |settlements| self.settle_now(false, group, settlements);
        self.pipeline("settle", settlements, settle).await
    }

    async fn sights(
        &self,
        stream: &StreamName,
        id: EntryId,
        receipt: &str,
        groups: &[String],
    ) -> Result<Vec<Sight>, StoreError> {
        self.call("sights", || self.inner.sights(stream, id, receipt, groups))
            .await
    }

    async fn promote(
        &self,
        stream: &StreamName,
        now: Timestamp,
        count: usize,
    ) -> Result<u64, StoreError> {
        self.call("promote", || self.inner.promote(stream, now, count))
            .await
    }

    async fn depths(&self, streams: &[StreamName]) -> Result<Vec<StreamDepth>, StoreError> {
        self.call("depths", || self.inner.depths(streams)).await
    }

    async fn trim(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        self.call("trim", || self.inner.trim(stream, length_max))
            .await
    }

    async fn drop_oldest(
        &self,
        stream: &StreamName,
        length_max: u64,
    ) -> Result<Dropped, StoreError> {
        self.call("drop_oldest", || self.inner.drop_oldest(stream, length_max))
            .await
    }

    async fn remove_idle_consumers(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<u64, StoreError> {
        let done = || self.inner.remove_idle_consumers(stream, idle);
        self.call("remove_idle_consumers", done).await
    }

    async fn remove_idle_groups(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<Vec<RemovedGroup>, StoreError> {
        let done = || self.inner.remove_idle_groups(stream, idle);
        self.call("remove_idle_groups", done).await
    }

    async fn range(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.call("range", || self.inner.range(stream, after, count))
            .await
    }

    async fn redrive(
        &self,
        from: &StreamName,
        id: EntryId,
        to: &StreamName,
        fields: &Fields,
    ) -> Result<Option<EntryId>, StoreError> {
        self.call("redrive", || self.redrive_now(from, id, to, fields))
            .await
    }

    async fn remove(&self, stream: &StreamName, ids: &[EntryId]) -> Result<u64, StoreError> {
        self.call("remove", || self.inner.remove(stream, ids)).await
    }

    async fn expire(
        &self,
        stream: &StreamName,
        before: Timestamp,
        length_max: u64,
    ) -> Result<u64, StoreError> {
        self.call("expire", || self.inner.expire(stream, before, length_max))
            .await
    }

    async fn last(&self, stream: &StreamName) -> Result<Option<EntryId>, StoreError> {
        self.call("last", || self.inner.last(stream)).await
    }

    async fn remember(
        &self,
        group: &str,
        claims: &[NonceClaim],
    ) -> Result<Vec<NonceSeen>, StoreError> {
        self.call("remember", || self.inner.remember(group, claims))
            .await
    }

    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        self.call("keep", || self.inner.keep(name, bytes)).await
    }

    async fn kept(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.call("kept", || self.inner.kept(name)).await
    }

    async fn leave(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
    ) -> Result<(), StoreError> {
        self.call("leave", || self.inner.leave(stream, group, consumer))
            .await
    }
}

#[async_trait]
impl Turns for FaultyStore {
    async fn read_in_turn(
        &self,
        request: ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        self.wait("read", || self.inner.read_in_turn(request)).await
    }

    async fn claim_in_turn(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        self.call("claim", || self.claim_now(true, request)).await
    }

    async fn settle_in_turn(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let settle = |settlements| self.settle_now(true, group, settlements);
        self.pipeline("settle", settlements, settle).await
    }

    async fn mend_turns(&self, stream: &StreamName, group: &str) -> Result<Mended, StoreError> {
        self.call("mend_turns", || self.inner.mend_turns(stream, group))
            .await
    }

    async fn thin(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        self.call("thin", || self.inner.thin(stream, length_max))
            .await
    }
}
