//! A host: the real bus over a line to the store that may fail, and the members of groups that it serves.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use oona::bus::{Bus, BusTasks, Foundation};
use oona::metrics::{Metrics, Step};
use oona::otel::Tracer;
use oona::policies::{Policies, PolicyOptions};
use oona::store::memory::MemoryStore;
use oona_core::policy::Kind;
use oona_core::signing::{Keyring, Secret};
use oona_tests::bus::SECRET;
use oona_tests::by_hand::ByHand;
use oona_tests::policies::{directory, policy};
use oona_wasm::{Engine, EngineConfig};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::member;
use crate::scenario::{Scenario, streams};
use crate::store::FaultyStore;
use crate::world::World;

/// What all hosts have in common.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) scenario: Scenario,
    pub(crate) world: World,
    pub(crate) store: Arc<MemoryStore>,
    /// Which version of each policy is in use.
    pub(crate) turns: [u64; 4],
}

/// One life of a host.
pub(crate) struct Host {
    pub(crate) link: Arc<Link>,
    pub(crate) bus: Bus,
    tasks: BusTasks,
    metrics: Arc<Metrics>,
    members: Vec<Member>,
}

struct Member {
    group: &'static str,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

/// What signs.
pub(crate) fn keyring() -> Keyring {
    let secret = Secret::new(SECRET.to_owned()).expect("it is not empty");
    Keyring::new(&secret, &[])
}

/// Where policies run as components. Nothing is measured here: a machine that is busy changes nothing.
static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let config = EngineConfig {
        call_ms_max: 60_000,
        start_ms_max: 60_000,
        memory_bytes_max: 4 << 20,
        instances_max: 1_000,
        cache_directory: Some(directory().with_file_name("policies-compiled")),
        ..EngineConfig::default()
    };
    Engine::new(config).expect("an engine")
});

/// Where a kind stands among all.
pub(crate) fn place(kind: Kind) -> usize {
    let found = Kind::ALL.iter().position(|known| *known == kind);
    found.expect("it is one of them")
}

fn activate(policies: &Policies, kind: Kind, name: &str, config: &Value) {
    let activated = policies.activate(Some(kind), &policy(name), Some(&config.to_string()));
    activated.expect("a component of this repository can be activated");
}

/// A policy that traps in its third call, and decides until then within what the ledger expects.
fn trapping(kind: Kind, attempts_max: u32) -> Bytes {
    let each = match (kind, attempts_max) {
        (Kind::DeadLetter, 2) => AGAIN_ONCE,
        (Kind::DeadLetter, 3) => AGAIN_TWICE,
        (Kind::Freshness, _) => ONLY_REPLAYS,
        _ => "",
    };
    let policy = ByHand {
        call: "(if (i32.ge_u (local.get $calls) (i32.const 2)) (then (unreachable)))",
        each,
        ..ByHand::new(kind)
    };
    policy.component()
}

/// Filed after the second failure.
const AGAIN_ONCE: &str = "(local.set $verdict
    (i32.ge_u (i32.load offset=24 (local.get $message)) (i32.const 1)))";

/// Filed after the third failure.
const AGAIN_TWICE: &str = "(local.set $verdict
    (i32.ge_u (i32.load offset=24 (local.get $message)) (i32.const 2)))";

/// Fresh, unless its nonce is on another entry.
const ONLY_REPLAYS: &str = "(local.set $verdict (select (i32.const 2) (i32.const 0)
    (i32.eq (i32.load8_u offset=48 (local.get $message)) (i32.const 2))))";

/// How the routing policy fails that is made for it.
const FAILURES: [&str; 6] = [
    "trap",
    "too-few",
    "too-many",
    "unknown-stream",
    "no-reason",
    "foreign-message",
];

impl Host {
    /// Starts a host, with a member of each group.
    pub(crate) fn start(cluster: &Cluster, number: usize, life: u64) -> Self {
        let mut host = Self::start_alone(cluster, number, life);
        for group in cluster.scenario.groups() {
            host.join(group);
        }
        host
    }

    /// Starts a host.
    pub(crate) fn start_alone(cluster: &Cluster, number: usize, life: u64) -> Self {
        let Cluster {
            scenario,
            world,
            store,
            turns,
        } = cluster;
        let name = format!("h{number}.{life}");
        world.note(&name, "starts");
        let link = Link::new(name, world.clone());
        let config = scenario.config(&link.name);
        let metrics = Arc::new(Metrics::new());
        let streams = config.streams.clone();
        let mut options = PolicyOptions::new(streams, Arc::clone(&metrics), link.clock());
        let configs = Kind::ALL.into_iter().zip(turns);
        let configs = configs.map(|(kind, turn)| (kind, scenario.policy(kind, *turn)));
        for (place, config) in options.configs.iter_mut().zip(configs) {
            *place = config;
        }
        if scenario.components {
            options.engine = Some(Arc::clone(&ENGINE));
        }
        let policies = Policies::new(&options);
        if scenario.components {
            for kind in Kind::ALL {
                activate(
                    &policies,
                    kind,
                    kind.name(),
                    &scenario.policy(kind, turns[place(kind)]),
                );
            }
        }
        let foundation = Foundation {
            store: Arc::new(FaultyStore::new(Arc::clone(store), Arc::clone(&link))),
            keyring: Some(keyring()),
            policies,
            metrics: Arc::clone(&metrics),
            tracer: Tracer::off(),
        };
        let (bus, tasks) = Bus::start(config, foundation, link.clock());
        Self {
            link,
            bus,
            tasks,
            metrics,
            members: Vec::new(),
        }
    }

    /// Adds a member of a group.
    pub(crate) fn join(&mut self, group: &'static str) {
        let leave = CancellationToken::new();
        let member = member::run(
            self.bus.clone(),
            Arc::clone(&self.link),
            group,
            leave.clone(),
        );
        let task = tokio::spawn(member);
        self.members.push(Member { group, leave, task });
    }

    /// A member leaves in good order, or is lost; another comes in its place.
    pub(crate) fn replace_member(&mut self, orderly: bool) {
        let world = &self.link.world;
        let index = world.between(0, self.members.len() as u64 - 1);
        let member = self.members.remove(usize::try_from(index).unwrap_or(0));
        let how = if orderly { "leaves" } else { "is lost" };
        world.note(
            &self.link.name,
            format_args!("a member of {} {how}", member.group),
        );
        if orderly {
            member.leave.cancel();
        } else {
            member.task.abort();
        }
        self.join(member.group);
    }

    /// Puts another version of a policy in use.
    pub(crate) fn swap(&self, cluster: &Cluster, kind: Kind) {
        let config = cluster.scenario.policy(kind, cluster.turns[place(kind)]);
        let policies = self.bus.policies();
        if cluster.scenario.components {
            return activate(policies, kind, kind.name(), &config);
        }
        let swapped = policies.follow(kind, None, Some(&config.to_string()));
        swapped.expect("a shipped policy takes this configuration");
    }

    /// Puts a policy in use that fails sooner or later.
    pub(crate) fn plant(&self, cluster: &Cluster, kind: Kind) {
        let world = &cluster.world;
        let policies = self.bus.policies();
        if kind == Kind::Routing {
            let mode = *world.pick(&FAILURES);
            world.note(
                &self.link.name,
                format_args!("is given a routing policy that fails: {mode}"),
            );
            let config = json!({"mode": mode, "after": world.between(1, 6)});
            return activate(policies, kind, "hostile", &config);
        }
        world.note(
            &self.link.name,
            format_args!("is given a {kind} policy that traps"),
        );
        let component = trapping(kind, cluster.scenario.attempts_max);
        let activated = policies.activate(Some(kind), &component, Some("{}"));
        activated.expect("it traps after its trial");
    }

    /// The host is gone from one instant to the next.
    pub(crate) fn crash(self) {
        self.link.world.note(&self.link.name, "crashes");
        self.link.kill();
        for member in self.members {
            member.task.abort();
        }
    }

    /// The host ends in good order, as far as it can in this time.
    pub(crate) async fn stop(self, deadline: Duration) {
        let (world, name) = (&self.link.world, &self.link.name);
        world.note(name, "shuts down");
        let drained = self.tasks.shutdown(deadline).await;
        world.note(
            name,
            if drained {
                "is down"
            } else {
                "is down, not all done"
            },
        );
        for member in self.members {
            member.task.abort();
        }
        let counted = streams()
            .iter()
            .map(|stream| self.metrics.settled(stream, Step::Discard).get())
            .sum();
        if drained {
            world.ledger(|ledger, _| ledger.counted(name, counted));
        }
        self.link.kill();
    }
}
