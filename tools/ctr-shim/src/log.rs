//! Where the container's output is kept: its lines, in docker's pieces, by one of the drivers.

mod facts;
mod files;
mod journald;
mod remote;
mod syslog;

pub use facts::Setup;

use fault::Result;
use jiff::Timestamp;
use oci::wishes::LogDriver;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Longest piece of a line in one message, in bytes; docker's.
const LONGEST: usize = 16 << 10;

pub struct Log {
    target: Option<Target>,
    /// Begun lines of stdout and stderr.
    begun: [Vec<u8>; 2],
    /// The line each stream is in the middle of, if pieces of it went out already.
    parts: [Option<Part>; 2],
    /// Lines that were cut so far, which makes their ids differ.
    cut: u64,
}

enum Target {
    Files(files::Files),
    Journald(journald::Journald),
    Syslog(syslog::Syslog),
}

/// What is written at once: a line, or a part of one.
struct Piece<'a> {
    stream: usize,
    /// With its line feed if the line ends in it.
    text: &'a [u8],
    part: Option<Part>,
    at: &'a Moment,
}

/// Which part of a line that was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Of the line.
    id: u64,
    /// From 1 on.
    ordinal: u32,
    last: bool,
}

struct Moment {
    time: Timestamp,
    text: String,
}

impl Moment {
    fn now() -> Moment {
        let time = Timestamp::now();
        Moment { time, text: time.to_string() }
    }
}

impl Piece<'_> {
    /// Without the line feed, for those who mark ends of messages in other ways.
    fn message(&self) -> &[u8] {
        self.text.strip_suffix(b"\n").unwrap_or(self.text)
    }

    /// RFC 5424, 6.2.1: error for stderr, informational for stdout.
    fn severity(&self) -> u8 {
        if self.stream == 0 { 6 } else { 3 }
    }
}

impl Log {
    /// Whoever is to get the messages has to be there: a container whose output would be lost is not made.
    pub fn open(bundle: &Path, setup: &Setup) -> Result<Log> {
        let buffer = setup.wish.most_buffered;
        let target = match &setup.wish.driver {
            LogDriver::None => None,
            LogDriver::Files(wish) => {
                // Files are written through the page cache: there is nobody to wait for in either mode.
                let path = wish.path.clone().unwrap_or_else(|| bundle.join("log.json"));
                Some(Target::Files(files::Files::new(path, wish, &setup.attributes)))
            }
            LogDriver::Journald => Some(Target::Journald(journald::Journald::open(setup, buffer)?)),
            LogDriver::Syslog(wish) => Some(Target::Syslog(syslog::Syslog::open(wish, setup, buffer)?)),
        };
        Ok(Log { target, begun: [Vec::new(), Vec::new()], parts: [None; 2], cut: 0 })
    }

    /// Takes output as it comes; whole lines are written at once, with one write for all of them.
    pub fn write(&mut self, stream: usize, mut bytes: &[u8]) {
        if self.target.is_none() {
            return;
        }
        let at = Moment::now();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.begun[stream].is_empty() {
                self.pieces(stream, line, &at, true);
            } else {
                let mut whole = std::mem::take(&mut self.begun[stream]);
                whole.extend_from_slice(line);
                self.pieces(stream, &whole, &at, true);
            }
        }
        self.begun[stream].extend_from_slice(bytes);
        while self.begun[stream].len() >= LONGEST {
            let begun = std::mem::take(&mut self.begun[stream]);
            let cut = boundary(&begun, LONGEST);
            self.pieces(stream, &begun[..cut], &at, false);
            self.begun[stream] = begun[cut..].to_vec();
        }
        self.flush();
    }

    /// What was begun and never ended.
    pub fn finish(&mut self) {
        let at = Moment::now();
        for stream in 0..2 {
            let begun = std::mem::take(&mut self.begun[stream]);
            if !begun.is_empty() {
                self.pieces(stream, &begun, &at, true);
            }
            self.parts[stream] = None;
        }
        self.flush();
        if let Some(remote) = self.remote() {
            remote.drain();
        }
    }

    /// Whether the container has to wait until somebody has taken what was sent.
    pub fn is_behind(&self) -> bool {
        match &self.target {
            Some(Target::Journald(journald)) => journald.remote.is_behind(),
            Some(Target::Syslog(syslog)) => syslog.remote.is_behind(),
            _ => false,
        }
    }

    /// What takes no more at the moment: [`Log::resume`] when it can be written to.
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match &self.target {
            Some(Target::Journald(journald)) => journald.remote.waits_for(),
            Some(Target::Syslog(syslog)) => syslog.remote.waits_for(),
            _ => None,
        }
    }

    pub fn resume(&mut self) {
        if let Some(remote) = self.remote() {
            remote.flush();
        }
    }

    fn remote(&mut self) -> Option<&mut remote::Remote> {
        match &mut self.target {
            Some(Target::Journald(journald)) => Some(&mut journald.remote),
            Some(Target::Syslog(syslog)) => Some(&mut syslog.remote),
            _ => None,
        }
    }

    /// `ends` when the text's end is that of its line.
    fn pieces(&mut self, stream: usize, mut text: &[u8], at: &Moment, ends: bool) {
        while text.len() > LONGEST + 1 {
            let (piece, rest) = text.split_at(boundary(text, LONGEST));
            self.piece(stream, piece, at, false);
            text = rest;
        }
        self.piece(stream, text, at, ends);
    }

    fn piece(&mut self, stream: usize, text: &[u8], at: &Moment, ends: bool) {
        let part = match self.parts[stream] {
            Some(before) => Some(Part { ordinal: before.ordinal.saturating_add(1), last: ends, ..before }),
            None if ends => None,
            None => {
                self.cut += 1;
                Some(Part { id: self.cut, ordinal: 1, last: false })
            }
        };
        self.parts[stream] = part.filter(|_| !ends);
        let piece = Piece { stream, text, part, at };
        match &mut self.target {
            Some(Target::Files(files)) => files.add(&piece),
            Some(Target::Journald(journald)) => journald.add(&piece),
            Some(Target::Syslog(syslog)) => syslog.add(&piece),
            None => {}
        }
    }

    fn flush(&mut self) {
        match &mut self.target {
            Some(Target::Files(files)) => files.flush(),
            Some(_) => self.resume(),
            None => {}
        }
    }
}

/// The last place at or before `most` that does not cut a UTF-8 character.
fn boundary(bytes: &[u8], most: usize) -> usize {
    let most = most.min(bytes.len());
    (most.saturating_sub(3)..=most)
        .rev()
        .find(|at| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80))
        .filter(|at| *at > 0)
        .unwrap_or(most)
}

#[cfg(test)]
mod tests;
