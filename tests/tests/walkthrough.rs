//! The walk-through of docs/policies.md, as it stands: each command must do what the page says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use oona_tests::binary::{Host, oona, run, text};
use oona_tests::redis_server::RedisServer;
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// The commands of the section, a line each.
fn commands() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/policies.md")).unwrap();
    let section = page.split("## The way, once through").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let commands = section.lines().filter_map(|line| line.strip_prefix("    "));
    commands.map(str::to_owned).collect()
}

#[test]
fn the_way_of_a_policy_is_as_the_page_says() {
    let redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::os::unix::fs::symlink(root().join("target"), at("target")).unwrap();
    assert!(
        run(&["policy", "keygen", at("release").to_str().unwrap()])
            .status
            .success()
    );
    let host = || {
        let trusted = format!("policies.trusted_keys=[{:?}]", at("release.pub"));
        let url = format!("store.url={}", redis.url());
        let none = format!("policies.directory={}", at("nothing").display());
        let settings = [
            &*trusted,
            &url,
            &none,
            "policies.watch=false",
            "policies.record_every=1",
        ];
        let arguments: Vec<_> = settings
            .iter()
            .flat_map(|setting| ["--set", *setting])
            .collect();
        Host::start(&arguments)
    };
    let (one, two) = (host(), host());
    let path = format!(
        "{}:{}",
        oona().parent().unwrap().display(),
        env::var("PATH").unwrap()
    );
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    let mut told = String::new();
    for line in &commands {
        let output = Command::new("timeout")
            .args(["300", "bash", "-euo", "pipefail", "-c", line])
            .current_dir(directory.path())
            .env("PATH", &path)
            .env("ONE", one.address.to_string())
            .env("TWO", two.address.to_string())
            .output()
            .unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}\n{said}");
        told += &said;
    }
    for words in [
        "by-customer 0.1.0, a routing policy",
        "6 passed, 0 failed",
        "kept    emergencies-are-routed",
        "signed by release.pub",
        "1 would be different",
        "shadow: 1 of 1 decisions differ",
        "type -> attribute: 1",
        "route oona.telemetry (attribute)  by by-customer 0.1.0",
        "replaced: routing       by-customer 0.1.0",
        "promote routing of revision 2: only acme moves",
        "acme is starved",
        "decided 1: attribute 100.0 %",
    ] {
        assert!(told.contains(words), "no `{words}` in\n{told}");
    }
}
