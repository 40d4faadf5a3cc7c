//! Connections to a running bus.

use std::net::SocketAddr;

use tonic::transport::{Channel, Endpoint, Error};

/// A connection.
///
/// # Errors
///
/// If nothing listens there.
pub async fn connect(address: SocketAddr) -> Result<Channel, Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await
}
