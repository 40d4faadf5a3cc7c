//! What an auditor last found in the dead-letter stream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Mutex;

use oona_core::dead_letter::audit::{Picture, Rate};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;

use super::families::clean;
use crate::sync::lock;

/// What an auditor has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AuditStatus {
    /// What there is.
    #[serde(flatten)]
    pub picture: Picture,
    /// How many are filed.
    #[serde(flatten)]
    pub rate: Rate,
}

/// See the module. Shows nothing until something was found.
#[derive(Debug, Default)]
pub struct AuditGauges(Mutex<(Option<Picture>, Rate)>);

impl AuditGauges {
    /// Takes in what there is.
    pub fn found(&self, picture: Picture) {
        lock(&self.0).0 = Some(picture);
    }

    /// Takes in how many are filed.
    pub fn filed(&self, rate: Rate) {
        lock(&self.0).1 = rate;
    }

    /// What was found; `None` before the first audit has ended.
    #[must_use]
    pub fn status(&self) -> Option<AuditStatus> {
        let (picture, rate) = &*lock(&self.0);
        let picture = picture.clone()?;
        Some(AuditStatus {
            picture,
            rate: *rate,
        })
    }
}

impl Collector for AuditGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(AuditStatus { picture, rate }) = self.status() else {
            return Ok(());
        };
        let at = picture.at_ms;
        let age_s = |since: u64| at.saturating_sub(since) as f64 / 1_000.0;
        for (name, help, value) in [
            (
                "length",
                "Entries that the last audit met",
                picture.length as f64,
            ),
            (
                "sampled",
                "Dead letters that the last audit read",
                picture.sampled as f64,
            ),
            (
                "foreign",
                "Entries that the last audit read and that are no dead letters of this bus",
                picture.foreign as f64,
            ),
            (
                "oldest_age_seconds",
                "Age of the oldest dead letter that the last audit read, 0 without one",
                picture.oldest_ms.map_or(0.0, age_s),
            ),
            (
                "filed_per_second",
                "Dead letters filed between the last two audits, by whatever host",
                rate.per_minute / 60.0,
            ),
            (
                "usual_per_second",
                "Dead letters that are usually filed",
                rate.usual_per_minute / 60.0,
            ),
            (
                "rising",
                "Whether many more are filed than usual",
                f64::from(u8::from(rate.rising)),
            ),
        ] {
            let name = format!("dead_letter_audit_{name}");
            let gauge = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        let mut family = encoder.encode_descriptor(
            "dead_letter_audit_letters",
            "Dead letters that there are, about, by what they are told apart by",
            None,
            MetricType::Gauge,
        )?;
        for (by, counts) in picture.counts.each() {
            // Names that are cut may be the same.
            let mut estimates = BTreeMap::<String, u64>::new();
            for count in counts {
                *estimates.entry(clean(&count.name)).or_default() += count.estimate;
            }
            for (name, estimate) in estimates {
                let labels: [(&str, Cow<'_, str>); 2] = [("by", by.into()), ("name", name.into())];
                ConstGauge::new(estimate as f64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
