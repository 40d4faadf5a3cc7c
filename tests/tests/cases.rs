//! What the author of a policy does without a bus: inspect, test, check.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use oona_tests::binary::{run, text};
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
        let report = answer(&["policy", "test", &component(name), &table(name)], 0);
        assert!(report["passed"].as_u64() >= Some(9), "{name}: {report}");
        assert_eq!(report["failed"], 0, "{name}: {report}");
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
        ("routing", 4),
        ("backpressure", 6),
        ("freshness", 6),
        ("dead-letter", 5),
        ("routing-by-origin", 4),
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
        assert_eq!(
            report["laws"].as_array().unwrap().len(),
            laws,
            "{name}: {report}"
        );
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
    assert_eq!(kept["laws"].as_array().unwrap().len(), 5);
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
