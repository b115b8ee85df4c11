//! One upload: where it is, what has arrived, how it goes on after a cut.

use super::{Session, check_digest};
use crate::blob::own_failure;
use crate::endpoint::is_this_machine;
use crate::reader::TRICKLE;
use crate::repository::{Repository, Target, header};
use crate::retry::{Failed, Patience};
use crate::transport::{Content, authority, is_https, resolve, shorten};
use fault::{Fault, Kind, Result};
use oci::Digest;
use std::io::{self, Read};
use std::time::Instant;
use ureq::Body;
use ureq::http::{Method, Response};

/// The largest piece that is kept in memory because a registry wants no smaller ones.
const MAX_CHUNK: u64 = 64 << 20;

pub(super) struct Upload<'a> {
    repository: &'a Repository,
    session: Option<Session>,
    /// Bytes the registry has.
    arrived: u64,
    /// Something was sent and not answered: the registry has to be asked what arrived.
    unsure: bool,
    /// There was one before, which the registry does not know any more.
    lost: bool,
    /// What has arrived is what the registry said after a cut: "0-0" is nothing or a byte.
    resumed: bool,
    /// The most that ever arrived.
    best: u64,
    /// When the last byte was sent.
    sent_at: Instant,
    /// A connection broke while sending, perhaps because of an answer that was not waited for.
    ask_first: bool,
}

impl<'a> Upload<'a> {
    pub fn new(repository: &'a Repository, session: Option<Session>) -> Upload<'a> {
        Upload {
            repository,
            session,
            arrived: 0,
            unsure: false,
            lost: false,
            resumed: false,
            best: 0,
            sent_at: Instant::now(),
            ask_first: false,
        }
    }

    /// Tries until it works or is not worth trying. Each further try begins with what the registry has.
    pub fn until_done<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Upload<'a>) -> Result<T, Failed>,
    ) -> Result<T> {
        let mut patience = Patience::for_upload(&self.repository.transport.options);
        loop {
            let tried = match self.catch_up(&mut patience) {
                Ok(()) => attempt(self),
                Err(failed) => Err(failed),
            };
            let failed = match tried {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            patience.worked_until(self.sent_at);
            patience.wait(failed)?;
        }
    }

    pub fn is_open(&self) -> bool {
        self.session.is_some()
    }

    pub fn was_lost(&self) -> bool {
        self.lost
    }

    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// For whoever cannot begin again.
    pub fn must_be_open(&self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        Err(Fault::conflict("the registry has lost the upload"))
    }

    pub fn open(&mut self) -> Result<(), Failed> {
        let what = "blobs/uploads/";
        let response = self.repository.request_with(
            &Method::POST,
            Target::Below(what),
            &[],
            &mut Content::Bytes(&[]),
        )?;
        self.session = Some(opened(self.repository, what, &response)?);
        self.arrived = 0;
        self.unsure = false;
        self.resumed = false;
        Ok(())
    }

    /// Bytes of a piece: at least what the registry wants.
    pub fn chunk(&self, usual: usize) -> Result<usize> {
        let least = self.session.as_ref().map_or(0, |session| session.least);
        if least > MAX_CHUNK {
            return Err(Fault::input(format!(
                "the registry wants pieces of {least} bytes, more than {MAX_CHUNK}"
            )));
        }
        Ok(usual.max(least as usize))
    }

    /// Sends `length` bytes, which follow those that have arrived.
    pub fn send(
        &mut self,
        reader: &mut dyn Read,
        length: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failed> {
        self.must_be_open()?;
        let Some(session) = &self.session else { return Ok(()) };
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if self.arrived > 0 {
            // Not for the first piece: some registries know streams only as docker sends them.
            headers.push(("content-range", format!("{}-{}", self.arrived, self.arrived + length - 1)));
        }
        if self.ask_first {
            headers.push(("expect", "100-continue".to_owned()));
        }
        let mut sending =
            Sending { reader, left: length, at: self.arrived, progress, last: self.sent_at, failure: None };
        self.unsure = true;
        let response = self.repository.request_with(
            &Method::PATCH,
            Target::At(&session.location),
            &headers,
            &mut Content::Stream { reader: &mut sending, length },
        );
        self.sent_at = sending.last;
        if let Some(fault) = sending.failure.take() {
            return Err(fault.into());
        }
        let response = match response {
            Ok(response) => response,
            Err(failed) => return Err(self.failed_sending(failed)),
        };
        let sent = self.arrived + length;
        self.arrived = match header(&response, "range").map(arrived) {
            // Some registries are one off. If there really is more, the end of the upload will tell.
            Some(Some(arrived)) if sent > 1 => arrived.min(sent),
            // It need not say, and "0-0" is nothing or one byte.
            _ => sent,
        };
        self.follow(&response)?;
        if self.arrived < sent {
            let fault = Fault::retryable("the registry took only a part of what was sent");
            return Err(Failed::Again { fault, after: None });
        }
        self.unsure = false;
        Ok(())
    }

    /// Sends what has not arrived of a piece that begins at `start`.
    pub fn send_chunk(
        &mut self,
        start: u64,
        bytes: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failed> {
        let end = start + bytes.len() as u64;
        let there = self.arrived.checked_sub(start).and_then(|there| bytes.get(there as usize..));
        let Some(mut rest) = there else {
            return Err(Fault::input(format!(
                "the registry says it has {} bytes of an upload where {start} to {end} are right",
                self.arrived
            ))
            .into());
        };
        if rest.is_empty() {
            return Ok(());
        }
        let length = rest.len() as u64;
        self.send(&mut rest, length, progress)
    }

    /// Ends the upload with its last bytes.
    pub fn finish(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), Failed> {
        self.must_be_open()?;
        let Some(session) = &self.session else { return Ok(()) };
        let separator = if session.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}digest={digest}", session.location);
        let mut headers = Vec::new();
        if !bytes.is_empty() {
            headers.push(("content-type", "application/octet-stream".to_owned()));
        }
        self.unsure = true;
        let response = self.repository.request_with(
            &Method::PUT,
            Target::At(&url),
            &headers,
            &mut Content::Bytes(bytes),
        );
        match response {
            Ok(response) => Ok(check_digest(&response, digest)?),
            // What was put together of several tries is not right: once more, in one.
            Err(Failed::Finally(fault)) if fault.kind() == Kind::Input && self.resumed => {
                self.give_up_session();
                Err(Failed::Again { fault, after: None })
            }
            Err(failed) => Err(self.failed_sending(failed)),
        }
    }

    /// The registry claims something that cannot be: begin anew.
    pub fn absurd(&mut self, sent: u64) -> Failed {
        let fault = Fault::input(format!(
            "the registry says {} bytes of an upload have arrived, of which there are {sent}",
            self.arrived
        ));
        self.give_up_session();
        Failed::Again { fault, after: None }
    }

    fn give_up_session(&mut self) {
        self.session = None;
        self.arrived = 0;
        self.unsure = false;
        self.lost = true;
    }

    fn failed_sending(&mut self, failed: Failed) -> Failed {
        match failed {
            Failed::Finally(fault) if fault.kind() == Kind::NotFound => {
                self.give_up_session();
                Failed::Again { fault, after: None }
            }
            Failed::Finally(fault) => Failed::Finally(fault),
            again @ Failed::Again { .. } => {
                self.ask_first = true;
                again
            }
        }
    }

    /// Asks what has arrived where that is not known.
    fn catch_up(&mut self, patience: &mut Patience) -> Result<(), Failed> {
        if !self.unsure {
            return Ok(());
        }
        let Some(session) = &self.session else { return Ok(()) };
        let response = self.repository.request_with(
            &Method::GET,
            Target::At(&session.location),
            &[],
            &mut Content::None,
        );
        let response = match response {
            Ok(response) => response,
            // It does not know the upload any more, never tells about uploads, or (416, docker's own registry) drops one that has
            // come further than the address says, as one that was cut has.
            Err(Failed::Finally(fault) | Failed::Again { fault, .. })
                if matches!(fault.kind(), Kind::NotFound | Kind::Input | Kind::Failed) =>
            {
                self.give_up_session();
                return Ok(());
            }
            Err(failed) => return Err(failed),
        };
        let Some(arrived) = header(&response, "range").and_then(arrived) else {
            self.give_up_session();
            return Ok(());
        };
        self.follow(&response)?;
        self.arrived = arrived;
        self.resumed = true;
        self.unsure = false;
        if arrived >= self.best + TRICKLE {
            self.best = arrived;
            patience.progress();
        }
        Ok(())
    }

    /// The next request of an upload goes where the answer to the last one says.
    fn follow(&mut self, response: &Response<Body>) -> Result<()> {
        if let Some(session) = &mut self.session
            && header(response, "location").is_some()
        {
            session.location = location(self.repository, &session.location, response)?;
        }
        Ok(())
    }
}

/// The session an answer opens. `what` was asked for.
pub(super) fn opened(repository: &Repository, what: &str, response: &Response<Body>) -> Result<Session> {
    let asked = repository.asked(Target::Below(what))?;
    let least = header(response, "oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
    Ok(Session { location: location(repository, &asked, response)?, least: least.unwrap_or(0) })
}

/// Where an answer leads, if that is somewhere data may be sent.
fn location(repository: &Repository, asked: &str, response: &Response<Body>) -> Result<String> {
    let text = header(response, "location")
        .ok_or_else(|| Fault::input("the registry opens an upload and does not say where"))?;
    let url = resolve(asked, text)?;
    let base = repository.base().unwrap_or_default();
    let (host, other) = (authority(&base), authority(&url));
    if is_https(&base) && !is_https(&url) {
        let name = |authority: &str| authority.split(':').next().unwrap_or_default().to_owned();
        if name(&host) == name(&other) {
            // A registry behind a proxy that ends TLS and does not tell it so.
            let path =
                url.split_once("://").and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)));
            return Ok(format!("{base}{}", path.unwrap_or("/")));
        }
        if !repository.transport.is_insecure(&base) {
            return Err(Fault::denied("the registry wants data over a connection that is not encrypted")
                .hint("--tls-verify=false allows it"));
        }
    }
    if is_this_machine(&other) && !is_this_machine(&host) {
        return Err(Fault::denied(format!(
            "the registry wants data sent to this machine, {}",
            shorten(&url)
        )));
    }
    Ok(url)
}

/// Bytes there are when the registry says so: `0-99`, with or without a unit. `0-0` means nothing, or a single byte,
/// which is as good as nothing.
fn arrived(range: &str) -> Option<u64> {
    let range = range.trim();
    let range = range.strip_prefix("bytes=").or_else(|| range.strip_prefix("bytes ")).unwrap_or(range);
    match range.split_once('-')? {
        ("0", "0") => Some(0),
        ("0", last) => last.trim().parse::<u64>().ok()?.checked_add(1),
        _ => None,
    }
}

pub(super) fn ended(after: u64, size: u64) -> Fault {
    Fault::failed(format!("what was to be sent ends after {after} of {size} bytes"))
}

/// A body on its way: never more or less than was announced, its own failure kept apart from the connection's.
struct Sending<'a> {
    reader: &'a mut dyn Read,
    left: u64,
    at: u64,
    progress: &'a mut dyn FnMut(u64),
    /// When the last piece was taken.
    last: Instant,
    failure: Option<Fault>,
}

impl Read for Sending<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = loop {
            match self.reader.read(buffer.get_mut(..wanted).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let fault = match read {
            Ok(0) => ended(self.at, self.at + self.left),
            Ok(read) => {
                self.left -= read as u64;
                self.at += read as u64;
                self.last = Instant::now();
                (self.progress)(self.at);
                return Ok(read);
            }
            Err(error) => own_failure(error),
        };
        self.failure = Some(fault);
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_understood() {
        for (text, bytes) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("bytes 0-1 ", Some(2)),
            ("0-0", Some(0)),
            ("0-18446744073709551615", None),
            ("0--1", None),
            ("5-99", None),
            ("", None),
            ("-", None),
            ("0-", None),
        ] {
            assert_eq!(arrived(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn a_source_that_is_short_or_fails_is_told_of() {
        let read = |source: &mut dyn Read, left| {
            let mut sending = Sending {
                reader: source,
                left,
                at: 0,
                progress: &mut |_| {},
                last: Instant::now(),
                failure: None,
            };
            let result = io::copy(&mut sending, &mut io::sink());
            (result.ok(), sending.failure)
        };
        let (copied, failure) = read(&mut &b"12345"[..], 3);
        assert_eq!((copied, failure.is_none()), (Some(3), true));
        let (copied, failure) = read(&mut &b"12"[..], 3);
        assert!(copied.is_none() && failure.unwrap().to_string().contains("after 2 of 3"));
    }
}
