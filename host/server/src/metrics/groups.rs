//! What each consumer group has to do: gauges of what there is now, and of nothing that is gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::LABEL_VALUES_MAX;
use super::families::clean;
use crate::sync::lock;

/// How one group of a stream is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSample {
    /// Its name.
    pub name: String,
    /// What it has yet to read, in messages.
    pub lag: u64,
    /// What it has read and not settled, in messages.
    pub pending: u64,
    /// For how long the oldest that it has yet to finish is there, in seconds; 0 without one.
    pub oldest_age_s: f64,
}

/// The groups of every stream, as last sampled: [`LABEL_VALUES_MAX`] of each stream at most, by name; of those
/// whose names are one label, the first.
#[derive(Debug, Default)]
pub struct GroupGauges(Mutex<BTreeMap<Arc<str>, Vec<GroupSample>>>);

impl GroupGauges {
    /// Replaces what was known of a stream.
    pub fn set(&self, stream: &Arc<str>, mut groups: Vec<GroupSample>) {
        groups.sort_by_cached_key(|group| (clean(&group.name), group.name.clone()));
        groups.dedup_by(|one, before| clean(&one.name) == clean(&before.name));
        groups.truncate(LABEL_VALUES_MAX);
        lock(&self.0).insert(Arc::clone(stream), groups);
    }

    fn encode_gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        value: impl Fn(&GroupSample) -> f64,
    ) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (stream, groups) in &*lock(&self.0) {
            for group in groups {
                let labels: [(&str, Cow<'_, str>); 2] = [
                    ("stream", Cow::Borrowed(&**stream)),
                    ("group", clean(&group.name).into()),
                ];
                ConstGauge::new(value(group)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for GroupGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let encoder = &mut encoder;
        let lag = ("consumer_group_lag", "What a group has yet to read");
        self.encode_gauge(encoder, lag, |group| group.lag as f64)?;
        let pending = (
            "consumer_group_pending",
            "What a group read and did not settle",
        );
        self.encode_gauge(encoder, pending, |group| group.pending as f64)?;
        let age = (
            "consumer_group_oldest_age_seconds",
            "Age of the oldest message that a group has yet to finish, 0 without one",
        );
        self.encode_gauge(encoder, age, |group| group.oldest_age_s)
    }
}
