//! What became of a broadcast: who has handled it, who has not, and how far they came.
//!
//! A broadcast carries the attribute [`RECEIPT`](crate::envelope::RECEIPT). Whoever settles it writes a
//! receipt in the same atomic step, and the store says of each group where it stands. Both are told at
//! one instant, so that nothing can happen in between. A peer that knows no receipts only acknowledges: it
//! has read the entry, it has it no longer, and there is no receipt. For a group that joined after the
//! broadcast that proves nothing, since it may have begun behind it: only its receipt counts.

use std::time::Duration;

use serde::Serialize;

use crate::entry::EntryId;
use crate::time::Timestamp;

/// Where a group stands with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// There is no such group on the stream.
    NoGroup,
    /// No member has read it.
    Unread,
    /// A member has read it, and nobody has settled it.
    Pending,
    /// It is behind the group.
    Passed,
}

/// How an entry was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReceiptOutcome {
    /// Handled.
    Acked,
    /// Handling it failed, and it will be tried again.
    Retrying,
    /// Handling it failed for good.
    DeadLettered,
    /// Handling it failed, and the policy gave it up.
    Discarded,
    /// It was put back, for another member.
    Released,
}

impl ReceiptOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Acked,
        Self::Retrying,
        Self::DeadLettered,
        Self::Discarded,
        Self::Released,
    ];

    /// The name in stores and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Retrying => "retrying",
            Self::DeadLettered => "dead-lettered",
            Self::Discarded => "discarded",
            Self::Released => "released",
        }
    }

    /// The outcome of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// What a store has noted of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How it was settled last.
    pub outcome: ReceiptOutcome,
    /// When, by the clock of the store, which also dates the entry.
    pub at: Timestamp,
}

/// What is seen of a group at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Where it stands.
    pub standing: Standing,
    /// Its receipt, if there is one.
    pub receipt: Option<Receipt>,
}

/// How far a group came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupStatus {
    /// It has handled the message.
    Acked,
    /// It failed, and will try again.
    Retrying,
    /// It failed for good: the message is among the dead letters.
    DeadLettered,
    /// It failed, and the policy gave the message up.
    Discarded,
    /// It has the message in hand, or had when its member died.
    Delivered,
    /// It has not read the message.
    Unread,
    /// There is no such group.
    NoGroup,
    /// The store did not say.
    Unknown,
}

impl GroupStatus {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Retrying => "retrying",
            Self::DeadLettered => "dead-lettered",
            Self::Discarded => "discarded",
            Self::Delivered => "delivered",
            Self::Unread => "unread",
            Self::NoGroup => "no-group",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing will change any more unless an operator does something.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Acked | Self::DeadLettered | Self::Discarded)
    }
}

/// How far one group came, and how fast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// Which.
    pub group: String,
    /// How far.
    pub status: GroupStatus,
    /// For what is settled: how long after the entry was written, in ms.
    pub after_ms: Option<u64>,
    /// Whether a receipt says so. A peer that knows no receipts only acknowledges.
    pub receipt: bool,
}

/// The groups that a broadcast waits for, and how far each came.
#[derive(Clone, Debug)]
pub struct Waiting {
    entry: EntryId,
    groups: Vec<(GroupReport, bool)>,
}

impl Waiting {
    /// Waits for these groups, of which some existed before the entry was written.
    #[must_use]
    pub fn new(entry: EntryId, groups: &[String], existing: &[String]) -> Self {
        let report = |group: &String| GroupReport {
            group: group.clone(),
            status: GroupStatus::Unknown,
            after_ms: None,
            receipt: false,
        };
        let groups = groups.iter();
        Self {
            entry,
            groups: groups
                .map(|group| (report(group), existing.contains(group)))
                .collect(),
        }
    }

    /// Takes in what is seen of each group, in their order, so long after the entry was written.
    pub fn see(&mut self, elapsed: Duration, sights: &[Sight]) {
        let written = Timestamp::from_millis(self.entry.ms);
        for ((report, existed), sight) in self.groups.iter_mut().zip(sights) {
            if report.status.is_final() && sight.receipt.is_none() {
                continue;
            }
            let status = status(*existed, *sight);
            report.after_ms = match sight.receipt {
                Some(receipt) if receipt.outcome != ReceiptOutcome::Released => {
                    Some(millis(receipt.at.since(written)))
                }
                _ if status == GroupStatus::Acked => Some(millis(elapsed)),
                _ => None,
            };
            report.receipt = sight.receipt.is_some();
            report.status = status;
        }
    }

    /// Whether no group can come any further by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let mut groups = self.groups.iter();
        groups.all(|(report, _)| report.status.is_final())
    }

    /// How far each group came.
    #[must_use]
    pub fn into_reports(self) -> Vec<GroupReport> {
        self.groups.into_iter().map(|(report, _)| report).collect()
    }
}

/// Whether all have acknowledged; nobody is not all.
#[must_use]
pub fn all_acked(groups: &[GroupReport]) -> bool {
    let acked = |group: &GroupReport| group.status == GroupStatus::Acked;
    !groups.is_empty() && groups.iter().all(acked)
}

fn status(existed: bool, sight: Sight) -> GroupStatus {
    match (sight.receipt.map(|receipt| receipt.outcome), sight.standing) {
        (Some(ReceiptOutcome::Acked), _) => GroupStatus::Acked,
        (Some(ReceiptOutcome::Retrying), _) => GroupStatus::Retrying,
        (Some(ReceiptOutcome::DeadLettered), _) => GroupStatus::DeadLettered,
        (Some(ReceiptOutcome::Discarded), _) => GroupStatus::Discarded,
        (Some(ReceiptOutcome::Released), _) => GroupStatus::Unread,
        (None, Standing::Pending) => GroupStatus::Delivered,
        (None, Standing::Unread) => GroupStatus::Unread,
        (None, Standing::Passed) if existed => GroupStatus::Acked,
        (None, Standing::Passed | Standing::NoGroup) => GroupStatus::NoGroup,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use GroupStatus as Is;
    use ReceiptOutcome::{Acked, DeadLettered, Discarded, Released, Retrying};
    use Standing::{NoGroup, Passed, Pending, Unread};

    const ENTRY: EntryId = EntryId { ms: 1_000, seq: 0 };

    fn sight(standing: Standing, outcome: Option<ReceiptOutcome>) -> Sight {
        let receipt = |outcome| Receipt {
            outcome,
            at: Timestamp::from_millis(1_007),
        };
        Sight {
            standing,
            receipt: outcome.map(receipt),
        }
    }

    /// One group, after each of these sights.
    fn after(existed: bool, sights: &[Sight]) -> (GroupReport, bool) {
        let groups = ["g".to_owned()];
        let existing = if existed { &groups[..] } else { &[] };
        let mut waiting = Waiting::new(ENTRY, &groups, existing);
        for sight in sights {
            waiting.see(Duration::from_millis(30), &[*sight]);
        }
        let over = waiting.is_over();
        (waiting.into_reports().remove(0), over)
    }

    #[test]
    fn what_is_seen_of_a_group_says_how_far_it_came() {
        // Standing, receipt, whether it existed before, status, after, over.
        let table = [
            (Pending, None, true, Is::Delivered, None, false),
            (Unread, None, true, Is::Unread, None, false),
            (NoGroup, None, true, Is::NoGroup, None, false),
            (NoGroup, None, false, Is::NoGroup, None, false),
            (Passed, Some(Acked), true, Is::Acked, Some(7), true),
            (Passed, Some(Acked), false, Is::Acked, Some(7), true),
            (Passed, Some(Retrying), true, Is::Retrying, Some(7), false),
            (
                Passed,
                Some(DeadLettered),
                true,
                Is::DeadLettered,
                Some(7),
                true,
            ),
            (Passed, Some(Discarded), true, Is::Discarded, Some(7), true),
            (Passed, Some(Released), true, Is::Unread, None, false),
            // A peer without receipts; and a group that began behind the entry.
            (Passed, None, true, Is::Acked, Some(30), true),
            (Passed, None, false, Is::NoGroup, None, false),
            // Claimed again after a receipt of the first member: the receipt counts.
            (Pending, Some(Retrying), true, Is::Retrying, Some(7), false),
        ];
        for (standing, outcome, existed, status, after_ms, over) in table {
            let seen = sight(standing, outcome);
            let (report, is_over) = after(existed, &[seen]);
            let told = (report.status, report.after_ms, is_over);
            assert_eq!(told, (status, after_ms, over), "{seen:?} {existed}");
            assert_eq!(report.receipt, outcome.is_some());
        }
    }

    #[test]
    fn a_retry_that_succeeds_is_a_success() {
        let sights = [
            sight(Unread, None),
            sight(Passed, Some(Retrying)),
            sight(Passed, Some(Acked)),
        ];
        assert_eq!(after(true, &sights).0.status, Is::Acked);
    }

    #[test]
    fn what_was_acknowledged_stays_so_when_the_group_goes() {
        let sights = [sight(Passed, None), sight(NoGroup, None)];
        assert_eq!(after(true, &sights).0.status, Is::Acked);
    }

    #[test]
    fn nobody_is_not_all() {
        let waiting = Waiting::new(ENTRY, &[], &[]);
        assert!(waiting.is_over());
        assert!(!all_acked(&waiting.into_reports()));
        let (acked, _) = after(true, &[sight(Passed, Some(Acked))]);
        let (unread, _) = after(true, &[sight(Unread, None)]);
        assert!(all_acked(std::slice::from_ref(&acked)));
        assert!(!all_acked(&[acked, unread]));
    }

    #[test]
    fn outcomes_come_back_by_their_names() {
        for outcome in ReceiptOutcome::ALL {
            assert_eq!(ReceiptOutcome::from_name(outcome.name()), Some(outcome));
        }
        assert_eq!(ReceiptOutcome::from_name("lost"), None);
    }
}
