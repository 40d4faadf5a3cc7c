//! What the store holds, and its steps. Whoever calls them has locked it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::broadcast::{Receipt, Sight, Standing};
use oona_core::entry::{Entry, EntryId, Fields, ORIGINAL};

use super::super::{
    Append, Oldest, Once, RECEIPT_KEPT, ReadRequest, Receipted, Settlement, Step, StoreError,
    StreamName, Written,
};
use super::turns::{Order, Place};
use super::{ENTRIES_MAX, EVENTS_MAX, RECEIPTS_MAX};

#[derive(Default)]
pub(super) struct State {
    pub(super) streams: BTreeMap<StreamName, Stream>,
    pub(super) entries: usize,
    pub(super) nonces: BTreeMap<(String, u64), Nonce>,
    /// What was appended once, by event id, and until when that is remembered.
    pub(super) events: BTreeMap<Arc<str>, (Written, Timestamp)>,
    /// By name.
    pub(super) kept: BTreeMap<String, Bytes>,
    pub(super) receipts: Receipts,
}

/// Receipts by their names: those of the groups, and until when they are held.
#[derive(Default)]
pub(super) struct Receipts(BTreeMap<String, (Timestamp, BTreeMap<String, Receipt>)>);

impl Receipts {
    fn note(&mut self, now: Timestamp, group: &str, noted: &Receipted) {
        if self.0.len() >= RECEIPTS_MAX {
            self.0.retain(|_, (until, _)| now < *until);
        }
        if self.0.len() >= RECEIPTS_MAX {
            // Whoever waited for the oldest has long given up; names begin with their time.
            self.0.pop_first();
        }
        let (until, groups) = self.0.entry(noted.name.clone()).or_default();
        *until = now + RECEIPT_KEPT;
        let receipt = Receipt {
            outcome: noted.outcome,
            at: now,
        };
        groups.insert(group.to_owned(), receipt);
    }

    fn of(&self, now: Timestamp, name: &str, group: &str) -> Option<Receipt> {
        let (until, groups) = self.0.get(name)?;
        (now < *until).then(|| groups.get(group).copied()).flatten()
    }
}

pub(super) struct Nonce {
    pub(super) owner: (StreamName, EntryId),
    pub(super) until: Timestamp,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<EntryId, Fields>,
    pub(super) last: EntryId,
    pub(super) groups: BTreeMap<String, Group>,
    /// Retries that wait, by the time at which they are due; the number keeps them apart.
    pub(super) delayed: BTreeMap<(Timestamp, u64), Fields>,
    pub(super) delayed_count: u64,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) read_through: EntryId,
    pub(super) pending: BTreeMap<EntryId, Pending>,
    /// The names under which somebody has read or claimed, and when last.
    pub(super) consumers: BTreeMap<String, Timestamp>,
    /// When it was first found without consumers.
    pub(super) deserted: Option<Timestamp>,
    pub(super) order: Order,
}

impl Group {
    pub(super) fn holds(&self, consumer: &str) -> bool {
        let mut pending = self.pending.values();
        pending.any(|pending| pending.consumer == consumer)
    }

    /// For how long nobody has been active.
    pub(super) fn idle(&mut self, now: Timestamp) -> Duration {
        match self.consumers.values().max() {
            Some(last) => {
                self.deserted = None;
                now.since(*last)
            }
            None => now.since(*self.deserted.get_or_insert(now)),
        }
    }
}

pub(super) struct Pending {
    pub(super) consumer: String,
    pub(super) since: Timestamp,
    pub(super) deliveries: u32,
}

impl Stream {
    pub(super) fn append(&mut self, now: Timestamp, fields: Fields) -> EntryId {
        let fresh = EntryId {
            ms: now.as_millis(),
            seq: 0,
        };
        let id = if fresh > self.last {
            fresh
        } else {
            self.last.next().unwrap_or(EntryId::MAX)
        };
        self.last = id;
        self.entries.insert(id, fields);
        id
    }

    pub(super) fn lag(&self, group: &Group) -> u64 {
        after(&self.entries, Some(group.read_through)).count() as u64
    }

    /// Removes the oldest entry; answers whether some group had yet to finish it.
    pub(super) fn drop_first(&mut self) -> Option<bool> {
        let (id, _) = self.entries.pop_first()?;
        let mut open = self.groups.is_empty();
        for group in self.groups.values_mut() {
            open |= group.pending.remove(&id).is_some() || group.read_through < id;
        }
        Some(open)
    }

    pub(super) fn oldest(&self) -> Oldest {
        let unfinished = |(name, group): (&String, &Group)| {
            let pending = group.pending.keys().next();
            let unread = || after(&self.entries, Some(group.read_through)).next();
            let first = pending.or_else(|| unread().map(|(id, _)| id));
            (name.clone(), first.copied())
        };
        Oldest {
            held: self.entries.keys().next().copied(),
            unfinished: self.groups.iter().map(unfinished).collect(),
        }
    }

    /// The first entry that some group has yet to finish; `None` if there is no group.
    pub(super) fn first_unfinished(&self) -> Option<EntryId> {
        let first = |group: &Group| {
            let pending = group.pending.keys().next().copied();
            pending.unwrap_or_else(|| group.read_through.next().unwrap_or(EntryId::MAX))
        };
        self.groups.values().map(first).min()
    }
}

pub(super) fn after(
    entries: &BTreeMap<EntryId, Fields>,
    after: Option<EntryId>,
) -> impl Iterator<Item = (&EntryId, &Fields)> {
    let from = match after {
        Some(id) => std::ops::Bound::Excluded(id),
        None => std::ops::Bound::Unbounded,
    };
    entries.range((from, std::ops::Bound::Unbounded))
}

pub(super) fn full(what: &str, limit: usize) -> StoreError {
    StoreError::Refused {
        address: "memory".to_owned(),
        code: "FULL".to_owned(),
        detail: format!("it holds {limit} {what}, and that is the limit"),
    }
}

pub(super) fn no_group(group: &str) -> StoreError {
    StoreError::NoGroup {
        group: group.to_owned(),
    }
}

impl State {
    pub(super) fn append(
        &mut self,
        now: Timestamp,
        stream: &StreamName,
        fields: Fields,
    ) -> Result<EntryId, StoreError> {
        if self.entries >= ENTRIES_MAX {
            return Err(full("entries", ENTRIES_MAX));
        }
        self.entries += 1;
        Ok(self
            .streams
            .entry(stream.clone())
            .or_default()
            .append(now, fields))
    }

    /// Appends, unless it was appended before.
    pub(super) fn append_once(
        &mut self,
        now: Timestamp,
        append: &Append,
    ) -> Result<Written, StoreError> {
        let fields = append.record.clone().into_fields();
        let Some(once) = &append.once else {
            return self.append(now, &append.stream, fields).map(Written::now);
        };
        if let Some(before) = self.recall(now, &once.event) {
            return Ok(before);
        }
        if self.events.len() >= EVENTS_MAX {
            self.events.retain(|_, (_, until)| now < *until);
        }
        if self.events.len() >= EVENTS_MAX {
            return Err(full("event ids", EVENTS_MAX));
        }
        let id = self.append(now, &append.stream, fields)?;
        let Once {
            event,
            window,
            note,
        } = once;
        let remembered = Written {
            id,
            before: Some(note.clone()),
        };
        self.events
            .insert(Arc::clone(event), (remembered, now + *window));
        Ok(Written::now(id))
    }

    pub(super) fn recall(&self, now: Timestamp, event: &str) -> Option<Written> {
        let (written, until) = self.events.get(event)?;
        (now < *until).then(|| written.clone())
    }

    /// Appends under an id that is greater than any before, unless all entries are gone.
    pub(super) fn append_as(
        &mut self,
        id: EntryId,
        stream: &StreamName,
        fields: Fields,
    ) -> Result<EntryId, StoreError> {
        if self.entries >= ENTRIES_MAX {
            return Err(full("entries", ENTRIES_MAX));
        }
        self.entries += 1;
        let stream = self.streams.entry(stream.clone()).or_default();
        stream.last = id;
        stream.entries.insert(id, fields);
        Ok(id)
    }

    pub(super) fn group(
        &mut self,
        stream: &StreamName,
        group: &str,
    ) -> Result<&mut Group, StoreError> {
        let found = self
            .streams
            .get_mut(stream)
            .and_then(|stream| stream.groups.get_mut(group));
        found.ok_or_else(|| no_group(group))
    }

    pub(super) fn read(
        &mut self,
        now: Timestamp,
        request: &ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        let mut found = Vec::new();
        for (index, name) in request.streams.iter().enumerate() {
            let missing = || no_group(request.group);
            let stream = self.streams.get_mut(name).ok_or_else(missing)?;
            let group = stream.groups.get_mut(request.group).ok_or_else(missing)?;
            group.consumers.insert(request.consumer.to_owned(), now);
            for (id, fields) in after(&stream.entries, Some(group.read_through)).take(request.count)
            {
                let consumer = request.consumer.to_owned();
                group.pending.insert(
                    *id,
                    Pending {
                        consumer,
                        since: now,
                        deliveries: 1,
                    },
                );
                found.push((
                    index,
                    Entry {
                        id: *id,
                        fields: fields.clone(),
                    },
                ));
            }
            if let Some((_, last)) = found.last().filter(|(at, _)| *at == index) {
                group.read_through = last.id;
            }
        }
        Ok(found)
    }

    /// With `in_turn`, what becomes of the entry's turn is part of the step.
    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        group: &str,
        settlement: &Settlement,
        in_turn: bool,
    ) -> Result<bool, StoreError> {
        let Settlement {
            stream,
            id,
            step,
            receipt,
        } = settlement;
        let Ok(found) = self.group(stream, group) else {
            return Ok(false);
        };
        if !found.pending.contains_key(id) {
            return Ok(false);
        }
        let place = self.write(now, stream, step)?;
        let settled = self.group(stream, group)?;
        if in_turn {
            settled.order.carry(Place::Entry(*id), place);
        }
        settled.pending.remove(id);
        if let Some(receipt) = receipt {
            self.receipts.note(now, group, receipt);
        }
        Ok(true)
    }

    /// Writes what a step says; answers where a retry is.
    fn write(
        &mut self,
        now: Timestamp,
        name: &StreamName,
        step: &Step,
    ) -> Result<Option<Place>, StoreError> {
        match step {
            Step::Ack => Ok(None),
            Step::Retry { record, at: None } => {
                let id = self.append(now, name, record.clone().into_fields())?;
                Ok(Some(Place::Entry(id)))
            }
            Step::Retry {
                record,
                at: Some(at),
            } => {
                let stream = self.streams.entry(name.clone()).or_default();
                stream.delayed_count += 1;
                let number = stream.delayed_count;
                let fields = record.clone().into_fields();
                stream.delayed.insert((*at, number), fields);
                Ok(Some(Place::Delayed(*at, number)))
            }
            Step::DeadLetter {
                stream,
                record,
                original,
            } => {
                let mut fields = record.clone().into_fields();
                let name = Bytes::from_static(ORIGINAL.as_bytes());
                fields.extend(original.clone().map(|original| (name, original)));
                self.append(now, stream, fields)?;
                Ok(None)
            }
        }
    }

    pub(super) fn sight(
        &self,
        now: Timestamp,
        stream: &StreamName,
        id: EntryId,
        receipt: &str,
        group: &str,
    ) -> Sight {
        let stream = self.streams.get(stream);
        let found = stream.and_then(|stream| stream.groups.get(group));
        let standing = match found {
            None => Standing::NoGroup,
            Some(group) if group.pending.contains_key(&id) => Standing::Pending,
            Some(group) if group.read_through >= id => Standing::Passed,
            Some(_) => Standing::Unread,
        };
        Sight {
            standing,
            receipt: self.receipts.of(now, receipt, group),
        }
    }
}
