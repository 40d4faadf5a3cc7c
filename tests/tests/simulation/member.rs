//! A member of a group: takes what is delivered, and handles it well or badly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oona::bus::{Bus, Delivery, Nack, SubscribeOptions, SubscriptionHandle};
use oona_core::delivery::Credit;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::scenario::ACK_DEADLINE;
use crate::world::short;

/// The start of an event id whose message no handler can handle.
pub(crate) const CURSED: &str = "cursed";

/// Whatever it had in hand is gone with it.
struct Guard {
    link: Arc<Link>,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let number = self.number;
        self.link.world.ledger(|ledger, _| ledger.gone(number));
    }
}

/// Takes part in a group until it is told to leave, or the bus shuts down.
pub(crate) async fn run(bus: Bus, link: Arc<Link>, group: &'static str, leave: CancellationToken) {
    /// Numbers members apart; no number is seen outside the ledger.
    static MEMBERS: AtomicU64 = AtomicU64::new(0);
    let number = MEMBERS.fetch_add(1, Ordering::Relaxed);
    let world = link.world.clone();
    let guard = Guard {
        link: Arc::clone(&link),
        number,
    };
    let few = world.between(1, 8);
    let options = SubscribeOptions {
        in_flight_max: usize::try_from(few).unwrap_or(1),
        credit: Credit::messages(1_000_000),
        ..SubscribeOptions::new(group)
    };
    let Ok(mut subscription) = bus.subscribe(options) else {
        return;
    };
    let mut handlers = JoinSet::new();
    loop {
        let delivery = tokio::select! {
            biased;
            () = leave.cancelled() => break,
            Some(_) = handlers.join_next() => continue,
            delivery = subscription.next() => delivery,
        };
        let Some(delivery) = delivery else { break };
        let Delivery {
            stream,
            entry,
            message,
            ..
        } = &delivery;
        world.note(
            &link.name,
            format_args!(
                "delivers {} {stream} {} to {group}, attempt {}",
                message.id,
                short(*entry),
                message.attempt
            ),
        );
        world.ledger(|ledger, now| ledger.delivered(now, &link, (group, number), &delivery));
        let handler = Handler {
            link: Arc::clone(&link),
            group,
            handle: subscription.handle(),
        };
        handlers.spawn(handler.handle(delivery));
    }
    if leave.is_cancelled() {
        subscription.close();
    } else {
        subscription.drained().await;
    }
    drop(guard);
}

struct Handler {
    link: Arc<Link>,
    group: &'static str,
    handle: SubscriptionHandle,
}

impl Handler {
    /// Handles a message as chance will have it; when all is calm, as well as it can be.
    async fn handle(self, delivery: Delivery) {
        let world = &self.link.world;
        if delivery.message.id.starts_with(CURSED) {
            world.wait(0, 100).await;
            return self.refuse(&delivery, false);
        }
        let troubled = world.troubled();
        match world.between(1, 20) {
            1..=2 if troubled => {
                world.wait(0, 500).await;
                self.refuse(&delivery, false);
            }
            3 if troubled => {
                world.wait(0, 500).await;
                self.refuse(&delivery, true);
            }
            4 if troubled => self.note("says nothing of", &delivery),
            5..=6 if troubled => self.work_long(&delivery).await,
            7 if troubled => {
                world.wait(3_000, 6_000).await;
                self.acknowledge(&delivery);
            }
            _ => {
                world.wait(0, 300).await;
                self.acknowledge(&delivery);
            }
        }
    }

    /// Asks for more time again and again.
    async fn work_long(&self, delivery: &Delivery) {
        for _ in 0..self.link.world.between(3, 9) {
            sleep(ACK_DEADLINE / 2).await;
            if self.handle.extend(delivery.id, ACK_DEADLINE).is_err() {
                break;
            }
        }
        self.acknowledge(delivery);
    }

    fn acknowledge(&self, delivery: &Delivery) {
        self.note("has handled", delivery);
        self.link.world.ledger(|ledger, _| {
            ledger.handled(self.group, delivery);
            ledger.answered(self.group, delivery);
        });
        // Too late is too late: it is delivered again.
        self.handle.ack(delivery.id).ok();
    }

    fn refuse(&self, delivery: &Delivery, poison: bool) {
        let world = &self.link.world;
        self.note(
            if poison {
                "cannot ever handle"
            } else {
                "refuses"
            },
            delivery,
        );
        world.ledger(|ledger, _| ledger.answered(self.group, delivery));
        let delay = world.one_in(4).then(|| world.ms(0, 2_000));
        let nack = Nack {
            poison,
            delay,
            reason: "so it wills".to_owned(),
        };
        self.handle.nack(delivery.id, nack).ok();
    }

    fn note(&self, what: &str, delivery: &Delivery) {
        let id = &delivery.message.id;
        self.link
            .world
            .note(&self.link.name, format_args!("{} {what} {id}", self.group));
    }
}
