//! A question to a policy and its answer, in words: what cases are written in, what the decision log
//! holds, and what is replayed.
//!
//! Policies are asked in numbers and symbols, which mean nothing outside of the process. Here every
//! name is a name. A record can be asked again of any version, today or next week, and gives the
//! same question.

mod kinds;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::envelope::message_type;
use oona_core::policy::{self, Kind, Lookup, Mode, NonceSeen, Priority, Slo, Subject};
use oona_core::symbols::Symbol;
use oona_wasm::{Sandboxed, SymbolTable};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// The wire number of a message's type, written by its name where it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(pub u32);

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match message_type::name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for MessageType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Name(String),
        }
        let name = match Written::deserialize(deserializer)? {
            Written::Number(number) => return Ok(Self(number)),
            Written::Name(name) => name,
        };
        message_type::from_name(&name).map(Self).ok_or_else(|| {
            let known = message_type::ALL.map(|(_, name)| name).join(", ");
            de::Error::custom(format!(
                "`{name}` is no type of message: a number, or one of {known}"
            ))
        })
    }
}

/// A message, as far as policies are told of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Message {
    /// Its event id. Policies see the hash of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// Its urgency.
    pub priority: Priority,
    /// The subsystem that published it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Its key, by which order is kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// How often handling it has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// When it was issued, in ms since the epoch. A message without says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<u64>,
    /// The same, told by its age in ms; negative if it comes from the future.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<i64>,
    /// When it loses its value, in ms since the epoch; never without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The same, told by what is left of it in ms; negative if it has expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<i64>,
    /// Its attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Its payload, if it is text and short enough to be kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub payload: String,
    /// The size of its payload in bytes; that of `payload` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_size: Option<u32>,
}

/// What else a policy is told. Each kind has its own part of it; what is left out is at the default
/// of a bus at rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Backpressure: where routing sends the message. `oona.normal` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Backpressure: unfinished entries of that stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u64>,
    /// Backpressure: how many it may hold; 100 000 without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Backpressure: its service level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// Backpressure: emergency tokens left for the message; all of them without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Backpressure: emergency tokens of a full bucket; 120 without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_max: Option<u32>,
    /// Backpressure: when the next token is there, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_wait_ms: Option<u32>,
    /// Backpressure: whether the bus protects itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Backpressure: the emergency stream; `oona.emergency` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency_stream: Option<String>,
    /// Backpressure: its unfinished entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency_depth: Option<u64>,
    /// Backpressure: how many it may hold; 100 000 without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency_capacity: Option<u64>,
    /// Backpressure: where messages without a stream of their own go; `oona.normal` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_stream: Option<String>,
    /// Backpressure: its unfinished entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_depth: Option<u64>,
    /// Backpressure: how many it may hold; 100 000 without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_capacity: Option<u64>,
    /// Freshness: what is remembered of the nonce; `unseen` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<NonceSeen>,
    /// Dead-letter: how the delivery failed; `handler-error` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<policy::Failure>,
    /// Dead-letter: how often the entry has been delivered, this time included; once without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<u32>,
    /// Dead-letter: the delay that the subscriber asked for, in ms; none without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_delay_ms: Option<u64>,
}

/// A decision. Each kind fills in what it answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// What becomes of the message, by its name in the contract: `route`, `admit`, `fresh`, `retry` …
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// Where it goes, if the verdict sends it somewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Dead-letter: under which class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Backpressure: when the producer may try again, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// Backpressure: how hard the stream is pressed, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<f32>,
    /// Freshness: how long the nonce is remembered, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remember_ms: Option<u64>,
    /// Dead-letter: when it is delivered again, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

impl fmt::Display for Decision {
    /// `route oona.normal (type)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verdict)?;
        for name in [&self.stream, &self.class].into_iter().flatten() {
            write!(f, " {name}")?;
        }
        let after = self.retry_after_ms.map(u64::from).filter(|&ms| ms > 0);
        if let Some(ms) = after.or(self.delay_ms) {
            write!(f, " after {ms} ms")?;
        }
        if let Some(ms) = self.remember_ms {
            write!(f, ", remembered {ms} ms")?;
        }
        write!(f, " ({})", self.reason)
    }
}

/// A record that is no question to its kind of policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It has state that policies of this kind are not told.
    #[error("`{field}` is no state of a {kind} policy")]
    Field {
        /// Which.
        field: &'static str,
        /// The kind that was to be asked.
        kind: Kind,
    },
    /// It says the same thing in two ways.
    #[error("`{0}` and `{1}` say the same: leave one out")]
    Twice(&'static str, &'static str),
    /// A stream that holds nothing, or a bucket without tokens.
    #[error("`{0}` must not be zero")]
    Zero(&'static str),
}

impl Message {
    /// What the policy sees of it.
    fn subject(&self, now: Timestamp, symbols: &SymbolTable) -> Result<Subject, RecordError> {
        let instant = |at: Option<u64>, ms: Option<i64>, names: (&'static str, &'static str)| match (
            at, ms,
        ) {
            (Some(_), Some(_)) => Err(RecordError::Twice(names.0, names.1)),
            (None, Some(ms)) => Ok(Some(now.as_millis().saturating_add_signed(ms))),
            (at, None) => Ok(at),
        };
        let age_ms = self.age_ms.map(i64::saturating_neg);
        let created_at = instant(self.created_at, age_ms, ("created_at", "age_ms"))?;
        let expires_at = instant(
            self.expires_at,
            self.expires_in_ms,
            ("expires_at", "expires_in_ms"),
        )?;
        let size = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        Ok(Subject {
            id: oona_core::envelope::id_hash(&self.id),
            message_type: self.message_type.0,
            priority: self.priority,
            source: symbols.intern(&self.source),
            payload_size: self.payload_size.unwrap_or(size),
            attempt: self.attempt,
            created_at: created_at.map(Timestamp::from_millis),
            expires_at: expires_at.map(Timestamp::from_millis),
        })
    }

    /// In words what a policy was asked about the message at `index` of a batch. Payloads longer than
    /// `payload_max` bytes, or no text, are left out; their size stays.
    #[must_use]
    pub fn of(
        subject: &Subject,
        text: &dyn Lookup,
        index: usize,
        symbols: &SymbolTable,
        payload_max: usize,
    ) -> Self {
        let own = |name| text.attribute(index, name).unwrap_or_default().to_owned();
        let payload = text
            .payload(index)
            .filter(|payload| payload.len() <= payload_max);
        let payload = payload.and_then(|payload| std::str::from_utf8(payload).ok());
        let mut attributes = BTreeMap::new();
        text.attributes(index, &mut |name, value| {
            attributes.insert(name.to_owned(), value.to_owned());
        });
        Self {
            id: own("oona.id"),
            key: own("oona.key"),
            message_type: MessageType(subject.message_type),
            priority: subject.priority,
            source: named(symbols, subject.source),
            attempt: subject.attempt,
            created_at: subject.created_at.map(Timestamp::as_millis),
            expires_at: subject.expires_at.map(Timestamp::as_millis),
            payload: payload.unwrap_or_default().to_owned(),
            payload_size: Some(subject.payload_size),
            attributes,
            ..Self::default()
        }
    }
}

impl State {
    /// The fields that are set, by name and kind.
    fn set(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        let backpressure = [
            ("stream", self.stream.is_some()),
            ("depth", self.depth.is_some()),
            ("capacity", self.capacity.is_some()),
            ("slo", self.slo.is_some()),
            ("tokens", self.tokens.is_some()),
            ("tokens_max", self.tokens_max.is_some()),
            ("token_wait_ms", self.token_wait_ms.is_some()),
            ("mode", self.mode.is_some()),
            ("emergency_stream", self.emergency_stream.is_some()),
            ("emergency_depth", self.emergency_depth.is_some()),
            ("emergency_capacity", self.emergency_capacity.is_some()),
            ("normal_stream", self.normal_stream.is_some()),
            ("normal_depth", self.normal_depth.is_some()),
            ("normal_capacity", self.normal_capacity.is_some()),
        ]
        .map(|(name, set)| (name, set, Kind::Backpressure));
        let freshness = [("nonce", self.nonce.is_some(), Kind::Freshness)];
        let dead_letter = [
            ("failure", self.failure.is_some()),
            ("deliveries", self.deliveries.is_some()),
            ("requested_delay_ms", self.requested_delay_ms.is_some()),
        ]
        .map(|(name, set)| (name, set, Kind::DeadLetter));
        let all = backpressure.into_iter().chain(freshness).chain(dead_letter);
        all.filter(|(_, set, _)| *set)
            .map(|(name, _, kind)| (name, kind))
    }

    fn only_of(&self, kind: Kind) -> Result<(), RecordError> {
        match self.set().find(|(_, of)| *of != kind) {
            Some((field, _)) => Err(RecordError::Field { field, kind }),
            None => Ok(()),
        }
    }
}

/// A kind of policy whose questions and answers can be put in words.
pub trait Recorded: Sandboxed {
    /// The question that a record is.
    ///
    /// # Errors
    ///
    /// If the record has state of another kind, or contradicts itself.
    fn question(
        message: &Message,
        state: &State,
        now: Timestamp,
        symbols: &SymbolTable,
    ) -> Result<(Self::State, Self::Question), RecordError>;

    /// What the question is about.
    fn subject(question: &Self::Question) -> &Subject;

    /// In words what else was told.
    fn state(state: &Self::State, question: &Self::Question, symbols: &SymbolTable) -> State;

    /// A decision in words.
    fn decision(decision: &Self::Decision, symbols: &SymbolTable) -> Decision;
}

/// Messages of records, as the text of a batch.
#[derive(Debug)]
pub struct Texts(pub Vec<Message>);

impl Texts {
    /// The text of one message.
    #[must_use]
    pub fn one(message: &Message) -> Arc<dyn Lookup> {
        Arc::new(Self(vec![message.clone()]))
    }
}

impl Lookup for Texts {
    fn attribute(&self, index: usize, name: &str) -> Option<&str> {
        let message = self.0.get(index)?;
        let own = match name {
            "oona.id" => &message.id,
            "oona.source" => &message.source,
            "oona.key" => &message.key,
            _ => return message.attributes.get(name).map(String::as_str),
        };
        (!own.is_empty()).then_some(own)
    }

    fn attributes(&self, index: usize, each: &mut dyn FnMut(&str, &str)) {
        let attributes = self
            .0
            .get(index)
            .into_iter()
            .flat_map(|message| &message.attributes);
        attributes.for_each(|(name, value)| each(name, value));
    }

    fn payload(&self, index: usize) -> Option<&[u8]> {
        self.0.get(index).map(|message| message.payload.as_bytes())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn named(symbols: &SymbolTable, symbol: Symbol) -> String {
    symbols
        .name(symbol)
        .map_or_else(String::new, |name| name.to_string())
}
