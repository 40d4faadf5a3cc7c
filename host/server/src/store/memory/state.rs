//! What the store holds, and its steps. Whoever calls them has locked it.

use std::collections::BTreeMap;

use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId, Fields};

use super::super::{ReadRequest, Settlement, Step, StoreError, StreamName};
use super::ENTRIES_MAX;

#[derive(Default)]
pub(super) struct State {
    pub(super) streams: BTreeMap<StreamName, Stream>,
    pub(super) entries: usize,
    pub(super) nonces: BTreeMap<(String, u64), Nonce>,
    /// By name.
    pub(super) kept: BTreeMap<String, Bytes>,
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

    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        group: &str,
        settlement: &Settlement,
    ) -> Result<bool, StoreError> {
        let Settlement {
            stream: name,
            id,
            step,
        } = settlement;
        let Ok(found) = self.group(name, group) else {
            return Ok(false);
        };
        if !found.pending.contains_key(id) {
            return Ok(false);
        }
        match step {
            Step::Ack => {}
            Step::Retry { record, at: None } => {
                self.append(now, name, record.clone().into_fields())?;
            }
            Step::Retry {
                record,
                at: Some(at),
            } => {
                let stream = self.streams.entry(name.clone()).or_default();
                stream.delayed_count += 1;
                let number = stream.delayed_count;
                stream
                    .delayed
                    .insert((*at, number), record.clone().into_fields());
            }
            Step::DeadLetter { stream, record } => {
                self.append(now, stream, record.clone().into_fields())?;
            }
        }
        self.group(name, group)?.pending.remove(id);
        Ok(true)
    }
}
