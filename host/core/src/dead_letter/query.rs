//! Which dead letters are meant, and what there is of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::DeadLetter;
use crate::entry::EntryId;
use crate::envelope::message_type;
use crate::policy::Failure;
use crate::time::Timestamp;

/// How many names a [`Tally`] tells apart of each sort. What comes after is counted as [`OTHERS`].
pub const NAMES_MAX: usize = 64;

/// The name of all that a [`Tally`] has no room for.
pub const OTHERS: &str = "others";

/// The source of a message that does not say.
const UNKNOWN: &str = "unknown";

/// Which dead letters are meant. What it does not say fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Filed under this class.
    pub class: Option<String>,
    /// For this reason.
    pub reason: Option<String>,
    /// Whose delivery failed like this.
    pub failure: Option<Failure>,
    /// From this stream.
    pub stream: Option<String>,
    /// Which this group could not handle.
    pub group: Option<String>,
    /// Messages of this type.
    pub message_type: Option<u32>,
    /// The message with this event id.
    pub event_id: Option<String>,
    /// Filed before.
    pub before: Option<Timestamp>,
    /// Filed at this time or later.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether a dead letter is meant.
    #[must_use]
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        let happened = &letter.circumstances;
        let message = letter.message();
        let text =
            |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        text(&self.class, &happened.class)
            && text(&self.reason, &happened.reason)
            && text(&self.stream, &happened.stream)
            && text(&self.group, &happened.group)
            && self
                .failure
                .is_none_or(|failure| failure == happened.failure)
            && text(
                &self.event_id,
                message.map_or("", |message| message.id.as_str()),
            )
            && self
                .message_type
                .is_none_or(|wanted| message.is_some_and(|message| message.message_type == wanted))
            && self.before.is_none_or(|before| happened.at < before)
            && self.since.is_none_or(|since| happened.at >= since)
    }

    /// Whether every dead letter is meant.
    #[must_use]
    pub fn fits_all(&self) -> bool {
        *self == Self::default()
    }
}

/// What there is of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// When the oldest was filed, in ms since the epoch.
    pub oldest_ms: Option<u64>,
    /// When the newest was filed, in ms since the epoch.
    pub newest_ms: Option<u64>,
    /// By class.
    pub classes: BTreeMap<String, u64>,
    /// By reason.
    pub reasons: BTreeMap<String, u64>,
    /// By how the delivery failed.
    pub failures: BTreeMap<String, u64>,
    /// By the stream that they came from.
    pub streams: BTreeMap<String, u64>,
    /// By the group that could not handle them.
    pub groups: BTreeMap<String, u64>,
    /// By the message's type.
    pub message_types: BTreeMap<String, u64>,
    /// By the subsystem that published the message.
    pub sources: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, letter: &DeadLetter) {
        let happened = &letter.circumstances;
        let at = happened.at.as_millis();
        self.count += 1;
        self.oldest_ms = Some(self.oldest_ms.map_or(at, |oldest| oldest.min(at)));
        self.newest_ms = Some(self.newest_ms.map_or(at, |newest| newest.max(at)));
        count(&mut self.classes, &happened.class);
        count(&mut self.reasons, &happened.reason);
        count(&mut self.failures, happened.failure.name());
        count(&mut self.streams, &happened.stream);
        count(&mut self.groups, &happened.group);
        if let Some(message) = letter.message() {
            self.payload_bytes += message.payload.len() as u64;
            count(
                &mut self.message_types,
                &message_type::word(message.message_type),
            );
            let source = match &*message.source {
                "" => UNKNOWN,
                source => source,
            };
            count(&mut self.sources, source);
        }
    }
}

fn count(names: &mut BTreeMap<String, u64>, name: &str) {
    let known = names.contains_key(name) || names.len() < NAMES_MAX;
    let name = if known { name } else { OTHERS };
    *names.entry(name.to_owned()).or_default() += 1;
}

/// How far a walk over the dead letters goes: to what was there when it began. A letter that comes
/// back while they are redriven is met by the next walk, not by this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    after: Option<EntryId>,
    last: EntryId,
}

impl Walk {
    /// From `after` to `last`, that one included.
    #[must_use]
    pub fn new(after: Option<EntryId>, last: EntryId) -> Self {
        Self { after, last }
    }

    /// After which entry the next page begins; `None` at the end.
    #[must_use]
    pub fn next(&self) -> Option<Option<EntryId>> {
        let more = self.after.is_none_or(|after| after < self.last);
        more.then_some(self.after)
    }

    /// Takes a page in: how many of its entries are on the way. An empty page is the end.
    pub fn saw(&mut self, page: &[EntryId]) -> usize {
        let on_the_way = page.iter().take_while(|id| **id <= self.last).count();
        self.after = Some(page.last().copied().unwrap_or(self.last));
        on_the_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::Circumstances;
    use crate::entry::Fields;
    use crate::envelope::Message;

    fn letter() -> DeadLetter {
        let message = Message {
            id: "event".into(),
            message_type: message_type::FIELD_REPORT,
            payload: bytes::Bytes::from_static(b"four"),
            ..Message::default()
        };
        DeadLetter::for_message(
            &message,
            &Fields::new(),
            Circumstances {
                class: "poison".into(),
                reason: "no-handler".into(),
                detail: String::new(),
                failure: Failure::Poison,
                stream: "oona.normal".into(),
                entry: EntryId { ms: 5, seq: 2 },
                group: "workers".into(),
                first_failed_at: Timestamp::from_millis(8_000),
                at: Timestamp::from_millis(9_000),
                policy: "dead-letter@0.1.0".into(),
            },
        )
    }

    #[test]
    fn each_word_of_a_filter_counts() {
        let all = Filter::default;
        let some = |text: &str| Some(text.to_owned());
        let at = |ms| Some(Timestamp::from_millis(ms));
        assert!(all().fits_all() && all().fits(&letter()));
        for (filter, fits) in [
            (
                Filter {
                    class: some("poison"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    class: some("stale"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    reason: some("no-handler"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    reason: some("attempts"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    failure: Some(Failure::Poison),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    failure: Some(Failure::Stale),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    stream: some("oona.normal"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    stream: some("oona.telemetry"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    group: some("workers"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    group: some("others"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    message_type: Some(message_type::FIELD_REPORT),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    message_type: Some(message_type::TELEMETRY),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    event_id: some("event"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    event_id: some("even"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    before: at(9_001),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    before: at(9_000),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    since: at(9_000),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    since: at(9_001),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    class: some("poison"),
                    group: some("others"),
                    ..all()
                },
                false,
            ),
        ] {
            assert!(!filter.fits_all());
            assert_eq!(filter.fits(&letter()), fits, "{filter:?}");
        }
    }

    #[test]
    fn a_tally_counts_and_stays_small() {
        let mut tally = Tally::default();
        let mut other = letter();
        other.circumstances.at = Timestamp::from_millis(1_000);
        tally.add(&letter());
        tally.add(&other);
        assert_eq!((tally.count, tally.payload_bytes), (2, 8));
        assert_eq!(
            (tally.oldest_ms, tally.newest_ms),
            (Some(1_000), Some(9_000))
        );
        assert_eq!(tally.message_types, [("field_report".to_owned(), 2)].into());
        assert_eq!(tally.sources, [("unknown".to_owned(), 2)].into());
        for number in 0..NAMES_MAX * 2 {
            other.circumstances.class = number.to_string();
            tally.add(&other);
        }
        assert_eq!(tally.classes.len(), NAMES_MAX + 1);
        assert_eq!(tally.classes[OTHERS], NAMES_MAX as u64 + 1);
        assert_eq!(tally.classes.values().sum::<u64>(), tally.count);
    }

    #[test]
    fn a_walk_ends_at_what_was_there() {
        let id = |ms| EntryId { ms, seq: 0 };
        let mut walk = Walk::new(None, id(5));
        assert_eq!(walk.next(), Some(None));
        assert_eq!(walk.saw(&[id(1), id(3)]), 2);
        assert_eq!(walk.next(), Some(Some(id(3))));
        assert_eq!(
            walk.saw(&[id(4), id(6), id(7)]),
            1,
            "what came later is no part of it"
        );
        assert_eq!(walk.next(), None);
        let mut gone = Walk::new(Some(id(1)), id(5));
        assert_eq!(gone.saw(&[]), 0);
        assert_eq!(gone.next(), None, "somebody else has taken the rest");
    }
}
