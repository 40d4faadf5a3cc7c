//! Pictures of a bus in the two sizes that most terminals have, word for word.

use std::time::Duration;

use oona_core::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

use super::{draw, line, text};
use crate::cli::top::answer::Answer;
use crate::cli::top::model::{Effect, Event, Key, Model};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn rates(published: f64, delivered: f64) -> Value {
    json!({
        "published_per_s": published,
        "delivered_per_s": delivered,
        "settled_per_s": delivered,
        "depth_per_publish": null,
    })
}

fn stream(name: &str, depth: u64, published: f64) -> Value {
    json!({
        "name": name, "depth": depth, "length": depth, "delayed": 2,
        "oldest_age_ms": (depth > 0).then_some(95_000),
        "rates": rates(published, published / 2.0),
        "groups": [
            { "name": "quick", "lag": 0, "pending": 1, "oldest_age_ms": 5 },
            { "name": "workers-of-the-night", "lag": depth, "pending": 3, "oldest_age_ms": 95_000 },
        ],
    })
}

fn point(depth: u64, published: f64) -> Value {
    let mut point = rates(published, published / 2.0);
    point["at_ms"] = json!(0);
    point["depth"] = json!(depth);
    point
}

fn summary(count: u64, ms: f64) -> Value {
    json!({
        "count": count, "mean_ms": ms, "p50_ms": ms, "p95_ms": ms * 2.0, "p99_ms": ms * 3.0,
        "max_ms": ms * 4.0,
    })
}

fn with(mut value: Value, more: &Value) -> Value {
    let fields = more.as_object().into_iter().flatten();
    for (name, field) in fields {
        value[name] = field.clone();
    }
    value
}

fn policy(kind: &str, candidate: &Value) -> Value {
    let version = |version: &str, source: &str| json!({ "kind": kind, "name": kind, "version": version, "digest": "", "source": source });
    json!({
        "kind": kind, "version": version("0.1.0", "native"), "since_ms": NOW.as_millis(),
        "decisions": 12_345, "failures": 0, "fallback": null, "not_started": null,
        "candidate": with(candidate.clone(), &json!({ "version": version("0.2.0", "wasm") })),
    })
}

/// What a host says that has something of everything.
pub(in crate::cli::top) fn answer() -> Value {
    let trial = json!({
        "mode": { "canary": { "per_mille": 125 } }, "decisions": 1_000, "disagreements": 7, "faults": 0,
    });
    let mut routing = policy("routing", &trial);
    routing["version"]["source"] = json!("wasm");
    let mut policies = vec![routing];
    for kind in ["backpressure", "freshness", "dead-letter"] {
        let mut policy = policy(kind, &json!({}));
        policy["candidate"] = Value::Null;
        policies.push(policy);
    }
    let stages = [
        "publish",
        "queue",
        "policy",
        "append",
        "delivery",
        "handler",
        "end_to_end",
    ];
    let stages = stages.map(|stage| with(summary(1_234, 0.5), &json!({ "stage": stage })));
    let series = with(
        summary(1_234, 12.0),
        &json!({
            "stage": "handler", "stream": "oona.normal", "priority": "high", "outcome": "handler-error",
        }),
    );
    json!({
        "at_ms": NOW.as_millis(), "version": "0.1.0", "span": "1m", "stages": stages,
        "latencies": [series],
        "status": {
            "ready": true, "reasons": ["conservative mode (high-water): low priorities get less room"],
            "store": { "name": "redis", "address": "db:6379", "durable": true, "up": true },
            "mode_status": { "mode": "conservative", "reason": "high-water", "forced": null },
            "breakers": [
                { "name": "publish", "state": "closed", "reason": "started", "forced": null },
                {
                    "name": "consume", "state": "open", "reason": "forced",
                    "forced": { "to": "open", "by": "ada", "message": "repairs", "at_ms": 0 },
                },
            ],
            "streams": [
                stream("oona.normal", 4_321, 123.4),
                stream("oona.emergency", 0, 0.0),
                { "name": "oona.control", "depth": 0, "length": 0, "delayed": 0,
                  "oldest_age_ms": null, "rates": rates(0.0, 0.0), "groups": [] },
                stream("oona.telemetry", 12, 3.0),
                stream("oona.policy", 0, 0.0),
                stream("oona.kernels.requests", 0, 0.0),
                stream("oona.kernels.ready", 0, 0.0),
                stream("oona.kernels.errors", 123_456, 0.04),
            ],
            "policies": policies,
        },
        "trends": {
            "oona.normal": (0..60).map(|n| point(n, f64::from(n as u32))).collect::<Vec<_>>(),
            "oona.telemetry": [point(0, 1.0), point(12, 3.0)],
        },
        "decisions": { "routing": { "type-route": 9_000, "default": 3_000, "rare": 1 } },
        "dead_letters": {
            "length": 3, "error": null,
            "last": {
                "id": "1764000000000-0", "event_id": "order/7", "message_type": 4,
                "detail": "no room in the warehouse", "class": "handler", "reason": "exhausted",
                "failure": "handler-error", "stream": "oona.normal", "group": "workers",
                "age_ms": 240_000,
            },
        },
    })
}

pub(in crate::cli::top) fn parsed(value: Value) -> Box<Answer> {
    serde_json::from_value(value).expect("it is as a host says it")
}

pub(in crate::cli::top) fn model() -> Model {
    let mut model = Model::new("127.0.0.1:7470", Duration::from_secs(1), NOW);
    model.answered(NOW, parsed(answer()));
    model
}

fn press(model: &mut Model, keys: &[Key]) {
    for key in keys {
        assert_eq!(model.update(NOW, Event::Key(*key)), Effect::None);
    }
}

fn picture(model: &Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is in memory");
    let draw = |frame: &mut ratatui::Frame<'_>| draw(model, frame.area(), frame.buffer_mut());
    terminal.draw(draw).expect("it is in memory");
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    (0..buffer.area.height)
        .map(|row| line(buffer, row))
        .collect()
}

fn check(model: &Model, width: u16, height: u16, expected: &str) {
    let found = lines(&picture(model, width, height)).join("\n");
    let expected = expected.trim_matches('\n');
    assert_eq!(found.trim_end(), expected.trim_end(), "\n{found}\n");
}

#[test]
fn a_small_terminal_holds_everything() {
    check(&model(), 80, 24, include_str!("pictures/small.txt"));
}

#[test]
fn a_large_terminal_shows_the_chosen_stream_too() {
    check(&model(), 120, 40, include_str!("pictures/large.txt"));
}

#[test]
fn the_chosen_stream_stays_in_sight() {
    let mut model = model();
    press(&mut model, &[Key::Down; 7]);
    let found = lines(&picture(&model, 80, 20)).join("\n");
    assert!(found.contains("▸ oona.kernels.errors"), "{found}");
    assert!(!found.contains("oona.normal  "), "{found}");
}

#[test]
fn a_stream_tells_its_groups_and_latencies() {
    let mut model = model();
    press(&mut model, &[Key::Enter]);
    check(&model, 80, 24, include_str!("pictures/stream.txt"));
}

#[test]
fn policies_tell_every_reason_and_the_candidate() {
    let mut model = model();
    press(&mut model, &[Key::Previous, Key::Enter]);
    check(&model, 80, 24, include_str!("pictures/policies.txt"));
    press(&mut model, &[Key::Next, Key::Next]);
    let found = lines(&picture(&model, 120, 24)).join("\n");
    assert!(found.contains("handler-error "), "{found}");
    press(&mut model, &[Key::Next]);
    let found = lines(&picture(&model, 120, 24)).join("\n");
    assert!(
        found.contains("redis at db:6379: answers, durable"),
        "{found}"
    );
}

#[test]
fn what_is_old_is_grey_and_says_since_when() {
    let mut model = model();
    model.lost(NOW, "nothing answers".to_owned());
    let later = NOW + Duration::from_secs(90);
    assert_eq!(model.update(later, Event::Tick), Effect::None);
    let buffer = picture(&model, 120, 24);
    let told = " connection lost, no answer since 16:00:00Z (90s), retrying: nothing answers";
    assert_eq!(line(&buffer, 1), told);
    assert!(line(&buffer, 4).contains("oona.normal"), "the figures stay");
    let body = (2..23).flat_map(|row| (0..120).map(move |column| (column, row)));
    for place in body {
        assert_eq!(buffer[place].fg, Color::DarkGray, "{place:?}");
    }
    model.answered(later, parsed(answer()));
    let buffer = picture(&model, 120, 24);
    assert!(line(&buffer, 1).contains("conservative mode (high-water)"));
    assert_ne!(buffer[(4, 4)].fg, Color::DarkGray);
}

#[test]
fn help_names_every_key_and_a_pause_says_so() {
    let mut model = model();
    press(&mut model, &[Key::Pause]);
    let found = lines(&picture(&model, 80, 24)).join("\n");
    assert!(
        found.contains("paused at 2025-11-24T16:00:00Z; p goes on"),
        "{found}"
    );
    press(&mut model, &[Key::Help]);
    let found = lines(&picture(&model, 80, 24)).join("\n");
    for key in ["Enter", "Esc", "Tab", "Ctrl-C", "+ -"] {
        assert!(found.contains(key), "{found}");
    }
}

#[test]
fn what_is_wrong_is_seen() {
    let mut wrong = answer();
    wrong["status"]["ready"] = json!(false);
    wrong["status"]["store"]["up"] = json!(false);
    wrong["dead_letters"] = json!({
        "length": null, "last": null, "lacks": "dead-letters:read", "error": "no route",
    });
    let policy = &mut wrong["status"]["policies"][1];
    policy["fallback"] = json!({
        "from": { "name": "mine", "version": "2", "source": "wasm" }, "fault": "it traps",
    });
    policy["not_started"] = json!("mine.wasm is no component");
    let alert = |name: &str, subject: Value| {
        json!({
            "name": name, "subject": subject, "state": "firing", "severity": "page", "since_ms": 0, "value": 9.0,
            "threshold": 1.0, "unit": "", "reason": "", "advice": "",
        })
    };
    wrong["alerts"] = json!([
        alert("drops", Value::Null),
        alert("queue_depth", json!("oona.normal"))
    ]);
    let mut model = model();
    model.answered(NOW, parsed(wrong));
    let found = lines(&picture(&model, 120, 40)).join("\n");
    for said in [
        "store down",
        "2 alerts: drops, queue_depth oona.normal; ",
        "dead letters: not known",
        "no route",
        "the last one: needs dead-letters:read",
        "instead of mine@2: it traps",
        "mine.wasm is no component",
        "open (forced by ada: repairs)",
    ] {
        assert!(found.contains(said), "no `{said}` in\n{found}");
    }
    let buffer = picture(&model, 120, 40);
    let mut cells = buffer.content().iter();
    assert!(cells.any(|cell| cell.fg == Color::Red && cell.modifier.contains(Modifier::BOLD)));
}

#[test]
fn no_size_and_no_answer_is_too_little() {
    let mut zoomed = model();
    press(&mut zoomed, &[Key::Enter]);
    let empty = Model::new("somewhere", Duration::from_secs(1), NOW);
    for model in [model(), zoomed, empty] {
        for (width, height) in [(1, 1), (2, 3), (20, 5), (40, 10), (79, 12), (300, 100)] {
            assert_eq!(picture(&model, width, height).area.width, width);
        }
        let text = text(&model, 120);
        assert!(text.starts_with(" oona top "), "{text}");
        assert!(!text.contains("q quit"), "{text}");
    }
}
