//! Files and directories of the control group file systems.

use fault::{Explain, Fault, Result};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub fn write_file(path: &Path, value: &str) -> Result<()> {
    // One write(2): the kernel takes each as one setting. None at all would be no setting.
    let bytes = if value.is_empty() { b"\n" } else { value.as_bytes() };
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .explain(|| format!("write {value:?} to {}", path.display()))
}

/// As [`write_file`], each line by itself: the kernel reads one only.
pub fn write_lines(path: &Path, value: &str) -> Result<()> {
    if !value.contains('\n') {
        return write_file(path, value);
    }
    let mut lines = value.lines().filter(|line| !line.trim().is_empty()).peekable();
    if lines.peek().is_none() {
        return write_file(path, "");
    }
    lines.try_for_each(|line| write_file(path, line))
}

/// Makes a directory that may be there already; whether it was not.
pub fn make_directory(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).explain(|| format!("make control group {}", path.display())),
    }
}

/// A group's directory in one hierarchy, while it is made.
#[derive(Debug)]
pub struct Made {
    pub path: PathBuf,
    /// How many of its last components were not there before.
    pub new: usize,
}

/// Best effort: the failure being reported is the one that matters. What was there before stays, and so does what somebody else
/// has made something in.
pub fn unmake(made: &[Made]) {
    for one in made {
        for directory in one.path.ancestors().take(one.new) {
            if std::fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }
}

/// Removes a group and those its processes made below it. The last process may be leaving still: waits for that until `deadline`.
pub fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
    if remove(directory).is_none() {
        return Ok(());
    }
    let mut pause = Duration::from_micros(100);
    let error = loop {
        for below in descendants(directory).iter().rev() {
            let _ = remove(below);
        }
        match remove(directory) {
            None => return Ok(()),
            // Only a process still there goes away by itself.
            Some(error) if error.kind() != ErrorKind::ResourceBusy || Instant::now() > deadline => {
                break error;
            }
            Some(_) => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    };
    let busy = error.kind() == ErrorKind::ResourceBusy;
    let fault = Err::<(), _>(error).explain(|| format!("remove control group {}", directory.display()));
    fault.map_err(|fault: Fault| {
        if busy { fault.hint(format!("processes: cat {}/cgroup.procs", directory.display())) } else { fault }
    })
}

/// What keeps the directory from being removed.
fn remove(directory: &Path) -> Option<std::io::Error> {
    match std::fs::remove_dir(directory) {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(error),
    }
}

/// All groups below, those further down later. A container may nest them deeply: no recursion.
pub fn descendants(directory: &Path) -> Vec<PathBuf> {
    let mut found = children(directory);
    let mut next = 0;
    while let Some(one) = found.get(next) {
        let below = children(one);
        found.extend(below);
        next += 1;
    }
    found
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_tree_is_removed_and_what_is_in_use_told() {
        let scratch = Scratch::new("tree");
        let top = scratch.path().join("top");
        let soon = Instant::now() + Duration::from_secs(5);
        let mut deep = top.clone();
        for level in 0..60 {
            deep.push(format!("{level}"));
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::create_dir_all(top.join("a/c")).unwrap();
        remove_tree(&top, soon).unwrap();
        assert!(!top.exists());
        remove_tree(&top, soon).unwrap();
        // A file stands for a process: it is not in the way for ever.
        std::fs::create_dir_all(top.join("a")).unwrap();
        std::fs::write(top.join("a/file"), "").unwrap();
        let fault = remove_tree(&top, soon).unwrap_err();
        assert!(fault.to_string().contains(&format!("remove control group {}", top.display())), "{fault}");
    }

    #[test]
    fn only_what_was_made_is_unmade() {
        let scratch = Scratch::new("unmake");
        let path = scratch.path().join("old/new/newer");
        std::fs::create_dir_all(&path).unwrap();
        unmake(&[Made { path: path.clone(), new: 0 }]);
        assert!(path.exists());
        unmake(&[Made { path: path.clone(), new: 2 }]);
        assert!(
            !path.exists() && !scratch.path().join("old/new").exists() && scratch.path().join("old").exists()
        );
        std::fs::create_dir_all(scratch.path().join("old/new/others")).unwrap();
        std::fs::create_dir_all(&path).unwrap();
        unmake(&[Made { path: path.clone(), new: 2 }]);
        assert!(!path.exists() && scratch.path().join("old/new/others").exists());
    }

    #[test]
    fn a_line_is_a_write() {
        let scratch = Scratch::new("lines");
        let file = scratch.path().join("file");
        std::fs::write(&file, "").unwrap();
        let kept = || std::fs::read_to_string(&file).unwrap();
        // Each write begins at the beginning, as in the kernel's files.
        write_lines(&file, "8:0 rbps=1\n\n8:1\n").unwrap();
        assert_eq!(kept(), "8:1 rbps=1");
        write_lines(&file, "").unwrap();
        assert_eq!(kept(), "\n:1 rbps=1");
        assert!(write_lines(&scratch.path().join("none"), "1").is_err());
        assert!(!scratch.path().join("none").exists());
    }
}
