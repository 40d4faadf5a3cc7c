//! Order among messages that share a key, in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use async_trait::async_trait;
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId, Fields, PAYLOAD};
use tokio::time::{Instant, timeout_at};

use super::super::turns::{IN_LINE, Mended, Turns, key_of};
use super::super::{ClaimRequest, Claimed, ReadRequest, Settlement, StoreError, StreamName};
use super::MemoryStore;
use super::state::{Group, Pending, State, Stream, after, no_group};

/// Where the message is whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the stream.
    Entry(EntryId),
    /// Among the retries that wait for their time.
    Delayed(Timestamp, u64),
}

/// The order of a group.
#[derive(Default)]
pub(super) struct Order {
    /// By key: whose turn it is, and what stands in line.
    lines: BTreeMap<String, Line>,
    /// The key of each whose turn it is.
    holders: BTreeMap<Place, String>,
    /// Entries whose turn has come and that nobody has been handed yet, in the order in which it came.
    ready: VecDeque<EntryId>,
}

struct Line {
    holder: Place,
    in_line: BTreeSet<EntryId>,
}

impl Order {
    /// Whether it is the turn of an entry of this key. If not, it stands in line from now on.
    fn seat(&mut self, id: EntryId, key: &str) -> bool {
        let place = Place::Entry(id);
        if let Some(line) = self.lines.get_mut(key) {
            let own = line.holder == place;
            if !own {
                line.in_line.insert(id);
            }
            return own;
        }
        let line = Line {
            holder: place,
            in_line: BTreeSet::new(),
        };
        self.lines.insert(key.to_owned(), line);
        self.holders.insert(place, key.to_owned());
        true
    }

    /// The message at `from` is at `to` now, or finished. If it had a turn, it takes it along or passes
    /// it on.
    pub(super) fn carry(&mut self, from: Place, to: Option<Place>) {
        let Some(key) = self.holders.remove(&from) else {
            return;
        };
        let line = self.lines.get_mut(&key).filter(|line| line.holder == from);
        let Some(line) = line else { return };
        let next = to.or_else(|| {
            let next = line.in_line.pop_first()?;
            self.ready.push_back(next);
            Some(Place::Entry(next))
        });
        if let Some(next) = next {
            line.holder = next;
            self.holders.insert(next, key);
        } else {
            self.lines.remove(&key);
        }
    }
}

fn key(group: &str, id: EntryId, fields: &Fields) -> Option<String> {
    let payload = fields.iter().find(|(name, _)| name == PAYLOAD.as_bytes());
    key_of(payload.map(|(_, payload)| payload), id, group)
}

impl Group {
    /// Whether it is the turn of an entry that `consumer` is to be handed. If not, it stands in line.
    fn seat(&mut self, name: &str, id: EntryId, fields: &Fields) -> bool {
        let Some(key) = key(name, id, fields) else {
            return true;
        };
        let own = self.order.seat(id, &key);
        if let Some(pending) = self.pending.get_mut(&id).filter(|_| !own) {
            IN_LINE.clone_into(&mut pending.consumer);
        }
        own
    }

    /// Forgets what was deleted while it was pending.
    fn forget_deleted(&mut self, entries: &BTreeMap<EntryId, Fields>) {
        let gone = self.pending.keys().copied();
        let gone: Vec<_> = gone.filter(|id| !entries.contains_key(id)).collect();
        for id in gone {
            self.pending.remove(&id);
            self.order.carry(Place::Entry(id), None);
        }
    }

    fn mend(&mut self, entries: &BTreeMap<EntryId, Fields>, delayed: &[Place]) -> u64 {
        let (pending, read_through) = (&self.pending, self.read_through);
        let lost = |place: &Place| match place {
            Place::Entry(id) => {
                let unread = *id > read_through && entries.contains_key(id);
                !pending.contains_key(id) && !unread
            }
            Place::Delayed(..) => !delayed.contains(place),
        };
        let lost: Vec<_> = self.order.holders.keys().copied().filter(lost).collect();
        for place in &lost {
            self.order.carry(*place, None);
        }
        lost.len() as u64
    }
}

impl Stream {
    fn hand_out(
        &mut self,
        now: Timestamp,
        request: &ReadRequest<'_>,
    ) -> Result<Vec<Entry>, StoreError> {
        let missing = || no_group(request.group);
        let group = self.groups.get_mut(request.group).ok_or_else(missing)?;
        group.consumers.insert(request.consumer.to_owned(), now);
        let pending = || Pending {
            consumer: request.consumer.to_owned(),
            since: now,
            deliveries: 1,
        };
        let mut found = Vec::new();
        while found.len() < request.count
            && let Some(id) = group.order.ready.pop_front()
        {
            let fields = self.entries.get(&id);
            match (fields, group.pending.get_mut(&id)) {
                (Some(fields), Some(held)) => {
                    *held = pending();
                    let fields = fields.clone();
                    found.push(Entry { id, fields });
                }
                _ => {
                    group.pending.remove(&id);
                    group.order.carry(Place::Entry(id), None);
                }
            }
        }
        // Behind what is put in line there may be more: who asks never waits with something unread.
        loop {
            let mut new = 0;
            let unread = after(&self.entries, Some(group.read_through));
            for (id, fields) in unread.take(request.count - found.len()) {
                new += 1;
                group.read_through = *id;
                group.pending.insert(*id, pending());
                if group.seat(request.group, *id, fields) {
                    let fields = fields.clone();
                    found.push(Entry { id: *id, fields });
                }
            }
            if new == 0 || !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    fn take_over(
        &mut self,
        now: Timestamp,
        request: &ClaimRequest<'_>,
    ) -> Result<Vec<Claimed>, StoreError> {
        let missing = || no_group(request.group);
        let group = self.groups.get_mut(request.group).ok_or_else(missing)?;
        group.consumers.insert(request.consumer.to_owned(), now);
        group.forget_deleted(&self.entries);
        let left = group.pending.iter().filter(|(_, pending)| {
            pending.consumer != IN_LINE && now.since(pending.since) >= request.idle_min
        });
        let left: Vec<_> = left.map(|(id, _)| *id).collect();
        let mut claimed = Vec::new();
        for id in left {
            if claimed.len() >= request.count {
                break;
            }
            let (Some(pending), Some(fields)) = (group.pending.get_mut(&id), self.entries.get(&id))
            else {
                continue;
            };
            request.consumer.clone_into(&mut pending.consumer);
            pending.since = now;
            pending.deliveries += 1;
            let deliveries = pending.deliveries;
            if group.seat(request.group, id, fields) {
                let fields = fields.clone();
                let entry = Entry { id, fields };
                claimed.push(Claimed { entry, deliveries });
            }
        }
        Ok(claimed)
    }
}

impl State {
    fn read_in_turn(
        &mut self,
        now: Timestamp,
        request: &ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        let mut found = Vec::new();
        for (index, name) in request.streams.iter().enumerate() {
            let missing = || no_group(request.group);
            let stream = self.streams.get_mut(name).ok_or_else(missing)?;
            let handed = stream.hand_out(now, request)?;
            found.extend(handed.into_iter().map(|entry| (index, entry)));
        }
        Ok(found)
    }
}

#[async_trait]
impl Turns for MemoryStore {
    async fn read_in_turn(
        &self,
        request: ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        if request.count == 0 || request.streams.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + request.block;
        loop {
            let mut appended = std::pin::pin!(self.appended.notified());
            appended.as_mut().enable();
            let found = self.state().read_in_turn(self.now(), &request)?;
            if !found.is_empty() {
                return Ok(found);
            }
            if timeout_at(deadline, appended).await.is_err() {
                return Ok(found);
            }
        }
    }

    async fn claim_in_turn(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        let now = self.now();
        let missing = || no_group(request.group);
        let claimed = {
            let mut state = self.state();
            let stream = state.streams.get_mut(request.stream).ok_or_else(missing)?;
            stream.take_over(now, &request)?
        };
        self.appended.notify_waiters();
        Ok(claimed)
    }

    async fn settle_in_turn(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let now = self.now();
        let settled = {
            let mut state = self.state();
            let mut settle = |settlement| state.settle(now, group, settlement, true);
            settlements.iter().map(&mut settle).collect()
        };
        self.appended.notify_waiters();
        settled
    }

    async fn mend_turns(&self, stream: &StreamName, group: &str) -> Result<Mended, StoreError> {
        let mended = {
            let mut state = self.state();
            let Some(stream) = state.streams.get_mut(stream) else {
                return Ok(Mended::default());
            };
            let delayed = stream.delayed.keys();
            let delayed: Vec<_> = delayed.map(|(due, n)| Place::Delayed(*due, *n)).collect();
            let found = stream.groups.get_mut(group);
            let passed = found.map_or(0, |group| group.mend(&stream.entries, &delayed));
            let lines = stream
                .groups
                .values()
                .flat_map(|group| group.order.lines.values());
            let in_line = lines.map(|line| line.in_line.len() as u64).sum();
            Mended { passed, in_line }
        };
        self.appended.notify_waiters();
        Ok(mended)
    }

    async fn thin(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        let mut state = self.state();
        let Some(stream) = state.streams.get_mut(stream) else {
            return Ok(0);
        };
        let groups = &stream.groups;
        let Some(through) = groups.values().map(|group| group.read_through).min() else {
            return Ok(0);
        };
        let excess = (stream.entries.len() as u64).saturating_sub(length_max);
        let open = |id: &EntryId| groups.values().any(|group| group.pending.contains_key(id));
        let finished = stream.entries.keys().take_while(|id| **id <= through);
        let finished = finished.copied().filter(|id| !open(id));
        let finished: Vec<_> = finished
            .take(usize::try_from(excess).unwrap_or(usize::MAX))
            .collect();
        for id in &finished {
            stream.entries.remove(id);
        }
        state.entries -= finished.len();
        Ok(finished.len() as u64)
    }
}
