//! The auditor of dead letters: the real binary over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use oona::bus::Nack;
use oona_core::envelope::message_type::{KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_tests::binary::{Host, wait_until};
use oona_tests::bus::{SECRET, Stand, TestBus, draft, next};
use oona_tests::http::get;
use serde_json::Value;
use tokio::time::interval;

const DEAD_LETTERS: &str = "oona.deadletter";

fn host(stand: &Stand, settings: &[&str]) -> Host {
    let url = stand.server.as_ref().unwrap().url();
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<_> = ["--redis", &url].into_iter().chain(settings).collect();
    Host::start_with(&arguments, |command| {
        command.env("ESPER_LEYLINE_SECRET", SECRET);
    })
}

/// Files letters of these types, and one about an entry that is no message, beside `before` that are there.
async fn file(stand: &Stand, bus: &TestBus, before: usize, types: &[u32]) {
    let mut workers = bus.join("workers");
    for (number, message_type) in (before..).zip(types) {
        bus.publish(draft(*message_type, number)).await;
    }
    for _ in types {
        let delivery = next(&mut workers).await;
        let nack = Nack {
            poison: true,
            ..Nack::default()
        };
        workers.nack(delivery.id, nack).unwrap();
    }
    stand.append_raw("oona.normal", b"\xff", None).await;
    bus.dead_letters(before + types.len() + 1).await;
    workers.close();
}

fn audit(host: &Host) -> Value {
    let answer = get(host.address, "/v1/dead-letters/audit");
    if answer.status == 404 {
        return Value::Null;
    }
    answer.json()
}

/// What an audit says once `holds`.
#[track_caller]
fn audited(host: &Host, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_until(|| {
        last = audit(host);
        holds(&last)
    });
    assert!(found, "{last}\n{}", host.log());
    last
}

/// Whether it is known what is usual.
fn has_begun(audit: &Value) -> bool {
    audit["threshold_per_minute"] == 1.0
}

fn estimate(audit: &Value, by: &str, name: &str) -> u64 {
    let mut counts = audit["counts"][by].as_array().unwrap().iter();
    let count = counts.find(|count| count["name"] == name);
    count.map_or(0, |count| count["estimate"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_is_told_by_name_and_shown_by_example() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    let kernels = [KERNEL_PREFETCH_REQUEST; 4];
    file(&stand, &bus, 0, &[&kernels[..], &[TELEMETRY; 3]].concat()).await;
    let host = host(&stand, &["dead_letters.audit_interval_ms=50"]);
    let told = audited(&host, |told| told["length"] == 8);
    assert_eq!((&told["sampled"], &told["foreign"]), (&8.into(), &0.into()));
    for (by, name, count) in [
        ("type", "kernel_prefetch_request", 4),
        ("type", "telemetry", 3),
        ("class", "poison", 7),
        ("class", "unverifiable", 1),
        ("source", "test", 7),
        ("age", "<1m", 8),
        ("age", ">=7d", 0),
    ] {
        assert_eq!(estimate(&told, by, name), count, "{by} {name}: {told}");
    }
    let examples = told["examples"].as_array().unwrap();
    let of_a_message =
        |example: &Value| example["event_id"].as_str().unwrap().starts_with("event-");
    assert_eq!(
        examples
            .iter()
            .filter(|example| of_a_message(example))
            .count(),
        3
    );
    assert_eq!(examples.len(), 4, "three of each reason at most: {told}");
    let id = examples[0]["id"].as_str().unwrap();
    assert!(
        bus.dead_letters(8)
            .await
            .iter()
            .any(|letter| letter.id == id)
    );
    let line = r#"oona_dead_letter_audit_letters{by="class",name="poison"} 7.0"#;
    let exposition = get(host.address, "/metrics");
    assert!(exposition.text().contains(line), "{}", exposition.text());
    // What is redriven or purged is gone from the next audit.
    for letter in bus.dead_letters(8).await {
        stand
            .store
            .remove(&DEAD_LETTERS.into(), &[letter.id.parse().unwrap()])
            .await
            .unwrap();
    }
    audited(&host, |told| {
        told["length"] == 0 && told["examples"] == Value::Array(Vec::new())
    });
    assert!(bus.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rise_is_told_when_it_begins_and_when_it_is_over() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    file(&stand, &bus, 0, &[TELEMETRY; 3]).await;
    let host = host(
        &stand,
        &[
            "dead_letters.audit_interval_ms=50",
            "dead_letters.audit_rise_min=1",
        ],
    );
    // What was there before is none, however much it is.
    audited(&host, |told| {
        told["length"] == 4 && told["rising"] == false && has_begun(told)
    });
    file(&stand, &bus, 4, &[TELEMETRY; 20]).await;
    host.wait_for_log("dead letters rise");
    host.wait_for_log("dead letters are down again");
    audited(&host, |told| {
        told["length"] == 25 && told["rising"] == false
    });
    assert!(bus.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_letters_few_are_read_and_what_is_foreign_is_named() {
    const COPIES: u64 = 600;
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    file(&stand, &bus, 0, &[TELEMETRY]).await;
    // A third is of the one letter, a third of the other, signed and all; a third is no letter.
    let copies = "local real = redis.call('XRANGE', KEYS[1], '-', '+') \
        for number = 1, ARGV[1] do \
          if number % 3 == 0 then redis.call('XADD', KEYS[1], '*', 'what', 'foreign') \
          else redis.call('XADD', KEYS[1], '*', unpack(real[number % 3][2])) end \
        end return 'done'";
    let server = stand.server.as_ref().unwrap();
    let copied: String = server.ask(&["EVAL", copies, "1", DEAD_LETTERS, &COPIES.to_string()]);
    assert_eq!(copied, "done");
    let settings = [
        "dead_letters.audit_interval_ms=50",
        "dead_letters.audit_sample_max=61",
    ];
    let host = host(&stand, &settings);
    let told = audited(&host, |told| told["length"] == COPIES + 2);
    assert_eq!(
        (&told["sampled"], &told["foreign"]),
        (&41.into(), &20.into()),
        "{told}"
    );
    for class in ["poison", "unverifiable"] {
        let estimate = estimate(&told, "class", class);
        assert!((200..=210).contains(&estimate), "{class}: {told}");
    }
    assert!(bus.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_told_not_to_audit_says_so() {
    let stand = Stand::redis();
    let host = host(&stand, &["dead_letters.audit_interval_ms=0"]);
    let answer = get(host.address, "/v1/dead-letters/audit");
    assert_eq!(answer.status, 404);
    assert!(
        answer.text().contains("dead_letters.audit_interval_ms"),
        "{}",
        answer.text()
    );
    let exposition = get(host.address, "/metrics");
    assert!(!exposition.text().contains("oona_dead_letter_audit"));
}

/// Files some fifty letters a second until it is dropped.
async fn keep_filing(bus: TestBus) {
    let mut workers = bus.join("workers");
    let mut turns = interval(Duration::from_millis(20));
    for number in 0.. {
        turns.tick().await;
        bus.publish(draft(TELEMETRY, number)).await;
        let delivery = next(&mut workers).await;
        let nack = Nack {
            poison: true,
            ..Nack::default()
        };
        workers.nack(delivery.id, nack).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rise_fires_an_alert_that_clears_when_it_is_over() {
    let stand = Stand::redis();
    let settings = [
        "dead_letters.audit_interval_ms=500",
        "dead_letters.audit_rise_min=1",
        "alerts.looks=1",
    ];
    let host = host(&stand, &settings);
    audited(&host, has_begun);
    let filing = tokio::spawn(keep_filing(stand.bus(|_| {})));
    let told = |what: &str| {
        let alerts = get(host.address, "/v1/alerts").json();
        let mut recent = alerts["recent"].as_array().unwrap().iter();
        recent.any(|change| change["name"] == "dead_letter_rise" && change["what"] == what)
    };
    assert!(wait_until(|| told("fired")), "{}", host.log());
    filing.abort();
    assert!(filing.await.unwrap_err().is_cancelled());
    assert!(wait_until(|| told("cleared")), "{}", host.log());
}
