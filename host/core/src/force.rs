//! What an operator decides in the place of a state machine, until he takes it back.
//!
//! A force lies over the machine and does not touch it: the machine goes on to follow what it
//! observes, so that it says the truth the moment it is released.

use serde::Serialize;

use crate::time::Timestamp;

/// A state that an operator has forced, with his name and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forced<T> {
    /// The state.
    pub to: T,
    /// Who.
    pub by: String,
    /// Why, in his words; may be empty.
    pub message: String,
    /// When.
    #[serde(rename = "at_ms", serialize_with = "millis")]
    pub at: Timestamp,
}

impl<T> Forced<T> {
    /// `forced by ada: maintenance of the store`.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { by, message, .. } = self;
        if message.is_empty() {
            return format!("forced by {by}");
        }
        format!("forced by {by}: {message}")
    }
}

/// For those who serialise a time as the wire has it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn millis<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_and_why() {
        let mut forced = Forced {
            to: (),
            by: "ada".to_owned(),
            message: "maintenance".to_owned(),
            at: Timestamp::from_millis(7),
        };
        assert_eq!(forced.words(), "forced by ada: maintenance");
        forced.message.clear();
        assert_eq!(forced.words(), "forced by ada");
        let json = serde_json::to_value(&forced).unwrap();
        assert_eq!(json["at_ms"], 7);
    }
}
