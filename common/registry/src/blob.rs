//! Blobs: downloaded in one stream, taken up again where a connection was cut.

use crate::repository::{Repository, broken_read, content_length, header};
use crate::retry::{Failed, Patience};
use fault::{Fault, Result};
use oci::Descriptor;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::{Method, StatusCode};

/// Bytes handed on at a time.
const CHUNK: usize = 128 << 10;
/// Fewer bytes than this within the timeout count as silence: a trickle could otherwise go on for ever.
const TRICKLE: u64 = 1 << 10;

/// Where a blob goes, piece by piece. It checks size and digest itself.
pub trait Sink {
    /// Bytes so far.
    fn written(&self) -> u64;
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Forgets what was written.
    fn restart(&mut self) -> Result<()>;
}

impl Sink for store::BlobWriter {
    fn written(&self) -> u64 {
        store::BlobWriter::written(self)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        store::BlobWriter::write(self, bytes)
    }

    fn restart(&mut self) -> Result<()> {
        store::BlobWriter::restart(self)
    }
}

impl Repository {
    /// Downloads a blob (distribution spec, "Pulling blobs") into `sink`, telling `progress` how many bytes are there.
    ///
    /// # Errors
    /// As [`Repository::manifest`]; [`fault::Kind::Input`] when it does not have the size the descriptor says.
    pub fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut patience = Patience::new(&self.transport.options);
        loop {
            let before = sink.written();
            let failed = match self.try_blob(descriptor, sink, progress) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            // A trickle is no progress.
            if sink.written() >= before + TRICKLE {
                patience.progress();
            }
            patience.wait(failed)?;
        }
    }

    fn try_blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failed> {
        let from = sink.written();
        if from == descriptor.size && from > 0 {
            return Ok(());
        }
        let range =
            (from > 0).then(|| ("range", format!("bytes={from}-{}", descriptor.size.saturating_sub(1))));
        let headers: Vec<_> = range.into_iter().collect();
        let response = self.request(&Method::GET, &format!("blobs/{}", descriptor.digest), &headers);
        let response = match response {
            Err(Failed::Again { fault, after }) if from > 0 && fault.kind() == fault::Kind::Input => {
                sink.restart()?;
                return Err(Failed::Again { fault, after });
            }
            other => other?,
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let expected = format!("bytes {from}-{}/", descriptor.size.saturating_sub(1));
            if !header(&response, "content-range").is_some_and(|range| range.starts_with(&expected)) {
                sink.restart()?;
                let fault =
                    Fault::retryable("the registry sends another part of the blob than was asked for");
                return Err(Failed::Again { fault, after: None });
            }
        } else if from > 0 {
            // It knows no ranges and sends the whole.
            sink.restart()?;
        }
        let expected = descriptor.size.saturating_sub(sink.written());
        if let Some(length) = content_length(&response)
            && length != expected
        {
            return Err(Fault::input(format!(
                "blob {} has {length} bytes on the registry where {expected} were announced",
                descriptor.digest
            ))
            .into());
        }
        self.copy(descriptor, response.into_body().into_reader(), sink, progress)
    }

    fn copy(
        &self,
        descriptor: &Descriptor,
        mut reader: impl Read,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failed> {
        let mut chunk = vec![0; CHUNK];
        let mut watch = Watch::new(self.transport.options.timeout);
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    sink.write(chunk.get(..read).unwrap_or_default())?;
                    progress(sink.written());
                    watch.saw(read).map_err(|error| broken_read("the blob", error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken_read("the blob", error)),
            }
        }
        if sink.written() == descriptor.size {
            return Ok(());
        }
        // Without a length the end of a body and a cut look alike: ask for the rest.
        let fault = Fault::input(format!(
            "blob {} ends after {} of {} bytes",
            descriptor.digest,
            sink.written(),
            descriptor.size
        ));
        Err(Failed::Again { fault, after: None })
    }
}

/// Tells a trickle from a stream.
struct Watch {
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl Watch {
    fn new(window: Duration) -> Watch {
        Watch { window, since: Instant::now(), bytes: 0 }
    }

    fn saw(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes as u64;
        if self.bytes >= TRICKLE {
            self.bytes = 0;
            self.since = Instant::now();
        } else if self.since.elapsed() > self.window {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it only trickles"));
        }
        Ok(())
    }
}
