//! A subscriber in a process of its own, which can be killed and frozen: what it sees and does it writes to
//! its standard output, and the account is kept by whoever reads that.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use super::super::load::{Subscriber, Witness};
use super::super::process::Process;
use super::super::redis_process::StartError;
use super::Witnessed;
use crate::proto::Delivery;
use crate::sync::lock;

/// What the process is to do.
#[derive(Clone, Debug)]
pub struct SubscriberOptions {
    /// Where its host is.
    pub host: SocketAddr,
    /// Its name.
    pub name: String,
    /// One message in so many can never be handled.
    pub poison_every: u64,
}

/// Handles messages until nobody listens: this is what the process does.
pub async fn subscribe(options: SubscriberOptions) {
    let nobody = CancellationToken::new();
    let lines = Lines {
        unwritten: Mutex::default(),
        nobody: nobody.clone(),
    };
    let subscriber = Subscriber {
        witness: Arc::new(lines),
        host: options.host,
        name: options.name,
        poison_every: options.poison_every,
    };
    subscriber.run(nobody).await;
}

/// Writes a line for each message: `came NUMBER REDELIVERED`, and `handled NUMBER`.
struct Lines {
    unwritten: Mutex<String>,
    /// Fires when nobody reads any more.
    nobody: CancellationToken,
}

impl Witness for Lines {
    fn came(&self, number: u64, delivery: &Delivery) {
        // A string takes whatever is written to it.
        let _ = writeln!(
            lock(&self.unwritten),
            "came {number} {}",
            delivery.redelivered
        );
    }

    fn handled(&self, numbers: &[u64]) -> io::Result<()> {
        let mut lines = std::mem::take(&mut *lock(&self.unwritten));
        for number in numbers {
            let _ = writeln!(lines, "handled {number}");
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        written.inspect_err(|_| self.nobody.cancel())
    }
}

/// Such a process. Ended when dropped.
#[derive(Debug)]
pub(super) struct SubscriberProcess {
    options: SubscriberOptions,
    witnessed: Arc<Witnessed>,
    process: Process,
    reading: Option<JoinHandle<()>>,
}

impl SubscriberProcess {
    pub(super) fn start(
        options: SubscriberOptions,
        witnessed: Arc<Witnessed>,
    ) -> Result<Self, StartError> {
        let (process, reading) = spawn(&options, &witnessed)?;
        Ok(Self {
            options,
            witnessed,
            process,
            reading,
        })
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it as a crash would. What it has written is entered in the account.
    pub(super) fn kill(&mut self) {
        self.process.kill();
        if let Some(reading) = self.reading.take() {
            // It ends with what there is to read; if it panicked, the account shows it.
            drop(reading.join());
        }
    }

    /// Starts it anew.
    pub(super) fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        (self.process, self.reading) = spawn(&self.options, &self.witnessed)?;
        Ok(())
    }
}

impl Drop for SubscriberProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(
    options: &SubscriberOptions,
    witnessed: &Arc<Witnessed>,
) -> Result<(Process, Option<JoinHandle<()>>), StartError> {
    let mut command = Command::new(std::env::current_exe().map_err(StartError::Host)?);
    command
        .args(["bench", "chaos-subscriber"])
        .args(["--host", &options.host.to_string()])
        .args(["--name", &options.name])
        .args(["--poison-every", &options.poison_every.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = Process::spawn(&mut command).map_err(StartError::Host)?;
    let reading = process.take_stdout().map(|lines| {
        let witnessed = Arc::clone(witnessed);
        std::thread::spawn(move || read(lines, &witnessed))
    });
    Ok((process, reading))
}

/// Enters every whole line in the account: one that broke off was followed by no acknowledgement.
fn read(lines: ChildStdout, witnessed: &Witnessed) {
    let mut lines = BufReader::new(lines);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
        let mut words = line.split_whitespace();
        let (kind, number) = (words.next(), words.next());
        let number = number.and_then(|number| number.parse().ok());
        match (kind, number) {
            (Some("came"), Some(number)) => witnessed.came(number, words.next() == Some("true")),
            (Some("handled"), Some(number)) => witnessed.handled(number),
            _ => {}
        }
        line.clear();
    }
}
