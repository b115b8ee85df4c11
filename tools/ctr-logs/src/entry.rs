//! Entries of a log file, and where they are printed.

use jiff::Timestamp;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

/// One line of `log.json`, docker's json-file format.
#[derive(Debug, Deserialize)]
pub struct Entry<'a> {
    /// With its line feed; without one it is a part of a line, and the next entry of the stream goes on with it.
    #[serde(borrow)]
    pub log: Cow<'a, str>,
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// RFC 3339.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// Labels, variables and the tag the log driver was told to keep.
    #[serde(default)]
    pub attrs: Option<BTreeMap<String, String>>,
}

impl<'a> Entry<'a> {
    pub fn parse(line: &'a [u8]) -> Option<Entry<'a>> {
        serde_json::from_slice(line).ok()
    }

    pub fn moment(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// How entries are printed.
#[derive(Clone, Debug, Default)]
pub struct Style {
    pub timestamps: bool,
    /// The entries as they are in the file, all to stdout.
    pub json: bool,
    /// Put an entry's attributes before it.
    pub details: bool,
    /// What stands before each line, where it is one container's of several.
    pub prefix: String,
    /// Whether other threads print at the same time: then only whole lines are written at once.
    pub shared: bool,
}

/// Held while a thread writes its lines.
static TURN: Mutex<()> = Mutex::new(());

/// stdout and stderr, with a buffer between that is emptied before the other stream is written to, so that both going
/// to one place arrive in the order of the log.
#[derive(Debug)]
pub struct Sink {
    style: Style,
    buffer: Vec<u8>,
    buffer_is_stderr: bool,
    /// Whether stdout and stderr are in the middle of a line.
    within_line: [bool; 2],
}

const BUFFER: usize = 64 << 10;
/// With several threads a line is kept whole up to this length.
const LONGEST_WHOLE: usize = 1 << 20;

impl Sink {
    pub fn new(style: Style) -> Sink {
        Sink { style, buffer: Vec::with_capacity(BUFFER), buffer_is_stderr: false, within_line: [false; 2] }
    }

    /// `line` is the entry as it stands in the file.
    pub fn print(&mut self, entry: &Entry<'_>, line: &[u8]) -> std::io::Result<()> {
        let stderr = entry.stream == "stderr" && !self.style.json;
        if stderr != self.buffer_is_stderr {
            self.flush()?;
            self.buffer_is_stderr = stderr;
        }
        if self.style.json {
            self.buffer.extend_from_slice(line);
            self.buffer.push(b'\n');
        } else {
            let begins = !self.within_line[usize::from(stderr)];
            if begins {
                self.buffer.extend_from_slice(self.style.prefix.as_bytes());
            }
            if self.style.timestamps && begins {
                match entry.moment() {
                    // As many digits for each, so that the text stands in one column.
                    Some(moment) => self.buffer.extend_from_slice(format!("{moment:.9} ").as_bytes()),
                    None => self.buffer.extend_from_slice(format!("{} ", entry.time).as_bytes()),
                }
            }
            if self.style.details && begins {
                details(&mut self.buffer, entry);
            }
            self.buffer.extend_from_slice(entry.log.as_bytes());
            self.within_line[usize::from(stderr)] = !entry.log.ends_with('\n');
        }
        let whole =
            !self.style.shared || !self.within_line.contains(&true) || self.buffer.len() >= LONGEST_WHOLE;
        if self.buffer.len() >= BUFFER && whole { self.flush() } else { Ok(()) }
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        // Somebody who panicked while writing holds nothing back.
        let _turn = TURN.lock();
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(self.fd(), rest) {
                Ok(written) => rest = &rest[written..],
                Err(rustix::io::Errno::INTR) => {}
                // A pipe somebody else made non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let fd = self.fd();
                    let mut fds =
                        [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::OUT)];
                    rustix::event::poll(&mut fds, None)?;
                }
                Err(error) => {
                    self.buffer.clear();
                    return Err(error.into());
                }
            }
        }
        self.buffer.clear();
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'static> {
        if self.buffer_is_stderr { rustix::stdio::stderr() } else { rustix::stdio::stdout() }
    }
}

/// `name=value,name=value `, encoded as in the query of a URL, as docker does it.
fn details(out: &mut Vec<u8>, entry: &Entry<'_>) {
    for (index, (name, value)) in entry.attrs.iter().flatten().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode(out, name);
        out.push(b'=');
        encode(out, value);
    }
    out.push(b' ');
}

fn encode(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            other => out.extend_from_slice(format!("%{other:02X}").as_bytes()),
        }
    }
}
