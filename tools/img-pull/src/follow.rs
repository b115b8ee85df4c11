//! Reading a file behind the one who writes it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How far the writer is.
#[derive(Debug)]
pub struct Flow {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug)]
struct State {
    written: u64,
    /// Whether all came.
    end: Option<bool>,
}

impl Flow {
    pub fn new(written: u64) -> Flow {
        Flow { state: Mutex::new(State { written, end: None }), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told by the writer, after its bytes are in the file.
    pub fn reached(&self, written: u64) {
        self.lock().written = written;
        self.moved.notify_all();
    }

    pub fn end(&self, complete: bool) {
        self.lock().end = Some(complete);
        self.moved.notify_all();
    }

    pub fn follower(&self, file: File) -> Follower<'_> {
        Follower { flow: self, file, at: 0 }
    }
}

/// Waits for bytes that are not there yet.
#[derive(Debug)]
pub struct Follower<'a> {
    flow: &'a Flow,
    file: File,
    at: u64,
}

impl Read for Follower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.flow.lock();
        let available = loop {
            match state.end {
                Some(false) => return Err(io::Error::other("the download failed")),
                _ if state.written > self.at => break state.written - self.at,
                Some(true) => return Ok(0),
                None => state = self.flow.moved.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        let length = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        if read == 0 && length > 0 {
            // Cut off behind our back.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_reader_sees_what_is_written_after_it_began() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one ").unwrap();
        let flow = Flow::new(4);
        let mut follower = flow.follower(file.try_clone().unwrap());
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut text = String::new();
                follower.read_to_string(&mut text).map(|_| text)
            });
            for (piece, end) in [("two ", 8), ("three", 13)] {
                file.write_all(piece.as_bytes()).unwrap();
                flow.reached(end);
            }
            flow.end(true);
            assert_eq!(reader.join().unwrap().unwrap(), "one two three");
        });
        let mut late = flow.follower(file);
        flow.end(false);
        assert!(late.read(&mut [0; 4]).is_err());
    }
}
