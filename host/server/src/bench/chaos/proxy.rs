//! A way to Redis that can be made long, narrow, and apt to break; and that can lead elsewhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::redis_process::StartError;

/// How much is passed on at once.
const CHUNK_BYTES: usize = 4 * 1_024;

/// How many chunks may be under way in one direction: what the network holds.
const CHUNKS_MAX: usize = 256;

/// How the way is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Where new connections lead.
    pub(super) to: SocketAddr,
    /// How long each byte is under way.
    pub(super) latency: Duration,
    /// How much each connection carries in one direction.
    pub(super) bytes_per_second: Option<u32>,
    /// After how many bytes of answers a connection is cut.
    pub(super) cut_after: Option<u64>,
}

impl Way {
    /// As if there was nothing between.
    pub(super) const fn plain(to: SocketAddr) -> Self {
        Self {
            to,
            latency: Duration::ZERO,
            bytes_per_second: None,
            cut_after: None,
        }
    }
}

/// See the module. Its connections end with it.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    traffic: Arc<Traffic>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Traffic {
    /// Connections that were cut.
    cuts: AtomicU64,
    /// Bytes that were delayed.
    delayed: AtomicU64,
}

impl Proxy {
    pub(super) async fn to(server: SocketAddr) -> Result<Self, StartError> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(StartError::Port)?;
        let proxy = Self {
            address: listener.local_addr().map_err(StartError::Port)?,
            way: watch::Sender::new(Way::plain(server)),
            traffic: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let accepting = accept(
            listener,
            proxy.way.subscribe(),
            Arc::clone(&proxy.traffic),
            proxy.tasks.clone(),
        );
        let stop = proxy.stop.clone();
        proxy
            .tasks
            .spawn(async move { stop.run_until_cancelled(accepting).await });
        Ok(proxy)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Changes the way: at once for how it is, with the next connection for where it leads.
    pub(super) fn change(&self, change: impl FnOnce(&mut Way)) {
        self.way.send_modify(change);
    }

    /// How many connections were cut.
    pub(super) fn cuts(&self) -> u64 {
        self.traffic.cuts.load(Ordering::Relaxed)
    }

    /// How many bytes were delayed.
    pub(super) fn delayed(&self) -> u64 {
        self.traffic.delayed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// Takes connections; they end when this does.
async fn accept(
    listener: TcpListener,
    way: watch::Receiver<Way>,
    traffic: Arc<Traffic>,
    tasks: TaskTracker,
) {
    let ends = CancellationToken::new();
    let _with_this = ends.clone().drop_guard();
    while let Ok((client, _)) = listener.accept().await {
        let connection = connect(client, way.clone(), Arc::clone(&traffic));
        let ends = ends.clone();
        tasks.spawn(async move { ends.run_until_cancelled(connection).await });
    }
}

/// One connection, until one side closes it or it is cut.
async fn connect(
    client: TcpStream,
    way: watch::Receiver<Way>,
    traffic: Arc<Traffic>,
) -> io::Result<()> {
    let to = way.borrow().to;
    // Who is not there is seen as somebody who hangs up.
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asked = pass(from_client, to_server, way.clone(), &traffic, false);
    let answered = pass(from_server, to_client, way, &traffic, true);
    tokio::select! {
        done = asked => done,
        done = answered => done,
    }
}

/// Passes on what comes, as late and as slowly as the way is.
async fn pass(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    traffic: &Traffic,
    answers: bool,
) -> io::Result<()> {
    let (chunks, under_way) = mpsc::channel(CHUNKS_MAX);
    let take_in = async {
        loop {
            let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            let chunk = (Instant::now(), buffer.freeze());
            if chunks.send(chunk).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = take_in => done,
        done = put_out(under_way, to, way, traffic, answers) => done,
    }
}

async fn put_out(
    mut under_way: mpsc::Receiver<(Instant, Bytes)>,
    mut to: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    traffic: &Traffic,
    answers: bool,
) -> io::Result<()> {
    // Bytes since answers may be cut, and that is changed to less under way.
    let mut passed = 0;
    while let Some((at, mut chunk)) = under_way.recv().await {
        let now = *way.borrow();
        let bytes = chunk.len() as u64;
        if !now.latency.is_zero() || now.bytes_per_second.is_some() {
            traffic.delayed.fetch_add(bytes, Ordering::Relaxed);
            sleep_until(at + now.latency).await;
            if let Some(rate) = now.bytes_per_second {
                sleep(Duration::from_secs_f64(bytes as f64 / f64::from(rate))).await;
            }
        }
        match now.cut_after.filter(|_| answers) {
            None => passed = 0,
            Some(end) if passed + bytes > end => {
                chunk.truncate(usize::try_from(end.saturating_sub(passed)).unwrap_or(0));
                to.write_all(&chunk).await?;
                traffic.cuts.fetch_add(1, Ordering::Relaxed);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(_) => passed += bytes,
        }
        to.write_all(&chunk).await?;
    }
    Ok(())
}
