//! Values of flags.

use cli::{Fault, Result};
use jiff::Timestamp;

/// A JSON list of words, or one word; nothing at all is an empty list.
pub fn words(text: &str) -> Result<Vec<String>> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    if trimmed.starts_with('[') {
        return serde_json::from_str(trimmed)
            .map_err(|error| Fault::usage(format!("{text}: not a JSON list of words")).because(error));
    }
    if trimmed.contains(char::is_whitespace) {
        return Err(Fault::usage(format!("{text}: more than one word")).hint(
            "a JSON list says where one ends: '[\"echo\",\"hi\"]'; for a shell to split it: '[\"/bin/sh\",\"-c\",\"echo hi\"]'",
        ));
    }
    Ok(vec![trimmed.to_owned()])
}

pub fn key_value<'a>(text: &'a str, what: &str) -> Result<(&'a str, &'a str)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(Fault::usage(format!("{text}: a {what} is KEY=VALUE"))
            .hint(format!("--unset {what}.{text} takes it away"))),
    }
}

/// `80`, `53/udp`, `8000-8009/tcp`: as the configuration names them, one by one.
pub fn ports(text: &str) -> Result<Vec<String>> {
    let wrong = || Fault::usage(format!("{text}: not a port")).hint("80, 53/udp, 8000-8009/tcp");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `1h30m`, `2.5s`, `300ms` in nanoseconds, as docker writes durations (Go's `time.ParseDuration`).
pub fn duration(text: &str) -> Result<u64> {
    let wrong = || Fault::usage(format!("{text}: not a duration")).hint("30s, 1m30s, 500ms");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000_u64,
            _ => return Err(wrong()),
        };
        let part = scaled(number, unit).ok_or_else(wrong)?;
        total = total.checked_add(part).filter(|total| i64::try_from(*total).is_ok()).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(total)
}

/// A decimal number times a unit; what is smaller than one is dropped.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        total = total.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    Some(total)
}

/// RFC 3339, or seconds since 1970; as RFC 3339.
pub fn time(text: &str) -> Result<String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return of_seconds(seconds).ok_or_else(|| Fault::usage(format!("{text}: not a time")));
    }
    match text.parse::<Timestamp>() {
        // Its own spelling stays.
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Fault::usage(format!("{text}: not a time"))
            .because(error)
            .hint("2026-01-02T03:04:05Z, or seconds since 1970")),
    }
}

fn of_seconds(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// Now, or `SOURCE_DATE_EPOCH` (reproducible-builds.org) where it is set.
///
/// # Errors
/// When that is set and no number.
pub fn now() -> Result<String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => text.parse().ok().and_then(of_seconds).ok_or_else(|| {
            Fault::usage(format!("SOURCE_DATE_EPOCH is {text}, which is no number of seconds"))
        }),
        _ => Ok(Timestamp::now().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_in_go() {
        for (text, wanted) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("0", Some(0)),
            ("", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("-1s", None),
            ("1x", None),
            ("1.2.3s", None),
            ("99999999999h", None),
            ("9999999999999999999999s", None),
        ] {
            assert_eq!(duration(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn words_ports_and_times() {
        assert_eq!(words("[\"a\", \"b c\"]").unwrap(), ["a", "b c"]);
        assert_eq!(words("/bin/a").unwrap(), ["/bin/a"]);
        assert!(words("").unwrap().is_empty());
        assert!(words("a b").is_err() && words("[1]").is_err() && words("[\"a\"").is_err());
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("1-3/UDP").unwrap(), ["1/udp", "2/udp", "3/udp"]);
        for text in ["0", "3-1", "80/x", "65536", "", "-", "80-"] {
            assert!(ports(text).is_err(), "{text}");
        }
        assert_eq!(time("0").unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(time("2026-01-02T03:04:05.5+01:00").unwrap(), "2026-01-02T03:04:05.5+01:00");
        assert!(time("yesterday").is_err() && time("99999999999999999").is_err());
    }
}
