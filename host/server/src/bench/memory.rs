//! How much memory something takes, where Linux tells.

use std::fs;

/// How much memory this process has had since it was last looked at.
pub(super) struct Memory {
    kib: u64,
}

impl Memory {
    /// What there is now, which is the most there was from here on.
    pub(super) fn reset() -> Option<Self> {
        // 5 sets the peak to what there is.
        fs::write("/proc/self/clear_refs", "5").ok()?;
        status("VmRSS:").map(|kib| Self { kib })
    }

    /// By how much there was more of it at the most, in KiB.
    pub(super) fn grown(self) -> Option<u64> {
        status("VmHWM:").map(|peak| peak.saturating_sub(self.kib))
    }
}

fn status(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
