//! Control groups below `/staves` that nobody looks after.
//!
//! They are the machine's, not a store's: another `STAVES_ROOT` may have containers there. So a group whose
//! container this store does not know is left alone as long as one of its processes descends from a living ctr-shim, or the
//! bundle its mounts are from is there: a container may outlive its shim.

use cgroup::Cgroup;
use cli::Result;
use std::path::PathBuf;
use std::time::Duration;
use store::{ContainerDir, Lock, Store, is_id};

/// Below every hierarchy's root.
pub const PARENT: &str = "staves";
/// For so long a group may be empty before its first process joins it.
const BETWEEN_STEPS: Duration = Duration::from_secs(1);
/// How long what a killed shim left may take to die.
const PATIENCE: Duration = Duration::from_secs(10);
/// More ancestors than any process has.
const MAX_ANCESTORS: usize = 4096;

#[derive(Debug)]
pub struct Remains {
    id: String,
    group: Cgroup,
}

pub fn list() -> Result<Vec<Remains>> {
    let groups = cgroup::list(PARENT)?;
    Ok(groups.into_iter().filter(|(id, _)| is_id(id)).map(|(id, group)| Remains { id, group }).collect())
}

/// The control groups a killed shim wrote down.
pub fn remove_of(dir: &ContainerDir) -> Result<()> {
    if let Ok(Some(live)) = dir.live_state()
        && !live.cgroup.is_empty()
    {
        remove(&Cgroup::open(&live.cgroup)?)?;
    }
    Ok(())
}

fn remove(group: &Cgroup) -> Result<()> {
    if !group.directories().iter().any(|directory| directory.exists()) {
        return Ok(());
    }
    // Not unasked: a process that joins from now on is none that was left behind, and keeps the group from removal.
    if !group.processes().is_empty() {
        group.kill();
    }
    group.remove()
}

impl Remains {
    pub fn directories(&self) -> &[PathBuf] {
        self.group.directories()
    }

    pub fn is_left_behind(&self, store: &Store) -> bool {
        let dir = store.container_dir(&self.id);
        if dir.bundle.exists() {
            // A shim takes its lock before it makes the group.
            return !dir.is_alive();
        }
        let another_stores = |pid| descends_from_shim(pid, &self.id) || has_bundle(pid, &self.id);
        !self.group.processes().into_iter().any(another_stores)
    }

    pub fn remove(&self, store: &Store) -> Result<()> {
        let dir = store.container_dir(&self.id);
        let was_there = dir.bundle.exists();
        match self.clear_away(&dir, store) {
            // Removed meanwhile, and whoever does that takes the group along.
            Err(_) if was_there && !dir.bundle.exists() => Ok(()),
            other => other,
        }
    }

    fn clear_away(&self, dir: &ContainerDir, store: &Store) -> Result<()> {
        // What a killed shim has written would look true as long as the lock is held.
        if dir.bundle.exists() {
            shim::clear(dir, PATIENCE)?;
        }
        // Held meanwhile, so that nobody starts the container into a group that is being removed.
        let has_run = dir.bundle.exists() && dir.run.is_dir();
        let lock = if has_run { Lock::try_exclusive(&dir.run.join("lock"))? } else { None };
        if has_run && lock.is_none() {
            return Ok(());
        }
        if !dir.bundle.exists() && self.group.processes().is_empty() {
            if let Some(newest) = self.directories().iter().filter_map(|path| crate::age_of(path)).min() {
                std::thread::sleep(BETWEEN_STEPS.saturating_sub(newest));
            }
            if self.is_left_behind(store) {
                // Not by force: on version 1 processes of another process namespace are not seen, and keep it.
                self.group.remove_if_empty();
            }
            return Ok(());
        }
        remove(&self.group)
    }
}

/// Whether the shim of the container is among the ancestors of a process. It is known by its arguments, which are the
/// container's directories; its name says nothing, as it runs from a protected copy of its program.
fn descends_from_shim(pid: i32, id: &str) -> bool {
    let mut pid = pid;
    for _ in 0..MAX_ANCESTORS {
        match parent_of(pid) {
            Some(parent) if parent > 1 => pid = parent,
            Some(_) => return false,
            // It has just ended: nothing to kill, and its group may be another run's by now.
            None => return true,
        }
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let bundle = arguments.split(|b| *b == 0).nth(1).unwrap_or_default();
        if bundle.rsplit(|b| *b == b'/').next() == Some(id.as_bytes()) {
            return true;
        }
    }
    // Not to be understood, so not to be killed.
    true
}

/// Whether the container's bundle is there, by what is mounted for a process of it.
fn has_bundle(pid: i32, id: &str) -> bool {
    let mounts = std::fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    bundles_in(&String::from_utf8_lossy(&mounts), id).any(|bundle| bundle.join("container.json").is_file())
}

/// Directories named like the container in a table of mounts (proc_pid_mountinfo(5)): files out of its bundle, and its root's upper
/// layer.
fn bundles_in<'t>(table: &'t str, id: &'t str) -> impl Iterator<Item = PathBuf> + 't {
    let words = table.split([' ', '\n', ',', '=']).filter(|word| word.starts_with('/'));
    words.filter_map(move |word| {
        let end = word.find(id)? + id.len();
        let whole = word.get(end..)?.starts_with('/') && word.get(..end)?.ends_with(&format!("/{id}"));
        whole.then(|| PathBuf::from(unescaped(&word[..end])))
    })
}

/// What separates words in such a table is written as three octal digits in it.
fn unescaped(word: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\054", ","), ("\\134", "\\")]
        .into_iter()
        .fold(word.to_owned(), |word, (escape, character)| word.replace(escape, character))
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = store::of_process(pid, "stat")?;
    // The name in brackets may hold anything; after it come the state and the parent (proc(5)).
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_shim_above_it() {
        let own = std::process::id() as i32;
        assert_eq!(parent_of(own), Some(std::os::unix::process::parent_id() as i32));
        assert!(!descends_from_shim(own, "x"));
        assert!(descends_from_shim(i32::MAX, "x"));
    }

    #[test]
    fn bundles_are_seen_in_a_table_of_mounts() {
        let id = "5b".repeat(32);
        let found = |table: &str| bundles_in(table, &id).map(|b| b.display().to_string()).collect::<Vec<_>>();
        let table = format!(
            "67 43 0:40 / / rw - overlay none rw,lowerdir+=/s/layers/x/fs,upperdir=/s/containers/{id}/upper\n\
             84 67 254:0 /a\\040b/containers/{id}/hosts /etc/hosts rw - ext4 /dev/vda rw\n\
             85 67 0:50 / /{id} rw - tmpfs none rw\n86 67 254:0 /c/x{id}/hosts /etc/h rw - ext4 /dev/vda rw\n"
        );
        assert_eq!(found(&table), [format!("/s/containers/{id}"), format!("/a b/containers/{id}")]);
        assert!(found("").is_empty());
    }
}
