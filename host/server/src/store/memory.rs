//! A store in the process, for the demo, for tests and for simulation. Nothing outlives it.

mod state;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId, Fields};
use oona_core::policy::NonceSeen;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::state::{Group, Nonce, State, after, full, no_group};
use super::{
    Append, ClaimRequest, Claimed, GroupDepth, GroupStart, NonceClaim, ReadRequest, Settlement,
    Store, StoreError, StoreInfo, StreamDepth, StreamName,
};
use crate::clock::Clock;

/// How many entries it holds in all its streams. What comes after is refused.
pub const ENTRIES_MAX: usize = 1_000_000;

/// How many nonces it remembers. What comes after is refused.
pub const NONCES_MAX: usize = 1_000_000;

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
    ) -> Result<Vec<Result<EntryId, StoreError>>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        let written = batch
            .iter()
            .map(|append| state.append(now, &append.stream, append.record.clone().into_fields()))
            .collect();
        drop(state);
        self.appended.notify_waiters();
        Ok(written)
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
            pending: BTreeMap::new(),
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
            .map(|settlement| state.settle(now, group, settlement))
            .collect();
        drop(state);
        self.appended.notify_waiters();
        settled
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
                && let Some((_, fields)) = stream.delayed.pop_first()
            {
                stream.append((self.clock)(), fields);
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

    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.kept.contains_key(name) {
            return Ok(());
        }
        let held: usize = state.kept.values().map(Bytes::len).sum();
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

    async fn leave(&self, _: &StreamName, _: &str, _: &str) -> Result<(), StoreError> {
        // A consumer is no more than a name on what is pending.
        Ok(())
    }
}
