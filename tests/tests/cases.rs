//! What the author of a policy does without a bus: inspect, test, check.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use oona_tests::binary::{PATIENCE, command, run, text};
use oona_tests::policies;
use serde_json::Value;
use tempfile::TempDir;

const SHIPPED: [&str; 4] = ["routing", "backpressure", "freshness", "dead-letter"];

fn component(name: &str) -> String {
    let path = policies::directory().join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is not there: run make policies",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

fn table(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../policies/{name}/cases.toml"));
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn answer(arguments: &[&str], code: i32) -> Value {
    let output = run(&[arguments, &["--output", "json"]].concat());
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_shipped_policy_passes_its_table() {
    for name in SHIPPED {
        let component = component(name);
        let test = ["policy", "test", &component, &table(name), "--coverage"];
        let report = answer(&test, 0);
        assert_eq!(report["failed"], 0, "{name}: {report}");
        let missed = |what: &str| {
            let branches = report["coverage"][what].as_array().unwrap();
            assert!(branches.len() >= 5, "{name}: {branches:?}");
            branches
                .iter()
                .filter(|branch| branch["cases"] == 0)
                .count()
        };
        assert_eq!(
            (missed("reasons"), missed("configuration")),
            (0, 0),
            "{name}: {report}"
        );
    }
}

#[test]
fn a_case_that_fails_shows_the_difference() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("cases.toml");
    let cases = "kind = 'routing'\n[[case]]\nname = 'telemetry goes astray'\nmessage = { type = 'telemetry' }\n\
        expect = { verdict = 'route', stream = 'oona.normal' }\n\
        [[case]]\nname = 'it is refused'\nconfig = { nonsense = 1 }\nexpect = { verdict = 'route' }\n";
    fs::write(&path, cases).unwrap();
    let path = path.to_str().unwrap();
    let output = run(&["policy", "test", &component("routing"), path]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(
        told.contains("FAILED  telemetry goes astray: route oona.telemetry (type)"),
        "{told}"
    );
    assert!(
        told.contains(r#"stream: expected "oona.normal", got "oona.telemetry""#),
        "{told}"
    );
    assert!(told.contains("is refused at `/nonsense`"), "{told}");
    assert!(told.contains("0 passed, 2 failed"), "{told}");

    let wrong = |file: &str, cases: &str| {
        let output = run(&["policy", "test", &component(file), cases]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        text(&output.stderr).to_owned()
    };
    let kind = wrong("freshness", path);
    assert!(
        kind.contains("is about a routing policy, and this is a freshness policy"),
        "{kind}"
    );
    fs::write(path, "kind = 'routing'\n[[case]]\nnam = 'x'").unwrap();
    let key = wrong("routing", path);
    assert!(key.contains("cases.toml:3: unknown field `nam`"), "{key}");
}

#[test]
fn every_shipped_policy_keeps_every_law() {
    for (name, laws) in [
        ("routing", 5),
        ("backpressure", 7),
        ("freshness", 8),
        ("dead-letter", 6),
        ("routing-by-origin", 5),
    ] {
        let report = answer(
            &[
                "policy",
                "check",
                &component(name),
                "--runs",
                "300",
                "--seed",
                "11",
            ],
            0,
        );
        assert_eq!(report["kept"], true, "{name}: {report}");
        let kept = report["laws"].as_array().unwrap().iter();
        let of_the_kind = kept.filter(|law| law["says"] != "a law of your own");
        assert_eq!(of_the_kind.count(), laws, "{name}: {report}");
    }
}

#[test]
fn a_law_of_ones_own_is_held_too() {
    let routing = component("routing");
    let own = [
        "policy",
        "check",
        &routing,
        "--runs",
        "200",
        "--cases",
        &table("routing"),
    ];
    let kept = answer(&own, 0);
    assert_eq!(kept["laws"].as_array().unwrap().len(), 6);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("laws.toml");
    let laws = "kind = 'routing'\n[[law]]\nname = 'commands never leave the normal stream'\n\
        message = { type = 'adaptation_command' }\nexpect = { stream = 'oona.normal' }\n";
    fs::write(&path, laws).unwrap();
    let output = run(&[
        "policy",
        "check",
        &routing,
        "--runs",
        "200",
        "--cases",
        path.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(
        told.contains("BROKEN  commands never leave the normal stream"),
        "{told}"
    );
    let smallest = text(&output.stderr);
    assert!(
        smallest.contains("[[case]]") && smallest.contains(r#"priority = "high""#),
        "the smallest: {smallest}"
    );
}

#[test]
fn what_a_policy_costs_is_measured_beside_another() {
    let (routing, other) = (component("routing"), component("routing-by-origin"));
    let costs = answer(
        &[
            "policy",
            "bench",
            &routing,
            "--against",
            &other,
            "--rounds",
            "1",
        ],
        0,
    );
    for (cost, name) in [
        (&costs["policy"], "routing 0.1.0"),
        (&costs["against"], "routing-by-origin 2.0.0"),
    ] {
        assert_eq!(cost["policy"], name);
        for figure in ["compile_ms", "start_us", "memory_bytes", "bytes"] {
            assert!(cost[figure].as_f64() > Some(0.0), "{figure}: {cost}");
        }
        let decisions = cost["decisions"].as_array().unwrap();
        let batches: Vec<_> = decisions
            .iter()
            .map(|decision| decision["batch"].as_u64().unwrap())
            .collect();
        assert_eq!(batches, [1, 8, 64, 256]);
        assert!(
            decisions
                .iter()
                .all(|decision| decision["ns"].as_f64() > Some(0.0)),
            "{cost}"
        );
    }
    let output = run(&["policy", "bench", &routing, "--rounds", "1"]);
    assert!(
        text(&output.stdout).contains("a decision, batch of 64"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn what_a_file_is_can_be_told() {
    let told = answer(&["policy", "inspect", &component("freshness")], 0);
    assert_eq!(
        (&told["kind"], &told["name"]),
        (&"freshness".into(), &"freshness".into())
    );
    let imports: Vec<_> = told["imports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|import| import.as_str().unwrap())
        .collect();
    assert!(
        imports
            .iter()
            .all(|import| import.starts_with("oona:policy/")),
        "{imports:?}"
    );
    assert!(told["config_schema"]["properties"]["window_ms"].is_object());
    let directory = TempDir::new().unwrap();
    let module = directory.path().join("module.wasm");
    fs::write(&module, wat::parse_str("(module)").unwrap()).unwrap();
    let output = run(&["policy", "inspect", module.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("it is a core module"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_report_for_ci_servers_and_the_table_that_travels() {
    let output = run(&["policy", "test", &component("routing"), "--output", "junit"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let xml = text(&output.stdout);
    assert!(xml.starts_with("<?xml version="), "{xml}");
    assert!(xml.contains("failures=\"0\""), "{xml}");
    assert!(
        xml.contains("name=\"below that, telemetry has its own stream\"/>"),
        "{xml}"
    );
    let none = run(&["policy", "test", &component("hostile")]);
    assert_eq!(none.status.code(), Some(2));
    assert!(
        text(&none.stderr).contains("no cases travel with"),
        "{}",
        text(&none.stderr)
    );
}

#[test]
fn whoever_watches_sees_each_change() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("cases.yaml");
    let write = |stream: &str| {
        let cases = format!(
            "kind: routing\ncase:\n  - name: telemetry\n    message: {{ type: telemetry }}\n    expect: {{ stream: {stream} }}\n"
        );
        fs::write(&path, cases).unwrap();
    };
    write("oona.normal");
    let routing = component("routing");
    let arguments = [
        "policy",
        "test",
        &routing,
        path.to_str().unwrap(),
        "--watch",
    ];
    let mut child = command(&directory, &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (said, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| said.send(line))
    });
    let hear = |words: &str| {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let line = told
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no `{words}`"));
            if line.contains(words) {
                return;
            }
        }
    };
    hear("0 passed, 1 failed");
    write("oona.telemetry");
    hear("1 passed, 0 failed");
    child.kill().unwrap();
    child.wait().unwrap();
}
