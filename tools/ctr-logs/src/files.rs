//! A log's files: `log.json`, and older ones `log.json.1`, `log.json.2` … which ctr-shim makes by renaming.

use crate::entry::Entry;
use cli::{Explain, Result};
use jiff::Timestamp;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More rotated files than anybody keeps.
const MAX_FILES: usize = 10_000;
/// A longer line is none that ctr-shim wrote.
const MAX_LINE: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

/// One open file of a log. Its inode stays the same however often it is renamed.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    /// Device and inode.
    pub identity: (u64, u64),
    buffer: Vec<u8>,
    /// How much of the buffer has been handed out.
    used: usize,
    /// Within a line that is too long: dropped until its end.
    overlong: bool,
}

/// What [`LogFile::next_line`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, in [`LogFile::line`].
    Whole(std::ops::Range<usize>),
    TooLong,
    /// The end of the file for now; `torn` if it ends within a line.
    End {
        torn: bool,
    },
}

pub fn path_of(bundle: &Path, number: usize) -> PathBuf {
    if number == 0 { bundle.join("log.json") } else { bundle.join(format!("log.json.{number}")) }
}

/// Opens the files newer than `known`, oldest first; without `known` all of them.
///
/// Opened from the newest on, because files only ever move to higher numbers: one that moves meanwhile is met twice,
/// which its inode tells, but never missed.
pub fn open_newer(bundle: &Path, known: Option<(u64, u64)>) -> Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    for number in 0..MAX_FILES {
        let Some(file) = LogFile::open(&path_of(bundle, number))? else {
            // There is no newest file for a moment while the others have moved.
            if number == 0 {
                continue;
            }
            break;
        };
        if Some(file.identity) == known {
            break;
        }
        if !files.iter().any(|other| other.identity == file.identity) {
            files.push(file);
        }
    }
    files.reverse();
    Ok(files)
}

impl LogFile {
    fn open(path: &Path) -> Result<Option<LogFile>> {
        let file = match File::options()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32)
            .open(path)
        {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.explain(|| format!("open {}", path.display()))?,
        };
        let status = file.metadata().explain(|| format!("look at {}", path.display()))?;
        let identity = (status.dev(), status.ino());
        Ok(Some(LogFile { file, identity, buffer: Vec::new(), used: 0, overlong: false }))
    }

    /// The next line of what is in the file by now.
    pub fn next_line(&mut self) -> std::io::Result<Line> {
        let mut searched = self.used;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.used..searched + length;
                self.used = line.end + 1;
                if std::mem::take(&mut self.overlong) {
                    return Ok(Line::TooLong);
                }
                return Ok(Line::Whole(line));
            }
            if self.buffer.len() - self.used > MAX_LINE {
                self.overlong = true;
                self.used = self.buffer.len();
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            searched = self.buffer.len();
            let read = (&self.file).take(BLOCK as u64).read_to_end(&mut self.buffer)?;
            if read == 0 {
                return Ok(Line::End { torn: self.overlong || !self.buffer.is_empty() });
            }
        }
    }

    pub fn line(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// What there is of a line that the file ends within.
    pub fn torn(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    /// Drops what there is of a line that will not go on.
    pub fn give_up_torn(&mut self) {
        self.used = self.buffer.len();
        self.overlong = false;
    }

    fn start_at(&mut self, offset: u64) -> std::io::Result<()> {
        self.buffer.clear();
        self.used = 0;
        self.file.seek(SeekFrom::Start(offset)).map(drop)
    }
}

/// Which lines count for `--tail`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Drops files and moves the start of the first one that stays, so that the last `count` lines within the window are
/// left. Reads backwards, and no more than it has to.
///
/// Lines are those of the container's output: an entry without a line feed is part of the line that the next one ends.
pub fn keep_tail(files: &mut Vec<LogFile>, count: u64, window: Window) -> std::io::Result<()> {
    let mut ends = 0;
    let mut seen = false;
    for index in (0..files.len()).rev() {
        let mut backward = Backward::new(&files[index])?;
        while let Some((end, line)) = backward.next(&files[index].file)? {
            let Some(entry) = Entry::parse(&line) else { continue };
            let moment = entry.moment();
            if window.until.is_some_and(|until| moment.is_some_and(|moment| moment > until)) {
                continue;
            }
            let too_old = window.since.is_some_and(|since| moment.is_some_and(|moment| moment < since));
            let ends_line = entry.log.ends_with('\n');
            // The last line counts even when its end has not been written yet.
            if ends_line || !seen {
                ends += 1;
            }
            seen = true;
            // The line before the first one wanted: what follows it is wanted.
            if too_old || ends > count {
                files[index].start_at(end)?;
                files.drain(..index);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whole lines of a file from its end to its beginning.
struct Backward {
    /// Offset in the file of the buffer's first byte.
    start: u64,
    buffer: Vec<u8>,
}

impl Backward {
    fn new(file: &LogFile) -> std::io::Result<Backward> {
        let mut backward = Backward { start: file.file.metadata()?.len(), buffer: Vec::new() };
        // What follows the last line feed is no whole line.
        while backward.more(&file.file)? {
            if let Some(feed) = backward.buffer.iter().rposition(|b| *b == b'\n') {
                backward.buffer.truncate(feed + 1);
                break;
            }
            backward.buffer.clear();
        }
        Ok(backward)
    }

    /// A line without its line feed, and the offset after that feed.
    fn next(&mut self, file: &File) -> std::io::Result<Option<(u64, Vec<u8>)>> {
        if self.buffer.is_empty() && !self.more(file)? {
            return Ok(None);
        }
        loop {
            let length = self.buffer.len();
            let text = &self.buffer[..length - 1];
            let begin = match text.iter().rposition(|b| *b == b'\n') {
                Some(feed) => Some(feed + 1),
                None if self.start == 0 => Some(0),
                None => None,
            };
            if let Some(begin) = begin {
                let line = self.buffer[begin..length - 1].to_vec();
                self.buffer.truncate(begin);
                return Ok(Some((self.start + length as u64, line)));
            }
            if !self.more(file)? {
                return Ok(None);
            }
        }
    }

    /// Reads the block before what is in the buffer.
    fn more(&mut self, file: &File) -> std::io::Result<bool> {
        if self.start == 0 {
            return Ok(false);
        }
        // What is too long to be a line is not kept; reading goes on before it.
        if self.buffer.len() > MAX_LINE + BLOCK {
            self.buffer.drain(..self.buffer.len() - 1);
        }
        let length = self.start.min(BLOCK as u64);
        let mut block = vec![0; length as usize];
        file.read_exact_at(&mut block, self.start - length)?;
        block.extend_from_slice(&self.buffer);
        self.buffer = block;
        self.start -= length;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, number: usize, texts: &[&str]) {
        let lines = texts.iter().map(|text| {
            let hour = text.bytes().find(u8::is_ascii_digit).map_or(0, |b| b - b'0');
            let log = serde_json::json!({
                "log": text, "stream": "stdout", "time": format!("2026-01-01T0{hour}:00:00Z")
            });
            log.to_string() + "\n"
        });
        std::fs::write(path_of(dir, number), lines.collect::<String>()).unwrap();
    }

    fn left(dir: &Path, count: u64, window: Window) -> String {
        let mut files = open_newer(dir, None).unwrap();
        keep_tail(&mut files, count, window).unwrap();
        let mut text = String::new();
        for file in &mut files {
            loop {
                match file.next_line().unwrap() {
                    Line::Whole(range) => {
                        text += Entry::parse(file.line(range)).map_or("".into(), |entry| entry.log).as_ref();
                    }
                    Line::TooLong => {}
                    Line::End { torn } => {
                        assert!(!torn || file.torn().starts_with(b"{\"log"));
                        break;
                    }
                }
            }
        }
        text
    }

    #[test]
    fn the_last_lines_over_several_files() {
        let dir = std::env::temp_dir().join(format!("ctr-logs-tail-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let long = format!("{}\n", "4".repeat(200_000));
        write(&dir, 2, &["1\n", "2\n"]);
        write(&dir, 1, &["3a", "3b\n", &long]);
        write(&dir, 0, &["5\n", "6"]);
        let all = Window { since: None, until: None };
        for (count, wanted) in [
            (0, String::new()),
            (1, "6".to_owned()),
            (2, "5\n6".to_owned()),
            (3, format!("{long}5\n6")),
            (4, format!("3a3b\n{long}5\n6")),
            (5, format!("2\n3a3b\n{long}5\n6")),
            (100, format!("1\n2\n3a3b\n{long}5\n6")),
        ] {
            assert_eq!(left(&dir, count, all), wanted, "{count}");
        }
        let until = Window { since: None, until: "2026-01-01T03:30:00Z".parse().ok() };
        // What is too new does not count, and the printing stops before it.
        assert!(left(&dir, 1, until).starts_with("3a3b\n"));
        let since = Window { since: "2026-01-01T04:00:00Z".parse().ok(), until: None };
        assert_eq!(left(&dir, 100, since), format!("{long}5\n6"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn garbage_is_no_line_and_no_end() {
        let dir = std::env::temp_dir().join(format!("ctr-logs-garbage-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let entry = r#"{"log":"x\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        let mut content = format!("{entry}\n").into_bytes();
        content.extend(vec![0; 3 << 20]);
        content.extend(format!("\n{entry}\nnonsense\n{entry}\n{{\"log").into_bytes());
        std::fs::write(path_of(&dir, 0), content).unwrap();
        let all = Window { since: None, until: None };
        for (count, wanted) in [(1, "x\n"), (2, "x\nx\n")] {
            assert_eq!(left(&dir, count, all), wanted);
        }
        let mut file = open_newer(&dir, None).unwrap().remove(0);
        let mut found = Vec::new();
        loop {
            match file.next_line().unwrap() {
                Line::Whole(range) => found.push(Entry::parse(file.line(range)).is_some()),
                Line::TooLong => found.push(false),
                Line::End { torn } => break assert!(torn),
            }
        }
        assert_eq!(found, [true, false, true, false, true]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
