//! The json-file log: `{"log":"text\n","stream":"stdout","attrs":{…},"time":"…"}` a line, as docker writes it.

use super::Piece;
use flate2::{Compression, GzBuilder};
use oci::wishes::LogFiles;
use shim::log_files::{Origin, numbered, with_suffix};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub struct Files {
    path: PathBuf,
    /// Opened when there is something to write: most containers that are made to do one thing say nothing.
    file: Option<File>,
    size: u64,
    max_size: Option<u64>,
    /// Files kept, the present one included.
    most_kept: usize,
    compress: bool,
    /// `,"attrs":{…}`, or nothing.
    attributes: Vec<u8>,
    out: Vec<u8>,
}

impl Files {
    pub fn new(path: PathBuf, wish: &LogFiles, attributes: &BTreeMap<String, String>) -> Files {
        let attributes = if attributes.is_empty() {
            Vec::new()
        } else {
            format!(",\"attrs\":{}", serde_json::json!(attributes)).into_bytes()
        };
        Files {
            path,
            file: None,
            size: 0,
            max_size: wish.max_size,
            most_kept: wish.max_files as usize,
            compress: wish.compress,
            attributes,
            out: Vec::new(),
        }
    }

    pub fn add(&mut self, piece: &Piece<'_>) {
        self.out.extend_from_slice(b"{\"log\":\"");
        escape(&mut self.out, piece.text);
        self.out.extend_from_slice(if piece.stream == 0 {
            b"\",\"stream\":\"stdout\""
        } else {
            b"\",\"stream\":\"stderr\""
        });
        self.out.extend_from_slice(&self.attributes);
        self.out.extend_from_slice(b",\"time\":\"");
        self.out.extend_from_slice(piece.at.text.as_bytes());
        self.out.extend_from_slice(b"\"}\n");
    }

    /// A full disk must not stop the container: what cannot be written is lost, as with docker.
    pub fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let out = std::mem::take(&mut self.out);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let now = self.fitting(rest);
            self.write(&rest[..now]);
            rest = &rest[now..];
        }
        self.out = out;
        self.out.clear();
        if self.out.capacity() > 256 << 10 {
            self.out.shrink_to(64 << 10);
        }
    }

    /// How many bytes go into the present file, of which there is room for them by then: whole entries, one at least.
    fn fitting(&mut self, bytes: &[u8]) -> usize {
        if self.file.is_none() {
            self.open();
        }
        let Some(max_size) = self.max_size else { return bytes.len() };
        loop {
            let room = usize::try_from(max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            if bytes.len() <= room {
                return bytes.len();
            }
            if let Some(feed) = bytes[..room].iter().rposition(|byte| *byte == b'\n') {
                return feed + 1;
            }
            if self.size == 0 {
                // It is longer than a file may be.
                return bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |feed| feed + 1);
            }
            self.rotate();
            if self.size > 0 {
                // The file cannot be moved out of the way: it grows rather than that lines are lost.
                return bytes.len();
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if file.write_all(bytes).is_ok() {
            self.size += bytes.len() as u64;
        } else {
            // No half a line before the next one.
            let _ = file.set_len(self.size);
        }
    }

    fn open(&mut self) {
        self.file = open(&self.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len());
    }

    fn rotate(&mut self) {
        if self.most_kept > 1 {
            for suffix in ["", ".gz"] {
                let _ = std::fs::remove_file(with_suffix(&numbered(&self.path, self.most_kept - 1), suffix));
            }
            // What is behind a gap, where a shim was killed between two steps, moves when that is filled.
            let there = |number: &usize| {
                let path = numbered(&self.path, *number);
                path.exists() || with_suffix(&path, ".gz").exists()
            };
            let count = (1..self.most_kept - 1).take_while(there).count();
            for number in (1..=count).rev() {
                for suffix in ["", ".gz"] {
                    let from = with_suffix(&numbered(&self.path, number), suffix);
                    let _ = std::fs::rename(from, with_suffix(&numbered(&self.path, number + 1), suffix));
                }
            }
            let _ = std::fs::rename(&self.path, numbered(&self.path, 1));
        } else {
            let _ = std::fs::remove_file(&self.path);
        }
        self.open();
        if self.compress && self.most_kept > 1 {
            // What is not compressed, for want of room say, can be read all the same.
            let _ = compress(&numbered(&self.path, 1));
        }
    }
}

/// Killed at any instruction there is the file, or the compressed one, or both, which readers know to be the same.
fn compress(path: &Path) -> io::Result<()> {
    let (part, done) = (with_suffix(path, ".gz.part"), with_suffix(path, ".gz"));
    let mut source = File::open(path)?;
    let origin = Origin::of(&source.metadata()?);
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(0o640).open(&part)?;
    let mut writer = GzBuilder::new().comment(origin.to_string()).write(target, Compression::fast());
    let written = io::copy(&mut source, &mut writer).and_then(|_| writer.finish());
    match written.and_then(|_| std::fs::rename(&part, &done)) {
        Ok(()) => std::fs::remove_file(path),
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != *b"\n" {
        // A shim was killed within a line: what there is of it stays one of its own, and the next one is whole.
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Bytes as the inside of a JSON string; what is not UTF-8 becomes U+FFFD, as docker does it.
pub fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut from = 0;
        for (at, byte) in valid.iter().enumerate() {
            if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            out.extend_from_slice(&valid[from..at]);
            from = at + 1;
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                other => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.extend_from_slice(b"\\u00");
                    out.extend([HEX[usize::from(other >> 4)], HEX[usize::from(other & 15)]]);
                }
            }
        }
        out.extend_from_slice(&valid[from..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}
