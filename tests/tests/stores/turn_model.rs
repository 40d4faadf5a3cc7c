//! The same steps in any order, over both stores: they hand out the same, and no two of a key.

use std::collections::BTreeMap;
use std::fmt::Write;

use oona::store::{Append, Step};
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::turns::{end, keyed, name};
use super::{AT_ONCE, Bench, record};

#[derive(Clone, Debug)]
enum Act {
    Append {
        key: usize,
    },
    Read {
        count: usize,
    },
    Claim,
    /// Of what was handed out, the `nth` last.
    Settle {
        nth: usize,
        step: usize,
    },
    /// As a host does that does not keep the order.
    SettleAnyhow {
        nth: usize,
    },
    Remove {
        nth: usize,
    },
    Promote,
    Mend,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..4usize).prop_map(|key| Act::Append { key }),
        6 => (1..5usize).prop_map(|count| Act::Read { count }),
        1 => Just(Act::Claim),
        8 => (0..4usize, 0..4usize).prop_map(|(nth, step)| Act::Settle { nth, step }),
        1 => (0..3usize).prop_map(|nth| Act::SettleAnyhow { nth }),
        1 => (0..6usize).prop_map(|nth| Act::Remove { nth }),
        2 => Just(Act::Promote),
        1 => Just(Act::Mend),
    ];
    prop::collection::vec(act, 20..80)
}

/// Later than any retry is due.
const ALL_DUE: Timestamp = Timestamp::from_millis(1_000_000);

/// One store, and what it has handed out.
struct Hands<'a> {
    bench: &'a Bench,
    handed: Vec<(EntryId, String)>,
    number: usize,
    /// When the next retry is due, in ms: each at a time of its own, as those of one time have no order.
    due: u64,
}

impl Hands<'_> {
    /// What a step shows of itself.
    async fn perform(&mut self, act: &Act) -> String {
        let mut seen = String::new();
        let handed = match act {
            Act::Append { key } => {
                let name = format!("{}{}", ["a", "b", "c", "-"][*key], self.number);
                self.number += 1;
                self.bench.append_keyed(&[&name]).await;
                Vec::new()
            }
            Act::Read { count } => self.bench.handed("g", *count).await,
            Act::Claim => {
                write!(seen, "{:?}", self.bench.left(AT_ONCE).await).unwrap();
                Vec::new()
            }
            Act::Settle { nth, step } => {
                if let Some((id, name)) = self.nth_last(*nth) {
                    self.due += 1;
                    let step = step_of(*step, &name, self.due);
                    let settled = end(&*self.bench.store, "g", id, step).await;
                    write!(seen, "{settled}").unwrap();
                }
                Vec::new()
            }
            Act::SettleAnyhow { nth } => {
                if let Some((id, _)) = self.nth_last(*nth) {
                    let settled = self.bench.settle("s", "g", id, Step::Ack).await;
                    write!(seen, "{settled}").unwrap();
                }
                Vec::new()
            }
            Act::Remove { nth } => {
                let entries = self.entries().await;
                if let Some(entry) = entries.len().checked_sub(nth + 1).map(|at| &entries[at]) {
                    self.bench
                        .store
                        .remove(&"s".into(), &[entry.id])
                        .await
                        .unwrap();
                }
                Vec::new()
            }
            Act::Promote => {
                let moved = self
                    .bench
                    .store
                    .promote(&"s".into(), ALL_DUE, 9)
                    .await
                    .unwrap();
                write!(seen, "{moved}").unwrap();
                Vec::new()
            }
            Act::Mend => {
                write!(seen, "{}", self.bench.mended().await.passed).unwrap();
                Vec::new()
            }
        };
        for entry in &handed {
            write!(seen, " {}", name(entry)).unwrap();
            self.handed.push((entry.id, name(entry)));
        }
        seen
    }

    fn nth_last(&self, nth: usize) -> Option<(EntryId, String)> {
        let at = self.handed.len().checked_sub(nth + 1)?;
        Some(self.handed[at].clone())
    }

    async fn entries(&self) -> Vec<Entry> {
        let entries = self.bench.store.range(&"s".into(), None, 1_000).await;
        entries.unwrap()
    }

    /// Finishes all that is left, one entry at a time; answers what it was. Whatever happened before,
    /// nothing stands in line for ever.
    async fn finish(&mut self) -> Vec<String> {
        let mut finished = Vec::new();
        loop {
            self.bench
                .store
                .promote(&"s".into(), ALL_DUE, 99)
                .await
                .unwrap();
            self.bench.mended().await;
            let left = self.bench.left(AT_ONCE).await;
            let handed = self.bench.handed("g", 99).await;
            self.handed
                .extend(handed.iter().map(|entry| (entry.id, name(entry))));
            let mut settled = 0;
            for (id, name) in std::mem::take(&mut self.handed) {
                if end(&*self.bench.store, "g", id, Step::Ack).await {
                    finished.push(name);
                    settled += 1;
                }
            }
            let depth = self.bench.depth("s").await;
            if settled == 0 && left.is_empty() {
                assert_eq!((depth.groups[0].pending, depth.delayed), (0, 0));
                assert_eq!(self.bench.mended().await.in_line, 0);
                return finished;
            }
        }
    }
}

/// Messages of one key have an order; which key goes first when several turns are mended at once has none.
fn by_key(mut finished: Vec<String>) -> Vec<String> {
    finished.sort_by_key(|name| name.chars().next());
    finished
}

fn step_of(step: usize, name: &str, due: u64) -> Step {
    let record_again = keyed(name);
    match step {
        0 => Step::Retry {
            record: record_again,
            at: None,
        },
        1 => Step::Retry {
            record: record_again,
            at: Some(Timestamp::from_millis(due)),
        },
        2 => Step::DeadLetter {
            stream: "dead".into(),
            record: record("filed"),
            original: None,
        },
        _ => Step::Ack,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_keep_the_same_order_whatever_happens() {
    const CASES: usize = 60;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let redis = Bench::redis();
    let mut handed = BTreeMap::new();
    for case in 0..CASES {
        let acts = acts().new_tree(&mut runner).unwrap().current();
        let memory = Bench::memory();
        redis.flush().await;
        let mut hands = [&memory, &redis].map(|bench| Hands {
            bench,
            handed: Vec::new(),
            number: 0,
            due: 0,
        });
        for bench in [&memory, &redis] {
            bench.group("s", "g").await;
        }
        let mut trace = Vec::new();
        for act in &acts {
            let [one, other] = &mut hands;
            let (one, other) = (one.perform(act).await, other.perform(act).await);
            trace.push(format!("{act:?}: {one}"));
            assert_eq!(one, other, "case {case}, after {trace:#?}");
            *handed.entry(one.is_empty()).or_insert(0) += 1;
        }
        let [one, other] = &mut hands;
        assert_eq!(
            by_key(one.finish().await),
            by_key(other.finish().await),
            "case {case}, after {trace:#?}"
        );
    }
    assert!(handed[&false] > CASES * 10, "{handed:?}");
}

impl Bench {
    async fn flush(&self) {
        if let Some(server) = &self.server {
            let mut operator = super::operator(server).await;
            let flushed: String = redis::cmd("FLUSHALL")
                .query_async(&mut operator)
                .await
                .unwrap();
            assert_eq!(flushed, "OK");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_on_when_the_order_is_no_longer_kept() {
    for bench in [Bench::memory(), Bench::redis()] {
        bench.group("s", "g").await;
        let names = ["a1", "a2", "a3"].map(|name| Append::new("s".into(), keyed(name)));
        bench.store.append(&names).await.unwrap();
        assert_eq!(bench.handed("g", 9).await.len(), 1);
        let claimed = bench.claim("s", "g", AT_ONCE).await;
        let claimed: Vec<_> = claimed.iter().map(|claimed| name(&claimed.entry)).collect();
        assert_eq!(claimed, ["a1", "a2", "a3"]);
    }
}
