//! A candidate over a log: decisions a second, and how much memory it takes.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use oona_core::policy::{Kind, Priority};
use oona_wasm::{Artifact, Engine, EngineConfig};
use tokio::task::spawn_blocking;

use super::memory::Memory;
use super::report::Samples;
use super::{BenchError, component};
use crate::cases::{self, NOW_MS};
use crate::chain::chain;
use crate::decisions::Recorded;
use crate::record::{Decision, Message, MessageType, State};
use crate::replay::{self, Log};

/// How many decisions were made in the same ms: a bus that is busy, of which one in so many is recorded.
const AT_ONCE: u64 = 8;

/// Writes a log of so many decisions, and replays it with the shipped routing policy.
pub(super) async fn measure(
    directory: Option<PathBuf>,
    scratch: &Path,
    decisions: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let file = scratch.join("decisions.jsonl");
    let measured = spawn_blocking(move || run(directory.as_deref(), &file, decisions));
    let (parsed, replayed, grown) = measured.await??;
    samples.rate("parse-log", decisions, parsed);
    samples.rate("replay", decisions, replayed);
    if let Some(grown) = grown {
        samples.cost("replay-memory", grown.max(1) as f64);
    }
    Ok(())
}

type Measured = (std::time::Duration, std::time::Duration, Option<u64>);

fn run(directory: Option<&Path>, file: &Path, decisions: usize) -> Result<Measured, BenchError> {
    let failed = |error: &dyn std::error::Error| BenchError::Bus(chain(error));
    write(file, decisions).map_err(|error| failed(&error))?;
    let engine = Engine::new(EngineConfig::default()).map_err(|error| failed(&error))?;
    let artifact = Artifact::load(&engine, Kind::Routing, &component(directory, "routing")?);
    let artifact = artifact.map_err(|error| failed(&error))?;

    let begun = Instant::now();
    let text = fs::read(file).map_err(|error| failed(&error))?;
    let lines = text.split(|byte| *byte == b'\n');
    let records = lines.filter(|line| serde_json::from_slice::<Recorded>(line).is_ok());
    let parsed = (records.count(), begun.elapsed());
    drop(text);

    let log = Log {
        files: vec![file.to_owned()],
        from_ms: 0,
    };
    let before = Memory::reset();
    let begun = Instant::now();
    let streams = replay::streams(&log, &|_| {}).map_err(|error| failed(&error))?;
    let names = cases::names(&streams.into_iter().collect::<Vec<_>>());
    let replayed = replay::replay_log(&artifact, "{}", &names, &log, &|_| {});
    let replayed = replayed.map_err(|error| failed(&error))?;
    let took = begun.elapsed();
    let grown = before.and_then(Memory::grown);
    let asked = usize::try_from(replayed.decisions).unwrap_or(usize::MAX);
    if asked != decisions || parsed.0 != decisions {
        return Err(BenchError::Bus(format!("{asked} of {decisions} replayed")));
    }
    Ok((parsed.1, took, grown))
}

/// Decisions of routing, as a host records them.
fn write(file: &Path, decisions: usize) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = BufWriter::new(fs::File::create(file)?);
    for number in 0..decisions as u64 {
        let at_ms = NOW_MS + number / AT_ONCE;
        let record = Recorded {
            at_ms,
            kind: Kind::Routing,
            message: Message {
                id: format!("01890a5d-ac96-774b-bcce-{number:012x}"),
                message_type: MessageType(u32::try_from(number % 12).unwrap_or(0)),
                priority: Priority::ALL[(number % 5) as usize],
                source: format!("sensor-{}", number % 40),
                key: format!("key-{}", number % 1_000),
                created_at: Some(at_ms),
                attributes: [("origin".to_owned(), "edge".to_owned())].into(),
                payload_size: Some(280),
                ..Message::default()
            },
            state: State::default(),
            decision: Decision {
                verdict: "route".to_owned(),
                reason: "type".to_owned(),
                stream: Some("oona.normal".to_owned()),
                ..Decision::default()
            },
            policy: "routing".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "native".to_owned(),
            fault: None,
            took_ns: 400,
            every: 1,
        };
        serde_json::to_writer(&mut file, &record)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
