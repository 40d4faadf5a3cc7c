//! The samples as curves.
//!
//! Nothing is painted behind them, and every colour stands out on white as well as on black: the same
//! picture serves a page in either.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::{Percentiles, Sample};

/// Width, and height of each of the three parts, in pixels.
const SIZE: (u32, u32) = (900, 220);

const INK: RGBColor = RGBColor(0x80, 0x80, 0x80);
const BLUE: RGBColor = RGBColor(0x2f, 0x81, 0xd7);
const ORANGE: RGBColor = RGBColor(0xd9, 0x70, 0x1a);
const GREEN: RGBColor = RGBColor(0x2a, 0x97, 0x4f);

/// Latencies below this, in ms, are drawn at it.
const LATENCY_MS_MIN: f64 = 0.1;

/// A name, a colour, and its points: seconds, and whatever the part shows.
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Which latency of a sample.
type LatencyOf = fn(&Sample) -> Option<Percentiles>;

/// A part that cannot be drawn is left out: writing into a string fails for nothing else.
pub(super) fn draw(samples: &[Sample]) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, 3 * SIZE.1)).into_drawing_area();
        let parts = root.split_evenly((3, 1));
        let seconds = samples.last().map_or(1.0, |last| seconds(last).max(1.0));
        let memory = [
            ("host", BLUE, memory(samples, |sample| sample.host_bytes)),
            (
                "Redis",
                ORANGE,
                memory(samples, |sample| sample.redis_bytes),
            ),
            (
                "data in Redis",
                GREEN,
                memory(samples, |sample| sample.redis_used_bytes),
            ),
        ];
        let top = top_of(&memory);
        panel(&parts[0], "memory in use, MiB", seconds, 0.0..top, &memory);
        let latencies: [(_, LatencyOf); 2] = [
            ("from due to accepted, ms", |sample| sample.publish),
            ("from due to delivered, ms", |sample| sample.delivery),
        ];
        for (part, (title, of)) in parts[1..].iter().zip(latencies) {
            let curves = [
                ("p50", BLUE, latency(samples, of, |latency| latency.p50_us)),
                (
                    "p99",
                    ORANGE,
                    latency(samples, of, |latency| latency.p99_us),
                ),
            ];
            let range = (LATENCY_MS_MIN..top_of(&curves).max(10.0)).log_scale();
            panel(part, title, seconds, range, &curves);
        }
    }
    svg
}

fn seconds(sample: &Sample) -> f64 {
    sample.at_ms as f64 / 1e3
}

fn memory(samples: &[Sample], of: fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let point = |sample: &Sample| (seconds(sample), of(sample) as f64 / f64::from(1 << 20));
    samples.iter().map(point).collect()
}

fn latency(
    samples: &[Sample],
    of: fn(&Sample) -> Option<Percentiles>,
    which: fn(&Percentiles) -> f64,
) -> Vec<(f64, f64)> {
    let point = |sample: &Sample| {
        let ms = which(&of(sample)?) / 1e3;
        Some((seconds(sample), ms.max(LATENCY_MS_MIN)))
    };
    samples.iter().filter_map(point).collect()
}

/// A little above the highest point.
fn top_of(curves: &[Curve]) -> f64 {
    let points = curves.iter().flat_map(|(_, _, points)| points);
    points.map(|(_, value)| *value).fold(1.0, f64::max) * 1.15
}

fn panel<Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    seconds: f64,
    range: Y,
    curves: &[Curve],
) where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let words = ("sans-serif", 13).into_font().color(&INK);
    let built = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15).into_font().color(&INK))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..seconds, range);
    let Ok(mut chart) = built else { return };
    let meshed = chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.3))
        .light_line_style(TRANSPARENT)
        .x_labels(10)
        .y_labels(5)
        .label_style(words.clone())
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .draw();
    drop(meshed);
    for (name, colour, points) in curves {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(1));
        if let Ok(drawn) = chart.draw_series(line) {
            let colour = *colour;
            let key = move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2));
            drawn.label(*name).legend(key);
        }
    }
    let keys = chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(words)
        .draw();
    drop(keys);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_drawn_and_named() {
        let latency = Some(Percentiles {
            p50_us: 900.0,
            p99_us: 4_000.0,
        });
        let sample = |at_ms| Sample {
            at_ms,
            host_bytes: 50 << 20,
            redis_bytes: 30 << 20,
            redis_used_bytes: 20 << 20,
            publish: latency,
            delivery: latency,
            ..Sample::default()
        };
        let svg = draw(&[1_000, 2_000, 3_000].map(sample));
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        for word in [
            "memory in use",
            "data in Redis",
            "p50",
            "p99",
            "from due to delivered",
        ] {
            assert!(svg.contains(word), "{word}");
        }
        let lines = svg.matches("stroke-width=\"1\" points=").count();
        assert!(lines >= 7, "{lines} lines");
    }

    #[test]
    fn nothing_to_draw_is_no_failure() {
        assert!(draw(&[]).contains("</svg>"));
    }
}
