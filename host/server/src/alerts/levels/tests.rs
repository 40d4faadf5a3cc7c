use std::time::Duration;

use oona_core::policy::Priority;

use super::*;
use crate::config::{Config, Sources};
use crate::latency::Series;

fn levels(assignments: &[&str]) -> Levels {
    let sources = Sources {
        assignments: assignments.iter().map(|text| (*text).to_owned()).collect(),
        ..Sources::default()
    };
    let config = Config::assemble(None, &sources).expect("it is a good configuration");
    Levels::new(&config.objectives)
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + second * 1_000)
}

/// Good and all events of an objective.
fn events(levels: &Levels, now: Timestamp, name: ObjectiveName) -> (u64, u64) {
    let status = levels.status(now);
    let found = status.iter().find(|it| it.name == name.name());
    let found = found.expect("each is told");
    (found.good, found.total)
}

#[test]
fn latencies_count_for_whom_they_were_promised() {
    let latencies = Latencies::default();
    let mut levels = levels(&[]);
    let table = [
        (Stage::Publish, "accepted", 20, 7),
        (Stage::Publish, "accepted", 30, 2),
        (Stage::Publish, "rejected", 900, 5),
        (Stage::Delivery, "first", 90, 3),
        (Stage::Delivery, "first", 200, 4),
        (Stage::Delivery, "redelivered", 9_000, 5),
    ];
    for (stage, outcome, ms, count) in table {
        let series = Series::new("a".into(), Priority::Normal, outcome);
        let all = vec![series; count];
        latencies
            .of(stage, at(0))
            .record_alike(&all, Duration::from_millis(ms));
    }
    // What was counted once is not counted again.
    for second in 0..3 {
        levels.take_in(at(second), &latencies, Fates::default(), None);
    }
    assert_eq!(
        events(&levels, at(3), ObjectiveName::PublishLatency),
        (7, 9)
    );
    assert_eq!(
        events(&levels, at(3), ObjectiveName::DeliveryLatency),
        (3, 7)
    );
}

#[test]
fn what_became_of_messages_counts() {
    let mut levels = levels(&[]);
    let fates = Fates {
        accepted: 90,
        rerouted: 3,
        refused: 10,
        refused_by_faults: 4,
        acknowledged: 80,
        dead_lettered: 3,
        discarded: 2,
        removed: 1,
    };
    levels.take_in(at(0), &Latencies::default(), fates, None);
    assert_eq!(events(&levels, at(0), ObjectiveName::Reliability), (80, 90));
    assert_eq!(events(&levels, at(0), ObjectiveName::DropRate), (90, 100));
}

#[test]
fn an_outage_counts_once_it_lasts_too_long() {
    let mut levels = levels(&["objectives.recovery_ms=3000"]);
    let outages = [
        None,
        Some(0),
        Some(2_999),
        None,
        Some(3_000),
        Some(9_000),
        None,
    ];
    for (second, outage) in (0..).zip(outages) {
        let outage = outage.map(Duration::from_millis);
        levels.take_in(at(second), &Latencies::default(), Fates::default(), outage);
    }
    assert_eq!(events(&levels, at(6), ObjectiveName::Recovery), (5, 7));
}

#[test]
fn an_outage_that_may_not_last_counts_at_once() {
    let mut levels = levels(&["objectives.recovery_ms=0"]);
    for (second, outage) in (0..).zip([None, Some(Duration::ZERO), None]) {
        levels.take_in(at(second), &Latencies::default(), Fates::default(), outage);
    }
    assert_eq!(events(&levels, at(2), ObjectiveName::Recovery), (2, 3));
}

#[test]
fn load_is_shed_for_the_objectives_that_are_named() {
    let fates = Fates {
        dead_lettered: 100,
        acknowledged: 900,
        ..Fates::default()
    };
    let table: [(&[&str], bool); 5] = [
        (&[], false),
        (&["objectives.shed_for=publish_latency,reliability"], true),
        (
            &[
                "objectives.shed_for=reliability",
                "objectives.events_min=1001",
            ],
            false,
        ),
        (
            &[
                "objectives.shed_for=reliability",
                "objectives.budget_low_percent=0",
            ],
            false,
        ),
        (
            &[
                "objectives.shed_for=reliability",
                "objectives.reliability_per_mille=800",
            ],
            false,
        ),
    ];
    for (assignments, expected) in table {
        let mut levels = levels(assignments);
        let early = Fates {
            acknowledged: 900,
            ..Fates::default()
        };
        levels.take_in(at(0), &Latencies::default(), early, None);
        levels.take_in(at(3_599), &Latencies::default(), fates, None);
        assert!(!levels.is_budget_low(at(3_599)), "{assignments:?}");
        assert_eq!(levels.is_budget_low(at(3_600)), expected, "{assignments:?}");
    }
}

#[test]
fn an_objective_that_shedding_spends_is_refused() {
    for name in ["drop_rate", "nonsense"] {
        let sources = Sources {
            assignments: vec![format!("objectives.shed_for={name}")],
            ..Sources::default()
        };
        let error = Config::assemble(None, &sources).expect_err("it is refused");
        let error = error.to_string();
        assert!(
            error.contains(&format!("`{name}` is no objective to shed load for")),
            "{error}"
        );
        assert!(
            error.contains("publish_latency, delivery_latency, reliability, recovery"),
            "{error}"
        );
    }
}
