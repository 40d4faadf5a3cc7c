//! A look at a server that changes nothing there, for whoever wants to know what a host would meet.
//!
//! Which writes it would take is found out by a rehearsal: commands are queued in a transaction that is
//! discarded. A server says when it queues a command whether this user may give it, and whether it would
//! take it as things stand (read-only, out of memory, unable to save), and runs none of them.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value, cmd};

use super::super::StoreError;
use super::InvalidUrl;
use super::address::Address;
use super::connection::{Connections, RESPONSE_TIMEOUT};
use super::rehearsal::Rehearsed;

/// A server to look at.
pub struct Probe(Connections);

/// A connection to it, of its own.
pub struct Visit<'a> {
    connections: &'a Connections,
    connection: MultiplexedConnection,
}

/// A command that the server would not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name, such as `XADD`.
    pub command: String,
    /// The key that it would be about. Empty if it is about none.
    pub key: String,
    /// The server's own word for why, such as `NOPERM`.
    pub code: String,
    /// What else the server says.
    pub detail: String,
}

impl Refusal {
    /// Whether this user may not give the command, or not about this key.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code == "NOPERM"
    }

    /// Whether it is the key that this user may not use. Servers say it in words, and have changed them.
    #[must_use]
    pub fn is_about_key(&self) -> bool {
        self.is_forbidden() && self.detail.contains(" key")
    }
}

impl Probe {
    /// A server at `url`. Connects when it is visited.
    ///
    /// # Errors
    ///
    /// If `url` is no URL of Redis.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        let address = Address::parse(url).map_err(InvalidUrl)?;
        Ok(Self(Connections::new(address)))
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// If it does not answer, or wants another user or password.
    pub async fn visit(&self) -> Result<Visit<'_>, StoreError> {
        Ok(Visit {
            connections: &self.0,
            connection: self.0.open(Some(RESPONSE_TIMEOUT)).await?,
        })
    }
}

impl Visit<'_> {
    /// What the server tells of itself in a section of `INFO`, or in all that it usually tells
    /// (`default`).
    ///
    /// # Errors
    ///
    /// If it does not answer, or refuses to tell.
    pub async fn info(&mut self, section: &str) -> Result<String, StoreError> {
        self.connections.info(&mut self.connection, section).await
    }

    /// The answer to one command, which must be one that only looks.
    ///
    /// # Errors
    ///
    /// If it does not answer, or refuses to.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        let answer = self.connection.send_packed_command(command).await;
        let answer = answer.and_then(Value::extract_error);
        answer.map_err(|error| self.connections.failed(&error))
    }

    /// Which of these commands the server would not run. It runs none. The connection is given up with
    /// it, so that nothing is left of the transaction in any case.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn rehearse(mut self, commands: &[Rehearsed]) -> Result<Vec<Refusal>, StoreError> {
        // Without this answer whatever follows would be run.
        if let Err(error) = self.ask(&cmd("MULTI")).await {
            let refusal = refusal("MULTI", "", error)?;
            return Ok(vec![refusal]);
        }
        let mut pipeline = Pipeline::with_capacity(commands.len() + 1);
        for rehearsed in commands {
            pipeline.add_command(rehearsed.command());
        }
        pipeline.add_command(cmd("DISCARD"));
        let count = pipeline.len();
        let answers = self.connection.send_packed_commands(&pipeline, 0, count);
        let answers = answers.await.map_err(|e| self.connections.failed(&e))?;
        let mut refusals = Vec::new();
        for (rehearsed, answer) in commands.iter().zip(answers) {
            if let Err(error) = answer.extract_error() {
                let error = self.connections.failed(&error);
                refusals.push(refusal(rehearsed.name(), rehearsed.key(), error)?);
            }
        }
        Ok(refusals)
    }
}

/// What a server said against a command; an error if it was not against the command.
fn refusal(command: &str, key: &str, error: StoreError) -> Result<Refusal, StoreError> {
    match error {
        StoreError::Refused { code, detail, .. } => Ok(Refusal {
            command: command.to_owned(),
            key: key.to_owned(),
            code,
            detail,
        }),
        other => Err(other),
    }
}
