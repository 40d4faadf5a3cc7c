//! Exemplars: a trace for each bucket of a histogram, so that one can go from a slow bucket to a slow message.
//!
//! `prometheus-client` encodes exemplars, but lets nobody make one who counts for himself. So they are written
//! into its text: after the count of their bucket, as OpenMetrics has it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use oona_core::Timestamp;

use super::BOUNDS_US;

/// A value that belongs to a trace.
#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace_id: u128,
    value: Duration,
    at: Timestamp,
}

/// The last one of each bucket.
#[derive(Debug, Default)]
pub(super) struct Exemplars([Option<Exemplar>; BOUNDS_US.len() + 1]);

impl Exemplars {
    pub(super) fn record(&mut self, at: Timestamp, value: Duration, trace_id: u128) {
        let bucket = BOUNDS_US.partition_point(|bound| value > Duration::from_micros(*bound));
        self.0[bucket] = Some(Exemplar {
            trace_id,
            value,
            at,
        });
    }
}

/// What stands after the count of some buckets.
#[derive(Debug, Default)]
pub(super) struct Notes(HashMap<(String, usize), String>);

impl Notes {
    /// Adds what a series has, by its name and labels: `oona_x_bucket`, `stream="a",…`.
    pub(super) fn add(&mut self, name: &str, labels: &str, exemplars: &Exemplars) {
        for (bucket, exemplar) in exemplars.0.iter().enumerate() {
            let Some(Exemplar {
                trace_id,
                value,
                at,
            }) = exemplar
            else {
                continue;
            };
            let value = value.as_secs_f64();
            let at = Duration::from_millis(at.as_millis()).as_secs_f64();
            let note = format!(" # {{trace_id=\"{trace_id:032x}\"}} {value} {at:.3}");
            self.0.insert((format!("{name}{{{labels}"), bucket), note);
        }
    }

    /// Writes them into an exposition.
    pub(super) fn write(&self, exposition: String) -> String {
        if self.0.is_empty() {
            return exposition;
        }
        let mut noted = String::with_capacity(exposition.len() + 128 * self.0.len());
        for line in exposition.lines() {
            let note = series(line).and_then(|series| self.0.get(&series));
            let note = note.map_or("", String::as_str);
            writeln!(noted, "{line}{note}").unwrap_or_else(|_| unreachable!("text takes all"));
        }
        noted
    }
}

/// The series and the bucket of a line such as `oona_x_bucket{le="0.1",stream="a"} 7`.
fn series(line: &str) -> Option<(String, usize)> {
    let (name, rest) = line.split_once("{le=\"")?;
    let (bound, rest) = rest.split_once("\",")?;
    let (labels, _) = rest.rsplit_once('}')?;
    let seconds: f64 = match bound {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    // Between two bounds no rounding leads to another bucket.
    let below = |bound: &u64| Duration::from_micros(*bound).as_secs_f64() < seconds * 0.999;
    let bucket = BOUNDS_US.partition_point(below);
    Some((format!("{name}{{{labels}"), bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_is_noted_in_its_own_line() {
        let mut exemplars = Exemplars::default();
        let at = Timestamp::from_millis(1_500);
        for (value_ms, trace_id) in [(3, 1), (4, 2), (60_000, 3)] {
            exemplars.record(at, Duration::from_millis(value_ms), trace_id);
        }
        let mut notes = Notes::default();
        notes.add("oona_x_bucket", "stream=\"a\"", &exemplars);
        let exposition = "# HELP oona_x that.\n\
            oona_x_bucket{le=\"0.0025\",stream=\"a\"} 0\n\
            oona_x_bucket{le=\"0.005\",stream=\"a\"} 2\n\
            oona_x_bucket{le=\"0.005\",stream=\"b\"} 2\n\
            oona_x_bucket{le=\"10.0\",stream=\"a\"} 2\n\
            oona_x_bucket{le=\"+Inf\",stream=\"a\"} 3\n";
        let second = format!(" # {{trace_id=\"{:032x}\"}} 0.004 1.500", 2);
        let third = format!(" # {{trace_id=\"{:032x}\"}} 60 1.500", 3);
        let expected = exposition
            .replace(
                "le=\"0.005\",stream=\"a\"} 2",
                &format!("le=\"0.005\",stream=\"a\"}} 2{second}"),
            )
            .replace("stream=\"a\"} 3", &format!("stream=\"a\"}} 3{third}"));
        assert_eq!(notes.write(exposition.to_owned()), expected);
        assert_eq!(Notes::default().write(exposition.to_owned()), exposition);
    }
}
