//! Dead letters: to look at, and to send on their way again.

use std::collections::BTreeMap;
use std::time::Duration;

use oona_core::dead_letter::{DeadLetter, DeadLetterError, Restored};
use oona_core::entry::{Entry, EntryId};
use oona_core::signing::VerifyError;
use serde::Serialize;

use super::Bus;
use super::shared::Shared;
use crate::store::{StoreError, StreamName};

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
    /// When it was filed, in ms since the epoch.
    pub at_ms: u64,
    /// Name and version of the policy that filed it.
    pub policy: String,
    /// Size of the payload in bytes.
    pub payload_size: usize,
    /// The message's own attributes.
    pub attributes: BTreeMap<String, String>,
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
pub enum RedriveError {
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
    /// It came from a stream that the bus does not have any more.
    #[error("dead letter {id} came from `{stream}`, which is no stream of this bus")]
    UnknownStream {
        /// Which.
        id: EntryId,
        /// From where.
        stream: String,
    },
    /// The store failed.
    #[error("the store did not redrive dead letter {id}")]
    Store {
        /// Which.
        id: EntryId,
        /// How it failed.
        source: StoreError,
    },
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
        let stream = &self.shared.config.streams.dead_letter;
        let entries = self.shared.store.range(stream, after, count).await?;
        let view = |entry: &Entry| {
            read(&self.shared, entry)
                .ok()
                .map(|letter| view(entry, &letter))
        };
        Ok(entries.iter().filter_map(view).collect())
    }

    /// Sends a dead letter back to the stream that it came from, in one atomic step. A message
    /// starts anew: no failed attempts, issued now, with the time to live of its priority.
    ///
    /// # Errors
    ///
    /// If it is gone, is no dead letter of this bus, or the store fails. It then stays where it is.
    pub async fn redrive(&self, id: EntryId) -> Result<Redriven, RedriveError> {
        let shared = &self.shared;
        let from = &shared.config.streams.dead_letter;
        let failed = |source| RedriveError::Store { id, source };
        let found = shared
            .store
            .range(from, id.previous(), 1)
            .await
            .map_err(failed)?;
        let entry = found
            .into_iter()
            .find(|entry| entry.id == id)
            .ok_or(RedriveError::Gone(id))?;
        let letter = read(shared, &entry)?;
        let name = &letter.circumstances.stream;
        let mut destinations = shared.config.streams.destinations();
        let to = destinations.find(|stream| ***stream == **name).cloned();
        let unknown = || RedriveError::UnknownStream {
            id,
            stream: name.clone(),
        };
        let to = to.ok_or_else(unknown)?;
        let fields = fields(shared, letter.restored());
        let moved = shared
            .store
            .redrive(from, id, &to, &fields)
            .await
            .map_err(failed)?;
        let new = moved.ok_or(RedriveError::Gone(id))?;
        tracing::info!(dead_letter = %id, stream = %to, entry = %new, "redriven");
        Ok(Redriven {
            stream: to,
            id: new.to_string(),
        })
    }
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

fn read(shared: &Shared, entry: &Entry) -> Result<DeadLetter, RedriveError> {
    let id = entry.id;
    if let Some(keyring) = shared.keyring() {
        let payload = entry.payload().map(AsRef::as_ref).unwrap_or_default();
        let verified = keyring.verify(payload, entry.signature().map(AsRef::as_ref));
        verified.map_err(|source| RedriveError::Unverifiable { id, source })?;
    }
    DeadLetter::decode(entry).map_err(|source| RedriveError::Undecodable { id, source })
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
        at_ms: circumstances.at.as_millis(),
        policy: circumstances.policy,
        payload_size: message.map_or(0, |message| message.payload.len()),
        attributes: message
            .map(|message| message.attributes.clone())
            .unwrap_or_default(),
    }
}
