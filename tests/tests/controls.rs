//! What an operator takes into his own hands: breakers and the mode, forced and released.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use oona::bus::{ControlError, Operator};
use oona_core::Timestamp;
use oona_core::breaker::Position;
use oona_core::conservative::{Conservative, ConservativeConfig, Signals};
use oona_core::envelope::Message;
use oona_core::envelope::message_type::{EMERGENCY_SIGNAL, TELEMETRY};
use oona_core::force::Forced;
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::policy::{
    AdmissionVerdict, BusState, Candidate, Lookup, Mode, NoText, Priority, Slo,
};
use oona_core::symbols::Symbol;
use oona_tests::binary::{Host, command, text};
use oona_tests::bus::{Stand, TestBus, draft, eventually, next, take};
use oona_tests::http::get;
use oona_tests::policies::names;
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

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
    a_publish_breaker_that_is_forced_open_refuses_all_until_it_is_released
    a_consume_breaker_that_is_forced_open_pauses_all_but_emergencies
    a_forced_mode_holds_until_it_is_released
}

fn ada(message: &str) -> Operator {
    Operator {
        by: "ada".to_owned(),
        message: message.to_owned(),
    }
}

async fn a_publish_breaker_that_is_forced_open_refuses_all_until_it_is_released(stand: Stand) {
    let bus = stand.bus(|_| {});
    let open = Some(Position::Open);
    bus.bus
        .force_breaker("publish", open, ada("the store moves"))
        .unwrap();
    for message_type in [TELEMETRY, EMERGENCY_SIGNAL] {
        match bus.bus.publish(draft(message_type, 1)).await {
            Outcome::Rejected {
                cause: RejectCause::Unavailable,
                reason,
                retry_after: Some(after),
                ..
            } => {
                assert_eq!(&*reason, "breaker-forced-open");
                assert!(after > Duration::ZERO);
            }
            other => panic!("{other:?}"),
        }
    }
    let status = bus.bus.status();
    assert!(!status.ready);
    let why = "the publish breaker is open, forced by ada: the store moves";
    assert!(status.reasons.iter().any(|reason| reason == why));
    // Another host on the same store is not concerned.
    stand.bus(|_| {}).publish(draft(TELEMETRY, 2)).await;
    let released = bus.bus.force_breaker("publish", None, ada("")).unwrap();
    assert_eq!((released.state, released.forced), ("closed", None));
    bus.publish(draft(EMERGENCY_SIGNAL, 3)).await;
    let mut subscription = bus.join("g");
    take(&mut subscription, 2).await;
    bus.settled().await;
}

async fn a_consume_breaker_that_is_forced_open_pauses_all_but_emergencies(stand: Stand) {
    let bus = stand.bus(|_| {});
    let open = Some(Position::Open);
    bus.bus
        .force_breaker("consume", open, ada("handlers are replaced"))
        .unwrap();
    let mut subscription = bus.join("g");
    bus.publish(draft(TELEMETRY, 1)).await;
    bus.publish(draft(EMERGENCY_SIGNAL, 2)).await;
    let urgent = take(&mut subscription, 1).await.remove(0);
    assert_eq!(urgent.message.id, "event-2");
    // The reader of the normal streams has asked by now, and was not let through.
    let paused = tokio::time::timeout(Duration::from_millis(300), subscription.next()).await;
    assert!(paused.is_err(), "{paused:?}");
    bus.bus.force_breaker("consume", None, ada("")).unwrap();
    let usual = take(&mut subscription, 1).await.remove(0);
    assert_eq!(usual.message.id, "event-1");
    bus.settled().await;
}

async fn mode_of(bus: &TestBus, wanted: Mode) {
    eventually(async || (bus.bus.status().mode == wanted).then_some(())).await;
}

async fn a_forced_mode_holds_until_it_is_released(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.stream_length_max = 100;
        setup.config.conservative.high_water = 50;
        setup.config.conservative.low_water = 10;
    });
    bus.bus
        .force_mode(Some(Mode::Normal), ada("a known backlog"))
        .unwrap();
    for number in 0..60 {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    // The machine has seen the depth, and is not in charge.
    eventually(async || (bus.bus.mode().automatic == Mode::Conservative).then_some(())).await;
    let held = bus.bus.mode();
    assert_eq!((held.mode, held.reason), (Mode::Normal, "forced"));
    bus.publish(draft(TELEMETRY, 60)).await;
    let released = bus.bus.force_mode(None, ada("")).unwrap();
    assert_eq!(
        (released.mode, released.reason),
        (Mode::Conservative, "high-water")
    );
    bus.bus
        .force_mode(Some(Mode::Conservative), ada("keep it"))
        .unwrap();
    let mut subscription = bus.join("g");
    take(&mut subscription, 61).await;
    eventually(async || (bus.bus.mode().automatic == Mode::Normal).then_some(())).await;
    assert_eq!(bus.bus.status().mode, Mode::Conservative, "it is held");
    bus.publish(draft(EMERGENCY_SIGNAL, 61)).await;
    next(&mut subscription).await;
    bus.bus.force_mode(None, ada("")).unwrap();
    mode_of(&bus, Mode::Normal).await;
    let text = bus.bus.metrics().render();
    for line in [
        r#"oona_conservative_transitions_total{to="conservative",reason="released"} 1"#,
        r#"oona_conservative_transitions_total{to="normal",reason="released"} 1"#,
        "oona_conservative_forced 0",
        "oona_conservative_mode 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_is_forced_closed_asks_a_store_that_is_down() {
    let mut stand = Stand::redis();
    let bus = stand.bus(|_| {});
    bus.publish(draft(TELEMETRY, 0)).await;
    stand.server.as_mut().unwrap().kill();
    let reason = async || match bus.bus.publish(draft(TELEMETRY, 1)).await {
        Outcome::Rejected { reason, .. } => reason,
        accepted => panic!("{accepted:?}"),
    };
    eventually(async || (&*reason().await == "breaker-open").then_some(())).await;
    let closed = Some(Position::Closed);
    bus.bus
        .force_breaker("publish", closed, ada("I know"))
        .unwrap();
    for _ in 0..4 {
        assert_eq!(&*reason().await, "store-unavailable");
    }
    // Released, it is open as it was, and recovers by itself.
    let released = bus.bus.force_breaker("publish", None, ada("")).unwrap();
    assert_eq!(released.state, "open");
}

#[test]
fn what_cannot_be_forced_is_named() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let bus = Stand::memory().bus(|_| {});
    let unknown = bus.bus.force_breaker("pubish", None, ada(""));
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "there is no breaker `pubish`; there are publish, consume"
    );
    let long = bus
        .bus
        .force_mode(Some(Mode::Normal), ada(&"x".repeat(1_025)));
    assert_eq!(long, Err(ControlError::Message(1_025)));
}

/// A step of a bus: time that goes by, depth of the normal stream, depth of the emergency stream, tokens
/// left, whether a breaker is open, and what an operator does.
type Step = (u64, u64, u64, u32, bool, Option<Option<Mode>>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let forced = prop::option::weighted(
        0.1,
        prop_oneof![
            Just(None),
            Just(Some(Mode::Normal)),
            Just(Some(Mode::Conservative))
        ],
    );
    let step = (
        0u64..30_000,
        0u64..6_000,
        0u64..100_000,
        0u32..120,
        prop::bool::weighted(0.1),
        forced,
    );
    prop::collection::vec(step, 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The mode follows whatever happens, and the shipped policy decides: an emergency goes in all the
    /// same, wherever routing sends it, with a token or without.
    #[test]
    fn an_emergency_always_passes_in_conservative_mode(steps in steps()) {
        let names = names();
        let shipped = oona::native::backpressure("{}", &names).unwrap();
        let mut policy = shipped.policy();
        let symbol = |name| names.symbols.intern(name);
        let (normal, emergency) = (symbol("oona.normal"), symbol("oona.emergency"));
        let message = Message {
            message_type: EMERGENCY_SIGNAL,
            priority: Priority::Emergency,
            ..Message::default()
        };
        let text: Arc<dyn Lookup> = Arc::new(NoText);
        let mut machine = Conservative::new(ConservativeConfig::default());
        let mut now = Timestamp::EPOCH;
        let mut admissions = Vec::new();
        for (wait, depth, emergency_depth, tokens, breaker_open, operator) in steps {
            now = now + Duration::from_millis(wait);
            match operator {
                Some(Some(to)) => drop(machine.force(by_hand(to, now))),
                Some(None) => drop(machine.release()),
                None => {}
            }
            let signals = Signals { depth_max: depth, breaker_open, ..Signals::default() };
            machine.observe(now, signals);
            let state = BusState {
                mode: machine.mode(),
                emergency_stream: emergency,
                emergency_depth,
                emergency_capacity: 100_000,
                normal_stream: normal,
                normal_depth: depth,
                normal_capacity: 100_000,
            };
            let candidates = [normal, emergency].map(|stream| Candidate {
                subject: message.subject(Symbol::NONE),
                stream,
                depth: if stream == normal { depth } else { emergency_depth },
                capacity: 100_000,
                slo: Slo::Violated,
                tokens,
                tokens_max: 120,
                token_wait_ms: 500,
            });
            let decided = policy.decide(now, &state, &candidates, &text, &mut admissions);
            prop_assert!(decided.is_ok());
            for admission in &admissions {
                let passes = matches!(
                    admission.verdict,
                    AdmissionVerdict::Admit | AdmissionVerdict::Reroute { .. }
                );
                prop_assert!(passes, "{:?} in {:?}", admission, state);
            }
        }
    }
}

fn by_hand(to: Mode, at: Timestamp) -> Forced<Mode> {
    Forced {
        to,
        by: "ada".to_owned(),
        message: String::new(),
        at,
    }
}

/// Runs a command against a host: its exit code, its lines, and what it says.
fn oona(host: &Host, arguments: &[&str], token: Option<&str>) -> (i32, Vec<Value>, String) {
    let desk = TempDir::new().unwrap();
    let address = host.address.to_string();
    let shared = ["--server", &address, "--output", "json"];
    let mut command = command(&desk, &[arguments, &shared].concat());
    command.env("USER", "ada");
    if let Some(token) = token {
        command.env("OONA_TOKEN", token);
    }
    let output = command.output().unwrap();
    let lines = text(&output.stdout).lines();
    let lines = lines.map(|line| serde_json::from_str(line).unwrap());
    let said = text(&output.stderr).to_owned();
    (output.status.code().unwrap(), lines.collect(), said)
}

const WHY: [&str; 2] = ["--message", "the store moves"];

/// What the command answers, without a token.
#[track_caller]
fn told(host: &Host, arguments: &[&str]) -> Value {
    let (code, mut lines, said) = oona(host, arguments, None);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    lines.remove(0)
}

#[test]
fn an_operator_forces_a_breaker_from_the_command_line() {
    let host = Host::start(&["--dev"]);
    let told = |arguments: &[&str]| told(&host, arguments);
    let all = oona(&host, &["breaker", "list"], None).1;
    let names: Vec<_> = all.iter().map(|breaker| &breaker["name"]).collect();
    assert_eq!(names, ["publish", "consume"]);

    let open = told(&[&["breaker", "open", "publish"], &WHY[..]].concat());
    assert_eq!(open["state"], "open");
    assert_eq!(open["automatic"], "closed");
    assert_eq!(open["forced"]["message"], "the store moves");
    host.wait_for_log("why=\"the store moves\"");
    let status = get(host.address, "/v1/status").json();
    assert_eq!(status["publish_breaker"], "open");
    let by = status["breakers"][0]["forced"]["by"].as_str().unwrap();
    assert!(by.starts_with("ada"), "{by}");
    let metrics = get(host.address, "/metrics");
    let metrics = metrics.text();
    let forced = r#"oona_breaker_transitions_total{breaker="publish",to="open",reason="forced"} 1"#;
    assert!(metrics.contains(forced), "{metrics}");
    let (code, _, said) = oona(&host, &["publish", "x", "--type", "telemetry"], None);
    assert!(
        code == 1 || said.contains("breaker-forced-open"),
        "{code} {said}"
    );
    assert_eq!(told(&["breaker", "close", "publish"])["state"], "closed");
    assert_eq!(
        told(&["breaker", "release", "publish"])["forced"],
        Value::Null
    );
    let (code, _, said) = oona(&host, &["breaker", "open", "pubish"], None);
    assert!(
        code == 1 && said.contains("there are publish, consume"),
        "{said}"
    );
}

/// On a host of its own: one that refused everything for a while is conservative by itself.
#[test]
fn an_operator_forces_the_mode_from_the_command_line() {
    let host = Host::start(&["--dev"]);
    let told = |arguments: &[&str]| told(&host, arguments);
    assert_eq!(told(&["mode", "show"])["mode"], "normal");
    let held = told(&[&["mode", "conservative"], &WHY[..]].concat());
    assert_eq!(
        (&held["mode"], &held["reason"]),
        (&"conservative".into(), &"forced".into())
    );
    let status = get(host.address, "/v1/status").json();
    assert_eq!(status["mode"], "conservative");
    assert_eq!(
        status["mode_status"]["forced"]["message"],
        "the store moves"
    );
    assert_eq!(told(&["mode", "normal"])["mode"], "normal");
    assert_eq!(told(&["mode", "auto"])["forced"], Value::Null);
}

#[test]
fn looking_and_forcing_are_rights_of_their_own() {
    let desk = TempDir::new().unwrap();
    let tokens = desk.path().join("tokens.toml");
    let token = |name: &str, right: &str| {
        let sha256 = oona_wasm::digest(name.as_bytes());
        format!("[[token]]\nname = '{name}'\nsha256 = '{sha256}'\nrights = ['{right}']\n")
    };
    let rights = [
        token("reader", "bus:read"),
        token("writer", "bus:write"),
        token("author", "policies:write"),
    ];
    fs::write(&tokens, rights.concat()).unwrap();
    let file = format!("access.tokens_file={}", tokens.display());
    let host = Host::start(&["--dev", "--set", &file]);
    for (who, look, force) in [("reader", 0, 1), ("writer", 0, 0), ("author", 1, 1)] {
        for (arguments, code) in [
            (&["breaker", "list"][..], look),
            (&["mode", "show"], look),
            (&["breaker", "close", "consume"], force),
            (&["mode", "auto"], force),
        ] {
            let (told, _, said) = oona(&host, arguments, Some(who));
            assert_eq!(told, code, "{who} {arguments:?}: {said}");
            let right = if arguments.contains(&"list") || arguments.contains(&"show") {
                "bus:read"
            } else {
                "bus:write"
            };
            assert!(code == 0 || said.contains(right), "{said}");
        }
    }
}
