//! What `oona policy new` and `build` promise: a crate that builds and passes, and the same bytes from
//! the same source.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oona_tests::binary::{command, text};
use serde_json::Value;
use tempfile::TempDir;

const KINDS: [&str; 4] = ["routing", "backpressure", "freshness", "dead-letter"];

/// Runs `oona` in a directory, with what is built kept in its `target`.
fn oona(directory: &TempDir, arguments: &[&str]) -> Output {
    command(directory, arguments)
        .env("CARGO_TARGET_DIR", directory.path().join("target"))
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(directory: &TempDir, arguments: &[&str]) -> Vec<Value> {
    let output = oona(directory, &[arguments, &["--output", "json"]].concat());
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    let lines = text(&output.stdout).lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn fails(directory: &TempDir, arguments: &[&str]) -> String {
    let output = oona(directory, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeds");
    text(&output.stderr).to_owned()
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=ada", "-c", "user.email=ada@example.org"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// Copies what an author would hand on: the source, without what was built.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_new_policy_of_each_kind_builds_passes_and_is_the_same_wherever_it_is_built() {
    let (desk, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let names = KINDS.map(|kind| format!("my-{kind}"));
    for (kind, name) in KINDS.iter().zip(&names) {
        succeeds(&desk, &["policy", "new", kind, name]);
    }
    let build = |directory: &TempDir, under: &str, names: &[String]| {
        let paths = names.iter().map(|name| format!("{under}{name}"));
        let paths: Vec<_> = paths.collect();
        let mut arguments = vec!["policy", "build", "--out", "built"];
        arguments.extend(paths.iter().map(String::as_str));
        succeeds(directory, &arguments)
    };
    let built = build(&desk, "", &names);
    for (kind, (name, built)) in KINDS.iter().zip(names.iter().zip(&built)) {
        assert_eq!(
            (&built["kind"], &built["name"]),
            (&Value::from(*kind), &Value::from(name.as_str()))
        );
        assert_eq!(built["revision"], Value::Null, "it is in no repository");
        let file = built["file"].as_str().unwrap();
        let tested = succeeds(&desk, &["policy", "test", file, "--coverage"]).remove(0);
        assert_eq!(tested["failed"], 0, "{tested}");
        let coverage = &tested["coverage"];
        let branches = ["reasons", "configuration"].map(|what| coverage[what].as_array().unwrap());
        for branch in branches.into_iter().flatten() {
            assert_ne!(branch["cases"], 0, "{kind}: {branch}");
        }
        let cases = format!("{name}/cases.toml");
        let checked = succeeds(
            &desk,
            &["policy", "check", file, "--runs", "300", "--cases", &cases],
        );
        assert_eq!(checked[0]["kept"], true, "{checked:?}");
    }
    for name in &names {
        let crate_directory = desk.path().join(name);
        for arguments in [&["test", "--quiet"][..], &["fmt", "--check"]] {
            let output = Command::new("cargo")
                .args(arguments)
                .current_dir(&crate_directory)
                .env("CARGO_TARGET_DIR", desk.path().join("target"))
                .output()
                .unwrap();
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert!(
                output.status.success(),
                "cargo {arguments:?} of {name}: {said}"
            );
        }
        copy(
            &crate_directory,
            &elsewhere.path().join("deeper/still").join(name),
        );
    }
    // Two are enough: what could differ is the compiler's and the SDK's.
    let there = build(&elsewhere, "deeper/still/", &names[..2]);
    for (here, there) in built.iter().zip(there) {
        let bytes = |directory: &TempDir, built: &Value| {
            fs::read(directory.path().join(built["file"].as_str().unwrap())).unwrap()
        };
        assert!(
            bytes(&desk, here) == bytes(&elsewhere, &there),
            "{here} and {there}"
        );
    }

    let again = build(&desk, "", &names);
    assert!(
        again.iter().all(|built| built["changed"] == false),
        "{again:?}"
    );

    // What is checked out, and whether it was changed since, is told.
    let repository = desk.path().join(&names[0]);
    git(&repository, &["init", "--quiet"]);
    git(&repository, &["add", "."]);
    git(
        &repository,
        &["commit", "--quiet", "--message", "as it was made"],
    );
    let head = git(&repository, &["rev-parse", "HEAD"]);
    assert_eq!(build(&desk, "", &names)[0]["revision"], head);
    let cases = repository.join("cases.toml");
    let table = fs::read_to_string(&cases).unwrap();
    fs::write(&cases, table.replace("goes apart", "goes elsewhere")).unwrap();
    let changed = build(&desk, "", &names).remove(0);
    assert_eq!(changed["revision"], format!("{head}-dirty"));
    let inspected = succeeds(
        &desk,
        &["policy", "inspect", changed["file"].as_str().unwrap()],
    );
    assert_eq!(inspected[0]["revision"], changed["revision"]);
    assert_eq!(inspected[0]["cases"], 6);

    // What does not build says why, and leaves what was built.
    fs::write(
        &cases,
        "kind = 'freshness'\n[[case]]\nname = 'x'\nexpect = { verdict = 'fresh' }\n",
    )
    .unwrap();
    let refused = fails(&desk, &["policy", "build", &names[0]]);
    assert!(
        refused.contains("is about a freshness policy, and this is a routing policy"),
        "{refused}"
    );
    fs::write(repository.join("src/lib.rs"), "fn decide() -> u8 { false }").unwrap();
    let refused = fails(&desk, &["policy", "build", &names[0], "--out", "built"]);
    assert!(refused.contains("mismatched types"), "{refused}");
    assert!(refused.contains("it does not compile"), "{refused}");
    assert!(
        desk.path()
            .join("built")
            .join(format!("{}.wasm", names[0]))
            .exists()
    );
}

#[test]
fn what_cannot_be_made_is_refused_with_a_reason() {
    let desk = TempDir::new().unwrap();
    let kind = fails(&desk, &["policy", "new", "router", "mine"]);
    assert!(kind.contains("routing"), "{kind}");
    let name = fails(&desk, &["policy", "new", "routing", "../mine"]);
    assert!(name.contains("`../mine` is no name for a policy"), "{name}");
    fs::create_dir(desk.path().join("mine")).unwrap();
    fs::write(desk.path().join("mine/notes"), "").unwrap();
    let taken = fails(&desk, &["policy", "new", "routing", "mine"]);
    assert!(
        taken.contains("mine is there already, and not empty"),
        "{taken}"
    );
    let nothing = fails(&desk, &["policy", "build", "mine"]);
    assert!(
        nothing.contains("neither a Cargo.toml nor a policy.toml"),
        "{nothing}"
    );
}

/// A policy in another language is whatever its command writes.
#[test]
fn a_command_builds_what_cargo_does_not() {
    let desk = TempDir::new().unwrap();
    let project = desk.path().join("mine");
    fs::create_dir(&project).unwrap();
    let component: PathBuf = oona_tests::policies::directory().join("freshness.wasm");
    let build = |command: &str| {
        let manifest = format!("kind = 'freshness'\nbuild = ['sh', '-c', {command:?}]\n");
        fs::write(project.join("policy.toml"), manifest).unwrap();
    };
    build(&format!(
        "grep -q 'world freshness-policy' \"$OONA_WIT/freshness.wit\" && [ $OONA_WORLD = freshness-policy ] && cp {} $OONA_OUT",
        component.display()
    ));
    let built = succeeds(&desk, &["policy", "build", "mine"]).remove(0);
    assert_eq!(built["name"], "freshness");
    let file = built["file"].as_str().unwrap();
    assert!(file.ends_with("mine/target/policies/mine.wasm"), "{file}");

    let refused = |command: &str, expected: &str| {
        build(command);
        let refused = fails(&desk, &["policy", "build", "mine"]);
        assert!(refused.contains(expected), "{refused}");
    };
    refused("exit 3", "failed; its words are above");
    refused("true", "wrote nothing to $OONA_OUT");
    refused("printf nonsense > $OONA_OUT", "it is not a component");
    refused(
        "printf '\\0asm\\1\\0\\0\\0' > $OONA_OUT",
        "no component can be made of this module",
    );
}
