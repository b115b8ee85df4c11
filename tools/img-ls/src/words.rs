//! Sizes and ages in words, as docker says them.

use jiff::Timestamp;

/// Bytes with a decimal unit and three digits: `1.21GB`, `77.8MB`, `0B`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// How long ago, in the largest unit.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (count, unit) = match seconds {
        0 => return "Less than a second ago".to_owned(),
        s if s < MINUTE => (s, "second"),
        s if s < 2 * MINUTE => return "About a minute ago".to_owned(),
        s if s < HOUR => (s / MINUTE, "minute"),
        s if s < 2 * HOUR => return "About an hour ago".to_owned(),
        s if s < 2 * DAY => (s / HOUR, "hour"),
        s if s < 14 * DAY => (s / DAY, "day"),
        s if s < 60 * DAY => (s / (7 * DAY), "week"),
        s if s < 730 * DAY => (s / (30 * DAY), "month"),
        s => (s / (365 * DAY), "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (bytes, wanted) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1210, "1.21kB"),
            (77_834_000, "77.8MB"),
            (999_600, "1MB"),
            (123_456_789, "123MB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
    }

    #[test]
    fn the_largest_unit_counts() {
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        for (seconds, wanted) in [
            (-5, "Less than a second ago"),
            (1, "1 second ago"),
            (90, "About a minute ago"),
            (7200, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
            (86_400 * 21, "3 weeks ago"),
            (86_400 * 100, "3 months ago"),
            (86_400 * 1000, "2 years ago"),
        ] {
            assert_eq!(ago(now, Timestamp::from_second(2_000_000_000 - seconds).unwrap()), wanted);
        }
    }
}
