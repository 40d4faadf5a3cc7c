//! The dashboard for Grafana: each of its queries is asked of a real Prometheus that scrapes a real host.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use oona::proto::bus_client::BusClient;
use oona::proto::subscribe_request::Request;
use oona::proto::{Nack, PublishRequest};
use oona_core::envelope::message_type::{EMERGENCY_SIGNAL, TELEMETRY};
use oona_tests::binary::{Host, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::get;
use oona_tests::prometheus::Prometheus;
use oona_tests::stand;
use serde_json::Value;

/// What only a policy that fails, or a stream that overflows, brings about. Of these, docs/metrics.md has to tell,
/// which another test holds to what a host can show.
const RARE: [&str; 2] = ["oona_policy_failures_total", "oona_dropped_total"];

/// In bytes: what gRPC lets pass, and a bus refuses.
const TOO_LARGE: usize = 270_000;

fn dashboard() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana/oona.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What docs/metrics.md says of a metric.
fn documented(metric: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = fs::read_to_string(path).unwrap();
    let row = page
        .lines()
        .find(|line| line.starts_with(&format!("| `{metric}` |")));
    row.unwrap_or_else(|| panic!("no {metric} in {path}"))
        .to_owned()
}

/// A query of a panel, and how its series are called.
#[derive(Debug)]
struct Query {
    panel: String,
    expr: String,
    legend: String,
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let panels = panels.filter(|panel| panel["type"] != "row");
    let of_panel = |panel: &Value| {
        let title = text(&panel["title"]);
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| Query {
            panel: title.clone(),
            expr: text(&target["expr"]),
            legend: text(&target["legendFormat"]),
        })
    };
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let of_variable = |variable: &Value| {
        let query = variable["query"]["query"].as_str()?;
        let inner = query.strip_prefix("label_values(")?.strip_suffix(')')?;
        let (metric, label) = inner.split_once(", ")?;
        Some(Query {
            panel: format!("variable {}", text(&variable["name"])),
            expr: format!("count by ({label}) ({metric})"),
            legend: format!("{{{{{label}}}}}"),
        })
    };
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let of_annotation = |annotation: &Value| Query {
        panel: format!("annotation {}", text(&annotation["name"])),
        // It shows moments at which there is something.
        expr: text(&annotation["expr"]).replace(" > 0", ""),
        legend: text(&annotation["textFormat"]),
    };
    let panels = panels.flat_map(of_panel);
    let others = variables.filter_map(of_variable);
    panels
        .chain(others)
        .chain(annotations.map(of_annotation))
        .collect()
}

/// As Grafana would ask it.
fn filled_in(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "1m");
    expr.replace("$instance", ".*").replace("$stream", ".*")
}

/// The metrics that a query names.
fn metrics(expr: &str) -> BTreeSet<&str> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("oona_")).collect()
}

/// The labels that a legend shows.
fn labels(legend: &str) -> Vec<&str> {
    let parts = legend.split("{{").skip(1);
    parts.map(|part| part.split("}}").next().unwrap()).collect()
}

/// Publishes, again and again: what is taken, what is too large, and more emergencies than a source may have.
async fn publish(address: SocketAddr) {
    let mut bus = BusClient::new(connect(address).await.unwrap());
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    for number in 0_usize.. {
        turns.tick().await;
        let message_type = if number.is_multiple_of(5) {
            EMERGENCY_SIGNAL
        } else {
            TELEMETRY
        };
        let size = if number % 10 == 9 { TOO_LARGE } else { 100 };
        let request = PublishRequest {
            message_type,
            source: "test".to_owned(),
            payload: vec![b'x'; size].into(),
            ..PublishRequest::default()
        };
        drop(bus.publish(request).await);
    }
}

/// Handles most of it, has some tried again, and some not.
async fn handle(address: SocketAddr) {
    let mut subscriber = Subscriber::group(address, "workers", 100_000).await;
    for number in 0_usize.. {
        let delivery_id = subscriber.next().await.id;
        if number % 3 > 0 {
            subscriber.ack(vec![delivery_id]).await;
            continue;
        }
        let nack = Nack {
            delivery_id,
            poison: number.is_multiple_of(2),
            ..Nack::default()
        };
        subscriber.say(Request::Nack(nack)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_finds_what_a_host_shows() {
    let settings = [
        "dead_letters.audit_interval_ms=100",
        "housekeeping.interval_ms=1000",
        "consume.retry_order=block",
    ];
    let settings = settings.iter().flat_map(|setting| ["--set", *setting]);
    let arguments: Vec<_> = ["--dev"].into_iter().chain(settings).collect();
    let host = Host::start(&arguments);
    let address = host.address;
    let prometheus = Prometheus::of(address);
    let traffic = tokio::spawn(async move { tokio::join!(publish(address), handle(address)) });
    assert!(wait_until(|| {
        let told = get(host.address, "/metrics");
        told.text()
            .contains(r#"oona_dead_letter_audit_letters{by="class",name="poison"}"#)
    }));
    stand::ask(
        &host,
        &["dlq", "redrive", "--class", "poison", "--limit", "1"],
    );
    let queries = queries(&dashboard());
    assert!(queries.len() > 40, "{queries:?}");
    for Query {
        panel,
        expr,
        legend,
    } in &queries
    {
        let asked = filled_in(expr);
        for metric in metrics(expr).intersection(&RARE.into()) {
            let row = documented(metric);
            for label in labels(legend) {
                assert!(
                    row.contains(&format!("`{label}`")),
                    "panel `{panel}`: no {label} in {row}"
                );
            }
        }
        let is_rare = !metrics(expr).is_disjoint(&RARE.into());
        let mut found = Vec::new();
        let finds = wait_until(|| {
            found = prometheus.query(&asked).unwrap();
            let numbers = |series: &&Value| series["value"][1] != "NaN";
            is_rare || found.iter().filter(numbers).count() > 0
        });
        assert!(
            finds,
            "panel `{panel}` shows nothing: {asked}: {found:?}\n{}",
            prometheus.log()
        );
        // A message that is refused before it has a stream has none.
        for label in labels(legend) {
            let has = |series: &Value| series["metric"][label].is_string();
            assert!(
                is_rare || found.iter().any(has),
                "panel `{panel}`: no {label} in {found:?}"
            );
        }
    }
    let bounds = "oona_policy_used / oona_policy_budget";
    let bounds = prometheus.query(bounds).unwrap();
    for resource in ["call_seconds", "memory_bytes", "failures"] {
        let has = |series: &Value| series["metric"]["resource"] == resource;
        assert!(bounds.iter().any(has), "no {resource} in {bounds:?}");
    }
    traffic.abort();
    let ended = traffic.await;
    assert!(
        ended.unwrap_err().is_cancelled(),
        "the traffic went on until the end"
    );
}

#[test]
fn every_panel_says_what_it_shows() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        let (columns, rows) = (at("x")..at("x") + at("w"), at("y")..at("y") + at("h"));
        for cell in columns.flat_map(|x| rows.clone().map(move |y| (x, y))) {
            assert!(
                taken.insert(cell),
                "`{}` lies over another panel",
                panel["title"]
            );
        }
        if panel["type"] != "row" {
            assert!(
                panel["description"]
                    .as_str()
                    .is_some_and(|text| text.len() > 10),
                "{panel}"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "instance", "stream"]);
}
