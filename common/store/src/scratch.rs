//! `tmp/`: unfinished work, each entry named after the process that owns it, so that what a killed process left
//! can be told from what a living one is making.

use crate::{Store, make_dirs, remove_tree};
use fault::{Explain, Result};
use rustix::fs::{IFlags, Mode, OFlags};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A path in `tmp/` that does not exist yet; whatever is there when this is dropped is removed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(store: &Store) -> Result<Scratch> {
        let tmp = store.root.join("tmp");
        if !tmp.is_dir() {
            make_dirs(&tmp)?;
            place_apart(&tmp);
        }
        let pid = std::process::id();
        let started = start_time(pid as i32).unwrap_or(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Ok(Scratch { path: tmp.join(format!("{pid}-{started}-{number}")) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path is no longer removed: it was renamed to where it belongs.
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            remove_any(&self.path);
        }
    }
}

/// Asks ext4 to place each directory made in this one in a part of the disk of its own (`T` of chattr(1)), as layers are
/// made here and have nothing to do with each other. Beside the last one it may take ten times as long to make a layer's files:
/// ext4 without a journal passes over each inode that was freed in the last minutes, again for every file.
///
/// Other file systems refuse or ignore it, and nothing depends on it.
fn place_apart(dir: &Path) {
    let Ok(dir) = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    else {
        return;
    };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&dir) {
        let _ = rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}

fn remove_any(path: &Path) {
    // Best effort: `sweep` comes by again.
    let _ = remove_tree(path);
}

impl Store {
    /// Removes what processes that are no more left in `tmp/`; returns how many entries.
    pub fn sweep_scratch(&self) -> Result<usize> {
        let tmp = self.root.join("tmp");
        let entries = match std::fs::read_dir(&tmp) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).explain(|| format!("read {}", tmp.display())),
        };
        let mut removed = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if owner_lives(&name.to_string_lossy()) == Some(true) {
                continue;
            }
            remove_any(&entry.path());
            removed += 1;
        }
        Ok(removed)
    }
}

/// Whether the process a scratch name tells of is still the same and alive; `None` for other names.
pub fn owner_lives(name: &str) -> Option<bool> {
    let mut parts = name.split('-');
    let pid: i32 = parts.next()?.parse().ok()?;
    let started: u64 = parts.next()?.parse().ok()?;
    Some(start_time(pid) == Some(started))
}

/// Start time of a process in clock ticks since boot (proc(5), `/proc/pid/stat` field 22): with the pid it names a
/// process for as long as the machine runs. `None` when there is no such process.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = of_process(pid, "stat")?;
    // The second field is the program's name in brackets and may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A file of a process in `/proc`; `None` when there is no such process. Its name is in some of them and may be any bytes: those that
/// are no text are replaced.
pub fn of_process(pid: i32, file: &str) -> Option<String> {
    // As long as these files are; the kernel does not tell.
    let mut content = Vec::with_capacity(2048);
    std::fs::File::open(format!("/proc/{pid}/{file}")).ok()?.take(1 << 20).read_to_end(&mut content).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_there_whatever_it_calls_itself() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", r"printf 'a\377) Z 1' >/proc/$$/comm; echo; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let before = start_time(pid).unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert!(std::fs::read_to_string(format!("/proc/{pid}/comm")).is_err(), "it has that name");
        assert_eq!(start_time(pid), Some(before));
        let state = crate::LiveState {
            status: "running".into(),
            pid,
            pid_started: before,
            ..crate::LiveState::default()
        };
        assert!(crate::survivor::survives(&state));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }

    #[test]
    fn a_living_process_keeps_its_scratch_and_a_dead_one_loses_it() {
        let dir = std::env::temp_dir().join(format!("store-scratch-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let mine = Scratch::new(&store).unwrap();
        std::fs::write(mine.path(), b"x").unwrap();
        // A pid that is alive but began at another time.
        std::fs::create_dir_all(store.root().join("tmp/1-1-0/deep")).unwrap();
        assert_eq!(store.sweep_scratch().unwrap(), 1);
        assert!(mine.path().exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
