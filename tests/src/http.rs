//! As much of HTTP/1.1 as it takes to ask one thing: no client of ours could hide a fault of the
//! server's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::binary::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, as they came.
    pub headers: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self
            .headers
            .lines()
            .filter_map(|line| line.split_once(": "));
        lines
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Gets a path.
///
/// # Panics
///
/// If nothing answers.
#[must_use]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\n"), &[])
}

/// Gets a path as somebody who has a token.
///
/// # Panics
///
/// If nothing answers.
#[must_use]
pub fn get_with(address: SocketAddr, path: &str, token: &str) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\n");
    ask(address, &head, &[])
}

/// Gets a path as a client of HTTP/1.0: the body comes in one piece, of whatever length.
///
/// # Panics
///
/// If nothing answers.
#[must_use]
pub fn get_in_one_piece(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.0\r\n"), &[])
}

/// Gets what is counted, as somebody who knows OpenMetrics.
///
/// # Panics
///
/// If nothing answers.
#[must_use]
pub fn get_openmetrics(address: SocketAddr) -> Answer {
    let accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
    let head = format!("GET /metrics HTTP/1.1\r\naccept: {accept}\r\n");
    ask(address, &head, &[])
}

/// Posts a body to a path.
///
/// # Panics
///
/// If nothing answers.
#[must_use]
pub fn post(address: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n"
    );
    ask(address, &head, body)
}

fn ask(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    send(address, &format!("{head}host: {address}\r\n"), body)
}

/// Sends a request with exactly this head: its lines, the one for the host among them.
///
/// # Panics
///
/// If nothing answers.
#[must_use]
pub fn send(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let head = format!("{head}connection: close\r\n\r\n");
    stream
        .write_all(head.as_bytes())
        .expect("the head can be sent");
    // A server that refuses a body by its head may close before it has all of it.
    drop(stream.write_all(body));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(read.is_ok() || !answer.is_empty(), "no answer: {read:?}");
    parse(&answer)
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.expect("an answer has a head");
    let headers = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = headers
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("an answer has a status"),
        headers,
        body: answer[end + 4..].to_vec(),
    }
}
