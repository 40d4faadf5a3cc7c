//! Dead letters: to look at, to count, to send on their way again, and to let go.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use oona_core::dead_letter::{DeadLetter, DeadLetterError, Filter, Restored, Tally, Walk};
use oona_core::entry::{Entry, EntryId, Fields, PAYLOAD, SIGNATURE};
use oona_core::signing::VerifyError;
use serde::Serialize;

use super::Bus;
use super::shared::Shared;
use crate::store::{StoreError, StreamName};

/// How many entries are read at once: with payloads of the largest size, some 100 MB.
const PAGE: usize = 128;

/// How many entries one search looks at; the next goes on from there.
const SEARCHED_MAX: usize = 10_000;

/// A dead letter, for people and programs to look at.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterView {
    /// Its entry in the dead-letter stream; names it in a redrive.
    pub id: String,
    /// Event id of the message; empty if the entry could not be read.
    pub event_id: String,
    /// Wire number of the message's type.
    pub message_type: u32,
    /// Under which class it was filed.
    pub class: String,
    /// Why, as the policy said.
    pub reason: String,
    /// Why, as the subscriber or the host said.
    pub detail: String,
    /// How its delivery failed.
    pub failure: String,
    /// The stream that it came from, and the entry there.
    pub stream: String,
    /// See `stream`.
    pub entry: String,
    /// The consumer group that could not handle it.
    pub group: String,
    /// How often handling it failed.
    pub attempts: u32,
    /// How often it has been redriven before.
    pub redrives: u32,
    /// When handling it failed first, in ms since the epoch.
    pub first_failed_ms: u64,
    /// When it was filed, in ms since the epoch: when handling it failed last.
    pub at_ms: u64,
    /// Name and version of the policy that filed it.
    pub policy: String,
    /// Size of the payload in bytes.
    pub payload_size: usize,
    /// The message's own attributes.
    pub attributes: BTreeMap<String, String>,
}

/// Some dead letters, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The letters, oldest first.
    pub letters: Vec<DeadLetterView>,
    /// Go on after this entry; at the end without.
    pub next: Option<EntryId>,
    /// How many entries were met that are no dead letters of this bus.
    pub foreign: u64,
}

/// The entry that a dead letter is about, as it was read.
#[derive(Clone, Debug)]
pub struct Original {
    /// Every field, byte for byte.
    pub fields: Fields,
    /// Whether a key of this bus verifies its signature; `None` if the bus has no key.
    pub verified: Option<bool>,
}

/// A dead letter that went back.
#[derive(Clone, Debug, Serialize)]
pub struct Redriven {
    /// Where to.
    pub stream: StreamName,
    /// Its new entry there.
    pub id: String,
}

/// Why a dead letter stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// There is no such dead letter: never was, or somebody else has redriven it.
    #[error("there is no dead letter {0}")]
    Gone(EntryId),
    /// The entry in the dead-letter stream is not of this bus.
    #[error("dead letter {id} does not carry a signature of this bus")]
    Unverifiable {
        /// Which.
        id: EntryId,
        /// What is wrong with it.
        source: VerifyError,
    },
    /// The entry in the dead-letter stream is no dead letter.
    #[error("entry {id} of the dead-letter stream is no dead letter")]
    Undecodable {
        /// Which.
        id: EntryId,
        /// What is wrong with it.
        source: DeadLetterError,
    },
    /// It shall go to a stream that the bus does not have, or does not have any more.
    #[error("dead letter {id} cannot go to `{stream}`: the bus has {known}")]
    UnknownStream {
        /// Which.
        id: EntryId,
        /// Where to.
        stream: String,
        /// What there is.
        known: String,
    },
    /// The store failed.
    #[error("the store failed at dead letter {id}")]
    Store {
        /// Which.
        id: EntryId,
        /// How it failed.
        source: StoreError,
    },
}

/// Which dead letters a command is about.
#[derive(Clone, Debug)]
pub enum LettersMeant {
    /// These.
    Ids(Vec<EntryId>),
    /// All that fit, of those that are there now.
    Fitting(Filter),
}

/// A way through the dead letters that are meant, oldest first.
#[derive(Debug)]
pub struct Stroll {
    bus: Bus,
    filter: Filter,
    walk: Option<Walk>,
    ahead: VecDeque<EntryId>,
}

impl Stroll {
    /// The next dead letter; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn next(&mut self) -> Result<Option<EntryId>, StoreError> {
        loop {
            if let Some(id) = self.ahead.pop_front() {
                return Ok(Some(id));
            }
            let Some(walk) = &mut self.walk else {
                return Ok(None);
            };
            let Some(after) = walk.next() else {
                return Ok(None);
            };
            let shared = &self.bus.shared;
            let page = page(shared, after).await?;
            let ids: Vec<_> = page.iter().map(|entry| entry.id).collect();
            let on_the_way = walk.saw(&ids);
            let meant = page
                .iter()
                .take(on_the_way)
                .filter(|entry| read(shared, entry).is_ok_and(|letter| self.filter.fits(&letter)));
            self.ahead.extend(meant.map(|entry| entry.id));
        }
    }
}

impl Bus {
    /// Up to `count` dead letters after `after`, oldest first. Entries of the dead-letter stream that
    /// are no dead letters of this bus are left out.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn dead_letters(
        &self,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<DeadLetterView>, StoreError> {
        let found = self
            .find_dead_letters(&Filter::default(), after, count)
            .await?;
        Ok(found.letters)
    }

    /// Up to `count` dead letters after `after` that fit, oldest first. A search looks at so many
    /// entries and no more; [`Found::next`] says where to go on.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn find_dead_letters(
        &self,
        filter: &Filter,
        mut after: Option<EntryId>,
        count: usize,
    ) -> Result<Found, StoreError> {
        let mut found = Found::default();
        for _ in 0..SEARCHED_MAX.div_ceil(PAGE) {
            let page = page(&self.shared, after).await?;
            let ended = page.len() < PAGE;
            for entry in page {
                if found.letters.len() == count {
                    found.next = after;
                    return Ok(found);
                }
                after = Some(entry.id);
                match read(&self.shared, &entry) {
                    Ok(letter) if filter.fits(&letter) => found.letters.push(view(&entry, &letter)),
                    Ok(_) => {}
                    Err(_) => found.foreign += 1,
                }
            }
            if ended {
                return Ok(found);
            }
        }
        found.next = after;
        Ok(found)
    }

    /// Counts the dead letters that fit.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn tally_dead_letters(&self, filter: &Filter) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        let mut after = None;
        loop {
            let page = page(&self.shared, after).await?;
            for letter in page
                .iter()
                .filter_map(|entry| read(&self.shared, entry).ok())
            {
                if filter.fits(&letter) {
                    tally.add(&letter);
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id),
                _ => return Ok(tally),
            }
        }
    }

    /// How many entries the dead-letter stream holds, and the last of them, as far as it is a dead letter of
    /// this bus. Nothing but that entry is read.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn last_dead_letter(
        &self,
    ) -> Result<(u64, Option<Result<DeadLetterView, LetterError>>), StoreError> {
        let shared = &self.shared;
        let stream = &shared.config.streams.dead_letter;
        let depths = shared.store.depths(std::slice::from_ref(stream)).await?;
        let length = depths.first().map_or(0, |depth| depth.length);
        let Some(id) = shared.store.last(stream).await? else {
            return Ok((length, None));
        };
        // Whoever purges it meanwhile has made another one the last: the next look shows that.
        let found = shared.store.range(stream, id.previous(), 1).await?;
        let entry = found.into_iter().find(|entry| entry.id == id);
        let letter = entry.map(|entry| read(shared, &entry).map(|letter| view(&entry, &letter)));
        Ok((length, letter))
    }

    /// One dead letter, and the entry that it is about.
    ///
    /// # Errors
    ///
    /// If it is gone, is no dead letter of this bus, or the store fails.
    pub async fn dead_letter(
        &self,
        id: EntryId,
    ) -> Result<(DeadLetterView, DeadLetter, Original), LetterError> {
        let entry = self.letter_entry(id).await?;
        let letter = read(&self.shared, &entry)?;
        let fields = letter.original_fields();
        let fields = fields.map_err(|source| LetterError::Undecodable { id, source })?;
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name.as_bytes());
            found.map(|(_, value)| value.as_ref())
        };
        let verified = self.shared.keyring().map(|keyring| {
            let payload = field(PAYLOAD).unwrap_or_default();
            keyring.verify(payload, field(SIGNATURE)).is_ok()
        });
        let original = Original { fields, verified };
        Ok((view(&entry, &letter), letter, original))
    }

    /// Sends a dead letter back to the stream that it came from, or to another one, in one atomic
    /// step. A message starts anew: no failed attempts, issued now, with the time to live of its
    /// priority.
    ///
    /// # Errors
    ///
    /// If it is gone, is no dead letter of this bus, or the store fails. It then stays where it is.
    pub async fn redrive(&self, id: EntryId, to: Option<&str>) -> Result<Redriven, LetterError> {
        let shared = &self.shared;
        let entry = self.letter_entry(id).await?;
        let letter = read(shared, &entry)?;
        let to = self.destination(id, to.unwrap_or(&letter.circumstances.stream))?;
        let elsewhere = *to != *letter.circumstances.stream;
        let mut restored = letter.restored();
        if let Restored::Message(message) = &mut restored
            && elsewhere
        {
            // The group that failed may not read that stream at all.
            message.retry_group = None;
        }
        let fields = fields(shared, restored);
        let from = &shared.config.streams.dead_letter;
        let moved = shared.store.redrive(from, id, &to, &fields).await;
        let moved = moved.map_err(|source| LetterError::Store { id, source })?;
        let new = moved.ok_or(LetterError::Gone(id))?;
        shared.metrics.dead_letters_removed("redriven").inc();
        tracing::info!(dead_letter = %id, stream = %to, entry = %new, "redriven");
        Ok(Redriven {
            stream: to,
            id: new.to_string(),
        })
    }

    /// Lets a dead letter go for good; whatever else stands in its place in the stream, too. `false`
    /// if it was gone.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn purge(&self, id: EntryId) -> Result<bool, LetterError> {
        let shared = &self.shared;
        let stream = &shared.config.streams.dead_letter;
        let removed = shared.store.remove(stream, &[id]).await;
        let removed = removed.map_err(|source| LetterError::Store { id, source })?;
        shared
            .metrics
            .dead_letters_removed("purged")
            .inc_by(removed);
        Ok(removed > 0)
    }

    /// A way through the dead letters that are meant. What is filed from now on is not on it.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn stroll(&self, meant: LettersMeant) -> Result<Stroll, StoreError> {
        let bus = self.clone();
        Ok(match meant {
            LettersMeant::Ids(ids) => Stroll {
                bus,
                filter: Filter::default(),
                walk: None,
                ahead: ids.into(),
            },
            LettersMeant::Fitting(filter) => {
                let stream = &self.shared.config.streams.dead_letter;
                let last = self.shared.store.last(stream).await?;
                Stroll {
                    bus,
                    filter,
                    walk: last.map(|last| Walk::new(None, last)),
                    ahead: VecDeque::new(),
                }
            }
        })
    }

    /// The stream of that name, if it is one that messages can go to.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn destination(&self, id: EntryId, name: &str) -> Result<StreamName, LetterError> {
        let streams = &self.shared.config.streams;
        let found = streams.destinations().find(|stream| ***stream == *name);
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = streams.destinations().map(|stream| &**stream).collect();
            LetterError::UnknownStream {
                id,
                stream: name.to_owned(),
                known: known.join(", "),
            }
        })
    }

    async fn letter_entry(&self, id: EntryId) -> Result<Entry, LetterError> {
        let from = &self.shared.config.streams.dead_letter;
        let found = self.shared.store.range(from, id.previous(), 1).await;
        let found = found.map_err(|source| LetterError::Store { id, source })?;
        let entry = found.into_iter().find(|entry| entry.id == id);
        entry.ok_or(LetterError::Gone(id))
    }
}

async fn page(shared: &Shared, after: Option<EntryId>) -> Result<Vec<Entry>, StoreError> {
    let stream = &shared.config.streams.dead_letter;
    shared.store.range(stream, after, PAGE).await
}

/// What is written of a restored entry.
fn fields(shared: &Shared, restored: Restored) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    match restored {
        Restored::Raw(fields) => fields,
        Restored::Message(mut message) => {
            let now = (shared.clock)();
            let ttl: Duration = shared.config.ttls.ttl(message.priority);
            message.created_at = Some(now);
            message.expires_at = Some(now + ttl);
            shared.record(&message).into_fields()
        }
    }
}

pub(super) fn read(shared: &Shared, entry: &Entry) -> Result<DeadLetter, LetterError> {
    let id = entry.id;
    if let Some(keyring) = shared.keyring() {
        let payload = entry.payload().map(AsRef::as_ref).unwrap_or_default();
        let verified = keyring.verify(payload, entry.signature().map(AsRef::as_ref));
        verified.map_err(|source| LetterError::Unverifiable { id, source })?;
    }
    DeadLetter::decode(entry).map_err(|source| LetterError::Undecodable { id, source })
}

fn view(entry: &Entry, letter: &DeadLetter) -> DeadLetterView {
    let circumstances = letter.circumstances.clone();
    let message = letter.message();
    DeadLetterView {
        id: entry.id.to_string(),
        event_id: message
            .map(|message| message.id.clone())
            .unwrap_or_default(),
        message_type: message.map_or(0, |message| message.message_type),
        class: circumstances.class,
        reason: circumstances.reason,
        detail: circumstances.detail,
        failure: circumstances.failure.name().to_owned(),
        stream: circumstances.stream,
        entry: circumstances.entry.to_string(),
        group: circumstances.group,
        attempts: message.map_or(0, |message| message.attempt.saturating_add(1)),
        redrives: message.map_or(0, |message| message.redrives),
        first_failed_ms: circumstances.first_failed_at.as_millis(),
        at_ms: circumstances.at.as_millis(),
        policy: circumstances.policy,
        payload_size: message.map_or(0, |message| message.payload.len()),
        attributes: message
            .map(|message| message.attributes.clone())
            .unwrap_or_default(),
    }
}
