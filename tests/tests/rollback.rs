//! How soon every host has gone back, on a bus that is at work.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oona_tests::binary::{self, Host, text, wait_until};
use oona_tests::policies;
use oona_tests::stand::{Stand, UNSIGNED, ask, of_kind, oona};
use serde_json::Value;

/// What is promised, in ms.
const WITHIN_MS: u64 = 1_000;

const ROUNDS: usize = 5;

/// A dead-letter policy that takes long to compile: it has another module in it, which nobody uses.
fn heavy(stand: &Stand, number: usize) -> String {
    let work = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 7)) (i32.const 3)))";
    let function = format!(
        "(func (param i32) (result i32) {} (local.get 0))",
        work.repeat(200)
    );
    let module = format!("(module {} (data \"{number}\"))", function.repeat(600));
    let module = wat::parse_str(&module).unwrap();
    let mut bytes = policies::policy("dead-letter");
    // A section of a component that holds a module: its number, its size in LEB128, and the module.
    bytes.push(1);
    let mut size = module.len();
    while size >= 128 {
        bytes.push(u8::try_from(size % 128).unwrap() | 128);
        size /= 128;
    }
    bytes.push(u8::try_from(size).unwrap());
    bytes.extend_from_slice(&module);
    let path = stand.path(&format!("heavy-{number}.wasm"));
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn last_change(host: &Host, kind: &str) -> Value {
    let history = ask(host, &["policy", "history", kind, "--limit", "1"]);
    history["changes"][0].clone()
}

fn revision(host: &Host, kind: &str) -> (u64, u64) {
    let registry = &of_kind(host, kind)["status"]["registry"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    (
        number(&registry["active"]["revision"]),
        number(&registry["followed"]),
    )
}

/// Publishes through a host until it is told to stop; answers how many were accepted.
fn load(host: &Host, stop: &AtomicBool, accepted: &AtomicU64) {
    let directory = tempfile::TempDir::new().unwrap();
    let server = host.address.to_string();
    let publish = [
        "publish",
        "a report",
        "--type",
        "field_report",
        "--server",
        &server,
    ];
    while !stop.load(Ordering::Relaxed) {
        let output = binary::command(&directory, &publish).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        accepted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Notes by how much the longest of many short rests was too long: what the machine itself has lost, and no
/// host is to blame for.
fn watch_the_machine(stop: &AtomicBool, lost_ms: &AtomicU64) {
    const REST: Duration = Duration::from_millis(10);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        thread::park_timeout(REST);
        let late = began.elapsed().saturating_sub(REST);
        let late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        lost_ms.fetch_max(late_ms, Ordering::Relaxed);
    }
}

#[test]
fn every_host_goes_back_within_a_second_under_load_and_while_it_compiles() {
    let stand = Stand::new();
    let settings = [UNSIGNED, "registry.poll_ms=200"];
    let hosts = ["one", "two", "three"].map(|name| stand.host(name, &settings));
    let file = stand.component("routing-by-origin");
    let (stop, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    let lost_ms = AtomicU64::new(0);
    let (mut took, mut compiling) = (Vec::new(), 0);
    thread::scope(|scope| {
        scope.spawn(|| load(&hosts[1], &stop, &accepted));
        scope.spawn(|| watch_the_machine(&stop, &lost_ms));
        for round in 0..ROUNDS {
            let activated = ask(&hosts[0], &["policy", "activate", &file]);
            let there = activated["revision"].as_u64().unwrap();
            let all = || {
                hosts
                    .iter()
                    .all(|host| revision(host, "routing") == (there, there))
            };
            assert!(wait_until(all), "{}", hosts[2].log());
            ask(
                &hosts[0],
                &[
                    "policy",
                    "activate",
                    &heavy(&stand, round),
                    "--force",
                    "laws",
                ],
            );

            lost_ms.store(0, Ordering::Relaxed);
            ask(&hosts[0], &["policy", "rollback", "routing"]);
            let back = last_change(&hosts[0], "routing");
            let to = back["revision"].as_u64().unwrap();
            let all = || {
                hosts
                    .iter()
                    .all(|host| revision(host, "routing") == (to, to))
            };
            let followed = wait_until(all);
            let behind = |host: &Host| {
                let (said, followed) = revision(host, "dead-letter");
                said != followed
            };
            compiling += hosts.iter().filter(|host| behind(host)).count();
            assert!(followed, "{}", hosts[2].log());
            let since =
                |host: &Host| of_kind(host, "routing")["status"]["slot"]["since_ms"].as_u64();
            let last = hosts.iter().map(|host| since(host).unwrap()).max().unwrap();
            let took_ms = last.saturating_sub(back["at_ms"].as_u64().unwrap());
            took.push(took_ms.saturating_sub(lost_ms.load(Ordering::Relaxed)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    took.sort_unstable();
    let median = took[ROUNDS / 2];
    println!("gone back everywhere after {took:?} ms, the median {median} ms");
    assert!(median < WITHIN_MS, "{took:?}");
    assert!(accepted.into_inner() > 0, "there was load");
    assert!(compiling > 0, "no host was compiling meanwhile");
    assert!(oona(&hosts[0], &["policy", "list"]).status.success());
}
