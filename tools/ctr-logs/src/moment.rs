//! `--since` and `--until`: a moment as people write it.

use cli::{Fault, Result};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// RFC 3339, a date with or without a time in the local time zone, seconds since 1970 with a fraction or without, or a
/// duration before `now` (`10m`, `1h30m`).
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    let moment = seconds(text)
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| local(text))
        .or_else(|| before(text, now));
    moment.ok_or_else(|| {
        Fault::usage(format!("{text:?} is not a point in time")).hint(
            "for example 2026-01-02T15:04:05Z, 2026-01-02, 1767366245.5, or for so long ago 10m or 1h30m",
        )
    })
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanoseconds).ok()
}

fn local(text: &str) -> Option<Timestamp> {
    // A date alone is its midnight. A zone in the text would have made it a timestamp.
    let time: DateTime = text.parse().ok()?;
    if text.ends_with(['Z', 'z']) {
        return None;
    }
    TimeZone::system().to_timestamp(time).ok()
}

fn before(text: &str, now: Timestamp) -> Option<Timestamp> {
    let length: SignedDuration = text.parse().ok()?;
    now.checked_sub(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_docker_takes() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2026-01-02T11:00:00Z", "2026-01-02T11:00:00Z"),
            ("2026-01-02T11:00:00.123456789+01:00", "2026-01-02T10:00:00.123456789Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("1767355200", "2026-01-02T12:00:00Z"),
            ("1767355200.000000001", "2026-01-02T12:00:00.000000001Z"),
            ("1767355200.5", "2026-01-02T12:00:00.5Z"),
            ("10m", "2026-01-02T11:50:00Z"),
            ("1h30m", "2026-01-02T10:30:00Z"),
            ("1.5h", "2026-01-02T10:30:00Z"),
            ("500ms", "2026-01-02T11:59:59.5Z"),
        ] {
            assert_eq!(parse(text, now).unwrap().to_string(), wanted, "{text}");
        }
        for bad in ["", "yesterday", "12:00", "1767355200.0000000001", "99999999999999999", "2026-13-01", "m"]
        {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
        // In whatever zone this machine is, a day is a day.
        let day = parse("2026-01-02", now).unwrap();
        assert_eq!(parse("2026-01-02T00:00:00", now).unwrap(), day);
    }
}
