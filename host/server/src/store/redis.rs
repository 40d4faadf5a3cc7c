//! A store in Redis (6.2 or later) or Valkey.
//!
//! Streams have the names and fields that every peer on the bus knows. Beside each stream, in the same
//! hash slot, stand a sorted set of retries that wait, `{stream}:delayed`; since when its groups have no
//! consumers, `{stream}:idle`; receipts of broadcasts, `{stream}:receipt:NAME`, which expire by
//! themselves; and what keeps the messages of one key in order, where that is asked for:
//! `{stream}:turns`, `{stream}:turn-holders`, `{stream}:in-line` and, for each group,
//! `{stream}:ready:GROUP`. Nonces are keys `oona:nonce:GROUP:NONCE` that expire by themselves, so are
//! the first outcomes of events, `oona:event:ID`; what is kept for good is `oona:kept:NAME`.
//!
//! Retry and redrive stay within one hash slot only if the streams do: with Redis Cluster, the
//! dead-letter stream would have to share the slot of every stream that feeds it.

mod address;
mod command;
mod connection;
mod probe;
mod rehearsal;
#[doc(hidden)]
pub mod reply;
mod scripts;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::broadcast::Sight;
use oona_core::dead_letter::audit::Stride;
use oona_core::entry::{Entry, EntryId, Fields, Record};
use oona_core::policy::NonceSeen;
use redis::{Cmd, Pipeline, Value, cmd};

use self::address::Address;
use self::command::{beyond, delayed, eval, event_key, idle_key, kept_key, ms, receipts_key};
use self::connection::Connections;
pub(crate) use self::connection::{KEEPS_ALL, NEEDED, field, is_supported, victims};
pub use self::probe::{Probe, Refusal, Visit};
pub use self::rehearsal::{Needs, Rehearsed};
use self::reply::{GroupInfo, Unexpected};
use super::{
    Append, ClaimRequest, Claimed, Dropped, GroupDepth, GroupStart, NonceClaim, Oldest,
    ReadRequest, RemovedGroup, Sampled, Settlement, Store, StoreError, StoreInfo, StreamDepth,
    StreamName, Written,
};

/// How many entries one trim removes at most; it is repeated while there is more.
const TRIM_MAX: u64 = 1_000;

/// How many entries one drop removes at most; it is repeated while there is more.
const DROP_MAX: u64 = 200;

/// How far the lag of a group is counted where the server does not know it.
const LAG_COUNT_MAX: u64 = 10_000;

/// How many entries one touch names at most.
const TOUCH_MAX: usize = 500;

/// How many entries one command removes at most.
const REMOVE_MAX: usize = 500;

/// How many rounds one claim makes over what is pending. The next claim goes on.
const CLAIM_ROUNDS_MAX: usize = 16;

/// See the module.
pub struct RedisStore {
    connections: Connections,
    /// How many replicas must have an entry before it counts as appended.
    replicas_min: u32,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.connections.address)
            .finish()
    }
}

/// A URL that is none of Redis.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a Redis URL, which looks like redis://[user:password@]host[:port][/database], or like \
     redis+sentinel://[user:password@]host[:port],…/master[/database]"
)]
pub struct InvalidUrl(#[source] redis::RedisError);

impl RedisStore {
    /// A store at `url`. Connects when it is first asked for something.
    ///
    /// # Errors
    ///
    /// If `url` is no URL of Redis.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        let address = Address::parse(url).map_err(InvalidUrl)?;
        Ok(Self {
            connections: Connections::new(address),
            replicas_min: 0,
        })
    }

    /// The same, where so many replicas must have an entry before it counts as appended: then the loss of
    /// the server loses nothing that was accepted, if one of these takes over.
    #[must_use]
    pub fn with_replicas(self, replicas_min: u32) -> Self {
        Self {
            replicas_min,
            ..self
        }
    }

    fn parse<T>(&self, parsed: Result<T, Unexpected>) -> Result<T, StoreError> {
        parsed.map_err(|unexpected| self.connections.unexpected(unexpected))
    }

    /// An answer of a pipeline, which may be an error of the server.
    fn answer(&self, value: Value) -> Result<Value, StoreError> {
        value
            .extract_error()
            .map_err(|error| self.connections.failed(&error))
    }

    /// Whether enough replicas have what was written. If not, it may be lost with this server.
    fn check_replicas(&self, answer: Value) -> Result<(), StoreError> {
        let detail = match self.answer(answer) {
            Ok(Value::Int(have)) if have >= self.replicas_min.into() => return Ok(()),
            Ok(Value::Int(have)) => {
                format!("{have} of {} replicas have it in time", self.replicas_min)
            }
            Ok(_) => "an answer that is not a number of replicas".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(self.connections.unavailable(&detail))
    }

    /// Settles each by the command that `settle` makes of it.
    async fn settle_by(
        &self,
        group: &str,
        settlements: &[Settlement],
        settle: impl Fn(&str, &Settlement) -> Cmd + Send + Sync,
    ) -> Result<Vec<bool>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(settlements.len());
        let mut replies = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let command = settle(group, settlement);
            replies.push(command::add_settle(
                &mut pipeline,
                group,
                settlement,
                command,
            ));
        }
        let mut answers = self.connections.pipe(&pipeline).await?.into_iter();
        let settled = |count: usize| {
            let value = answers.by_ref().take(count).last().unwrap_or(Value::Nil);
            let value = self.parse(reply::last(self.answer(value)?))?;
            Ok(self.parse(reply::count(&self.answer(value)?))? > 0)
        };
        replies.into_iter().map(settled).collect()
    }

    /// How far behind a group is that the server knows nothing of.
    async fn count_lag(&self, stream: &StreamName, info: &GroupInfo) -> Result<u64, StoreError> {
        let mut command = eval(scripts::LAG, &[stream]);
        command.arg(&info.last_delivered).arg(LAG_COUNT_MAX);
        let counted = self.connections.ask(&command).await?;
        self.parse(reply::count(&counted))
    }

    /// Adds how often each entry has been delivered. Those that have been settled meanwhile are left
    /// out.
    async fn count_deliveries(
        &self,
        stream: &StreamName,
        group: &str,
        entries: Vec<Entry>,
    ) -> Result<Vec<Claimed>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for entry in &entries {
            let id = entry.id.to_string();
            let command = pipeline.cmd("XPENDING").arg(&**stream).arg(group);
            command.arg(&id).arg(&id).arg(1);
        }
        let answers = self.connections.pipe(&pipeline).await?;
        let mut claimed = Vec::with_capacity(entries.len());
        for (entry, answer) in entries.into_iter().zip(answers) {
            let answer = self.answer(answer)?;
            if let Some(deliveries) = self.parse(reply::deliveries(answer))? {
                claimed.push(Claimed { entry, deliveries });
            }
        }
        Ok(claimed)
    }
}

#[async_trait]
impl Store for RedisStore {
    fn info(&self) -> StoreInfo {
        let address = self.connections.address.clone();
        StoreInfo {
            name: "redis",
            address,
            durable: true,
        }
    }

    fn caution(&self) -> Option<String> {
        self.connections.caution()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.connections.ask(&cmd("PING")).await.map(drop)
    }

    async fn append(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for append in batch {
            pipeline.add_command(command::append(append));
        }
        if self.replicas_min > 0 {
            command::add_wait(&mut pipeline, self.replicas_min);
        }
        let mut answers = self.connections.pipe(&pipeline).await?;
        let waited = answers.split_off(batch.len()).pop();
        let written = |value| {
            let value = self.answer(value)?;
            self.parse(reply::written(value))
        };
        let written: Vec<_> = answers.into_iter().map(written).collect();
        match waited {
            Some(waited) if written.iter().any(Result::is_ok) => self.check_replicas(waited)?,
            _ => {}
        }
        Ok(written)
    }

    async fn recall(&self, events: &[Arc<str>]) -> Result<Vec<Option<Written>>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("MGET");
        events.iter().for_each(|event| {
            command.arg(event_key(event));
        });
        let answer = self.connections.ask(&command).await?;
        let recalled = |value| match value {
            Value::Nil => Ok(None),
            known => reply::written(known).map(Some),
        };
        let answers = self.parse(reply::list(answer))?;
        self.parse(answers.into_iter().map(recalled).collect())
    }

    async fn append_after(
        &self,
        stream: &StreamName,
        last: Option<EntryId>,
        id: Option<EntryId>,
        record: &Record,
    ) -> Result<Option<EntryId>, StoreError> {
        let command = command::append_after(stream, last, id, record);
        match self.connections.ask(&command).await? {
            Value::Nil => Ok(None),
            written => self.parse(reply::id(&written)).map(Some),
        }
    }

    async fn ensure_group(
        &self,
        stream: &StreamName,
        group: &str,
        start: GroupStart,
    ) -> Result<(), StoreError> {
        let from = match start {
            GroupStart::Beginning => "0",
            GroupStart::End => "$",
        };
        let mut command = cmd("XGROUP");
        command
            .arg("CREATE")
            .arg(&**stream)
            .arg(group)
            .arg(from)
            .arg("MKSTREAM");
        match self.connections.ask(&command).await {
            Err(StoreError::Refused { code, .. }) if code == "BUSYGROUP" => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Vec<(usize, Entry)>, StoreError> {
        let ReadRequest {
            group,
            consumer,
            streams,
            count,
            block,
        } = request;
        // The server takes zero for no limit.
        if count == 0 || streams.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(group)
            .arg(consumer)
            .arg("COUNT")
            .arg(count);
        // Zero would wait for ever.
        command.arg("BLOCK").arg(ms(block).max(1)).arg("STREAMS");
        streams.iter().for_each(|stream| {
            command.arg(&**stream);
        });
        streams.iter().for_each(|_| {
            command.arg(">");
        });
        let reader = format!("{group}/{consumer}");
        let answer = self.connections.wait(&reader, &command, block).await;
        let answer = answer.map_err(|error| error.of_group(group))?;
        let mut found = Vec::new();
        for (name, entries) in self.parse(reply::streams(answer))? {
            let index = streams.iter().position(|stream| stream.as_bytes() == name);
            let index = index.ok_or(Unexpected("of the streams that were asked for"));
            let index = self.parse(index)?;
            found.extend(entries.into_iter().map(|entry| (index, entry)));
        }
        found.sort_by_key(|(index, _)| *index);
        Ok(found)
    }

    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Vec<Claimed>, StoreError> {
        let ClaimRequest {
            stream,
            group,
            consumer,
            idle_min,
            count,
        } = request;
        let mut entries = Vec::new();
        let mut cursor = "0-0".to_owned();
        for _ in 0..CLAIM_ROUNDS_MAX {
            if entries.len() >= count {
                break;
            }
            let mut command = cmd("XAUTOCLAIM");
            command.arg(&**stream).arg(group).arg(consumer);
            command.arg(ms(idle_min)).arg(&cursor);
            command.arg("COUNT").arg(count - entries.len());
            let answer = self.connections.ask(&command).await;
            let answer = answer.map_err(|error| error.of_group(group))?;
            let mut parts = self.parse(reply::list(answer))?.into_iter();
            let (Some(next), Some(found)) = (parts.next(), parts.next()) else {
                break;
            };
            entries.extend(self.parse(reply::entries(found))?);
            cursor = self.parse(reply::text(next))?;
            if cursor == "0-0" {
                break;
            }
        }
        self.count_deliveries(stream, group, entries).await
    }

    async fn touch(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
        ids: &[EntryId],
    ) -> Result<(), StoreError> {
        for ids in ids.chunks(TOUCH_MAX) {
            let mut command = eval(scripts::TOUCH, &[stream]);
            command.arg(group).arg(consumer);
            ids.iter().for_each(|id| {
                command.arg(id.to_string());
            });
            let answer = self.connections.ask(&command).await;
            answer.map_err(|error| error.of_group(group))?;
        }
        Ok(())
    }

    async fn settle(
        &self,
        group: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        self.settle_by(group, settlements, command::settle).await
    }

    async fn sights(
        &self,
        stream: &StreamName,
        id: EntryId,
        receipt: &str,
        groups: &[String],
    ) -> Result<Vec<Sight>, StoreError> {
        let mut command = eval(scripts::SIGHTS, &[stream, &receipts_key(stream, receipt)]);
        command.arg(id.to_string()).arg(groups);
        let answer = self.connections.ask(&command).await?;
        self.parse(reply::sights(answer))
    }

    async fn promote(
        &self,
        stream: &StreamName,
        now: Timestamp,
        count: usize,
    ) -> Result<u64, StoreError> {
        let (turns, holders) = (turns::turns(stream), turns::holders(stream));
        let keys = [&**stream, &delayed(stream), &turns, &holders];
        let mut command = eval(scripts::PROMOTE, &keys);
        command.arg(now.as_millis()).arg(count);
        let moved = self.connections.ask(&command).await?;
        self.parse(reply::count(&moved))
    }

    async fn depths(&self, streams: &[StreamName]) -> Result<Vec<StreamDepth>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(streams.len() * 3);
        for stream in streams {
            pipeline.cmd("XLEN").arg(&**stream);
            pipeline.cmd("XINFO").arg("GROUPS").arg(&**stream);
            pipeline.cmd("ZCARD").arg(delayed(stream));
        }
        let mut answers = self.connections.pipe(&pipeline).await?.into_iter();
        let mut depths = Vec::with_capacity(streams.len());
        for stream in streams {
            let mut next = || answers.next().unwrap_or(Value::Nil);
            let (length, groups, waiting) = (next(), next(), next());
            let length = self.parse(reply::count(&self.answer(length)?))?;
            let waiting = self.parse(reply::count(&self.answer(waiting)?))?;
            // A stream that does not exist has no groups, and the server calls that an error.
            let infos = match groups {
                Value::ServerError(_) if length == 0 => Vec::new(),
                groups => self.parse(reply::list(self.answer(groups)?))?,
            };
            let mut groups = Vec::with_capacity(infos.len());
            for info in infos {
                let info = self.parse(reply::group(info))?;
                let lag = match info.lag {
                    Some(lag) => lag,
                    None => self.count_lag(stream, &info).await?,
                };
                groups.push(GroupDepth {
                    name: info.name,
                    // Redis 7 goes on counting entries that were deleted before they were read.
                    lag: lag.min(length),
                    pending: info.pending,
                });
            }
            depths.push(StreamDepth::new(length, groups, waiting));
        }
        Ok(depths)
    }

    async fn oldest(&self, streams: &[StreamName]) -> Result<Vec<Oldest>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(streams.len());
        for stream in streams {
            pipeline.add_command(eval(scripts::OLDEST, &[stream]));
        }
        let answers = self.connections.pipe(&pipeline).await?.into_iter();
        answers
            .map(|answer| self.parse(reply::oldest(self.answer(answer)?)))
            .collect()
    }

    async fn trim(&self, stream: &StreamName, length_max: u64) -> Result<u64, StoreError> {
        let mut trimmed = 0;
        loop {
            let mut command = eval(scripts::TRIM, &[stream]);
            command.arg(length_max).arg(TRIM_MAX);
            let answer = self.connections.ask(&command).await?;
            let count = self.parse(reply::count(&answer))?;
            trimmed += count;
            if count < TRIM_MAX {
                return Ok(trimmed);
            }
        }
    }

    async fn drop_oldest(
        &self,
        stream: &StreamName,
        length_max: u64,
    ) -> Result<Dropped, StoreError> {
        let mut dropped = Dropped::default();
        loop {
            let mut command = eval(scripts::DROP_OLDEST, &[stream]);
            command.arg(length_max).arg(DROP_MAX);
            let answer = self.connections.ask(&command).await?;
            let counts = self.parse(reply::list(answer))?;
            let [all, unfinished] = &counts[..] else {
                return self.parse(Err(Unexpected("two numbers")));
            };
            let all = self.parse(reply::count(all))?;
            let unfinished = self.parse(reply::count(unfinished))?;
            dropped.unfinished += unfinished;
            dropped.finished += all.saturating_sub(unfinished);
            if all < DROP_MAX {
                return Ok(dropped);
            }
        }
    }

    async fn remove_idle_consumers(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<u64, StoreError> {
        let mut command = eval(scripts::REMOVE_IDLE_CONSUMERS, &[stream]);
        command.arg(ms(idle));
        let removed = self.connections.ask(&command).await?;
        self.parse(reply::count(&removed))
    }

    async fn remove_idle_groups(
        &self,
        stream: &StreamName,
        idle: Duration,
    ) -> Result<Vec<RemovedGroup>, StoreError> {
        let keys = [&**stream, &idle_key(stream)];
        let mut command = eval(scripts::REMOVE_IDLE_GROUPS, &keys);
        command.arg(ms(idle)).arg(LAG_COUNT_MAX);
        let removed = self.connections.ask(&command).await?;
        self.parse(reply::removed_groups(removed))
    }

    async fn range(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut command = cmd("XRANGE");
        command
            .arg(&**stream)
            .arg(beyond(after))
            .arg("+")
            .arg("COUNT")
            .arg(count);
        let answer = self.connections.ask(&command).await?;
        self.parse(reply::entries(answer))
    }

    async fn sample(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
        stride: Stride,
    ) -> Result<Sampled, StoreError> {
        // More than are looked at are as good as none; the server counts in doubles.
        let most = count as u64 + 1;
        let mut command = eval(scripts::SAMPLE, &[stream]);
        command
            .arg(beyond(after))
            .arg(count)
            .arg(stride.skip.min(most))
            .arg(stride.every.min(most));
        let answer = self.connections.ask(&command).await?;
        self.parse(reply::sampled(answer))
    }

    async fn redrive(
        &self,
        from: &StreamName,
        id: EntryId,
        to: &StreamName,
        fields: &Fields,
    ) -> Result<Option<EntryId>, StoreError> {
        let mut command = eval(scripts::REDRIVE, &[from, to]);
        command.arg(id.to_string());
        for (name, value) in fields {
            command.arg(&name[..]).arg(&value[..]);
        }
        match self.connections.ask(&command).await? {
            Value::Nil => Ok(None),
            moved => self.parse(reply::id(&moved)).map(Some),
        }
    }

    async fn remove(&self, stream: &StreamName, ids: &[EntryId]) -> Result<u64, StoreError> {
        let mut removed = 0;
        for ids in ids.chunks(REMOVE_MAX) {
            let mut command = cmd("XDEL");
            command.arg(&**stream);
            ids.iter().for_each(|id| {
                command.arg(id.to_string());
            });
            let answer = self.connections.ask(&command).await?;
            removed += self.parse(reply::count(&answer))?;
        }
        Ok(removed)
    }

    async fn expire(
        &self,
        stream: &StreamName,
        before: Timestamp,
        length_max: u64,
    ) -> Result<u64, StoreError> {
        let mut pipeline = Pipeline::with_capacity(2);
        let trim = |by: &str, limit: u64| {
            let mut command = cmd("XTRIM");
            command.arg(&**stream).arg(by).arg("=").arg(limit);
            command
        };
        pipeline.add_command(trim("MINID", before.as_millis()));
        pipeline.add_command(trim("MAXLEN", length_max));
        let mut removed = 0;
        for answer in self.connections.pipe(&pipeline).await? {
            removed += self.parse(reply::count(&self.answer(answer)?))?;
        }
        Ok(removed)
    }

    async fn last(&self, stream: &StreamName) -> Result<Option<EntryId>, StoreError> {
        let mut command = cmd("XREVRANGE");
        command.arg(&**stream).arg("+").arg("-").arg("COUNT").arg(1);
        let answer = self.connections.ask(&command).await?;
        let entries = self.parse(reply::entries(answer))?;
        Ok(entries.first().map(|entry| entry.id))
    }

    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let mut command = cmd("SET");
        command.arg(kept_key(name)).arg(&bytes[..]);
        self.connections.ask(&command).await.map(drop)
    }

    async fn kept(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let mut command = cmd("GET");
        command.arg(kept_key(name));
        match self.connections.ask(&command).await? {
            Value::Nil => Ok(None),
            held => self.parse(reply::bytes(held)).map(Some),
        }
    }

    async fn remember(
        &self,
        group: &str,
        claims: &[NonceClaim],
    ) -> Result<Vec<NonceSeen>, StoreError> {
        let owner = |claim: &NonceClaim| format!("{}/{}", claim.owner.0, claim.owner.1);
        let mut pipeline = Pipeline::with_capacity(claims.len());
        for claim in claims {
            let key = format!("oona:nonce:{group}:{:016x}", claim.nonce);
            let mut command = eval(scripts::REMEMBER, &[&key]);
            command.arg(owner(claim)).arg(ms(claim.ttl).max(1));
            pipeline.add_command(command);
        }
        let answers = self.connections.pipe(&pipeline).await?;
        let mut seen = Vec::with_capacity(claims.len());
        for (claim, answer) in claims.iter().zip(answers) {
            seen.push(match self.answer(answer)? {
                Value::Nil => NonceSeen::Unseen,
                held => {
                    let same = self.parse(reply::text(held))? == owner(claim);
                    if same {
                        NonceSeen::SameEntry
                    } else {
                        NonceSeen::OtherEntry
                    }
                }
            });
        }
        Ok(seen)
    }

    async fn leave(
        &self,
        stream: &StreamName,
        group: &str,
        consumer: &str,
    ) -> Result<(), StoreError> {
        self.connections.forget(&format!("{group}/{consumer}"));
        let mut command = eval(scripts::LEAVE, &[stream]);
        command.arg(group).arg(consumer);
        self.connections.ask(&command).await.map(drop)
    }
}
