//! What a command of this machine made, as the cache keeps it: `step.json`, the outputs by number below `outputs/`, and what was written
//! to stdout. An output that is still what it was is left alone; another one is replaced in one renaming.

use crate::files::Files;
use crate::stdout::MAX_BYTES;
use cli::{Explain, Fault, Kind, Result};
use context::{Context, Options, Ownership, Selection, Target, Times, Written};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use store::Store;

const FACTS: &str = "step.json";
const STDOUT: &str = "stdout";
const MAX_FACTS: u64 = 16 << 20;

/// `step.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    outputs: Vec<Output>,
    /// Whether what it wrote was seen: to a terminal it writes itself.
    has_stdout: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Output {
    /// As [`Selection::digest`] has it.
    digest: String,
    /// Of the file or directory itself.
    mode: u32,
    is_directory: bool,
}

/// What was kept.
pub struct Kept {
    root: Context,
    facts: Facts,
}

impl Kept {
    /// `None` for what cannot be understood.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(root: OwnedFd) -> Result<Option<Kept>> {
        let root = Context::root(root);
        let Some(text) = root.read(FACTS, MAX_FACTS)? else { return Ok(None) };
        Ok(serde_json::from_slice(&text).ok().map(|facts| Kept { root, facts }))
    }

    pub fn outputs(&self) -> usize {
        self.facts.outputs.len()
    }

    pub fn has_stdout(&self) -> bool {
        self.facts.has_stdout
    }

    /// Sees to it that an output is what it was.
    ///
    /// # Errors
    /// When it cannot be read or replaced.
    pub fn put_back(&self, store: &Store, number: usize, path: &Path) -> Result<()> {
        let kept =
            self.facts.outputs.get(number).ok_or_else(|| Fault::input("the cache has fewer outputs"))?;
        match select(store, path) {
            Ok((files, selection)) => {
                let is_same =
                    files.is_directory == kept.is_directory && selection.digest()?.as_str() == kept.digest;
                let _ = files.context.remember();
                if is_same {
                    return Ok(());
                }
            }
            Err(fault) if fault.kind() == Kind::NotFound => {}
            Err(fault) => return Err(fault),
        }
        self.replace(number, kept, path)
    }

    fn replace(&self, number: usize, kept: &Output, path: &Path) -> Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Fault::usage("the root directory cannot be an output"));
        };
        std::fs::create_dir_all(parent).explain(|| format!("make directory {}", parent.display()))?;
        sweep(parent, name);
        let scratch = Scratch::new(parent, name)?;
        let directory =
            openat(CWD, &scratch.0, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .explain(|| format!("open {}", scratch.0.display()))?;
        let (source, destination) =
            (format!("outputs/{number}"), if kept.is_directory { "/new/" } else { "/new" });
        let selection = self.root.select(&[source], &Options::default())?;
        // Newer than what it was made from, as if it had been made now.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        write(&selection, directory.as_fd(), destination, Times::At(i64::try_from(now).unwrap_or(0)))?;
        let new = scratch.0.join("new");
        let failed = || format!("replace {}", path.display());
        if kept.is_directory && !new.exists() {
            std::fs::create_dir(&new).explain(failed)?;
        }
        std::fs::set_permissions(&new, Permissions::from_mode(kept.mode & 0o7777)).explain(failed)?;
        match renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => renameat_with(CWD, &new, CWD, path, RenameFlags::EXCHANGE).explain(failed),
            done => done.explain(failed),
        }
    }

    /// What it wrote then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn repeat_stdout(&self) -> Result<()> {
        if self.facts.has_stdout
            && let Some(stdout) = self.root.read(STDOUT, MAX_BYTES as u64)?
        {
            let mut to = std::io::stdout().lock();
            // Whoever reads it may be gone.
            let _ = to.write_all(&stdout).and_then(|()| to.flush());
        }
        Ok(())
    }
}

/// Writes what was made into a directory that is kept.
///
/// # Errors
/// [`Kind::NotFound`] for an output that was not made; what was changed meanwhile.
pub fn collect(
    store: &Store,
    root: BorrowedFd<'_>,
    outputs: &[(&String, PathBuf)],
    stdout: Option<Vec<u8>>,
) -> Result<()> {
    let mut facts = Facts { outputs: Vec::new(), has_stdout: stdout.is_some() };
    for (number, (text, path)) in outputs.iter().enumerate() {
        let (files, selection) =
            select(store, path).map_err(|fault| fault.within(format!("the command has not made {text}")))?;
        let slash = if files.is_directory { "/" } else { "" };
        let digest = selection.digest()?.to_string();
        let written = write(&selection, root, &format!("/outputs/{number}{slash}"), Times::Keep)?;
        if let Some(changed) = written.changed.first() {
            return Err(
                Fault::retryable(format!("{changed} was changed while it was kept")).on((*text).clone())
            );
        }
        let status = files.path.metadata().explain(|| format!("look at {text}"))?;
        let mode = status.permissions().mode() & 0o7777;
        facts.outputs.push(Output { digest, mode, is_directory: files.is_directory });
        let _ = files.context.remember();
    }
    let text = serde_json::to_vec(&facts).explain(|| "write what it made".into())?;
    write_file(root, FACTS, &text)?;
    stdout.map_or(Ok(()), |stdout| write_file(root, STDOUT, &stdout))
}

fn select(store: &Store, path: &Path) -> Result<(Files, Selection)> {
    let text = path.to_str().ok_or_else(|| Fault::input("the name of an output is not UTF-8"))?;
    let files = Files::open(store, text, false)?;
    let selection = files.context.select(&[&files.choice], &Options::default())?;
    Ok((files, selection))
}

fn write(selection: &Selection, root: BorrowedFd<'_>, destination: &str, times: Times) -> Result<Written> {
    selection.write(&Target {
        root,
        destination: destination.as_bytes(),
        ownership: Ownership::Keep,
        chmod: None,
        times,
        unpack: false,
    })
}

fn write_file(root: BorrowedFd<'_>, name: &str, content: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(root, name, flags, Mode::from_raw_mode(0o600)).explain(|| format!("make {name}"))?;
    std::fs::File::from(file).write_all(content).explain(|| format!("write {name}"))
}

/// A directory beside an output, `.NAME.step-PID`, in which it is made ready and the old one removed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path, name: &OsStr) -> Result<Scratch> {
        let pid = std::process::id().to_string();
        let path = parent.join(OsStr::from_bytes(&[&prefix(name), pid.as_bytes()].concat()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.explain(|| format!("make directory {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Swept by the next one, if it cannot be removed now.
        let _ = store::remove_tree(&self.0);
    }
}

fn prefix(name: &OsStr) -> Vec<u8> {
    [b".".as_slice(), name.as_bytes(), b".step-"].concat()
}

/// Removes what processes that are gone have left.
fn sweep(parent: &Path, name: &OsStr) {
    let prefix = prefix(name);
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.as_bytes().strip_prefix(prefix.as_slice()).and_then(|pid| std::str::from_utf8(pid).ok());
        let is_dead = pid.and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| {
            pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists()
        });
        if is_dead {
            let _ = store::remove_tree(&entry.path());
        }
    }
}
