//! Making, finding and removing volumes.
//!
//! A volume's directory is locked: shared by whoever is about to use it, from finding it until the record that says so is
//! written; alone by whoever removes it, from asking who uses it until it is gone under its name. So of a container
//! being made and a removal one comes first, and the other sees it.

use crate::plugin::Plugin;
use crate::{Info, LOCAL, check_name};
use fault::{Explain, Fault, Kind, Result};
use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, chmodat, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{Lock, Scratch, Store};

/// How long somebody else's lock is waited for by a removal; copying a volume may take any time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest `volume.json` read.
const MAX_INFO: u64 = 1 << 20;

/// A container that uses a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: String,
    pub name: String,
    pub running: bool,
}

/// Containers by the volume they use.
pub type Users = BTreeMap<String, Vec<User>>;

/// `$STAVES_ROOT/volumes/<name>`.
pub fn volume_dir(root: &Path, name: &str) -> PathBuf {
    root.join("volumes").join(name)
}

/// What [`create`] came to.
#[derive(Clone, Debug)]
pub struct Found {
    pub info: Info,
    /// It was not there before.
    pub made: bool,
}

/// A volume nobody removes as long as this lives.
#[derive(Debug)]
pub struct Held {
    pub info: Info,
    pub dir: PathBuf,
    _lock: Lock,
}

/// Makes a volume that appears whole: `fill` gets its data directory while it is still in scratch. One that is there already
/// is found, if nothing else is asked of it than it is; `fill` is then not called.
///
/// # Errors
/// [`Kind::Conflict`] when it is there and another driver, other options or other labels were asked for.
pub fn create(store: &Store, wanted: &Info, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Found> {
    check_name(&wanted.name)?;
    match find(store, &wanted.name) {
        Ok(info) => return same(info, wanted),
        Err(fault) if fault.kind() == Kind::NotFound => {}
        Err(fault) => return Err(fault),
    }
    if wanted.is_local() {
        crate::options::check(&wanted.options)?;
    }
    let dir = volume_dir(store.root(), &wanted.name);
    store.make_dir(&store.root().join("volumes"))?;
    let scratch = Scratch::new(store)?;
    let data = scratch.path().join("_data");
    store.make_dir(&data)?;
    chmodat(CWD, &data, Mode::from_raw_mode(0o755), AtFlags::empty())
        .explain(|| format!("set the mode of {}", data.display()))?;
    if wanted.is_local() {
        fill(&data)?;
    } else {
        // Where it is there already this finds it, as plugins have it; so a creation that was cut off is gone on with.
        Plugin::find(&wanted.driver)?.create(&wanted.name, &wanted.options)?;
    }
    let mut info = wanted.clone();
    info.created_at = Some(jiff::Timestamp::now().to_string());
    let text = serde_json::to_string(&info).explain(|| "write volume.json".into())?;
    store::atomic::write(&scratch.path().join("volume.json"), format!("{text}\n").as_bytes(), 0o600)?;
    loop {
        match renameat_with(CWD, scratch.path(), CWD, &dir, RenameFlags::NOREPLACE) {
            Ok(()) => {
                scratch.keep();
                return Ok(Found { info, made: true });
            }
            // Not every file system can promise not to replace; rename(2) replaces empty directories only.
            Err(Errno::INVAL) if std::fs::rename(scratch.path(), &dir).is_ok() => {
                scratch.keep();
                return Ok(Found { info, made: true });
            }
            Err(Errno::EXIST | Errno::INVAL) => {}
            Err(error) => return Err(error).explain(|| format!("put it at {}", dir.display())),
        }
        // Somebody else made it meanwhile.
        match find(store, &wanted.name) {
            Ok(info) => return same(info, wanted),
            // And somebody removed it again; what is no volume stays, and is told of.
            Err(fault) if fault.kind() == Kind::NotFound && !dir.exists() => {}
            Err(fault) if fault.kind() == Kind::NotFound => {
                return Err(Fault::conflict(format!("{} is there and is no volume", dir.display()))
                    .hint("it has no volume.json; move it away"));
            }
            Err(fault) => return Err(fault),
        }
    }
}

fn same(info: Info, wanted: &Info) -> Result<Found> {
    let conflict = |what: &str| {
        Err(Fault::conflict(format!("it exists with {what}"))
            .on(info.name.as_str())
            .hint("vol-inspect shows them; remove it with vol-rm, or take another name"))
    };
    // Saying nothing asks for what is there.
    let says_driver = !wanted.is_local() || !wanted.options.is_empty();
    if says_driver && wanted.driver != info.driver {
        return conflict(&format!("the driver {}", info.driver));
    }
    if !wanted.options.is_empty() && wanted.options != info.options {
        return conflict("other options");
    }
    if !wanted.labels.is_empty() && wanted.labels != info.labels {
        return conflict("other labels");
    }
    Ok(Found { info, made: false })
}

/// # Errors
/// [`Kind::NotFound`]; [`Kind::Input`] when `volume.json` is damaged.
pub fn find(store: &Store, name: &str) -> Result<Info> {
    check_name(name)?;
    let path = volume_dir(store.root(), name).join("volume.json");
    let none = || Fault::not_found("no such volume").on(name).hint("vol-ls lists those there are");
    let size = match std::fs::metadata(&path) {
        Ok(status) => status.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        Err(error) => return Err(error).explain(|| format!("read {}", path.display())),
    };
    if size > MAX_INFO {
        return Err(Fault::input(format!("{} is {size} bytes long", path.display())));
    }
    let text = store::atomic::read(&path)?.ok_or_else(none)?;
    let mut info: Info =
        serde_json::from_slice(&text).explain_as(Kind::Input, || format!("read {}", path.display()))?;
    // Its place is its name, whatever the file says.
    name.clone_into(&mut info.name);
    Ok(info)
}

/// All of them, by name. What cannot be read is handed to `damaged`.
pub fn list(store: &Store, mut damaged: impl FnMut(Fault)) -> Result<Vec<Info>> {
    let folder = store.root().join("volumes");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if check_name(&name).is_err() {
            continue;
        }
        match find(store, &name) {
            Ok(info) => found.push(info),
            // Removed since the directory was read, or no volume.
            Err(fault) if fault.kind() == Kind::NotFound => {}
            Err(fault) => damaged(fault),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Keeps a volume from being removed.
pub fn hold(store: &Store, name: &str) -> Result<Held> {
    let dir = volume_dir(store.root(), name);
    loop {
        find(store, name)?;
        let lock = match Lock::shared_directory(&dir) {
            Err(fault) if fault.kind() == Kind::NotFound => continue,
            other => other?,
        };
        // What was locked may have been renamed away while this waited.
        if is_still(&lock, &dir) {
            return Ok(Held { info: find(store, name)?, dir, _lock: lock });
        }
    }
}

fn is_still(lock: &Lock, dir: &Path) -> bool {
    let (Ok(locked), Ok(named)) = (lock.file().metadata(), std::fs::metadata(dir)) else { return false };
    (locked.dev(), locked.ino()) == (named.dev(), named.ino())
}

/// A member of a record's `volumes`, as far as it is needed here.
#[derive(Deserialize)]
struct Use {
    name: String,
}

/// Who uses which volume, whether it runs or not.
///
/// # Errors
/// When a container's record cannot be read: what it needs is unknown then.
pub fn users(store: &Store) -> Result<Users> {
    let mut users = Users::new();
    for dir in store.containers()? {
        let record = match dir.load() {
            // Removed meanwhile, or not made yet: whoever makes it holds its volumes.
            Err(fault) if fault.kind() == Kind::NotFound => continue,
            other => other.map_err(|fault| fault.on(dir.id.as_str()))?,
        };
        let used: Vec<Use> = record.get("volumes")?.unwrap_or_default();
        if used.is_empty() {
            continue;
        }
        let name = record.container()?.map(|container| container.name).unwrap_or_default();
        let running = !matches!(dir.status()?, store::Status::Created | store::Status::Exited);
        for volume in used {
            let list = users.entry(volume.name).or_default();
            if list.iter().all(|user| user.id != dir.id) {
                list.push(User { id: dir.id.clone(), name: name.clone(), running });
            }
        }
    }
    Ok(users)
}

/// Names in a record's section `volumes`, each once.
pub fn names_in(record: &record::Record) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for used in record.get::<Vec<Use>>("volumes")?.unwrap_or_default() {
        if !names.contains(&used.name) {
            names.push(used.name);
        }
    }
    Ok(names)
}

/// # Errors
/// [`Kind::Conflict`] with the names of those who use it.
pub fn check_unused(store: &Store, name: &str) -> Result<()> {
    refuse_used(store, name, |_| false)
}

fn refuse_used(store: &Store, name: &str, spared: impl Fn(&User) -> bool) -> Result<()> {
    let users = users(store)?.remove(name).unwrap_or_default();
    let names: Vec<&str> = users.iter().filter(|user| !spared(user)).map(|user| user.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Fault::conflict(format!("it is in use by {}", names.join(", ")))
        .on(name)
        .hint("ctr-rm removes a container; its volumes with a name stay until then"))
}

/// Removes a volume nobody uses; returns the bytes this gave back.
///
/// # Errors
/// [`Kind::Conflict`] with the names of those who use it, or when something is mounted in it; [`Kind::NotFound`];
/// [`Kind::Retryable`] when somebody is at work on it.
pub fn remove(store: &Store, name: &str) -> Result<u64> {
    remove_unless(store, name, |_| false)
}

/// [`remove`], where uses by some containers do not count.
pub fn remove_unless(store: &Store, name: &str, spared: impl Fn(&User) -> bool) -> Result<u64> {
    let dir = volume_dir(store.root(), name);
    let info = match find(store, name) {
        // Half of one.
        Err(fault) if fault.kind() == Kind::NotFound && dir.is_dir() => {
            Info { driver: LOCAL.to_owned(), ..Info::default() }
        }
        found => found?,
    };
    let _lock = lock_alone(&dir).map_err(|fault| fault.on(name))?;
    refuse_used(store, name, spared)?;
    if let Some(place) = mounted_in(&dir)? {
        return Err(Fault::conflict(format!("something is mounted at {place}"))
            .on(name)
            .hint("what is mounted would be deleted; unmount it first"));
    }
    if info.driver != LOCAL {
        remove_elsewhere(&info)?;
    }
    // In one renaming, so that no half of a volume is left under its name.
    let scratch = Scratch::new(store)?;
    std::fs::rename(&dir, scratch.path()).explain(|| format!("move {} away", dir.display()))?;
    store::remove_tree(scratch.path())
}

fn remove_elsewhere(info: &Info) -> Result<()> {
    Plugin::find(&info.driver)
        .and_then(|plugin| plugin.remove(&info.name))
        .map_err(|fault| fault.on(info.name.as_str()))
}

/// The lock of a directory that is still there under its name.
fn lock_alone(dir: &Path) -> Result<Lock> {
    let gone = || Fault::not_found("no such volume");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Lock::try_directory(dir) {
            Ok(Some(lock)) if is_still(&lock, dir) => return Ok(lock),
            Ok(Some(_)) => return Err(gone()),
            Ok(None) if Instant::now() > deadline => {
                return Err(Fault::retryable("somebody is at work on it")
                    .hint("a container is being made with it, or it is being copied"));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(fault) if fault.kind() == Kind::NotFound => return Err(gone()),
            Err(fault) => return Err(fault),
        }
    }
}

/// The first mount point in a directory that this process sees (proc(5), `/proc/pid/mountinfo`, field 5).
fn mounted_in(dir: &Path) -> Result<Option<String>> {
    let table = std::fs::read("/proc/self/mountinfo").explain(|| "read /proc/self/mountinfo".into())?;
    let dir = dir.canonicalize().explain(|| format!("find {}", dir.display()))?;
    for line in table.split(|byte| *byte == b'\n') {
        let Some(field) = line.split(|byte| *byte == b' ').nth(4) else { continue };
        let place = String::from_utf8_lossy(&unescaped(field)).into_owned();
        if Path::new(&place).starts_with(&dir) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Blanks and the like are `\040` there.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if *byte == b'\\' => {
                text.push(value);
                rest = &after[3..];
            }
            _ => {
                text.push(*byte);
                rest = after;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_written_with_escapes() {
        assert_eq!(unescaped(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescaped(br"/a\04"), br"/a\04");
    }
}
