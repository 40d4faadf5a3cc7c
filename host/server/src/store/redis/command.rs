//! What is asked of Redis, put together.

use std::time::Duration;

use oona_core::entry::{PAYLOAD, Record, SIGNATURE};
use redis::{Cmd, cmd};

use super::super::{Append, Settlement, Step};
use super::scripts;

/// Where the retries of a stream wait.
pub(super) fn delayed(stream: &str) -> String {
    format!("{{{stream}}}:delayed")
}

/// Where what is kept for good is.
pub(super) fn kept_key(name: &str) -> String {
    format!("oona:kept:{name}")
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

pub(super) fn append(append: &Append) -> Cmd {
    let Append { stream, record } = append;
    let size = record.payload.len() + stream.len() + 128;
    let mut command = Cmd::with_capacity(7, size);
    command.arg("XADD").arg(&**stream).arg("*");
    add_record(&mut command, record);
    command
}

/// The command that settles an entry in one atomic step.
pub(super) fn settle(group: &str, settlement: &Settlement) -> Cmd {
    let Settlement { stream, id, step } = settlement;
    let (destination, due, record) = match step {
        Step::Ack => {
            let mut command = cmd("XACK");
            command.arg(&**stream).arg(group).arg(id.to_string());
            return command;
        }
        Step::Retry { record, at: None } => (stream.to_string(), String::new(), record),
        Step::Retry {
            record,
            at: Some(at),
        } => (delayed(stream), at.as_millis().to_string(), record),
        Step::DeadLetter { stream, record } => (stream.to_string(), String::new(), record),
    };
    let mut command = eval(scripts::MOVE, &[stream, &destination]);
    command.arg(group).arg(id.to_string()).arg(due);
    add_record(&mut command, record);
    command
}
