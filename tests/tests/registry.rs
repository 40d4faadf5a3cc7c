//! The registry as people use it: real hosts, a real Redis, the real command line.

use std::fs;

use oona_tests::binary::{self, text, wait_until};
use oona_tests::stand::{Stand, UNSIGNED, ask, of_kind, oona, oona_with, refused, wait_for};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[test]
fn every_host_follows_and_one_command_goes_back() {
    let stand = Stand::new();
    let (one, two) = (
        stand.host("one", &[UNSIGNED]),
        stand.host("two", &[UNSIGNED]),
    );
    let file = stand.component("routing-by-origin");
    let config = stand.path("lab.toml");
    fs::write(&config, "origins = ['lab']").unwrap();

    let pushed = ask(&one, &["policy", "push", &file, "--message", "release 2"]);
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    assert!(
        of_kind(&one, "routing")["native"].as_bool().unwrap(),
        "to push activates nothing"
    );
    let activated = ask(
        &one,
        &[
            "policy",
            "activate",
            &digest[..12],
            "--message",
            "edge apart",
        ],
    );
    assert_eq!(activated["policy"]["digest"], digest);
    let first = activated["revision"].as_u64().unwrap();
    let gates: Vec<_> = activated["gates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gate| gate["gate"].as_str().unwrap())
        .collect();
    assert_eq!(gates[..4], ["component", "signature", "config", "start"]);
    wait_for(&two, "routing", "routing-by-origin", &json!({}));

    // A configuration alone is an activation, from whichever host.
    let lab = config.to_str().unwrap();
    ask(
        &two,
        &[
            "policy",
            "activate",
            "--kind",
            "routing",
            "--config",
            lab,
            "--message",
            "lab",
        ],
    );
    wait_for(
        &one,
        "routing",
        "routing-by-origin",
        &json!({ "origins": ["lab"] }),
    );
    // One that starts later is where all others are when its port is open.
    let late = stand.host("late", &[UNSIGNED]);
    assert_eq!(
        of_kind(&late, "routing")["config"],
        json!({ "origins": ["lab"] })
    );

    let difference = ask(&one, &["policy", "diff", "routing", &first.to_string()]);
    assert_eq!(
        difference["changes"],
        json!([{ "what": "config.origins", "from": null, "to": ["lab"] }])
    );

    let back = ask(
        &one,
        &["policy", "rollback", "routing", "--message", "too much"],
    );
    assert_eq!(back["policy"]["config"], json!({}));
    wait_for(&two, "routing", "routing-by-origin", &json!({}));
    ask(&two, &["policy", "rollback", "routing"]);
    wait_for(&one, "routing", "routing", &json!({}));
    assert!(of_kind(&one, "routing")["native"].as_bool().unwrap());
    let nothing = refused(&one, &["policy", "rollback", "routing"]);
    assert!(
        nothing.contains("there is nothing to go back to"),
        "{nothing}"
    );

    let history = ask(&two, &["policy", "history", "routing"]);
    let told: Vec<_> = history["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let word = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
            (word("action"), word("message"))
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(action, message)| (&**action, &**message))
        .collect();
    let expected = [
        ("push", "release 2"),
        ("activate", "edge apart"),
        ("activate", "lab"),
        ("activate", "too much"),
        ("activate", ""),
    ];
    assert_eq!(told, expected);
    let by = history["changes"][0]["by"].as_str().unwrap();
    assert!(by.ends_with("(not authenticated)"), "{by}");
}

#[test]
fn a_host_that_has_not_read_for_long_goes_back_from_what_is_in_use() {
    let stand = Stand::new();
    let slow = stand.host("slow", &[UNSIGNED, "registry.poll_ms=60000"]);
    let one = stand.host("one", &[UNSIGNED]);
    ask(
        &one,
        &["policy", "activate", &stand.component("routing-by-origin")],
    );
    assert!(of_kind(&slow, "routing")["native"].as_bool().unwrap());
    let back = ask(&slow, &["policy", "rollback", "routing"]);
    assert_eq!(back["revision"], 3);
    wait_for(&one, "routing", "routing", &json!({}));
}

#[test]
fn a_host_that_starts_without_its_store_goes_by_its_cache() {
    let mut stand = Stand::new();
    let mut host = stand.host("one", &[UNSIGNED]);
    let file = stand.component("routing-by-origin");
    ask(&host, &["policy", "activate", &file]);
    host.kill();
    stand.redis.kill();

    let host = stand.host("one", &[UNSIGNED]);
    assert_eq!(of_kind(&host, "routing")["name"], "routing-by-origin");
    let unavailable = oona(&host, &["policy", "rollback", "routing"]);
    assert_eq!(
        unavailable.status.code(),
        Some(3),
        "{}",
        text(&unavailable.stderr)
    );
    assert!(
        text(&unavailable.stderr).contains("nothing that is in use has changed"),
        "{}",
        text(&unavailable.stderr)
    );
    // A cache that ends in half a line, as after a crash, holds what whole lines say.
    drop(host);
    let list = stand.path("one").join("list.jsonl");
    let mut lines = fs::read(&list).unwrap();
    lines.extend_from_slice(b"{\"at\":[17");
    fs::write(&list, lines).unwrap();
    let host = stand.host("one", &[UNSIGNED]);
    assert_eq!(of_kind(&host, "routing")["name"], "routing-by-origin");

    stand.redis.restart();
    let back = wait_until(|| {
        oona(&host, &["policy", "rollback", "routing"])
            .status
            .success()
    });
    assert!(back, "{}", host.log());
    assert!(of_kind(&host, "routing")["native"].as_bool().unwrap());
}

#[test]
fn only_what_a_trusted_key_has_signed_is_used() {
    let stand = Stand::new();
    let file = stand.component("routing-by-origin");
    let run = |arguments: &[&str]| binary::run(arguments);
    for name in ["release", "other"] {
        assert!(run(&["policy", "keygen", &stand.at(name)]).status.success());
    }
    let again = run(&["policy", "keygen", &stand.at("release")]);
    assert_eq!(again.status.code(), Some(1), "a key is never replaced");
    let trusted = format!("policies.trusted_keys=[{:?}]", stand.at("release.pub"));
    // Where keys are configured, the word of nobody else counts.
    let host = stand.host("one", &[&trusted, UNSIGNED]);

    let unsigned = refused(&host, &["policy", "activate", &file]);
    assert!(
        unsigned.contains("the policy is not signed: use `oona policy sign`"),
        "{unsigned}"
    );
    assert!(
        unsigned.contains("signature  failed"),
        "each gate is told:\n{unsigned}"
    );
    let sign = |key: &str| run(&["policy", "sign", &file, "--key", &stand.at(key)]);
    assert!(sign("other.key").status.success());
    let wrong = refused(&host, &["policy", "push", &file]);
    assert!(
        wrong.contains("none of its signatures is by a key of policies.trusted_keys"),
        "{wrong}"
    );
    let verify = || run(&["policy", "verify", &file, "--key", &stand.at("release.pub")]);
    assert_eq!(verify().status.code(), Some(1));
    assert!(sign("release.key").status.success());
    assert!(verify().status.success());
    assert_eq!(
        sign("release.pub").status.code(),
        Some(1),
        "a public key signs nothing"
    );

    let pushed = ask(&host, &["policy", "push", &file]);
    assert_eq!(pushed["signed_by"].as_array().unwrap().len(), 2);
    ask(&host, &["policy", "activate", &file]);

    // One byte more, and the signatures are of something else.
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(&[0, 2, 1, b'x']);
    fs::write(&file, bytes).unwrap();
    let changed = verify();
    assert!(
        text(&changed.stdout).contains("it was changed after it was signed"),
        "{}",
        text(&changed.stdout)
    );
    let tampered = refused(&host, &["policy", "activate", &file]);
    assert!(tampered.contains("none of its signatures"), "{tampered}");

    // A host that trusts somebody else does not follow, and says so.
    let other = format!("policies.trusted_keys=[{:?}]", stand.at("other.pub"));
    let follows = stand.host("two", &[&other]);
    assert_eq!(
        of_kind(&follows, "routing")["name"],
        "routing-by-origin",
        "that one has signed it too"
    );
    assert!(
        run(&["policy", "keygen", &stand.at("third")])
            .status
            .success()
    );
    let third = format!("policies.trusted_keys=[{:?}]", stand.at("third.pub"));
    let stays = stand.host("three", &[&third]);
    let status = of_kind(&stays, "routing");
    assert!(status["native"].as_bool().unwrap());
    let reason = status["status"]["registry"]["refused"].as_str().unwrap();
    assert!(reason.contains("none of its signatures"), "{reason}");
}

#[test]
fn a_token_gives_rights() {
    let stand = Stand::new();
    let file = stand.component("routing");
    let token = |name: &str, token: &str, right: &str| {
        let digest = Sha256::digest(token);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = '{name}'\nsha256 = '{digest}'\nrights = ['{right}']\n")
    };
    let tokens = token("ada", "write", "policies:write") + &token("bob", "read", "policies:read");
    fs::write(stand.path("tokens.toml"), tokens).unwrap();
    let setting = format!("access.tokens_file={}", stand.at("tokens.toml"));
    let host = stand.host("one", &[UNSIGNED, &setting]);
    let with = |token: &str, arguments: &[&str]| {
        oona_with(&host, arguments, |command| {
            command.env("OONA_TOKEN", token);
        })
    };
    let nobody = oona(&host, &["policy", "list"]);
    assert!(
        text(&nobody.stderr).contains("OONA_TOKEN"),
        "{}",
        text(&nobody.stderr)
    );
    assert!(!with("guess", &["policy", "list"]).status.success());
    assert!(with("read", &["policy", "list"]).status.success());
    let lacks = with("read", &["policy", "activate", &file]);
    assert!(
        text(&lacks.stderr).contains("`bob` lacks the right policies:write"),
        "{}",
        text(&lacks.stderr)
    );
    assert!(
        with("write", &["policy", "activate", &file])
            .status
            .success()
    );
    let history = with("read", &["policy", "history", "--output", "json"]);
    let history: Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(history["changes"][0]["by"], "ada");
}

#[test]
fn decisions_are_recorded_watched_replayed_and_explained() {
    let stand = Stand::new();
    let log = format!("policies.record_file={}", stand.at("decisions.jsonl"));
    let host = stand.host("one", &[UNSIGNED, "policies.record_every=1", &log]);
    let file = stand.component("routing-by-origin");
    for number in 0..5 {
        let payload = format!("report {number}");
        let published = [
            "publish",
            &payload,
            "--type",
            "field_report",
            "--attr",
            "origin=edge",
        ];
        assert!(oona(&host, &published).status.success());
    }
    let told = oona(
        &host,
        &[
            "policy", "log", "--kind", "routing", "--reason", "type", "--output", "json",
        ],
    );
    let lines: Vec<Value> = text(&told.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["message"]["attributes"]["origin"], "edge");
    assert_eq!(lines[0]["decision"]["stream"], "oona.normal");
    let none = oona(&host, &["policy", "log", "--reason", "no such reason"]);
    assert_eq!(text(&none.stdout), "");

    let in_memory = ask(&host, &["policy", "replay", &file]);
    let path = stand.at("decisions.jsonl");
    let written = wait_until(|| {
        fs::read_to_string(&path)
            .unwrap_or_default()
            .lines()
            .count()
            == 10
    });
    assert!(written, "five of routing and five of backpressure");
    let from_file = ask(
        &host,
        &["policy", "replay", &file, "--log", &path, "--since", "1h"],
    );
    for replayed in [&in_memory, &from_file] {
        assert_eq!(
            (&replayed["decisions"], &replayed["changed"]),
            (&json!(5), &json!(5))
        );
        assert_eq!(replayed["pairs"][0]["to"], "route oona.telemetry (origin)");
    }
    let nothing = refused(
        &host,
        &["policy", "replay", &file, "--log", &path, "--since", "0s"],
    );
    assert!(nothing.contains("no recorded decisions"), "{nothing}");

    ask(&host, &["policy", "activate", &file]);
    let recorded = stand.path("recorded.json");
    fs::write(&recorded, lines[0].to_string()).unwrap();
    let explained = ask(&host, &["explain", recorded.to_str().unwrap()]);
    let decisions = explained["decisions"].as_array().unwrap();
    let kinds: Vec<_> = decisions
        .iter()
        .map(|decision| decision["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["routing", "backpressure", "freshness", "dead-letter"]
    );
    assert_eq!(decisions[0]["decision"]["reason"], "origin");
    assert_eq!(decisions[1]["state"]["stream"], "oona.telemetry");
    assert_eq!(decisions[1]["decision"]["verdict"], "admit");
}
