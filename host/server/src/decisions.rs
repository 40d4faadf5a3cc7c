//! The decision log: a sample of what policies were asked and what they answered, in words.
//!
//! The last of each kind are held in memory, where a candidate is tried on them before it is
//! activated, and whoever watches sees them as they come. With a file, all of the sample is written
//! there, a line of JSON each, and a candidate can be replayed over last week. Recording never makes
//! a decision wait: what the writer of the file cannot keep up with is counted and left out.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use oona_core::policy::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::record::{Decision, Message, State};
use crate::sync::lock;

/// How many of each kind are held in memory.
pub const HELD_MAX: usize = 10_000;

/// How many may wait for the writer of the file, and for a slow watcher; then some are left out.
const WAITING_MAX: usize = 4_096;

/// The longest payload that is recorded, in bytes. Of a longer one the size is.
pub const PAYLOAD_BYTES_MAX: usize = 256;

/// A decision on record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it was made, in ms since the epoch: the `now` that the policy was told.
    pub at_ms: u64,
    /// Which kind of policy was asked.
    pub kind: Kind,
    /// About which message.
    pub message: Message,
    /// What else it was told.
    pub state: State,
    /// What it answered.
    pub decision: Decision,
    /// Who answered: name, version, and digest, `native` for a native build.
    pub policy: String,
    /// See `policy`.
    pub version: String,
    /// See `policy`.
    pub digest: String,
    /// Why the policy in use did not answer itself, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How long its batch took, in ns.
    pub took_ns: u64,
    /// Of how many decisions it is the one that was recorded.
    #[serde(default = "one")]
    pub every: u32,
}

const fn one() -> u32 {
    1
}

/// Where the log is written to.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// The file. The one before it has the same name with `.1` after it.
    pub path: PathBuf,
    /// How large it may become before it is the one before, in bytes.
    pub bytes_max: u64,
}

/// See the module.
#[derive(Debug)]
pub struct DecisionLog {
    every: u32,
    held: [Mutex<VecDeque<Arc<Recorded>>>; 4],
    watchers: broadcast::Sender<Arc<Recorded>>,
    file: Option<mpsc::Sender<Arc<Recorded>>>,
    left_out: AtomicU64,
}

impl DecisionLog {
    /// A log of one in `every` decisions, none if zero; and the task that writes the file, if there
    /// is to be one, which ends when the log is dropped.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn new(
        every: u32,
        file: Option<LogFile>,
    ) -> io::Result<(Arc<Self>, Option<JoinHandle<()>>)> {
        let (sender, writer) = match file {
            Some(file) => {
                let writer = Writer::open(file)?;
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                let task = tokio::task::spawn_blocking(move || writer.run(receiver));
                (Some(sender), Some(task))
            }
            None => (None, None),
        };
        let log = Self {
            every,
            held: Default::default(),
            watchers: broadcast::channel(WAITING_MAX).0,
            file: sender,
            left_out: AtomicU64::new(0),
        };
        Ok((Arc::new(log), writer))
    }

    /// A log in memory alone.
    #[must_use]
    pub fn in_memory(every: u32) -> Arc<Self> {
        Arc::new(Self {
            every,
            held: Default::default(),
            watchers: broadcast::channel(WAITING_MAX).0,
            file: None,
            left_out: AtomicU64::new(0),
        })
    }

    /// One decision in so many is recorded; none if zero.
    #[must_use]
    pub fn every(&self) -> u32 {
        self.every
    }

    /// Records a decision.
    pub fn record(&self, recorded: Recorded) {
        let recorded = Arc::new(recorded);
        let mut held = lock(self.held_of(recorded.kind));
        if held.len() == HELD_MAX {
            held.pop_front();
        }
        held.push_back(Arc::clone(&recorded));
        drop(held);
        if let Some(file) = &self.file
            && file.try_send(Arc::clone(&recorded)).is_err()
        {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        // Nobody may be watching.
        drop(self.watchers.send(recorded));
    }

    /// Up to `count` of the last decisions of a kind, oldest first.
    #[must_use]
    pub fn last(&self, kind: Kind, count: usize) -> Vec<Arc<Recorded>> {
        let held = lock(self.held_of(kind));
        let skipped = held.len().saturating_sub(count);
        held.iter().skip(skipped).cloned().collect()
    }

    /// What is recorded from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.watchers.subscribe()
    }

    /// How many were not written to the file, since it could not keep up.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    fn held_of(&self, kind: Kind) -> &Mutex<VecDeque<Arc<Recorded>>> {
        let [routing, backpressure, freshness, dead_letter] = &self.held;
        match kind {
            Kind::Routing => routing,
            Kind::Backpressure => backpressure,
            Kind::Freshness => freshness,
            Kind::DeadLetter => dead_letter,
        }
    }
}

/// The files of a log, oldest first.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    [before(path), path.to_owned()]
        .into_iter()
        .filter(|path| path.exists())
        .collect()
}

fn before(path: &Path) -> PathBuf {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    before.into()
}

/// Writes the file, and begins another when it is large.
struct Writer {
    at: LogFile,
    file: BufWriter<File>,
    written: u64,
}

impl Writer {
    fn open(at: LogFile) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&at.path)?;
        let written = file.metadata()?.len();
        let file = BufWriter::new(file);
        Ok(Self { at, file, written })
    }

    fn run(mut self, mut waiting: mpsc::Receiver<Arc<Recorded>>) {
        let mut broken = false;
        while let Some(first) = waiting.blocking_recv() {
            let mut next = Some(first);
            while let Some(recorded) = next {
                let written = self.write(&recorded);
                if let Err(error) = &written
                    && !broken
                {
                    tracing::warn!(path = %self.at.path.display(), %error, "the decision log is not written");
                }
                broken = written.is_err();
                next = waiting.try_recv().ok();
            }
            // Whoever reads the file sees whole lines as soon as there is nothing more to write.
            broken |= self.file.flush().is_err();
        }
    }

    fn write(&mut self, recorded: &Recorded) -> io::Result<()> {
        if self.written >= self.at.bytes_max {
            self.file.flush()?;
            fs::rename(&self.at.path, before(&self.at.path))?;
            *self = Self::open(self.at.clone())?;
        }
        let mut line = serde_json::to_vec(recorded)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.written += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(kind: Kind, at_ms: u64) -> Recorded {
        Recorded {
            at_ms,
            kind,
            message: Message::default(),
            state: State::default(),
            decision: Decision {
                verdict: "route".to_owned(),
                reason: "type".to_owned(),
                ..Decision::default()
            },
            policy: "routing".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "native".to_owned(),
            fault: None,
            took_ns: 1,
            every: 1,
        }
    }

    fn times(held: &[Arc<Recorded>]) -> Vec<u64> {
        held.iter().map(|recorded| recorded.at_ms).collect()
    }

    #[test]
    fn the_last_of_each_kind_are_held() {
        let log = DecisionLog::in_memory(1);
        let mut watcher = log.watch();
        for at in 0..HELD_MAX as u64 + 2 {
            log.record(recorded(Kind::Routing, at));
        }
        log.record(recorded(Kind::Freshness, 7));
        let last = HELD_MAX as u64 + 1;
        assert_eq!(times(&log.last(Kind::Routing, 2)), [last - 1, last]);
        assert_eq!(log.last(Kind::Routing, usize::MAX).len(), HELD_MAX);
        assert_eq!(times(&log.last(Kind::Freshness, 9)), [7]);
        assert!(log.last(Kind::DeadLetter, 9).is_empty());
        assert!(
            watcher.try_recv().is_err(),
            "a watcher that is too slow is told so"
        );
    }

    #[tokio::test]
    async fn the_file_is_one_of_two_and_both_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("decisions.jsonl");
        let file = LogFile {
            path: path.clone(),
            bytes_max: 600,
        };
        let (log, writer) = DecisionLog::new(1, Some(file)).unwrap();
        for at in 0..9 {
            log.record(recorded(Kind::Routing, at));
        }
        drop(log);
        writer.unwrap().await.unwrap();
        let mut read = Vec::new();
        for file in files(&path) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.len() < 900, "{}", text.len());
            let lines = text
                .lines()
                .map(|line| serde_json::from_str::<Recorded>(line).unwrap());
            read.extend(lines.map(|recorded| recorded.at_ms));
        }
        let first = read[0];
        assert_eq!(read, (first..9).collect::<Vec<_>>(), "the newest, in order");
        assert_eq!(files(&path).len(), 2);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_refused_at_the_start() {
        let file = LogFile {
            path: "/no/such/directory/decisions.jsonl".into(),
            bytes_max: 1,
        };
        assert!(DecisionLog::new(1, Some(file)).is_err());
    }
}
