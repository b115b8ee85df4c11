//! The user's terminal: raw mode, its size, the keys that detach.

use fault::{Explain, Fault, Result};
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A terminal in raw mode; as it was when dropped.
pub struct Raw<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    pub fn enter(fd: BorrowedFd<'a>) -> Result<Raw<'a>> {
        let before = tcgetattr(fd).explain(|| "read the terminal's settings".into())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(fd, OptionalActions::Now, &raw).explain(|| "put the terminal into raw mode".into())?;
        Ok(Raw { fd, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.fd, OptionalActions::Now, &self.before);
    }
}

/// The terminal to use: stdin if it is one, else the process's own, because stdin carries records.
pub fn open() -> Result<OwnedFd> {
    if isatty(rustix::stdio::stdin()) {
        return rustix::stdio::stdin().try_clone_to_owned().explain(|| "copy stdin".into());
    }
    let tty = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    tty.map(OwnedFd::from).map_err(|error| {
        Fault::failed("the container has a terminal, but this process has none")
            .because(error)
            .hint("leave -t out, or start it without --attach")
    })
}

pub fn size(fd: impl AsFd) -> Option<Winsize> {
    tcgetwinsize(fd).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0)
}

/// The sequence of keys that detaches; docker's `ctrl-p,ctrl-q` unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    pub const DEFAULT: &str = "ctrl-p,ctrl-q";

    /// `ctrl-a`, `ctrl-@`, `ctrl-[` …, or a character, with commas between them. Empty: nothing detaches.
    pub fn parse(text: &str) -> Result<DetachKeys> {
        let keys = text.split(',').filter(|_| !text.is_empty()).map(key).collect::<Result<_>>()?;
        Ok(DetachKeys { keys, matched: 0 })
    }

    /// Looks for the sequence in what was typed. The bytes to pass on, and whether it was there. Keys that
    /// only began it are passed on once it is clear that they did not go on.
    pub fn scan(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.is_empty() {
                out.push(*byte);
                continue;
            }
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0] && self.keys.len() > 1);
            if self.matched == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

fn key(text: &str) -> Result<u8> {
    let wrong = || {
        Fault::usage(format!("{text:?} is not a key"))
            .hint("a character, or ctrl- and one of a-z @ [ \\ ] ^ _")
    };
    if let Some(letter) = text.strip_prefix("ctrl-") {
        let [letter] = letter.as_bytes() else { return Err(wrong()) };
        return match letter.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => Ok(letter - b'a' + 1),
            b'@' => Ok(0),
            letter @ b'['..=b'_' => Ok(letter - b'[' + 27),
            _ => Err(wrong()),
        };
    }
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_across_reads() {
        let mut keys = DetachKeys::parse(DetachKeys::DEFAULT).unwrap();
        assert_eq!(keys.scan(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.scan(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(keys.scan(b"\x11z"), (Vec::new(), true));
    }

    #[test]
    fn sequences_may_be_anything() {
        assert_eq!(DetachKeys::parse("").unwrap().scan(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        let mut one = DetachKeys::parse("ctrl-@").unwrap();
        assert_eq!(one.scan(b"a\0b"), (b"a".to_vec(), true));
        assert!(DetachKeys::parse("ctrl-1").is_err());
        assert!(DetachKeys::parse("ab").is_err());
        assert_eq!(DetachKeys::parse("ctrl-_").unwrap().keys, [31]);
    }
}
