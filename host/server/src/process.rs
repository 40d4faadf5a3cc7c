//! What the system tells of a process.

use std::{fs, io};

/// How much memory of a process is in use, in bytes: `VmRSS` of proc_pid_status(5). `process` is its id, or
/// `self`.
///
/// # Errors
///
/// If there is no such process, or the system does not tell.
pub(crate) fn resident_bytes(process: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let kib = kib.ok_or_else(|| io::Error::other("no VmRSS in /proc: the process has ended"))?;
    Ok(kib * 1_024)
}
