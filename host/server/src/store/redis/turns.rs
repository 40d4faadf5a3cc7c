//! Order among messages that share a key, in Redis. What each structure is for is told beside the
//! scripts; all of a stream share its hash slot.

mod scripts;

use async_trait::async_trait;
use oona_core::entry::Entry;
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::time::Instant;

use super::super::turns::{Mended, Turns};
use super::super::{ClaimRequest, Claimed, ReadRequest, Settlement, StoreError, StreamName};
use super::command::{self, delayed, eval, ms};
use super::reply::{self, Unexpected};
use super::{RedisStore, TRIM_MAX};

/// Whose turn it is.
pub(super) fn turns(stream: &str) -> String {
    format!("{{{stream}}}:turns")
}

/// Which key each entry has whose turn it is.
pub(super) fn holders(stream: &str) -> String {
    format!("{{{stream}}}:turn-holders")
}

/// What waits for its turn.
pub(super) fn in_line(stream: &str) -> String {
    format!("{{{stream}}}:in-line")
}

/// A script with the keys that all of them have, and `more`.
fn turn(script: &str, stream: &str, group: &str, more: &[&str]) -> Cmd {
    let (turns, holders) = (turns(stream), holders(stream));
    let in_line = in_line(stream);
    let ready = ready(stream, group);
    let mut keys = vec![stream, &turns, &holders, &in_line, &ready];
    keys.extend(more);
    let mut command = eval(script, &keys);
    command.arg(group);
    command
}

/// Where it is noted whose turn has come.
pub(super) fn ready(stream: &str, group: &str) -> String {
    format!("{{{stream}}}:ready:{group}")
}

/// What one stream had to hand out, and how far its group has read.
struct Handed {
    entries: Vec<Entry>,
    through: String,
    /// How many it has read now, those included that wait in line.
    new: u64,
}

impl RedisStore {
    async fn hand_out(&self, request: &ReadRequest<'_>) -> Result<Vec<Handed>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(request.streams.len());
        for stream in request.streams {
            let mut command = turn(scripts::READ, stream, request.group, &[]);
            command.arg(request.consumer).arg(request.count);
            pipeline.add_command(command);
        }
        let answers = self.connections.pipe(&pipeline).await?;
        let handed = |value| {
            let value = self.answer(value).map_err(|e| e.of_group(request.group))?;
            self.parse(handed(value))
        };
        answers.into_iter().map(handed).collect()
    }

    /// Waits until something was appended, or the turn of an entry has come.
    async fn await_any(
        &self,
        request: &ReadRequest<'_>,
        handed: &[Handed],
        until: Instant,
    ) -> Result<(), StoreError> {
        let left = until.saturating_duration_since(Instant::now());
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(1);
        command.arg("BLOCK").arg(ms(left).max(1)).arg("STREAMS");
        for stream in request.streams {
            command.arg(&**stream).arg(ready(stream, request.group));
        }
        for handed in handed {
            command.arg(&handed.through).arg("0");
        }
        let reader = format!("{}/{}", request.group, request.consumer);
        let waited = self.connections.wait(&reader, &command, left).await;
        waited.map(drop)
    }
}

#[async_trait]
impl Turns for RedisStore {
    async fn read_in_turn(
        &self,
        request: ReadRequest<'_>,
    ) -> Result<Vec<(usize, Entry)>, StoreError> {
        if request.count == 0 || request.streams.is_empty() {
            return Ok(Vec::new());
        }
        let until = Instant::now() + request.block;
        loop {
            let handed = self.hand_out(&request).await?;
            if handed.iter().all(|handed| handed.entries.is_empty()) {
                // Behind what was put in line there may be more.
                if handed.iter().any(|handed| handed.new > 0) {
                    continue;
                }
                if Instant::now() < until {
                    self.await_any(&request, &handed, until).await?;
                    continue;
                }
            }
            let of_stream = |(index, handed): (usize, Handed)| {
                let entries = handed.entries.into_iter();
                entries.map(move |entry| (index, entry))
            };
            return Ok(handed.into_iter().enumerate().flat_map(of_stream).collect());
        }
    }

    async fn claim_in_turn(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        if request.count == 0 {
            return Ok(Vec::new());
        }
        let mut command = turn(scripts::CLAIM, request.stream, request.group, &[]);
        command.arg(request.consumer).arg(request.count);
        command.arg(ms(request.idle_min));
        let answer = self.connections.ask(&command).await;
        let answer = answer.map_err(|error| error.of_group(request.group))?;
        let claimed = self.parse(reply::list(answer))?.into_iter().map(claimed);
        self.parse(claimed.collect())
    }

    async fn settle_in_turn(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        self.settle_by(group, settlements, settle).await
    }

    async fn mend_turns(&self, stream: &StreamName, group: &str) -> Result<Mended, StoreError> {
        let mut mended = Mended::default();
        let mut from = "0".to_owned();
        loop {
            let mut command = turn(scripts::MEND, stream, group, &[&delayed(stream)]);
            command.arg(from);
            let answer = self.connections.ask(&command).await?;
            let mut parts = self.parse(reply::list(answer))?.into_iter();
            let mut next = || parts.next().unwrap_or(Value::Nil);
            from = self.parse(reply::text(next()))?;
            mended.passed += self.parse(reply::count(&next()))?;
            mended.in_line = self.parse(reply::count(&next()))?;
            if from == "0" {
                return Ok(mended);
            }
        }
    }

    async fn thin(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        let mut thinned = 0;
        let mut from = "-".to_owned();
        loop {
            let mut command = eval(scripts::THIN, &[stream]);
            command.arg(from).arg(length_max).arg(TRIM_MAX);
            let answer = self.connections.ask(&command).await?;
            let mut parts = self.parse(reply::list(answer))?.into_iter();
            let mut next = || parts.next().unwrap_or(Value::Nil);
            from = self.parse(reply::text(next()))?;
            thinned += self.parse(reply::count(&next()))?;
            if from.is_empty() {
                return Ok(thinned);
            }
        }
    }
}

/// The command that settles an entry, and passes its turn on unless it is tried again.
fn settle(group: &str, settlement: &Settlement) -> Cmd {
    let written = command::written(settlement);
    let destination = [&*written.destination];
    let mut command = turn(scripts::SETTLE, &settlement.stream, group, &destination);
    command.arg(settlement.id.to_string());
    command.arg(written.step).arg(&written.due);
    command::add_written(&mut command, &written);
    command
}

fn handed(value: Value) -> Result<Handed, Unexpected> {
    let mut parts = reply::list(value)?.into_iter();
    let (Some(entries), Some(through), Some(new)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(Unexpected("entries, and how far the group has read"));
    };
    Ok(Handed {
        entries: reply::entries(entries)?,
        through: reply::text(through)?,
        new: reply::count(&new)?,
    })
}

fn claimed(value: Value) -> Result<Claimed, Unexpected> {
    let mut parts = reply::list(value)?;
    let deliveries = parts.pop().map_or(Ok(1), |count| reply::count(&count))?;
    let entry = reply::entry(Value::Array(parts))?;
    Ok(Claimed {
        entry: entry.ok_or(Unexpected("an entry"))?,
        deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX),
    })
}
