//! One suite for every store, and what each can do wrong alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "stores/claiming.rs"]
mod claiming;
#[path = "stores/faults.rs"]
mod faults;
#[path = "stores/keeping.rs"]
mod keeping;
#[path = "stores/memory_only.rs"]
mod memory_only;
#[path = "stores/model.rs"]
mod model;
#[path = "stores/once.rs"]
mod once;
#[path = "stores/reading.rs"]
mod reading;
#[path = "stores/settling.rs"]
mod settling;
#[path = "stores/turn_model.rs"]
mod turn_model;
#[path = "stores/turns.rs"]
mod turns;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oona::clock;
use oona::store::memory::MemoryStore;
use oona::store::redis::RedisStore;
use oona::store::{
    Append, ClaimRequest, Claimed, GroupStart, ReadRequest, Settlement, Step, Store, StoreError,
    StreamDepth, StreamName,
};
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId, Record};
use oona_tests::binary::PATIENCE;
use oona_tests::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use tokio::time::{interval, timeout};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

const AT_ONCE: Duration = Duration::ZERO;

/// Each check, over each store.
macro_rules! over_both_stores {
    ($($subject:ident :: $check:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $check() {
                super::$subject::$check(&super::Bench::memory()).await;
            })*
        }

        mod redis_store {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $check() {
                super::$subject::$check(&super::Bench::redis()).await;
            })*
        }
    };
}

over_both_stores! {
    reading::appended_entries_have_ascending_ids_and_keep_their_bytes
    reading::a_group_begins_where_it_was_told_and_is_made_once
    reading::a_read_gives_each_entry_to_one_member_of_each_group
    reading::members_at_once_get_each_entry_once
    reading::a_read_tells_the_stream_and_takes_so_many_from_each
    reading::a_read_for_nothing_gives_nothing
    reading::a_read_waits_for_whatever_is_written
    reading::a_group_that_is_missing_is_named
    once::an_event_is_appended_once_within_its_window
    once::an_event_is_forgotten_when_its_window_is_over
    once::an_event_appended_by_many_at_once_is_appended_once
    claiming::only_what_has_lain_long_enough_is_claimed
    claiming::as_many_are_claimed_as_were_asked_for
    claiming::claimers_at_once_get_each_entry_once
    claiming::what_is_gone_is_not_claimed
    claiming::only_what_one_holds_is_touched
    claiming::a_member_leaves_unless_it_has_something_pending
    settling::an_entry_is_settled_once
    settling::an_entry_settled_by_many_at_once_is_settled_once
    settling::each_group_settles_for_itself
    settling::a_retry_is_written_as_it_is_settled
    settling::a_dead_letter_is_written_as_it_is_settled
    settling::a_receipt_is_written_with_its_settlement
    settling::sights_tell_where_each_group_stands
    settling::what_is_written_keeps_its_bytes
    settling::a_retry_waits_for_its_time
    settling::each_group_has_its_own_retry
    settling::due_retries_are_promoted_once_whoever_asks
    keeping::depth_is_what_the_slowest_group_has_to_do
    keeping::the_oldest_is_what_each_group_has_yet_to_finish
    keeping::depth_is_right_though_entries_were_taken_out
    keeping::only_what_every_group_has_finished_is_trimmed
    keeping::a_long_stream_is_trimmed_at_once
    keeping::the_oldest_are_dropped_and_what_was_unfinished_is_counted
    keeping::each_is_dropped_once_whoever_asks
    keeping::idle_consumers_go_unless_they_hold_something
    keeping::an_idle_group_goes_and_tells_what_it_had_to_do
    keeping::a_range_is_read_page_by_page
    keeping::a_step_over_entries_reads_each_nth
    keeping::a_dead_letter_is_redriven_once
    keeping::entries_are_removed_whatever_became_of_them
    keeping::what_is_too_old_or_too_much_expires
    keeping::what_is_kept_is_what_was_kept_last
    keeping::an_entry_is_appended_after_the_one_that_is_meant
    keeping::a_nonce_belongs_to_the_entry_that_bore_it_first
    keeping::a_nonce_is_forgotten_when_its_time_is_over
    turns::a_key_is_handed_out_one_at_a_time
    turns::a_retry_keeps_the_turn_of_its_key
    turns::a_dead_letter_passes_the_turn_on
    turns::each_group_has_turns_of_its_own
    turns::what_a_dead_member_had_is_claimed_and_what_waits_is_not
    turns::a_read_waits_for_a_turn_or_an_entry
    turns::turns_are_taken_once_by_many_at_once
    turns::turns_of_what_is_gone_are_passed_on
    turns::what_was_finished_behind_one_that_waits_is_thinned
    turns::a_missing_group_is_named_and_has_nothing_to_settle
    turns::whoever_reads_in_turn_is_active
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

    /// The store as another host sees it: with connections of its own.
    fn replica(&self) -> Arc<dyn Store> {
        match &self.server {
            Some(server) => Arc::new(RedisStore::new(&server.url()).expect("an address of Redis")),
            None => Arc::clone(&self.store),
        }
    }

    /// Returns when a read waits.
    async fn until_a_read_waits(&self) {
        let Some(server) = &self.server else {
            // It waits, or is about to: both must end well.
            return tokio::task::yield_now().await;
        };
        let mut look = operator(server).await;
        eventually(async || {
            let mut command = redis::cmd("INFO");
            let command = command.arg("clients");
            let clients: String = command.query_async(&mut look).await.ok()?;
            clients.contains("blocked_clients:1").then_some(())
        })
        .await;
    }

    /// Appends these payloads.
    async fn append(&self, stream: &str, payloads: &[&str]) -> Vec<EntryId> {
        let stream = StreamName::from(stream);
        let append = |payload: &&str| Append {
            stream: stream.clone(),
            record: record(payload),
            once: None,
        };
        let batch: Vec<_> = payloads.iter().map(append).collect();
        let answers = self.store.append(&batch).await.expect("it is written");
        let ids = answers
            .into_iter()
            .map(|answer| answer.map(|written| written.id));
        ids.collect::<Result<_, _>>().expect("each is written")
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
        let found = self.try_read(stream, group, consumer, count).await;
        found.expect("it is read")
    }

    async fn try_read(
        &self,
        stream: &str,
        group: &str,
        consumer: &str,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let request = ReadRequest {
            group,
            consumer,
            streams: &[stream.into()],
            count,
            block: Duration::from_millis(1),
        };
        let found = self.store.read(request).await?;
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }

    async fn claim(&self, stream: &str, group: &str, idle_min: Duration) -> Vec<Claimed> {
        let claimed = claim(&*self.store, stream, group, idle_min, 100).await;
        claimed.expect("it is claimed")
    }

    async fn settle(&self, stream: &str, group: &str, id: EntryId, step: Step) -> bool {
        let settlement = Settlement {
            stream: stream.into(),
            id,
            step,
            receipt: None,
        };
        let settled = self.store.settle(group, &[settlement]).await;
        settled.expect("it is settled")[0]
    }

    /// Moves an entry, with the payload `new`.
    async fn redrive(
        &self,
        from: &str,
        id: EntryId,
        to: &str,
    ) -> Result<Option<EntryId>, StoreError> {
        let (from, to) = (StreamName::from(from), StreamName::from(to));
        let fields = record("new").into_fields();
        self.store.redrive(&from, id, &to, &fields).await
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

async fn claim(
    store: &dyn Store,
    stream: &str,
    group: &str,
    idle_min: Duration,
    count: usize,
) -> Result<Vec<Claimed>, StoreError> {
    let request = ClaimRequest {
        stream: &stream.into(),
        group,
        consumer: "claimer",
        idle_min,
        count,
    };
    store.claim(request).await
}

/// A connection beside the store, as an operator has it.
async fn operator(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("an address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("it accepts connections")
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = since_epoch.expect("it is past 1970").as_millis();
    Timestamp::from_millis(u64::try_from(ms).expect("it is before the end of time"))
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
