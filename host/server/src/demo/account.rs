//! The account: what became of every message, as those outside the bus saw it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Instant;

use hdrhistogram::Histogram;
use oona_core::outcome::Outcome;
use tokio::sync::Notify;

use super::report::{Percentiles, Rejection};
use crate::sync::lock;

/// The longest latency that is told apart, in µs: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Which routing policy was in use when a message was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Era {
    /// The first version.
    #[default]
    First,
    /// While the second was put in its place: either may have decided.
    Between,
    /// The second version.
    Second,
    /// While the hostile one was in use.
    Hostile,
}

/// See the module.
#[derive(Default)]
pub(super) struct Account {
    book: Mutex<Book>,
    acknowledged: Notify,
}

struct Book {
    era: Era,
    items: HashMap<String, Item>,
    /// By cause and reason: how many, and what was said of the last.
    rejections: BTreeMap<(&'static str, String), (u64, String)>,
    /// Reports from the edge: by era, by the stream that they went to.
    edge: BTreeMap<Era, BTreeMap<String, u64>>,
    acknowledged: u64,
    redeliveries: u64,
    publish: Histogram<u64>,
    delivery: Histogram<u64>,
    redelivery: Histogram<u64>,
}

/// One message.
struct Item {
    producer: &'static str,
    since: Instant,
    era: Era,
    from_edge: bool,
    accepted: Option<bool>,
    acknowledged: u32,
}

/// Messages by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Handed to the bus.
    pub published: u64,
    /// Handled and acknowledged.
    pub delivered: u64,
    /// In the dead-letter stream.
    pub dead_lettered: u64,
    /// Refused, with a reason.
    pub rejected: u64,
    /// Accepted, and nowhere.
    pub lost: u64,
    /// In two of the columns.
    pub contradictory: u64,
}

impl Default for Book {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are those that the library allows")
        };
        Self {
            era: Era::default(),
            items: HashMap::new(),
            rejections: BTreeMap::new(),
            edge: BTreeMap::new(),
            acknowledged: 0,
            redeliveries: 0,
            publish: histogram(),
            delivery: histogram(),
            redelivery: histogram(),
        }
    }
}

impl Account {
    /// Another policy is in use from now on.
    pub(super) fn enter(&self, era: Era) {
        lock(&self.book).era = era;
    }

    /// A producer is about to hand a message over.
    pub(super) fn published(&self, id: &str, producer: &'static str, from_edge: bool) {
        let mut book = lock(&self.book);
        let item = Item {
            producer,
            since: Instant::now(),
            era: book.era,
            from_edge,
            accepted: None,
            acknowledged: 0,
        };
        book.items.insert(id.to_owned(), item);
    }

    /// The producer has heard what became of it.
    pub(super) fn outcome(&self, id: &str, outcome: &Outcome) {
        let book = &mut *lock(&self.book);
        let Some(item) = book.items.get_mut(id) else {
            return;
        };
        book.publish.saturating_record(micros(item.since));
        item.accepted = Some(outcome.is_accepted());
        match outcome {
            Outcome::Accepted { stream, .. } => {
                if item.from_edge {
                    let streams = book.edge.entry(item.era).or_default();
                    *streams.entry(stream.to_string()).or_default() += 1;
                }
            }
            Outcome::Rejected {
                cause,
                reason,
                detail,
                ..
            } => {
                let rejection = (cause.name(), reason.to_string());
                let (count, last) = book.rejections.entry(rejection).or_default();
                *count += 1;
                last.clone_from(detail);
            }
        }
    }

    /// A subscriber has a message in hand.
    pub(super) fn delivered(&self, id: &str, again: bool) {
        let book = &mut *lock(&self.book);
        let Some(item) = book.items.get(id) else {
            return;
        };
        let latency = if again {
            book.redeliveries += 1;
            &mut book.redelivery
        } else {
            &mut book.delivery
        };
        latency.saturating_record(micros(item.since));
    }

    /// A subscriber has handled it.
    pub(super) fn acknowledged(&self, id: &str) {
        let book = &mut *lock(&self.book);
        if let Some(item) = book.items.get_mut(id) {
            item.acknowledged += 1;
            book.acknowledged += 1;
        }
        self.acknowledged.notify_waiters();
    }

    /// Waits until all of these have been handled.
    pub(super) async fn handled(&self, ids: &[String]) {
        loop {
            let changed = self.acknowledged.notified();
            let all = {
                let book = lock(&self.book);
                let handled = |id| book.items.get(id).is_some_and(|item| item.acknowledged > 0);
                ids.iter().all(handled)
            };
            if all {
                return;
            }
            changed.await;
        }
    }

    /// How many messages were published, and handled.
    pub(super) fn counts(&self) -> (u64, u64) {
        let book = lock(&self.book);
        (book.items.len() as u64, book.acknowledged)
    }

    /// How many messages have come to no end yet.
    pub(super) fn open(&self, filed: &HashSet<&str>) -> u64 {
        let tallies = self.tallies(filed);
        tallies.iter().map(|(_, tally)| tally.lost).sum()
    }

    /// What became of the messages of each producer, in the order of their names.
    pub(super) fn tallies(&self, filed: &HashSet<&str>) -> Vec<(&'static str, Tally)> {
        let mut tallies = BTreeMap::<_, Tally>::new();
        for (id, item) in &lock(&self.book).items {
            let tally = tallies.entry(item.producer).or_default();
            let ends = [
                (&mut tally.delivered, item.acknowledged > 0),
                (&mut tally.dead_lettered, filed.contains(id.as_str())),
                (&mut tally.rejected, item.accepted == Some(false)),
            ];
            let mut count = 0;
            for (column, holds) in ends {
                *column += u64::from(holds);
                count += u32::from(holds);
            }
            tally.published += 1;
            tally.lost += u64::from(count == 0);
            tally.contradictory += u64::from(count > 1);
        }
        tallies.into_iter().collect()
    }

    /// Why messages were rejected.
    pub(super) fn rejections(&self) -> Vec<Rejection> {
        let book = lock(&self.book);
        let rejections = book.rejections.iter();
        rejections
            .map(|((cause, reason), (messages, detail))| Rejection {
                cause,
                reason: reason.clone(),
                detail: detail.clone(),
                messages: *messages,
            })
            .collect()
    }

    /// Where reports from the edge went in an era.
    pub(super) fn edge(&self, era: Era) -> BTreeMap<String, u64> {
        lock(&self.book).edge.get(&era).cloned().unwrap_or_default()
    }

    /// Messages that came to a subscriber again, and messages that were handled more than once.
    pub(super) fn repeated(&self) -> (u64, u64) {
        let book = lock(&self.book);
        let twice = book.items.values().filter(|item| item.acknowledged > 1);
        (book.redeliveries, twice.count() as u64)
    }

    /// Latencies of publishing, of a first delivery, and of later ones.
    pub(super) fn latencies(&self) -> [Percentiles; 3] {
        let book = lock(&self.book);
        [&book.publish, &book.delivery, &book.redelivery].map(Percentiles::of)
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
