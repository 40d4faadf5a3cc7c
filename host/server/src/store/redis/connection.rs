//! Connections to Redis, made when they are needed and dropped when they fail.
//!
//! Nothing is retried here: whoever asks hears at once that the store does not answer, and has a
//! breaker and a schedule of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, Value};

use super::super::StoreError;
use super::reply::Unexpected;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take, beyond what a command asks to wait.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The oldest server that knows `XAUTOCLAIM` and `XTRIM MINID`.
const VERSION_MIN: (u32, u32) = (6, 2);

/// See the module.
pub(super) struct Connections {
    client: Client,
    /// Where, without secrets.
    pub(super) address: String,
    shared: ArcSwapOption<MultiplexedConnection>,
    connecting: tokio::sync::Mutex<()>,
    /// One for each reader: a read that waits would hold up everything behind it.
    readers: Mutex<HashMap<String, MultiplexedConnection>>,
}

impl Connections {
    pub(super) fn new(client: Client) -> Self {
        let address = client.get_connection_info().addr().to_string();
        Self {
            client,
            address,
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
        let connection = self.connect(Some(RESPONSE_TIMEOUT)).await?;
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
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(response);
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        let mut connection = connection.map_err(|error| self.failed(&error))?;
        let mut command = redis::cmd("INFO");
        let info = command.arg("server").query_async::<String>(&mut connection);
        let info = tokio::time::timeout(RESPONSE_TIMEOUT, info).await;
        let info = info.map_err(|_| self.unavailable("no answer in time"))?;
        self.check_version(&info.map_err(|error| self.failed(&error))?)?;
        Ok(connection)
    }

    fn check_version(&self, info: &str) -> Result<(), StoreError> {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        let version = line.unwrap_or("unknown").trim();
        let mut numbers = version.split('.').map_while(|part| part.parse().ok());
        let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if known >= VERSION_MIN {
            return Ok(());
        }
        let (major, minor) = VERSION_MIN;
        Err(StoreError::Unusable {
            address: self.address.clone(),
            detail: format!(
                "it is version {version}, and Oona needs Redis {major}.{minor} or later"
            ),
        })
    }

    fn unavailable(&self, detail: &str) -> StoreError {
        StoreError::Unavailable {
            address: self.address.clone(),
            detail: detail.to_owned(),
        }
    }

    pub(super) fn unexpected(&self, what: Unexpected) -> StoreError {
        self.unavailable(&what.to_string())
    }

    /// What an error means. A connection that failed is dropped, so that the next call makes a new
    /// one.
    pub(super) fn failed(&self, error: &RedisError) -> StoreError {
        if error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() {
            self.shared.store(None);
        }
        let detail = error
            .detail()
            .map_or_else(|| error.to_string(), str::to_owned);
        let unauthenticated = error.kind() == ErrorKind::AuthenticationFailed;
        match error.code() {
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
