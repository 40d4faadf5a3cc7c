//! Inputs that find the corners: every type and priority, every stream, and whatever the configuration
//! speaks of, one less and one more.

use std::collections::{BTreeMap, BTreeSet};

use oona_core::envelope::message_type;
use oona_core::policy::{Failure, Kind, Mode, NonceSeen, Priority, Slo};
use oona_wasm::{Artifact, Names};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use crate::cases::{Cases, NOW_MS};
use crate::record::{Message, MessageType, State};

/// How many attributes a message has at most.
const ATTRIBUTES_MAX: usize = 3;

/// How many numbers and words of a configuration are used.
const WORDS_MAX: usize = 256;

/// Numbers that boundaries are often at.
const NUMBERS: [u64; 12] = [
    0, 1, 2, 5, 100, 1_000, 5_000, 60_000, 75_000, 100_000, 120_000, 3_600_000,
];

/// One input.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) now: u64,
    pub(super) message: Message,
    /// What is in the same batch.
    pub(super) other: Message,
    pub(super) state: State,
    /// How much more of something, for laws that compare.
    pub(super) step: u64,
}

/// What inputs are made of.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    streams: Vec<String>,
    words: Vec<String>,
    numbers: Vec<u64>,
    /// How old a message may be, in ms: each `window_ms` of the configuration.
    pub(super) windows: Vec<u64>,
}

impl Vocabulary {
    /// As [`Vocabulary::of`], and of the cases that travel with the policy.
    pub(super) fn of_policy(artifact: &Artifact, config: &str, names: &Names) -> Self {
        let mut found = Found::of(artifact.config_schema(), config);
        for case in Cases::of(artifact)
            .ok()
            .flatten()
            .iter()
            .flat_map(|cases| &cases.cases)
        {
            let attributes = case.message.get("attributes").and_then(Value::as_object);
            for (name, value) in attributes.into_iter().flatten() {
                found.words.insert(name.clone());
                found.look(value);
            }
        }
        Self::from_found(found, names)
    }

    /// Whatever a policy speaks of in its configuration and in the defaults of its schema, and the
    /// streams of the bus.
    pub(super) fn of(schema: &str, config: &str, names: &Names) -> Self {
        Self::from_found(Found::of(schema, config), names)
    }

    fn from_found(found: Found, names: &Names) -> Self {
        let named = names
            .streams
            .iter()
            .filter_map(|stream| names.symbols.name(*stream));
        let streams: BTreeSet<String> = named.map(|name| name.to_string()).collect();
        let around = |number: u64| [number.saturating_sub(1), number, number.saturating_add(1)];
        let numbers: BTreeSet<u64> = found
            .numbers
            .into_iter()
            .chain(NUMBERS)
            .flat_map(around)
            .collect();
        let mut words: Vec<_> = found.words.into_iter().take(WORDS_MAX).collect();
        words.extend(["".to_owned(), "other".to_owned()]);
        Self {
            streams: streams.into_iter().collect(),
            words,
            numbers: numbers.into_iter().collect(),
            windows: found.windows.into_iter().collect(),
        }
    }
}

#[derive(Default)]
struct Found {
    words: BTreeSet<String>,
    numbers: BTreeSet<u64>,
    windows: BTreeSet<u64>,
}

impl Found {
    fn of(schema: &str, config: &str) -> Self {
        let read = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (schema, config) = (read(schema), read(config));
        let mut found = Self::default();
        found.look(&config);
        found.look_at_defaults(&schema);
        if config["window_ms"].is_null() {
            let default = &schema["properties"]["window_ms"]["default"];
            found.windows.extend(default.as_u64());
        }
        found
    }

    /// What a schema gives when nothing is set.
    fn look_at_defaults(&mut self, schema: &Value) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            match key.as_str() {
                "default" => {
                    // A default that another one replaces as a whole says nothing of windows.
                    let windows = self.windows.clone();
                    self.look(value);
                    self.windows = windows;
                }
                _ => self.look_at_defaults(value),
            }
        }
    }

    fn look(&mut self, value: &Value) {
        match value {
            Value::Number(number) if self.numbers.len() < WORDS_MAX => {
                self.numbers.extend(number.as_u64());
            }
            Value::String(word) if self.words.len() < WORDS_MAX => {
                self.words.extend([word.clone()]);
            }
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            Value::Object(object) => {
                self.windows
                    .extend(object.get("window_ms").and_then(Value::as_u64));
                object.values().for_each(|value| self.look(value));
            }
            _ => {}
        }
    }
}

pub(super) fn sample(words: &Vocabulary, kind: Kind) -> impl Strategy<Value = Sample> + use<> {
    let now = prop_oneof![8 => Just(NOW_MS), 1 => number(words), 1 => any::<u64>().prop_map(|now| now >> 1)];
    (
        now,
        message(words),
        message(words),
        state(words, kind),
        number(words),
    )
        .prop_map(|(now, message, other, state, step)| Sample {
            now,
            message,
            other,
            state,
            step,
        })
}

fn number(words: &Vocabulary) -> impl Strategy<Value = u64> + use<> {
    prop_oneof![4 => select(words.numbers.clone()), 2 => 0..200_000_u64, 1 => any::<u32>().prop_map(u64::from)]
}

fn message(words: &Vocabulary) -> impl Strategy<Value = Message> + use<> {
    let listed: Vec<u32> = message_type::ALL
        .iter()
        .map(|(number, _)| *number)
        .collect();
    let message_type = prop_oneof![8 => select(listed), 1 => 0..40_u32, 1 => any::<u32>()];
    let word = select(words.words.clone());
    let attributes = proptest::collection::btree_map(
        select(words.words.clone()),
        word.clone(),
        0..ATTRIBUTES_MAX,
    );
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let age = prop_oneof![6 => number(words).prop_map(signed), 1 => number(words).prop_map(move |ms| -signed(ms))];
    let left = prop_oneof![3 => number(words).prop_map(signed), 1 => number(words).prop_map(move |ms| -signed(ms))];
    let attempt = prop_oneof![6 => 0..12_u32, 1 => any::<u32>()];
    (
        "[a-z0-9-]{0,12}",
        message_type,
        select(Priority::ALL.to_vec()),
        word.clone(),
        word,
        attempt,
        option::weighted(0.9, age),
        option::weighted(0.7, left),
        attributes,
        option::weighted(0.3, any::<u32>()),
    )
        .prop_map(
            |(
                id,
                message_type,
                priority,
                source,
                key,
                attempt,
                age_ms,
                expires_in_ms,
                attributes,
                payload_size,
            )| Message {
                id,
                message_type: MessageType(message_type),
                priority,
                source,
                key,
                attempt,
                age_ms,
                expires_in_ms,
                attributes: attributes
                    .into_iter()
                    .filter(|(name, _)| !name.is_empty())
                    .collect::<BTreeMap<_, _>>(),
                payload_size,
                ..Message::default()
            },
        )
}

fn state(words: &Vocabulary, kind: Kind) -> BoxedStrategy<State> {
    match kind {
        Kind::Routing => Just(State::default()).boxed(),
        Kind::Backpressure => backpressure(words).boxed(),
        Kind::Freshness => select(vec![
            NonceSeen::Unseen,
            NonceSeen::SameEntry,
            NonceSeen::OtherEntry,
        ])
        .prop_map(|nonce| State {
            nonce: Some(nonce),
            ..State::default()
        })
        .boxed(),
        Kind::DeadLetter => (
            select(Failure::ALL.to_vec()),
            1..20_u32,
            option::weighted(0.3, number(words)),
        )
            .prop_map(|(failure, deliveries, requested_delay_ms)| State {
                failure: Some(failure),
                deliveries: Some(deliveries),
                requested_delay_ms,
                ..State::default()
            })
            .boxed(),
    }
}

fn backpressure(words: &Vocabulary) -> impl Strategy<Value = State> + use<> {
    let capacity = || prop_oneof![6 => Just(100_000_u64), 1 => 1..10_u64, 1 => 1..1_000_000_u64];
    let depth = || number(words);
    let slo = select(vec![Slo::Met, Slo::AtRisk, Slo::Violated]);
    let mode = select(vec![Mode::Normal, Mode::Conservative]);
    let tokens = (0..=120_u32, 1..=120_u32, 0..60_000_u32);
    let streams = select(words.streams.clone());
    (
        streams,
        depth(),
        capacity(),
        slo,
        tokens,
        mode,
        (depth(), capacity()),
        (depth(), capacity()),
    )
        .prop_map(
            |(
                stream,
                depth,
                capacity,
                slo,
                (tokens, tokens_max, wait),
                mode,
                emergency,
                normal,
            )| State {
                stream: Some(stream),
                depth: Some(depth),
                capacity: Some(capacity),
                slo: Some(slo),
                tokens: Some(tokens.min(tokens_max)),
                tokens_max: Some(tokens_max),
                token_wait_ms: Some(if tokens == 0 { wait } else { 0 }),
                mode: Some(mode),
                emergency_depth: Some(emergency.0),
                emergency_capacity: Some(emergency.1),
                normal_depth: Some(normal.0),
                normal_capacity: Some(normal.1),
                ..State::default()
            },
        )
}
