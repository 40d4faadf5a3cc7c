//! What was refused since the start: why, by whom, and an example of each.

use std::sync::{Arc, Mutex};

use oona_core::Timestamp;
use oona_wasm::VersionInfo;
use serde::Serialize;

use crate::sync::lock;

/// How many rows are held. At more, the one that was met longest ago goes.
pub(super) const ROWS_MAX: usize = 256;

/// How much of an event id and of a detail is held, in characters.
const TEXT_CHARS_MAX: usize = 256;

/// Publishes that were refused alike, by the same policy or by the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejections {
    /// The stream that they were for; empty if they did not come that far.
    pub stream: Arc<str>,
    /// Why, in the words of whoever decided.
    pub reason: Arc<str>,
    /// Who decided; `None` if it was the host itself.
    pub by: Option<Decider>,
    /// How often.
    pub count: u64,
    /// The last that can be followed, or else the last.
    pub last: Rejection,
}

/// A version of a policy, as `oona_policy_decisions_total` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decider {
    /// Of which kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A publish that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// When, in ms since the epoch.
    pub at_ms: u64,
    /// Its event id; empty if nobody was told one.
    pub event_id: String,
    /// What it was about, or what was wrong.
    pub detail: String,
    /// Whether this host may hold its journey.
    pub followed: bool,
}

/// What is noted of a publish that was refused.
pub(super) struct Refusal<'a> {
    pub(super) stream: &'a Arc<str>,
    pub(super) reason: &'a Arc<str>,
    pub(super) by: Option<&'a Arc<VersionInfo>>,
    pub(super) event: &'a str,
    pub(super) detail: &'a str,
    pub(super) followed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Vec<Row>>);

#[derive(Debug)]
struct Row {
    stream: Arc<str>,
    reason: Arc<str>,
    by: Option<Arc<VersionInfo>>,
    count: u64,
    met: Timestamp,
    last: Rejection,
}

impl Board {
    /// Notes a refusal. A reason that is new has the name that `label` gives it: those too many are one.
    pub(super) fn note(
        &self,
        now: Timestamp,
        refusal: &Refusal<'_>,
        label: impl FnOnce(&str) -> Arc<str>,
    ) {
        let mut rows = lock(&self.0);
        let place = place(&rows, refusal, refusal.reason);
        let place = place.unwrap_or_else(|| {
            let reason = label(refusal.reason);
            let place = self::place(&rows, refusal, &reason);
            place.unwrap_or_else(|| add(&mut rows, now, refusal, reason))
        });
        let row = &mut rows[place];
        row.count += 1;
        row.met = now;
        if refusal.followed || !row.last.followed {
            row.last = refusal.example(now);
        }
    }

    /// What was refused, most often first.
    pub(super) fn list(&self) -> Vec<Rejections> {
        let mut list: Vec<_> = lock(&self.0).iter().map(Row::told).collect();
        list.sort_by(|one, next| {
            let count = next.count.cmp(&one.count);
            count.then_with(|| (&one.reason, &one.stream).cmp(&(&next.reason, &next.stream)))
        });
        list
    }
}

fn place(rows: &[Row], refusal: &Refusal<'_>, reason: &str) -> Option<usize> {
    rows.iter().position(|row| {
        *row.reason == *reason
            && row.stream == *refusal.stream
            && names(row.by.as_ref()) == names(refusal.by)
    })
}

fn names(by: Option<&Arc<VersionInfo>>) -> Option<(&'static str, &str, &str)> {
    by.map(|by| (by.kind.name(), &*by.name, &*by.version))
}

/// Adds a row for a refusal of its own, where there is room or where it has been made.
fn add(rows: &mut Vec<Row>, now: Timestamp, refusal: &Refusal<'_>, reason: Arc<str>) -> usize {
    if rows.len() == ROWS_MAX {
        let all = rows.iter().enumerate();
        let oldest = all.min_by_key(|(_, row)| row.met);
        rows.swap_remove(oldest.map_or(0, |(place, _)| place));
    }
    rows.push(Row {
        stream: Arc::clone(refusal.stream),
        reason,
        by: refusal.by.cloned(),
        count: 0,
        met: now,
        last: refusal.example(now),
    });
    rows.len() - 1
}

impl Refusal<'_> {
    fn example(&self, now: Timestamp) -> Rejection {
        let cut = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect();
        Rejection {
            at_ms: now.as_millis(),
            event_id: cut(self.event),
            detail: cut(self.detail),
            followed: self.followed,
        }
    }
}

impl Row {
    fn told(&self) -> Rejections {
        Rejections {
            stream: Arc::clone(&self.stream),
            reason: Arc::clone(&self.reason),
            by: names(self.by.as_ref()).map(|(kind, name, version)| Decider {
                kind,
                name: name.to_owned(),
                version: version.to_owned(),
            }),
            count: self.count,
            last: self.last.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use oona_core::policy::Kind;
    use oona_wasm::Source;

    use super::*;

    fn version(version: &str) -> Arc<VersionInfo> {
        Arc::new(VersionInfo {
            kind: Kind::Routing,
            name: "routing".to_owned(),
            version: version.to_owned(),
            digest: String::new(),
            source: Source::Native,
        })
    }

    fn note(board: &Board, at: u64, reason: &str, by: Option<&Arc<VersionInfo>>, followed: bool) {
        let event = format!("event {at}");
        let refusal = Refusal {
            stream: &"".into(),
            reason: &reason.into(),
            by,
            event: &event,
            detail: "",
            followed,
        };
        board.note(Timestamp::from_millis(at), &refusal, |reason| reason.into());
    }

    #[test]
    fn each_version_and_the_host_answer_for_what_they_refused() {
        let board = Board::default();
        let [first, second] = ["1", "2"].map(version);
        note(&board, 1, "spam", Some(&first), true);
        note(&board, 2, "spam", Some(&first), false);
        note(&board, 3, "spam", Some(&second), false);
        note(&board, 4, "spam", Some(&second), false);
        // Activated once more.
        note(&board, 5, "spam", Some(&version("2")), false);
        note(&board, 6, "too-large", None, false);
        let list = board.list();
        let told = list.iter().map(|row| {
            let by = row.by.as_ref().map(|by| &*by.version);
            (&*row.reason, by, row.count, &*row.last.event_id)
        });
        let expected = [
            ("spam", Some("2"), 3, "event 5"),
            // The one that can be followed.
            ("spam", Some("1"), 2, "event 1"),
            ("too-large", None, 1, "event 6"),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let board = Board::default();
        let bound = ROWS_MAX as u64;
        for at in 0..bound {
            note(&board, at, &at.to_string(), None, false);
        }
        note(&board, bound, "0", None, false);
        note(&board, bound + 1, &"x".repeat(9_999), None, false);
        let list = board.list();
        assert_eq!(list.len(), ROWS_MAX);
        let has = |reason: &str| list.iter().any(|row| *row.reason == *reason);
        assert!(has("0") && !has("1"), "the one met longest ago goes");
        let refusal = Refusal {
            stream: &"".into(),
            reason: &"long".into(),
            by: None,
            event: &"é".repeat(9_999),
            detail: &"é".repeat(9_999),
            followed: false,
        };
        let example = refusal.example(Timestamp::EPOCH);
        assert_eq!(example.event_id.chars().count(), TEXT_CHARS_MAX);
        assert_eq!(example.detail.chars().count(), TEXT_CHARS_MAX);
    }

    #[test]
    fn reasons_too_many_are_one() {
        let board = Board::default();
        for reason in ["a", "b", "a"] {
            let refusal = Refusal {
                stream: &"".into(),
                reason: &reason.into(),
                by: None,
                event: "",
                detail: "",
                followed: false,
            };
            board.note(Timestamp::EPOCH, &refusal, |_| "other".into());
        }
        let told = board.list();
        assert_eq!(
            (told.len(), &*told[0].reason, told[0].count),
            (1, "other", 3)
        );
    }
}
