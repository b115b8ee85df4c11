//! Entries of a log file, and where they are printed.

use jiff::Timestamp;
use serde::Deserialize;
use std::borrow::Cow;
use std::os::fd::BorrowedFd;

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
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub timestamps: bool,
    /// The entries as they are in the file, all to stdout.
    pub json: bool,
}

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
            if self.style.timestamps && !self.within_line[usize::from(stderr)] {
                match entry.moment() {
                    // As many digits for each, so that the text stands in one column.
                    Some(moment) => self.buffer.extend_from_slice(format!("{moment:.9} ").as_bytes()),
                    None => self.buffer.extend_from_slice(format!("{} ", entry.time).as_bytes()),
                }
            }
            self.buffer.extend_from_slice(entry.log.as_bytes());
            self.within_line[usize::from(stderr)] = !entry.log.ends_with('\n');
        }
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
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
