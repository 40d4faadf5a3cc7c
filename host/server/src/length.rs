//! Lengths of time, for people.

use std::time::Duration;

/// `25 ms`, `30 days`, `1 h 30 m`.
pub(crate) fn length(duration: Duration) -> String {
    let text = humantime::format_duration(duration).to_string();
    let part = |part: &str| match part.find(char::is_alphabetic) {
        Some(unit) => format!("{} {}", &part[..unit], &part[unit..]),
        None => part.to_owned(),
    };
    let parts: Vec<_> = text.split(' ').map(part).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit_stand_apart() {
        let table = [
            (0, "0 s"),
            (25, "25 ms"),
            (10_000, "10 s"),
            (5_400_000, "1 h 30 m"),
            (30 * 86_400_000, "30 days"),
        ];
        for (ms, told) in table {
            assert_eq!(length(Duration::from_millis(ms)), told);
        }
    }
}
