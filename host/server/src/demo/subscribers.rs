//! Who handles the messages of the demo, and how.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oona_core::envelope::{Message, message_type};
use oona_core::leyline::{EmergencySignal, KernelPrefetchRequest, TelemetryPacket};
use prost::Message as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::traffic::LEGACY_PREFIX;
use crate::bus::{Bus, Delivery, Nack, SubscribeError, SubscribeOptions, Subscription};

/// How many deliveries are handled between two looks at the clock.
const BATCH_MAX: usize = 64;

/// With how many messages in hand a subscriber dies, if so many come.
const IN_HAND: usize = 50;

/// What a handler says of a message.
enum Handled {
    Done,
    Later(String),
    Never(String),
}

/// Reads payloads. It knows one format less at first than its producers use.
#[derive(Debug, Default)]
pub(super) struct Handler {
    reads_legacy: AtomicBool,
}

impl Handler {
    /// The fix: from now on it reads the old format too.
    pub(super) fn learn(&self) {
        self.reads_legacy.store(true, Ordering::Relaxed);
    }

    fn handle(&self, message: &Message) -> Handled {
        let payload = &message.payload[..];
        let read = match message.message_type {
            message_type::TELEMETRY => TelemetryPacket::decode(payload).map(drop),
            message_type::EMERGENCY_SIGNAL => EmergencySignal::decode(payload).map(drop),
            message_type::KERNEL_PREFETCH_REQUEST => {
                if self.reads_legacy.load(Ordering::Relaxed) && payload.starts_with(LEGACY_PREFIX) {
                    return Handled::Done;
                }
                // One cache in a hundred needs a moment.
                if message.attempt == 0 && message.id.ends_with("07") {
                    return Handled::Later("the kernel cache is warming up".to_owned());
                }
                KernelPrefetchRequest::decode(payload).map(drop)
            }
            _ => Ok(()),
        };
        match read {
            Ok(()) => Handled::Done,
            Err(error) => Handled::Never(format!("cannot read the payload: {error}")),
        }
    }
}

/// A member of the group.
pub(super) struct Subscriber {
    subscription: Subscription,
    account: Arc<Account>,
    handler: Arc<Handler>,
}

impl Subscriber {
    pub(super) fn join(
        bus: &Bus,
        group: &str,
        name: &str,
        account: Arc<Account>,
        handler: Arc<Handler>,
    ) -> Result<Self, SubscribeError> {
        let options = SubscribeOptions {
            consumer: name.to_owned(),
            ..SubscribeOptions::new(group)
        };
        Ok(Self {
            subscription: bus.subscribe(options)?,
            account,
            handler,
        })
    }

    /// Handles messages until it is told to stop.
    pub(super) async fn work(mut self, stop: CancellationToken) {
        self.handle_until(&stop).await;
        self.subscription.close();
    }

    /// Handles messages until it dies, with some in hand that it has not answered. Answers which.
    pub(super) async fn work_until_it_dies(mut self, die: CancellationToken) -> Vec<String> {
        self.handle_until(&die).await;
        let mut in_hand = Vec::new();
        let collect = async {
            while in_hand.len() < IN_HAND {
                let Some(delivery) = self.subscription.next().await else {
                    return;
                };
                in_hand.push(delivery.message.id.clone());
            }
        };
        // Fewer will do: under load they come at once.
        drop(timeout(Duration::from_secs(1), collect).await);
        in_hand
        // The subscription is dropped, not closed: to the bus this is a crash.
    }

    async fn handle_until(&mut self, stop: &CancellationToken) {
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = self.subscription.next() => next,
            };
            let Some(first) = next else { return };
            self.answer(&first);
            for delivery in self.subscription.ready(BATCH_MAX) {
                self.answer(&delivery);
            }
        }
    }

    fn answer(&self, delivery: &Delivery) {
        let id = &delivery.message.id;
        if delivery.message.redrives == 0 {
            self.account.delivered(id, delivery.redelivered);
        }
        let nack = match self.handler.handle(&delivery.message) {
            Handled::Done => {
                if self.subscription.ack(delivery.id).is_ok() {
                    self.account.acknowledged(id);
                }
                return;
            }
            Handled::Later(reason) => Nack {
                reason,
                ..Nack::default()
            },
            Handled::Never(reason) => Nack {
                poison: true,
                reason,
                ..Nack::default()
            },
        };
        // Too late is no loss: the bus has counted it as a timeout.
        let _ = self.subscription.nack(delivery.id, nack);
    }
}
