//! For the tests of a policy: names, and messages with text.

use std::collections::BTreeMap;

use crate::backpressure::{BusState, CandidateRecord, Mode, Slo};
use crate::dead_letter::{FailedRecord, Failure};
use crate::freshness::{ArrivalRecord, Nonce};
use crate::{Message, MessageRecord, Names, Policy, Priority, Symbol, Text};

/// A table of names.
#[derive(Clone, Debug, Default)]
pub struct TestNames(Vec<String>);

impl TestNames {
    /// The name of a symbol.
    ///
    /// # Panics
    ///
    /// If the symbol is none of this table.
    #[must_use]
    pub fn name(&self, symbol: Symbol) -> &str {
        let name = (symbol as usize)
            .checked_sub(1)
            .and_then(|index| self.0.get(index));
        name.unwrap_or_else(|| panic!("{symbol} is no symbol of this table"))
    }

    /// The symbol of a name, made if it is new.
    pub fn symbol(&mut self, name: &str) -> Symbol {
        let known = self.0.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        u32::try_from(index + 1).expect("a test has few names")
    }
}

impl Names for TestNames {
    fn intern(&mut self, name: &str) -> Result<Symbol, String> {
        Ok(self.symbol(name))
    }
}

/// A message with its text. Says nothing that it is not told to: type 0, normal priority, no source.
#[derive(Clone, Debug)]
pub struct TestMessage {
    /// Its numbers.
    pub record: MessageRecord,
    attributes: BTreeMap<String, String>,
    payload: Vec<u8>,
}

impl Default for TestMessage {
    fn default() -> Self {
        let record = MessageRecord {
            id: 1,
            message_type: 0,
            priority: Priority::Normal,
            source: 0,
            payload_size: 0,
            attempt: 0,
            created_at: 0,
            expires_at: 0,
        };
        Self {
            record,
            attributes: BTreeMap::new(),
            payload: Vec::new(),
        }
    }
}

impl From<MessageRecord> for TestMessage {
    fn from(record: MessageRecord) -> Self {
        Self {
            record,
            ..Self::default()
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.record.$field = $field;
                self
            }
        )*
    };
}

impl TestMessage {
    setters! {
        /// Sets the hash of its event id.
        id: u64;
        /// Sets the wire number of its type.
        message_type: u32;
        /// Sets its priority.
        priority: Priority;
        /// Sets the symbol of its source.
        source: Symbol;
        /// Sets how often handling it has failed.
        attempt: u32;
        /// Sets when it was issued, in ms.
        created_at: u64;
        /// Sets when it loses its value, in ms.
        expires_at: u64;
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the payload, and its size.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_owned();
        self.record.payload_size = u32::try_from(payload.len()).expect("a test has small payloads");
        self
    }

    /// The message as a policy sees it. `text` is what it reads attributes and payload from:
    /// usually [`Self::text`] of the same message.
    #[must_use]
    pub fn view<'a>(&'a self, text: &'a TestText<'a>) -> Message<'a> {
        Message::new(&self.record, 0, text)
    }

    /// Its text, as a batch of one.
    #[must_use]
    pub fn text<'a>(&'a self, names: &'a TestNames) -> TestText<'a> {
        TestText {
            message: self,
            names,
        }
    }
}

/// The text of one message.
#[derive(Clone, Copy, Debug)]
pub struct TestText<'a> {
    message: &'a TestMessage,
    names: &'a TestNames,
}

impl Text for TestText<'_> {
    fn attribute(&self, _index: u32, name: Symbol) -> Option<String> {
        self.message.attributes.get(self.names.name(name)).cloned()
    }

    fn payload(&self, _index: u32, offset: u32, length: u32) -> Vec<u8> {
        let (offset, length) = (offset as usize, length as usize);
        self.message
            .payload
            .iter()
            .skip(offset)
            .take(length)
            .copied()
            .collect()
    }
}

/// A bus in normal mode, with empty streams of 100 places: 1 is the emergency stream, 2 the normal.
#[must_use]
pub fn idle_bus() -> BusState {
    BusState {
        mode: Mode::Normal,
        emergency_stream: 1,
        emergency_depth: 0,
        emergency_capacity: 100,
        normal_stream: 2,
        normal_depth: 0,
        normal_capacity: 100,
    }
}

/// A candidate for an empty stream of 100 places, with all emergency tokens there.
#[must_use]
pub fn candidate(message: &TestMessage, stream: Symbol) -> CandidateRecord {
    CandidateRecord {
        message: message.record,
        stream,
        depth: 0,
        capacity: 100,
        slo: Slo::Met,
        tokens: 120,
        tokens_max: 120,
        token_wait: 0,
    }
}

/// A message about to be delivered.
#[must_use]
pub fn arrival(message: &TestMessage, nonce: Nonce) -> ArrivalRecord {
    ArrivalRecord {
        message: message.record,
        nonce,
    }
}

/// A first failed delivery, by a subscriber that asked for no delay.
#[must_use]
pub fn failed(message: &TestMessage, failure: Failure) -> FailedRecord {
    FailedRecord {
        message: message.record,
        failure,
        deliveries: 1,
        requested_delay: 0,
    }
}

/// Holds the schema of a policy's configuration and its type together: every property is described
/// and has a default, the defaults are those of the type, `{}` means them, and a key that the schema
/// does not know is refused.
///
/// # Panics
///
/// If any of that is not so.
pub fn check_schema<P: Policy>()
where
    P::Config: serde::Serialize + Default,
{
    let schema: serde_json::Value =
        serde_json::from_str(P::CONFIG_SCHEMA).expect("the schema is JSON");
    assert_eq!(
        schema["additionalProperties"], false,
        "unknown keys are refused"
    );
    let properties = schema["properties"]
        .as_object()
        .expect("the schema has properties");
    let mut defaults = serde_json::Map::new();
    for (name, property) in properties {
        assert!(property["description"].is_string(), "`{name}` is described");
        let default = property
            .get("default")
            .unwrap_or_else(|| panic!("`{name}` has a default"));
        defaults.insert(name.clone(), default.clone());
    }
    let defaults = serde_json::Value::Object(defaults);
    let of_type = serde_json::to_value(P::Config::default()).expect("a configuration is JSON");
    assert_eq!(
        of_type, defaults,
        "the defaults of the type are those of the schema"
    );
    let read = |value| serde_json::from_value::<P::Config>(value);
    let empty = read(serde_json::json!({})).expect("`{}` is a configuration");
    let empty = serde_json::to_value(empty).expect("a configuration is JSON");
    assert_eq!(empty, of_type, "`{{}}` means the defaults");
    assert!(read(defaults).is_ok(), "the defaults are a configuration");
    assert!(
        read(serde_json::json!({"no_such_key": 1})).is_err(),
        "unknown keys are refused"
    );
}
