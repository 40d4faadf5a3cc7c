//! Buggy and malicious artifacts of each kind: which gate stops them, and in which words.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use oona::decisions::Recorded;
use oona::gates::{self, Candidate, Gate, Status, Trust};
use oona::record::{Decision, Message, State};
use oona::registry::{Proposal, RegistryError, Use, Wanted};
use oona::signature::{PrivateKey, TrustedKeys};
use oona_core::policy::Kind;
use oona_tests::by_hand::ByHand;
use oona_tests::desk::{Desk, author, keys};
use oona_tests::policies::policy;

/// What is proposed, as which kind, with which configuration; the gate that stops it, and words.
type Case = (&'static str, Bytes, Kind, &'static str, Gate, &'static str);

fn wat(text: &str) -> Bytes {
    wat::parse_str(text).unwrap().into()
}

/// A shipped policy, with a table of cases that it does not pass.
fn with_cases(name: &str, table: &str) -> Bytes {
    let mut component = policy(name);
    // Sections that come later count: this one replaces the table of the build.
    let cases = oona_wasm::Metadata {
        cases: Some(table.to_owned()),
        ..Default::default()
    };
    cases.append(&mut component);
    component.into()
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Gate::{Cases, Component, Config, Laws, Start};
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
        ("emergencies last",        shipped("backpressure"),            Backpressure, r#"{"admission": {"emergency": 0.0, "critical": 0.0, "high": 0.0, "normal": 0.0, "low": 0.0}, "drop_threshold": 0.0}"#, Laws, "it breaks `emergencies-come-first`"),
        ("a law that it breaks",    with_cases("freshness", r#"{"kind": "freshness", "law": [{"name": "all is fresh", "expect": {"verdict": "fresh"}}]}"#), Freshness, "{}", Laws, "it breaks `all is fresh`"),
        ("a law that it breaks",    with_cases("dead-letter", r#"{"kind": "dead-letter", "law": [{"name": "never away", "expect": {"verdict": "retry"}}]}"#), DeadLetter, "{}", Laws, "it breaks `never away`"),
        ("a law that it breaks",    with_cases("backpressure", r#"{"kind": "backpressure", "law": [{"name": "room for all", "expect": {"verdict": "admit"}}]}"#), Backpressure, "{}", Laws, "it breaks `room for all`"),
        ("a case that fails",       with_cases("routing", r#"{"kind": "routing", "case": [{"name": "telemetry", "message": {"type": "telemetry"}, "expect": {"stream": "oona.normal"}}]}"#), Routing, "{}", Cases, "`telemetry` fails: stream: expected \"oona.normal\", got \"oona.telemetry\""),
        ("a case that fails",       with_cases("backpressure", r#"{"kind": "backpressure", "case": [{"name": "full", "state": {"depth": 100000}, "expect": {"verdict": "admit"}}]}"#), Backpressure, "{}", Cases, "`full` fails: verdict: expected \"admit\", got \"reject\""),
        ("a case that fails",       with_cases("freshness", r#"{"kind": "freshness", "case": [{"name": "old", "message": {"expires_in_ms": -1}, "expect": {"verdict": "fresh"}}]}"#), Freshness, "{}", Cases, "`old` fails: verdict: expected \"fresh\", got \"stale\""),
        ("a case that fails",       with_cases("dead-letter", r#"{"kind": "dead-letter", "case": [{"name": "poison", "state": {"failure": "poison"}, "expect": {"verdict": "retry"}}]}"#), DeadLetter, "{}", Cases, "`poison` fails: verdict: expected \"retry\", got \"dead-letter\""),
        ("cases of another kind",   with_cases("routing", r#"{"kind": "freshness", "case": [{"name": "a", "expect": {"verdict": "fresh"}}]}"#), Routing, "{}", Cases, "it is about a freshness policy"),
        ("cases that are none",     with_cases("routing", "nonsense"),  Routing,      "{}", Cases, "its cases.json:1: expected"),
        ("more cases than may be",  with_cases("routing", &" ".repeat(oona_wasm::CASES_BYTES_MAX + 1)), Routing, "{}", Component, "its section `oona:cases` is no text of at most"),
        ("a loop now and then"    , hostile.clone(),                    Routing,      r#"{"mode": "loop", "after": 1}"#, Laws, "it breaks `it-never-fails`"),
        ("a leak",                  hostile.clone(),                    Routing,      r#"{"mode": "grow"}"#, Laws, "it breaks `it-leaks-nothing`"),
        ("a trap now and then"    , hostile,                            Routing,      r#"{"mode": "trap", "after": 1}"#, Laws, "it breaks `it-never-fails`"),
    ]
}

/// The size of a payload that no law generates.
const UNHEARD_OF: u32 = 987_654;

/// The same ways to misbehave, of every kind: what it does, where, and the gate and the words that
/// stop it. What it does stands in the text format of WebAssembly; see [`ByHand`].
#[rustfmt::skip]
fn of_every_kind(kind: Kind) -> Vec<(&'static str, ByHand, Gate, &'static str)> {
    use Gate::{Laws, Start, Trial};
    let good = ByHand::new(kind);
    let call = |call| ByHand { call, ..good };
    let each = |each| ByHand { each, ..good };
    let configure = |configure| ByHand { configure, ..good };
    let hog = "(loop $ever (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br $ever))";
    vec![
        ("a trap at the start",     configure("unreachable"),             Start, "it failed over its configuration: it trapped"),
        ("an endless start",        configure("(loop $ever (br $ever))"), Start, "it took longer than its 100 ms"),
        ("all memory at the start", configure(hog),                       Start, "it went over a bound: it wanted"),
        ("a trap",                  call("unreachable"),                  Start, "it failed its trial: it trapped"),
        ("an endless loop",         call("(loop $ever (br $ever))"),      Start, "it took longer than its 10 ms"),
        ("all memory",              call(hog),                            Start, "it went over a bound: it wanted"),
        ("endless recursion",       call("(drop (call $recurse (i32.const 0)))"), Start, "its stack overflowed"),
        ("an unknown reason",       each("(local.set $reason (i32.const -1))"), Start, "it gave a reason that is no symbol"),
        ("too few answers",         call("(local.set $count (i32.sub (local.get $count) (i32.const 1)))"), Start, "decisions to"),
        ("a trap now and then",     call("(if (local.get $calls) (then unreachable))"), Laws, "it breaks `it-never-fails`"),
        ("a loop now and then",     call("(if (local.get $calls) (then (loop $ever (br $ever))))"), Laws, "it breaks `it-never-fails`"),
        ("another answer each time", call("(if (i32.and (local.get $calls) (i32.const 1)) (then (global.set $reason (global.get $other))))"), Laws, "it breaks `it-is-a-pure-function`"),
        ("a leak",                  call("(drop (memory.grow (i32.const 1)))"), Laws, "it breaks `it-leaks-nothing`"),
        ("a trap on real messages", each("(if (i32.eq (i32.load offset=20 (local.get $message)) (i32.const 987654)) (then unreachable))"), Trial, "it fails on 1 of the last"),
    ]
}

/// For each law of a kind a policy that breaks it.
#[rustfmt::skip]
fn breaches() -> Vec<(&'static str, ByHand)> {
    use Kind::{Backpressure, DeadLetter, Freshness, Routing};
    let each = |kind, each| ByHand { each, ..ByHand::new(kind) };
    let by_priority = "(if (i32.eq (i32.load8_u offset=12 (local.get $message)) (i32.const 4)) (then (local.set $verdict (i32.const 3))))";
    vec![
        ("emergencies-are-routed",      each(Routing, "(local.set $verdict (i32.eq (i32.load8_u offset=12 (local.get $message)) (i32.const 4)))")),
        ("emergencies-come-first",      each(Backpressure, by_priority)),
        ("more-depth-never-admits-more", each(Backpressure, "(if (i64.lt_u (i64.load offset=56 (local.get $message)) (i64.const 100)) (then (local.set $verdict (i32.const 3))))")),
        ("pressure-rises-with-depth",   each(Backpressure, "(local.set $pressure (f32.sub (f32.const 1) (local.get $pressure)))")),
        ("one-age-divides",             each(Freshness, "(if (i64.lt_u (i64.sub (local.get $now) (i64.load offset=32 (local.get $message))) (i64.const 1000)) (then (local.set $verdict (i32.const 1))))")),
        ("the-window-is-exact",         ByHand { schema: r#"{"properties": {"window_ms": {"default": 60000}}}"#, ..ByHand::new(Freshness) }),
        ("a-redelivery-is-no-replay",   each(Freshness, "(if (i32.eq (i32.load8_u offset=48 (local.get $message)) (i32.const 1)) (then (local.set $verdict (i32.const 2))))")),
        ("a-replay-is-refused",         each(Freshness, "(if (i32.eq (i32.load8_u offset=48 (local.get $message)) (i32.const 2)) (then (local.set $verdict (i32.const 0))))")),
        ("retrying-ends",               each(DeadLetter, "(local.set $verdict (i32.const 0))")),
        ("delays-are-bounded",          each(DeadLetter, "(local.set $number (i64.const 604800001))")),
    ]
}

/// What each kind of policy is refused for besides: it is one of another kind, it wants more than its world
/// has, its configuration does not fit, it fails a case of its own.
fn around(kind: Kind, next: Kind) -> Vec<Case> {
    let import = wat(&format!(
        r#"(component
        (import "wasi:filesystem/types@0.2.0" (instance))
        (instance $i) (export "oona:policy/{kind}@0.1.0" (instance $i)))"#
    ));
    let strict = ByHand {
        schema: r#"{"type": "object", "properties": {"y": {}}, "additionalProperties": false}"#,
        ..ByHand::new(kind)
    };
    let mut fails = ByHand::new(kind).component().to_vec();
    let table = format!(
        r#"{{"kind": "{kind}", "case": [{{"name": "own", "expect": {{"reason": "never"}}}}]}}"#
    );
    let cases = oona_wasm::Metadata {
        cases: Some(table),
        ..Default::default()
    };
    cases.append(&mut fails);
    let other = ByHand::new(next).component();
    let words = "`own` fails: reason: expected \"never\", got \"plain\"";
    let expected = "it exports `oona:policy/";
    vec![
        ("another kind", other, kind, "{}", Gate::Component, expected),
        (
            "a foreign import",
            import,
            kind,
            "{}",
            Gate::Component,
            "it imports `wasi:filesystem/types@0.2.0`",
        ),
        (
            "an unknown key",
            strict.component(),
            kind,
            r#"{"x": 1}"#,
            Gate::Config,
            "`/x`",
        ),
        (
            "a case of its own",
            fails.into(),
            kind,
            "{}",
            Gate::Cases,
            words,
        ),
    ]
}

/// Everything that is refused, whatever its kind.
fn everything() -> Vec<(String, Bytes, Kind, &'static str, Gate, String)> {
    let mut all = cases();
    let mut made = Vec::new();
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        all.extend(around(kind, Kind::ALL[(number + 1) % Kind::ALL.len()]));
        for (name, by_hand, gate, words) in of_every_kind(kind) {
            let component = by_hand.component();
            made.push((
                name.to_owned(),
                component,
                kind,
                "{}",
                gate,
                words.to_owned(),
            ));
        }
    }
    for (law, by_hand) in breaches() {
        let (component, words) = (by_hand.component(), format!("it breaks `{law}`"));
        made.push((
            law.to_owned(),
            component,
            by_hand.kind,
            "{}",
            Gate::Laws,
            words,
        ));
    }
    let told = all.into_iter();
    let told = told.map(|(name, component, kind, config, gate, words)| {
        (
            name.to_owned(),
            component,
            kind,
            config,
            gate,
            words.to_owned(),
        )
    });
    told.chain(made).collect()
}

/// A decision on record about a message that no law thinks of.
fn real_message(kind: Kind) -> Recorded {
    Recorded {
        at_ms: 1_700_000_000_000,
        kind,
        message: Message {
            payload_size: Some(UNHEARD_OF),
            ..Message::default()
        },
        state: State::default(),
        decision: Decision::default(),
        policy: String::new(),
        version: String::new(),
        digest: String::new(),
        fault: None,
        took_ns: 0,
        every: 1,
    }
}

#[tokio::test]
async fn one_that_behaves_passes_every_gate() {
    let desk = Desk::strict().await;
    for kind in Kind::ALL {
        let proposal = Proposal {
            wanted: Wanted::Component(ByHand::new(kind).component(), Vec::new()),
            kind: Some(kind),
            config: Some("{}".to_owned()),
            forced: Vec::new(),
            dry_run: true,
        };
        let passed = desk
            .registry
            .propose(proposal, Use::Active, &author())
            .await;
        assert!(passed.is_ok(), "{kind}: {passed:?}");
    }
}

#[tokio::test]
async fn what_nobody_vouches_for_is_stopped_at_the_signature() {
    let desk = Desk::strict().await;
    let [trusted, stranger] = [0; 2].map(|_| PrivateKey::generate().unwrap());
    let trust = Trust {
        keys: TrustedKeys::new(vec![trusted.public()]),
        allow_unsigned: true,
    };
    for kind in Kind::ALL {
        let component = ByHand::new(kind).component();
        let digest = oona_wasm::digest(&component);
        let mut tampered = component.to_vec();
        let note = oona_wasm::Metadata {
            version: Some("9.9.9".to_owned()),
            ..Default::default()
        };
        note.append(&mut tampered);
        let signed = vec![trusted.sign(&digest)];
        let foreign = vec![stranger.sign(&digest)];
        let none = "none of its signatures is by a key";
        let rows = [
            (
                "unsigned",
                &component[..],
                vec![],
                Err("the policy is not signed"),
            ),
            ("by a stranger", &component, foreign, Err(none)),
            ("tampered", &tampered, signed.clone(), Err(none)),
            ("signed", &component, signed, Ok("signed by")),
        ];
        for (name, component, signatures, expected) in rows {
            let candidate = Candidate {
                component,
                kind: Some(kind),
                signatures: &signatures,
                config: Some("{}"),
            };
            let forced = Gate::ALL;
            let passage = gates::pass(desk.bus.policies(), &trust, candidate, &forced);
            let mut reports = passage.gates.iter();
            let report = reports
                .find(|report| report.gate == Gate::Signature)
                .unwrap();
            let (status, words) = match expected {
                Ok(words) => (Status::Passed, words),
                Err(words) => (Status::Failed, words),
            };
            assert_eq!(report.status, status, "{name} of {kind}: {report:?}");
            assert!(
                report.detail.contains(words),
                "{name} of {kind}: {report:?}"
            );
            assert_eq!(
                passage.refusal.is_none(),
                expected.is_ok(),
                "{name} of {kind}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_stopped_at_the_right_gate_in_words_that_say_why() {
    let desk = Desk::strict().await;
    desk.publish("edge", keys(10)).await;
    let before = desk
        .registry
        .history(None, 1)
        .pop()
        .unwrap()
        .change
        .revision;
    for kind in Kind::ALL {
        desk.bus.policies().decisions().record(real_message(kind));
    }
    let mut wrong = Vec::new();
    for (name, component, kind, config, gate, words) in everything() {
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
            wrong.push(format!("{name} of {kind} is in use: {refused:?}"));
            continue;
        };
        for report in &refused.gates {
            let expected = match report.gate.cmp(&gate) {
                std::cmp::Ordering::Less => [Status::Passed, Status::Skipped],
                std::cmp::Ordering::Equal => [Status::Failed; 2],
                std::cmp::Ordering::Greater => [Status::Skipped; 2],
            };
            let in_words = report.gate != gate || report.detail.contains(&words);
            if !expected.contains(&report.status) || !in_words {
                wrong.push(format!("{name} of {kind}: {report:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = desk
        .registry
        .history(None, 1)
        .pop()
        .unwrap()
        .change
        .revision;
    assert_eq!(
        after, before,
        "what is refused leaves nothing in the registry"
    );
    assert_eq!(desk.in_use(), "routing");
}
