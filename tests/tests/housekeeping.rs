//! Housekeeping: what a round removes, what it never does, and that it tells.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use oona::bus::{Draft, Overflow, StreamRemovals};
use oona::store::{GroupStart, StreamName};
use oona::telemetry;
use oona_core::envelope::message_type::TELEMETRY;
use oona_tests::binary::{Host, command, text};
use oona_tests::bus::{Stand, TestBus, draft, eventually, take};
use oona_tests::http::get;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Each case, on both stores.
macro_rules! cases {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(oona_tests::bus::Stand::memory()).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(oona_tests::bus::Stand::redis()).await;
            })*
        }
    };
}

cases! {
    what_a_group_has_yet_to_finish_stays_unless_told_otherwise
    an_overfull_stream_loses_its_oldest_if_told_to_and_counts_them
    an_expired_message_is_counted_where_it_is_refused
    what_has_expired_where_nobody_reads_goes_if_told_to
    idle_names_go_and_what_a_dead_member_held_stays
    an_idle_group_goes_only_if_told_to
    rounds_of_two_hosts_at_once_harm_nothing
}

/// The telemetry of entries that only this host has published, and their stream.
const STREAM: &str = "oona.telemetry";

/// What a round removed from [`STREAM`].
async fn removed(bus: &TestBus) -> StreamRemovals {
    let report = bus.bus.keep_house().await.unwrap();
    report.streams.get(STREAM).cloned().unwrap_or_default()
}

/// Appends as a peer does that asks no policy.
async fn past_the_policies(stand: &Stand, stream: &str, count: usize) {
    for _ in 0..count {
        stand.append_raw(stream, b"", None).await;
    }
}

/// A group that reads nothing.
async fn group(stand: &Stand, stream: &str, group: &str) {
    let stream = StreamName::from(stream);
    let made = stand
        .store
        .ensure_group(&stream, group, GroupStart::Beginning);
    made.await.unwrap();
}

async fn length(stand: &Stand, stream: &str) -> u64 {
    let depths = stand.store.depths(&[stream.into()]).await.unwrap();
    depths[0].length
}

async fn what_a_group_has_yet_to_finish_stays_unless_told_otherwise(stand: Stand) {
    let bus = stand.bus(|setup| setup.config.stream_length_max = 10);
    group(&stand, STREAM, "g").await;
    past_the_policies(&stand, STREAM, 30).await;
    assert_eq!(removed(&bus).await, StreamRemovals::default());
    assert_eq!(length(&stand, STREAM).await, 30);
    let status = bus.bus.housekeeping();
    assert_eq!((status.totals.rounds, status.totals.dropped), (1, 0));
}

async fn an_overfull_stream_loses_its_oldest_if_told_to_and_counts_them(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.stream_length_max = 10;
        setup.config.housekeeping.overflow = Overflow::DropOldest;
        // So that it is this round that drops them.
        setup.config.sample_interval = Duration::from_secs(3_600);
    });
    // The keeper has its first round behind it, and the next is an hour away.
    eventually(async || bus.bus.status().store.up.then_some(())).await;
    for stream in [STREAM, "oona.emergency", "oona.control"] {
        group(&stand, stream, "g").await;
        past_the_policies(&stand, stream, 30).await;
    }
    let report = bus.bus.keep_house().await.unwrap();
    assert_eq!(report.streams.len(), 1, "{report:?}");
    let gone = &report.streams[STREAM];
    assert_eq!((gone.trimmed, gone.dropped), (0, 20));
    assert_eq!(length(&stand, STREAM).await, 10);
    for urgent in ["oona.emergency", "oona.control"] {
        assert_eq!(length(&stand, urgent).await, 30, "{urgent} loses nothing");
    }
    let status = bus.bus.housekeeping();
    assert_eq!(status.totals.dropped, 20);
    assert_eq!(status.last, Some(report));
    let metrics = bus.bus.metrics().render();
    let line = format!("oona_dropped_total{{stream=\"{STREAM}\"}} 20");
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
}

/// A message that is of use for a moment only.
fn brief(number: usize) -> Draft {
    Draft {
        ttl: Some(Duration::from_millis(1)),
        ..draft(TELEMETRY, number)
    }
}

async fn an_expired_message_is_counted_where_it_is_refused(stand: Stand) {
    let bus = stand.bus(|_| {});
    bus.publish(brief(1)).await;
    bus.publish(draft(TELEMETRY, 2)).await;
    let expired = bus.bus.now() + Duration::from_millis(2);
    eventually(async || (bus.bus.now() >= expired).then_some(())).await;
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, 1).await.remove(0);
    assert_eq!(taken.message.id, "event-2");
    assert_eq!(bus.dead_letters(1).await[0].failure, "stale");
    let counted = bus.bus.metrics().expired(STREAM);
    eventually(async || (counted.get() == 1).then_some(())).await;
}

async fn what_has_expired_where_nobody_reads_goes_if_told_to(stand: Stand) {
    let keeps = stand.bus(|_| {});
    let removes = stand.bus(|setup| setup.config.housekeeping.remove_expired = true);
    for number in 0..3 {
        keeps.publish(brief(number)).await;
    }
    keeps.publish(draft(TELEMETRY, 3)).await;
    // What is not signed says nothing that could be believed.
    past_the_policies(&stand, STREAM, 1).await;
    let expired = keeps.bus.now() + Duration::from_millis(2);
    eventually(async || (keeps.bus.now() >= expired).then_some(())).await;
    assert_eq!(removed(&keeps).await.expired, 0);
    assert_eq!(removed(&removes).await.expired, 3);
    assert_eq!(length(&stand, STREAM).await, 2);
    // With a group, somebody may read: what has expired is refused there, and counted.
    keeps.publish(brief(4)).await;
    group(&stand, STREAM, "g").await;
    let expired = keeps.bus.now() + Duration::from_millis(2);
    eventually(async || (keeps.bus.now() >= expired).then_some(())).await;
    assert_eq!(removed(&removes).await.expired, 0);
}

async fn idle_names_go_and_what_a_dead_member_held_stays(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.housekeeping.consumer_idle = Some(Duration::from_millis(1));
        setup.config.consume.block = Duration::from_millis(20);
    });
    bus.publish(draft(TELEMETRY, 1)).await;
    bus.publish(draft(TELEMETRY, 2)).await;
    let held = {
        let request = oona::store::ReadRequest {
            group: "g",
            consumer: "dead",
            streams: &[STREAM.into()],
            count: 1,
            block: Duration::from_millis(1),
        };
        group(&stand, STREAM, "g").await;
        let held = stand.store.read(request).await.unwrap();
        let request = oona::store::ReadRequest {
            group: "g",
            consumer: "idle",
            ..request
        };
        let also = stand.store.read(request).await.unwrap();
        let ack = oona::store::Settlement {
            stream: STREAM.into(),
            id: also[0].1.id,
            step: oona::store::Step::Ack,
            receipt: None,
        };
        stand.store.settle("g", &[ack]).await.unwrap();
        held[0].1.id
    };
    eventually(async || (removed(&bus).await.consumers == 1).then_some(())).await;
    let depths = stand.store.depths(&[STREAM.into()]).await.unwrap();
    assert_eq!(depths[0].groups[0].pending, 1, "{held} is still held");
    // A subscriber goes on under whatever a round does to its name.
    let mut subscription = bus.join("g");
    for number in 3..20 {
        bus.publish(draft(TELEMETRY, number)).await;
        bus.bus.keep_house().await.unwrap();
        take(&mut subscription, 1).await;
    }
}

async fn an_idle_group_goes_only_if_told_to(stand: Stand) {
    let keeps = stand.bus(|_| {});
    let removes = stand.bus(|setup| {
        setup.config.housekeeping.group_idle = Some(Duration::from_secs(1));
    });
    let mut active = keeps.join("active");
    keeps.publish(draft(TELEMETRY, 1)).await;
    group(&stand, STREAM, "deserted").await;
    take(&mut active, 1).await;
    keeps.pending(STREAM, "active", 0).await;
    assert_eq!(
        removed(&removes).await.groups,
        [],
        "its time has just begun"
    );
    let gone = eventually(async || {
        assert_eq!(removed(&keeps).await.groups, []);
        removed(&removes).await.groups.pop()
    })
    .await;
    assert_eq!((&*gone.name, gone.unfinished), ("deserted", 1));
    let depths = stand.store.depths(&[STREAM.into()]).await.unwrap();
    let left: Vec<_> = depths[0].groups.iter().map(|group| &*group.name).collect();
    assert_eq!(left, ["active"], "somebody is there");
    let totals = removes.bus.housekeeping().totals;
    assert_eq!((totals.groups, totals.abandoned), (1, 1));
}

async fn rounds_of_two_hosts_at_once_harm_nothing(stand: Stand) {
    // Samples go on, and relieve what is overlong as well.
    let host = || {
        stand.bus(|setup| {
            setup.config.stream_length_max = 100;
            setup.config.housekeeping.overflow = Overflow::DropOldest;
            setup.config.housekeeping.consumer_idle = Some(Duration::ZERO);
        })
    };
    let (one, other) = (host(), host());
    group(&stand, STREAM, "g").await;
    past_the_policies(&stand, STREAM, 1_000).await;
    let rounds = tokio::join!(one.bus.keep_house(), other.bus.keep_house());
    assert!(rounds.0.is_ok() && rounds.1.is_ok());
    let dropped = |bus: &TestBus| bus.bus.housekeeping().totals.dropped;
    // Each is counted once, by whoever dropped it.
    eventually(async || (dropped(&one) + dropped(&other) == 900).then_some(())).await;
    assert_eq!(length(&stand, STREAM).await, 100);
}

#[tokio::test]
async fn a_round_that_fails_says_so() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|setup| setup.config.sample_interval = Duration::from_secs(3_600));
    bus.bus.store_ready(None).await.unwrap();
    stand.server.as_mut().unwrap().kill();
    assert!(bus.bus.keep_house().await.is_err());
    let status = bus.bus.housekeeping();
    assert_eq!((status.totals.rounds, status.totals.failed), (1, 1));
    assert!(status.last.unwrap().failed.is_some());
}

#[test]
fn an_operator_has_a_round_made_and_reads_the_account() {
    let host = Host::start(&["--dev", "--set", "streams.length_max=10"]);
    let oona = |arguments: &[&str]| -> Value {
        let desk = TempDir::new().unwrap();
        let address = host.address.to_string();
        let shared = ["--server", &address, "--output", "json"];
        let output = command(&desk, &[arguments, &shared].concat())
            .output()
            .unwrap();
        let told = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_str(told).unwrap()
    };
    let before = oona(&["housekeeping", "show"]);
    assert_eq!(before["totals"]["dropped"], 0);
    let report = oona(&["housekeeping", "run"]);
    assert_eq!(
        (&report["dead_letters"], &report["failed"]),
        (&0.into(), &Value::Null)
    );
    let after = oona(&["housekeeping", "show"]);
    let rounds = |status: &Value| status["totals"]["rounds"].as_u64().unwrap();
    assert!(rounds(&after) > rounds(&before));
    assert!(after["last"]["at_ms"].is_u64());
    let status = get(host.address, "/v1/status").json();
    assert_eq!(rounds(&status["housekeeping"]), rounds(&after));
    host.wait_for_log("oona::audit");
}

#[tokio::test(start_paused = true)]
async fn telemetry_that_nobody_reads_does_not_pile_up() {
    let stand = Stand::memory();
    let bus = stand.bus(|_| {});
    let (period, stop) = (Duration::from_millis(200), CancellationToken::new());
    let telling = telemetry::tell(bus.bus.clone(), period, stop.clone());
    let telling = tokio::spawn(telling);
    // Time is paused, so this takes none.
    tokio::time::sleep(1_000 * period).await;
    let streams = bus.bus.status().streams.into_iter();
    let deep: Vec<_> = streams.filter(|stream| stream.depth > 0).collect();
    assert_eq!(deep.len(), 1, "{deep:?}");
    assert_eq!(deep[0].depth, telemetry::UNREAD_MAX);
    // It goes on as soon as somebody reads.
    let mut watchers = bus.join("watchers");
    take(
        &mut watchers,
        usize::try_from(telemetry::UNREAD_MAX).unwrap() + 3,
    )
    .await;
    stop.cancel();
    telling.await.unwrap();
    watchers.close();
    assert!(bus.shutdown().await);
}
