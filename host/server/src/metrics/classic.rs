//! The exposition in the text format that is older than OpenMetrics, for those who do not ask for the newer one.
//!
//! Both say the same, but for exemplars and units, which only OpenMetrics has. There a counter is named
//! without its ending and an information is a type of its own; here each sample has the name of its family.

use std::borrow::Cow;

/// Turns the text of OpenMetrics into the classic one.
pub(super) fn classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        let comment = line.strip_prefix("# ").map(|rest| rest.split_once(' '));
        match comment {
            None => out.push_str(sample(line)),
            Some(Some(("HELP", rest))) => {
                help = rest.split_once(' ');
                continue;
            }
            Some(Some(("TYPE", rest))) => {
                let (family, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let (name, kind) = renamed(family, kind);
                if let Some((_, words)) = help.take().filter(|(of, _)| *of == family) {
                    out.push_str(&format!("# HELP {name} {words}\n"));
                }
                out.push_str(&format!("# TYPE {name} {kind}"));
            }
            // Its unit, or the end.
            Some(_) => continue,
        }
        out.push('\n');
    }
    out
}

fn renamed<'a>(family: &'a str, kind: &'a str) -> (Cow<'a, str>, &'a str) {
    match kind {
        "counter" => (format!("{family}_total").into(), kind),
        "info" => (format!("{family}_info").into(), "gauge"),
        "unknown" => (family.into(), "untyped"),
        _ => (family.into(), kind),
    }
}

/// A sample without its exemplar.
fn sample(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples() {
        let openmetrics = r##"# HELP oona_build Version of this host.
# TYPE oona_build info
oona_build_info{version="0.1.0"} 1
# HELP oona_publish Publishes.
# TYPE oona_publish counter
oona_publish_total{reason="a # {b} \" # c"} 3 # {trace_id="7"} 1.0
# HELP oona_publish_duration_seconds From a publish to its outcome.
# TYPE oona_publish_duration_seconds histogram
# UNIT oona_publish_duration_seconds seconds
oona_publish_duration_seconds_bucket{le="0.1"} 2 # {trace_id="7"} 0.05 1764000000.0
oona_publish_duration_seconds_count 2
# EOF
"##;
        let expected = r##"# HELP oona_build_info Version of this host.
# TYPE oona_build_info gauge
oona_build_info{version="0.1.0"} 1
# HELP oona_publish_total Publishes.
# TYPE oona_publish_total counter
oona_publish_total{reason="a # {b} \" # c"} 3
# HELP oona_publish_duration_seconds From a publish to its outcome.
# TYPE oona_publish_duration_seconds histogram
oona_publish_duration_seconds_bucket{le="0.1"} 2
oona_publish_duration_seconds_count 2
"##;
        assert_eq!(classic(openmetrics), expected);
    }
}
