//! The demo's bus behind a port: the console, for whoever wants to look.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oona_core::policy::Kind;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::components::{Component, Components};
use crate::access::Access;
use crate::alerts;
use crate::auditor;
use crate::bus::Bus;
use crate::clock;
use crate::config::{Config, Sources};
use crate::gates::{Gate, Trust};
use crate::grpc::{self, AdminOptions, GrpcLimits};
use crate::http;
use crate::policies::ActivationReport;
use crate::registry::{
    Author, Proposal, Registry, RegistryError, RegistryOptions, Use, Wanted, begin,
};
use crate::server::Port;
use crate::store::Store;

/// How many connections, subscribers, and publishes of one connection the demo serves at once.
const PLACES: usize = 64;

/// How often the demo's registry is read; nobody but this host writes to it.
const POLL: Duration = Duration::from_secs(1);

/// How often the dead letters are audited: often enough for who looks for a minute.
const AUDIT: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) registry: Registry,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
    following: JoinHandle<()>,
    alerting: JoinHandle<()>,
    auditing: JoinHandle<()>,
}

impl Served {
    /// Serves a bus on a free port of this machine.
    pub(super) async fn begin(bus: &Bus, store: Arc<dyn Store>) -> Result<Self, DemoError> {
        let options = RegistryOptions {
            host: "demo".to_owned(),
            trust: Trust {
                allow_unsigned: true,
                ..Trust::default()
            },
            cache: None,
            poll: POLL,
        };
        let registry = Registry::new(store, bus.policies().clone(), options, clock::system());
        let port = Port::open((Ipv4Addr::LOCALHOST, 0).into(), PLACES).await?;
        let address = port.address();
        let stop = CancellationToken::new();
        let follower = begin(registry.clone()).await;
        let following = tokio::spawn(follower.run(stop.clone()));
        let defaults = Config::assemble(None, &Sources::default())?;
        let promised = (defaults.objectives, defaults.alerts);
        let alerting = alerts::watch(bus.clone(), registry.clone(), promised, stop.clone());
        let auditing = auditor::audit(bus.clone(), defaults.audit, AUDIT, stop.clone());
        let admin = AdminOptions {
            registry: registry.clone(),
            access: Access::default(),
        };
        let limits = GrpcLimits {
            in_flight_max: PLACES,
            subscribers_max: PLACES,
        };
        let http = http::router(bus.clone(), admin.clone(), &[]);
        let grpc = grpc::routes(bus, limits, admin).prepare();
        let router = http.merge(grpc.into_axum_router());
        let serving = tokio::spawn(port.serve(router, stop.clone().cancelled_owned()));
        Ok(Self {
            address,
            registry,
            stop,
            serving,
            following,
            alerting: tokio::spawn(alerting),
            auditing: tokio::spawn(auditing),
        })
    }

    /// Keeps both routing policies in the registry, so that the console can put either in use.
    pub(super) async fn keep(&self, components: &Components) -> Result<(), DemoError> {
        let author = author("to be activated in the console");
        let routing = components.shipped.iter().take(1);
        for component in routing.chain([&components.second]) {
            let bytes = Bytes::copy_from_slice(&component.bytes);
            let pushed = self.registry.push(bytes, Vec::new(), &author).await;
            pushed?;
        }
        Ok(())
    }

    /// Ends it. A browser that holds its connection open does not hold the demo.
    pub(super) async fn end(self, within: Duration) {
        self.stop.cancel();
        let aborting = self.serving.abort_handle();
        if timeout(within, self.serving).await.is_err() {
            aborting.abort();
        }
        for task in [self.following, self.alerting, self.auditing] {
            drop(timeout(within, task).await);
        }
    }
}

/// Puts a routing policy in use as an operator does: past the gates, and into the history.
pub(super) async fn put_in_use(
    registry: &Registry,
    component: &Component,
    (config, forced, why): (&str, &[Gate], &str),
) -> Result<ActivationReport, RegistryError> {
    let bytes = Bytes::copy_from_slice(&component.bytes);
    let proposal = Proposal {
        wanted: Wanted::Component(bytes, Vec::new()),
        kind: Some(Kind::Routing),
        config: Some(config.to_owned()),
        forced: forced.to_vec(),
        dry_run: false,
    };
    let proposed = registry.propose(proposal, Use::Active, &author(why)).await;
    let nothing = || RegistryError::NotFollowed("another change came between".to_owned());
    proposed?.activation.ok_or_else(nothing)
}

fn author(message: &str) -> Author {
    Author {
        by: "demo".to_owned(),
        message: message.to_owned(),
    }
}
