//! What a command writes to stdout: handed on as it comes, and kept.

use cli::{Explain, Result};
use std::io::{ErrorKind, Read, Write};

/// What is kept at most.
pub const MAX_BYTES: usize = 16 << 20;

pub struct Stdout {
    pub kept: Vec<u8>,
    /// There was more than is kept, or nobody took it.
    pub is_cut: bool,
}

impl Stdout {
    /// Until its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pass(mut from: impl Read) -> Result<Stdout> {
        let mut stdout = Stdout { kept: Vec::new(), is_cut: false };
        let mut buffer = vec![0; 64 << 10];
        let mut to = std::io::stdout().lock();
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => return Ok(stdout),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).explain(|| "read what the command writes".into()),
            };
            let piece = buffer.get(..length).unwrap_or_default();
            if to.write_all(piece).and_then(|()| to.flush()).is_err() {
                // The command finds out by writing on: its reader is gone, too.
                stdout.is_cut = true;
                return Ok(stdout);
            }
            if stdout.kept.len() + length > MAX_BYTES {
                stdout.is_cut = true;
                stdout.kept = Vec::new();
            }
            if !stdout.is_cut {
                stdout.kept.extend_from_slice(piece);
            }
        }
    }
}
