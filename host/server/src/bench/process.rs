//! A process of the benchmark: whatever happens to the benchmark, it does not outlive it.

use std::io;
use std::process::{Child, Command, ExitStatus};

/// Ended when dropped.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Ends it without a word, as a crash would.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself: then there is nothing to end.
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// How much memory it has that is in use, in bytes.
    pub(super) fn resident_bytes(&self) -> io::Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let kib =
            kib.ok_or_else(|| io::Error::other("no VmRSS in /proc: the process has ended"))?;
        Ok(kib * 1_024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_guard() {
        let mut process = Process::spawn(Command::new("sleep").arg("60")).unwrap();
        let id = process.id();
        assert!(process.resident_bytes().unwrap() > 0);
        assert!(process.ended().is_none());
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
