//! Blobs downloaded into a place that may have a part of them already.

use crate::repository::Repository;
use fault::{Explain, Fault, Result};
use oci::Descriptor;
use std::io::{self, Read};

/// Bytes handed on at a time.
const CHUNK: usize = 128 << 10;

/// Where a blob goes, piece by piece. It checks size and digest itself.
pub trait Sink {
    /// Bytes so far.
    fn written(&self) -> u64;
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Sink for store::BlobWriter {
    fn written(&self) -> u64 {
        store::BlobWriter::written(self)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        store::BlobWriter::write(self, bytes)
    }
}

impl Repository {
    /// Downloads what `sink` lacks of a blob, telling `progress` how many bytes are there.
    ///
    /// # Errors
    /// As [`Repository::open_blob`], and what the sink says.
    pub fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut reader = self.open_blob_range(descriptor, sink.written())?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return Err(own_failure(error)),
            };
            sink.write(chunk.get(..read).unwrap_or_default())?;
            progress(sink.written());
        }
    }
}

/// The fault a reader over the network hands up inside the I/O error.
pub(crate) fn own_failure(error: io::Error) -> Fault {
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => Err::<(), _>(error).explain(|| "read the blob".into()).unwrap_err(),
    }
}
