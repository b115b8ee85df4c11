//! Removing one container. The container disappears in one renaming; what comes before can be done again by the
//! next ctr-rm, what is left after by ctr-prune.

use cli::{Explain, Fault, Kind, Result};
use record::Record;
use serde::{Deserialize, Serialize};
use shim::Orphan;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use store::{ContainerDir, Lock, Scratch, Status, Store, Who, check_name, release_all, remove_tree};

/// What may be done to a container that is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Kill it if it runs.
    pub force: bool,
    /// Remove its volumes without a name of their own, too.
    pub volumes: bool,
}

/// One step of a removal, in the order in which they are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// End the process that waits to be started.
    Discard,
    Kill,
    /// Run net-detach: ports of the host lead to it.
    Detach,
    /// Give its addresses back.
    ReleaseAddresses,
    /// Kill what is left in its control group, and remove that.
    RemoveCgroup,
    RemoveVolume {
        name: String,
    },
    /// Rename the bundle away and delete it; give the name back.
    RemoveFiles,
}

/// What decides about the steps.
#[derive(Clone, Debug, Default)]
struct Facts {
    runs: bool,
    waits: bool,
    /// It has leases, and ports of the host lead to one of them; or CNI plugins have to be run.
    ports: bool,
    attached: bool,
    cgroup: bool,
    anonymous_volumes: Vec<String>,
}

/// How long processes may take to die: uninterruptible sleep delays that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes a container with everything that is only its own; returns the bytes this gave back.
///
/// Fails with a conflict when it runs and `force` is not given. A container that disappears meanwhile is not found.
pub fn remove(store: &Store, dir: &ContainerDir, options: Options) -> Result<u64> {
    let steps = plan(store, dir, options)?;
    let ended = steps.iter().any(|step| matches!(step, Step::Discard | Step::Kill));
    if ended {
        drop(shim::end(dir, PATIENCE)?);
    }
    if steps.contains(&Step::Detach) {
        // Before any lock is taken: net-detach takes them itself.
        detach(&dir.id)?;
    }
    let shim_lock = shim::end(dir, PATIENCE)?;
    match take_apart(store, dir, options.volumes, &shim_lock) {
        // It was to be removed when it ends, and its shim did so.
        Err(fault) if ended && fault.kind() == Kind::NotFound => Ok(0),
        other => other.map_err(|fault| fault.on(dir.id.as_str())),
    }
}

/// What [`remove`] would do.
pub fn plan(store: &Store, dir: &ContainerDir, options: Options) -> Result<Vec<Step>> {
    let facts = Facts::of(store, dir, &readable(dir)?)?;
    steps(&facts, options).map_err(|fault| fault.on(dir.id.as_str()))
}

fn steps(facts: &Facts, options: Options) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if facts.runs {
        if !options.force {
            return Err(
                Fault::conflict("it is running").hint("stop it with ctr-stop, or remove it with --force")
            );
        }
        steps.push(Step::Kill);
    } else if facts.waits {
        steps.push(Step::Discard);
    }
    if facts.ports {
        steps.push(Step::Detach);
    }
    if facts.attached {
        steps.push(Step::ReleaseAddresses);
    }
    if facts.cgroup {
        steps.push(Step::RemoveCgroup);
    }
    if options.volumes {
        steps.extend(facts.anonymous_volumes.iter().map(|name| Step::RemoveVolume { name: name.clone() }));
    }
    steps.push(Step::RemoveFiles);
    Ok(steps)
}

impl Facts {
    fn of(store: &Store, dir: &ContainerDir, record: &Record) -> Result<Facts> {
        let status = shim::settled_status(dir)?;
        let runs = matches!(status, Status::Running | Status::Paused | Status::Restarting);
        let live = dir.live_state()?;
        let attachments = record.networks().unwrap_or_default();
        Ok(Facts {
            runs: runs || Orphan::of(dir)?.is_some(),
            waits: !runs && dir.has_shim(),
            ports: attachments.iter().any(|attachment| {
                (!attachment.ports.is_empty() && is_leased(store, &dir.id, attachment))
                    || store.plugins_attachment(&attachment.name, &dir.id).is_ok_and(|file| file.exists())
            }),
            attached: !attachments.is_empty(),
            cgroup: live.is_some_and(|live| !live.cgroup.is_empty()),
            anonymous_volumes: anonymous_volumes(record),
        })
    }
}

/// Ports are in the lease before they are in the firewall, so without a lease there is nothing to undo.
fn is_leased(store: &Store, id: &str, attachment: &record::Attachment) -> bool {
    let Ok(leases) = store.leases(&attachment.name) else { return false };
    store::leases::addresses_of(attachment).any(|address| {
        leases.read(address).is_ok_and(|lease| lease.is_some_and(|lease| lease.container == id))
    })
}

/// Removes what is there of a container that has ended, for whoever holds its shim's lock: [`remove`], and ctr-shim
/// itself for a container that is to be removed when it ends. Its ports must be gone already (net-detach).
///
/// Returns the bytes this gave back.
pub fn take_apart(store: &Store, dir: &ContainerDir, volumes: bool, shim_lock: &Lock) -> Result<u64> {
    take_away(store, dir, volumes, shim_lock)?.delete()
}

/// [`take_apart`] but for deleting the files, which is left to the caller: the container is gone all the same.
pub fn take_away(store: &Store, dir: &ContainerDir, volumes: bool, _shim_lock: &Lock) -> Result<Remains> {
    let _lock = Lock::directory(&dir.bundle).map_err(|fault| gone(fault, dir))?;
    let record = readable(dir)?;
    // Ports that are left, left by a net-detach that failed, go with net-prune.
    let _ = release_all(store, &dir.id, &record.networks().unwrap_or_default());
    remove_cgroup(dir)?;
    let mut freed = 0;
    if volumes {
        freed += remove_volumes(store, dir, &record)?;
    }
    // Best effort: what stays counts for nothing when there are no others left.
    let _ = store.release_ids(&dir.id);
    // The name first, while nobody else can take it.
    if let Some(container) = record.container().ok().flatten() {
        store.release_name(&container.name, &dir.id);
    }
    let bundle = move_away(store, &dir.bundle)?;
    // What a shim that was killed had plugins mount; there is nobody left who could be told of a failure.
    let _ = volume::trees::release(dir);
    store.event(&Who::container(&record), "destroy", serde_json::Value::Null);
    // Before the files, which may take long: nobody has to wait for this lock any more.
    remove_tree(&dir.run)?;
    Ok(Remains { bundle, freed })
}

/// Files of a container that is gone. Dropped without being deleted they are deleted too, but nobody learns of a failure.
#[must_use = "the files are still there"]
pub struct Remains {
    bundle: Away,
    freed: u64,
}

impl Remains {
    /// Returns the bytes all of the removal gave back.
    pub fn delete(self) -> Result<u64> {
        Ok(self.freed + self.bundle.delete()?)
    }
}

/// The record, or an empty one: what nobody can read must not keep its container from being removed.
fn readable(dir: &ContainerDir) -> Result<Record> {
    match dir.load() {
        Err(fault) if fault.kind() == Kind::Input => Ok(Record::new()),
        other => other,
    }
}

fn gone(fault: Fault, dir: &ContainerDir) -> Fault {
    if fault.kind() == Kind::NotFound {
        let _ = std::fs::remove_dir_all(&dir.run);
        return Fault::not_found("no such container").on(dir.id.as_str());
    }
    fault
}

/// Takes a directory out of the store in one renaming, then deletes it; returns the bytes this gave back.
pub fn discard(store: &Store, path: &Path) -> Result<u64> {
    move_away(store, path)?.delete()
}

/// What is out of the store and to be deleted.
enum Away {
    Scratch(Scratch),
    /// Where renaming is not possible.
    InPlace(PathBuf),
}

impl Away {
    fn delete(&self) -> Result<u64> {
        match self {
            Away::Scratch(scratch) => remove_tree(scratch.path()),
            Away::InPlace(path) => remove_tree(path),
        }
    }
}

fn move_away(store: &Store, path: &Path) -> Result<Away> {
    unmount_rootfs(path)?;
    let scratch = Scratch::new(store)?;
    match std::fs::rename(path, scratch.path()) {
        Ok(()) => Ok(Away::Scratch(scratch)),
        // Another file system mounted there: the record first, so that the container is gone.
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let _ = std::fs::remove_file(path.join("container.json"));
            Ok(Away::InPlace(path.to_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Away::Scratch(scratch)),
        Err(error) => Err(error).explain(|| format!("move {} away", path.display())),
    }
}

/// Another OCI runtime may have had the root mounted on the host. Deleting through a mount would delete what is
/// mounted.
fn unmount_rootfs(bundle: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let rootfs = bundle.join("rootfs");
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|status| (status.dev(), status.is_dir()));
    let Ok(own) = device(bundle) else { return Ok(()) };
    while device(&rootfs).is_ok_and(|(dev, is_dir)| is_dir && dev != own.0) {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(&rootfs, flags).explain(|| format!("unmount {}", rootfs.display()))?;
    }
    Ok(())
}

/// What a killed shim left behind; a shim that ends properly removes its group itself.
fn remove_cgroup(dir: &ContainerDir) -> Result<()> {
    let Some(live) = dir.live_state().ok().flatten().filter(|live| !live.cgroup.is_empty()) else {
        return Ok(());
    };
    let cgroup = cgroup::Cgroup::open(&live.cgroup)?;
    if cgroup.directories().iter().any(|directory| directory.exists()) {
        cgroup.kill();
        cgroup.remove()?;
    }
    Ok(())
}

/// A member of the record's section `volumes`.
#[derive(Deserialize)]
struct Volume {
    name: String,
    #[serde(default)]
    anonymous: bool,
}

fn volumes_of(record: &Record) -> Vec<Volume> {
    record.get("volumes").ok().flatten().unwrap_or_default()
}

fn anonymous_volumes(record: &Record) -> Vec<String> {
    volumes_of(record)
        .into_iter()
        .filter(|volume| volume.anonymous && check_name(&volume.name).is_ok())
        .map(|volume| volume.name)
        .collect()
}

fn remove_volumes(store: &Store, dir: &ContainerDir, record: &Record) -> Result<u64> {
    let names = anonymous_volumes(record);
    if names.is_empty() {
        return Ok(0);
    }
    let mut freed = 0;
    for name in names {
        match volume::remove_unless(store, &name, |user| user.id == dir.id) {
            Ok(bytes) => {
                freed += bytes;
                store.event(&Who::volume(&name), "destroy", serde_json::Value::Null);
            }
            // Another container was given it by name, or it is gone.
            Err(fault) if matches!(fault.kind(), Kind::Conflict | Kind::NotFound) => {}
            Err(fault) => return Err(fault.within(format!("remove volume {name}"))),
        }
    }
    Ok(freed)
}

/// Frees the ports of a container that has ended, by the tool that knows how.
pub fn detach(id: &str) -> Result<()> {
    let program = shim::sibling("net-detach")?;
    let output = Command::new(&program)
        .arg(id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .explain(|| format!("run {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or("it failed without a word");
    Err(Fault::failed(format!("free its ports: {line}")).on(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_planned() {
        let plain = Options::default();
        assert_eq!(steps(&Facts::default(), plain).unwrap(), [Step::RemoveFiles]);
        let running = Facts { runs: true, attached: true, cgroup: true, ports: true, ..Facts::default() };
        assert_eq!(steps(&running, plain).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(
            steps(&running, Options { force: true, ..plain }).unwrap(),
            [Step::Kill, Step::Detach, Step::ReleaseAddresses, Step::RemoveCgroup, Step::RemoveFiles]
        );
        let waiting = Facts { waits: true, anonymous_volumes: vec!["v".into()], ..Facts::default() };
        assert_eq!(steps(&waiting, plain).unwrap(), [Step::Discard, Step::RemoveFiles]);
        assert_eq!(
            steps(&waiting, Options { volumes: true, ..plain }).unwrap()[1],
            Step::RemoveVolume { name: "v".into() }
        );
    }
}
