//! The log, in the form of Go's logrus, which engines parse: a line of `time="…" level=error msg="…"`, or of JSON.

use crate::options::{Opt, Parsed};
use fault::{Explain, Fault, Result};
use rustix::termios::isatty;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

#[derive(Debug)]
pub struct Log {
    /// `None`: stderr.
    file: Option<File>,
    json: bool,
    debug: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Warning,
    Error,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

impl Log {
    pub const fn to_stderr() -> Log {
        Log { file: None, json: false, debug: false }
    }

    /// Opened at once: later this process may be in a container.
    pub fn open(parsed: &Parsed) -> Result<Log> {
        let json = match parsed.text(Opt::LogFormat)? {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(Fault::usage(format!("invalid log-format: {other}"))),
        };
        let file = parsed.path(Opt::Log).map(|path| {
            let mut options = File::options();
            options.append(true).create(true).mode(0o644).custom_flags(libc::O_NOCTTY);
            options.open(path).explain(|| format!("open log file {}", path.display()))
        });
        Ok(Log { file: file.transpose()?, json, debug: parsed.has(Opt::Debug) })
    }

    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.write(Level::Debug, &message());
        }
    }

    pub fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    pub fn warn_of(&self, fault: &Fault) {
        self.warn(&words(fault));
    }

    /// Why this program fails: to the log, and to stderr too where that is not the log.
    pub fn fatal(&self, fault: &Fault) {
        let words = words(fault);
        self.write(Level::Error, &words);
        if self.file.is_some() {
            print(&format!("{}\n", printable(&words)));
        }
    }

    fn write(&self, level: Level, message: &str) {
        let line = if self.json {
            json_line(level, message)
        } else if self.file.is_none() && isatty(rustix::stdio::stderr()) {
            format!("{}[0000] {}\n", &level.name().to_uppercase()[..4], printable(message))
        } else {
            format!("time={:?} level={} msg={}\n", now(), level.name(), quoted(message))
        };
        match self.file.as_ref() {
            // One write(2) each: several of these may share a file.
            Some(mut file) => drop(file.write_all(line.as_bytes())),
            None => print(&line),
        }
    }
}

fn print(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn json_line(level: Level, message: &str) -> String {
    // logrus sorts the members.
    format!("{}\n", serde_json::json!({"level": level.name(), "msg": message, "time": now()}))
}

/// RFC 3339, to the second.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn quoted(message: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if !message.is_empty() && message.bytes().all(plain) {
        message.to_owned()
    } else {
        format!("{message:?}")
    }
}

/// Errors quote hostile input: no control character of it may reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A fault as Go programs would say it, because engines look for their words: `no such file or directory`, not
/// `No such file or directory (os error 2)`.
pub fn words(fault: &Fault) -> String {
    let mut text = go_errors(&fault.to_string());
    if let Some(subject) = fault.subject() {
        text = format!("{subject}: {text}");
    }
    if let Some(hint) = fault.hint_text() {
        text = format!("{text} ({hint})");
    }
    text
}

fn go_errors(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let after = &rest[at + MARK.len()..];
        let number = after.find(')').and_then(|end| Some((after[..end].parse::<i32>().ok()?, end)));
        let Some((number, end)) = number else {
            out += &rest[..at + MARK.len()];
            rest = after;
            continue;
        };
        let standard = std::io::Error::from_raw_os_error(number).to_string();
        let phrase = standard.split(MARK).next().unwrap_or_default();
        match rest[..at].strip_suffix(phrase) {
            Some(before) => {
                out += before;
                out += &lower_first(phrase);
            }
            None => out += &rest[..at],
        }
        rest = &after[end + 1..];
    }
    out + rest
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    // Not `RPC: …` and the like.
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_worded_as_go_words_them() {
        let io = |number| std::io::Error::from_raw_os_error(number);
        let fault = Fault::failed("open /x").because(io(libc::ENOENT)).within("create failed");
        assert_eq!(words(&fault), "create failed: open /x: no such file or directory");
        let fault = Fault::failed("write 5").because(io(libc::EBUSY)).hint("wait").on("c1");
        assert_eq!(words(&fault), "c1: write 5: device or resource busy (wait)");
        for text in ["x (os error ", "x (os error y)", "x (os error 99999999999999)", "(os error 2)", ""] {
            assert_eq!(go_errors(text), text);
        }
        assert_eq!(go_errors("odd (os error 2), No such process (os error 3)."), "odd, no such process.");
    }

    #[test]
    fn lines_are_logrus() {
        assert_eq!(quoted("plain-text"), "plain-text");
        assert_eq!(quoted("two \"words\"\n\u{1b}"), r#""two \"words\"\n\u{1b}""#);
        assert_eq!(quoted(""), "\"\"");
        let line = json_line(Level::Error, "a\"b\n");
        assert!(line.starts_with(r#"{"level":"error","msg":"a\"b\n","time":"2"#), "{line}");
        assert!(line.ends_with("Z\"}\n") && line.lines().count() == 1, "{line}");
    }
}
