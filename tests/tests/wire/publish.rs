//! What a publish costs, what it tells, and how the bus protects itself.

use std::collections::BTreeMap;

use oona::bus::Draft;
use oona_core::envelope::message_type::EMERGENCY_SIGNAL;
use oona_core::outcome::{Lane, Outcome, RejectCause};
use oona_core::policy::{Mode, Priority};

use super::*;

/// A section of `INFO`.
fn info(server: &RedisServer, section: &str) -> BTreeMap<String, String> {
    let text: String = server.ask(&["INFO", section]);
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// How often each command has been called.
fn calls(server: &RedisServer) -> BTreeMap<String, u64> {
    let calls = |(name, counts): (String, String)| {
        let count = counts
            .strip_prefix("calls=")?
            .split(',')
            .next()?
            .parse()
            .ok()?;
        Some((name.strip_prefix("cmdstat_")?.to_owned(), count))
    };
    info(server, "commandstats")
        .into_iter()
        .filter_map(calls)
        .collect()
}

/// How often Redis has read from a connection.
fn reads(server: &RedisServer) -> u64 {
    info(server, "stats")["total_reads_processed"]
        .parse()
        .unwrap()
}

fn unnamed(number: usize) -> Draft {
    Draft {
        id: None,
        ..draft(TELEMETRY, number)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_costs_no_extra_round_trips() {
    const COUNT: usize = 500;
    let stand = Stand::redis();
    let server = server(&stand);
    // Sampled once, at the start.
    let bus = stand.bus(|setup| setup.config.sample_interval = Duration::from_secs(3_600));
    eventually(async || calls(server).contains_key("zcard").then_some(())).await;
    bus.publish(unnamed(0)).await;
    let (calls_before, reads_before) = (calls(server), reads(server));
    // One after the other: each costs the round trip of its XADD, and no other.
    for number in 0..COUNT {
        bus.publish(unnamed(number)).await;
    }
    let reads_one_by_one = reads(server) - reads_before;
    let mut more = calls(server);
    more.retain(|name, count| {
        *count -= calls_before.get(name).copied().unwrap_or(0);
        *count > 0 && !["info", "hello", "client", "client|setinfo"].contains(&&**name)
    });
    assert_eq!(more, [("xadd".to_owned(), COUNT as u64)].into());
    // Those who ask are read from too, a few times each.
    let tolerance = 20;
    assert!(
        reads_one_by_one <= COUNT as u64 + tolerance,
        "{reads_one_by_one}"
    );
    // At once: they share their round trips.
    let reads_before = reads(server);
    let mut waiting = Vec::new();
    for number in 0..COUNT {
        waiting.push(bus.bus.enqueue(unnamed(number)).await);
    }
    for outcome in waiting {
        assert!(outcome.await.is_accepted());
    }
    let reads_at_once = reads(server) - reads_before;
    assert!(
        reads_at_once < COUNT as u64 / 2,
        "{reads_at_once} for {COUNT}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn conservative_mode_has_thresholds_hysteresis_and_a_recovery_window() {
    const RECOVERY: Duration = Duration::from_secs(60);
    let hands = Hands::now();
    let stand = Stand::redis().with_clock(hands.clock());
    let bus = stand.bus(|setup| {
        setup.config.conservative.high_water = 20;
        setup.config.conservative.low_water = 10;
        setup.config.conservative.recovery_ms = 60_000;
    });
    let mut subscription = bus.join("workers");
    let mode = || bus.bus.status().mode;
    // Waits until the sampler has seen this depth, and decided on it.
    let sampled = async |depth: u64| {
        eventually(async || {
            let streams = bus.bus.status().streams;
            let found = streams
                .iter()
                .find(|stream| stream.name == TELEMETRY_STREAM)?;
            let group = found.groups.first()?;
            (group.lag + group.pending == depth).then_some(())
        })
        .await;
        a_round_of_the_sampler(&stand).await;
    };
    // One emergency is no reason to change anything.
    bus.publish(draft(EMERGENCY_SIGNAL, 1_000)).await;
    take(&mut subscription, 1).await;
    publish_telemetry(&bus, 19).await;
    sampled(19).await;
    assert_eq!(mode(), Mode::Normal, "under high water");
    let entered = || {
        bus.bus
            .metrics()
            .conservative_transitions("conservative", "high-water")
            .get()
    };
    assert_eq!(entered(), 0);
    bus.publish(draft(TELEMETRY, 19)).await;
    eventually(async || (mode() == Mode::Conservative).then_some(())).await;
    // Traffic goes where it went: nothing but emergencies is on the emergency stream.
    assert_eq!(bus.publish(draft(TELEMETRY, 20)).await, TELEMETRY_STREAM);
    let emergencies: u64 = server(&stand).ask(&["XLEN", "oona.emergency"]);
    assert_eq!(emergencies, 1);
    // Between the two waters nothing changes, however long.
    take(&mut subscription, 11).await;
    sampled(10).await;
    hands.forward(10 * RECOVERY);
    a_round_of_the_sampler(&stand).await;
    assert_eq!(mode(), Mode::Conservative);
    // Under low water it takes its time,
    take(&mut subscription, 1).await;
    sampled(9).await;
    hands.forward(RECOVERY - Duration::from_millis(1));
    a_round_of_the_sampler(&stand).await;
    assert_eq!(mode(), Mode::Conservative);
    // which begins anew when there is a reason in between.
    publish_telemetry_again(&bus, 11).await;
    sampled(20).await;
    take(&mut subscription, 11).await;
    sampled(9).await;
    hands.forward(RECOVERY - Duration::from_millis(1));
    a_round_of_the_sampler(&stand).await;
    assert_eq!(mode(), Mode::Conservative);
    hands.forward(Duration::from_millis(1));
    eventually(async || (mode() == Mode::Normal).then_some(())).await;
    assert_eq!(entered(), 1, "it was one time");
    take(&mut subscription, 9).await;
    bus.settled().await;
}

async fn publish_telemetry_again(bus: &TestBus, count: usize) {
    for number in 0..count {
        bus.publish(unnamed(number)).await;
    }
}

/// Waits until the sampler has begun a round after this moment, and ended it.
async fn a_round_of_the_sampler(stand: &Stand) {
    let samples = || calls(server(stand)).get("zcard").copied().unwrap_or(0);
    // 7 streams in each round, and the next round begins after what follows from the one before.
    let enough = samples() + 3 * 7;
    eventually(async || (samples() >= enough).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_by_backpressure_opens_no_breaker() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|setup| {
        setup.config.stream_length_max = 10;
        setup.config.breaker.failures = 3;
    });
    let mut refused = 0;
    for number in 0..50 {
        let outcome = bus.bus.publish(unnamed(number)).await;
        refused += usize::from(!outcome.is_accepted());
    }
    assert!(refused >= 40, "{refused}");
    assert_eq!(bus.bus.status().publish_breaker, "closed");
    // Nor do a subscriber's failures.
    let mut subscription = bus.join("workers");
    for _ in 0..5 {
        let delivery = next(&mut subscription).await;
        let poison = Nack {
            poison: true,
            ..Nack::default()
        };
        subscription.nack(delivery.id, poison).unwrap();
    }
    bus.dead_letters(5).await;
    let status = bus.bus.status();
    assert_eq!(
        (status.publish_breaker, status.consume_breaker),
        ("closed", "closed")
    );
    // A fault of Redis does.
    stand.server.as_mut().unwrap().kill();
    for number in 0..3 {
        let emergency = draft(EMERGENCY_SIGNAL, number);
        assert!(!bus.bus.publish(emergency).await.is_accepted());
    }
    assert_eq!(bus.bus.status().publish_breaker, "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_has_a_typed_outcome() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|setup| {
        setup.config.stream_length_max = 10;
        setup.config.breaker.failures = 1;
        let rules = json!([{"name": "nobody", "source": "a stranger"}]);
        setup.policy(Kind::Routing, json!({ "rules": rules }));
    });
    // Accepted: where.
    match bus.bus.publish(draft(EMERGENCY_SIGNAL, 1)).await {
        Outcome::Accepted {
            stream,
            id,
            lane,
            reason,
            ..
        } => {
            assert_eq!((&*stream, lane), ("oona.emergency", Lane::Emergency));
            assert!(!reason.is_empty());
            let entry = stand
                .store
                .range(&stream, Some(id.previous().unwrap()), 1)
                .await
                .unwrap();
            assert_eq!(entry[0].id, id, "it is there");
        }
        rejected => panic!("{rejected:?}"),
    }
    // Rejected: by whom, why, and when to try again, if ever.
    let rejected = |outcome: Outcome| match outcome {
        Outcome::Rejected {
            cause,
            retry_after,
            reason,
            ..
        } => {
            assert!(!reason.is_empty());
            (cause, retry_after.is_some())
        }
        accepted => panic!("{accepted:?}"),
    };
    let large = Draft::new(TELEMETRY, vec![0; 1 << 20]);
    assert_eq!(
        rejected(bus.bus.publish(large).await),
        (RejectCause::TooLarge, false)
    );
    let mut invalid = draft(TELEMETRY, 2);
    invalid
        .attributes
        .insert("oona.id".to_owned(), "mine".to_owned());
    assert_eq!(
        rejected(bus.bus.publish(invalid).await),
        (RejectCause::Invalid, false)
    );
    let stranger = Draft {
        source: "a stranger".to_owned(),
        ..draft(TELEMETRY, 5)
    };
    assert_eq!(
        rejected(bus.bus.publish(stranger).await),
        (RejectCause::Policy, false)
    );
    let mut last = bus.bus.publish(unnamed(0)).await;
    for number in 1..=10 {
        if !last.is_accepted() {
            break;
        }
        let low = Draft {
            priority: Some(Priority::Low),
            ..unnamed(number)
        };
        last = bus.bus.publish(low).await;
    }
    assert_eq!(rejected(last), (RejectCause::Backpressure, true));
    stand.server.as_mut().unwrap().kill();
    for _ in 0..2 {
        let outcome = bus.bus.publish(draft(EMERGENCY_SIGNAL, 3)).await;
        assert_eq!(rejected(outcome), (RejectCause::Unavailable, true));
    }
    let late = bus.bus.clone();
    bus.shutdown().await;
    let outcome = late.publish(draft(EMERGENCY_SIGNAL, 4)).await;
    assert_eq!(rejected(outcome), (RejectCause::ShuttingDown, false));
}
