//! Rules about the repository itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use oona_tests::binary::{run, text};

/// The longest source file. What is longer has two subjects.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every text file, with its path from the root; what is built and what is hidden left out.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(root().join(&directory)).expect("it can be listed");
        for entry in entries {
            let entry = entry.expect("it can be listed");
            let name = entry.file_name();
            let path = directory.join(&name);
            let name = name.to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if entry.path().is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                found.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(found.len() > 100, "this is the repository");
    found
}

#[test]
fn nothing_is_left_undone_or_tied_to_one_machine() {
    // Written in halves, so that this file keeps its own rules.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
    ];
    let words = words.map(|halves| halves.concat());
    for (path, text) in files() {
        if path == "Cargo.lock" || path.ends_with(".json") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(&***word));
            assert_eq!(found, None, "{path}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn no_source_file_is_too_long() {
    for (path, text) in files() {
        if path.ends_with(".rs") {
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{path} has {lines} lines");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for (path, text) in files() {
        if !path.ends_with(".md") {
            continue;
        }
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            if link.contains("://") || link.is_empty() {
                continue;
            }
            links += 1;
            let place = root().join(&path).with_file_name("").join(link);
            assert!(place.exists(), "{path} links to {link}");
        }
    }
    assert!(links > 5, "the documents link to each other");
}

#[test]
fn commands_in_the_documents_exist() {
    let mut verbs = BTreeSet::new();
    for (path, text) in files() {
        if !path.ends_with(".md") {
            continue;
        }
        for line in text.lines() {
            let line = line.trim().trim_start_matches("target/release/");
            let Some(words) = line.strip_prefix("oona ") else {
                continue;
            };
            let words = words.split_whitespace();
            let command = words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            verbs.insert(command.map(str::to_owned).collect::<Vec<_>>());
        }
    }
    assert!(verbs.len() > 4, "{verbs:?}");
    for verb in verbs {
        let arguments: Vec<_> = verb.iter().map(String::as_str).chain(["--help"]).collect();
        let output = run(&arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "oona {verb:?}: {}",
            text(&output.stderr)
        );
    }
}
