//! What was decided, by whom: how often each version gave each reason.
//!
//! Not all that is decided while a version is in use is decided by it: a canary has its share, and the
//! fail-safe answers for calls that fail. So each version has a count of its own, and the effect of
//! an activation is what the version that it put in use has decided.

use std::collections::HashMap;
use std::sync::Arc;

use oona_core::symbols::Symbol;
use oona_wasm::VersionInfo;

/// How often each reason was given.
pub(super) type Reasons = HashMap<Symbol, u64>;

/// How many versions are told apart at a time: the one in use, its fail-safes, a candidate, and
/// those before them whose last batch is on its way. The oldest of the others makes room for the next.
const VERSIONS_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Mixes {
    /// The version that was put in use last.
    in_use: Arc<VersionInfo>,
    versions: Vec<(Arc<VersionInfo>, Reasons)>,
    /// What the version before it has decided, until somebody asks.
    ended: Option<Reasons>,
}

impl Mixes {
    pub(super) fn new(in_use: &Arc<VersionInfo>) -> Self {
        Self {
            in_use: Arc::clone(in_use),
            versions: Vec::new(),
            ended: None,
        }
    }

    /// The count of a version.
    pub(super) fn of(&mut self, by: &Arc<VersionInfo>) -> &mut Reasons {
        let mut known = self.versions.iter();
        let found = known.position(|(version, _)| Arc::ptr_eq(version, by));
        let index = found.unwrap_or_else(|| {
            if self.versions.len() == VERSIONS_MAX {
                let mut known = self.versions.iter();
                let other = known.position(|(version, _)| !Arc::ptr_eq(version, &self.in_use));
                self.versions.remove(other.unwrap_or(0));
            }
            self.versions.push((Arc::clone(by), Reasons::new()));
            self.versions.len() - 1
        });
        &mut self.versions[index].1
    }

    /// What the version that was put in use last has decided since then.
    pub(super) fn in_use(&self) -> Reasons {
        self.by(&self.in_use)
    }

    /// What a version has decided: the one that took over from one that failed, for instance.
    pub(super) fn by(&self, version: &Arc<VersionInfo>) -> Reasons {
        let mut known = self.versions.iter();
        let found = known.find(|(known, _)| Arc::ptr_eq(known, version));
        found
            .map(|(_, reasons)| reasons.clone())
            .unwrap_or_default()
    }

    /// Another version is in use from now on; what others have decided so far is not its doing.
    pub(super) fn changed(&mut self, to: &Arc<VersionInfo>) {
        self.ended = Some(self.in_use());
        self.versions
            .retain(|(version, _)| Arc::ptr_eq(version, to));
        self.in_use = Arc::clone(to);
    }

    /// What the version before the one in use has decided, for whoever asks first; after that, and if
    /// nothing has changed, what the one in use has decided so far.
    pub(super) fn take_ended(&mut self) -> Reasons {
        self.ended.take().unwrap_or_else(|| self.in_use())
    }
}

#[cfg(test)]
mod tests {
    use oona_core::policy::Kind;
    use oona_wasm::Source;

    use super::*;

    fn version(name: &str) -> Arc<VersionInfo> {
        Arc::new(VersionInfo {
            kind: Kind::Routing,
            name: name.to_owned(),
            version: String::new(),
            digest: String::new(),
            source: Source::Native,
        })
    }

    #[test]
    fn each_version_answers_for_what_it_has_decided() {
        let [first, second, canary] = ["first", "second", "canary"].map(version);
        let reason = Symbol(1);
        let mut mixes = Mixes::new(&first);
        for (by, count) in [(&first, 7), (&canary, 2), (&first, 1)] {
            *mixes.of(by).entry(reason).or_default() += count;
        }
        assert_eq!(mixes.in_use(), Reasons::from([(reason, 8)]));
        assert_eq!(mixes.by(&canary), Reasons::from([(reason, 2)]));
        assert_eq!(
            mixes.take_ended(),
            Reasons::from([(reason, 8)]),
            "no change"
        );
        *mixes.of(&second).entry(reason).or_default() += 5;
        mixes.changed(&second);
        assert_eq!(mixes.in_use(), Reasons::from([(reason, 5)]));
        assert_eq!(mixes.take_ended(), Reasons::from([(reason, 8)]));
        // Another one of the same name, as after a change of its configuration.
        mixes.changed(&version("second"));
        assert_eq!(mixes.in_use(), Reasons::new());
        assert_eq!(mixes.take_ended(), Reasons::from([(reason, 5)]));
    }

    #[test]
    fn the_number_of_versions_is_bounded() {
        let in_use = version("in use");
        let mut mixes = Mixes::new(&in_use);
        mixes.of(&in_use).insert(Symbol(1), 7);
        for number in 0..100 {
            mixes.of(&version(&number.to_string())).insert(Symbol(1), 1);
        }
        assert_eq!(mixes.versions.len(), VERSIONS_MAX);
        assert_eq!(mixes.in_use(), Reasons::from([(Symbol(1), 7)]));
    }
}
