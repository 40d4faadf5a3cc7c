//! Over a log, block by block.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use oona_core::policy::{self, Kind};
use oona_wasm::{Artifact, Names, StartError, Version};

use super::{Asking, OnRecord, Replayed, conclude, cores, join};
use crate::record::Recorded;
use crate::sync::lock;

/// How much of a log a core reads at once, in bytes.
const BLOCK: usize = 1 << 20;

/// The longest line that is read, in bytes: far more than a record has.
const LINE_MAX: usize = 16 << 20;

/// How many names of streams a log may have.
const STREAMS_MAX: usize = 10_000;

/// A log of decisions.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its files, in any order.
    pub files: Vec<PathBuf>,
    /// What is older is left out, in ms since the epoch.
    pub from_ms: u64,
}

/// A log that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The candidate does not start, or refuses its configuration.
    #[error("the candidate does not run")]
    Start(#[from] StartError),
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
}

/// Asks the candidate about every decision of its kind in a log, on all cores. `progress` is called now
/// and then with how many more bytes are done.
///
/// # Errors
///
/// If the candidate does not start, or a file cannot be read.
pub fn replay_log(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    log: &Log,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, LogError> {
    match artifact.kind() {
        Kind::Routing => all::<policy::Routing>(artifact, config, names, log, progress),
        Kind::Backpressure => all::<policy::Backpressure>(artifact, config, names, log, progress),
        Kind::Freshness => all::<policy::Freshness>(artifact, config, names, log, progress),
        Kind::DeadLetter => all::<policy::DeadLetter>(artifact, config, names, log, progress),
    }
}

/// The streams that a log names: what a candidate may name too. Looked for as text, which takes a
/// fraction of the time that reading the records does.
///
/// # Errors
///
/// If a file cannot be read.
pub fn streams(log: &Log, progress: &(dyn Fn(u64) + Sync)) -> Result<BTreeSet<String>, LogError> {
    let found = Mutex::new(BTreeSet::new());
    on_all_cores(
        log,
        || Ok(BTreeSet::new()),
        |own: &mut BTreeSet<String>, block| {
            let text = String::from_utf8_lossy(block);
            // A key of a record ends so; in a text within it the quotes are escaped.
            let named = text.split("stream\":\"").skip(1);
            let named = named.filter_map(|rest| rest.split('"').next());
            for name in named {
                if !own.contains(name) && own.len() < STREAMS_MAX {
                    own.insert(name.to_owned());
                }
            }
            progress(block.len() as u64);
        },
        |own| lock(&found).extend(own),
    )?;
    Ok(found.into_inner().unwrap_or_default())
}

fn all<K: Recorded>(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    log: &Log,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, LogError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    let tallies = Mutex::new(Vec::new());
    on_all_cores(
        log,
        || Ok(Asking::new(&version, names)?),
        |asking: &mut Asking<'_, K>, block| {
            let lines = block.split(|byte| *byte == b'\n');
            let mut records: Vec<OnRecord> = Vec::new();
            for line in lines.filter(|line| !line.is_empty()) {
                match serde_json::from_slice::<OnRecord>(line) {
                    Ok(record) if record.kind == K::KIND && record.at_ms >= log.from_ms => {
                        records.push(record);
                    }
                    Ok(_) => {}
                    Err(_) => asking.tally.unreadable += 1,
                }
            }
            asking.about(records.iter());
            progress(block.len() as u64);
        },
        |asking| lock(&tallies).push(asking.tally),
    )?;
    Ok(conclude(tallies.into_inner().unwrap_or_default()))
}

/// Gives each core the next block of whole lines, until there is none.
fn on_all_cores<T>(
    log: &Log,
    begin: impl Fn() -> Result<T, LogError> + Sync,
    take: impl Fn(&mut T, &[u8]) + Sync,
    end: impl Fn(T) + Sync,
) -> Result<(), LogError> {
    let blocks = Mutex::new(Blocks::new(&log.files));
    thread::scope(|scope| {
        let parts = (0..cores()).map(|_| {
            scope.spawn(|| {
                let mut own = begin()?;
                let mut block = Vec::with_capacity(BLOCK * 2);
                while lock(&blocks).next(&mut block)? {
                    take(&mut own, &block);
                }
                end(own);
                Ok(())
            })
        });
        // All are started before the first is waited for.
        let parts: Vec<_> = parts.collect();
        join::<(), LogError>(parts)
    })?;
    Ok(())
}

/// The blocks of some files.
struct Blocks<'a> {
    files: std::slice::Iter<'a, PathBuf>,
    open: Option<(&'a PathBuf, File)>,
    /// The beginning of a line, read with the block before it.
    rest: Vec<u8>,
}

impl<'a> Blocks<'a> {
    fn new(files: &'a [PathBuf]) -> Self {
        Self {
            files: files.iter(),
            open: None,
            rest: Vec::new(),
        }
    }

    /// Puts the next whole lines into `block`; `false` if there are none left.
    fn next(&mut self, block: &mut Vec<u8>) -> Result<bool, LogError> {
        block.clear();
        loop {
            let (path, file) = match &mut self.open {
                Some(open) => open,
                none => {
                    let Some(path) = self.files.next() else {
                        return Ok(false);
                    };
                    let file =
                        File::open(path).map_err(|error| LogError::Read(path.clone(), error))?;
                    none.insert((path, file))
                }
            };
            block.append(&mut self.rest);
            let wanted = BLOCK as u64;
            let read = file.take(wanted).read_to_end(block);
            let read = read.map_err(|error| LogError::Read(path.clone(), error))?;
            let is_end = read < BLOCK;
            if is_end {
                self.open = None;
            } else {
                match block.iter().rposition(|byte| *byte == b'\n') {
                    Some(end) => self.rest = block.split_off(end + 1),
                    // Not even one line: more of it, up to what no record has.
                    None if block.len() < LINE_MAX => {
                        self.rest.append(block);
                        continue;
                    }
                    None => {}
                }
            }
            if !block.is_empty() {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_one_block() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        let mut expected = Vec::new();
        // Lines of all lengths, one of more than a block; the last file ends within a line.
        for (number, lengths) in [
            vec![0, 1, 700_000, 900_000],
            vec![],
            vec![3 * BLOCK, 5, BLOCK],
        ]
        .into_iter()
        .enumerate()
        {
            let path = directory.path().join(number.to_string());
            let lines: Vec<String> = lengths
                .into_iter()
                .map(|length| "x".repeat(length))
                .collect();
            std::fs::write(&path, lines.join("\n")).unwrap();
            expected.extend(lines.into_iter().filter(|line| !line.is_empty()));
            files.push(path);
        }
        let mut blocks = Blocks::new(&files);
        let (mut block, mut seen) = (Vec::new(), Vec::new());
        while blocks.next(&mut block).unwrap() {
            let lines = block
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            seen.extend(lines.map(|line| String::from_utf8(line.to_vec()).unwrap()));
        }
        let lengths = |lines: &[String]| lines.iter().map(String::len).collect::<Vec<_>>();
        assert_eq!(lengths(&seen), lengths(&expected));
    }

    #[test]
    fn the_streams_of_a_log_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let text = r#"{"message":{"payload":"\"stream\":\"none\""},"decision":{"stream":"one"}}
{"state":{"stream":"two","normal_stream":"three"}}"#;
        std::fs::write(&path, text).unwrap();
        let log = Log {
            files: vec![path],
            from_ms: 0,
        };
        let found: Vec<_> = streams(&log, &|_| {}).unwrap().into_iter().collect();
        assert_eq!(found, ["one", "three", "two"]);
    }
}
