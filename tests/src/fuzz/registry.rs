//! The list of changes of the policy registry, which any host may have written.

use oona_core::policy::Kind;
use oona_core::registry::{Change, HISTORY_MAX, Registry};

/// A line for each entry of the list. Whatever stands there, every host counts it and comes to the same;
/// and what can be gone back to is there.
pub(super) fn registry(bytes: &[u8]) {
    let (mut registry, mut again) = (Registry::default(), Registry::default());
    let mut count = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        count += 1;
        let Ok(change) = serde_json::from_slice::<Change>(line) else {
            registry.pass_over();
            again.pass_over();
            continue;
        };
        registry.apply(&change);
        let written = serde_json::to_vec(&change).expect("a change can be written");
        let read = serde_json::from_slice::<Change>(&written).expect("and read");
        assert_eq!(read, change);
        again.apply(&read);
    }
    assert_eq!(registry.revision(), count);
    assert_eq!(again, registry);
    for kind in Kind::ALL {
        let history = registry.history(kind);
        assert!(history.len() <= HISTORY_MAX);
        assert!(history.is_sorted_by(|one, next| one.revision < next.revision));
        let digests = history
            .iter()
            .filter_map(|activation| activation.choice.digest.as_ref());
        let staged = registry
            .stage(kind)
            .and_then(|stage| stage.choice.digest.as_ref());
        for digest in digests.chain(staged) {
            assert!(
                registry.artifact(digest).is_some(),
                "{digest} was never pushed"
            );
        }
        if let Some(Some(target)) = registry.rollback_target(kind, None) {
            assert!(history.contains(target));
            assert_ne!(Some(target), registry.active(kind));
        }
    }
}
