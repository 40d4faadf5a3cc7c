//! One suite for every store, and what only Redis can do wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "stores/faults.rs"]
mod faults;
#[path = "stores/model.rs"]
mod model;
#[path = "stores/suite.rs"]
mod suite;

use std::sync::Arc;
use std::time::Duration;

use oona::clock;
use oona::store::memory::MemoryStore;
use oona::store::redis::RedisStore;
use oona::store::{
    Append, ClaimRequest, Claimed, GroupStart, ReadRequest, Settlement, Step, Store, StreamDepth,
    StreamName,
};
use oona_core::entry::{Entry, EntryId, Record};
use oona_tests::binary::PATIENCE;
use oona_tests::redis_server::RedisServer;
use tokio::time::{interval, timeout};

/// Each check, over each store.
macro_rules! over_both_stores {
    ($($check:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $check() {
                super::suite::$check(&super::Bench::memory()).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $check() {
                super::suite::$check(&super::Bench::redis()).await;
            })*
        }
    };
}

over_both_stores! {
    appended_entries_have_ascending_ids_and_keep_their_bytes
    a_group_begins_where_it_was_told_and_is_made_once
    a_read_gives_each_entry_to_one_member_of_each_group
    a_read_tells_the_stream_and_takes_so_many_from_each
    a_read_waits_for_what_comes
    a_read_without_a_group_says_so
    only_what_has_lain_long_enough_is_claimed
    a_touched_entry_is_not_claimed
    an_entry_is_settled_once
    a_retry_is_written_as_it_is_settled
    a_dead_letter_is_written_as_it_is_settled
    a_retry_waits_for_its_time
    each_group_has_its_own_retry
    due_retries_are_promoted_once_whoever_asks
    depth_is_what_the_slowest_group_has_to_do
    only_what_every_group_has_finished_is_trimmed
    a_range_is_read_page_by_page
    a_dead_letter_is_redriven_once
    a_nonce_belongs_to_the_entry_that_bore_it_first
    a_nonce_is_forgotten_when_its_time_is_over
    a_member_leaves_unless_it_has_something_pending
}

/// A store with nothing in it.
struct Bench {
    store: Arc<dyn Store>,
    server: Option<RedisServer>,
}

impl Bench {
    fn memory() -> Self {
        Self {
            store: Arc::new(MemoryStore::new(clock::system())),
            server: None,
        }
    }

    fn redis() -> Self {
        let server = RedisServer::start();
        let store = RedisStore::new(&server.url()).expect("an address of Redis");
        Self {
            store: Arc::new(store),
            server: Some(server),
        }
    }

    /// Appends these payloads.
    async fn append(&self, stream: &str, payloads: &[&str]) -> Vec<EntryId> {
        let stream = StreamName::from(stream);
        let append = |payload: &&str| Append {
            stream: stream.clone(),
            record: record(payload),
        };
        let batch: Vec<_> = payloads.iter().map(append).collect();
        let answers = self.store.append(&batch).await.expect("it is written");
        let ids = answers.into_iter().collect::<Result<_, _>>();
        ids.expect("each is written")
    }

    async fn group(&self, stream: &str, group: &str) {
        let stream = StreamName::from(stream);
        let made = self
            .store
            .ensure_group(&stream, group, GroupStart::Beginning);
        made.await.expect("it is made");
    }

    /// What is there for a member of `group`, without waiting.
    async fn read(&self, stream: &str, group: &str, consumer: &str, count: usize) -> Vec<Entry> {
        let request = ReadRequest {
            group,
            consumer,
            streams: &[stream.into()],
            count,
            block: Duration::from_millis(1),
        };
        let found = self.store.read(request).await.expect("it is read");
        found.into_iter().map(|(_, entry)| entry).collect()
    }

    async fn claim(&self, stream: &str, group: &str, idle_min: Duration) -> Vec<Claimed> {
        let stream = StreamName::from(stream);
        let request = ClaimRequest {
            stream: &stream,
            group,
            consumer: "claimer",
            idle_min,
            count: 100,
        };
        self.store.claim(request).await.expect("it is claimed")
    }

    async fn settle(&self, stream: &str, group: &str, id: EntryId, step: Step) -> bool {
        let settlement = Settlement {
            stream: stream.into(),
            id,
            step,
        };
        let settled = self.store.settle(group, &[settlement]).await;
        settled.expect("it is settled")[0]
    }

    async fn depth(&self, stream: &str) -> StreamDepth {
        let depths = self.store.depths(&[stream.into()]).await;
        depths.expect("it is known").remove(0)
    }

    /// The payloads of a stream.
    async fn payloads(&self, stream: &str) -> Vec<String> {
        let entries = self.store.range(&stream.into(), None, 1_000).await;
        texts(&entries.expect("it is read"))
    }
}

fn record(payload: &str) -> Record {
    Record {
        payload: payload.as_bytes().to_vec().into(),
        signature: Some(format!("signature of {payload}").into()),
    }
}

/// The payloads of entries.
fn texts(entries: &[Entry]) -> Vec<String> {
    let text = |entry: &Entry| {
        let payload = entry.payload().expect("it has one");
        String::from_utf8_lossy(payload).into_owned()
    };
    entries.iter().map(text).collect()
}

/// Asks until the answer is `Some`.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut turns = interval(Duration::from_millis(2));
        loop {
            turns.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("it happens in time")
}
