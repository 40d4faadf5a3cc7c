//! Ports for servers that cannot be told to take a free one.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A port that nobody else is given: it is held, and the server may share it (`SO_REUSEADDR`).
#[derive(Debug)]
pub struct Place {
    /// Its number.
    pub port: u16,
    _held: TcpSocket,
}

impl Place {
    /// A free one.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn hold() -> Self {
        let held = TcpSocket::new_v4().expect("a socket");
        held.set_reuseaddr(true).expect("it can be shared");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        held.bind(any).expect("a free port");
        let port = held.local_addr().expect("it is bound").port();
        Self { port, _held: held }
    }
}
