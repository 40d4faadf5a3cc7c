//! Buggy and malicious artifacts of each kind: which gate stops them, and in which words.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use oona::gates::{Gate, Status};
use oona::registry::{Proposal, RegistryError, Use, Wanted};
use oona_core::policy::Kind;
use oona_tests::desk::{Desk, author, keys};
use oona_tests::policies::policy;

/// What is proposed, as which kind, with which configuration; the gate that stops it, and words.
type Case = (&'static str, Bytes, Kind, &'static str, Gate, &'static str);

fn wat(text: &str) -> Bytes {
    wat::parse_str(text).unwrap().into()
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Gate::{Component, Config, Laws, Start};
    use Kind::{Backpressure, DeadLetter, Freshness, Routing};
    let shipped = |name| Bytes::from(policy(name));
    let hostile = shipped("hostile");
    let half = hostile.slice(..hostile.len() / 2);
    let clock = wat(r#"(component
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))
        (instance $i) (export "oona:policy/freshness@0.1.0" (instance $i)))"#);
    let network = wat(r#"(component
        (import "wasi:sockets/tcp@0.2.0" (instance))
        (instance $i) (export "oona:policy/dead-letter@0.1.0" (instance $i)))"#);
    let hollow = wat(r#"(component (instance $i) (export "oona:policy/backpressure@0.1.0" (instance $i)))"#);
    let other = wat(r#"(component (instance $i) (export "wasi:http/handler@0.2.0" (instance $i)))"#);
    vec![
        ("nothing",                 Bytes::new(),                       Routing,      "{}", Component, "it is empty: no component"),
        ("a text",                  Bytes::from_static(b"#!/bin/sh"),   Routing,      "{}", Component, "it is not a component"),
        ("a core module",           wat("(module)"),                    Backpressure, "{}", Component, "it is a core module"),
        ("half a component",        half,                               Routing,      "{}", Component, "it is not a component"),
        ("another world",           other,                              Routing,      "{}", Component, "none of the four kinds"),
        ("a hollow component",      hollow,                             Backpressure, "{}", Component, "it does not export `describe`"),
        ("a clock",                 clock,                              Freshness,    "{}", Component, "it imports `wasi:clocks/monotonic-clock@0.2.0`"),
        ("the network",             network,                            DeadLetter,   "{}", Component, "it imports `wasi:sockets/tcp@0.2.0`"),
        ("routing as freshness",    shipped("routing"),                 Freshness,    "{}", Component, "expected `oona:policy/freshness@0.1.0`"),
        ("freshness as routing",    shipped("freshness"),               Routing,      "{}", Component, "expected `oona:policy/routing@0.1.0`"),
        ("an unknown key",          shipped("routing"),                 Routing,      r#"{"stream": 1}"#, Config, "`/stream`"),
        ("a wrong type",            shipped("backpressure"),            Backpressure, r#"{"drop_threshold": "high"}"#, Config, "`/drop_threshold`"),
        ("an unknown key",          shipped("freshness"),               Freshness,    r#"{"windows_ms": 1}"#, Config, "`/windows_ms`"),
        ("an unknown key",          shipped("dead-letter"),             DeadLetter,   r#"{"retries": 1}"#, Config, "`/retries`"),
        ("no JSON",                 shipped("routing"),                 Routing,      "{", Config, "is not JSON"),
        ("a misspelt stream",       shipped("routing"),                 Routing,      r#"{"streams": {"normal": "oona.nromal", "emergency": "oona.emergency"}}"#, Start, "a stream that the bus does not have"),
        ("an endless start",        hostile.clone(),                    Routing,      r#"{"mode": "loop", "at": "configure"}"#, Start, "it took longer than its 100 ms"),
        ("a trap at the start",     hostile.clone(),                    Routing,      r#"{"mode": "trap", "at": "configure"}"#, Start, "it trapped"),
        ("all memory at the start", hostile.clone(),                    Routing,      r#"{"mode": "memory", "at": "configure"}"#, Start, "memory"),
        ("an endless loop",         hostile.clone(),                    Routing,      r#"{"mode": "loop"}"#, Start, "it took longer than its 10 ms"),
        ("endless recursion",       hostile.clone(),                    Routing,      r#"{"mode": "recursion"}"#, Start, "it trapped"),
        ("a huge answer",           hostile.clone(),                    Routing,      r#"{"mode": "huge-answer"}"#, Start, "it went over a bound"),
        ("a loop now and then"    , hostile.clone(),                    Routing,      r#"{"mode": "loop", "after": 1}"#, Laws, "it breaks `it-never-fails`"),
        ("a trap now and then"    , hostile,                            Routing,      r#"{"mode": "trap", "after": 1}"#, Laws, "it breaks `it-never-fails`"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_stopped_at_the_right_gate_in_words_that_say_why() {
    let desk = Desk::new().await;
    desk.publish("edge", keys(10)).await;
    let before = desk.registry.history(None, 1).pop().unwrap().0.revision;
    for (name, component, kind, config, gate, words) in cases() {
        let proposal = Proposal {
            wanted: Wanted::Component(component, Vec::new()),
            kind: Some(kind),
            config: Some(config.to_owned()),
            forced: Vec::new(),
            dry_run: false,
        };
        let refused = desk
            .registry
            .propose(proposal, Use::Active, &author())
            .await;
        let Err(RegistryError::Refused(refused)) = refused else {
            panic!("{name} of {kind}: {refused:?}");
        };
        for report in &refused.gates {
            let expected = match report.gate.cmp(&gate) {
                std::cmp::Ordering::Less => [Status::Passed, Status::Skipped],
                std::cmp::Ordering::Equal => [Status::Failed; 2],
                std::cmp::Ordering::Greater => [Status::Skipped; 2],
            };
            assert!(
                expected.contains(&report.status),
                "{name} of {kind}: {report:?}"
            );
        }
        let stopped = refused
            .gates
            .iter()
            .find(|report| report.gate == gate)
            .unwrap();
        assert!(
            stopped.detail.contains(words),
            "{name} of {kind}: {}",
            stopped.detail
        );
    }
    let after = desk.registry.history(None, 1).pop().unwrap().0.revision;
    assert_eq!(
        after, before,
        "what is refused leaves nothing in the registry"
    );
    assert_eq!(desk.in_use(), "routing");
}
