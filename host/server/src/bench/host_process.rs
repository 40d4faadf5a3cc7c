//! A host in a process of its own, as somebody runs it: `oona serve`, signed, with compiled policies.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{interval, timeout};
use tonic::transport::{Channel, Endpoint};

use super::process::Process;
use super::redis_process::{StartError, last_line};

/// How long a host may take to start: the first compiles the policies.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// How long a connection may take, how often it is tried, and how long the answer to that may take:
/// a host that hangs for longer is noticed as one that is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a host is started with.
#[derive(Clone, Debug)]
pub(super) struct HostSettings {
    /// Its name, which is that of its files too.
    pub(super) name: String,
    /// Where its store is.
    pub(super) store: String,
    /// Where it writes its log.
    pub(super) directory: PathBuf,
    /// Where it keeps compiled policies; hosts may share it.
    pub(super) compiled: PathBuf,
    /// Where the components are.
    pub(super) policies: PathBuf,
    /// What it signs with.
    pub(super) secret: String,
    /// More settings, as `key=value`.
    pub(super) more: Vec<String>,
}

/// Ended when dropped.
#[derive(Debug)]
pub(super) struct HostProcess {
    settings: HostSettings,
    address: SocketAddr,
    process: Process,
}

impl HostProcess {
    pub(super) async fn start(settings: HostSettings) -> Result<Self, StartError> {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (process, address) = spawn(&settings, anywhere).await?;
        Ok(Self {
            settings,
            address,
            process,
        })
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it anew, at the address that it had.
    pub(super) async fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        (self.process, self.address) = spawn(&self.settings, self.address).await?;
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

async fn spawn(
    settings: &HostSettings,
    listen: SocketAddr,
) -> Result<(Process, SocketAddr), StartError> {
    let file = |suffix: &str| {
        let name = format!("{}.{suffix}", settings.name);
        settings.directory.join(name)
    };
    let (log, port) = (file("log"), file("port"));
    // The one of its last run would be believed.
    drop(std::fs::remove_file(&port));
    let mut command = Command::new(std::env::current_exe().map_err(StartError::Host)?);
    command
        .args(["serve", "--listen", &listen.to_string()])
        .args(["--redis", &settings.store])
        .arg("--port-file")
        .arg(&port)
        .arg("--policies")
        .arg(&settings.policies);
    let fixed = [
        format!("server.host={}", settings.name),
        "policies.allow_unsigned=true".to_owned(),
        "policies.watch=false".to_owned(),
        "telemetry.interval_ms=0".to_owned(),
        format!(
            "policies.engine.cache_directory={}",
            settings.compiled.display()
        ),
    ];
    for setting in fixed.iter().chain(&settings.more) {
        command.args(["--set", setting]);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OONA_") {
            command.env_remove(name);
        }
    }
    let stderr = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log);
    command
        .env("ESPER_LEYLINE_SECRET", &settings.secret)
        .current_dir(&settings.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.map_err(StartError::Host)?);
    let mut process = Process::spawn(&mut command).map_err(StartError::Host)?;
    let served = async {
        let mut looks = interval(LOOK);
        while process.ended().is_none() {
            let written = std::fs::read_to_string(&port).unwrap_or_default();
            if let Ok(address) = written.trim().parse() {
                return Some(address);
            }
            looks.tick().await;
        }
        None
    };
    match timeout(PATIENCE, served).await {
        Ok(Some(address)) => Ok((process, address)),
        _ => Err(StartError::HostSilent(last_line(&log))),
    }
}

/// A connection as a careful client makes it.
pub(super) async fn connect(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect()
        .await
}
