//! A load over gRPC that goes on whatever happens to the host: producers at a stated pace and
//! subscribers that handle what comes, both with the ledger in hand.
//!
//! Some messages fail once and are retried, some can never be handled and become dead letters, some
//! bear a nonce: by their numbers, so that whoever gets one knows.

mod producer;
mod subscriber;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use oona_core::envelope::message_type::{FIELD_REPORT, KERNEL_PREFETCH_REQUEST, TELEMETRY};

pub(super) use self::producer::Producer;
pub(super) use self::subscriber::Subscriber;
use super::ledger::Ledger;
use crate::proto::Delivery;
use crate::sync::lock;

/// The consumer group of the load.
pub(super) const GROUP: &str = "load";

/// One message in so many fails when it is handled first.
const FAILS_ONCE_EVERY: u64 = 200;

/// How long such a message is to wait.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Before a lost host is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest latency that is told apart, in µs: a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What producers and subscribers share.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) ledger: Ledger,
    begun: Instant,
    publish: Mutex<Histogram<u64>>,
    delivery: Mutex<Histogram<u64>>,
    refusals: Mutex<Refusals>,
}

/// Why publishes were refused, as `cause/reason`, and how many.
pub(super) type Refusals = BTreeMap<String, u64>;

/// Latencies since they were taken last, in µs; none if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latencies {
    pub(super) publish: Option<(f64, f64)>,
    pub(super) delivery: Option<(f64, f64)>,
}

/// Who is told what a subscriber sees and does.
pub(super) trait Witness: Send + Sync {
    /// A message is in hand.
    fn came(&self, number: u64, delivery: &Delivery);

    /// These messages are handled. Their acknowledgement leaves only after this: so what the bus has
    /// finished and nobody was told of was lost.
    fn handled(&self, numbers: &[u64]) -> io::Result<()>;
}

impl Witness for Load {
    fn came(&self, number: u64, delivery: &Delivery) {
        self.ledger.came(number, delivery.redelivered);
        if !delivery.redelivered
            && let Some(due) = delivery.payload.first_chunk()
        {
            self.delivered(u64::from_be_bytes(*due));
        }
    }

    fn handled(&self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            self.ledger.acknowledged(*number);
        }
        Ok(())
    }
}

/// How a message is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    Done,
    FailsOnce,
    Poison,
}

impl Handling {
    /// How this message is, if one in `poison_every` can never be handled.
    const fn of(number: u64, poison_every: u64) -> Self {
        if number % poison_every == poison_every - 1 {
            Self::Poison
        } else if number % FAILS_ONCE_EVERY == FAILS_ONCE_EVERY / 2 {
            Self::FailsOnce
        } else {
            Self::Done
        }
    }
}

impl Load {
    pub(super) fn new() -> Self {
        let histogram = || {
            let bounds = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
            Mutex::new(bounds.expect("the bounds are those that the library allows"))
        };
        Self {
            ledger: Ledger::default(),
            begun: Instant::now(),
            publish: histogram(),
            delivery: histogram(),
            refusals: Mutex::default(),
        }
    }

    /// The median and the 99th percentile of both latencies since this was asked last.
    pub(super) fn take_latencies(&self) -> Latencies {
        let take = |histogram: &Mutex<Histogram<u64>>| {
            let mut histogram = lock(histogram);
            let some = !histogram.is_empty();
            let at = |quantile| histogram.value_at_quantile(quantile) as f64;
            let taken = some.then(|| (at(0.5), at(0.99)));
            histogram.reset();
            taken
        };
        Latencies {
            publish: take(&self.publish),
            delivery: take(&self.delivery),
        }
    }

    /// Half of the messages go to one stream, most of the others to a second; one in ten goes to a
    /// third and bears a nonce.
    const fn type_of(number: u64) -> u32 {
        match number % 10 {
            0 => KERNEL_PREFETCH_REQUEST,
            1..=5 => TELEMETRY,
            _ => FIELD_REPORT,
        }
    }

    pub(super) fn refusals(&self) -> Refusals {
        lock(&self.refusals).clone()
    }

    fn refused(&self, cause: &str, reason: &str) {
        let mut refusals = lock(&self.refusals);
        *refusals.entry(format!("{cause}/{reason}")).or_default() += 1;
    }

    /// µs since the load began, at a time.
    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn published(&self, since_us: u64) {
        let took = self.micros(Instant::now()).saturating_sub(since_us);
        lock(&self.publish).saturating_record(took);
    }

    fn delivered(&self, since_us: u64) {
        let took = self.micros(Instant::now()).saturating_sub(since_us);
        lock(&self.delivery).saturating_record(took);
    }
}
