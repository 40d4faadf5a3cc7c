//! What Redis itself does with the same entries: the reference, and the limit.

use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{Client, Pipeline, RedisResult, Value, cmd, pipe};

use super::report::Samples;
use super::{BenchError, GROUP, ONE_BY_ONE, RawFields};

/// How many commands a pipeline holds, and how many entries a read asks for: what peers use.
const PIPELINE: usize = 256;
const READ: usize = 200;

/// How many copies one script makes: few enough to let others in between.
const COPIES: usize = 10_000;

/// Where the references write.
const STREAM: &str = "bench.raw";

/// A connection beside the bus.
pub(super) struct Raw {
    connection: MultiplexedConnection,
    /// Where, without secrets.
    pub(super) address: String,
}

impl Raw {
    pub(super) async fn connect(url: &str) -> RedisResult<Self> {
        let client = Client::open(url)?;
        let address = client.get_connection_info().addr().to_string();
        let connection = client.get_multiplexed_async_connection().await?;
        Ok(Self {
            connection,
            address,
        })
    }

    pub(super) async fn is_empty(&mut self) -> RedisResult<bool> {
        let keys: u64 = cmd("DBSIZE").query_async(&mut self.connection).await?;
        Ok(keys == 0)
    }

    /// The version of the server.
    pub(super) async fn version(&mut self) -> RedisResult<String> {
        let mut info = cmd("INFO");
        let info: String = info.arg("server").query_async(&mut self.connection).await?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        Ok(line.unwrap_or("unknown").trim().to_owned())
    }

    /// How many bytes the server has taken for its data.
    pub(super) async fn used_memory(&mut self) -> RedisResult<u64> {
        let mut info = cmd("INFO");
        let info: String = info.arg("memory").query_async(&mut self.connection).await?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        Ok(line
            .and_then(|used| used.trim().parse().ok())
            .unwrap_or_default())
    }

    /// The fields of the first entry of a stream.
    pub(super) async fn first(&mut self, stream: &str) -> RedisResult<RawFields> {
        let mut range = cmd("XRANGE");
        range.arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
        let found: Vec<(String, RawFields)> = range.query_async(&mut self.connection).await?;
        Ok(found.into_iter().next().unwrap_or_default().1)
    }

    /// Appends the last entry of a stream to it, so many times.
    pub(super) async fn copy(&mut self, stream: &str, times: usize) -> RedisResult<()> {
        const COPY: &str = r"
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2]
for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', unpack(last)) end
";
        let mut left = times;
        while left > 0 {
            let count = left.min(COPIES);
            let mut copy = cmd("EVAL");
            copy.arg(COPY).arg(1).arg(stream).arg(count);
            copy.query_async::<()>(&mut self.connection).await?;
            left -= count;
        }
        Ok(())
    }

    /// Reads a stream from its beginning, so many entries at a time. Answers how many there are.
    pub(super) async fn read(&mut self, stream: &str, at_a_time: usize) -> RedisResult<usize> {
        let (mut read, mut after) = (0, "-".to_owned());
        loop {
            let mut range = cmd("XRANGE");
            range.arg(stream).arg(&after).arg("+");
            range.arg("COUNT").arg(at_a_time);
            let found: Vec<(String, RawFields)> = range.query_async(&mut self.connection).await?;
            let Some((last, _)) = found.last() else {
                return Ok(read);
            };
            read += found.len();
            after = format!("({last}");
        }
    }

    /// Empties a stream; its groups stay.
    pub(super) async fn forget(&mut self, stream: &str) -> Result<(), BenchError> {
        let mut trim = cmd("XTRIM");
        trim.arg(stream).arg("MAXLEN").arg(0);
        trim.query_async::<()>(&mut self.connection).await?;
        Ok(())
    }

    /// How many entries a stream holds.
    pub(super) async fn length(&mut self, stream: &str) -> RedisResult<u64> {
        cmd("XLEN")
            .arg(stream)
            .query_async(&mut self.connection)
            .await
    }

    /// Leaves nothing behind. Only called for a database that was empty at first.
    pub(super) async fn forget_all(&mut self) -> RedisResult<()> {
        cmd("FLUSHDB").query_async(&mut self.connection).await
    }

    /// How much of a stream its group has yet to finish.
    pub(super) async fn unfinished(&mut self, stream: &str) -> RedisResult<u64> {
        let mut pending = cmd("XPENDING");
        pending.arg(stream).arg(GROUP);
        let summary: Vec<Value> = pending.query_async(&mut self.connection).await?;
        Ok(match summary.first() {
            Some(Value::Int(pending)) => u64::try_from(*pending).unwrap_or_default(),
            _ => 0,
        })
    }

    async fn drop_stream(&mut self) -> RedisResult<()> {
        cmd("DEL")
            .arg(STREAM)
            .query_async(&mut self.connection)
            .await
    }
}

/// The three references.
pub(super) async fn measure(
    raw: &mut Raw,
    entry: &RawFields,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    one_by_one(raw, entry, messages / ONE_BY_ONE, samples).await?;
    raw.drop_stream().await?;
    let begun = Instant::now();
    pipelined(raw, entry, messages).await?;
    samples.rate("raw-publish", messages, begun.elapsed());
    let mut group = cmd("XGROUP");
    group.arg("CREATE").arg(STREAM).arg(GROUP).arg("0");
    group.query_async::<()>(&mut raw.connection).await?;
    let begun = Instant::now();
    consume(raw, messages).await?;
    samples.rate("raw-consume", messages, begun.elapsed());
    Ok(raw.drop_stream().await?)
}

async fn pipelined(raw: &mut Raw, entry: &RawFields, messages: usize) -> RedisResult<()> {
    let mut left = messages;
    while left > 0 {
        let count = left.min(PIPELINE);
        let mut pipeline = Pipeline::with_capacity(count);
        for _ in 0..count {
            add(&mut pipeline, entry);
        }
        pipeline.query_async::<()>(&mut raw.connection).await?;
        left -= count;
    }
    Ok(())
}

async fn one_by_one(
    raw: &mut Raw,
    entry: &RawFields,
    messages: usize,
    samples: &mut Samples,
) -> RedisResult<()> {
    let mut took = Vec::with_capacity(messages);
    for _ in 0..messages {
        let mut command = cmd("XADD");
        command.arg(STREAM).arg("*");
        for (name, value) in entry {
            command.arg(name).arg(value);
        }
        let begun = Instant::now();
        command.query_async::<()>(&mut raw.connection).await?;
        took.push(begun.elapsed());
    }
    samples.median_latency("raw-publish-single", &mut took);
    Ok(())
}

fn add(pipeline: &mut Pipeline, entry: &RawFields) {
    let command = pipeline.cmd("XADD").arg(STREAM).arg("*");
    for (name, value) in entry {
        command.arg(name).arg(value);
    }
    command.ignore();
}

async fn consume(raw: &mut Raw, messages: usize) -> RedisResult<()> {
    let mut left = messages;
    while left > 0 {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP")
            .arg(GROUP)
            .arg("raw")
            .arg("COUNT")
            .arg(READ);
        read.arg("STREAMS").arg(STREAM).arg(">");
        let read: Vec<(String, Vec<(String, RawFields)>)> =
            read.query_async(&mut raw.connection).await?;
        let entries = read.into_iter().flat_map(|(_, entries)| entries);
        let ids: Vec<String> = entries.map(|(id, _)| id).collect();
        left = left.saturating_sub(ids.len());
        let mut ack = pipe();
        ack.cmd("XACK").arg(STREAM).arg(GROUP).arg(&ids).ignore();
        ack.query_async::<()>(&mut raw.connection).await?;
    }
    Ok(())
}
