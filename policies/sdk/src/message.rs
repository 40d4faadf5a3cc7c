//! A message, as a policy sees it.

use std::ops::Deref;

use crate::{MessageRecord, Symbol};

/// Where a policy reads what it rarely needs.
pub trait Text {
    /// The value of an attribute of the message at `index`.
    fn attribute(&self, index: u32, name: Symbol) -> Option<String>;

    /// Up to `length` bytes of its payload, from `offset` on.
    fn payload(&self, index: u32, offset: u32, length: u32) -> Vec<u8>;
}

/// A message: numbers by value, text on demand.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    record: &'a MessageRecord,
    index: u32,
    text: &'a dyn Text,
}

impl<'a> Message<'a> {
    /// The message at `index` of a batch.
    #[must_use]
    pub fn new(record: &'a MessageRecord, index: u32, text: &'a dyn Text) -> Self {
        Self {
            record,
            index,
            text,
        }
    }

    /// The value of an attribute. `name` is a symbol from [`crate::Names::intern`]. Costs about
    /// 50 ns in the sandbox; `oona.id`, `oona.source` and `oona.key` can be read too.
    #[must_use]
    pub fn attribute(&self, name: Symbol) -> Option<String> {
        self.text.attribute(self.index, name)
    }

    /// Up to `length` bytes of the payload, from `offset` on.
    #[must_use]
    pub fn payload(&self, offset: u32, length: u32) -> Vec<u8> {
        self.text.payload(self.index, offset, length)
    }
}

impl Deref for Message<'_> {
    type Target = MessageRecord;

    fn deref(&self) -> &MessageRecord {
        self.record
    }
}
