//! What a host shows of itself, from outside: the real binary, and figures that agree wherever they are told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use oona::proto::PublishRequest;
use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::{Nack, PublishResponse};
use oona_tests::binary::{Host, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::{get, get_openmetrics, get_with};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const TELEMETRY: u32 = 4;

const EMERGENCY: u32 = 10;

async fn publish(address: SocketAddr, message_type: u32, payload: &str) -> PublishResponse {
    let mut bus = BusClient::new(connect(address).await.unwrap());
    let request = PublishRequest {
        message_type,
        source: "test".to_owned(),
        payload: payload.as_bytes().to_vec().into(),
        ..PublishRequest::default()
    };
    bus.publish(request).await.unwrap().into_inner()
}

fn is_accepted(response: &PublishResponse) -> bool {
    matches!(response.outcome, Some(Outcome::Accepted(_)))
}

/// How many values each series of `/v1/latency` has: by stage, stream, priority and outcome.
fn counts(address: SocketAddr, span: &str) -> BTreeMap<[String; 4], u64> {
    let answer = get(address, &format!("/v1/latency?span={span}")).json();
    assert_eq!(answer["span"], span);
    let series = answer["latencies"].as_array().unwrap().iter();
    series
        .map(|series| {
            let labels = ["stage", "stream", "priority", "outcome"];
            let labels = labels.map(|label| series[label].as_str().unwrap().to_owned());
            (labels, series["count"].as_u64().unwrap())
        })
        .collect()
}

/// The value of a label in a line of the exposition.
fn label<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split(&format!("{name}=\"")).nth(1).unwrap();
    rest.split('"').next().unwrap()
}

/// The `_count` of each latency histogram of `/metrics`, as [`counts`] tells them.
fn exposed(address: SocketAddr) -> BTreeMap<[String; 4], u64> {
    let names = [
        ("publish", "publish"),
        ("queue", "publish_queue"),
        ("policy", "publish_policy"),
        ("append", "publish_append"),
        ("delivery", "delivery"),
        ("handler", "handler"),
        ("end_to_end", "end_to_end"),
    ];
    let exposition = get(address, "/metrics");
    let mut counts = BTreeMap::new();
    for (stage, name) in names {
        let start = format!("oona_{name}_duration_seconds_count{{");
        let lines = || exposition.text().lines();
        let unbounded = format!("oona_{name}_duration_seconds_bucket{{le=\"+Inf\"");
        for line in lines().filter(|line| line.starts_with(&start)) {
            assert!(lines().any(|line| line.starts_with(&unbounded)), "{stage}");
            let labels = ["stream", "priority", "outcome"].map(|name| label(line, name).to_owned());
            let [stream, priority, outcome] = labels;
            let count = line.rsplit(' ').next().unwrap().parse().unwrap();
            counts.insert([stage.to_owned(), stream, priority, outcome], count);
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_timed_and_told_alike_everywhere() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 100).await;
    for number in 0..5 {
        assert!(is_accepted(
            &publish(address, TELEMETRY, &number.to_string()).await
        ));
    }
    assert!(is_accepted(&publish(address, EMERGENCY, "halt").await));
    let mut refused = None;
    for _ in 0..6 {
        let delivery = subscriber.next().await;
        if refused.is_none() && delivery.stream == "oona.telemetry" {
            refused = Some(delivery.id);
            let nack = Nack {
                delivery_id: delivery.id,
                ..Nack::default()
            };
            subscriber.say(Request::Nack(nack)).await;
        } else {
            subscriber.ack(vec![delivery.id]).await;
        }
    }
    let again = subscriber.next().await;
    assert!(again.redelivered);
    subscriber.ack(vec![again.id]).await;
    let expected = [
        (["publish", "oona.telemetry", "normal", "accepted"], 5),
        (["publish", "oona.emergency", "emergency", "accepted"], 1),
        (["queue", "oona.telemetry", "normal", "accepted"], 5),
        (["policy", "oona.telemetry", "normal", "accepted"], 5),
        (["append", "oona.telemetry", "normal", "accepted"], 5),
        (["delivery", "oona.telemetry", "normal", "first"], 5),
        (["delivery", "oona.telemetry", "normal", "redelivered"], 1),
        (["delivery", "oona.emergency", "emergency", "first"], 1),
        (["handler", "oona.telemetry", "normal", "ack"], 5),
        (["handler", "oona.telemetry", "normal", "handler-error"], 1),
        (["handler", "oona.emergency", "emergency", "ack"], 1),
        (["end_to_end", "oona.telemetry", "normal", "ack"], 5),
        (["end_to_end", "oona.emergency", "emergency", "ack"], 1),
    ];
    let expected: BTreeMap<_, _> = expected
        .map(|(labels, count)| (labels.map(str::to_owned), count))
        .into();
    // A message is acknowledged when the store has confirmed that.
    let all = || {
        let told = counts(address, "start");
        expected
            .iter()
            .all(|(labels, count)| told.get(labels) == Some(count))
    };
    assert!(wait_until(all), "{:#?}", counts(address, "start"));
    assert_eq!(counts(address, "start"), exposed(address));
    assert_eq!(counts(address, "1h"), counts(address, "start"));
    let known = get(address, "/v1/latency?span=2m");
    assert_eq!(known.status, 400);
    assert!(
        known.text().contains("1m, 5m, 1h, start"),
        "{}",
        known.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_tells_what_it_holds_and_how_old_the_oldest_is() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 1).await;
    for number in 0..3 {
        assert!(is_accepted(
            &publish(address, TELEMETRY, &number.to_string()).await
        ));
    }
    subscriber.next().await;
    let queue = || -> Value {
        let queues = get(address, "/debug/queues").json();
        let mut queues = queues.as_array().unwrap().iter();
        queues
            .find(|queue| queue["name"] == "oona.telemetry")
            .unwrap()
            .clone()
    };
    // The samples are taken now and then, and the rates need two.
    let is_told = || {
        let queue = queue();
        let group = &queue["groups"][0];
        let oldest = group["oldest_age_ms"].as_u64();
        queue["depth"] == 3
            && oldest > Some(0)
            && queue["oldest_age_ms"].as_u64() >= oldest
            && queue["rates"]["published_per_s"].as_f64() > Some(0.0)
            && queue["trend"]
                .as_array()
                .is_some_and(|trend| !trend.is_empty())
    };
    assert!(wait_until(is_told), "{:#}", queue());
    assert_eq!(queue()["groups"][0]["name"], "workers");
    // Both are sampled, one more often than the other.
    let agree = || {
        let exposition = get(address, "/metrics");
        let gauge = |name: &str| -> Option<f64> {
            let start = format!(
                r#"oona_consumer_group_{name}{{stream="oona.telemetry",group="workers"}} "#
            );
            let mut lines = exposition.text().lines();
            lines.find_map(|line| line.strip_prefix(&start)?.parse().ok())
        };
        let group = &queue()["groups"][0];
        gauge("lag") == group["lag"].as_f64()
            && gauge("pending") == group["pending"].as_f64()
            && gauge("oldest_age_seconds") > Some(0.0)
    };
    assert!(wait_until(agree), "{}", get(address, "/metrics").text());
    let breakers = get(address, "/debug/breakers").json();
    assert_eq!(breakers["breakers"][0]["state"], "closed");
    assert_eq!(breakers["mode"]["mode"], "normal");
    let memory = get(address, "/debug/memory").json();
    assert!(
        memory["resident_bytes"].as_u64() > Some(1 << 20),
        "{memory}"
    );
    assert_eq!(memory["in_flight"], 1);
    assert_eq!(memory["publish_queue_bytes"]["held"], 0);
}

#[test]
fn only_who_may_see_the_bus_sees_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tokens.toml");
    let token = |name: &str, token: &str, right: &str| {
        let digest = Sha256::digest(token);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = '{name}'\nsha256 = '{digest}'\nrights = ['{right}']\n")
    };
    let tokens = token("ada", "sees", "bus:read")
        + &token("bob", "other", "policies:read")
        + &token("eve", "letters", "dead-letters:read");
    fs::write(&path, tokens).unwrap();
    let setting = format!("access.tokens_file={}", path.display());
    let host = Host::start(&["--dev", "--set", &setting]);
    for path in [
        "/v1/status",
        "/v1/latency",
        "/v1/alerts",
        "/debug/queues",
        "/debug/breakers",
        "/debug/memory",
        "/debug/trace/nobody",
    ] {
        let nobody = get(host.address, path);
        assert_eq!(nobody.status, 401, "{path}");
        assert!(nobody.text().contains("wants a token"), "{}", nobody.text());
        assert_eq!(get_with(host.address, path, "guess").status, 401, "{path}");
        let lacks = get_with(host.address, path, "other");
        assert_eq!(lacks.status, 403, "{path}");
        assert!(lacks.text().contains("`bob` lacks the right bus:read"));
        let seen = get_with(host.address, path, "sees").status;
        let expected = if path.ends_with("nobody") { 404 } else { 200 };
        assert_eq!(seen, expected, "{path}");
    }
    let ready = |token| get_with(host.address, "/readyz", token).json();
    assert!(wait_until(|| ready("other") == json!({ "ready": true })));
    assert!(ready("sees")["checks"].as_array().is_some());
    let audit = "/v1/dead-letters/audit";
    assert_eq!(get_with(host.address, audit, "sees").status, 403);
    for (token, expected) in [("guess", 401), ("sees", 403)] {
        let letters = get_with(host.address, "/v1/dead-letters", token);
        assert_eq!(letters.status, expected, "{}", letters.text());
    }
    assert!(wait_until(|| get_with(host.address, audit, "letters")
        .status
        == 200));
}

/// What a host says on its own port for probes.
fn health_address(host: &Host) -> SocketAddr {
    let begins = "  health    http://";
    host.wait_for_log(begins);
    let log = host.log();
    let line = log.lines().find_map(|line| line.strip_prefix(begins));
    let address = line.unwrap().strip_suffix("/healthz").unwrap();
    address.parse().unwrap()
}

#[test]
fn probes_have_a_port_that_connections_do_not_hold_up() {
    let settings = [
        "server.connections_max=1",
        "server.health_listen=127.0.0.1:0",
    ];
    let settings = settings.iter().flat_map(|setting| ["--set", *setting]);
    let arguments: Vec<_> = ["--dev"].into_iter().chain(settings).collect();
    let host = Host::start(&arguments);
    let health = health_address(&host);
    // One takes the place, and says nothing.
    let held = TcpStream::connect(host.address).unwrap();
    let mut waiting = TcpStream::connect(host.address).unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", host.address);
    waiting.write_all(request.as_bytes()).unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(health, path).status, 200, "{path}");
    }
    assert_eq!(get(health, "/v1/status").status, 404);
    waiting.set_nonblocking(true).unwrap();
    let unanswered = waiting.read(&mut [0]).unwrap_err();
    assert_eq!(unanswered.kind(), ErrorKind::WouldBlock);
    drop(held);
    waiting.set_nonblocking(false).unwrap();
    let mut answer = [0; 15];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// A line of the tables of docs/metrics.md: what is to be found in the exposition.
#[derive(Debug, PartialEq, Eq)]
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// The tables of docs/metrics.md, by the name of the metric.
fn documented() -> BTreeMap<String, Documented> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `oona_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let documented = Documented {
            kind: cells[2].to_owned(),
            labels: labels
                .filter(|label| !label.is_empty())
                .map(str::to_owned)
                .collect(),
            help: cells[4].to_owned(),
        };
        (cells[1].trim_matches('`').to_owned(), documented)
    })
    .collect()
}

/// The labels of a series, whose line goes on like this after the bracket, but for the bound of a bucket.
fn label_names(series: &str) -> BTreeSet<String> {
    // A value has no quotes in it: what is outside of quotes are names.
    let outside = series
        .split('"')
        .step_by(2)
        .map(|part| part.trim_matches([',', '=']));
    let names = outside.take_while(|part| !part.starts_with('}'));
    names
        .filter(|name| *name != "le")
        .map(str::to_owned)
        .collect()
}

/// What is added to the name of a family in each of its series.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => &[""],
    }
}

/// The names that the host registers, as its source has them.
fn registered() -> BTreeSet<String> {
    let sources = [
        include_str!("../../host/server/src/metrics.rs"),
        include_str!("../../host/server/src/metrics/families.rs"),
    ];
    let calls = ["counter(", "gauge(", "histogram(", "histograms(", "family("];
    let mut names = BTreeSet::new();
    for (source, call) in sources
        .iter()
        .flat_map(|source| calls.map(|call| (source, call)))
    {
        for rest in source.split(call).skip(1) {
            let name = rest.trim_start().strip_prefix('"');
            names.extend(name.and_then(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    assert!(names.len() > 40, "{names:?}");
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_no_other() {
    let host = Host::start(&["--dev"]);
    let mut subscriber = Subscriber::group(host.address, "workers", 1).await;
    publish(host.address, TELEMETRY, "one").await;
    let delivery = subscriber.next().await;
    subscriber.ack(vec![delivery.id]).await;
    let documented = documented();
    assert!(wait_until(|| get(host.address, "/readyz").status == 200));
    let exposition = get_openmetrics(host.address);
    let lines: Vec<_> = exposition.text().lines().collect();
    let help = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let help: BTreeMap<_, _> = help.collect();
    let kinds = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found = BTreeSet::new();
    for (family, kind) in kinds {
        let ending = if matches!(kind, "counter" | "info") {
            suffixes(kind)[0]
        } else {
            ""
        };
        let name = format!("{family}{ending}");
        let row = documented.get(&name);
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row of `{name}`"));
        assert_eq!(row.kind, kind, "{name}");
        assert_eq!(row.help, help[family].trim_end_matches('.'), "{name}");
        for suffix in suffixes(kind) {
            let start = format!("{family}{suffix}{{");
            for series in lines.iter().filter_map(|line| line.strip_prefix(&start)) {
                let labels = label_names(series);
                assert_eq!(labels, row.labels, "{name}: {series}");
            }
        }
        found.insert(name);
    }
    // What has no series yet is not said: the source has the others.
    for name in registered() {
        let is_documented =
            |ending: &&str| documented.contains_key(&format!("oona_{name}{ending}"));
        let endings = ["", "_total", "_info"];
        assert!(
            endings.iter().any(is_documented),
            "docs/metrics.md has no row of `{name}`"
        );
        for ending in endings {
            found.insert(format!("oona_{name}{ending}"));
        }
    }
    let mut gone = documented.keys().filter(|name| !found.contains(*name));
    assert_eq!(gone.next(), None, "no host says it");
}
