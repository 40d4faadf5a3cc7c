//! The demo, as a newcomer runs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use oona_tests::binary::{command, run, text, wait_until};
use oona_tests::http::get;
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

/// A demo that is looked at while it runs. Ended when dropped.
struct Running {
    child: Child,
    console: SocketAddr,
}

impl Running {
    fn start(scratch: &TempDir) -> Self {
        let directory = policies::directory();
        let directory = directory.to_str().expect("a path of text");
        // Long enough for whoever looks: what he looks for is there after 18 s.
        let mut demo = command(
            scratch,
            &["demo", "--seconds", "30", "--policies", directory],
        );
        let mut child = demo
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let console = lines.find_map(|line| {
            let address = line.strip_prefix("console   http://")?;
            address.trim_end_matches('/').parse().ok()
        });
        // Empties the pipe until it ends.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            console: console.expect("it says where the console is"),
        }
    }

    /// What the history says of changes of one sort.
    fn changes(&self, action: &str) -> Vec<Value> {
        let policies = get(self.console, "/v1/policies").json();
        let changes = policies["history"].as_array().expect("a list");
        let of_it = changes.iter().filter(|change| change["action"] == action);
        of_it.cloned().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_it_does_is_in_the_history_and_can_be_taken_back() {
    let scratch = TempDir::new().expect("a temporary directory");
    let demo = Running::start(&scratch);
    assert!(wait_until(|| !demo.changes("fell-back").is_empty()));
    let activated = demo.changes("activate");
    assert_eq!(activated.len(), 2, "{activated:#?}");
    assert_eq!(activated[0]["message"], "reports from the edge apart");
    assert_eq!(activated[1]["forced"][0], "laws");

    let routing = || {
        let policies = get(demo.console, "/v1/policies").json();
        let policies = policies["policies"].as_array().cloned();
        let mut policies = policies.unwrap_or_default().into_iter();
        policies
            .find(|policy| policy["kind"] == "routing")
            .expect("one of each kind")
    };
    assert!(routing()["status"]["slot"]["fallback"].is_object());
    let server = demo.console.to_string();
    let back = ["policy", "rollback", "routing", "--server", &server];
    let output = run(&back);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(routing()["name"], "routing-by-origin");
    assert!(routing()["status"]["slot"]["fallback"].is_null());
}
