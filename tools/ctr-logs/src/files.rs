//! A log's files: `log.json`, and older ones `log.json.1`, `log.json.2` … which ctr-shim makes by renaming, and compresses
//! to `log.json.1.gz` … if told to.

use crate::entry::Entry;
use cli::{Explain, Result};
use flate2::read::GzDecoder;
use jiff::Timestamp;
pub use shim::log_files::numbered;
use shim::log_files::{Origin, with_suffix};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// More rotated files than anybody keeps.
const MAX_FILES: usize = 10_000;
/// A longer line is none that ctr-shim wrote.
const MAX_LINE: usize = 1 << 20;
const BLOCK: usize = 64 << 10;
/// How often files are searched for again because some moved; then what was found has to do.
const MAX_SEARCHES: usize = 100;

/// One open file of a log. Its inode stays the same however often it is renamed, and is no other file's as long as it is open.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// Of a compressed file.
    unpacked: Option<Unpacked>,
    /// Bytes read so far.
    read: u64,
    buffer: Vec<u8>,
    /// How much of the buffer has been handed out.
    used: usize,
    /// Within a line that is too long: dropped until its end.
    overlong: bool,
}

/// A compressed file's content, and which file that was.
#[derive(Debug)]
struct Unpacked {
    content: GzDecoder<File>,
    origin: Option<Origin>,
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

/// Opens the files newer than `known`, oldest first; without `known` all of them. `path` is that of the newest.
///
/// Opened from the newest on, because files only ever move to higher numbers: one that moves meanwhile is met twice,
/// which its inode tells, but never missed, if nothing else moved before the search was over: then it is begun again.
pub fn open_newer(path: &Path, known: Option<&LogFile>) -> Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for _ in 0..MAX_SEARCHES {
        let newest = inode(path);
        files = search(path, known)?;
        if inode(path) == newest {
            break;
        }
    }
    Ok(files)
}

fn search(path: &Path, known: Option<&LogFile>) -> Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    let mut missing = 0;
    for number in 0..MAX_FILES {
        let place = numbered(path, number);
        let opened = match LogFile::open(&place, false)? {
            None if number > 0 => LogFile::open(&with_suffix(&place, ".gz"), true)?,
            other => other,
        };
        let Some(file) = opened else {
            // While files move there is a gap in the numbers, that of the newest too.
            missing += 1;
            if missing > 2 {
                break;
            }
            continue;
        };
        missing = 0;
        if known.is_some_and(|known| known.is_same(&file)) {
            break;
        }
        if !files.iter().any(|other| other.is_same(&file)) {
            files.push(file);
        }
    }
    files.reverse();
    Ok(files)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|status| status.ino())
}

impl LogFile {
    fn open(path: &Path, compressed: bool) -> Result<Option<LogFile>> {
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
        let unpacked = if compressed {
            Some(Unpacked::open(&file).explain(|| format!("read {}", path.display()))?)
        } else {
            None
        };
        Ok(Some(LogFile { file, identity, unpacked, read: 0, buffer: Vec::new(), used: 0, overlong: false }))
    }

    /// Whether it is the same file as another, compressed meanwhile perhaps.
    fn is_same(&self, other: &LogFile) -> bool {
        let made_from = |compressed: &LogFile, plain: &LogFile| {
            let origin = compressed.unpacked.as_ref().and_then(|unpacked| unpacked.origin);
            plain.unpacked.is_none()
                && origin.is_some_and(|origin| {
                    plain.file.metadata().is_ok_and(|status| Origin::of(&status) == origin)
                })
        };
        self.identity == other.identity || made_from(self, other) || made_from(other, self)
    }

    fn read_block(&mut self) -> io::Result<usize> {
        let block = BLOCK as u64;
        match &mut self.unpacked {
            Some(unpacked) => match (&mut unpacked.content).take(block).read_to_end(&mut self.buffer) {
                // One whose end was lost is read as far as it goes.
                Err(error) if is_damage(&error) => Ok(0),
                other => other,
            },
            None => (&self.file).take(block).read_to_end(&mut self.buffer),
        }
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
            let read = self.read_block()?;
            self.read += read as u64;
            if read == 0 {
                return Ok(Line::End { torn: self.overlong || !self.buffer.is_empty() });
            }
        }
    }

    /// Where in the file the line handed out last ends.
    fn offset(&self) -> u64 {
        self.read - (self.buffer.len() - self.used) as u64
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
        self.read = offset;
        let Some(unpacked) = &mut self.unpacked else {
            return self.file.seek(SeekFrom::Start(offset)).map(drop);
        };
        *unpacked = Unpacked::open(&self.file)?;
        io::copy(&mut (&mut unpacked.content).take(offset), &mut io::sink()).map(drop)
    }
}

impl Unpacked {
    fn open(file: &File) -> io::Result<Unpacked> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        let content = GzDecoder::new(file);
        let origin = content.header().and_then(|header| header.comment()).and_then(Origin::parse);
        Ok(Unpacked { content, origin })
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
    )
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
pub fn keep_tail(files: &mut Vec<LogFile>, count: u64, window: Window) -> io::Result<()> {
    let mut counted = Counted { count, window, ends: 0, seen: false };
    for index in (0..files.len()).rev() {
        let start = if files[index].unpacked.is_some() {
            counted.forwards(&mut files[index])?
        } else {
            counted.backwards(&files[index])?
        };
        if let Some(start) = start {
            files[index].start_at(start)?;
            files.drain(..index);
            return Ok(());
        }
        // As it was before lines were counted.
        if files[index].unpacked.is_some() {
            files[index].start_at(0)?;
        }
    }
    Ok(())
}

/// Lines counted for `--tail`, from the newest file on.
struct Counted {
    count: u64,
    window: Window,
    /// Ends of lines so far.
    ends: u64,
    /// Whether there was an entry at all.
    seen: bool,
}

/// What an entry is to a window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    After,
}

impl Counted {
    fn place(&self, entry: &Entry<'_>) -> Place {
        let moment = entry.moment();
        if self.window.until.is_some_and(|until| moment.is_some_and(|moment| moment > until)) {
            return Place::After;
        }
        if self.window.since.is_some_and(|since| moment.is_some_and(|moment| moment < since)) {
            return Place::Before;
        }
        Place::Within
    }

    /// Where in the file the lines wanted begin; `None` if before it.
    fn backwards(&mut self, file: &LogFile) -> io::Result<Option<u64>> {
        let mut backward = Backward::new(file)?;
        while let Some((end, line)) = backward.next(&file.file)? {
            let Some(entry) = Entry::parse(&line) else { continue };
            let place = self.place(&entry);
            if place == Place::After {
                continue;
            }
            // The last line counts even when its end has not been written yet.
            if entry.log.ends_with('\n') || !self.seen {
                self.ends += 1;
            }
            self.seen = true;
            // The line before the first one wanted: what follows it is wanted.
            if place == Place::Before || self.ends > self.count {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// The same for a file that can only be read from its beginning.
    fn forwards(&mut self, file: &mut LogFile) -> io::Result<Option<u64>> {
        let wanted = self.count.saturating_sub(self.ends);
        // Where the last lines end, one more than are wanted.
        let mut ends: VecDeque<u64> = VecDeque::new();
        let (mut too_old, mut unended) = (None, None);
        loop {
            let range = match file.next_line()? {
                Line::Whole(range) => range,
                Line::TooLong => continue,
                Line::End { .. } => break,
            };
            let offset = file.offset();
            let Some(entry) = Entry::parse(file.line(range)) else { continue };
            match self.place(&entry) {
                Place::After => continue,
                Place::Before => too_old = Some(offset),
                Place::Within => {}
            }
            unended = if entry.log.ends_with('\n') { None } else { Some(offset) };
            if unended.is_none() {
                ends.push_back(offset);
                if ends.len() as u64 > wanted.saturating_add(1) {
                    ends.pop_front();
                }
            }
        }
        // The very last line, without an end.
        if !self.seen
            && let Some(end) = unended
        {
            ends.push_back(end);
        }
        self.seen |= !ends.is_empty() || unended.is_some();
        let first = ends.len().checked_sub(1).and_then(|last| (last as u64).checked_sub(wanted));
        let first = first.and_then(|index| ends.get(index as usize)).copied();
        self.ends += ends.len() as u64;
        Ok(first.max(too_old))
    }
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

    fn write_file(dir: &Path, number: usize, content: &[u8]) {
        std::fs::write(numbered(&dir.join("log.json"), number), content).unwrap();
    }

    /// As ctr-shim does it.
    fn compress(dir: &Path, number: usize) {
        let path = numbered(&dir.join("log.json"), number);
        let content = std::fs::read(&path).unwrap();
        let origin = Origin::of(&std::fs::metadata(&path).unwrap());
        let file = File::create(with_suffix(&path, ".gz")).unwrap();
        let builder = flate2::GzBuilder::new().comment(origin.to_string());
        let mut writer = builder.write(file, flate2::Compression::fast());
        std::io::Write::write_all(&mut writer, &content).unwrap();
        writer.finish().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    fn write(dir: &Path, number: usize, texts: &[&str]) {
        let lines = texts.iter().map(|text| {
            let hour = text.bytes().find(u8::is_ascii_digit).map_or(0, |b| b - b'0');
            let log = serde_json::json!({
                "log": text, "stream": "stdout", "time": format!("2026-01-01T0{hour}:00:00Z")
            });
            log.to_string() + "\n"
        });
        write_file(dir, number, lines.collect::<String>().as_bytes());
    }

    fn left(dir: &Path, count: u64, window: Window) -> String {
        let mut files = open_newer(&dir.join("log.json"), None).unwrap();
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
        check_tails(&dir, &long);
        // The same from compressed files.
        compress(&dir, 2);
        check_tails(&dir, &long);
        compress(&dir, 1);
        check_tails(&dir, &long);
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn check_tails(dir: &Path, long: &str) {
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
            assert_eq!(left(dir, count, all), wanted, "{count}");
        }
        let until = Window { since: None, until: "2026-01-01T03:30:00Z".parse().ok() };
        // What is too new does not count, and the printing stops before it.
        assert!(left(dir, 1, until).starts_with("3a3b\n"));
        let since = Window { since: "2026-01-01T04:00:00Z".parse().ok(), until: None };
        assert_eq!(left(dir, 100, since), format!("{long}5\n6"));
    }

    #[test]
    fn a_file_that_was_compressed_meanwhile_is_known() {
        let dir = std::env::temp_dir().join(format!("ctr-logs-known-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log.json");
        write(&dir, 0, &["1\n"]);
        let known = open_newer(&path, None).unwrap().remove(0);
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        compress(&dir, 1);
        assert_eq!(open_newer(&path, Some(&known)).unwrap().len(), 0);
        write(&dir, 0, &["2\n"]);
        assert_eq!(open_newer(&path, Some(&known)).unwrap().len(), 1);
        assert_eq!(open_newer(&path, None).unwrap().len(), 2);
        // Killed before the file was removed: both are there.
        let content = std::fs::read(&path).unwrap();
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        std::fs::remove_file(with_suffix(&numbered(&path, 1), ".gz")).unwrap();
        let one = numbered(&path, 1);
        std::fs::hard_link(&one, dir.join("kept")).unwrap();
        compress(&dir, 1);
        std::fs::rename(dir.join("kept"), &one).unwrap();
        write_file(&dir, 0, &content);
        assert_eq!(open_newer(&path, None).unwrap().len(), 2);
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
        write_file(&dir, 0, &content);
        let all = Window { since: None, until: None };
        for (count, wanted) in [(1, "x\n"), (2, "x\nx\n")] {
            assert_eq!(left(&dir, count, all), wanted);
        }
        let mut file = open_newer(&dir.join("log.json"), None).unwrap().remove(0);
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
