//! What the demo has shown.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::account::{Account, Era, Tally};
use crate::bus::DeadLetterView;

/// The account, and what was seen in each act.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every message came to exactly one end, and every act showed what it should.
    pub balanced: bool,
    /// What is wrong, if anything is.
    pub problems: Vec<String>,
    /// How long it took, in s.
    pub seconds: f64,
    /// All messages.
    pub total: Tally,
    /// By producer.
    pub producers: BTreeMap<&'static str, Tally>,
    /// Why messages were rejected.
    pub rejections: Vec<Rejection>,
    /// How often a message came to a subscriber again.
    pub redeliveries: u64,
    /// Messages that were handled more than once.
    pub handled_twice: u64,
    /// What the store still has open.
    pub unfinished: u64,
    /// Latencies.
    pub latencies: Latencies,
    /// The subscriber that died.
    pub lost_subscriber: Lost,
    /// The routing policy that was replaced.
    pub swap: Swap,
    /// Reports from the edge by stream, under the first policy.
    pub edge_before: BTreeMap<String, u64>,
    /// Reports from the edge by stream, under the second policy.
    pub edge_after: BTreeMap<String, u64>,
    /// The policies that misbehaved.
    pub hostile: Hostile,
    /// The dead letter that came back.
    pub redrive: Letters,
    /// The dead letters that are left.
    pub dead_letters: Vec<DeadLetterView>,
    /// What to try next.
    pub try_next: [String; 3],
}

/// Messages rejected for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct Rejection {
    /// Who refused them.
    pub cause: &'static str,
    /// Why, in a word.
    pub reason: String,
    /// Why, as it was said of the last of them.
    pub detail: String,
    /// How many.
    pub messages: u64,
}

/// Latencies in µs.
#[derive(Clone, Debug, Serialize)]
pub struct Latencies {
    /// From handing a message over to hearing its outcome.
    pub publish_us: Percentiles,
    /// From handing it over to its first delivery.
    pub delivery_us: Percentiles,
    /// From handing it over to each later delivery, after a crash or a retry. A dead letter that came
    /// back is left out: how long it lay there is up to an operator.
    pub redelivery_us: Percentiles,
}

/// Percentiles of a latency, in the unit of what was recorded.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: u64,
    /// 95 in 100 took no longer.
    pub p95: u64,
    /// 99 in 100 took no longer.
    pub p99: u64,
    /// None took longer.
    pub max: u64,
    /// How many there were.
    pub count: u64,
}

impl Percentiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.50),
            p95: histogram.value_at_quantile(0.95),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

/// A subscriber died.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// With how many messages in hand, all of which others have handled.
    pub in_hand: u64,
}

/// A policy was replaced under load.
#[derive(Clone, Debug, Serialize)]
pub struct Swap {
    /// Which.
    pub from: String,
    /// By which.
    pub to: String,
    /// How long it took to pass the gates and be in use, in µs. Deciding went on meanwhile.
    pub took_us: u64,
    /// The longest that a worker took to change over, in ns.
    pub pause_ns_max: u64,
}

/// Two policies misbehaved.
#[derive(Clone, Debug, Serialize)]
pub struct Hostile {
    /// Why the first was refused; none if it was not.
    pub refusal: Option<String>,
    /// What became of the second.
    pub contained: Contained,
}

/// A policy was taken out.
#[derive(Clone, Debug, Serialize)]
pub struct Contained {
    /// Which.
    pub version: String,
    /// Its last failure.
    pub fault: String,
    /// Which took its place.
    pub fell_back_to: String,
    /// How long after its activation, in ms.
    pub after_ms: u64,
}

/// A dead letter came back.
#[derive(Clone, Debug, Serialize)]
pub struct Letters {
    /// As it lay there.
    pub inspected: DeadLetterView,
    /// The stream that it went to, and was handled from.
    pub redriven_to: String,
}

/// What each act has shown.
pub(super) struct Acts {
    pub(super) lost: Lost,
    pub(super) swap: Swap,
    pub(super) hostile: Hostile,
    pub(super) letters: Letters,
}

impl Report {
    pub(super) fn new(
        took: Duration,
        account: &Account,
        filed: &[DeadLetterView],
        unfinished: u64,
        second: &Path,
        acts: Acts,
    ) -> Self {
        let ids: HashSet<_> = filed.iter().map(|l| l.event_id.as_str()).collect();
        let producers: BTreeMap<_, _> = account.tallies(&ids).into_iter().collect();
        let (redeliveries, handled_twice) = account.repeated();
        let [publish_us, delivery_us, redelivery_us] = account.latencies();
        let mut report = Self {
            balanced: false,
            problems: Vec::new(),
            seconds: took.as_secs_f64(),
            total: producers.values().fold(Tally::default(), add),
            producers,
            rejections: account.rejections(),
            redeliveries,
            handled_twice,
            unfinished,
            latencies: Latencies {
                publish_us,
                delivery_us,
                redelivery_us,
            },
            lost_subscriber: acts.lost,
            swap: acts.swap,
            edge_before: account.edge(Era::First),
            edge_after: account.edge(Era::Second),
            hostile: acts.hostile,
            redrive: acts.letters,
            dead_letters: filed.to_vec(),
            try_next: try_next(second),
        };
        report.problems = report.problems();
        report.balanced = report.problems.is_empty();
        report
    }

    fn problems(&self) -> Vec<String> {
        let total = &self.total;
        let table = [
            (total.lost > 0, "messages were lost"),
            (total.contradictory > 0, "messages came to two ends"),
            (self.unfinished > 0, "the store has unfinished messages"),
            (
                self.lost_subscriber.in_hand == 0,
                "the subscriber died empty-handed",
            ),
            (
                self.hostile.refusal.is_none(),
                "the endless loop was not refused",
            ),
            (
                self.edge_before == self.edge_after,
                "the swap had no effect",
            ),
            (
                self.edge_after.len() != 1,
                "the second policy did not route all reports alike",
            ),
        ];
        let problems = table.into_iter().filter(|(holds, _)| *holds);
        problems.map(|(_, problem)| problem.to_owned()).collect()
    }
}

fn add(sum: Tally, tally: &Tally) -> Tally {
    Tally {
        published: sum.published + tally.published,
        delivered: sum.delivered + tally.delivered,
        dead_lettered: sum.dead_lettered + tally.dead_lettered,
        rejected: sum.rejected + tally.rejected,
        lost: sum.lost + tally.lost,
        contradictory: sum.contradictory + tally.contradictory,
    }
}

fn try_next(second: &Path) -> [String; 3] {
    let program = std::env::args().next().unwrap_or_else(|| "oona".to_owned());
    [
        format!("{program} serve --dev"),
        format!("{program} subscribe --count 1 & {program} publish 'hello'"),
        format!("{program} policy activate {}", second.display()),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_account(&mut text)?;
        self.write_latencies(&mut text)?;
        self.write_acts(&mut text)?;
        f.write_str(text.trim_end())
    }
}

impl Report {
    fn write_account(&self, out: &mut String) -> fmt::Result {
        let verdict = if self.balanced {
            "Every message is accounted for".to_owned()
        } else {
            format!("THE ACCOUNT DOES NOT BALANCE: {}", self.problems.join("; "))
        };
        writeln!(out, "{verdict}\n")?;
        writeln!(
            out,
            "  {:<10} {:>10} {:>10} {:>14} {:>9} {:>6}",
            "producer", "published", "delivered", "dead-lettered", "rejected", "lost"
        )?;
        let rows = self.producers.iter().map(|(name, tally)| (*name, tally));
        for (name, tally) in rows.chain([("total", &self.total)]) {
            let Tally {
                published,
                delivered,
                dead_lettered,
                rejected,
                lost,
                ..
            } = tally;
            writeln!(
                out,
                "  {name:<10} {published:>10} {delivered:>10} {dead_lettered:>14} {rejected:>9} {lost:>6}"
            )?;
        }
        writeln!(out)?;
        for Rejection {
            reason,
            detail,
            messages,
            ..
        } in &self.rejections
        {
            writeln!(out, "  rejected       {messages}: {reason}, {detail}")?;
        }
        for letter in &self.dead_letters {
            writeln!(
                out,
                "  dead letter    {}: {}, {}",
                letter.event_id, letter.class, letter.detail
            )?;
        }
        writeln!(
            out,
            "  redeliveries   {}; handled twice: {}\n",
            self.redeliveries, self.handled_twice
        )
    }

    fn write_latencies(&self, out: &mut String) -> fmt::Result {
        writeln!(
            out,
            "  {:<24} {:>11} {:>11} {:>11}",
            "latency", "p50", "p95", "p99"
        )?;
        let rows = [
            ("publish", &self.latencies.publish_us),
            ("first delivery", &self.latencies.delivery_us),
            ("after a crash or retry", &self.latencies.redelivery_us),
        ];
        for (name, latency) in rows {
            let [p50, p95, p99] = [latency.p50, latency.p95, latency.p99].map(millis);
            writeln!(out, "  {name:<24} {p50:>11} {p95:>11} {p99:>11}")?;
        }
        writeln!(out)
    }

    fn write_acts(&self, out: &mut String) -> fmt::Result {
        let Swap {
            from,
            to,
            took_us,
            pause_ns_max,
        } = &self.swap;
        writeln!(
            out,
            "  lost           a subscriber with {} messages in hand; all were handled by the other",
            self.lost_subscriber.in_hand
        )?;
        writeln!(out, "  swap           {from}\n              -> {to}")?;
        writeln!(
            out,
            "                 past the gates and in use in {}, deciding went on; pause: {} µs at most",
            millis(*took_us),
            pause_ns_max.div_ceil(1_000)
        )?;
        writeln!(
            out,
            "                 reports from the edge: {} before, {} after",
            streams(&self.edge_before),
            streams(&self.edge_after)
        )?;
        let refusal = self.hostile.refusal.as_deref().unwrap_or("NOT REFUSED");
        let contained = &self.hostile.contained;
        writeln!(out, "  hostile        refused: {refusal}")?;
        writeln!(
            out,
            "                 contained: {} after {} ms: {}",
            contained.version, contained.after_ms, contained.fault
        )?;
        writeln!(out, "                 back: {}", contained.fell_back_to)?;
        writeln!(
            out,
            "  redrive        {} ({}) went back to {} and was handled\n",
            self.redrive.inspected.event_id, self.redrive.inspected.class, self.redrive.redriven_to
        )?;
        writeln!(out, "  try next")?;
        for command in &self.try_next {
            writeln!(out, "    {command}")?;
        }
        Ok(())
    }
}

fn millis(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1_000.0)
}

fn streams(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts.iter().map(|(stream, n)| format!("{n} to {stream}"));
    counts.collect::<Vec<_>>().join(", ")
}
