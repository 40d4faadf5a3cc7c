//! A way to Redis on which everything can end at a chosen command.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::binary::PATIENCE;

/// What is sent behind the last command, so that its answer is known to be there.
const MARK: &str = "the-answer-is-there";

/// When something ends, as seen from the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Redis never hears of it.
    Before,
    /// Redis has done it, and whoever asked never hears the answer.
    After,
}

/// See the module. Whatever the registry asks of Redis is counted; the rest goes by.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where new connections lead.
    server: Mutex<SocketAddr>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    held: bool,
    marked: bool,
    /// What ended it, in words.
    ended_at: Option<String>,
}

struct Plan {
    left: usize,
    moment: Moment,
    act: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State(ended at {:?})", self.ended_at)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("redis://")
        .and_then(|address| address.parse().ok())
        .expect("an address of Redis")
}

impl Proxy {
    /// Opens a way to `redis://HOST:PORT`.
    ///
    /// # Panics
    ///
    /// If there is no free port, or that is no such address.
    #[must_use]
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server: Mutex::new(address_of(url)),
            state: Mutex::default(),
            changed: Condvar::default(),
        });
        let of_all = Arc::clone(&shared);
        // Ends with the process of the test, as do the connections.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&of_all);
                let server = *lock(&shared.server);
                thread::spawn(move || drop(connect(&client, server, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Leads to another `redis://HOST:PORT` from the next connection on.
    ///
    /// # Panics
    ///
    /// If that is no such address.
    pub fn lead_to(&self, url: &str) {
        *lock(&self.shared.server) = address_of(url);
    }

    /// Does `act` at the `number`th command of the registry from now on, the first being 1.
    pub fn end_at(&self, number: usize, moment: Moment, act: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        state.marked = false;
        state.ended_at = None;
        state.plan = Some(Plan {
            left: number,
            moment,
            act: Box::new(act),
        });
    }

    /// The command at which it ended, if it has; it does not any more.
    #[must_use]
    pub fn ended_at(&self) -> Option<String> {
        let mut state = self.shared.state();
        state.plan = None;
        state.ended_at.take()
    }

    /// Lets nothing through until [`Proxy::let_go`].
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// See [`Proxy::hold`].
    pub fn let_go(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }
}

fn connect(client: &TcpStream, server: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let server = match TcpStream::connect(server) {
        Ok(server) => server,
        Err(error) => {
            client.shutdown(Shutdown::Both)?;
            return Err(error);
        }
    };
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let of_answers = Arc::clone(shared);
    thread::spawn(move || drop(answers(from, to, &of_answers)));
    let done = commands(client, &server, shared);
    for end in [client, &server] {
        drop(end.shutdown(Shutdown::Both));
    }
    done
}

/// Passes answers back, until the one that nobody is to hear.
fn answers(mut server: TcpStream, mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut tail = Vec::new();
    loop {
        let count = server.read(&mut buffer)?;
        if count == 0 {
            return client.shutdown(Shutdown::Both);
        }
        tail.extend_from_slice(&buffer[..count]);
        if find(&tail, MARK.as_bytes()).is_some() {
            shared.state().marked = true;
            shared.changed.notify_all();
            return Ok(());
        }
        tail.drain(..tail.len().saturating_sub(MARK.len()));
        let silent = matches!(&shared.state().plan, Some(plan) if plan.left == 0);
        if !silent {
            client.write_all(&buffer[..count])?;
        }
    }
}

fn commands(client: &TcpStream, server: &TcpStream, shared: &Shared) -> io::Result<()> {
    let (mut reader, mut writer) = (client, server);
    let mut held = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        while let Some(end) = command_end(&held) {
            let command: Vec<u8> = held.drain(..end).collect();
            let mut state = shared.state();
            while state.held {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            match take_if_due(&mut state, &command) {
                None => {
                    drop(state);
                    writer.write_all(&command)?;
                }
                Some(Moment::Before) => return act(state),
                Some(Moment::After) => {
                    drop(state);
                    writer.write_all(&command)?;
                    write!(writer, "*2\r\n$4\r\nECHO\r\n${}\r\n{MARK}\r\n", MARK.len())?;
                    let state = shared.state();
                    let marked = |state: &mut State| !state.marked;
                    let waited = shared.changed.wait_timeout_while(state, PATIENCE, marked);
                    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    return act(state);
                }
            }
        }
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => held.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Counts a command; says when it ends, if it is the one.
fn take_if_due(state: &mut State, command: &[u8]) -> Option<Moment> {
    let ours = ["oona.registry", "oona:kept:policy:"];
    if !ours
        .iter()
        .any(|name| find(command, name.as_bytes()).is_some())
    {
        return None;
    }
    let plan = state.plan.as_mut().filter(|plan| plan.left > 0)?;
    plan.left -= 1;
    if plan.left > 0 {
        return None;
    }
    let words = String::from_utf8_lossy(&command[..command.len().min(400)]);
    let words = words
        .split("\r\n")
        .filter(|word| !word.starts_with(['*', '$']));
    state.ended_at = Some(words.take(2).collect::<Vec<_>>().join(" "));
    Some(plan.moment)
}

fn act(mut state: MutexGuard<'_, State>) -> io::Result<()> {
    if let Some(plan) = state.plan.take() {
        // Nothing gets through meanwhile.
        (plan.act)();
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// Where the first command ends, if all of it is there: an array of bulk strings.
fn command_end(bytes: &[u8]) -> Option<usize> {
    let line = find(bytes, b"\r\n")?;
    assert_eq!(bytes.first(), Some(&b'*'), "clients send arrays of strings");
    let count: usize = std::str::from_utf8(&bytes[1..line]).ok()?.parse().ok()?;
    let mut end = line + 2;
    for _ in 0..count {
        let rest = bytes.get(end..)?;
        let (size, from) = bulk(rest)?;
        end += from + size + 2;
    }
    (end <= bytes.len()).then_some(end)
}

/// The size of a bulk string, and where it begins.
fn bulk(bytes: &[u8]) -> Option<(usize, usize)> {
    let line = find(bytes, b"\r\n")?;
    assert_eq!(bytes.first(), Some(&b'$'), "clients send arrays of strings");
    let size = std::str::from_utf8(bytes.get(1..line)?).ok()?;
    Some((size.parse().ok()?, line + 2))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}
