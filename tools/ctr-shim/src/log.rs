//! The json-file log: `{"log":"text\n","stream":"stdout","time":"…"}` a line, as docker writes it.

use fault::{Explain, Result};
use oci::wishes::LogWish;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest piece of a line in one entry, in bytes; docker's.
const LONGEST: usize = 16 << 10;

pub struct Log {
    target: Option<Target>,
    /// Begun lines of stdout and stderr.
    begun: [Vec<u8>; 2],
    out: Vec<u8>,
}

struct Target {
    path: PathBuf,
    /// Opened when there is something to write: most containers that are made to do one thing say nothing.
    file: Option<File>,
    size: u64,
    max_size: Option<u64>,
    max_file: u32,
}

impl Log {
    pub fn open(bundle: &Path, settings: &LogWish) -> Log {
        let target = match settings {
            LogWish::None => None,
            LogWish::JsonFile { max_size, max_files } => {
                let path = bundle.join("log.json");
                Some(Target { path, file: None, size: 0, max_size: *max_size, max_file: *max_files })
            }
        };
        Log { target, begun: [Vec::new(), Vec::new()], out: Vec::new() }
    }

    /// Takes output as it comes; whole lines are written at once, with one write for all of them.
    pub fn write(&mut self, stream: usize, mut bytes: &[u8]) {
        if self.target.is_none() {
            return;
        }
        let time = now();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.begun[stream].is_empty() {
                self.entries(stream, line, &time);
            } else {
                let mut whole = std::mem::take(&mut self.begun[stream]);
                whole.extend_from_slice(line);
                self.entries(stream, &whole, &time);
            }
        }
        self.begun[stream].extend_from_slice(bytes);
        while self.begun[stream].len() >= LONGEST {
            let begun = std::mem::take(&mut self.begun[stream]);
            let cut = boundary(&begun, LONGEST);
            self.entries(stream, &begun[..cut], &time);
            self.begun[stream] = begun[cut..].to_vec();
        }
        self.flush();
    }

    /// What was begun and never ended.
    pub fn finish(&mut self) {
        let time = now();
        for stream in 0..2 {
            let begun = std::mem::take(&mut self.begun[stream]);
            if !begun.is_empty() {
                self.entries(stream, &begun, &time);
            }
        }
        self.flush();
    }

    fn entries(&mut self, stream: usize, mut text: &[u8], time: &str) {
        while text.len() > LONGEST + 1 {
            let (piece, rest) = text.split_at(boundary(text, LONGEST));
            self.entry(stream, piece, time);
            text = rest;
        }
        self.entry(stream, text, time);
    }

    fn entry(&mut self, stream: usize, text: &[u8], time: &str) {
        self.out.extend_from_slice(b"{\"log\":\"");
        escape(&mut self.out, text);
        self.out.extend_from_slice(if stream == 0 {
            b"\",\"stream\":\"stdout\",\"time\":\""
        } else {
            b"\",\"stream\":\"stderr\",\"time\":\""
        });
        self.out.extend_from_slice(time.as_bytes());
        self.out.extend_from_slice(b"\"}\n");
    }

    /// A full disk must not stop the container: what cannot be written is lost, as with docker.
    fn flush(&mut self) {
        if let Some(target) = &mut self.target
            && !self.out.is_empty()
        {
            target.write(&self.out);
        }
        self.out.clear();
        if self.out.capacity() > 256 << 10 {
            self.out.shrink_to(64 << 10);
        }
    }
}

impl Target {
    fn write(&mut self, bytes: &[u8]) {
        if self.file.is_none() {
            self.open();
        }
        self.rotate_if_full(bytes.len() as u64);
        if self.file.as_mut().is_some_and(|file| file.write_all(bytes).is_ok()) {
            self.size += bytes.len() as u64;
        }
    }

    fn open(&mut self) {
        self.file = open(&self.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len());
    }

    /// Between lines only. `log.json.1` is the newest of the old ones.
    fn rotate_if_full(&mut self, coming: u64) {
        let Some(max_size) = self.max_size else { return };
        if self.size == 0 || self.size + coming <= max_size {
            return;
        }
        let numbered = |number: u32| self.path.with_file_name(format!("log.json.{number}"));
        for number in (1..self.max_file.saturating_sub(1)).rev() {
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        if self.max_file > 1 {
            let _ = std::fs::rename(&self.path, numbered(1));
        } else {
            let _ = std::fs::remove_file(&self.path);
        }
        self.open();
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
        .explain(|| format!("open the log {}", path.display()))
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
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

/// Bytes as the inside of a JSON string; what is not UTF-8 becomes U+FFFD, as docker does it.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("shim-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn texts(path: &Path) -> Vec<(String, String)> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                (value["stream"].as_str().unwrap().to_owned(), value["log"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let dir = directory("lines");
        let mut log = Log::open(&dir, &LogWish::JsonFile { max_size: None, max_files: 1 });
        log.write(0, b"he");
        log.write(1, b"err\n");
        log.write(0, "llo \"\u{e9}\\\u{1}\n\nlast".as_bytes());
        log.finish();
        let expected = [
            ("stderr", "err\n"),
            ("stdout", "hello \"\u{e9}\\\u{1}\n"),
            ("stdout", "\n"),
            ("stdout", "last"),
        ];
        let got = texts(&dir.join("log.json"));
        assert_eq!(got.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>(), expected);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let dir = directory("long");
        let mut log = Log::open(&dir, &LogWish::JsonFile { max_size: None, max_files: 1 });
        let text = "\u{20ac}".repeat(20_000);
        for piece in text.as_bytes().chunks(1000) {
            log.write(0, piece);
        }
        log.finish();
        let joined: String = texts(&dir.join("log.json")).into_iter().map(|(_, text)| text).collect();
        assert_eq!(joined, text);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn rotation_loses_and_tears_nothing() {
        let dir = directory("rotate");
        let mut log = Log::open(&dir, &LogWish::JsonFile { max_size: Some(500), max_files: 100 });
        for number in 0..50 {
            log.write(0, format!("line {number}\n").as_bytes());
        }
        log.finish();
        let mut all = Vec::new();
        for number in (1..100).rev() {
            let path = dir.join(format!("log.json.{number}"));
            if path.exists() {
                assert!(std::fs::metadata(&path).unwrap().len() <= 500);
                all.extend(texts(&path));
            }
        }
        all.extend(texts(&dir.join("log.json")));
        let expected: Vec<_> = (0..50).map(|n| ("stdout".to_owned(), format!("line {n}\n"))).collect();
        assert_eq!(all, expected);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut out = Vec::new();
        escape(&mut out, b"a\xffb\x00");
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}b\\u0000");
    }
}
