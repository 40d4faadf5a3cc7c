//! A terminal, as the kernel has it: somebody can sit in front of it, and see and type.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::binary::wait_until;

/// See the module.
#[derive(Debug)]
pub struct Terminal {
    /// Where somebody sits.
    front: File,
    /// Where programs are.
    back: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A terminal of this size.
    ///
    /// # Panics
    ///
    /// If the kernel has none.
    #[must_use]
    pub fn new(columns: u16, rows: u16) -> Self {
        let front = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&front).expect("it is ours");
        unlockpt(&front).expect("it is ours");
        let name = ptsname(&front, Vec::new()).expect("it has a name");
        let back = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it opens");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&back, size).expect("it has a size");
        let front = File::from(front);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut reader = front.try_clone().expect("it can be read");
        let written = Arc::clone(&seen);
        // Ends with the process of the test, if not with the terminal.
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                lock(&written).extend_from_slice(&buffer[..count]);
            }
        });
        Self { front, back, seen }
    }

    /// Starts a program in it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self, mut command: Command) -> Child {
        let back = || self.back.try_clone().expect("it can be handed on");
        command.stdin(back()).stdout(back()).stderr(back());
        command.env("TERM", "xterm-256color");
        command.spawn().expect("the program starts")
    }

    /// Presses keys.
    ///
    /// # Panics
    ///
    /// If nobody is there to take them.
    pub fn press(&mut self, keys: &str) {
        let pressed = self.front.write_all(keys.as_bytes());
        pressed.expect("the terminal is there");
    }

    /// All that was written to it, or since it was last wiped.
    #[must_use]
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&lock(&self.seen)).into_owned()
    }

    /// Forgets what was written to it.
    pub fn wipe(&self) {
        lock(&self.seen).clear();
    }

    /// Waits until all of these were written to it, in whatever order.
    ///
    /// # Panics
    ///
    /// If they never are.
    pub fn wait_for(&self, texts: &[&str]) {
        let is_seen = || {
            let seen = self.seen();
            texts.iter().all(|text| seen.contains(text))
        };
        assert!(wait_until(is_seen), "no {texts:?} in\n{}", self.seen());
    }

    /// How it treats what is typed.
    ///
    /// # Panics
    ///
    /// If it does not say.
    #[must_use]
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.back).expect("it says how it is")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of a program; ends it if it does not come.
///
/// # Panics
///
/// If it does not end by itself.
pub fn ended(mut program: Child) -> ExitStatus {
    let mut status = None;
    let ends = wait_until(|| {
        status = program.try_wait().expect("it is our child");
        status.is_some()
    });
    if !ends {
        drop(program.kill());
        drop(program.wait());
    }
    status.expect("it ends by itself")
}
