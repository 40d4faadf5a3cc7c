//! The benchmark measures what it says. How fast anything is, no test asks.

use std::fs;
use std::path::Path;

use oona_tests::binary::{command, run, text};
use oona_tests::policies;
use oona_tests::redis_server::RedisServer;
use serde_json::Value;
use tempfile::TempDir;

fn bench(arguments: &[&str]) -> Value {
    let directory = policies::directory();
    let directory = directory.to_str().expect("a path of text");
    let usual = [
        "bench",
        "--rounds",
        "1",
        "--messages",
        "500",
        "--output",
        "json",
    ];
    let output = run(&[&usual[..], &["--policies", directory], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// The figures, each with its reference; each must have been measured.
fn figures(report: &Value) -> Vec<(String, Option<String>)> {
    let figures = report["figures"].as_array().expect("a list").iter();
    let checked = figures.map(|figure| {
        let number = |name: &str| figure[name].as_f64().expect("a number");
        let (least, median, most) = (number("min"), number("median"), number("max"));
        assert!(0.0 < least && least <= median && median <= most, "{figure}");
        let reference = figure["reference"].as_str().map(str::to_owned);
        assert_eq!(
            reference.is_some(),
            figure["ratio"].as_f64() > Some(0.0),
            "{figure}"
        );
        (
            figure["name"].as_str().expect("a name").to_owned(),
            reference,
        )
    });
    checked.collect()
}

#[test]
fn every_figure_is_measured_beside_its_reference() {
    let report = bench(&[]);
    assert_eq!(report["policies"], "wasm");
    assert_eq!(report["signed"], true);
    let swapped = &report["swapped"];
    assert!(swapped["accepted"].as_u64() > Some(0), "{swapped}");
    assert_eq!(
        (&swapped["lost"], &swapped["reordered"]),
        (&0.into(), &0.into())
    );
    let figures = figures(&report);
    let names: Vec<_> = figures.iter().map(|(name, _)| &**name).collect();
    for name in [
        "publish",
        "publish-grpc",
        "publish-single",
        "consume",
        "consume-grpc",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    for name in [
        "publish-swapped",
        "swap-pause-max",
        "routing-wasm-64",
        "dead-letter-wasm-1",
        "replay",
        "publish-seen",
        "audit",
        "publish-audited",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let references = figures
        .iter()
        .filter_map(|(_, reference)| reference.as_deref());
    for reference in references {
        assert!(
            names.contains(&reference),
            "{reference} is not in {names:?}"
        );
    }
}

#[test]
fn what_is_not_asked_for_is_not_measured() {
    let figures = figures(&bench(&["policy"]));
    assert_eq!(figures.len(), 4 * 4 * 2);
    let report = bench(&["publish", "--native"]);
    assert_eq!(report["policies"], "native");
}

#[test]
fn a_redis_that_holds_something_is_left_alone() {
    let server = RedisServer::start();
    let mut client = redis::Client::open(server.url()).expect("an address");
    redis::cmd("SET")
        .arg("precious")
        .arg("1")
        .exec(&mut client)
        .expect("it is set");
    let output = run(&["bench", "--redis", &server.url()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("is not empty"),
        "{}",
        text(&output.stderr)
    );
    let keys: u64 = redis::cmd("DBSIZE").query(&mut client).expect("it answers");
    assert_eq!(keys, 1);
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let empty = TempDir::new().expect("a temporary directory");
    let mut bench = command(&empty, &["bench", "--policies", "."]);
    let output = bench.output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains("run `make policies`"), "{told}");

    let mut bench = command(&empty, &["bench"]);
    let output = bench
        .env("PATH", empty.path())
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(told.contains("run `make setup`"), "{told}");
}

#[test]
fn a_soak_tells_memory_and_latency_by_tenths_and_its_account_balances() {
    let directory = TempDir::new().expect("a temporary directory");
    let policies = policies::directory();
    let (picture, csv) = (
        directory.path().join("soak.svg"),
        directory.path().join("soak.csv"),
    );
    let mut soak = command(
        &directory,
        &["bench", "soak", "--for", "40s", "--rate", "400"],
    );
    let output = soak
        .args(["--fsync", "always", "--output", "json"])
        .args([Path::new("--picture"), &picture, Path::new("--csv"), &csv])
        .args([Path::new("--policies"), &policies])
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(
        (&report["fsync"], &report["rate"]),
        (&"always".into(), &400.into())
    );
    assert_eq!(report["flat"], Value::Null, "forty seconds tell nothing");
    let account = &report["account"];
    let count = |name: &str| account[name].as_u64().expect("a number");
    assert!(count("accepted") > 1_000, "{account}");
    assert_eq!(
        count("published"),
        count("accepted") + count("refused") + count("unknown")
    );
    assert_eq!(
        count("acknowledged") + count("dead_lettered"),
        count("accepted")
    );
    assert!(count("redelivered") > 0, "some are nacked: {account}");
    assert_eq!((count("open"), count("unmarked")), (0, 0));
    assert_eq!(report["balanced"], true);
    let tenths = report["tenths"].as_array().expect("a list");
    assert_eq!(tenths.len(), 10);
    for figure in ["host_bytes", "redis_bytes", "redis_used_bytes"] {
        let mut bytes = tenths.iter().map(|tenth| tenth[figure].as_f64());
        assert!(bytes.all(|bytes| bytes > Some(1e6)), "{figure}: {report}");
    }
    assert_eq!(report["trends"].as_array().map(Vec::len), Some(7));
    let picture = fs::read_to_string(picture).expect("it was drawn");
    assert!(picture.contains("<svg") && picture.contains("memory in use"));
    let csv = fs::read_to_string(csv).expect("it was written");
    let columns: Vec<_> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(
        columns.len() > 10 && columns.iter().all(|count| *count == columns[0]),
        "{columns:?}"
    );
}
