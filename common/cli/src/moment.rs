//! A moment as people write it: `--since`, `--until`, and the filter `until=`.

use crate::{Fault, Result};
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

/// Takes the filters `until=TIME` out of those of a command line. The earliest counts, as all filters must hold.
pub fn take_until(filters: &mut Vec<String>) -> Result<Option<Timestamp>> {
    let now = Timestamp::now();
    let mut until: Option<Timestamp> = None;
    let mut failed = None;
    filters.retain(|filter| {
        let Some(text) = filter.strip_prefix("until=") else { return true };
        match parse(text, now) {
            Ok(moment) => until = Some(until.map_or(moment, |until| until.min(moment))),
            Err(fault) => failed = Some(fault),
        }
        false
    });
    failed.map_or(Ok(until), Err)
}

/// Whether what was made at `created` is older than `until`. What is of unknown age is not older than anything.
pub fn is_before(created: Option<&str>, until: Option<Timestamp>) -> bool {
    let Some(until) = until else { return true };
    created.and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|created| created < until)
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

    #[test]
    fn the_earliest_of_several_filters_counts() {
        let mut filters: Vec<String> =
            ["label=a", "until=2026-01-02T00:00:00Z", "until=1767225600", "name=x"].map(str::to_owned).into();
        let until = take_until(&mut filters).unwrap();
        assert_eq!(until.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(filters, ["label=a", "name=x"]);
        assert!(
            is_before(Some("2025-12-31T23:59:59Z"), until) && !is_before(Some("2026-01-01T00:00:00Z"), until)
        );
        assert!(!is_before(None, until) && !is_before(Some("long ago"), until) && is_before(None, None));
        assert!(take_until(&mut vec!["until=soon".to_owned(), "until=1h".to_owned()]).is_err());
    }
}
