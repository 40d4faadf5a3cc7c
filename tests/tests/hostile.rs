//! A policy that misbehaves costs its own calls, and nothing else.
//!
//! Each case is one way to misbehave of the policy in `tests/hostile`. A call that fails is answered
//! by the fail-safe within the bounds; the instance is replaced; over the budget the version goes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use oona_core::Timestamp;
use oona_core::budget::BudgetConfig;
use oona_core::policy::{Decide, Fault, Kind, Lookup, NoText, Route, Routing, Subject};
use oona_tests::policies::{names, policy};
use oona_wasm::{
    Artifact, Engine, EngineConfig, Event, Instance, LoadError, Names, Slot, Source, StartError,
    Version, Worker,
};
use serde_json::json;

/// How long anything may take here. The bounds are milliseconds; the rest is a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

struct Desk {
    engine: Arc<Engine>,
    names: Names,
    hostile: Artifact,
    routing: Artifact,
}

/// Compiled once for all tests.
static DESK: LazyLock<Desk> = LazyLock::new(|| {
    let config = EngineConfig {
        memory_bytes_max: 4 << 20,
        instances_max: 256,
        ..Default::default()
    };
    let engine = Engine::new(config).unwrap();
    let load = |name| Artifact::load(&engine, Kind::Routing, &policy(name)).unwrap();
    let (hostile, routing) = (load("hostile"), load("routing"));
    Desk {
        engine,
        names: names(),
        hostile,
        routing,
    }
});

impl Desk {
    fn version(&self, config: &serde_json::Value) -> Arc<Version<Routing>> {
        Version::new(&self.hostile, &config.to_string(), self.names.clone()).unwrap()
    }

    /// The routing policy that ships, as a component.
    fn good(&self) -> Arc<Version<Routing>> {
        Version::new(&self.routing, "{}", self.names.clone()).unwrap()
    }

    fn slot(&self, failures: u32, events: &Arc<Mutex<Vec<Event>>>) -> Slot<Routing> {
        let native = oona::native::routing("{}", &self.names).unwrap();
        let events = Arc::clone(events);
        let sink = Arc::new(move |event| events.lock().unwrap().push(event));
        let budget = BudgetConfig {
            failures,
            window_ms: 60_000,
        };
        Slot::new(native, budget, sink, now())
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_000)
}

fn ask(policy: &mut Instance<Routing>, count: usize) -> Result<Vec<Route>, Fault> {
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let mut decisions = Vec::new();
    let messages = vec![Subject::default(); count];
    let decided = policy.decide(now(), &(), &messages, &text, &mut decisions);
    assert_eq!(
        Arc::strong_count(&text),
        1,
        "the sandbox holds on to the batch"
    );
    if decided.is_err() {
        assert_eq!(decisions, Vec::new());
    }
    decided.map(|()| decisions)
}

/// Asks a worker about three messages; there are always three decisions.
fn answer(worker: &mut Worker<Routing>) -> oona_wasm::Answer {
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let mut decisions = Vec::new();
    let answer = worker.decide(now(), &(), &[Subject::default(); 3], &text, &mut decisions);
    assert_eq!(decisions.len(), 3);
    answer
}

/// Every way to misbehave while deciding, and what the host calls it. (Rust keeps a stack of its own
/// in the memory of the instance. Recursion ends there before it ends on the host's.)
const WAYS: [(&str, &str); 13] = [
    ("loop", "deadline"),
    ("memory", "bound"),
    ("recursion", "trap"),
    ("trap", "trap"),
    ("huge-answer", "bound"),
    ("too-few", "count"),
    ("too-many", "count"),
    ("unknown-stream", "unknown-stream"),
    ("no-stream", "unknown-stream"),
    ("unknown-reason", "unknown-reason"),
    ("no-reason", "unknown-reason"),
    ("intern", "trap"),
    ("foreign-message", "trap"),
];

#[test]
fn each_way_to_misbehave_is_contained_and_the_instance_replaced() {
    let desk = &*DESK;
    for (mode, name) in WAYS {
        let version = desk.version(&json!({"mode": mode, "after": 1}));
        let mut instance = version.instance().unwrap();
        let begun = Instant::now();
        for round in 0..3 {
            let good = ask(&mut instance, 2);
            assert_eq!(good.map(|good| good.len()), Ok(2), "{mode}, round {round}");
            let fault = ask(&mut instance, 2).unwrap_err();
            assert_eq!(fault.name(), name, "{mode}: {fault}");
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{mode} took {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn what_is_kept_from_call_to_call_comes_to_an_end() {
    let desk = &*DESK;
    let mut instance = desk.version(&json!({"mode": "grow"})).instance().unwrap();
    let fault = (0..1_000).find_map(|_| ask(&mut instance, 1).err());
    assert_eq!(fault.map(|fault| fault.name()), Some("bound"));
    assert!(ask(&mut instance, 1).is_ok());
}

#[test]
fn a_version_that_misbehaves_at_once_is_refused() {
    let desk = &*DESK;
    let events = Arc::default();
    let slot = desk.slot(3, &events);
    slot.activate(&desk.good(), now()).unwrap();
    let mut worker = slot.worker();
    for (mode, name) in WAYS {
        let error = slot
            .activate(&desk.version(&json!({"mode": mode})), now())
            .unwrap_err();
        let StartError::Trial(fault) = error else {
            panic!("{mode}: {error:?}")
        };
        assert_eq!(fault.name(), name, "{mode}: {fault}");
        let answer = answer(&mut worker);
        assert_eq!(
            (answer.by.name.as_str(), answer.fault),
            ("routing", None),
            "{mode}"
        );
    }
    let events = events.lock().unwrap();
    let refused = events
        .iter()
        .filter(|event| matches!(event, Event::Refused { .. }))
        .count();
    assert_eq!(refused, WAYS.len());
}

#[test]
fn a_version_that_misbehaves_while_it_is_configured_is_refused() {
    let desk = &*DESK;
    let ways = [
        ("loop", "deadline"),
        ("memory", "bound"),
        ("recursion", "trap"),
        ("trap", "trap"),
        ("huge-answer", "bound"),
        ("intern", "bound"),
        ("foreign-message", "trap"),
    ];
    for (mode, name) in ways {
        let begun = Instant::now();
        let version = desk.version(&json!({"mode": mode, "at": "configure"}));
        let error = version.instance().unwrap_err();
        let StartError::Configure(fault) = error else {
            panic!("{mode}: {error:?}")
        };
        assert_eq!(fault.name(), name, "{mode}: {fault}");
        assert!(
            begun.elapsed() < PATIENCE,
            "{mode} took {:?}",
            begun.elapsed()
        );
    }
    let refuses = desk.version(&json!({"mode": "refuse", "at": "configure"}));
    let error = refuses.instance().unwrap_err();
    assert_eq!(
        error.to_string(),
        "it refuses its configuration: it was told to refuse"
    );
    assert!(!desk.names.symbols.intern("there is still room").is_none());
}

#[test]
fn failures_are_answered_by_the_last_good_version_and_end_with_it() {
    const BUDGET: u32 = 3;
    let desk = &*DESK;
    for (mode, name) in WAYS {
        let events = Arc::default();
        let slot = desk.slot(BUDGET, &events);
        slot.activate(&desk.good(), now()).unwrap();
        slot.activate(&desk.version(&json!({"mode": mode, "after": 2})), now())
            .unwrap();
        let mut worker = slot.worker();
        let mut faults = 0;
        while slot.status(now()).version.name == "hostile" {
            let answer = answer(&mut worker);
            let expected = if answer.fault.is_some() {
                "routing"
            } else {
                "hostile"
            };
            assert_eq!(answer.by.name, expected, "{mode}");
            assert_eq!(answer.by.source, Source::Wasm, "{mode}");
            faults += u32::from(answer.fault.is_some_and(|fault| fault.name() == name));
        }
        assert_eq!(faults, BUDGET + 1, "{mode}");
        let after = answer(&mut worker);
        assert_eq!(
            (after.by.name.as_str(), after.fault),
            ("routing", None),
            "{mode}"
        );
        let events = events.lock().unwrap();
        let Some(Event::FellBack { from, to, .. }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(
            (from.name.as_str(), to.name.as_str()),
            ("hostile", "routing")
        );
    }
}

#[test]
fn without_a_last_good_version_the_native_build_answers() {
    let desk = &*DESK;
    let events = Arc::default();
    let slot = desk.slot(0, &events);
    slot.activate(&desk.version(&json!({"mode": "trap", "after": 1})), now())
        .unwrap();
    // A worker that joins later starts an instance of its own.
    let mut worker = slot.worker();
    assert_eq!(answer(&mut worker).fault, None);
    let rescued = answer(&mut worker);
    assert_eq!(rescued.by.source, Source::Native);
    assert!(rescued.fault.is_some());
    assert!(slot.current().is_none());
    assert_eq!(answer(&mut worker).fault, None);
}

#[test]
fn what_is_no_policy_is_refused() {
    let load = |bytes: &[u8]| Artifact::load(&DESK.engine, Kind::Freshness, bytes).unwrap_err();
    assert!(matches!(load(b""), LoadError::Empty));
    assert!(matches!(load(b"#!/bin/sh\n"), LoadError::Invalid(_)));
    assert!(matches!(load(b"\0asm\x01\0\0\0"), LoadError::CoreModule));
    let mut torn = policy("freshness");
    torn.truncate(torn.len() / 2);
    assert!(matches!(load(&torn), LoadError::Invalid(_)));
    let error = load(&policy("hostile"));
    let expected = "it exports `oona:policy/routing@0.1.0`, expected `oona:policy/freshness@0.1.0`";
    assert_eq!(error.to_string(), expected);
    let foreign = wat::parse_str(
        r#"(component
            (import "wasi:random/random@0.2.0" (instance (export "get-random-u64" (func (result u64)))))
            (instance $i) (export "oona:policy/freshness@0.1.0" (instance $i)))"#,
    );
    let error = load(&foreign.unwrap());
    assert!(
        error
            .to_string()
            .starts_with("it imports `wasi:random/random@0.2.0`"),
        "{error}"
    );
}

#[test]
fn no_batch_goes_without_an_answer_while_good_and_bad_versions_come_and_go() {
    const WORKERS: usize = 3;
    let desk = &*DESK;
    let events = Arc::default();
    let slot = desk.slot(1, &events);
    let bad = [
        "trap",
        "too-few",
        "unknown-stream",
        "no-reason",
        "huge-answer",
        "grow",
    ];
    let versions: Vec<_> = bad
        .into_iter()
        .flat_map(|mode| {
            [
                desk.version(&json!({"mode": mode, "after": 20})),
                desk.good(),
            ]
        })
        .collect();
    let (answered, rescued) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut worker = slot.worker();
                while !done.load(Ordering::Acquire) {
                    // `answer` insists on a decision for each message.
                    let answer = answer(&mut worker);
                    answered.fetch_add(1, Ordering::Relaxed);
                    rescued.fetch_add(u64::from(answer.fault.is_some()), Ordering::Relaxed);
                }
            });
        }
        for version in versions.iter().chain(&versions) {
            let before = answered.load(Ordering::Relaxed);
            slot.activate(version, now()).unwrap();
            while answered.load(Ordering::Relaxed) < before + 300 {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Release);
    });
    assert!(rescued.load(Ordering::Relaxed) > 0);
    assert_eq!(answer(&mut slot.worker()).by.name, "routing");
    let events = events.lock().unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::FellBack { .. }))
    );
}
