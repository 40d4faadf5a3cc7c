//! Who has the port. Nobody is served on it meanwhile: it is closed the moment that it was had.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::facts::{AddressFacts, AddressState};

/// How long whoever has the port may take for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 65_536;

/// What `/readyz` answers. A host with tokens says why only to those who show one.
#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    #[serde(default)]
    reasons: Vec<String>,
}

/// Who has the port.
pub(super) async fn address(listen: SocketAddr) -> AddressFacts {
    let state = match TcpListener::bind(listen).await {
        Ok(_) => AddressState::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => owner(within(listen)).await,
        Err(error) => AddressState::Refused(error.to_string()),
    };
    AddressFacts { listen, state }
}

/// Where on this machine somebody is reached who listens at `listen`.
fn within(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// A host says `ok` of its health, and why it is not ready.
async fn owner(address: SocketAddr) -> AddressState {
    let health = get(address, "/healthz").await;
    if health.as_deref() != Some("ok\n") {
        return AddressState::Taken;
    }
    let readiness = get(address, "/readyz").await;
    let readiness = readiness.and_then(|body| serde_json::from_str(&body).ok());
    readiness.map_or(AddressState::Taken, |Readiness { ready, mut reasons }| {
        if ready {
            reasons.clear();
        } else if reasons.is_empty() {
            reasons.push("it says why only to those who show a token".to_owned());
        }
        AddressState::Host { reasons }
    })
}

/// The body of an answer over HTTP, whatever its status; none if there is no such answer in time.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        let mut answered = stream.take(ANSWER_BYTES_MAX);
        answered.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(ANSWER_TIME_MAX, exchange).await.ok()?.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 ").then(|| body.to_owned())
}
