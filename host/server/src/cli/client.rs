//! What the commands that talk to a running bus have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use oona_core::envelope::message_type;
use tokio::runtime;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::Failure;
use crate::proto::admin_client::AdminClient;
use crate::proto::bus_client::BusClient;
use crate::proto::{ADMIN_REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

/// How long a server may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// Which bus to talk to.
#[derive(Args, Clone, Debug)]
pub(super) struct Server {
    /// Address of the bus
    #[arg(long = "server", env = "OONA_ADDRESS", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:7470")]
    pub(super) address: String,
    /// Token for the administration of a bus that wants one
    #[arg(long, env = "OONA_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
}

/// A client of the Admin service that says who he is.
pub(super) type Admin = AdminClient<InterceptedService<Channel, Identity>>;

/// Who calls: a token, if there is one, and the name of the user, for buses without tokens.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    authorization: Option<AsciiMetadataValue>,
    user: Option<AsciiMetadataValue>,
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        if let Some(user) = &self.user {
            metadata.insert("oona-user", user.clone());
        }
        Ok(request)
    }
}

impl Server {
    /// Connects for publishing and subscribing.
    ///
    /// # Errors
    ///
    /// If the address is none, or nothing answers there.
    pub(super) async fn bus(&self) -> Result<BusClient<Channel>, Failure> {
        let client = BusClient::new(self.connect().await?);
        Ok(client.max_decoding_message_size(RESPONSE_BYTES_MAX))
    }

    /// Connects for administration.
    ///
    /// # Errors
    ///
    /// If the address is none, or nothing answers there.
    pub(super) async fn admin(&self) -> Result<Admin, Failure> {
        let token = self
            .token
            .as_ref()
            .map(|token| format!("Bearer {token}").parse());
        let authorization = token.transpose().map_err(|_| {
            Failure::Usage("a token is text without line breaks; check OONA_TOKEN".to_owned())
        })?;
        let user = std::env::var("USER")
            .ok()
            .and_then(|user| user.parse().ok());
        let identity = Identity {
            authorization,
            user,
        };
        let client = AdminClient::with_interceptor(self.connect().await?, identity);
        Ok(client
            .max_encoding_message_size(ADMIN_REQUEST_BYTES_MAX)
            .max_decoding_message_size(ADMIN_REQUEST_BYTES_MAX))
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        let address = &self.address;
        let url = if address.contains("://") {
            address.clone()
        } else {
            format!("http://{address}")
        };
        let endpoint = Endpoint::from_shared(url).map_err(|error| {
            Failure::Usage(format!(
                "`{address}` is no address ({error}); use HOST:PORT"
            ))
        })?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX).tcp_nodelay(true);
        endpoint.connect().await.map_err(|_| {
            Failure::Unavailable(format!(
                "nothing answers at {address}; start a bus with `oona serve`, or name another \
                 with --server"
            ))
        })
    }
}

/// What a failed call means for a command.
pub(super) fn failure(status: &Status) -> Failure {
    match status.code() {
        Code::Unavailable => Failure::Unavailable(status.message().to_owned()),
        _ => Failure::Failed(anyhow::anyhow!("{}", status.message())),
    }
}

/// Runs a command that waits for others.
pub(super) fn run<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(anyhow::Error::from)?.block_on(command)
}

/// Parses a type of message: a name or a number.
pub(super) fn parse_type(text: &str) -> Result<u32, String> {
    message_type::from_name(&text.to_lowercase()).ok_or_else(|| {
        let names = message_type::ALL.map(|(_, name)| name);
        format!(
            "no type of message; use a number, or one of {}",
            names.join(", ")
        )
    })
}

/// Parses `key=value`.
pub(super) fn parse_attribute(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Attributes as given; of two with the same key, the last.
pub(super) fn attributes(given: &[(String, String)]) -> BTreeMap<String, String> {
    given.iter().cloned().collect()
}
