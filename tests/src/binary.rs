//! The real binary, as somebody runs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, io};

use tempfile::TempDir;

/// How long anything may take that a test waits for. Only a failing test takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary that was built beside this test.
///
/// # Panics
///
/// If it was not built, or its source has changed since: a test of something else proves nothing.
#[must_use]
pub fn oona() -> PathBuf {
    static OONA: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = env::current_exe().expect("a test knows its own path");
        let profile = test
            .ancestors()
            .nth(2)
            .expect("a test is in target/PROFILE/deps");
        let oona = profile.join(format!("oona{}", env::consts::EXE_SUFFIX));
        let shown = oona.display();
        let built = modified(&oona);
        assert!(
            built.is_some(),
            "{shown} is not there: run cargo build -p oona"
        );
        let sources = fs::read_to_string(profile.join("oona.d")).unwrap_or_default();
        let newer = sources
            .split_whitespace()
            .skip(1)
            .find(|source| modified(Path::new(source)) > built);
        assert_eq!(newer, None, "newer than {shown}: run cargo build -p oona");
        oona
    });
    OONA.clone()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// A command of the binary, in a directory of its own and without the settings of this environment.
#[must_use]
pub fn command(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(oona());
    command
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OONA_") || name == "ESPER_LEYLINE_SECRET" {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it cannot be started.
#[must_use]
pub fn run(arguments: &[&str]) -> Output {
    let directory = TempDir::new().expect("a temporary directory");
    command(&directory, arguments)
        .output()
        .expect("the binary starts")
}

/// A running `oona serve`. Ended when dropped, however the test went.
#[derive(Debug)]
pub struct Host {
    child: Child,
    /// Where it is served.
    pub address: SocketAddr,
    /// What it has logged so far.
    log: PathBuf,
    _directory: TempDir,
}

impl Host {
    /// Starts `oona serve` with these arguments on a free port.
    ///
    /// # Panics
    ///
    /// If it does not say where it is served.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// As [`Host::start`], with a last word to the command.
    ///
    /// # Panics
    ///
    /// If it does not say where it is served.
    #[must_use]
    pub fn start_with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let mut command = command(&directory, &["serve", "--listen", "127.0.0.1:0"]);
        // Messages that no test has published would be in the way of most.
        command.args(["--set", "telemetry.interval_ms=0"]);
        let stderr = fs::File::create(&log).expect("a file in a temporary directory");
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(stderr);
        prepare(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("it is piped");
        let line = first_line(stdout);
        let address = line
            .trim()
            .rsplit('/')
            .next()
            .and_then(|address| address.parse().ok());
        let Some(address) = address else {
            drop(child.kill());
            let log = fs::read_to_string(&log).unwrap_or_default();
            panic!("no address in `{line}`; it says:\n{log}");
        };
        Self {
            child,
            address,
            log,
            _directory: directory,
        }
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log holds `text`.
    ///
    /// # Panics
    ///
    /// If it never does.
    pub fn wait_for_log(&self, text: &str) {
        let holds = wait_until(|| self.log().contains(text));
        assert!(holds, "no `{text}` in\n{}", self.log());
    }

    /// Sends a signal, by its name without `SIG`.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "cannot send {name}"
        );
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        let ends = wait_until(|| {
            ended = self.child.try_wait().expect("it is our child");
            ended.is_some()
        });
        assert!(ends, "it does not end; it says:\n{}", self.log());
        ended.expect("it has ended")
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a word, as a crash would.
    ///
    /// # Panics
    ///
    /// If it had ended before.
    pub fn kill(&mut self) {
        self.child.kill().expect("it still runs");
        self.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The first line of a pipe; empty if there is none in time. A thread goes on to empty the pipe, so
/// that it never fills, and ends with it.
fn first_line(stdout: ChildStdout) -> String {
    let (out, line) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        let read = reader.read_line(&mut line);
        drop(out.send(read.map(|_| line)));
        io::copy(&mut reader, &mut io::sink())
    });
    line.recv_timeout(PATIENCE)
        .map_or_else(|_| String::new(), Result::unwrap_or_default)
}

/// Waits until something holds; answers whether it ever did.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Standard output as text.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("commands print text")
}
