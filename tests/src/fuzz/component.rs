//! Components of policies, as anybody may push them, and modules that are made into some.

use std::sync::{Arc, LazyLock};

use oona::cases::Cases;
use oona::policies::check_against;
use oona_core::policy::Kind;
use oona_wasm::{
    Artifact, Engine, EngineConfig, LABEL_BYTES_MAX, LoadError, Metadata, componentize, digest,
};
use serde_json::json;

use crate::policies::names;

/// With the bounds of a host, but for the instances: those that are done with are dropped elsewhere, and
/// later.
pub(super) static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let config = EngineConfig {
        instances_max: 256,
        ..EngineConfig::default()
    };
    Engine::new(config).expect("an engine")
});

/// How a core module begins.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// What passes for a policy is one kind of policy, imports nothing but its host, has a name that can be
/// shown, and decides the same in two instances. A module becomes a component or is refused.
pub(super) fn component(bytes: &[u8]) {
    if bytes.starts_with(CORE_MODULE) {
        let refused = Artifact::load_any(&ENGINE, bytes);
        assert!(matches!(refused, Err(LoadError::CoreModule)));
        for kind in [None, Some(Kind::ALL[bytes.len() % Kind::ALL.len()])] {
            if let Ok(component) = componentize(bytes, kind) {
                load(&component);
            }
        }
    } else {
        load(bytes);
    }
}

fn load(bytes: &[u8]) {
    let metadata = Metadata::read(bytes);
    let artifact = match Artifact::load_any(&ENGINE, bytes) {
        Ok(artifact) => artifact,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(artifact.digest(), digest(bytes));
    assert_eq!(metadata.as_ref(), Ok(artifact.metadata()));
    for label in [artifact.name(), artifact.version()] {
        let shown = !label.is_empty() && label.len() <= LABEL_BYTES_MAX;
        assert!(shown && !label.contains(char::is_control), "{label:?}");
    }
    for import in artifact.imports() {
        assert!(import.starts_with("oona:policy/"), "it imports {import}");
    }
    // Its own table, and its schema, are foreign too.
    let _ = (
        Cases::of(&artifact),
        check_against(&artifact, &json!({ "a": 1 })),
    );
    let asked = json!({
        "kind": artifact.kind(),
        "case": [{ "name": "any", "message": { "id": "event", "type": 4, "age_ms": 5 }, "expect": { "reason": "any" } }],
    });
    let cases = Cases::parse("cases.json", &asked.to_string()).expect("a table");
    let decide = || cases.run(&artifact, &names()).cases.remove(0).decision;
    if let (Some(one), Some(other)) = (decide(), decide()) {
        assert_eq!(one, other, "a policy is a function of what it is told");
    }
}
