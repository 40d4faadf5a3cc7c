//! `oona doctor`: the real binary, beside a real Redis in good and in bad health.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use oona_tests::binary::{Host, command, text, wait_until};
use oona_tests::http::get;
use oona_tests::policies;
use oona_tests::redis_server::RedisServer;
use serde_json::Value;
use tempfile::TempDir;

/// Signs in these tests, and must never be seen.
const SECRET: &str = "5f3a1c0e9b7d4628a1f0c3e5d7b90246";

/// What the doctor said.
struct Said {
    code: Option<i32>,
    report: Value,
}

impl Said {
    /// What it found of one thing: level, what was found, and what to do.
    #[track_caller]
    fn of(&self, check: &str) -> (&str, &str, &str) {
        let findings = self.report["findings"].as_array().expect("findings");
        let found = findings.iter().find(|finding| finding["check"] == check);
        let found = found.unwrap_or_else(|| panic!("nothing of {check} in {:#}", self.report));
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        (text("level"), text("found"), text("advice"))
    }

    #[track_caller]
    fn expect(&self, check: &str, level: &str, found: &str, advice: &str) {
        let said = self.of(check);
        let holds = said.0 == level && said.1.contains(found) && said.2.contains(advice);
        assert!(holds, "{check}: {said:?}");
    }
}

/// Where no policies are, and a free port.
const PLAIN: [&str; 4] = ["--policies", ".", "--listen", "127.0.0.1:0"];

/// The same, and this store.
fn plain(url: &str) -> Vec<&str> {
    [&["--redis", url], &PLAIN[..]].concat()
}

fn doctor(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let directory = TempDir::new().expect("a temporary directory");
    let mut command = command(&directory, &["doctor"]);
    command.args(arguments).env("ESPER_LEYLINE_SECRET", SECRET);
    prepare(&mut command);
    let output = command.output().expect("the binary starts");
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!told.contains(SECRET), "{told}");
    output
}

/// What it says for programs.
fn said(arguments: &[&str]) -> Said {
    let output = doctor(&[arguments, &["--output", "json"]].concat(), |_| {});
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    let code = output.status.code();
    Said { code, report }
}

#[test]
fn a_healthy_host_is_told_so_and_nothing_is_written() {
    let redis = RedisServer::start();
    let url = redis.url();
    let directory = policies::directory();
    let arguments = [
        "--redis",
        &url,
        "--listen",
        "127.0.0.1:0",
        "--policies",
        directory.to_str().expect("a path that is text"),
        "--set",
        "policies.allow_unsigned=true",
    ];
    let said = said(&arguments);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
    assert_eq!(said.report["healthy"], true);
    for (check, found) in [
        ("redis", "at 127.0.0.1:"),
        ("redis role", "a master"),
        ("redis permissions", "allowed"),
        ("redis persistence", "on disk"),
        ("redis disk", "succeeded"),
        ("redis eviction", "noeviction"),
        ("redis latency", "of 100 round trips"),
        ("clock", "ms"),
        ("signing", "32 bytes"),
        ("routing policy", "routing.wasm"),
        ("dead-letter policy", "dead-letter.wasm"),
        ("address", "a free port"),
        ("objectives", "every alert on a budget can fire"),
    ] {
        said.expect(check, "ok", found, "");
    }
    assert_eq!(redis.ask::<u64>(&["DBSIZE"]), 0);
}

#[test]
fn a_redis_that_evicts_and_keeps_nothing_is_warned_of() {
    let redis =
        RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let url = redis.url();
    let arguments = plain(&url);
    let said = said(&arguments);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
    said.expect(
        "redis persistence",
        "warning",
        "all messages are lost",
        "appendonly yes",
    );
    let advice = "CONFIG SET maxmemory-policy noeviction";
    said.expect("redis eviction", "warning", "drops messages", advice);

    let output = doctor(&arguments, |_| {});
    let told = text(&output.stdout);
    let mut lines = told
        .lines()
        .skip_while(|line| !line.contains("redis eviction"));
    let (finding, beneath) = (lines.next(), lines.next());
    assert!(
        finding.is_some_and(|line| line.starts_with("warning  ")),
        "{told}"
    );
    assert!(
        beneath.is_some_and(|line| line.contains("→ `maxmemory-policy noeviction`")),
        "{told}"
    );
}

#[test]
fn a_redis_that_does_not_answer_is_an_exit_code_of_its_own() {
    let redis = RedisServer::down();
    let said = said(&plain(&redis.url()));
    assert_eq!(said.code, Some(3), "{:#}", said.report);
    assert_eq!(said.report["store_answers"], false);
    said.expect("redis", "error", "does not answer", "start Redis there");
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_as_by_serve() {
    for (arguments, message) in [
        (
            ["--set", "stroe.url=x"],
            "oona: flag --set stroe.url: stroe.url: unknown key",
        ),
        (
            ["--redis", "http://user:hunter2@db"],
            "oona: flag --redis: store.url: not a Redis URL",
        ),
    ] {
        let output = doctor(&arguments, |_| {});
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.starts_with(message), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_who_has_it() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("it is bound").to_string();
    let of_other = said(&["--dev", "--policies", ".", "--listen", &taken]);
    assert_eq!(of_other.code, Some(1), "{:#}", of_other.report);
    of_other.expect("address", "error", "no host", "ss -ltnp");

    let directory = TempDir::new().expect("a temporary directory");
    let tokens = directory.path().join("tokens.toml");
    fs::write(&tokens, "token = []").expect("a file");
    // It does not tell everybody how it is.
    let tokens = format!("access.tokens_file={}", tokens.display());
    let host = Host::start(&["--dev", "--policies", ".", "--set", &tokens]);
    assert!(wait_until(|| get(host.address, "/readyz").status == 200));
    let served = host.address.to_string();
    let of_host = said(&["--dev", "--policies", ".", "--listen", &served]);
    assert_eq!(of_host.code, Some(0), "{:#}", of_host.report);
    of_host.expect("address", "note", "a host that is ready", "--listen");
    of_host.expect("store", "warning", "not durable", "store.kind");
}

#[test]
fn an_alert_that_can_never_fire_is_warned_of() {
    let lax = ["--dev", "--set", "objectives.drops_percent=7"];
    let said = said(&[&lax, &PLAIN[..]].concat());
    assert_eq!(said.code, Some(0), "{:#}", said.report);
    said.expect(
        "objectives",
        "warning",
        "budget_burn_fast of drop_rate over 1h and 5m can never fire",
        "`objectives.drops_percent`",
    );
}

#[test]
fn a_component_that_is_none_is_an_error() {
    let directory = TempDir::new().expect("a temporary directory");
    fs::write(directory.path().join("routing.wasm"), "junk").expect("a file");
    let there = directory.path().to_str().expect("a path that is text");
    let said = said(&["--dev", "--listen", "127.0.0.1:0", "--policies", there]);
    assert_eq!(said.code, Some(1), "{:#}", said.report);
    said.expect("routing policy", "error", "is no", "oona policy build");
    said.expect("freshness policy", "ok", "built in", "");
}

#[test]
fn a_component_that_nobody_signed_is_an_error_unless_that_is_allowed() {
    let directory = TempDir::new().expect("a temporary directory");
    let component = directory.path().join("routing.wasm");
    fs::write(component, policies::policy("routing")).expect("a file");
    let there = directory.path().to_str().expect("a path that is text");
    let arguments = [
        "--set",
        "store.kind=memory",
        "--listen",
        "127.0.0.1:0",
        "--policies",
        there,
    ];
    let said = said(&arguments);
    assert_eq!(said.code, Some(1), "{:#}", said.report);
    said.expect("routing policy", "error", "not signed", "oona policy sign");
}

#[test]
fn a_password_is_never_shown() {
    let redis = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let at = redis.url();
    let at = at.strip_prefix("redis://").expect("an address of Redis");
    let file = |password: &str| format!("[store]\nurl = 'redis://:{password}@{at}'\n");
    for (password, code) in [("hunter2", 0), ("hunter3", 1)] {
        for format in ["text", "json"] {
            let arguments = [&PLAIN[..], &["--output", format]].concat();
            let output = doctor(&arguments, |command| {
                let directory = command.get_current_dir().expect("a directory of its own");
                fs::write(directory.join("oona.toml"), file(password)).expect("a file");
            });
            let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "{told}");
            assert!(!told.contains(password), "{told}");
            assert!(told.contains("oona.toml holds the password"), "{told}");
        }
    }
}

/// What is advised is done, word by word: first for commands, then for keys, which a server looks at only
/// where the command is allowed.
#[test]
fn a_user_of_redis_who_may_too_little_is_told_what_to_be_given() {
    let redis = RedisServer::start();
    let rights = "ACL SETUSER oona on >hunter2 ~oona.normal +@connection +info +multi +acl|whoami";
    let give = |rights: &str| {
        let words: Vec<_> = rights.split(' ').collect();
        redis.ask::<String>(&words)
    };
    give(rights);
    let url = redis.url().replace("redis://", "redis://oona:hunter2@");
    for refused in ["more may not be used", "more may not be touched"] {
        let before = said(&plain(&url));
        assert_eq!(before.code, Some(1), "{:#}", before.report);
        before.expect(
            "redis permissions",
            "error",
            refused,
            "redis-cli ACL SETUSER oona ",
        );
        let (_, _, advice) = before.of("redis permissions");
        give(&advice.replace("redis-cli ", "").replace('\'', ""));
    }
    let after = said(&plain(&url));
    after.expect("redis permissions", "ok", "all that a host asks", "");
    assert_eq!(after.code, Some(0), "{:#}", after.report);
}

#[test]
fn a_replica_takes_no_writes() {
    let master = RedisServer::start();
    let port = master.url();
    let port = port.rsplit(':').next().expect("a port");
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", port]);
    let said = said(&plain(&replica.url()));
    assert_eq!(said.code, Some(1), "{:#}", said.report);
    said.expect("redis role", "error", "a replica of 127.0.0.1", "store.url");
    said.expect("redis writes", "error", "READONLY", "master");
}
