//! Real faults, one short round of each: processes that die and hang, a store that is full, read-only or
//! elsewhere, a network that breaks. The command keeps the account; how fast it recovers, no test asks.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use oona_tests::binary::{command, run, text};
use oona_tests::policies;
use serde_json::Value;
use tempfile::TempDir;

/// What producers are told while a fault lasts.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    /// That the store is not available, for this reason among others.
    Unavailable(&'static str),
    /// What they are told otherwise, or nothing.
    Anything,
}

fn check(faults: &[(&str, Told)]) {
    let directory = policies::directory();
    let directory = directory.to_str().expect("a path of text");
    let usual = ["bench", "chaos", "--rate", "300", "--output", "json"];
    let named = faults.iter().flat_map(|(fault, _)| ["--fault", fault]);
    let arguments: Vec<_> = usual.into_iter().chain(named).collect();
    let output = run(&[&arguments[..], &["--policies", directory]].concat());
    let said = text(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).expect(said);
    assert_eq!(output.status.code(), Some(0), "{report:#} {said}");
    assert_eq!(report["balanced"], true, "{report:#}");
    let rows = report["faults"].as_array().expect("a list");
    assert_eq!(rows.len(), faults.len(), "{report:#}");
    for (row, (fault, told)) in rows.iter().zip(faults) {
        check_row(row, fault, *told);
    }
}

fn check_row(row: &Value, fault: &str, told: Told) {
    assert_eq!(row["fault"], fault);
    if fault.starts_with("disk-full") && !cfg!(target_os = "linux") {
        assert!(row["skipped"].is_string(), "{row:#}");
        return;
    }
    let done = (&row["rounds"], &row["balanced"], &row["not_recovered"]);
    assert_eq!(done, (&1.into(), &true.into(), &0.into()), "{row:#}");
    let count = |name: &str| row["account"][name].as_u64().expect("a number");
    assert!(count("accepted") > 100, "{row:#}");
    assert_eq!(
        count("published"),
        count("accepted") + count("refused") + count("unknown"),
        "{row:#}"
    );
    for name in ["open", "contradicted"] {
        assert_eq!(count(name), 0, "{row:#}");
    }
    // A replica that takes over may not know yet who got what.
    assert!(
        count("unmarked") == 0 || fault == "sentinel-failover",
        "{row:#}"
    );
    assert!(count("delivered") >= count("accepted"), "{row:#}");
    let refusals = row["refusals"].as_object().expect("a table");
    // Which the bus decides by itself, to protect itself.
    let typed = |why: &String| why.starts_with("unavailable/") || why.starts_with("backpressure/");
    assert!(refusals.keys().all(typed), "{row:#}");
    if let Told::Unavailable(reason) = told {
        assert!(
            refusals.contains_key(&format!("unavailable/{reason}")),
            "{row:#}"
        );
    }
}

#[test]
fn hosts_and_subscribers_that_die_or_hang_lose_nothing() {
    check(&[
        ("host-kill", Told::Anything),
        ("host-stop", Told::Anything),
        ("subscriber-kill", Told::Anything),
        ("subscriber-stop", Told::Anything),
        ("slow-network", Told::Anything),
    ]);
}

#[test]
fn a_redis_that_dies_hangs_or_is_replaced_loses_nothing() {
    check(&[
        ("redis-kill", Told::Unavailable("store-unavailable")),
        ("redis-stop", Told::Unavailable("store-unavailable")),
        ("redis-restart", Told::Unavailable("store-unavailable")),
        ("failover", Told::Unavailable("store-refused")),
        ("sentinel-failover", Told::Unavailable("store-unavailable")),
        ("connection-cut", Told::Anything),
    ]);
}

#[test]
fn a_redis_that_refuses_to_write_loses_nothing() {
    check(&[
        ("redis-full", Told::Unavailable("store-refused")),
        ("redis-read-only", Told::Unavailable("store-refused")),
        ("disk-full", Told::Unavailable("store-unavailable")),
        ("disk-full-everysec", Told::Unavailable("store-refused")),
    ]);
}

/// The account finds a loss if there is one: here a Redis that forgets everything when it is killed, with
/// more load than can be handled at once.
#[test]
fn a_redis_that_forgets_is_found_out() {
    let directory = TempDir::new().expect("a temporary directory");
    let forgetful = "#!/bin/sh\nexec $REAL_REDIS \"$@\" --appendonly no\n";
    let program = directory.path().join("redis-server");
    std::fs::write(&program, forgetful).expect("it is written");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it is ours");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let real = std::env::split_paths(&path).map(|place| place.join("redis-server"));
    let real = real.into_iter().find(|program| program.exists());
    let places = std::iter::once(directory.path().to_owned()).chain(std::env::split_paths(&path));
    let mut chaos = command(&directory, &["bench", "chaos", "--fault", "redis-kill"]);
    let output = chaos
        .args(["--rate", "10000", "--output", "json", "--policies"])
        .arg(policies::directory())
        .env("PATH", std::env::join_paths(places).expect("paths"))
        .env("REAL_REDIS", real.expect("run `make setup`"))
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(report["balanced"], false);
    assert!(
        report["faults"][0]["account"]["open"].as_u64() > Some(0),
        "{report:#}"
    );
    let logs = Path::new(report["logs"].as_str().expect("the logs are kept"));
    assert!(logs.is_dir());
    std::fs::remove_dir_all(logs).expect("they are ours");
}
