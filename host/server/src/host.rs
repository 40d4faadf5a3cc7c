//! The composition root: from a configuration to a running host, and back to nothing.
//!
//! Everything is put together here and nowhere else: keys, store, policies, bus, the watched
//! directory, the port. Ending goes the other way round: the bus takes no more, what it has taken gets
//! its outcome, subscribers answer what they have in hand, connections close, tasks are joined; all
//! of it within one deadline.

mod keys;
mod policies;
mod registry;

use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs, io};

use oona_core::signing::Keyring;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::alerts;
use crate::auditor;
use crate::bus::{Bus, BusTasks, Foundation};
use crate::chain::chain;
use crate::clock;
use crate::config::{Config, ConfigError, StoreConfig, StoreKind};
use crate::decisions::DecisionLog;
use crate::gates::Trust;
use crate::grpc::{self, AdminOptions, GrpcLimits};
use crate::http;
use crate::metrics::Metrics;
use crate::otel::{self, Tracer};
use crate::policies::Policies;
use crate::registry::begin;
use crate::server::Port;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::{Store, StoreError};
use crate::telemetry;
use crate::watch::{self, WatchError};

pub use policies::LoadedFrom;
pub(crate) use policies::{component_file, directory as policy_directory};

/// How many connections are served at once at `server.health_listen`.
pub const PROBES_MAX: usize = 64;

/// Why a host does not run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address cannot be told.
    #[error("cannot write {}", path.display())]
    PortFile {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sandbox cannot start.
    #[error("cannot start the policy engine")]
    Engine(#[source] oona_wasm::EngineError),
    /// The decision log cannot be written.
    #[error("cannot write the decision log {} (policies.record_file)", path.display())]
    DecisionLog {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store never answered, and the host was told to give up.
    #[error("gave up on the store (store.give_up_after_ms)")]
    Store(#[source] StoreError),
    /// The port failed while it was served.
    #[error("the port failed")]
    Serve(#[source] io::Error),
}

/// A host that runs.
#[derive(Debug)]
pub struct Host {
    config: Config,
    bus: Bus,
    tasks: BusTasks,
    address: std::net::SocketAddr,
    health_address: Option<std::net::SocketAddr>,
    loaded: Vec<LoadedFrom>,
    signed: bool,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
    following: JoinHandle<()>,
    watching: Option<JoinHandle<()>>,
    /// Tells on the bus how the host is.
    telling: Option<JoinHandle<()>>,
    /// Looks at the dead letters.
    auditing: Option<JoinHandle<()>>,
    /// Looks whether something should be looked at.
    alerting: JoinHandle<()>,
    /// Writes the decision log; ends when all who decide have ended.
    recording: Option<JoinHandle<()>>,
    /// Sends spans to the collector; ends when all who make some have ended.
    sending: Option<JoinHandle<()>>,
}

impl Host {
    /// Starts a host. A store that does not answer is no reason not to: publishes are rejected as
    /// unavailable until it does.
    ///
    /// # Errors
    ///
    /// See [`HostError`].
    pub async fn start(config: Config) -> Result<Self, HostError> {
        let keyring = keys::keyring(&config)?;
        Self::start_with_keys(config, keyring).await
    }

    /// As [`Host::start`], with keys that are not from the environment.
    ///
    /// # Errors
    ///
    /// See [`HostError`].
    pub async fn start_with_keys(
        config: Config,
        keyring: Option<Keyring>,
    ) -> Result<Self, HostError> {
        Self::start_with_metrics(config, keyring, Metrics::new()).await
    }

    /// As [`Host::start_with_keys`], for who measures what it costs to observe a host.
    pub(crate) async fn start_with_metrics(
        config: Config,
        keyring: Option<Keyring>,
        metrics: Metrics,
    ) -> Result<Self, HostError> {
        let store = store(&config)?;
        let metrics = Arc::new(metrics);
        let directory = policies::directory(config.policies.directory.as_deref());
        let trust = registry::trust(&config)?;
        let access = registry::access(&config)?;
        let (decisions, recording) = registry::decisions(&config)?;
        let base = policies::Base {
            directory: directory.as_deref(),
            trust: &trust,
            decisions,
            metrics: &metrics,
        };
        let (policies, loaded) = policies::load(&config, &base)?;
        let registry = registry::registry(&config, &store, &policies, &trust);
        let (port, health) = open(&config).await?;
        let signed = keyring.is_some();
        let (tracer, sending) = tracing_of(&config, &metrics)?;
        let foundation = Foundation {
            store,
            keyring,
            policies: policies.clone(),
            metrics,
            tracer,
        };
        let (bus, tasks) = Bus::start(config.bus.clone(), foundation, clock::system());
        let stop = CancellationToken::new();
        let follower = begin(registry.clone()).await;
        let following = tokio::spawn(follower.run(stop.clone()));
        let watched = directory.filter(|_| config.policies.watch);
        let watching = watched.and_then(|directory| {
            watch::watch(&directory, policies, trust, stop.clone())
                .inspect_err(not_watched)
                .ok()
        });
        let period = config.telemetry.interval;
        let telling =
            period.map(|period| tokio::spawn(telemetry::tell(bus.clone(), period, stop.clone())));
        let audit = config.audit;
        let auditing = audit
            .interval
            .map(|period| tokio::spawn(auditor::audit(bus.clone(), audit, period, stop.clone())));
        let promised = (config.objectives.clone(), config.alerts.clone());
        let alerting = alerts::watch(bus.clone(), registry.clone(), promised, stop.clone());
        let alerting = tokio::spawn(alerting);
        let address = port.address();
        let health_address = health.as_ref().map(Port::address);
        let admin = AdminOptions { registry, access };
        let serving = tokio::spawn(serve((port, health), &bus, &config, admin, stop.clone()));
        Ok(Self {
            config,
            bus,
            tasks,
            address,
            health_address,
            loaded,
            signed,
            stop,
            serving,
            following,
            watching,
            telling,
            auditing,
            alerting,
            recording,
            sending,
        })
    }

    /// The address at which health and metrics are served besides.
    #[must_use]
    pub fn health_address(&self) -> Option<std::net::SocketAddr> {
        self.health_address
    }

    /// The address that is served.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The configuration that it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where each policy came from.
    #[must_use]
    pub fn loaded(&self) -> &[LoadedFrom] {
        &self.loaded
    }

    /// Whether messages are signed.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// Waits until something ends the host from within: the store, if it is to be given up on, or
    /// the port.
    ///
    /// # Errors
    ///
    /// Always: what it was.
    pub async fn failed(&mut self) -> HostError {
        let give_up_after = self.config.store.give_up_after;
        let store = async {
            match self.bus.store_ready(give_up_after).await {
                Err(error) if give_up_after.is_some() => HostError::Store(error),
                // It has answered: whatever happens from now on, the host waits for it.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            error = store => error,
            served = &mut self.serving => HostError::Serve(match served {
                Ok(Ok(())) => io::Error::other("it was closed"),
                Ok(Err(error)) => error,
                Err(panicked) => io::Error::other(panicked),
            }),
        }
    }

    /// Ends the host in good order. Answers whether everything was finished within `server.drain_ms`;
    /// what was not is still in the store.
    pub async fn shutdown(self) -> bool {
        let drain = self.config.server.drain;
        let deadline = Instant::now() + drain;
        self.stop.cancel();
        let mut finished = self.tasks.shutdown(drain).await;
        let aborting = self.serving.abort_handle();
        if !self.serving.is_finished() && timeout_at(deadline, self.serving).await.is_err() {
            // A client that does not close its connection cannot keep the host.
            aborting.abort();
            finished = false;
        }
        drop(self.bus);
        let others = [
            Some(self.following),
            self.watching,
            self.telling,
            self.auditing,
            Some(self.alerting),
            self.recording,
        ];
        for task in others.into_iter().flatten() {
            finished &= timeout_at(deadline, task).await.is_ok();
        }
        if let Some(mut sending) = self.sending {
            // What a collector does not take in time is lost, and no reason to say that messages are.
            let last = Instant::now() + otel::EXPORT_TIME_MAX;
            if timeout_at(last, &mut sending).await.is_err() {
                sending.abort();
            }
        }
        if let Some(path) = &self.config.server.port_file {
            // Whoever reads it later must not be led to a port of somebody else.
            drop(fs::remove_file(path));
        }
        finished
    }
}

/// The policies with which a host of this configuration would start, and where each came from. Compiles,
/// so it may take a while.
///
/// # Errors
///
/// If the sandbox cannot start, or a policy refuses its configuration.
pub(crate) fn policies_at_start(
    config: &Config,
    trust: &Trust,
) -> Result<(Policies, Vec<LoadedFrom>), HostError> {
    let directory = policies::directory(config.policies.directory.as_deref());
    let base = policies::Base {
        directory: directory.as_deref(),
        trust,
        decisions: DecisionLog::in_memory(0),
        metrics: &Arc::new(Metrics::new()),
    };
    policies::load(config, &base)
}

/// What takes spans, and what sends them to the collector, if there is one.
fn tracing_of(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Tracer, Option<JoinHandle<()>>), ConfigError> {
    let mut told = config.tracing.clone();
    let variables = otel::ENDPOINT_VARIABLES.into_iter();
    let mut said = variables.filter_map(|name| env::var(name).ok());
    told.otlp_endpoint = told
        .otlp_endpoint
        .or_else(|| said.find(|value| !value.is_empty()));
    let started = otel::start(&told, &config.bus.host, metrics);
    let (tracer, sending) = started.map_err(|error| {
        let hint = "use for instance http://127.0.0.1:4317";
        config.refusal(
            &["tracing", "otlp_endpoint"],
            format!("{}; {hint}", chain(&error)),
        )
    })?;
    Ok((tracer, sending.map(|sending| tokio::spawn(sending))))
}

fn not_watched(error: &WatchError) {
    tracing::warn!(error = %chain(error), "policies copied there will not be put in use");
}

fn store(config: &Config) -> Result<Arc<dyn Store>, ConfigError> {
    let StoreConfig {
        kind,
        url,
        replicas_min,
        ..
    } = &config.store;
    Ok(match kind {
        StoreKind::Memory => Arc::new(MemoryStore::new(clock::system())),
        StoreKind::Redis => {
            let store = RedisStore::new(url.reveal());
            // The error's source may quote the address, and the address may hold a password.
            let store =
                store.map_err(|error| config.refusal(&["store", "url"], error.to_string()))?;
            Arc::new(store.with_replicas(*replicas_min))
        }
    })
}

async fn open(config: &Config) -> Result<(Port, Option<Port>), HostError> {
    let server = &config.server;
    let listen = async |address, connections_max| {
        let port = Port::open(address, connections_max).await;
        port.map_err(|source| HostError::Listen { address, source })
    };
    let port = listen(server.listen, server.connections_max).await?;
    let health = match server.health_listen {
        Some(address) => Some(listen(address, PROBES_MAX).await?),
        None => None,
    };
    if let Some(path) = &server.port_file {
        let written = fs::write(path, format!("{}\n", port.address()));
        written.map_err(|source| HostError::PortFile {
            path: path.clone(),
            source,
        })?;
    }
    Ok((port, health))
}

fn serve(
    (port, health): (Port, Option<Port>),
    bus: &Bus,
    config: &Config,
    admin: AdminOptions,
    stop: CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send + 'static {
    let limits = GrpcLimits {
        in_flight_max: config.server.in_flight_max,
        subscribers_max: config.server.subscribers_max,
    };
    let names = &config.server.names;
    let probed = http::health_router(bus.clone(), &admin.access, names);
    let http = http::router(bus.clone(), admin.clone(), names);
    let grpc = grpc::routes(bus, limits, admin).prepare();
    let router = http.merge(grpc.into_axum_router());
    async move {
        let served = port.serve(router, stop.clone().cancelled_owned());
        let Some(health) = health else {
            return served.await;
        };
        let probed = health.serve(probed, stop.cancelled_owned());
        tokio::try_join!(served, probed).map(drop)
    }
}
