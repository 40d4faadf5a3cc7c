//! A store in Redis (6.2 or later) or Valkey.
//!
//! Streams have the names and fields that every peer on the bus knows. Beside each stream stands a
//! sorted set of retries that wait, `{stream}:delayed`, in the same hash slot. Nonces are keys
//! `oona:nonce:GROUP:NONCE` that expire by themselves, what is kept for good is `oona:kept:NAME`.
//!
//! Retry and redrive stay within one hash slot only if the streams do: with Redis Cluster, the
//! dead-letter stream would have to share the slot of every stream that feeds it.

mod command;
mod connection;
mod reply;
mod scripts;

use async_trait::async_trait;
use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::entry::{Entry, EntryId, Fields};
use oona_core::policy::NonceSeen;
use redis::{Client, Pipeline, Value, cmd};

use self::command::{delayed, eval, kept_key, ms};
use self::connection::Connections;
use self::reply::{GroupInfo, Unexpected};
use super::{
    Append, ClaimRequest, Claimed, GroupDepth, GroupStart, NonceClaim, ReadRequest, Settlement,
    Store, StoreError, StoreInfo, StreamDepth, StreamName,
};

/// How many entries one trim removes at most; it is repeated while there is more.
const TRIM_MAX: u64 = 1_000;

/// How far the lag of a group is counted where the server does not know it.
const LAG_COUNT_MAX: u64 = 10_000;

/// How many entries one touch names at most.
const TOUCH_MAX: usize = 500;

/// How many rounds one claim makes over what is pending. The next claim goes on.
const CLAIM_ROUNDS_MAX: usize = 16;

/// See the module.
pub struct RedisStore {
    connections: Connections,
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
#[error("not a Redis URL, which looks like redis://[user:password@]host[:port][/database]")]
pub struct InvalidUrl(#[source] redis::RedisError);

impl RedisStore {
    /// A store at `url`. Connects when it is first asked for something.
    ///
    /// # Errors
    ///
    /// If `url` is no URL of Redis.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        let client = Client::open(url).map_err(InvalidUrl)?;
        Ok(Self {
            connections: Connections::new(client),
        })
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

    async fn ping(&self) -> Result<(), StoreError> {
        self.connections.ask(&cmd("PING")).await.map(drop)
    }

    async fn append(
        &self,
        batch: &[Append],
    ) -> Result<Vec<Result<EntryId, StoreError>>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for append in batch {
            pipeline.add_command(command::append(append));
        }
        let answers = self.connections.pipe(&pipeline).await?;
        let written = |value| {
            let value = self.answer(value)?;
            self.parse(reply::id(&value))
        };
        Ok(answers.into_iter().map(written).collect())
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
        let mut pipeline = Pipeline::with_capacity(settlements.len());
        for settlement in settlements {
            pipeline.add_command(command::settle(group, settlement));
        }
        let answers = self.connections.pipe(&pipeline).await?;
        let settled = |value| {
            let value = self.answer(value)?;
            Ok(self.parse(reply::count(&value))? > 0)
        };
        answers.into_iter().map(settled).collect()
    }

    async fn promote(
        &self,
        stream: &StreamName,
        now: Timestamp,
        count: usize,
    ) -> Result<u64, StoreError> {
        let mut command = eval(scripts::PROMOTE, &[stream, &delayed(stream)]);
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

    async fn range(
        &self,
        stream: &StreamName,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let mut command = cmd("XRANGE");
        command
            .arg(&**stream)
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(count);
        let answer = self.connections.ask(&command).await?;
        self.parse(reply::entries(answer))
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

    async fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let mut command = cmd("SET");
        command.arg(kept_key(name)).arg(&bytes[..]).arg("NX");
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
