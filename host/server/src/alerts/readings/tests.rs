use oona_core::policy::{Kind as PolicyKind, Mode};
use oona_wasm::Fallback;

use super::super::config::ObjectivesConfig;
use super::*;
use crate::bus::{BreakerStatus, HousekeepingStatus, ModeStatus, StoreStatus, StreamStatus};
use crate::clock;
use crate::config::{Config, Sources};
use crate::latency::Latencies;
use crate::metrics::Metrics;
use crate::policies::{Policies, PolicyOptions, PolicyStatus};

/// Every threshold another number, so that none stands in for another.
const SETTINGS: [&str; 11] = [
    "alerts.looks=7",
    "alerts.depth=50",
    "alerts.depth_clear=20",
    "alerts.reroutes_percent=10",
    "alerts.reroutes_clear_percent=4",
    "alerts.drops_percent=6",
    "alerts.drops_clear_percent=3",
    "alerts.publishes_min=200",
    "alerts.dead_letters_per_minute=60",
    "alerts.dead_letters_clear_per_minute=15",
    "alerts.registry_behind_ms=90000",
];

fn config() -> (ObjectivesConfig, AlertsConfig) {
    let sources = Sources {
        assignments: SETTINGS.map(str::to_owned).into(),
        ..Sources::default()
    };
    let config = Config::assemble(None, &sources).expect("it is a good configuration");
    (config.objectives, config.alerts)
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + second * 1_000)
}

/// Everything well.
fn well() -> BusStatus {
    let mode = ModeStatus {
        mode: Mode::Normal,
        reason: "started",
        automatic: Mode::Normal,
        forced: None,
    };
    BusStatus {
        ready: true,
        reasons: Vec::new(),
        store: StoreStatus {
            name: "memory",
            address: String::new(),
            durable: false,
            up: true,
        },
        mode: Mode::Normal,
        publish_breaker: "closed",
        consume_breaker: "closed",
        breakers: vec![
            breaker("publish", "closed", "started"),
            breaker("consume", "closed", "started"),
        ],
        mode_status: mode,
        streams: vec![stream("a", 0), stream("b", 0)],
        housekeeping: HousekeepingStatus::default(),
        policies: policies(),
    }
}

fn stream(name: &str, depth: u64) -> StreamStatus {
    StreamStatus {
        name: name.to_owned(),
        depth,
        ..StreamStatus::default()
    }
}

fn breaker(name: &str, state: &'static str, reason: &'static str) -> BreakerStatus {
    BreakerStatus {
        name: name.to_owned(),
        state,
        reason,
        automatic: "closed",
        forced: None,
    }
}

fn policies() -> Vec<PolicyStatus> {
    let metrics = Arc::new(Metrics::new());
    let options = PolicyOptions::new(crate::bus::Streams::default(), metrics, clock::system());
    Policies::new(&options).list()
}

/// What one look sees, where all is well but for this.
struct Look {
    status: BusStatus,
    fates: Fates,
    minute_ago: Fates,
    registry_behind: Duration,
    signals: Vec<(&'static str, Signal)>,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            status: well(),
            fates: Fates::default(),
            minute_ago: Fates::default(),
            registry_behind: Duration::ZERO,
            signals: Vec::new(),
        }
    }
}

impl Look {
    fn readings(self) -> Vec<Reading> {
        let (objectives, _) = config();
        self.readings_with(at(0), &Levels::new(&objectives))
    }

    fn readings_with(self, now: Timestamp, levels: &Levels) -> Vec<Reading> {
        let seen = Seen {
            now,
            status: &self.status,
            fates: self.fates,
            minute_ago: self.minute_ago,
            levels,
            registry_behind: self.registry_behind,
            signals: self.signals,
        };
        all(&config().1, &seen)
    }
}

/// The one reading of this name, and of this subject.
#[track_caller]
fn of<'a>(readings: &'a [Reading], name: &str, subject: Option<&str>) -> &'a Reading {
    let mut found = readings
        .iter()
        .filter(|it| it.kind.name == name && it.subject.as_deref() == subject);
    let reading = found.next().expect("it is read");
    assert!(found.next().is_none(), "{name} {subject:?} is read once");
    reading
}

/// A reading: over what it fires, under what it is over, its value, its unit.
type Row<'a> = (f64, f64, f64, &'a str);

fn row(reading: &Reading) -> Row<'_> {
    let Rule {
        fires_over,
        clears_under,
        looks,
    } = reading.rule;
    assert_eq!(looks, 7, "{}", reading.kind.name);
    (fires_over, clears_under, reading.value, reading.unit)
}

#[test]
fn everything_is_read_whether_it_fires_or_not() {
    let readings = Look::default().readings();
    let read = readings
        .iter()
        .map(|it| (it.kind.name, it.subject.as_deref().unwrap_or("-")));
    let expected = [
        ("reroutes", "-"),
        ("drops", "-"),
        ("queue_depth", "a"),
        ("queue_depth", "b"),
        ("breaker_open", "publish"),
        ("breaker_open", "consume"),
        ("dead_letter_rate", "-"),
        ("stale_policy", "routing"),
        ("stale_policy", "backpressure"),
        ("stale_policy", "freshness"),
        ("stale_policy", "dead-letter"),
        ("stale_policy", "registry"),
        ("budget_burn_fast", "publish_latency"),
        ("budget_burn_fast", "delivery_latency"),
        ("budget_burn_fast", "reliability"),
        ("budget_burn_fast", "drop_rate"),
        ("budget_burn_fast", "recovery"),
        ("budget_burn_slow", "publish_latency"),
        ("budget_burn_slow", "delivery_latency"),
        ("budget_burn_slow", "reliability"),
        ("budget_burn_slow", "drop_rate"),
        ("budget_burn_slow", "recovery"),
        ("dead_letter_rise", "-"),
    ];
    assert_eq!(read.collect::<Vec<_>>(), expected);
    for reading in &readings {
        assert_eq!(reading.value, 0.0, "{}", reading.kind.name);
        assert!(reading.rule.clears_under <= reading.rule.fires_over);
    }
}

#[test]
fn each_asks_for_whom_it_should() {
    let readings = Look::default().readings();
    let table = [
        ("reroutes", Severity::Ticket),
        ("drops", Severity::Page),
        ("queue_depth", Severity::Page),
        ("breaker_open", Severity::Page),
        ("dead_letter_rate", Severity::Ticket),
        ("stale_policy", Severity::Ticket),
        ("budget_burn_fast", Severity::Page),
        ("budget_burn_slow", Severity::Ticket),
        ("dead_letter_rise", Severity::Ticket),
    ];
    for (name, severity) in table {
        let mut those = readings.iter().filter(|it| it.kind.name == name);
        assert!(those.all(|it| it.kind.severity == severity), "{name}");
    }
}

#[test]
fn shares_are_of_the_last_minute_in_percent() {
    let fates = |accepted, rerouted, refused| Fates {
        accepted,
        rerouted,
        refused,
        ..Fates::default()
    };
    // What was counted a minute ago, and now; how many percent were rerouted, and refused.
    let table = [
        (fates(0, 0, 0), fates(0, 0, 0), 0.0, 0.0),
        (fates(0, 0, 0), fates(400, 100, 100), 25.0, 20.0),
        // What was before does not count.
        (fates(900, 800, 700), fates(1_300, 820, 1_100), 5.0, 50.0),
        // Of fewer than 200 accepted, or publishes, nothing is said.
        (fates(0, 0, 0), fates(199, 100, 0), 0.0, 0.0),
        (fates(0, 0, 0), fates(199, 100, 1), 0.0, 0.5),
        (fates(0, 0, 0), fates(200, 100, 0), 50.0, 0.0),
        (fates(0, 0, 0), fates(0, 0, 200), 0.0, 100.0),
        // A count that went back says nothing.
        (fates(900, 800, 700), fates(400, 100, 100), 0.0, 0.0),
    ];
    for (minute_ago, fates, rerouted, refused) in table {
        let look = Look {
            fates,
            minute_ago,
            ..Look::default()
        };
        let readings = look.readings();
        let reroutes = row(of(&readings, "reroutes", None));
        assert_eq!(reroutes, (10.0, 4.0, rerouted, "percent"), "{fates:?}");
        let drops = row(of(&readings, "drops", None));
        assert_eq!(drops, (6.0, 3.0, refused, "percent"), "{fates:?}");
    }
    let look = Look {
        fates: fates(400, 100, 50),
        ..Look::default()
    };
    let readings = look.readings();
    let reason = |name| &*of(&readings, name, None).reason;
    assert_eq!(
        [reason("reroutes"), reason("drops")],
        [
            "100 of 400 publishes of the last minute were rerouted",
            "50 of 450 publishes of the last minute were refused",
        ]
    );
}

#[test]
fn each_stream_has_its_depth() {
    let mut status = well();
    status.streams = vec![stream("a", 51), stream("b", 4)];
    let readings = Look {
        status,
        ..Look::default()
    }
    .readings();
    let table = [("a", 51.0), ("b", 4.0)];
    for (name, depth) in table {
        let reading = of(&readings, "queue_depth", Some(name));
        assert_eq!(row(reading), (50.0, 20.0, depth, "messages"));
        assert_eq!(
            reading.reason,
            format!("{depth} messages of {name} are not finished")
        );
    }
}

#[test]
fn a_breaker_on_trial_is_neither_open_nor_well() {
    let table = [
        ("closed", "trials-passed", 0.0),
        ("half-open", "waited", 0.5),
        ("open", "failures", 1.0),
    ];
    for (state, reason, value) in table {
        let mut status = well();
        status.breakers[1] = breaker("consume", state, reason);
        let readings = Look {
            status,
            ..Look::default()
        }
        .readings();
        let reading = of(&readings, "breaker_open", Some("consume"));
        let (over, under, found, unit) = row(reading);
        assert_eq!((found, unit), (value, "flag"), "{state}");
        assert_eq!(found > over, state == "open", "{state} fires");
        assert_eq!(found < under, state == "closed", "{state} is over");
        assert_eq!(
            reading.reason,
            format!("the consume breaker is {state} ({reason})")
        );
        let other = of(&readings, "breaker_open", Some("publish"));
        assert_eq!(other.value, 0.0, "{state}");
    }
}

#[test]
fn dead_letters_are_those_of_the_last_minute() {
    let fates = |dead_lettered| Fates {
        dead_lettered,
        acknowledged: 9_000,
        discarded: 500,
        ..Fates::default()
    };
    for (before, now, count) in [(0, 61, 61), (100, 161, 61), (161, 100, 0)] {
        let readings = Look {
            fates: fates(now),
            minute_ago: fates(before),
            ..Look::default()
        }
        .readings();
        let reading = of(&readings, "dead_letter_rate", None);
        let expected = (60.0, 15.0, f64::from(count), "letters a minute");
        assert_eq!(row(reading), expected, "from {before} to {now}");
        assert_eq!(
            reading.reason,
            format!("{count} messages of the last minute became dead letters")
        );
    }
}

#[test]
fn a_policy_is_stale_if_it_was_taken_out_or_did_not_start() {
    let policies = policies();
    let routing = &policies[0];
    assert_eq!(routing.kind, PolicyKind::Routing);
    let version = &routing.slot.version;
    let fallback = Some(Fallback {
        from: Arc::clone(version),
        fault: "it trapped".to_owned(),
    });
    let not_started = Some("mine.wasm is no component".to_owned());
    let taken_out = format!("the routing policy {version} was taken out: it trapped");
    let table = [
        (
            None,
            None,
            0.0,
            "the routing policy in use is the one that was chosen",
        ),
        (fallback.clone(), None, 1.0, &*taken_out),
        (
            None,
            not_started.clone(),
            1.0,
            "the routing policy did not start: mine.wasm is no component",
        ),
        (fallback, not_started, 1.0, &*taken_out),
    ];
    for (fallback, not_started, value, reason) in table {
        let mut status = well();
        status.policies[0].slot.fallback = fallback;
        status.policies[0].not_started = not_started;
        let readings = Look {
            status,
            ..Look::default()
        }
        .readings();
        let reading = of(&readings, "stale_policy", Some("routing"));
        assert_eq!(row(reading), (0.5, 0.5, value, "flag"), "{reason}");
        assert_eq!(reading.reason, reason);
        for other in ["backpressure", "freshness", "dead-letter", "registry"] {
            let other = of(&readings, "stale_policy", Some(other));
            assert_eq!(other.value, 0.0, "{reason}");
        }
    }
}

#[test]
fn a_host_behind_the_registry_is_so_in_seconds() {
    for (ms, seconds, whole) in [(0, 0.0, 0), (1_500, 1.5, 1), (91_000, 91.0, 91)] {
        let readings = Look {
            registry_behind: Duration::from_millis(ms),
            ..Look::default()
        }
        .readings();
        let reading = of(&readings, "stale_policy", Some("registry"));
        assert_eq!(row(reading), (90.0, 45.0, seconds, "seconds"));
        let start = format!("for {whole} s this host does not do what the registry");
        assert!(reading.reason.starts_with(&start), "{}", reading.reason);
        let routing = of(&readings, "stale_policy", Some("routing"));
        assert_eq!(routing.value, 0.0);
    }
}

/// Objectives after minutes in which nothing was lost, and an hour in which so many of 1000 messages a minute were.
fn burning(quiet: u64, lost: u64) -> (Levels, Timestamp) {
    let mut levels = Levels::new(&config().0);
    let mut fates = Fates::default();
    for minute in 0..quiet + 60 {
        let lost = if minute < quiet { 0 } else { lost };
        fates.dead_lettered += lost;
        fates.acknowledged += 1_000 - lost;
        levels.take_in(at(minute * 60), &Latencies::default(), fates, None);
    }
    (levels, at((quiet + 59) * 60))
}

#[test]
fn a_budget_burns_fast_or_slowly() {
    // For how many minutes nothing was lost, and then how many of 1000 messages, where 10 may be; what the page reads,
    // in times of its limit, and why; what the ticket reads.
    let table = [
        (
            0,
            144,
            2.4,
            "14.4 times as fast as it may, over 6h and 30m; the limit is 6.0",
            14.4,
        ),
        (
            0,
            15,
            0.25,
            "1.5 times as fast as it may, over 6h and 30m; the limit is 6.0",
            1.5,
        ),
        (
            300,
            288,
            2.0,
            "28.8 times as fast as it may, over 1h and 5m; the limit is 14.4",
            4.8,
        ),
        (
            300,
            72,
            0.5,
            "7.2 times as fast as it may, over 1h and 5m; the limit is 14.4",
            1.2,
        ),
    ];
    for (quiet, lost, page, why, ticket) in table {
        let (levels, now) = burning(quiet, lost);
        let readings = Look::default().readings_with(now, &levels);
        let read = |name, value: f64| {
            let reading = of(&readings, name, Some("reliability"));
            let (over, under, found, unit) = row(reading);
            assert_eq!((over, under, unit), (1.0, 1.0, "times the limit"));
            assert!((found - value).abs() < 0.001, "{name} of {lost}: {found}");
            &*reading.reason
        };
        assert_eq!(
            read("budget_burn_fast", page),
            format!("the error budget of reliability burns {why}")
        );
        let slow = read("budget_burn_slow", ticket);
        assert!(slow.ends_with("over 3d and 6h; the limit is 1.0"), "{slow}");
        for other in ["publish_latency", "drop_rate", "recovery"] {
            let other = of(&readings, "budget_burn_fast", Some(other));
            assert_eq!(other.value, 0.0, "{lost}");
        }
    }
}

#[test]
fn what_burned_before_calls_nobody_and_is_still_looked_at() {
    let (mut levels, _) = burning(0, 500);
    let mut fates = Fates {
        dead_lettered: 30_000,
        acknowledged: 30_000,
        ..Fates::default()
    };
    for minute in 60..100 {
        fates.acknowledged += 1_000;
        levels.take_in(at(minute * 60), &Latencies::default(), fates, None);
    }
    let readings = Look::default().readings_with(at(99 * 60), &levels);
    let value = |name| of(&readings, name, Some("reliability")).value;
    assert_eq!(value("budget_burn_fast"), 0.0);
    assert_eq!(value("budget_burn_slow").round(), 30.0);
}

#[test]
fn others_say_what_they_see_of_the_alerts_that_there_are() {
    let signal = |value, reason: &str| Signal {
        value,
        reason: reason.to_owned(),
    };
    let table = [
        (vec![], 0.0, "nothing was said of it yet"),
        (
            vec![
                ("nonsense", signal(9.0, "nobody knows it")),
                ("dead_letter_rise", signal(1.0, "more than usual")),
            ],
            1.0,
            "more than usual",
        ),
    ];
    for (signals, value, reason) in table {
        let readings = Look {
            signals,
            ..Look::default()
        }
        .readings();
        let reading = of(&readings, "dead_letter_rise", None);
        assert_eq!(row(reading), (0.5, 0.5, value, "flag"));
        assert_eq!(reading.reason, reason);
        assert!(readings.iter().all(|it| it.kind.name != "nonsense"));
    }
}
