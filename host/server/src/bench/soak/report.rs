//! Whether memory and latency are flat, and whether the account balances.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::super::ledger::Tally;
use super::super::report::{count, median};
use super::{Fsync, Percentiles, Sample, SoakOptions, picture};

/// Into how many parts of equal length the samples are put.
const PARTS: usize = 10;

/// The part that the last one is held against: the sixth. Before it, what is bounded fills up.
const AGAINST: usize = 5;

/// Memory is flat if the last part's median is at most so many times the sixth's.
const MEMORY_GROWTH_MAX: f64 = 1.10;

/// Latency is flat if the last part's median is at most so many times the sixth's. The 99th percentile
/// of a few seconds is a matter of what else the machine does.
const LATENCY_GROWTH_MAX: f64 = 1.50;

/// A part must be as long as this, or nothing is said. At 1 000 messages a second it takes 24 minutes until the
/// streams hold as many finished entries as they may, and as many decisions are recorded as are held.
const PART_SECONDS_MIN: u64 = 360;

/// How a soak went.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// How long the load went on.
    pub seconds: u64,
    /// Messages a second that were to be published.
    pub rate: u32,
    /// Size of their content in bytes.
    pub payload_bytes: usize,
    /// When Redis carried them to the disk.
    pub fsync: Fsync,
    /// Version of that Redis.
    pub redis: String,
    /// The parts, each the medians of its samples.
    pub tenths: Vec<Tenth>,
    /// The last part beside the sixth.
    pub trends: Vec<Trend>,
    /// Whether every trend is flat; not said of a soak that is too short for that.
    pub flat: Option<bool>,
    /// What became of all messages.
    pub account: Tally,
    /// What the group had yet to finish at the end.
    pub unfinished: u64,
    /// Whether every accepted message was acknowledged or became a dead letter, and no more than that.
    pub balanced: bool,
    /// All samples.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// A tenth of a soak: the medians of its samples.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tenth {
    /// When it ended, since the begin.
    pub until_ms: u64,
    /// How many samples it has.
    pub samples: usize,
    /// Memory of the host.
    pub host_bytes: f64,
    /// Memory of Redis, as the system sees it.
    pub redis_bytes: f64,
    /// Memory of Redis, as Redis sees it.
    pub redis_used_bytes: f64,
    /// From when a message was due to its outcome.
    pub publish: Percentiles,
    /// From when a message was due to its first delivery.
    pub delivery: Percentiles,
}

/// How a figure of the last tenth compares with that of the sixth.
#[derive(Clone, Debug, Serialize)]
pub struct Trend {
    /// Its name.
    pub name: &'static str,
    /// In the sixth tenth.
    pub sixth: f64,
    /// In the last.
    pub last: f64,
    /// How many times the sixth the last is.
    pub ratio: f64,
    /// The most that counts as flat.
    pub ratio_max: f64,
}

impl Trend {
    /// Whether it is flat.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.ratio <= self.ratio_max
    }
}

type Figure = (&'static str, fn(&Tenth) -> f64, f64);

const FIGURES: [Figure; 7] = [
    ("host memory", |tenth| tenth.host_bytes, MEMORY_GROWTH_MAX),
    ("Redis memory", |tenth| tenth.redis_bytes, MEMORY_GROWTH_MAX),
    (
        "Redis data",
        |tenth| tenth.redis_used_bytes,
        MEMORY_GROWTH_MAX,
    ),
    (
        "publish p50",
        |tenth| tenth.publish.p50_us,
        LATENCY_GROWTH_MAX,
    ),
    (
        "publish p99",
        |tenth| tenth.publish.p99_us,
        LATENCY_GROWTH_MAX,
    ),
    (
        "delivery p50",
        |tenth| tenth.delivery.p50_us,
        LATENCY_GROWTH_MAX,
    ),
    (
        "delivery p99",
        |tenth| tenth.delivery.p99_us,
        LATENCY_GROWTH_MAX,
    ),
];

impl SoakReport {
    pub(super) fn new(
        options: &SoakOptions,
        redis: String,
        samples: Vec<Sample>,
        account: Tally,
        unfinished: u64,
    ) -> Self {
        let tenths = tenths(&samples);
        let trends = trends(&tenths);
        let seconds = options.time.as_secs();
        let long_enough = seconds / PARTS as u64 >= PART_SECONDS_MIN && !trends.is_empty();
        let wrong = account.open + account.contradicted + account.unmarked + unfinished;
        Self {
            seconds,
            rate: options.rate,
            payload_bytes: super::super::PAYLOAD_BYTES,
            fsync: options.fsync,
            redis,
            flat: long_enough.then(|| trends.iter().all(Trend::is_flat)),
            tenths,
            trends,
            account,
            unfinished,
            balanced: account.accepted > 0 && wrong == 0,
            samples,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.balanced && self.flat != Some(false)
    }

    /// All samples, one a line.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut csv = "at_ms,host_bytes,redis_bytes,redis_used_bytes,publish_p50_us,publish_p99_us,\
                       delivery_p50_us,delivery_p99_us,unfinished,published,accepted,refused,unknown,\
                       delivered,acknowledged,dead_lettered,redelivered\n"
            .to_owned();
        for sample in &self.samples {
            let latency = |percentiles: Option<Percentiles>| match percentiles {
                Some(Percentiles { p50_us, p99_us }) => format!("{p50_us:.0},{p99_us:.0}"),
                None => ",".to_owned(),
            };
            let Sample {
                at_ms,
                host_bytes,
                redis_bytes,
                redis_used_bytes,
                publish,
                delivery,
                unfinished,
                tally,
            } = sample;
            let (publish, delivery) = (latency(*publish), latency(*delivery));
            // A string takes whatever is written to it.
            let _ = writeln!(
                csv,
                "{at_ms},{host_bytes},{redis_bytes},{redis_used_bytes},{publish},{delivery},\
                 {unfinished},{},{},{},{},{},{},{},{}",
                tally.published,
                tally.accepted,
                tally.refused,
                tally.unknown,
                tally.delivered,
                tally.acknowledged,
                tally.dead_lettered,
                tally.redelivered,
            );
        }
        csv
    }

    /// All samples as curves, an SVG that can be read on light and on dark.
    #[must_use]
    pub fn picture(&self) -> String {
        picture::draw(&self.samples)
    }
}

/// Puts samples into parts of equal length. None without a sample in each.
fn tenths(samples: &[Sample]) -> Vec<Tenth> {
    let Some(last) = samples.last() else {
        return Vec::new();
    };
    let part = |number: usize| {
        let bound = |number: usize| last.at_ms * number as u64 / PARTS as u64;
        let within =
            |sample: &&Sample| sample.at_ms > bound(number) && sample.at_ms <= bound(number + 1);
        let samples: Vec<_> = samples.iter().filter(within).collect();
        tenth(bound(number + 1), &samples)
    };
    let tenths: Option<Vec<_>> = (0..PARTS).map(part).collect();
    tenths.unwrap_or_default()
}

fn tenth(until_ms: u64, samples: &[&Sample]) -> Option<Tenth> {
    if samples.is_empty() {
        return None;
    }
    let of = |figure: fn(&Sample) -> u64| {
        median(samples.iter().map(|sample| figure(sample) as f64).collect())
    };
    let latency = |of: fn(&Sample) -> Option<Percentiles>| {
        let all: Vec<_> = samples.iter().filter_map(|sample| of(sample)).collect();
        Percentiles {
            p50_us: median(all.iter().map(|latency| latency.p50_us).collect()),
            p99_us: median(all.iter().map(|latency| latency.p99_us).collect()),
        }
    };
    Some(Tenth {
        until_ms,
        samples: samples.len(),
        host_bytes: of(|sample| sample.host_bytes),
        redis_bytes: of(|sample| sample.redis_bytes),
        redis_used_bytes: of(|sample| sample.redis_used_bytes),
        publish: latency(|sample| sample.publish),
        delivery: latency(|sample| sample.delivery),
    })
}

fn trends(tenths: &[Tenth]) -> Vec<Trend> {
    let (Some(sixth), Some(last)) = (tenths.get(AGAINST), tenths.last()) else {
        return Vec::new();
    };
    let trend = |(name, of, ratio_max): &Figure| Trend {
        name,
        sixth: of(sixth),
        last: of(last),
        ratio: of(last) / of(sixth).max(1.0),
        ratio_max: *ratio_max,
    };
    FIGURES.iter().map(trend).collect()
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration(std::time::Duration::from_secs(self.seconds));
        writeln!(
            f,
            "{time} at {} messages/s of {} B, signed, compiled policies, Redis {}, appendfsync {}; \
             medians of each tenth\n",
            count(self.rate.into()),
            self.payload_bytes,
            self.redis,
            self.fsync.name(),
        )?;
        writeln!(
            f,
            "{:>8} {:>9} {:>9} {:>9} {:>11} {:>11} {:>12} {:>12}",
            "until",
            "host",
            "Redis",
            "data",
            "publish p50",
            "publish p99",
            "delivery p50",
            "delivery p99"
        )?;
        for tenth in &self.tenths {
            let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
            let ms = |us: f64| format!("{:.2} ms", us / 1e3);
            writeln!(
                f,
                "{:>8} {:>9} {:>9} {:>9} {:>11} {:>11} {:>12} {:>12}",
                format!("{} s", tenth.until_ms / 1_000),
                mib(tenth.host_bytes),
                mib(tenth.redis_bytes),
                mib(tenth.redis_used_bytes),
                ms(tenth.publish.p50_us),
                ms(tenth.publish.p99_us),
                ms(tenth.delivery.p50_us),
                ms(tenth.delivery.p99_us),
            )?;
        }
        writeln!(f, "\nlast tenth / sixth, and the most that is flat:")?;
        for trend in &self.trends {
            let verdict = match (self.flat, trend.is_flat()) {
                (None, _) => "",
                (Some(_), true) => "flat",
                (Some(_), false) => "NOT FLAT",
            };
            writeln!(
                f,
                "  {:<13} {:>5.2} <= {:.2}  {verdict}",
                trend.name, trend.ratio, trend.ratio_max
            )?;
        }
        if self.flat.is_none() {
            let minutes = PART_SECONDS_MIN * PARTS as u64 / 60;
            writeln!(f, "  nothing is said of less than {minutes} minutes")?;
        }
        self.write_account(f)
    }
}

impl SoakReport {
    fn write_account(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            published,
            accepted,
            refused,
            unknown,
            acknowledged,
            dead_lettered,
            redelivered,
            unmarked,
            contradicted,
            open,
            ..
        } = self.account;
        writeln!(
            f,
            "\naccount: {} published = {} accepted + {} refused + {} unknown",
            count(published),
            count(accepted),
            count(refused),
            count(unknown)
        )?;
        writeln!(
            f,
            "         {} acknowledged, {} dead-lettered, {} redelivered, {} lost",
            count(acknowledged),
            count(dead_lettered),
            count(redelivered),
            count(open)
        )?;
        let verdict = if self.balanced {
            "it balances"
        } else {
            "IT DOES NOT BALANCE"
        };
        writeln!(
            f,
            "         {unmarked} twice without a mark, {contradicted} refused and delivered, {} \
             unfinished: {verdict}",
            self.unfinished
        )
    }
}
