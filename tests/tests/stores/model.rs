//! Both stores, told the same in the same order, give the same answers.

use std::collections::BTreeSet;

use oona::store::{NonceClaim, Step, StreamName};
use oona_core::Timestamp;
use oona_core::entry::EntryId;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::{AT_ONCE, Bench, LONG, record, texts};

const STREAMS: [&str; 2] = ["s", "t"];
const GROUPS: [&str; 2] = ["g", "h"];

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn both_stores_agree_on_random_histories(acts in vec(act(), 1..200)) {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(check(&acts));
    }
}

async fn check(acts: &[Act]) {
    let (memory, redis) = (Bench::memory(), Bench::redis());
    let (mut memory, mut redis) = (History::new(&memory).await, History::new(&redis).await);
    for (step, act) in acts.iter().enumerate() {
        let answers = (memory.perform(act).await, redis.perform(act).await);
        assert_eq!(
            answers.0, answers.1,
            "memory and Redis differ at step {step}: {act:?}"
        );
    }
}

/// Something that is asked of a store. Entries are named by the order of their reading.
#[derive(Clone, Debug)]
enum Act {
    Append {
        stream: usize,
        payload: String,
    },
    Read {
        stream: usize,
        group: usize,
        count: usize,
    },
    Claim {
        stream: usize,
        group: usize,
    },
    Settle {
        group: usize,
        nth: usize,
        step: usize,
        at_ms: u64,
    },
    Promote {
        stream: usize,
        now_ms: u64,
    },
    Trim {
        stream: usize,
        length: u64,
    },
    /// The oldest entry, if it is a dead letter.
    Remove,
    /// Of the dead letters.
    Expire {
        length: u64,
    },
    /// Of the oldest dead letter, or of the oldest entry of another stream.
    Redrive {
        from: Option<usize>,
        stream: usize,
    },
    Remember {
        group: usize,
        nonce: u64,
        owner: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let (stream, group) = (0..STREAMS.len(), 0..GROUPS.len());
    // Wide enough that no two are the same: stores may order those as they like.
    let at_ms = 0..u64::from(u32::MAX);
    prop_oneof![
        3 => (stream.clone(), "[a-z]{1,4}")
            .prop_map(|(stream, payload)| Act::Append { stream, payload }),
        3 => (stream.clone(), group.clone(), 1..4_usize)
            .prop_map(|(stream, group, count)| Act::Read { stream, group, count }),
        1 => (stream.clone(), group.clone()).prop_map(|(stream, group)| Act::Claim { stream, group }),
        3 => (group.clone(), 0..4_usize, 0..4_usize, at_ms.clone())
            .prop_map(|(group, nth, step, at_ms)| Act::Settle { group, nth, step, at_ms }),
        1 => (stream.clone(), at_ms).prop_map(|(stream, now_ms)| Act::Promote { stream, now_ms }),
        1 => (stream.clone(), 0..6_u64).prop_map(|(stream, length)| Act::Trim { stream, length }),
        1 => Just(Act::Remove),
        1 => (0..6_u64).prop_map(|length| Act::Expire { length }),
        1 => (proptest::option::of(stream.clone()), stream)
            .prop_map(|(from, stream)| Act::Redrive { from, stream }),
        1 => (group, 0..4_u64, 0..2_u64)
            .prop_map(|(group, nonce, owner)| Act::Remember { group, nonce, owner }),
    ]
}

/// A store, and what was read from it.
struct History<'a> {
    bench: &'a Bench,
    /// Entries by the order in which they were read: group, stream, id, payload.
    read: Vec<(usize, usize, EntryId, String)>,
    /// Streams that have lost entries that were not read: Redis counts their lag too high.
    taken_from: BTreeSet<&'static str>,
}

impl<'a> History<'a> {
    async fn new(bench: &'a Bench) -> Self {
        for stream in STREAMS {
            for group in GROUPS {
                bench.group(stream, group).await;
            }
        }
        Self {
            bench,
            read: Vec::new(),
            taken_from: BTreeSet::new(),
        }
    }

    /// Does it, and tells all that can be seen: ids and times aside, which are the store's own.
    async fn perform(&mut self, act: &Act) -> String {
        let answer = self.ask(act).await;
        let mut seen = vec![answer];
        for stream in STREAMS {
            let depth = self.bench.depth(stream).await;
            let mut groups = depth.groups;
            groups.sort_by(|a, b| a.name.cmp(&b.name));
            for group in &mut groups {
                assert!(group.lag <= depth.length, "{stream}: {group:?}");
                if self.taken_from.contains(stream) {
                    group.lag = 0;
                }
            }
            let payloads = self.bench.payloads(stream).await;
            seen.push(format!(
                "{stream}: {payloads:?} {groups:?} {}",
                depth.delayed
            ));
        }
        seen.push(format!("dead: {:?}", self.bench.payloads("dead").await));
        seen.join("\n")
    }

    async fn ask(&mut self, act: &Act) -> String {
        let bench = self.bench;
        match act {
            Act::Append { stream, payload } => {
                bench.append(STREAMS[*stream], &[payload]).await;
                String::new()
            }
            Act::Read {
                stream,
                group,
                count,
            } => {
                let found = bench
                    .read(STREAMS[*stream], GROUPS[*group], "a", *count)
                    .await;
                let payloads = texts(&found);
                for (entry, payload) in found.iter().zip(&payloads) {
                    self.read.push((*group, *stream, entry.id, payload.clone()));
                }
                format!("{payloads:?}")
            }
            Act::Claim { stream, group } => {
                let claimed = bench.claim(STREAMS[*stream], GROUPS[*group], AT_ONCE).await;
                let claimed = claimed.iter().map(|claimed| {
                    let payload = texts(std::slice::from_ref(&claimed.entry)).remove(0);
                    format!("{payload} x{}", claimed.deliveries)
                });
                format!("{:?}", claimed.collect::<Vec<_>>())
            }
            Act::Settle {
                group,
                nth,
                step,
                at_ms,
            } => {
                // Among the last few: some of them are settled already.
                let Some(nth) = self.read.len().checked_sub(nth + 1) else {
                    return String::new();
                };
                let (reader, stream, id, payload) = self.read[nth].clone();
                // Now and then by the wrong group.
                let group = if *at_ms % 10 == 0 { *group } else { reader };
                let step = step_of(*step, &payload, *at_ms);
                format!(
                    "{}",
                    bench.settle(STREAMS[stream], GROUPS[group], id, step).await
                )
            }
            Act::Promote { stream, now_ms } => {
                let now = Timestamp::from_millis(*now_ms);
                let moved = bench.store.promote(&STREAMS[*stream].into(), now, 2).await;
                format!("{}", moved.expect("it is done"))
            }
            Act::Trim { stream, length } => {
                let trimmed = bench.store.trim(&STREAMS[*stream].into(), *length).await;
                format!("{}", trimmed.expect("it is done"))
            }
            Act::Remove => {
                let dead = StreamName::from("dead");
                let letters = bench.store.range(&dead, None, 1).await.expect("it is read");
                let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
                let removed = bench.store.remove(&dead, &ids).await;
                format!("{}", removed.expect("it is done"))
            }
            Act::Expire { length } => {
                let (dead, ever) = (StreamName::from("dead"), Timestamp::EPOCH);
                let expired = bench.store.expire(&dead, ever, *length).await;
                let last = bench.store.last(&dead).await.expect("it is read");
                format!("{} {}", expired.expect("it is done"), last.is_some())
            }
            Act::Redrive { from, stream } => {
                let from = from.map_or("dead", |from| STREAMS[from]);
                self.taken_from.insert(from);
                let from = StreamName::from(from);
                let letters = bench.store.range(&from, None, 1).await.expect("it is read");
                let Some(letter) = letters.first() else {
                    return String::new();
                };
                let to = STREAMS[*stream].into();
                let moved = bench
                    .store
                    .redrive(&from, letter.id, &to, &letter.fields)
                    .await;
                format!("{}", moved.expect("it is done").is_some())
            }
            Act::Remember {
                group,
                nonce,
                owner,
            } => {
                let (ms, seq) = (*owner, 0);
                let claim = NonceClaim {
                    nonce: *nonce,
                    owner: ("s".into(), EntryId { ms, seq }),
                    ttl: LONG,
                };
                let seen = bench.store.remember(GROUPS[*group], &[claim]).await;
                format!("{:?}", seen.expect("it is done"))
            }
        }
    }
}

fn step_of(number: usize, payload: &str, at_ms: u64) -> Step {
    let record = record(&format!("{payload}'"));
    match number {
        0 => Step::Ack,
        1 => Step::Retry { record, at: None },
        2 => Step::Retry {
            record,
            at: Some(Timestamp::from_millis(at_ms)),
        },
        _ => Step::DeadLetter {
            stream: "dead".into(),
            record,
            original: None,
        },
    }
}
