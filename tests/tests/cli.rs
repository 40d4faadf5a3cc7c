//! The command line: what a person meets before and without a bus.

use oona_tests::binary::{command, run, text};
use tempfile::TempDir;

/// Every command, as it is typed.
const COMMANDS: [&[&str]; 21] = [
    &["serve"],
    &["doctor"],
    &["publish"],
    &["subscribe"],
    &["policy"],
    &["policy", "activate"],
    &["policy", "list"],
    &["policy", "componentize"],
    &["broadcast"],
    &["breaker", "list"],
    &["breaker", "open"],
    &["breaker", "close"],
    &["breaker", "release"],
    &["mode", "show"],
    &["mode", "conservative"],
    &["mode", "normal"],
    &["mode", "auto"],
    &["housekeeping", "show"],
    &["housekeeping", "run"],
    &["top"],
    &["bench"],
];

#[test]
fn every_command_has_help_with_an_example() {
    for name in COMMANDS {
        let arguments: Vec<_> = name.iter().copied().chain(["--help"]).collect();
        let output = run(&arguments);
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{name:?}");
        assert!(help.contains("Usage: oona"), "{name:?}: {help}");
        let example = format!("oona {}", name.join(" "));
        let group = name == ["policy"];
        let shown = help.contains("Example") && help.matches(&example).count() > 1;
        assert!(group || shown, "{name:?} shows no example: {help}");
    }
}

#[test]
fn every_command_with_a_result_has_it_as_json() {
    for name in COMMANDS
        .iter()
        .filter(|name| !matches!(name, [.., "policy" | "componentize"]))
    {
        let arguments: Vec<_> = name.iter().copied().chain(["--help"]).collect();
        assert!(
            text(&run(&arguments).stdout).contains("--output"),
            "{name:?}"
        );
    }
}

#[test]
fn the_first_help_tells_exit_codes_and_where_to_start() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    for line in [
        "Exit codes:",
        "oona serve --dev",
        "oona publish",
        "oona subscribe",
    ] {
        assert!(help.contains(line), "no `{line}` in {help}");
    }
}

#[test]
fn exit_codes_mean_something() {
    // Port 1 is nobody's.
    let nobody = ["--server", "127.0.0.1:1"];
    let table: [(&[&str], i32, &str); 10] = [
        (&["--version"], 0, ""),
        (&[], 2, "Usage: oona"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["publish", "x", "--type", "nope"], 2, "no type of message"),
        (
            &["publish", "x", "--priority", "nope"],
            2,
            "no priority; use one of low, normal",
        ),
        (&["publish", "x", "--count", "0"], 2, "--count"),
        (
            &["publish", "x", nobody[0], nobody[1]],
            3,
            "nothing answers at 127.0.0.1:1",
        ),
        (
            &["policy", "list", nobody[0], nobody[1]],
            3,
            "start a bus with `oona serve`",
        ),
        (
            &["policy", "list", "--server", "not an address"],
            2,
            "is no address",
        ),
        (
            &["policy", "componentize", "nowhere.wasm", "--out", "x"],
            1,
            "cannot read nowhere.wasm",
        ),
    ];
    for (arguments, code, said) in table {
        let output = run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
}

#[test]
fn what_is_no_module_is_no_component() {
    let directory = TempDir::new().expect("a temporary directory");
    std::fs::write(directory.path().join("text.wasm"), "text").expect("a file");
    let arguments = ["policy", "componentize", "text.wasm", "--out", "out.wasm"];
    let output = command(&directory, &arguments)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.starts_with("oona: cannot make a component of text.wasm: "),
        "{told}"
    );
    assert!(!directory.path().join("out.wasm").exists());
}

#[test]
fn a_wrong_configuration_is_one_message_with_file_line_key_and_remedy() {
    let table = [
        (
            "[streams]\nnromal = 'x'\n",
            "oona: oona.toml:2: streams.nromal: unknown key; did you mean `normal`?\n",
        ),
        (
            "[publish]\n\nqueue_max = 'many'\n",
            "oona: oona.toml:3: publish.queue_max: expected a whole number, found a text\n",
        ),
        (
            "[conservative]\nlow_water = 4000\n",
            "oona: oona.toml:2: conservative.low_water: conservative.high_water (4000) must be \
             more than conservative.low_water (4000), or conservative mode would be left the \
             moment it is entered\n",
        ),
        (
            "[server]\nlisten = '0.0.0.0:0'\n",
            "oona: oona.toml:2: server.listen: 0.0.0.0:0 can be reached from other machines and \
             there is no authentication; listen on 127.0.0.1, or set server.allow_remote = true\n",
        ),
        (
            "[store]\nurl = 'http://user:hunter2@db'\n",
            "oona: oona.toml:2: store.url: not a Redis URL, which looks like \
             redis://[user:password@]host[:port][/database], or like \
             redis+sentinel://[user:password@]host[:port],…/master[/database]\n",
        ),
        (
            "[signing]\nalso_accept_env = ['OLD_SECRET']\n",
            "oona: oona.toml:2: signing.also_accept_env: the environment variable OLD_SECRET is \
             not set\n",
        ),
        (
            "[policies.routing.config]\nnonsense = 1\n",
            "oona: oona.toml:2: policies.routing.config.nonsense: ",
        ),
    ];
    for (file, message) in table {
        let directory = TempDir::new().expect("a temporary directory");
        std::fs::write(directory.path().join("oona.toml"), file).expect("a file");
        let output = command(&directory, &["serve", "--policies", "."])
            .output()
            .expect("the binary starts");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{file}: {told}");
        assert!(told.starts_with(message), "{file}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_refused() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut serve = command(&directory, &["serve"]);
    let output = serve
        .env("OONA_STORE_ULR", "x")
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    let message =
        "oona: environment variable OONA_STORE_ULR: unknown; did you mean OONA_STORE_URL?\n";
    assert_eq!(told, message);
}

#[test]
fn the_defaults_can_be_printed_and_used_as_they_are() {
    let directory = TempDir::new().expect("a temporary directory");
    let output = run(&["serve", "--print-defaults"]);
    let defaults = text(&output.stdout);
    assert!(defaults.contains("\n[store]\n"), "{defaults}");
    // They are a configuration themselves; one key more, and it is refused at that line.
    let more = format!("{defaults}\nnonsense = 1\n");
    std::fs::write(directory.path().join("oona.toml"), &more).expect("a file");
    let output = command(&directory, &["serve"])
        .output()
        .expect("the binary starts");
    let line = defaults.lines().count() + 2;
    let told = text(&output.stderr);
    assert!(
        told.starts_with(&format!(
            "oona: oona.toml:{line}: log.nonsense: unknown key"
        )),
        "{told}"
    );
}

#[test]
fn exit_on_unavailable_means_it() {
    let arguments = [
        "serve",
        "--redis",
        "redis://127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
    ];
    let quick = ["--set", "store.give_up_after_ms=50"];
    let output = run(&[&arguments[..], &quick[..]].concat());
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("oona: gave up on the store"), "{told}");
}
