//! Go's ways of printing things, which the history of images is written in, and its paths.

use std::fmt::Write;
use std::time::Duration;

/// `strconv.Quote`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let short = match c {
            '"' | '\\' => Some(c),
            '\u{7}' => Some('a'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '\u{b}' => Some('v'),
            _ => None,
        };
        // Writing to a string does not fail.
        let _ = match short {
            Some(letter) => write!(quoted, "\\{letter}"),
            None if is_printed(c) => write!(quoted, "{c}"),
            None if c < ' ' || c == '\u{7f}' => write!(quoted, "\\x{:02x}", c as u32),
            None if (c as u32) < 0x1_0000 => write!(quoted, "\\u{:04x}", c as u32),
            None => write!(quoted, "\\U{:08x}", c as u32),
        };
    }
    quoted.push('"');
    quoted
}

/// Go's `unicode.IsPrint`, by the standard library's idea of it: letters, marks, numbers, punctuation, symbols, and the one space.
fn is_printed(c: char) -> bool {
    // Marks are escaped only where there is nothing before them to stand on, so there is.
    let mut pair = [b'a', 0, 0, 0, 0];
    let length = 1 + c.encode_utf8(&mut pair[1..]).len();
    let text = std::str::from_utf8(&pair[..length]).unwrap_or_default();
    c == ' '
        || !(c.is_whitespace() || text.escape_debug().nth(2).is_some_and(|_| !matches!(c, '\'' | '"' | '\\')))
}

/// `%q` of a list: `["a" "b"]`.
pub fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%v` of a list: `[a b]`.
pub fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `time.Duration` as text: `1m30s`, `1.5s`, `500ms`.
pub fn duration(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("ns", 1u128), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanoseconds < size * 1000 {
            return format!("{}{unit}", decimal(nanoseconds, size));
        }
    }
    let minutes = nanoseconds / 60_000_000_000;
    let seconds = decimal(nanoseconds % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A number of units without zeros at its end.
fn decimal(number: u128, unit: u128) -> String {
    let whole = number / unit;
    let fraction = number % unit;
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{fraction:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// A path from a directory. An absolute one is left as it is, as BuildKit does.
pub fn resolve(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    clean(&format!("/{directory}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("a b", r#""a b""#),
            ("\"\\", r#""\"\\""#),
            ("\t\n\u{0}\u{7f}", r#""\t\n\x00\x7f""#),
            ("é한☃'", r#""é한☃'""#),
            ("\u{301}", "\"\u{301}\""),
            ("\u{a0}\u{200b}\u{feff}", r#""\u00a0\u200b\ufeff""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quoted_list(&["a".to_owned(), "b c".to_owned()]), r#"["a" "b c"]"#);
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
        }
    }

    #[test]
    fn paths_as_go_cleans_them() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/..", "a/b"),
            ("/../../a", "/a"),
            ("../a", "../a"),
            ("a/../..", ".."),
        ] {
            assert_eq!(clean(path), cleaned);
        }
        assert_eq!(resolve("/a", "b"), "/a/b");
        assert_eq!(resolve("a", "../b"), "/b");
        assert_eq!(resolve("/a", "/x/../y/"), "/x/../y/");
    }
}
