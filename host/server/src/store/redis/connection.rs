//! Connections to Redis, made when they are needed and dropped when they fail.
//!
//! Nothing is retried here: whoever asks hears at once that the store does not answer, and has a
//! breaker and a schedule of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, Value};

use super::super::StoreError;
use super::address::Address;
use super::reply::Unexpected;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take, beyond what a command asks to wait.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The oldest server that knows `XAUTOCLAIM` and `XTRIM MINID`.
const VERSION_MIN: (u32, u32) = (6, 2);

/// The same, in words.
pub(crate) const NEEDED: &str = "Redis 6.2 or later";

/// The one policy at the end of its memory by which a server keeps what it was given.
pub(crate) const KEEPS_ALL: &str = "noeviction";

/// By these a server says that another is the one to ask: after a failover the same address may lead
/// there, but never the connection that is open.
const NOT_THE_ONE: [&str; 2] = ["READONLY", "MASTERDOWN"];

/// See the module.
pub(super) struct Connections {
    source: Address,
    /// Where, without secrets.
    pub(super) address: String,
    /// What the server does at the end of its memory, unless it keeps all.
    eviction: ArcSwapOption<String>,
    shared: ArcSwapOption<MultiplexedConnection>,
    connecting: tokio::sync::Mutex<()>,
    /// One for each reader: a read that waits would hold up everything behind it.
    readers: Mutex<HashMap<String, MultiplexedConnection>>,
}

impl Connections {
    pub(super) fn new(source: Address) -> Self {
        Self {
            address: source.told.clone(),
            source,
            eviction: ArcSwapOption::empty(),
            shared: ArcSwapOption::empty(),
            connecting: tokio::sync::Mutex::new(()),
            readers: Mutex::default(),
        }
    }

    /// One command, on the connection that all share.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut connection = self.shared().await?;
        let answer = connection.send_packed_command(command).await;
        let answer = answer.and_then(Value::extract_error);
        answer.map_err(|error| self.failed(&error))
    }

    /// Commands in one pipeline, on the connection that all share. Each has its own answer, which may
    /// be an error of the server.
    pub(super) async fn pipe(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let count = pipeline.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut connection = self.shared().await?;
        let answers = connection.send_packed_commands(pipeline, 0, count).await;
        let answers = answers.map_err(|error| self.failed(&error))?;
        if answers.len() == count {
            Ok(answers)
        } else {
            Err(self.unexpected(Unexpected("one for each command")))
        }
    }

    /// One command that may wait, on the connection of `reader`.
    pub(super) async fn wait(
        &self,
        reader: &str,
        command: &Cmd,
        block: Duration,
    ) -> Result<Value, StoreError> {
        let mut connection = self.reader(reader).await?;
        let answer = connection.send_packed_command(command);
        let answer = tokio::time::timeout(block + RESPONSE_TIMEOUT, answer).await;
        match answer.map(|answer| answer.and_then(Value::extract_error)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.forget(reader);
                Err(self.failed(&error))
            }
            Err(_) => {
                self.forget(reader);
                Err(self.unavailable("no answer in time"))
            }
        }
    }

    /// Closes the connection of a reader.
    pub(super) fn forget(&self, reader: &str) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.remove(reader);
    }

    /// The connection that all share. Does not wait if there is one, so that pipelines go out in
    /// the order in which they are handed over.
    async fn shared(&self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(connection) = &*self.shared.load() {
            return Ok(MultiplexedConnection::clone(connection));
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = &*self.shared.load() {
            return Ok(MultiplexedConnection::clone(connection));
        }
        let mut connection = self.connect(Some(RESPONSE_TIMEOUT)).await?;
        self.note_eviction(&self.info(&mut connection, "memory").await?);
        self.shared.store(Some(Arc::new(connection.clone())));
        Ok(connection)
    }

    async fn reader(&self, reader: &str) -> Result<MultiplexedConnection, StoreError> {
        let known = || {
            let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.get(reader).cloned()
        };
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let connection = self.connect(None).await?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.insert(reader.to_owned(), connection.clone());
        Ok(connection)
    }

    async fn connect(
        &self,
        response: Option<Duration>,
    ) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = self.open(response).await?;
        let info = self.info(&mut connection, "server").await?;
        self.check_version(&info)?;
        Ok(connection)
    }

    /// A connection of its own, to a server of whatever version.
    pub(super) async fn open(
        &self,
        response: Option<Duration>,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(response);
        let connection = async {
            let client = self.source.client().await?;
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        };
        let connection = connection.await;
        connection.map_err(|error| self.failed(&error))
    }

    /// What the server tells of itself, where it may be asked for nothing else.
    pub(super) async fn info(
        &self,
        connection: &mut MultiplexedConnection,
        section: &str,
    ) -> Result<String, StoreError> {
        let mut command = redis::cmd("INFO");
        let info = command.arg(section).query_async(connection);
        let info = tokio::time::timeout(RESPONSE_TIMEOUT, info).await;
        let info = info.map_err(|_| self.unavailable("no answer in time"))?;
        info.map_err(|error| self.failed(&error))
    }

    /// Why what was written may vanish, if the server is one that evicts.
    pub(super) fn caution(&self) -> Option<String> {
        let policy = self.eviction.load_full()?;
        let victims = victims(&policy);
        Some(format!(
            "the redis store at {} {victims} when its memory is full: its maxmemory-policy is {policy}, \
             and should be {KEEPS_ALL}",
            self.address
        ))
    }

    fn note_eviction(&self, info: &str) {
        let policy = field(info, "maxmemory_policy").filter(|policy| *policy != KEEPS_ALL);
        let known = self.eviction.load();
        if known.as_ref().map(|known| known.as_str()) == policy {
            return;
        }
        self.eviction
            .store(policy.map(|policy| Arc::new(policy.to_owned())));
        if let Some(caution) = self.caution() {
            tracing::warn!("{caution}");
        }
    }

    fn check_version(&self, info: &str) -> Result<(), StoreError> {
        let version = field(info, "redis_version").unwrap_or("unknown");
        if is_supported(version) {
            return Ok(());
        }
        Err(StoreError::Unusable {
            address: self.address.clone(),
            detail: format!("it is version {version}, and Oona needs {NEEDED}"),
        })
    }

    pub(super) fn unavailable(&self, detail: &str) -> StoreError {
        StoreError::Unavailable {
            address: self.address.clone(),
            detail: detail.to_owned(),
        }
    }

    pub(super) fn unexpected(&self, what: Unexpected) -> StoreError {
        self.unavailable(&what.to_string())
    }

    /// What an error means. A connection that failed, or leads to a server that is not the one to ask,
    /// is dropped, so that the next call makes a new one.
    pub(super) fn failed(&self, error: &RedisError) -> StoreError {
        let code = code(error);
        let elsewhere = code.is_some_and(|code| NOT_THE_ONE.contains(&code));
        let broken = error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error();
        if broken || elsewhere {
            self.shared.store(None);
        }
        let detail = error
            .detail()
            .map_or_else(|| error.to_string(), str::to_owned);
        let unauthenticated = error.kind() == ErrorKind::AuthenticationFailed;
        match code {
            Some("NOGROUP") => StoreError::NoGroup { group: detail },
            code if unauthenticated || matches!(code, Some("WRONGPASS" | "NOAUTH")) => {
                StoreError::Unusable {
                    address: self.address.clone(),
                    detail: format!("{detail}: check user and password in store.url"),
                }
            }
            Some(code) => StoreError::Refused {
                address: self.address.clone(),
                code: code.to_owned(),
                detail,
            },
            None => self.unavailable(&error.to_string()),
        }
    }
}

/// The server's own word for an error. Before Redis 7 a script wraps it: `ERR Error running script (call
/// to f_…): @user_script:4: -OOM command not allowed …`.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    let wrapped = error
        .detail()
        .filter(|detail| code == "ERR" && detail.starts_with("Error running script"))
        .and_then(|detail| detail.split_once(": -"))
        .and_then(|(_, within)| within.split_whitespace().next());
    Some(wrapped.unwrap_or(code))
}

/// What a server that evicts by this policy does at the end of its memory.
pub(crate) fn victims(policy: &str) -> &'static str {
    // The others choose among all keys.
    if policy.starts_with("volatile-") {
        "forgets nonces and event ids"
    } else {
        "drops messages"
    }
}

/// Whether a server of this version, such as `7.0.15`, knows every command that is asked of it.
pub(crate) fn is_supported(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    known >= VERSION_MIN
}

/// A field of what a server tells of itself.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Connections {
        Connections::new(Address::parse("redis://127.0.0.1:1").unwrap())
    }

    /// What the store makes of an answer: its kind, and its code.
    fn heard(answer: &str) -> (&'static str, String) {
        let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        let error = connections().failed(&value.extract_error().unwrap_err());
        let code = match &error {
            StoreError::Refused { code, .. } => code.clone(),
            _ => String::new(),
        };
        (error.name(), code)
    }

    #[test]
    fn what_a_server_answers_is_told_apart() {
        let wrapped = "ERR Error running script (call to f_0a): @user_script:3: @user_script: 3: ";
        // Refused: nothing was written, and it is worth trying again. Unusable: somebody must act.
        let table = [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "store-refused",
                "OOM",
            ),
            (
                "OOM command not allowed. script: 0a, on @user_script:3.",
                "store-refused",
                "OOM",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "store-refused",
                "READONLY",
            ),
            (
                "MISCONF Errors writing to the AOF file: No space left",
                "store-refused",
                "MISCONF",
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                "store-refused",
                "LOADING",
            ),
            (
                "BUSY Redis is busy running a script.",
                "store-refused",
                "BUSY",
            ),
            (
                "MASTERDOWN Link with MASTER is down",
                "store-refused",
                "MASTERDOWN",
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                "store-refused",
                "NOREPLICAS",
            ),
            (
                "UNBLOCKED force unblock, instance state changed",
                "store-refused",
                "UNBLOCKED",
            ),
            (
                "CLUSTERDOWN The cluster is down",
                "store-refused",
                "CLUSTERDOWN",
            ),
            (
                "TRYAGAIN Multiple keys request",
                "store-refused",
                "TRYAGAIN",
            ),
            (
                "EXECABORT Transaction discarded",
                "store-refused",
                "EXECABORT",
            ),
            (
                "NOPERM this user has no permissions",
                "store-refused",
                "NOPERM",
            ),
            ("ERR value is not an integer", "store-refused", "ERR"),
            ("NOAUTH Authentication required.", "store-unusable", ""),
            (
                "WRONGPASS invalid username-password pair",
                "store-unusable",
                "",
            ),
            (
                "NOGROUP No such key 's' or consumer group 'g'",
                "no-group",
                "",
            ),
        ];
        for (answer, name, code) in table {
            assert_eq!(heard(answer), (name, code.to_owned()), "{answer}");
            if !answer.starts_with("ERR") && name == "store-refused" {
                let in_a_script = format!("{wrapped}-{answer}");
                assert_eq!(
                    heard(&in_a_script),
                    (name, code.to_owned()),
                    "{in_a_script}"
                );
            }
        }
        let own = format!("{wrapped}Script attempted to access nonexistent global variable");
        assert_eq!(heard(&own), ("store-refused", "ERR".to_owned()));
    }

    #[test]
    fn a_server_that_evicts_is_cautioned_of() {
        let connections = connections();
        for (policy, told) in [
            (
                "allkeys-lru",
                Some("drops messages when its memory is full"),
            ),
            ("volatile-ttl", Some("forgets nonces and event ids")),
            ("noeviction", None),
        ] {
            connections.note_eviction(&format!("used_memory:1\r\nmaxmemory_policy:{policy}\r\n"));
            let caution = connections.caution();
            assert_eq!(caution.is_some(), told.is_some(), "{policy}");
            let caution = caution.unwrap_or_default();
            assert!(caution.contains(told.unwrap_or_default()), "{caution}");
        }
    }
}
