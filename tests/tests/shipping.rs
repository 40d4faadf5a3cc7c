//! What may go wrong on the way of a policy to all hosts, and how that is seen: bytes that are lost,
//! hosts that cannot follow, components that do not start, gates that were forced.

use std::fs;
use std::process::Stdio;

use oona_tests::binary::{self, Host, text, wait_until};
use oona_tests::policies;
use oona_tests::stand::{Stand, UNSIGNED, ask, of_kind, oona, refused, wait_for};
use serde_json::{Value, json};

fn listed(host: &Host) -> String {
    text(&oona(host, &["policy", "list"]).stdout).to_owned()
}

#[track_caller]
fn wait_for_text(host: &Host, words: &str) {
    let told = wait_until(|| listed(host).contains(words));
    assert!(told, "no `{words}` in\n{}\n{}", listed(host), host.log());
}

fn publish(host: &Host, origin: &str, count: usize) {
    let origin = format!("origin={origin}");
    for _ in 0..count {
        let report = [
            "publish",
            "a report",
            "--type",
            "field_report",
            "--attr",
            &origin,
        ];
        assert!(oona(host, &report).status.success());
    }
}

#[test]
fn to_push_again_brings_back_what_the_store_has_lost() {
    let stand = Stand::new();
    let one = stand.host("one", &[UNSIGNED]);
    let file = stand.component("routing-by-origin");
    let activated = ask(&one, &["policy", "activate", &file]);
    let digest = activated["policy"]["digest"].as_str().unwrap().to_owned();
    let key = format!("oona:kept:policy:{digest}");
    assert_eq!(stand.redis(&format!("DEL {key}")), ":1");
    // It has neither cache nor memory of the bytes; it says so, and goes on trying.
    let late = stand.host("late", &[UNSIGNED]);
    assert!(of_kind(&late, "routing")["native"].as_bool().unwrap());
    wait_for_text(&late, "are gone from the store: push it again");
    ask(&one, &["policy", "push", &file, "--message", "again"]);
    wait_for(&late, "routing", "routing-by-origin", &json!({}));

    // Bytes that are not what their name says are replaced.
    assert_eq!(stand.redis(&format!("SET {key} nonsense")), "+OK");
    let other = stand.host("other", &[UNSIGNED]);
    wait_for_text(&other, "the store holds other bytes");
    ask(&one, &["policy", "push", &file]);
    wait_for(&other, "routing", "routing-by-origin", &json!({}));
    let repaired = stand.redis(&format!("STRLEN {key}"));
    assert_eq!(repaired, format!(":{}", fs::metadata(&file).unwrap().len()));
}

#[test]
fn a_host_without_the_bytes_of_one_policy_follows_the_others() {
    let stand = Stand::new();
    let one = stand.host("one", &[UNSIGNED]);
    ask(
        &one,
        &["policy", "activate", &stand.component("routing-by-origin")],
    );
    let other = ask(
        &one,
        &["policy", "activate", &stand.component("dead-letter")],
    );
    let routing = of_kind(&one, "routing")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        stand.redis(&format!("DEL oona:kept:policy:{routing}")),
        ":1"
    );
    let late = stand.host("late", &[UNSIGNED]);
    assert!(of_kind(&late, "routing")["native"].as_bool().unwrap());
    assert_eq!(
        of_kind(&late, "dead-letter")["digest"],
        other["policy"]["digest"]
    );
}

#[test]
fn a_host_follows_as_soon_as_somebody_whom_it_trusts_has_signed() {
    let stand = Stand::new();
    let file = stand.component("routing-by-origin");
    for name in ["ours", "theirs"] {
        assert!(
            binary::run(&["policy", "keygen", &stand.at(name)])
                .status
                .success()
        );
    }
    let trusting = |name: &str| format!("policies.trusted_keys=[{:?}]", stand.at(name));
    let one = stand.host("one", &[UNSIGNED]);
    let theirs = stand.host("theirs", &[&trusting("theirs.pub")]);
    ask(&one, &["policy", "activate", &file]);
    wait_for_text(
        &theirs,
        "does not follow the registry: the policy is not signed",
    );
    // A trial that a host cannot take part in is seen there too.
    ask(&one, &["policy", "shadow", &stand.component("routing")]);
    wait_for_text(&theirs, "this host does not try the candidate of revision");
    let trial = &of_kind(&theirs, "routing")["status"]["registry"]["trial"];
    assert!(
        trial["refused"].as_str().unwrap().contains("not signed"),
        "{trial}"
    );
    let key = stand.at("theirs.key");
    assert!(
        binary::run(&["policy", "sign", &file, "--key", &key])
            .status
            .success()
    );
    let inspected = binary::run(&["policy", "inspect", &file, "--output", "json"]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(
        inspected["signed_by"].as_array().unwrap().len(),
        1,
        "{inspected}"
    );
    ask(
        &one,
        &["policy", "push", &file, "--message", "signed by them"],
    );
    wait_for(&theirs, "routing", "routing-by-origin", &json!({}));
}

#[test]
fn a_component_that_does_not_start_is_no_reason_to_have_no_bus() {
    let stand = Stand::new();
    let broken = stand.path("broken.wasm");
    fs::write(&broken, "no component").unwrap();
    let file = format!("policies.routing.file={}", broken.display());
    let own = "policies.routing.config={its_own = 1}";
    let starts = |settings: &[&str], reason: &str| {
        let host = stand.host("one", &[&[UNSIGNED], settings].concat());
        let policy = of_kind(&host, "routing");
        assert!(policy["native"].as_bool().unwrap());
        assert_eq!(policy["config"], json!({}));
        publish(&host, "edge", 1);
        let told = policy["status"]["not_started"].as_str().unwrap();
        assert!(told.contains(reason), "{told}");
        assert!(listed(&host).contains("not what the host was to start with"));
        assert!(
            host.log().contains("not used: the built-in policy decides"),
            "{}",
            host.log()
        );
        let written = wait_until(|| {
            let history = ask(&host, &["policy", "history", "routing"]);
            let changes = history["changes"].to_string();
            changes.contains("fell-back")
                && changes.contains("not put in use when the host started")
        });
        assert!(written, "{}", host.log());
        host
    };
    starts(&[&file, own], "broken.wasm");
    let missing = format!("policies.routing.file={}", stand.at("missing.wasm"));
    starts(&[&missing], "cannot be read");
    // One that merely lies in the directory, with a configuration of its own.
    let directory = stand.path("policies");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("routing.wasm"), "no component").unwrap();
    let lies_there = format!("policies.directory={}", directory.display());
    let host = starts(&[&lies_there, own], "routing.wasm");
    // What somebody chooses then is in use, and nothing is left of it.
    let config = stand.path("none.toml");
    fs::write(&config, "").unwrap();
    let working = stand.component("routing-by-origin");
    ask(
        &host,
        &[
            "policy",
            "activate",
            &working,
            "--config",
            config.to_str().unwrap(),
        ],
    );
    assert_eq!(
        of_kind(&host, "routing")["status"]["not_started"],
        Value::Null
    );
    assert!(!listed(&host).contains("not what the host was to start with"));
}

#[test]
fn a_typing_error_in_the_configuration_of_a_policy_that_works_ends_the_host() {
    let stand = Stand::new();
    let file = format!(
        "policies.routing.file={}",
        stand.component("routing-by-origin")
    );
    let url = format!("store.url={}", stand.redis.url());
    for component in [Some(&*file), None] {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--set", &url];
        let none = format!("policies.directory={}", stand.at("nothing"));
        arguments.extend(["--set", &none, "--set", UNSIGNED]);
        arguments.extend(component.into_iter().flat_map(|file| ["--set", file]));
        arguments.extend(["--set", "policies.routing.config={originz = ['edge']}"]);
        let ended = binary::run(&arguments);
        assert_eq!(ended.status.code(), Some(2), "{}", text(&ended.stderr));
        assert!(
            text(&ended.stderr).contains("originz"),
            "{}",
            text(&ended.stderr)
        );
    }
}

#[test]
fn what_was_forced_is_seen_in_its_trial_and_after_it() {
    let stand = Stand::new();
    let host = stand.host("one", &[UNSIGNED]);
    let file = stand.path("hostile.wasm");
    fs::write(&file, policies::policy("hostile")).unwrap();
    let config = stand.path("traps.json");
    fs::write(&config, r#"{"mode": "trap", "after": 1}"#).unwrap();
    let (file, config) = (file.to_str().unwrap(), config.to_str().unwrap());
    let shadow = [
        "policy", "shadow", file, "--config", config, "--kind", "routing",
    ];
    assert!(refused(&host, &shadow).contains("--force laws"));
    ask(
        &host,
        &[&shadow[..], &["--force", "laws", "--message", "I know"]].concat(),
    );
    assert!(
        listed(&host).contains("tried though it did not pass: laws"),
        "{}",
        listed(&host)
    );
    ask(
        &host,
        &["policy", "promote", "routing", "--message", "still"],
    );
    assert!(
        listed(&host).contains("in use though it did not pass: laws"),
        "{}",
        listed(&host)
    );
    let history = oona(&host, &["policy", "history", "routing"]);
    let told: Vec<_> = text(&history.stdout)
        .lines()
        .filter(|line| line.contains("forced laws"))
        .collect();
    assert_eq!(told.len(), 2, "{}", text(&history.stdout));
    assert!(
        told[0].contains("stage routing") && told[1].contains("promote routing"),
        "{told:?}"
    );
}

#[test]
fn a_trial_begins_and_ends_by_command_and_by_itself() {
    let stand = Stand::new();
    let (one, two) = (
        stand.host("one", &[UNSIGNED]),
        stand.host("two", &[UNSIGNED]),
    );
    let file = stand.component("routing-by-origin");
    ask(
        &one,
        &[
            "policy",
            "canary",
            &file,
            "--share",
            "100%",
            "--message",
            "all",
        ],
    );
    let tried = |host: &Host| of_kind(host, "routing")["status"]["candidate"].clone();
    let both = || {
        [&one, &two]
            .into_iter()
            .all(|host| tried(host) != Value::Null)
    };
    assert!(wait_until(both), "{}", two.log());
    assert_eq!(
        tried(&two)["mode"],
        json!({ "canary": { "per_mille": 1_000 } })
    );
    publish(&one, "edge", 3);
    assert_eq!(tried(&one)["decided"], 3);
    ask(
        &two,
        &["policy", "withdraw", "routing", "--message", "enough"],
    );
    let neither = || {
        [&one, &two]
            .into_iter()
            .all(|host| tried(host) == Value::Null)
    };
    assert!(wait_until(neither), "{}", one.log());
    assert!(of_kind(&one, "routing")["native"].as_bool().unwrap());
    let again = refused(&one, &["policy", "withdraw", "routing"]);
    assert!(again.contains("no routing policy is tried"), "{again}");

    let by_itself = ["--promote", "--for", "0s", "--decisions", "3"];
    ask(
        &one,
        &[&["policy", "shadow", &file][..], &by_itself].concat(),
    );
    publish(&one, "centre", 3);
    for host in [&one, &two] {
        wait_for(host, "routing", "routing-by-origin", &json!({}));
    }
    let history = ask(&two, &["policy", "history", "routing", "--limit", "1"]);
    let last = &history["changes"][0];
    assert_eq!(last["action"], "promote");
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .starts_with("3 decisions in"),
        "{last}"
    );
}

#[test]
fn decisions_are_followed_as_they_are_made() {
    let stand = Stand::new();
    let host = stand.host("one", &[UNSIGNED, "policies.record_every=1"]);
    publish(&host, "edge", 2);
    let shown = |filter: &[&str]| {
        let log = ["policy", "log", "--kind", "routing"];
        let told = oona(&host, &[&log[..], filter].concat());
        assert!(told.status.success(), "{}", text(&told.stderr));
        text(&told.stdout).lines().count()
    };
    for (filter, count) in [
        (["--stream", "oona.normal"], 2),
        (["--stream", "oona.telemetry"], 0),
        (["--type", "field_report"], 2),
        (["--type", "telemetry"], 0),
        (["--version", "routing"], 2),
        (["--version", "native"], 2),
        (["--version", "2.0.0"], 0),
        (["--last", "1"], 1),
    ] {
        assert_eq!(shown(&filter), count, "{filter:?}");
    }
    let unknown = refused_or_usage(&host, &["policy", "log", "--type", "no_such_type"]);
    assert!(unknown.contains("no_such_type"), "{unknown}");

    let directory = tempfile::TempDir::new().unwrap();
    let server = host.address.to_string();
    let log = [
        "policy", "log", "--follow", "--last", "0", "--kind", "routing", "--server", &server,
    ];
    let out = stand.path("followed");
    let mut following = binary::command(&directory, &log)
        .stdout(Stdio::from(fs::File::create(&out).unwrap()))
        .spawn()
        .unwrap();
    let seen = wait_until(|| {
        publish(&host, "edge", 1);
        fs::read_to_string(&out)
            .unwrap()
            .contains("route oona.normal (type)")
    });
    following.kill().unwrap();
    following.wait().unwrap();
    assert!(seen, "{}", fs::read_to_string(&out).unwrap());
}

fn refused_or_usage(host: &Host, arguments: &[&str]) -> String {
    let output = oona(host, arguments);
    assert!(!output.status.success());
    text(&output.stderr).to_owned()
}
