//! The files of events, read on as they grow and are put away.

use cli::{Explain, Result};
use jiff::Timestamp;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use store::{LONGEST_EVENT, Store};

const BLOCK: usize = 64 << 10;
/// Files may be put away just while they are listed.
const TRIES: usize = 8;

pub struct Reader {
    store: Store,
    since: Option<Timestamp>,
    /// The file read last, and what there is of its last line.
    last: Option<(File, (u64, u64))>,
    begun: Vec<u8>,
    overlong: bool,
    /// Lines too long to be events.
    pub skipped: u64,
}

impl Reader {
    pub fn new(store: &Store, since: Option<Timestamp>) -> Reader {
        Reader { store: store.clone(), since, last: None, begun: Vec::new(), overlong: false, skipped: 0 }
    }

    /// Hands out all lines that are there by now and were not handed out, until `take` says false.
    pub fn read(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let newer = self.newer()?;
        if let Some((file, _)) = self.last.take_if(|_| !newer.is_empty()) {
            // Nothing more is written to it, but for what was on its way just now.
            if !self.lines(&file, &mut take)? {
                return Ok(());
            }
            self.begun.clear();
            self.overlong = false;
        }
        if newer.is_empty() {
            let Some((file, identity)) = self.last.take() else { return Ok(()) };
            let outcome = self.lines(&file, &mut take);
            self.last = Some((file, identity));
            return outcome.map(drop);
        }
        for (file, identity) in newer {
            self.begun.clear();
            let more = self.lines(&file, &mut take)?;
            self.last = Some((file, identity));
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Files after the one read last, oldest first.
    fn newer(&self) -> Result<Vec<(File, (u64, u64))>> {
        let known = self.last.as_ref().map(|(_, identity)| *identity);
        let mut files = Vec::new();
        for _ in 0..TRIES {
            files.clear();
            let mut met = false;
            for path in self.store.event_files().into_iter().rev() {
                let Some((file, identity)) = open(&path)? else { continue };
                if Some(identity) == known {
                    met = true;
                    break;
                }
                if self.ended_before(&path) {
                    break;
                }
                files.push((file, identity));
            }
            // One that is not there has been removed as too old, or renamed just now.
            if met || known.is_none() {
                break;
            }
        }
        files.reverse();
        Ok(files)
    }

    /// Whether all of a file that was put away is older than what is wanted: its name says when.
    fn ended_before(&self, path: &Path) -> bool {
        let moment =
            path.file_stem().and_then(|stem| stem.to_str()?.strip_prefix("events-")?.parse::<i128>().ok());
        match (self.since, moment) {
            (Some(since), Some(moment)) => moment < since.as_nanosecond(),
            _ => false,
        }
    }

    fn lines(&mut self, mut file: &File, take: &mut impl FnMut(&[u8]) -> bool) -> Result<bool> {
        let mut block = vec![0; BLOCK];
        loop {
            let count = match file.read(&mut block) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.explain(|| "read the events".into())?,
            };
            if count == 0 {
                return Ok(true);
            }
            for piece in block[..count].split_inclusive(|byte| *byte == b'\n') {
                self.begun.extend_from_slice(piece);
                let whole = self.begun.last() == Some(&b'\n');
                if self.begun.len() > LONGEST_EVENT {
                    self.overlong = true;
                    self.begun.clear();
                }
                if !whole {
                    continue;
                }
                let line = std::mem::take(&mut self.begun);
                if std::mem::take(&mut self.overlong) {
                    self.skipped += 1;
                } else if !take(line.strip_suffix(b"\n").unwrap_or(&line)) {
                    return Ok(false);
                }
            }
        }
    }
}

fn open(path: &PathBuf) -> Result<Option<(File, (u64, u64))>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags.bits() as i32).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.explain(|| format!("open {}", path.display()))?,
    };
    let meta = file.metadata().explain(|| format!("look at {}", path.display()))?;
    Ok(Some((file, (meta.dev(), meta.ino()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn taken(reader: &mut Reader) -> Vec<String> {
        let mut lines = Vec::new();
        reader
            .read(|line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
                true
            })
            .unwrap();
        lines
    }

    #[test]
    fn files_are_followed_when_they_are_put_away() {
        let dir = std::env::temp_dir().join(format!("ctr-events-log-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        std::fs::create_dir_all(store.events_dir()).unwrap();
        let current = store.event_files().pop().unwrap();
        let append = |path: &Path, text: &str| {
            File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        let mut reader = Reader::new(&store, None);
        assert!(taken(&mut reader).is_empty());
        append(&current, "1\n2");
        assert_eq!(taken(&mut reader), ["1"]);
        append(&current, "2\n");
        assert_eq!(taken(&mut reader), ["22"]);
        append(&current, &format!("3\n{}\n4\n", "x".repeat(10_000)));
        std::fs::rename(&current, store.events_dir().join("events-00000000000000000009.ndjson")).unwrap();
        append(&current, "5\n");
        assert_eq!(taken(&mut reader), ["3", "4", "5"]);
        assert_eq!(reader.skipped, 1);
        assert!(taken(&mut reader).is_empty());
        // From the beginning, and without what ended too early.
        assert_eq!(taken(&mut Reader::new(&store, None)).len(), 5);
        assert_eq!(taken(&mut Reader::new(&store, Timestamp::from_second(1).ok())), ["5"]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
