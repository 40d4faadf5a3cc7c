//! Another configuration for the policy that a host was started with: an activation like any other.

use std::fs;

use oona_tests::binary::{Host, text, wait_until};
use oona_tests::policies;
use oona_tests::stand::{Stand, UNSIGNED, ask, of_kind, oona, refused, wait_for};
use serde_json::{Value, json};

fn publish(host: &Host, origin: &str) {
    let origin = format!("origin={origin}");
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

fn candidate(host: &Host, kind: &str) -> Value {
    of_kind(host, kind)["status"]["candidate"].clone()
}

#[test]
fn a_built_in_policy_gets_another_configuration_on_every_host() {
    let stand = Stand::new();
    let (one, two) = (
        stand.host("one", &[UNSIGNED]),
        stand.host("two", &[UNSIGNED]),
    );
    let file = |name: &str, content: &str| {
        fs::write(stand.path(name), content).unwrap();
        stand.at(name)
    };
    let stricter = file("stricter.toml", "conservative_factor = 0.25");
    let wrong = file("wrong.toml", "conservative_faktor = 0.25");
    let of = |command: &'static str, config: &str| {
        let words = [
            "policy",
            command,
            "--kind",
            "backpressure",
            "--config",
            config,
        ];
        words.map(str::to_owned)
    };
    let said = refused(&one, &of("activate", &wrong).each_ref().map(|word| &**word));
    assert!(
        said.contains("conservative_faktor") && said.contains("config     failed"),
        "{said}"
    );

    // Emergencies would be turned away before what is less urgent.
    let last = "admission = { emergency = 0.0, critical = 0.0, high = 0.0, normal = 0.0, low = 0.0 }\ndrop_threshold = 0.0";
    let last = file("last.toml", last);
    let said = refused(&one, &of("activate", &last).each_ref().map(|word| &**word));
    assert!(
        said.contains("it breaks `emergencies-come-first`") && said.contains("laws       failed"),
        "{said}"
    );

    let words = of("activate", &stricter);
    let activate = words.each_ref().map(|word| &**word);
    let dry = ask(&one, &[&activate[..], &["--dry-run"]].concat());
    assert_eq!(dry["policy"]["config"], json!({}));
    let activated = ask(&one, &[&activate[..], &["--message", "stricter"]].concat());
    let gates = activated["gates"].as_array().unwrap();
    assert!(
        gates
            .iter()
            .any(|gate| gate["gate"] == "config" && gate["status"] == "passed")
    );
    let config = json!({ "conservative_factor": 0.25 });
    for host in [&one, &two] {
        wait_for(host, "backpressure", "backpressure", &config);
        assert!(of_kind(host, "backpressure")["native"].as_bool().unwrap());
        publish(host, "edge");
    }
    let late = stand.host("late", &[UNSIGNED]);
    wait_for(&late, "backpressure", "backpressure", &config);
    let history = oona(&two, &["policy", "history", "backpressure"]);
    let told = text(&history.stdout);
    assert!(
        told.contains(r#"as the hosts were started, with {"conservative_factor":0.25}: stricter"#),
        "{told}"
    );

    ask(&two, &["policy", "rollback", "backpressure"]);
    for host in [&one, &two, &late] {
        wait_for(host, "backpressure", "backpressure", &json!({}));
    }
    let nothing = refused(&one, &["policy", "rollback", "backpressure"]);
    assert!(
        nothing.contains("there is nothing to go back to"),
        "{nothing}"
    );
}

#[test]
fn another_configuration_of_a_built_in_policy_is_tried_on_live_traffic() {
    let stand = Stand::new();
    let settings = [UNSIGNED, "policies.record_every=1"];
    let (one, two) = (stand.host("one", &settings), stand.host("two", &settings));
    publish(&one, "edge");
    let config = stand.path("away.toml");
    // Whatever is a report goes to the stream of telemetry.
    fs::write(&config, "streams = { normal = 'oona.telemetry' }").unwrap();
    let config = config.to_str().unwrap();
    let shadow = ask(
        &one,
        &["policy", "shadow", "--kind", "routing", "--config", config],
    );
    let gates = shadow["gates"].as_array().unwrap();
    let trial = gates.iter().find(|gate| gate["gate"] == "trial").unwrap();
    assert!(
        trial["detail"]
            .as_str()
            .unwrap()
            .contains("of the last 1 decisions, 1 would be different"),
        "{trial}"
    );
    let both = || {
        [&one, &two]
            .into_iter()
            .all(|host| candidate(host, "routing") != Value::Null)
    };
    assert!(wait_until(both), "{}", two.log());
    publish(&two, "edge");
    let tried = candidate(&two, "routing");
    assert_eq!(
        (&tried["decisions"], &tried["disagreements"]),
        (&json!(1), &json!(1))
    );
    let log = oona(&two, &["policy", "log", "--kind", "routing", "--last", "1"]);
    assert!(
        text(&log.stdout).contains("route oona.normal"),
        "a shadow changes nothing"
    );
    ask(&one, &["policy", "promote", "routing"]);
    let config = json!({ "streams": { "normal": "oona.telemetry" } });
    wait_for(&two, "routing", "routing", &config);
    publish(&two, "edge");
    let log = oona(&two, &["policy", "log", "--kind", "routing", "--last", "1"]);
    assert!(
        text(&log.stdout).contains("route oona.telemetry"),
        "{}",
        text(&log.stdout)
    );
    ask(&two, &["policy", "rollback", "routing"]);
    wait_for(&one, "routing", "routing", &json!({}));
}

#[test]
fn a_policy_out_of_the_directory_gets_another_configuration_and_goes_back() {
    let stand = Stand::new();
    let directory = stand.path("policies");
    fs::create_dir(&directory).unwrap();
    fs::write(
        directory.join("routing.wasm"),
        policies::policy("routing-by-origin"),
    )
    .unwrap();
    let lies_there = format!("policies.directory={}", directory.display());
    let settings = [UNSIGNED, &*lies_there];
    let (one, two) = (stand.host("one", &settings), stand.host("two", &settings));
    let config = stand.path("lab.toml");
    fs::write(&config, "origins = ['lab']").unwrap();
    let config = config.to_str().unwrap();
    ask(
        &one,
        &[
            "policy", "canary", "--kind", "routing", "--config", config, "--share", "100%",
        ],
    );
    assert!(
        wait_until(|| candidate(&two, "routing") != Value::Null),
        "{}",
        two.log()
    );
    publish(&two, "lab");
    assert_eq!(candidate(&two, "routing")["decided"], 1);
    ask(&two, &["policy", "withdraw", "routing"]);
    ask(
        &one,
        &[
            "policy", "activate", "--kind", "routing", "--config", config,
        ],
    );
    for host in [&one, &two] {
        wait_for(
            host,
            "routing",
            "routing-by-origin",
            &json!({ "origins": ["lab"] }),
        );
    }
    ask(&one, &["policy", "rollback", "routing"]);
    for host in [&one, &two] {
        wait_for(host, "routing", "routing-by-origin", &json!({}));
    }
}
