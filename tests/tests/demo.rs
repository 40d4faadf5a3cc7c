//! The demo, as a newcomer runs it.

use oona_tests::binary::{command, run, text};
use oona_tests::policies;
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn every_message_is_accounted_for() {
    let directory = policies::directory();
    let directory = directory.to_str().expect("a path of text");
    let arguments = ["demo", "--seconds", "16", "--output", "json"];
    let output = run(&[&arguments[..], &["--policies", directory]].concat());
    let told = text(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no JSON ({error}); it says:\n{told}");
    });
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{told}");
    assert_eq!(report["balanced"], true, "{report:#}");

    let column = |name: &str| report["total"][name].as_u64().expect("a number");
    assert!(column("published") > 1_000, "{report:#}");
    let ends = ["delivered", "dead_lettered", "rejected"].map(column);
    assert_eq!(ends.iter().sum::<u64>(), column("published"));
    assert_eq!(
        [column("dead_lettered"), column("rejected"), column("lost")],
        [1, 1, 0]
    );
    assert_eq!(report["producers"].as_object().expect("a table").len(), 5);

    assert_eq!(report["rejections"][0]["reason"], "too-large");
    assert_eq!(report["dead_letters"][0]["class"], "poison");
    assert_eq!(report["redrive"]["redriven_to"], "oona.kernels.requests");
    assert!(report["lost_subscriber"]["in_hand"].as_u64() > Some(0));
    let streams = |era: &str| {
        let streams = report[era].as_object().expect("a table");
        streams.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(streams("edge_before"), ["oona.normal"]);
    assert_eq!(streams("edge_after"), ["oona.telemetry"]);
    let refusal = report["hostile"]["refusal"].as_str().expect("a reason");
    assert!(refusal.contains("longer than"), "{refusal}");
    let back = report["hostile"]["contained"]["fell_back_to"].as_str();
    assert!(back.is_some_and(|back| back.starts_with("routing-by-origin")));
}

#[test]
fn without_components_it_says_how_to_get_them() {
    let empty = TempDir::new().expect("a temporary directory");
    let mut demo = command(&empty, &["demo", "--policies", "."]);
    let output = demo.output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(
        told.starts_with("oona: cannot read ./routing.wasm; run `make policies`"),
        "{told}"
    );
}
