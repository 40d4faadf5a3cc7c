//! A process of the benchmark: whatever happens to the benchmark, it does not outlive it.

use std::io;
use std::process::{Child, ChildStdout, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::resident_bytes;

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

    /// What it writes, if it was started with a pipe and nobody has taken it.
    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Freezes it: it keeps its memory and its connections, and does nothing.
    pub(super) fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on where it was frozen.
    pub(super) fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // Until it is waited for, its id is nobody else's.
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Lets none of its files grow beyond so many bytes, as a full disk would not; `None` lifts that.
    #[cfg(target_os = "linux")]
    pub(super) fn limit_files(&self, bytes: Option<u64>) -> io::Result<()> {
        use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
        // It was started with ours.
        let ours = getrlimit(Resource::Fsize);
        let limit = Rlimit {
            current: bytes.or(ours.current),
            maximum: ours.maximum,
        };
        prlimit(Some(Pid::from_child(&self.0)), Resource::Fsize, limit)?;
        Ok(())
    }

    /// Only Linux limits a process that runs.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn limit_files(&self, _: Option<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends it without a word, as a crash would.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself: then there is nothing to end.
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// How much memory it has that is in use, in bytes.
    pub(super) fn resident_bytes(&self) -> io::Result<u64> {
        resident_bytes(&self.id().to_string())
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
