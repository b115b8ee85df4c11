//! `events/`: what has happened, a line of JSON each, written by whoever did it as there is no daemon to ask.
//!
//! An event costs an open, a write and a close: no lock, no flush. A line is shorter than [`LONGEST_LINE`] and written by one
//! write(2) to the end of the file, so lines of several processes do not mix. The newest file is `events.ndjson`; one that has
//! grown to [`LARGEST_FILE`] is renamed after its last moment, and of those [`OLD_FILES`] are kept.

use crate::{Store, make_dirs};
use record::Record;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest line, with its line feed, in bytes: what a pipe takes at once (PIPE_BUF), for whoever passes them on.
pub const LONGEST_LINE: usize = 4096;
/// Bytes after which a file is put away: some ten thousand events.
pub const LARGEST_FILE: u64 = 4 << 20;
/// Files kept beside the newest.
pub const OLD_FILES: usize = 4;
/// Longest text of an attribute, in bytes.
const LONGEST_TEXT: usize = 512;
/// Longest labels all together; longer ones are left out.
const LONGEST_LABELS: usize = 1536;

/// Whom an event is about.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// `container`, `image`, `network` or `volume`.
    kind: &'static str,
    /// Members of the line.
    members: Map<String, Value>,
}

impl Who {
    /// A container, with its image's reference and its labels, which filters of events ask for.
    pub fn container(record: &Record) -> Who {
        #[derive(Deserialize)]
        struct Container {
            id: String,
            #[serde(default)]
            name: String,
        }
        // Not the whole image, whose configuration is long.
        #[derive(Deserialize)]
        struct Image {
            #[serde(default)]
            reference: String,
            #[serde(default)]
            digest: String,
        }
        #[derive(Default, Deserialize)]
        struct Config {
            #[serde(default)]
            labels: Map<String, Value>,
        }
        let mut members = Map::new();
        if let Ok(Some(container)) = record.get::<Container>("container") {
            members.insert("id".into(), container.id.into());
            members.insert("name".into(), container.name.into());
        }
        if let Ok(Some(image)) = record.get::<Image>("image") {
            let image = if image.reference.is_empty() { image.digest } else { image.reference };
            members.insert("image".into(), cut(image).into());
        }
        let labels = record.get::<Config>("config").ok().flatten().unwrap_or_default().labels;
        if !labels.is_empty() {
            let length: usize =
                labels.iter().map(|(name, value)| name.len() + value.to_string().len() + 4).sum();
            if length <= LONGEST_LABELS {
                members.insert("labels".into(), Value::Object(labels));
            }
        }
        Who { kind: "container", members }
    }

    /// An image by its digest and, if it has one, its name.
    pub fn image(digest: &str, reference: &str) -> Who {
        Who::named("image", digest, reference)
    }

    /// A volume. Its name is its id.
    pub fn volume(name: &str) -> Who {
        Who::named("volume", name, name)
    }

    /// A network. Its name is its id.
    pub fn network(name: &str) -> Who {
        Who::named("network", name, name)
    }

    fn named(kind: &'static str, id: &str, name: &str) -> Who {
        let mut members = Map::new();
        members.insert("id".into(), cut(id.to_owned()).into());
        members.insert("name".into(), cut(name.to_owned()).into());
        Who { kind, members }
    }
}

/// The file events are written to, open: for who will be in a container, where it is out of reach.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    dir: PathBuf,
}

impl EventLog {
    pub fn open(store: &Store) -> std::io::Result<EventLog> {
        let dir = store.events_dir();
        let path = dir.join(CURRENT);
        let file = match open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_dirs(&dir).map_err(std::io::Error::other)?;
                open(&path)?
            }
            other => other?,
        };
        Ok(EventLog { file, dir })
    }

    /// As [`Store::event`].
    pub fn event(&self, who: &Who, action: &str, attributes: Value) {
        let line = line(who, action, attributes, &jiff::Timestamp::now().to_string());
        let written = (&self.file).write_all(line.as_bytes());
        if written.is_ok() && self.file.metadata().is_ok_and(|meta| meta.len() >= LARGEST_FILE) {
            put_away(&self.dir, &self.dir.join(CURRENT), &self.file);
        }
    }
}

impl Store {
    /// Writes an event down. `attributes` is an object of what else there is to say, or null.
    ///
    /// Fails in silence: what has happened has happened, whether or not somebody learns of it.
    pub fn event(&self, who: &Who, action: &str, attributes: Value) {
        if let Ok(log) = EventLog::open(self) {
            log.event(who, action, attributes);
        }
    }

    pub fn events_dir(&self) -> PathBuf {
        self.root().join("events")
    }

    /// The files of events, oldest first. The last is the one being written to, which may not be there.
    pub fn event_files(&self) -> Vec<PathBuf> {
        let dir = self.events_dir();
        let mut files: Vec<PathBuf> = old_files(&dir).into_iter().map(|name| dir.join(name)).collect();
        files.push(dir.join(CURRENT));
        files
    }
}

const CURRENT: &str = "events.ndjson";

fn open(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// Several may come to this at once: what they rename must be the file that is full, and no name is taken twice.
fn put_away(dir: &Path, path: &Path, file: &File) {
    let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
        one.ino() == other.ino() && one.dev() == other.dev()
    };
    let (Ok(full), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return };
    if !same(&full, &named) {
        return;
    }
    // Sorted by name they are sorted by time.
    let now = jiff::Timestamp::now().as_nanosecond();
    let old = dir.join(format!("events-{now:020}.ndjson"));
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    if rustix::fs::renameat_with(rustix::fs::CWD, path, rustix::fs::CWD, &old, flags).is_err() {
        return;
    }
    let names = old_files(dir);
    for name in names.iter().rev().skip(OLD_FILES) {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

fn old_files(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let is_old = |name: &String| name.starts_with("events-") && name.ends_with(".ndjson");
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(is_old).collect();
    names.sort_unstable();
    names
}

fn line(who: &Who, action: &str, attributes: Value, time: &str) -> String {
    let mut event = Map::new();
    event.insert("time".into(), time.into());
    event.insert("type".into(), who.kind.into());
    event.insert("action".into(), action.into());
    event.extend(who.members.clone());
    if let Value::Object(mut attributes) = attributes {
        for value in attributes.values_mut() {
            if let Value::String(text) = value {
                *text = cut(std::mem::take(text));
            }
        }
        event.insert("attributes".into(), Value::Object(attributes));
    }
    // What can be done without goes first; escapes make texts longer than they were.
    for name in ["", "labels", "attributes", "image", "name"] {
        event.remove(name);
        let mut line = Value::Object(event.clone()).to_string();
        line.push('\n');
        if line.len() <= LONGEST_LINE {
            return line;
        }
    }
    format!("{}\n", json!({"time": time, "type": who.kind, "action": cut(action.to_owned())}))
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Scratch, Store) {
            let dir = std::env::temp_dir().join(format!("store-events-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let store = Store::at(dir.join("root"), dir.join("run"));
            (Scratch(dir), store)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_are_short_whatever_comes() {
        let long = "\u{1}".repeat(5000);
        let mut record = Record::new();
        record.set("container", &json!({"id": "a".repeat(64), "name": "web"})).unwrap();
        record.set("image", &json!({"reference": long, "digest": "d"})).unwrap();
        record.set("config", &json!({"labels": {"a": "b"}})).unwrap();
        let who = Who::container(&record);
        for attributes in [json!(null), json!({"a": long}), json!({"a": [long]})] {
            let line = line(&who, "start", attributes, "2026-01-02T03:04:05Z");
            assert!(line.len() <= LONGEST_LINE && line.ends_with("}\n"), "{}", line.len());
            assert_eq!(line.matches('\n').count(), 1);
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&event["action"], &event["id"]), (&json!("start"), &json!("a".repeat(64))));
        }
        let short = line(&who, "die", json!({"exit_code": 3}), "t");
        assert!(short.contains(r#""labels":{"a":"b"},"attributes":{"exit_code":3}"#), "{short}");
    }

    #[test]
    fn files_are_put_away_and_few_are_kept() {
        let (_scratch, store) = Scratch::new("rotation");
        let who = Who::volume("v");
        store.event(&who, "create", Value::Null);
        for round in 0..7 {
            let current = store.event_files().pop().unwrap();
            let file = OpenOptions::new().append(true).open(&current).unwrap();
            file.set_len(LARGEST_FILE).unwrap();
            store.event(&who, "create", json!({"round": round}));
            assert!(!current.exists());
            store.event(&who, "create", Value::Null);
        }
        let files = store.event_files();
        assert_eq!(files.len(), OLD_FILES + 1);
        assert!(files.is_sorted());
        let newest = std::fs::read_to_string(files.last().unwrap()).unwrap();
        assert_eq!(newest.lines().count(), 1);
    }

    #[test]
    fn many_writers_do_not_mix() {
        let (_scratch, store) = Scratch::new("writers");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..200 {
                        store.event(&Who::volume(&format!("{writer}").repeat(100)), "create", Value::Null);
                    }
                });
            }
        });
        let text = std::fs::read_to_string(store.event_files().pop().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 800);
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }
}
