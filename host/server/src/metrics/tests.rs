use std::time::Duration;

use oona_core::Timestamp;
use oona_core::policy::Priority;

use super::*;
use crate::latency::{Series, Stage};

fn recorded() -> String {
    let metrics = Metrics::new();
    metrics
        .publishes("oona.normal", PublishOutcome::Accepted, "by type")
        .inc_by(3);
    let series = Series::new("oona.normal".into(), Priority::High, "accepted");
    let mut took = metrics.latencies.of(Stage::Publish, Timestamp::EPOCH);
    took.record(&series, Duration::from_millis(3));
    drop(took);
    metrics
        .deliveries("oona.normal", DeliveryKind::Redelivered)
        .inc();
    metrics.settled("oona.normal", Step::DeadLetter).inc();
    metrics.quarantined("unsigned").inc();
    metrics.trimmed("oona.normal").inc_by(9);
    metrics.stream("oona.normal").depth.set(7);
    metrics.breaker_state("publish").set(1);
    metrics
        .conservative_transitions("conservative", "depth")
        .inc();
    metrics
        .policy_decisions(Kind::DeadLetter, "dead-letter", "0.1.0", "backoff")
        .inc();
    metrics
        .policy_failures(Kind::Routing, "0.2.0", "deadline")
        .inc();
    metrics.policy_call_duration(Kind::Routing).observe(1e-6);
    metrics.emergencies("kasmina", "demoted").inc();
    metrics.store_up.set(1);
    metrics.render()
}

#[test]
fn what_is_recorded_is_exposed() {
    let text = recorded();
    let table = [
        r#"oona_publish_total{stream="oona.normal",outcome="accepted",reason="by type"} 3"#,
        r#"oona_publish_duration_seconds_bucket{le="0.005",stream="oona.normal",priority="high",outcome="accepted"} 1"#,
        r#"oona_deliveries_total{stream="oona.normal",kind="redelivered"} 1"#,
        r#"oona_settled_total{stream="oona.normal",step="dead_letter"} 1"#,
        r#"oona_quarantined_total{reason="unsigned"} 1"#,
        r#"oona_trimmed_total{stream="oona.normal"} 9"#,
        r#"oona_stream_depth{stream="oona.normal"} 7"#,
        r#"oona_breaker_state{breaker="publish"} 1"#,
        r#"oona_conservative_transitions_total{to="conservative",reason="depth"} 1"#,
        r#"oona_policy_failures_total{kind="routing",version="0.2.0",fault="deadline"} 1"#,
        r#"oona_emergency_total{source="kasmina",outcome="demoted"} 1"#,
        "oona_store_up 1",
    ];
    for line in table {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
}

/// Every line is a comment or `name{labels} number`, and every name ends as its type demands.
#[test]
fn the_exposition_parses_and_names_end_well() {
    let text = recorded();
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type has a name");
            assert!(
                kinds.insert(name, kind).is_none(),
                "{name} is declared twice"
            );
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().expect("split yields one at least");
        let kind = kinds
            .iter()
            .rev()
            .find(|(family, _)| name.starts_with(**family));
        let (family, kind) = kind.expect("a sample belongs to a family");
        let endings: &[&str] = match *kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        let suffix = &name[family.len()..];
        assert!(endings.contains(&suffix), "{name} is a {kind}");
    }
    assert!(text.ends_with("# EOF\n"));
    for (name, kind) in kinds {
        assert!(name.starts_with("oona_"), "{name}");
        let timed = name.ends_with("_duration_seconds");
        assert!(
            timed == (kind == "histogram" && name.ends_with("_seconds")),
            "{name}"
        );
    }
}

#[test]
fn a_policy_cannot_grow_the_exposition_without_limit() {
    let metrics = Metrics::new();
    for n in 0..1000 {
        metrics.quarantined(&format!("reason {n}")).inc();
    }
    let text = metrics.render();
    let series = text
        .lines()
        .filter(|line| line.starts_with("oona_quarantined_total"))
        .count();
    assert_eq!(series, LABEL_VALUES_MAX + 1);
    assert!(text.contains(r#"oona_quarantined_total{reason="other"} 936"#));
}

#[test]
fn a_label_cannot_break_its_line() {
    let metrics = Metrics::new();
    metrics.quarantined("a\"b\\c\nd").inc();
    assert!(metrics.render().contains(r#"{reason="a_b_c_d"} 1"#));
    metrics.quarantined(&"é".repeat(100)).inc();
    assert!(
        metrics
            .render()
            .contains(&format!("\"{}\"", "é".repeat(LABEL_LENGTH_MAX / 2)))
    );
}
