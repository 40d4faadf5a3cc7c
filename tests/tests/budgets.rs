//! What policies may use and do use, as an operator sees it: in the exposition and in `oona policy list`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use oona_tests::binary::{self, Host, text};
use oona_tests::http::get;
use oona_tests::policies::policy;
use tempfile::TempDir;

const TRAPS: &str = r#"{"mode": "trap", "after": 1}"#;

/// What a command says that must succeed.
#[track_caller]
fn ask(host: &Host, arguments: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let mut command = binary::command(&directory, arguments);
    command.args(["--server", &host.address.to_string()]);
    let output = command.output().unwrap();
    let said = text(&output.stdout).to_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {said}{}",
        text(&output.stderr)
    );
    said
}

/// The value of a series of the exposition.
#[track_caller]
fn value(host: &Host, series: &str) -> f64 {
    let exposition = get(host.address, "/metrics");
    let exposition = exposition.text();
    let line = exposition.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then_some(value)
    });
    let value = line.unwrap_or_else(|| panic!("no {series} in\n{exposition}"));
    value.parse().unwrap()
}

#[test]
fn budgets_and_what_is_used_of_them_are_seen() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let none = format!("policies.directory={}", at("nothing"));
    let host = Host::start(&[
        "--set",
        "store.kind=memory",
        "--set",
        &none,
        "--set",
        "policies.allow_unsigned=true",
        "--set",
        "policies.failures_max=2",
        "--set",
        "policies.failures_window_ms=3600000",
    ]);
    let used = |resource| {
        value(
            &host,
            &format!(r#"oona_policy_used{{kind="routing",resource="{resource}"}}"#),
        )
    };
    let budget = |resource| {
        value(
            &host,
            &format!(r#"oona_policy_budget{{kind="routing",resource="{resource}"}}"#),
        )
    };
    assert_eq!((budget("call_seconds"), budget("failures")), (0.01, 2.0));
    assert_eq!(budget("memory_bytes"), f64::from(16 << 20));
    assert_eq!((used("memory_bytes"), used("failures")), (0.0, 0.0));

    let component = at("hostile.wasm");
    fs::write(&component, policy("hostile")).unwrap();
    let config = at("hostile.json");
    fs::write(&config, TRAPS).unwrap();
    let publish = || ask(&host, &["publish", "report", "--type", "field_report"]);
    publish();
    let list = ask(&host, &["policy", "list"]);
    assert!(list.contains("without a limit: a native build"), "{list}");
    ask(
        &host,
        &[
            "policy", "activate", &component, "--config", &config, "--force", "laws", "--force",
            "trial",
        ],
    );
    for _ in 0..2 {
        publish();
    }
    assert!(used("memory_bytes") >= f64::from(1 << 16));
    assert!(used("memory_bytes") <= budget("memory_bytes"));
    let failed = used("failures");
    assert!((1.0..=2.0).contains(&failed), "{failed}");
    let list = ask(&host, &["policy", "list"]);
    let spent = format!("{failed} of 2 tolerated failures in 1 h");
    for words in [
        &*spent,
        "slowest call of late ",
        "limit 10 ms of CPU time; memory ",
        " of 16384 KiB",
    ] {
        assert!(list.contains(words), "no `{words}` in\n{list}");
    }
    for _ in 0..8 {
        publish();
    }
    let series = r#"oona_policy_fallbacks_total{kind="routing"}"#;
    assert_eq!(value(&host, series), 1.0);
    let list = ask(&host, &["policy", "list"]);
    assert!(list.contains("fell back from hostile "), "{list}");
}
