//! What is looked at every few seconds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::super::host_process::HostProcess;
use super::super::load::Load;
use super::super::raw::Raw;
use super::super::redis_process::RedisProcess;
use super::super::store_view::StoreView;
use super::super::{BenchError, ledger::Tally};

/// A look at everything.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    /// When, since the begin.
    pub at_ms: u64,
    /// Memory of the host that is in use.
    pub host_bytes: u64,
    /// Memory of Redis that is in use, as the system sees it.
    pub redis_bytes: u64,
    /// Memory of Redis that is in use, as Redis sees it.
    pub redis_used_bytes: u64,
    /// From when a message was due to its outcome, since the last sample; none if there was none.
    pub publish: Option<Percentiles>,
    /// From when a message was due to its first delivery; likewise.
    pub delivery: Option<Percentiles>,
    /// What the group has yet to finish.
    pub unfinished: u64,
    /// What has become of all messages so far.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50_us: f64,
    /// One in a hundred is slower.
    pub p99_us: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let delivery = self.delivery.unwrap_or_default();
        write!(
            f,
            "{} delivered, p50 {:.1} ms, p99 {:.1} ms; host {:.0} MiB, Redis {:.0} MiB",
            self.tally.delivered,
            delivery.p50_us / 1e3,
            delivery.p99_us / 1e3,
            mib(self.host_bytes),
            mib(self.redis_bytes),
        )
    }
}

/// Takes samples of these processes, which end with it.
pub(super) struct Sampler {
    load: Arc<Load>,
    view: StoreView,
    raw: Raw,
    host: HostProcess,
    redis: RedisProcess,
}

impl Sampler {
    pub(super) async fn new(
        load: Arc<Load>,
        redis: RedisProcess,
        host: HostProcess,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            load,
            view: StoreView::new(&redis.url())?,
            raw: Raw::connect(&redis.url()).await?,
            host,
            redis,
        })
    }

    pub(super) fn view(&mut self) -> &mut StoreView {
        &mut self.view
    }

    pub(super) async fn redis_version(&mut self) -> Result<String, BenchError> {
        Ok(self.raw.version().await?)
    }

    pub(super) async fn take(&mut self, at: Duration) -> Result<Sample, BenchError> {
        let latencies = self.load.take_latencies();
        let percentiles = |(p50_us, p99_us)| Percentiles { p50_us, p99_us };
        self.view.read_dead_letters(&self.load.ledger).await?;
        let host = self.host.process().resident_bytes();
        let redis = self.redis.process().map(|process| process.resident_bytes());
        Ok(Sample {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            host_bytes: host.map_err(BenchError::Memory)?,
            redis_bytes: redis
                .transpose()
                .map_err(BenchError::Memory)?
                .unwrap_or_default(),
            redis_used_bytes: self.raw.used_memory().await?,
            publish: latencies.publish.map(percentiles),
            delivery: latencies.delivery.map(percentiles),
            unfinished: self.view.unfinished().await?,
            tally: self.load.ledger.tally(),
        })
    }
}
