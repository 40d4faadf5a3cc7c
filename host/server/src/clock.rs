//! Where `now` comes from. The one place that looks at the wall clock for decisions.

use std::sync::Arc;
use std::time::SystemTime;

use oona_core::Timestamp;

/// Tells the time. A simulation hands in its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine.
#[must_use]
pub fn system() -> Clock {
    Arc::new(|| {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ms = since_epoch.map_or(0, |elapsed| elapsed.as_millis());
        Timestamp::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    })
}
