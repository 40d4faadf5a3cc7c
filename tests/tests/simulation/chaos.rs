//! What goes wrong, one thing after the other, until it has gone on for long enough.

use std::time::Duration;

use bytes::Bytes;
use oona::store::{Append, Store, StreamName};
use oona_core::entry::{EntryId, Record};
use oona_core::envelope::Message;
use oona_core::envelope::message_type::FIELD_REPORT;
use oona_core::policy::Kind;
use tokio::time::{Instant, timeout};

use crate::account::has_nonce;
use crate::host::{Cluster, Host, place};
use crate::ledger::Origin;
use crate::link::Weather;
use crate::run::Hosts;
use crate::scenario::{CLAIM_IDLE, Scenario, streams};
use crate::world::{World, short};

/// For how long an operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hosts of a run, and whoever makes them fail.
pub(crate) struct Chaos {
    cluster: Cluster,
    slots: Vec<Slot>,
    hosts: Hosts,
}

/// A place for one host after the other.
struct Slot {
    number: usize,
    life: u64,
    host: Option<Host>,
    starts_at: Instant,
}

impl Chaos {
    /// Starts all hosts.
    pub(crate) fn new(cluster: Cluster, hosts: Hosts) -> Self {
        let slots = (1..=cluster.scenario.hosts).map(|number| Slot {
            number,
            life: 0,
            host: None,
            starts_at: Instant::now(),
        });
        let mut chaos = Self {
            slots: slots.collect(),
            cluster,
            hosts,
        };
        chaos.start_due(false);
        chaos
    }

    fn world(&self) -> &World {
        &self.cluster.world
    }

    /// Starts what is down and due to come up.
    fn start_due(&mut self, all: bool) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.host.is_none() && (all || slot.starts_at <= Instant::now()) {
                slot.life += 1;
                let host = Host::start(&self.cluster, slot.number, slot.life);
                if self.cluster.world.troubled() {
                    host.link.set_weather(Weather::Fair);
                }
                slot.host = Some(host);
                self.step_clock(index);
            }
        }
        self.publish_hosts();
    }

    /// Tells producers and operators which hosts there are.
    fn publish_hosts(&self) {
        let up = self.slots.iter().filter_map(|slot| slot.host.as_ref());
        let up = up.map(|host| (host.bus.clone(), std::sync::Arc::clone(&host.link)));
        self.hosts.set(up.collect());
    }

    /// Makes things go wrong until it is time to stop.
    pub(crate) async fn rage(&mut self) {
        while self.world().elapsed() < self.cluster.scenario.faults {
            self.world().wait(50, 1_500).await;
            self.start_due(false);
            let up: Vec<_> = self.slots.iter().map(|slot| slot.host.is_some()).collect();
            let index = self.world().between(0, self.slots.len() as u64 - 1);
            let index = usize::try_from(index).unwrap_or(0);
            match self.world().between(0, 15) {
                0..=1 if up[index] => self.crash(index),
                2 if up[index] => self.restart(index).await,
                3..=4 => self.pause(index),
                5..=6 => self.turn_weather(index),
                7 => self.step_clock(index),
                8 => self.swap(),
                14..=15 if self.cluster.scenario.components => self.plant(index),
                9 if up[index] => self.replace_member(index),
                10 => self.copy().await,
                11 => self.forge().await,
                12..=13 => self.redrive().await,
                _ => {}
            }
        }
    }

    /// Ends all faults, and starts what is down.
    pub(crate) fn calm(&mut self) {
        self.world().note("", "all is calm from here on");
        self.world().calm_down();
        self.start_due(true);
        for host in self.slots.iter().filter_map(|slot| slot.host.as_ref()) {
            host.link.set_weather(Weather::Calm);
            host.link.resume();
        }
    }

    /// Ends all hosts in good order.
    pub(crate) async fn stop(self) {
        for slot in self.slots {
            if let Some(host) = slot.host {
                host.stop(Duration::from_secs(30)).await;
            }
        }
    }

    fn crash(&mut self, index: usize) {
        let downtime = self.world().ms(10, 8_000);
        let slot = &mut self.slots[index];
        slot.starts_at = Instant::now() + downtime;
        if let Some(host) = slot.host.take() {
            host.crash();
        }
        self.publish_hosts();
    }

    async fn restart(&mut self, index: usize) {
        let deadline = self.world().ms(0, 4_000);
        let slot = &mut self.slots[index];
        let host = slot.host.take();
        slot.starts_at = Instant::now();
        self.publish_hosts();
        if let Some(host) = host {
            host.stop(deadline).await;
        }
    }

    fn pause(&self, index: usize) {
        let Some(host) = &self.slots[index].host else {
            return;
        };
        let most = CLAIM_IDLE.as_millis() * 3 / 2;
        let time = self
            .world()
            .ms(100, u64::try_from(most).unwrap_or(u64::MAX));
        let ms = time.as_millis();
        self.world()
            .note(&host.link.name, format_args!("is stopped for {ms} ms"));
        host.link.pause(time);
    }

    fn turn_weather(&self, index: usize) {
        let Some(host) = &self.slots[index].host else {
            return;
        };
        let weather = *self.world().pick(&[
            Weather::Calm,
            Weather::Fair,
            Weather::Fair,
            Weather::Rough,
            Weather::Slow,
            Weather::Down,
            Weather::Deaf,
        ]);
        self.world()
            .note(&host.link.name, format_args!("has the store {weather:?}"));
        host.link.set_weather(weather);
    }

    fn step_clock(&self, index: usize) {
        let Some(host) = &self.slots[index].host else {
            return;
        };
        let most = if self.cluster.scenario.strict_clocks {
            u64::try_from(Scenario::SKEW_MAX.as_millis()).unwrap_or(0)
        } else {
            30_000
        };
        let step = self.world().between(0, most * 2);
        let skew = i64::try_from(step).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        self.world().note(
            &host.link.name,
            format_args!("has its clock {skew} ms ahead"),
        );
        host.link.skew(skew);
    }

    /// Puts another version of a policy in use, on all hosts.
    fn swap(&mut self) {
        let kind = *self.world().pick(&Kind::ALL);
        self.cluster.turns[place(kind)] += 1;
        self.world()
            .note("", format_args!("the {kind} policy is swapped"));
        for host in self.slots.iter().filter_map(|slot| slot.host.as_ref()) {
            host.swap(&self.cluster, kind);
        }
    }

    /// A host gets a policy that fails, until the next one is put in use.
    fn plant(&self, index: usize) {
        let kind = *self.world().pick(&Kind::ALL);
        if let Some(host) = &self.slots[index].host {
            host.plant(&self.cluster, kind);
        }
    }

    fn replace_member(&mut self, index: usize) {
        let orderly = self.world().one_in(2);
        if let Some(host) = &mut self.slots[index].host {
            host.replace_member(orderly);
        }
    }

    /// Somebody writes an entry again that has a nonce, to the same stream or to another.
    async fn copy(&self) {
        let published = self.world().ledger(|ledger, _| ledger.published());
        if published.is_empty() {
            return;
        }
        let (stream, id) = self.world().pick(&published).clone();
        let Ok(found) = self.cluster.store.range(&stream, id.previous(), 1).await else {
            return;
        };
        let Some(entry) = found.first().filter(|entry| entry.id == id) else {
            return;
        };
        let payload = entry.payload().cloned().unwrap_or_default();
        let message = Message::decode(&payload, id);
        if message.is_ok_and(|message| has_nonce(message.message_type)) {
            let record = Record {
                payload,
                signature: entry.signature().cloned(),
            };
            let other = self.world().pick(&streams()).clone();
            let to = if self.world().one_in(2) {
                stream
            } else {
                other
            };
            self.write(&to, record, "a copy").await;
        }
    }

    /// Somebody writes an entry who has no key, or nothing that could be read.
    async fn forge(&self) {
        let mut payload = b"no envelope".to_vec();
        if self.world().one_in(2) {
            payload.clear();
            let forged = Message {
                id: "forged".to_owned(),
                message_type: FIELD_REPORT,
                key: "a".to_owned(),
                ..Message::default()
            };
            forged.encode(&mut payload);
        }
        let signature = self
            .world()
            .one_in(2)
            .then(|| Bytes::from_static(b"Zm9yZ2Vk"));
        let to = self.world().pick(&streams()).clone();
        let record = Record {
            payload: payload.into(),
            signature,
        };
        self.write(&to, record, "a forged entry").await;
    }

    async fn write(&self, stream: &StreamName, record: Record, what: &str) {
        let append = Append::new(stream.clone(), record.clone());
        let written = self.cluster.store.append(&[append]).await;
        let written = written.ok().and_then(|mut written| written.pop()?.ok());
        let Some(written) = written else { return };
        let (id, fields) = (written.id, record.into_fields());
        let name = self.world().ledger(|ledger, _| {
            ledger.appended(stream, id, &fields, Origin::Foreign);
            ledger.name(stream, id, &fields)
        });
        self.world().note(
            "",
            format_args!("{what} of {name} is written as {stream} {}", short(id)),
        );
    }

    /// An operator sends a dead letter on its way again.
    async fn redrive(&self) {
        let Some((bus, link)) = self.hosts.any(self.world()) else {
            return;
        };
        let redriving = async {
            let letters = bus.dead_letters(None, 100).await.ok()?;
            if letters.is_empty() {
                return None;
            }
            let id: EntryId = self.world().pick(&letters).id.parse().ok()?;
            bus.redrive(id, None).await.ok()
        };
        tokio::select! {
            biased;
            () = link.died() => {}
            _ = timeout(PATIENCE, redriving) => {}
        }
    }
}
