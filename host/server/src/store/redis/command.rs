//! What is asked of Redis, put together.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use oona_core::entry::{EntryId, ORIGINAL, PAYLOAD, Record, SIGNATURE};
use redis::{Cmd, Pipeline, cmd};

use super::super::{Append, RECEIPT_KEPT, Settlement, Step};
use super::scripts;

/// Where the retries of a stream wait.
pub(super) fn delayed(stream: &str) -> String {
    format!("{{{stream}}}:delayed")
}

/// Since when the groups of a stream have no consumers.
pub(super) fn idle_key(stream: &str) -> String {
    format!("{{{stream}}}:idle")
}

/// Where what is kept for good is.
pub(super) fn kept_key(name: &str) -> String {
    format!("oona:kept:{name}")
}

/// Where a range begins that takes what comes after an entry.
pub(super) fn beyond(after: Option<EntryId>) -> String {
    after.map_or_else(|| "-".to_owned(), |id| format!("({id}"))
}

/// A script that is run with these keys.
pub(super) fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys);
    command
}

/// The fields of a record.
fn add_record(command: &mut Cmd, record: &Record) {
    command.arg(PAYLOAD).arg(&record.payload[..]);
    if let Some(signature) = &record.signature {
        command.arg(SIGNATURE).arg(&signature[..]);
    }
}

/// As Redis counts time.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where the first outcome of an event is remembered.
pub(super) fn event_key(event: &str) -> String {
    format!("oona:event:{event}")
}

pub(super) fn append(append: &Append) -> Cmd {
    let Append {
        stream,
        record,
        once,
    } = append;
    if let Some(once) = once {
        let mut command = eval(scripts::APPEND_ONCE, &[stream, &event_key(&once.event)]);
        command.arg(ms(once.window).max(1)).arg(&once.note[..]);
        add_record(&mut command, record);
        return command;
    }
    let size = record.payload.len() + stream.len() + 128;
    let mut command = Cmd::with_capacity(7, size);
    command.arg("XADD").arg(&**stream).arg("*");
    add_record(&mut command, record);
    command
}

pub(super) fn append_after(
    stream: &str,
    last: Option<EntryId>,
    id: Option<EntryId>,
    record: &Record,
) -> Cmd {
    let text =
        |id: Option<EntryId>, none: &str| id.map_or_else(|| none.to_owned(), |id| id.to_string());
    let mut command = eval(scripts::APPEND_AFTER, &[stream]);
    command.arg(text(last, "")).arg(text(id, "*"));
    add_record(&mut command, record);
    command
}

/// How long replicas may take to have what was written.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);

/// What is written so that replicas can be waited for.
pub(super) const MARK: &str = "oona:replicated";

/// Adds what waits until so many replicas have all that was written before. The server waits for what this
/// connection has written, and the answer to a duplicate writes nothing: so there is a mark behind it.
pub(super) fn add_wait(pipeline: &mut Pipeline, replicas_min: u32) {
    let time = ms(REPLICAS_TIMEOUT);
    pipeline.cmd("SET").arg(MARK).arg("").arg("PX").arg(time);
    pipeline.cmd("WAIT").arg(replicas_min).arg(time);
}

/// Where receipts are.
pub(super) fn receipts_key(stream: &str, name: &str) -> String {
    format!("{{{stream}}}:receipt:{name}")
}

/// Adds what settles an entry in one atomic step, and the note of it if there is to be one; answers how
/// many replies that makes. The last is the one that counts.
pub(super) fn add_settle(
    pipeline: &mut Pipeline,
    group: &str,
    settlement: &Settlement,
    settle: Cmd,
) -> usize {
    let Some(receipt) = &settlement.receipt else {
        pipeline.add_command(settle);
        return 1;
    };
    let key = receipts_key(&settlement.stream, &receipt.name);
    let mut note = eval(scripts::RECEIPT, &[&settlement.stream, &key]);
    note.arg(group).arg(settlement.id.to_string());
    note.arg(receipt.outcome.name()).arg(ms(RECEIPT_KEPT));
    pipeline.add_command(cmd("MULTI"));
    pipeline.add_command(note);
    pipeline.add_command(settle);
    pipeline.add_command(cmd("EXEC"));
    4
}

/// What settling an entry writes, and where.
pub(super) struct Written<'a> {
    /// Which of the scripts' words it is.
    pub(super) step: &'static str,
    pub(super) destination: Cow<'a, str>,
    /// Empty for at once.
    pub(super) due: String,
    record: Option<&'a Record>,
    original: Option<&'a Bytes>,
}

pub(super) fn written(settlement: &Settlement) -> Written<'_> {
    let at_once = |step, destination, record| Written {
        step,
        destination: Cow::Borrowed(destination),
        due: String::new(),
        record,
        original: None,
    };
    let own = &*settlement.stream;
    match &settlement.step {
        Step::Ack => at_once("ack", own, None),
        Step::Retry { record, at: None } => at_once("again", own, Some(record)),
        Step::Retry {
            record,
            at: Some(at),
        } => Written {
            destination: Cow::Owned(delayed(own)),
            due: at.as_millis().to_string(),
            ..at_once("later", own, Some(record))
        },
        Step::DeadLetter {
            stream,
            record,
            original,
        } => Written {
            original: original.as_ref(),
            ..at_once("letter", stream, Some(record))
        },
    }
}

/// The fields that are written.
pub(super) fn add_written(command: &mut Cmd, written: &Written<'_>) {
    if let Some(record) = written.record {
        add_record(command, record);
    }
    if let Some(original) = written.original {
        command.arg(ORIGINAL).arg(&original[..]);
    }
}

/// The command that settles an entry in one atomic step.
pub(super) fn settle(group: &str, settlement: &Settlement) -> Cmd {
    let Settlement {
        stream, id, step, ..
    } = settlement;
    if matches!(step, Step::Ack) {
        let mut command = cmd("XACK");
        command.arg(&**stream).arg(group).arg(id.to_string());
        return command;
    }
    let written = written(settlement);
    let mut command = eval(scripts::MOVE, &[stream, &written.destination]);
    command.arg(group).arg(id.to_string()).arg(&written.due);
    add_written(&mut command, &written);
    command
}
