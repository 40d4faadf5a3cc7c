//! Figures in as few characters as tell them, lines of blocks, and text that fits.

use oona_core::trend::Point;

/// The lowest block is that of zero: a stream at rest is a line, and where nothing is known is nothing.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What stands where there is no figure.
pub(super) const NONE: &str = "-";

/// A number in at most 6 characters, from 10 000 on in thousands and so on.
pub(super) fn count(number: u64) -> String {
    shortened(number as f64, 0)
}

/// A rate in at most 6 characters; below 10 with a decimal.
pub(super) fn rate(per_s: f64) -> String {
    let decimals = usize::from(per_s > 0.0 && per_s < 9.95);
    shortened(per_s, decimals)
}

fn shortened(number: f64, decimals: usize) -> String {
    let mut rest = number;
    if rest < 9_999.5 {
        return format!("{rest:.decimals$}");
    }
    let mut unit = 'k';
    for next in ['k', 'M', 'G', 'T', 'P', 'E'] {
        rest /= 1_000.0;
        unit = next;
        if rest < 999.5 {
            break;
        }
    }
    let decimals = usize::from(rest < 99.95);
    format!("{rest:.decimals$}{unit}")
}

/// A latency, given in ms, in at most 6 characters: without a unit it is in ms.
pub(super) fn latency(ms: f64) -> String {
    match ms {
        ms if ms < 9.995 => format!("{ms:.2}"),
        ms if ms < 99.95 => format!("{ms:.1}"),
        ms if ms < 99_999.5 => format!("{ms:.0}"),
        ms => format!("{:.0}s", ms / 1_000.0),
    }
}

/// A latency of a step that is measured in whole ms, given in ms, in at most 6 characters.
pub(super) fn latency_in_ms(ms: f64) -> String {
    match ms {
        ms if ms < 0.5 => "<1".to_owned(),
        ms if ms < 99_999.5 => format!("{:.0}", ms.round()),
        ms => latency(ms),
    }
}

/// A length of time in at most 5 characters, in its largest unit.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", (seconds / 86_400).min(9_999)),
    }
}

/// [`age`], or that there is none.
pub(super) fn age_or_none(ms: Option<u64>) -> String {
    ms.map_or_else(|| NONE.to_owned(), age)
}

/// The age of the oldest message of a stream. What came after the last sample has none yet.
pub(super) fn age_of_oldest(ms: Option<u64>, depth: u64) -> String {
    match (ms, depth) {
        (None, 1..) => "new".to_owned(),
        _ => age_or_none(ms),
    }
}

/// The first of a text that fits, with a dot for what does not.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// [`fit`], filled up with spaces.
pub(super) fn column(text: &str, width: usize) -> String {
    format!("{:<width$}", fit(text, width))
}

/// The `points` of five minutes as blocks in `width` characters: now is at the right, the highest is a full
/// block, and several points in one place are told by the highest of them.
pub(super) fn spark(points: &[Point], width: usize, figure: impl Fn(&Point) -> f64) -> String {
    const POINTS: usize = crate::overview::POINTS;
    let width = width.min(POINTS);
    if width == 0 {
        return String::new();
    }
    let known = &points[points.len().saturating_sub(POINTS)..];
    let mut places: Vec<Option<f64>> = vec![None; width];
    for (index, point) in known.iter().enumerate() {
        let place = (POINTS - known.len() + index) * width / POINTS;
        let value = figure(point).max(places[place].unwrap_or(0.0));
        places[place] = Some(value);
    }
    let highest = places.iter().flatten().copied().fold(0.0, f64::max);
    let block = |value: f64| {
        if value <= 0.0 {
            return BLOCKS[0];
        }
        // What is more than nothing is seen as more than nothing.
        let step = (value / highest * 7.0).ceil() as usize;
        BLOCKS[step.clamp(1, 7)]
    };
    places
        .into_iter()
        .map(|place| place.map_or(' ', block))
        .collect()
}

#[cfg(test)]
mod tests {
    use oona_core::trend::Rates;

    use super::*;

    #[test]
    fn figures_are_short() {
        let counts = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (123_456, "123k"),
            (999_999, "1.0M"),
            (u64::MAX, "18.4E"),
        ];
        for (number, expected) in counts {
            assert_eq!(count(number), expected);
        }
        let rates = [
            (0.0, "0"),
            (0.04, "0.0"),
            (0.3, "0.3"),
            (9.96, "10"),
            (1234.5, "1234"),
            (56_789.0, "56.8k"),
        ];
        for (per_s, expected) in rates {
            assert_eq!(rate(per_s), expected);
        }
        let latencies = [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (250.0, "250"),
            (86_400_000.0, "86400s"),
        ];
        for (ms, expected) in latencies {
            assert_eq!(latency(ms), expected);
        }
        let in_ms = [
            (0.0, "<1"),
            (0.5, "1"),
            (0.996, "1"),
            (12.3, "12"),
            (99_999.0, "99999"),
            (86_400_000.0, "86400s"),
        ];
        for (ms, expected) in in_ms {
            assert_eq!(latency_in_ms(ms), expected);
        }
        let ages = [
            (0, "0ms"),
            (999, "999ms"),
            (1_500, "1s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (172_800_000, "2d"),
            (u64::MAX, "9999d"),
        ];
        for (ms, expected) in ages {
            assert_eq!(age(ms), expected);
        }
        assert_eq!(age_or_none(None), "-");
        let oldest = [
            (Some(5), 1, "5ms"),
            (Some(5), 0, "5ms"),
            (None, 3, "new"),
            (None, 0, "-"),
        ];
        for (age, depth, expected) in oldest {
            assert_eq!(age_of_oldest(age, depth), expected);
        }
    }

    #[test]
    fn text_fits() {
        let table = [
            ("stream", 6, "stream"),
            ("stream", 5, "stre…"),
            ("stream", 1, "…"),
            ("stream", 0, ""),
            ("größe", 5, "größe"),
        ];
        for (text, width, expected) in table {
            assert_eq!(fit(text, width), expected);
        }
        assert_eq!(column("ab", 4), "ab  ");
    }

    fn points(figures: &[f64]) -> Vec<Point> {
        let point = |published_per_s: &f64| Point {
            at_ms: 0,
            depth: 0,
            rates: Rates {
                published_per_s: *published_per_s,
                ..Rates::default()
            },
        };
        figures.iter().map(point).collect()
    }

    #[test]
    fn a_line_ends_now() {
        let draw = |figures: &[f64], width| {
            spark(&points(figures), width, |point| point.rates.published_per_s)
        };
        assert_eq!(draw(&[], 5), "     ");
        assert_eq!(draw(&[0.0], 5), "    ▁");
        assert_eq!(draw(&[1.0; 60], 3), "███");
        assert_eq!(draw(&[0.0, 1.0, 50.0, 100.0], 60).trim_start(), "▁▂▅█");
        let rises: Vec<_> = (0..60).map(f64::from).collect();
        assert_eq!(draw(&rises, 6), "▃▄▅▆▇█");
        assert_eq!(draw(&[1.0; 99], 999).chars().count(), 60);
        assert_eq!(draw(&rises, 0), "");
    }
}
