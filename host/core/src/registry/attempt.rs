//! A change that a host could not follow: when it tries again.
//!
//! Why: a store that does not answer, bytes that are gone, a machine without memory pass; a component
//! that is no policy, or that nobody trusted has signed, does not change by waiting. Recovers when:
//! what may pass is tried again, in waits that double; what may not, when the artifact is pushed
//! again, since it may have gained bytes or a signature then.

use std::time::Duration;

use super::Revision;
use crate::schedule::Backoff;
use crate::time::Timestamp;

/// The waits between two tries.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(60),
};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    failures: u32,
    at: Timestamp,
    passes: bool,
    pushed: Option<Revision>,
}

impl Attempt {
    /// One that failed at `at`, after `before` if that was about the same change; whether what was in
    /// the way may pass by itself, and the last push of the artifact that was known.
    #[must_use]
    pub fn failed(
        before: Option<&Self>,
        at: Timestamp,
        passes: bool,
        pushed: Option<Revision>,
    ) -> Self {
        Self {
            failures: before.map_or(0, |before| before.failures.saturating_add(1)),
            at,
            passes,
            pushed,
        }
    }

    /// How long to wait before the next try; zero: now; `None`: until the artifact is pushed again.
    /// A clock that was put back costs no more than the longest wait.
    #[must_use]
    pub fn wait(&self, pushed: Option<Revision>, now: Timestamp) -> Option<Duration> {
        if pushed > self.pushed {
            return Some(Duration::ZERO);
        }
        let delay = self.passes.then(|| BACKOFF.delay(self.failures))?;
        let waited = now.as_millis().saturating_sub(self.at.as_millis());
        Some(delay.saturating_sub(Duration::from_millis(waited)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn what_may_pass_is_tried_again_in_waits_that_double() {
        let mut attempt = Attempt::failed(None, at(0), true, None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(attempt.wait(None, at(0)).unwrap().as_secs());
            attempt = Attempt::failed(Some(&attempt), at(0), true, None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let attempt = Attempt::failed(None, at(5_000), true, None);
        assert_eq!(
            attempt.wait(None, at(5_400)),
            Some(Duration::from_millis(600))
        );
        assert_eq!(attempt.wait(None, at(7_000)), Some(Duration::ZERO));
        assert_eq!(attempt.wait(None, at(0)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_does_not_pass_is_tried_again_when_it_is_pushed_again() {
        let attempt = Attempt::failed(None, at(0), false, Some(3));
        assert_eq!(attempt.wait(Some(3), at(u64::MAX)), None);
        assert_eq!(attempt.wait(Some(9), at(0)), Some(Duration::ZERO));
        let never_pushed = Attempt::failed(None, at(0), false, None);
        assert_eq!(never_pushed.wait(None, at(1)), None);
        assert_eq!(never_pushed.wait(Some(1), at(1)), Some(Duration::ZERO));
    }
}
