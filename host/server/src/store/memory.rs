//! A store in the process, for the demo, for tests and for simulation. Nothing outlives it.

mod state;
mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::broadcast::Sight;
use oona_core::entry::{Entry, EntryId, Fields, Record};
use oona_core::policy::NonceSeen;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::state::{Group, Nonce, State, after, full, no_group};
use self::turns::Place;
use super::{
    Append, ClaimRequest, Claimed, Dropped, GroupDepth, GroupStart, NonceClaim, Oldest,
    ReadRequest, RemovedGroup, Settlement, Store, StoreError, StoreInfo, StreamDepth, StreamName,
    Written,
};
use crate::clock::Clock;

/// How many entries it holds in all its streams. What comes after is refused.
pub const ENTRIES_MAX: usize = 1_000_000;

/// How many nonces it remembers. What comes after is refused.
pub const NONCES_MAX: usize = 1_000_000;

/// How many event ids it remembers. What comes after is refused.
pub const EVENTS_MAX: usize = 1_000_000;
/// How many broadcasts it holds receipts of. The oldest go first.
pub const RECEIPTS_MAX: usize = 10_000;

/// How many bytes it keeps for good. What comes after is refused.
pub const KEPT_BYTES_MAX: usize = 256 << 20;

/// See the module.
pub struct MemoryStore {
    clock: Clock,
    state: Mutex<State>,
    appended: Notify,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store that lives by `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            appended: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn info(&self) -> StoreInfo {
        StoreInfo {
            name: "memory",
            address: "memory".to_owned(),
            durable: false,
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn append(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let written = batch
            .iter()
            .map(|append| state.append_once(now, append))
            .collect();
        drop(state);
        self.appended.notify_waiters();
        Ok(written)
    }

    async fn recall(&self, events: &[Arc<str>]) -> Result<Vec<Option<Written>>, StoreError> {
        let now = self.now();
        let state = self.state();
        Ok(events
            .iter()
            .map(|event| state.recall(now, event))
            .collect())
    }

    async fn append_after(
        &self,
        stream: &StreamName,
        last: Option<EntryId>,
        id: Option<EntryId>,
        record: &Record,
    ) -> Result<Option<EntryId>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let found = state.streams.get(stream);
        if found.and_then(|found| found.entries.keys().next_back().copied()) != last {
            return Ok(None);
        }
        let fields = record.clone().into_fields();
        let written = match id {
            Some(id) => state.append_as(id, stream, fields),
            None => state.append(now, stream, fields),
        };
        drop(state);
        self.appended.notify_waiters();
        written.map(Some)
    }

    async fn ensure_group(
        &self,
        stream: &StreamName,
        group: &str,
        start: GroupStart,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        let stream = state.streams.entry(stream.clone()).or_default();
        let read_through = match start {
            GroupStart::Beginning => EntryId::MIN,
            GroupStart::End => stream.last,
        };
        let new = || Group {
            read_through,
            ..Group::default()
        };
        stream.groups.entry(group.to_owned()).or_insert_with(new);
        Ok(())
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Vec<(usize, Entry)>, StoreError> {
        if request.count == 0 || request.streams.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + request.block;
        loop {
            let mut appended = std::pin::pin!(self.appended.notified());
            appended.as_mut().enable();
            let found = self.state().read(self.now(), &request)?;
            if !found.is_empty() || timeout_at(deadline, appended).await.is_err() {
                return Ok(found);
            }
        }
    }

    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let missing = || no_group(request.group);
        let stream = state.streams.get_mut(request.stream).ok_or_else(missing)?;
        let group = stream.groups.get_mut(request.group).ok_or_else(missing)?;
        group.consumers.insert(request.consumer.to_owned(), now);
        let entries = &stream.entries;
        group.pending.retain(|id, _| entries.contains_key(id));
        let idle = group
            .pending
            .iter_mut()
            .filter(|(_, pending)| now.since(pending.since) >= request.idle_min);
        let mut claimed = Vec::new();
        for (id, pending) in idle.take(request.count) {
            pending.consumer = request.consumer.to_owned();
            pending.since = now;
            pending.deliveries += 1;
            let entry = Entry {
                id: *id,
                fields: entries[id].clone(),
            };
            claimed.push(Claimed {
                entry,
                deliveries: pending.deliveries,
            });
        }
        Ok(claimed)
    }

    async fn touch(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
        ids: &[EntryId],
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut state = self.state();
        let group = state.group(stream, group)?;
        for id in ids {
            if let Some(pending) = group.pending.get_mut(id)
                && pending.consumer == consumer
            {
                pending.since = now;
            }
        }
        Ok(())
    }

    async fn settle(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let settled: Result<_, _> = settlements
            .iter()
            .map(|settlement| state.settle(now, group, settlement, false))
            .collect();
        drop(state);
        self.appended.notify_waiters();
        settled
    }

    async fn sights(
        &self,
        stream: &StreamName,
        id: EntryId,
        receipt: &str,
        groups: &[String],
    ) -> Result<Vec<Sight>, StoreError> {
        let now = self.now();
        let state = self.state();
        let sight = |group: &String| state.sight(now, stream, id, receipt, group);
        Ok(groups.iter().map(sight).collect())
    }

    async fn promote(
        &self,
        stream: &StreamName,
        now: Timestamp,
        count: usize,
    ) -> Result<u64, StoreError> {
        let mut promoted = 0;
        {
            let mut state = self.state();
            let state = &mut *state;
            let Some(stream) = state.streams.get_mut(stream) else {
                return Ok(0);
            };
            while promoted < count as u64
                && let Some(((due, _), _)) = stream.delayed.first_key_value()
                && *due <= now
                && let Some((place, fields)) = stream.delayed.pop_first()
            {
                let id = stream.append((self.clock)(), fields);
                let place = Place::Delayed(place.0, place.1);
                for group in stream.groups.values_mut() {
                    group.order.carry(place, Some(Place::Entry(id)));
                }
                state.entries += 1;
                promoted += 1;
            }
        }
        self.appended.notify_waiters();
        Ok(promoted)
    }

    async fn depths(&self, streams: &[StreamName]) -> Result<Vec<StreamDepth>, StoreError> {
        let state = self.state();
        let depth = |name: &StreamName| {
            let Some(stream) = state.streams.get(name) else {
                return StreamDepth::default();
            };
            let group = |(name, group): (&String, &Group)| GroupDepth {
                name: name.clone(),
                lag: stream.lag(group),
                pending: group.pending.len() as u64,
            };
            let groups = stream.groups.iter().map(group).collect();
            StreamDepth::new(
                stream.entries.len() as u64,
                groups,
                stream.delayed.len() as u64,
            )
        };
        Ok(streams.iter().map(depth).collect())
    }

    async fn oldest(&self, streams: &[StreamName]) -> Result<Vec<Oldest>, StoreError> {
        let state = self.state();
        let oldest = |name: &StreamName| state.streams.get(name).map(state::Stream::oldest);
        Ok(streams
            .iter()
            .map(|name| oldest(name).unwrap_or_default())
            .collect())
    }

    async fn trim(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        let mut state = self.state();
        let Some(stream) = state.streams.get_mut(stream) else {
            return Ok(0);
        };
        let Some(keep_from) = stream.first_unfinished() else {
            return Ok(0);
        };
        let mut trimmed = 0;
        while stream.entries.len() as u64 > length_max
            && let Some(first) = stream.entries.first_entry()
            && *first.key() < keep_from
        {
            first.remove();
            trimmed += 1;
        }
        state.entries -= trimmed;
        Ok(trimmed as u64)
    }

    async fn drop_oldest(
        &self,
        stream: &StreamName,
        length_max: u64,
    ) -> Result<Dropped, StoreError> {
        let mut state = self.state();
        let mut dropped = Dropped::default();
        let Some(stream) = state.streams.get_mut(stream) else {
            return Ok(dropped);
        };
        while stream.entries.len() as u64 > length_max
            && let Some(unfinished) = stream.drop_first()
        {
            dropped.unfinished += u64::from(unfinished);
            dropped.finished += u64::from(!unfinished);
        }
        let count = usize::try_from(dropped.finished + dropped.unfinished);
        state.entries -= count.unwrap_or(usize::MAX);
        Ok(dropped)
    }

    async fn remove_idle_consumers(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<u64, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let mut removed = 0;
        let streams = state.streams.get_mut(stream).into_iter();
        for group in streams.flat_map(|stream| stream.groups.values_mut()) {
            let mut consumers = std::mem::take(&mut group.consumers);
            let before = consumers.len();
            consumers.retain(|name, last| now.since(*last) < idle || group.holds(name));
            removed += (before - consumers.len()) as u64;
            group.consumers = consumers;
        }
        Ok(removed)
    }

    async fn remove_idle_groups(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<Vec<RemovedGroup>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let mut removed = Vec::new();
        let Some(stream) = state.streams.get_mut(stream) else {
            return Ok(removed);
        };
        let mut groups = std::mem::take(&mut stream.groups);
        groups.retain(|name, group| {
            let unread = after(&stream.entries, Some(group.read_through)).next();
            let waits = match unread {
                Some((id, _)) => now.since(Timestamp::from_millis(id.ms)) >= idle,
                None => !group.pending.is_empty(),
            };
            let stays = group.idle(now) < idle || !waits;
            if !stays {
                let unfinished = stream.lag(group) + group.pending.len() as u64;
                let name = name.clone();
                removed.push(RemovedGroup { name, unfinished });
            }
            stays
        });
        stream.groups = groups;
        Ok(removed)
    }

    async fn range(
        &self,
        stream: &StreamName,
        from: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let state = self.state();
        let Some(stream) = state.streams.get(stream) else {
            return Ok(Vec::new());
        };
        let entry = |(id, fields): (&EntryId, &Fields)| Entry {
            id: *id,
            fields: fields.clone(),
        };
        Ok(after(&stream.entries, from)
            .take(count)
            .map(entry)
            .collect())
    }

    async fn redrive(
        &self,
        from: &StreamName,
        id: EntryId,
        to: &StreamName,
        fields: &Fields,
    ) -> Result<Option<EntryId>, StoreError> {
        let now = self.now();
        let moved = {
            let mut state = self.state();
            let gone = state
                .streams
                .get_mut(from)
                .and_then(|stream| stream.entries.remove(&id));
            if gone.is_none() {
                return Ok(None);
            }
            state.entries -= 1;
            state.append(now, to, fields.clone())?
        };
        self.appended.notify_waiters();
        Ok(Some(moved))
    }

    async fn remove(&self, stream: &StreamName, ids: &[EntryId]) -> Result<u64, StoreError> {
        let mut state = self.state();
        let Some(stream) = state.streams.get_mut(stream) else {
            return Ok(0);
        };
        let mut gone = ids.iter().filter(|id| stream.entries.remove(id).is_some());
        let removed = gone.by_ref().count();
        state.entries -= removed;
        Ok(removed as u64)
    }

    async fn expire(
        &self,
        stream: &StreamName,
        before: Timestamp,
        length_max: u64,
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        let Some(stream) = state.streams.get_mut(stream) else {
            return Ok(0);
        };
        let mut removed = 0;
        let mut surplus = (stream.entries.len() as u64).saturating_sub(length_max);
        while let Some(first) = stream.entries.first_entry()
            && (first.key().ms < before.as_millis() || surplus > 0)
        {
            first.remove();
            surplus = surplus.saturating_sub(1);
            removed += 1;
        }
        state.entries -= removed;
        Ok(removed as u64)
    }

    async fn last(&self, stream: &StreamName) -> Result<Option<EntryId>, StoreError> {
        let state = self.state();
        let stream = state.streams.get(stream);
        Ok(stream.and_then(|stream| stream.entries.keys().next_back().copied()))
    }

    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let mut state = self.state();
        let others = state.kept.iter().filter(|(held, _)| *held != name);
        let held: usize = others.map(|(_, bytes)| bytes.len()).sum();
        if held + bytes.len() > KEPT_BYTES_MAX {
            return Err(full("bytes kept", KEPT_BYTES_MAX));
        }
        state.kept.insert(name.to_owned(), bytes.clone());
        Ok(())
    }

    async fn kept(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().kept.get(name).cloned())
    }

    async fn remember(
        &self,
        group: &str,
        claims: &[NonceClaim],
    ) -> Result<Vec<NonceSeen>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let nonces = &mut state.nonces;
        if nonces.len() + claims.len() > NONCES_MAX {
            nonces.retain(|_, nonce| now < nonce.until);
        }
        let mut seen = Vec::with_capacity(claims.len());
        for claim in claims {
            let key = (group.to_owned(), claim.nonce);
            let known = nonces.get(&key).filter(|nonce| now < nonce.until);
            seen.push(match known {
                Some(nonce) if nonce.owner == claim.owner => NonceSeen::SameEntry,
                Some(_) => NonceSeen::OtherEntry,
                None if nonces.len() >= NONCES_MAX => return Err(full("nonces", NONCES_MAX)),
                None => {
                    let nonce = Nonce {
                        owner: claim.owner.clone(),
                        until: now + claim.ttl,
                    };
                    nonces.insert(key, nonce);
                    NonceSeen::Unseen
                }
            });
        }
        Ok(seen)
    }

    async fn leave(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
    ) -> Result<(), StoreError> {
        if let Ok(group) = self.state().group(stream, group)
            && !group.holds(consumer)
        {
            group.consumers.remove(consumer);
        }
        Ok(())
    }
}
