//! WIT is the contract, not Rust: the examples in C and in Python, with the commands of a crate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use oona_tests::binary::{command, text};
use serde_json::Value;
use tempfile::TempDir;
use wit_bindgen_core::{Files, wit_parser::Resolve};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// What `oona policy` says, as JSON.
#[track_caller]
fn policy(desk: &TempDir, arguments: &[&str]) -> Value {
    let output = command(
        desk,
        &[&["policy"], arguments, &["--output", "json"]].concat(),
    )
    .output()
    .unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_str(text(&output.stdout)).unwrap()
}

/// Builds, looks at, tests, checks and measures an example, beside the shipped policy of its kind.
fn goes_the_way_of_a_crate(example: &str, kind: &str) {
    let desk = TempDir::new().unwrap();
    let source = root().join("examples").join(example);
    let built = policy(&desk, &["build", source.to_str().unwrap(), "--out", "."]);
    assert_eq!(
        (&built["kind"], &built["name"]),
        (&kind.into(), &example.into())
    );
    let file = built["file"].as_str().unwrap();

    let inspected = policy(&desk, &["inspect", file]);
    let imports = ["oona:policy/types@0.1.0", "oona:policy/host@0.1.0"];
    assert_eq!(inspected["imports"], Value::from(&imports[..]));

    let tested = policy(&desk, &["test", file, "--coverage"]);
    assert_eq!(tested["failed"], 0, "{tested}");
    let coverage = &tested["coverage"];
    for what in ["reasons", "configuration"] {
        for branch in coverage[what].as_array().unwrap() {
            assert_ne!(branch["cases"], 0, "{branch}");
        }
    }
    let checked = policy(&desk, &["check", file, "--runs", "200"]);
    assert_eq!(checked["kept"], true, "{checked}");
    let laws = checked["laws"].as_array().unwrap();
    assert!(
        laws.iter().any(|law| law["says"] == "a law of your own"),
        "{checked}"
    );

    let shipped = root().join(format!("target/policies/{kind}.wasm"));
    let beside = ["--against", shipped.to_str().unwrap(), "--rounds", "1"];
    let measured = policy(&desk, &[&["bench", file][..], &beside].concat());
    for who in ["policy", "against"] {
        assert!(
            measured[who]["start_us"].as_f64().unwrap() > 0.0,
            "{measured}"
        );
    }
}

#[test]
fn a_policy_in_c_goes_the_way_of_a_crate() {
    goes_the_way_of_a_crate("freshness-in-c", "freshness");
}

#[test]
fn a_policy_in_python_goes_the_way_of_a_crate() {
    goes_the_way_of_a_crate("routing-in-python", "routing");
}

#[test]
fn the_bindings_of_c_are_those_of_the_world() {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit")).unwrap();
    let world = resolve
        .select_world(&[package], Some("freshness-policy"))
        .unwrap();
    let mut files = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve, world, &mut files).unwrap();
    let bindings = root().join("examples/freshness-in-c/bindings");
    let mut compared = 0;
    for (name, generated) in files.iter() {
        // What describes the world to a linker is what `oona policy build` adds.
        if !name.ends_with(".o") {
            let kept = fs::read(bindings.join(name)).unwrap();
            assert!(
                kept == generated,
                "{name} is not what wit-bindgen makes of wit/: run `wit-bindgen c wit --world \
                 freshness-policy --out-dir examples/freshness-in-c/bindings`"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 2);
}
