//! Tables of cases, as authors write them and as they travel with a component.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use oona::cases::{Cases, coverage, junit};
use oona_core::policy::Kind;
use oona_wasm::Artifact;

use super::component::ENGINE;
use crate::by_hand::ByHand;
use crate::policies::names;

/// How many cases of a table are asked: each takes a compiled policy some tenths of a millisecond.
const ASKED_MAX: usize = 8;

/// A table that is read is the same table when it travels with a component, and can be asked of a policy;
/// of one that is not, a line of the file tells what is wrong. JSON begins with a brace, YAML with
/// `---`, and TOML with neither.
pub(super) fn cases(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let file = match text {
        text if text.starts_with('{') => "cases.json",
        text if text.starts_with("---") => "cases.yaml",
        _ => "cases.toml",
    };
    let mut cases = match Cases::parse(file, text) {
        Ok(cases) => cases,
        Err(error) => {
            let told = error.to_string();
            let rest = told
                .strip_prefix(file)
                .unwrap_or_else(|| panic!("{told} names no file"));
            let line = rest
                .strip_prefix(':')
                .and_then(|rest| rest.split(':').next());
            let line = line
                .and_then(|line| line.parse::<usize>().ok())
                .unwrap_or(0);
            assert!(
                line <= text.split('\n').count() + 1,
                "{told}: there is no such line"
            );
            return;
        }
    };
    let travels = serde_json::to_string(&cases).expect("a table can be written");
    assert_eq!(Cases::parse("cases.json", &travels), Ok(cases.clone()));

    cases.cases.truncate(ASKED_MAX);
    let (artifact, names) = (&BY_HAND[&cases.kind], names());
    let report = cases.run(artifact, &names);
    assert_eq!(report.passed + report.failed, cases.cases.len());
    for case in &report.cases {
        assert_eq!(
            case.passed,
            case.error.is_none() && case.differences.is_empty(),
            "{case:?}"
        );
    }
    let _ = (
        coverage(&cases, &report, artifact, &names),
        junit("fuzz", &report),
    );
}

static BY_HAND: LazyLock<BTreeMap<Kind, Artifact>> = LazyLock::new(|| {
    let artifact = |kind: Kind| {
        let artifact = Artifact::load(&ENGINE, kind, &ByHand::new(kind).component());
        (kind, artifact.expect("a policy by hand is one"))
    };
    Kind::ALL.into_iter().map(artifact).collect()
});

/// A policy of this kind that behaves.
pub(super) fn by_hand(kind: Kind) -> &'static Artifact {
    &BY_HAND[&kind]
}
