//! A blob as a reader, which goes on where a connection was cut.

use crate::repository::{Repository, broken_read, content_length, header};
use crate::retry::{Failed, Patience};
use fault::{Fault, Kind, Result};
use oci::Descriptor;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::{Method, StatusCode};

/// Fewer bytes than this within the timeout count as silence: a trickle could otherwise go on for ever.
pub(crate) const TRICKLE: u64 = 1 << 10;
/// Bytes passed over at a time.
const SKIP: usize = 64 << 10;

/// The bytes of a blob, as many as its descriptor says. They are not hashed here: whoever reads them does that.
///
/// A failure is a [`Fault`] inside the [`io::Error`].
pub struct BlobReader<'a> {
    repository: &'a Repository,
    descriptor: Descriptor,
    position: u64,
    /// Where the present connection took over.
    since: u64,
    body: Option<Box<dyn Read + Send + Sync>>,
    watch: Watch,
    patience: Patience,
    /// Asked for a part, the registry sent something else.
    no_ranges: bool,
    /// Nothing came of the last connection: what a cache keeps of the blob may be cut.
    is_stuck: bool,
}

impl std::fmt::Debug for BlobReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({} at {})", self.descriptor.digest, self.position)
    }
}

impl Repository {
    /// Opens a blob (distribution spec, "Pulling blobs").
    ///
    /// # Errors
    /// As [`Repository::manifest`]; [`Kind::Input`], now or while it is read, when it does not have the size the descriptor
    /// says.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader<'_>> {
        self.open_blob_range(descriptor, 0)
    }

    /// The same without its first `from` bytes.
    pub fn open_blob_range(&self, descriptor: &Descriptor, from: u64) -> Result<BlobReader<'_>> {
        if from > descriptor.size {
            return Err(Fault::input(format!(
                "blob {} is to have {} bytes, and {from} are there",
                descriptor.digest, descriptor.size
            )));
        }
        let mut reader = BlobReader {
            repository: self,
            descriptor: descriptor.clone(),
            position: from,
            since: from,
            body: None,
            watch: Watch::new(self.transport.options.timeout),
            patience: Patience::new(&self.transport.options),
            no_ranges: false,
            is_stuck: false,
        };
        if from == 0 || from < descriptor.size {
            reader.connect()?;
        }
        Ok(reader)
    }
}

impl BlobReader<'_> {
    /// Bytes read so far, those that were passed over at the beginning among them.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn connect(&mut self) -> Result<()> {
        while self.body.is_none() {
            if let Err(failed) = self.try_connect() {
                self.is_stuck = true;
                self.patience.wait(failed)?;
            }
        }
        Ok(())
    }

    fn try_connect(&mut self) -> Result<(), Failed> {
        let (size, digest) = (self.descriptor.size, &self.descriptor.digest);
        let from = if self.no_ranges { 0 } else { self.position };
        let last = size.saturating_sub(1);
        let range = (from > 0).then(|| ("range", format!("bytes={from}-{last}")));
        let anew = self.is_stuck.then(|| ("cache-control", "no-cache".to_owned()));
        let headers: Vec<_> = range.into_iter().chain(anew).collect();
        let response = self.repository.request(&Method::GET, &format!("blobs/{digest}"), &headers);
        let response = match response {
            Err(Failed::Again { fault, after }) if from > 0 && fault.kind() == Kind::Input => {
                self.no_ranges = true;
                return Err(Failed::Again { fault, after });
            }
            other => other?,
        };
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        if is_part
            && !header(&response, "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {from}-{last}/")))
        {
            self.no_ranges = true;
            let fault = Fault::retryable("the registry sends another part of the blob than was asked for");
            return Err(Failed::Again { fault, after: None });
        }
        // One that knows no ranges sends the whole.
        let starts_at = if is_part { from } else { 0 };
        let expected = size - starts_at;
        if let Some(length) = content_length(&response)
            && length != expected
        {
            return Err(Fault::input(format!(
                "blob {digest} has {length} bytes on the registry where {expected} were announced"
            ))
            .into());
        }
        let mut body = response.into_body().into_reader();
        self.watch = Watch::new(self.repository.transport.options.timeout);
        self.since = self.position;
        self.skip(&mut body, self.position - starts_at)?;
        self.body = Some(Box::new(body));
        Ok(())
    }

    fn skip(&mut self, body: &mut impl Read, mut bytes: u64) -> Result<(), Failed> {
        let mut chunk = vec![0; SKIP];
        while bytes > 0 {
            let wanted = chunk.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            match self.watch.read(body, chunk.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => return Err(self.cut_short()),
                Ok(read) => bytes -= read as u64,
                Err(error) => return Err(broken_read("the blob", error)),
            }
        }
        Ok(())
    }

    /// Without a length the end of a body and a cut look alike: ask for the rest.
    fn cut_short(&self) -> Failed {
        let Descriptor { digest, size, .. } = &self.descriptor;
        let fault = Fault::input(format!("blob {digest} ends after {} of {size} bytes", self.position));
        Failed::Again { fault, after: None }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, Failed> {
        let Some(body) = &mut self.body else { return Ok(0) };
        let left = self.descriptor.size - self.position;
        if left == 0 {
            let more = self.watch.read(body, &mut [0]).map_err(|error| broken_read("the blob", error))?;
            self.body = None;
            if more == 0 {
                return Ok(0);
            }
            let Descriptor { digest, size, .. } = &self.descriptor;
            return Err(Fault::input(format!(
                "blob {digest} is longer than the {size} bytes it was said to have"
            ))
            .into());
        }
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.watch.read(body, buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) => Err(self.cut_short()),
            Ok(read) => {
                self.position += read as u64;
                Ok(read)
            }
            Err(error) => Err(broken_read("the blob", error)),
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.body.is_none() {
                if self.position == self.descriptor.size {
                    return Ok(0);
                }
                self.connect().map_err(io::Error::other)?;
            }
            let failed = match self.try_read(buffer) {
                Ok(read) => return Ok(read),
                Err(failed) => failed,
            };
            self.body = None;
            // A trickle is no progress.
            self.is_stuck = self.position < self.since + TRICKLE;
            if !self.is_stuck {
                self.patience.progress();
            }
            self.since = self.position;
            self.patience.wait(failed).map_err(io::Error::other)?;
        }
    }
}

/// Tells a trickle from a stream. Only the time spent reading counts: whoever reads may take their own.
struct Watch {
    window: Duration,
    spent: Duration,
    bytes: u64,
}

impl Watch {
    fn new(window: Duration) -> Watch {
        Watch { window, spent: Duration::ZERO, bytes: 0 }
    }

    fn read(&mut self, from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let read = loop {
            match from.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.spent += start.elapsed();
        self.bytes += read as u64;
        if self.bytes >= TRICKLE {
            self.bytes = 0;
            self.spent = Duration::ZERO;
        } else if self.spent > self.window && read > 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it only trickles"));
        }
        Ok(read)
    }
}
