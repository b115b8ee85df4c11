//! `--storage-opt size=…`: a limit on the read-write layer, a project quota of its file system.

use cli::{Explain, Fault, Kind, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use sys::quota;

/// Project ids of ours have this bit; people's own (`/etc/projid`) are small.
const OURS: u32 = 1 << 31;
/// How often a project id that is in use makes way for the next.
const ATTEMPTS: u32 = 16;

/// Limits what can be written to a container's read-write layer, whose directories have just been made and are empty. Both
/// are one project: overlayfs moves files from one to the other, which the kernel refuses between projects.
///
/// # Errors
/// Conflict when the file system keeps no such limits.
pub fn limit(bundle: &Path, id: &str, bytes: u64) -> Result<()> {
    let upper = open(&bundle.join("upper"))?;
    let work = open(&bundle.join("work"))?;
    if !quota::are_enforced(&upper) {
        return Err(cannot(bundle));
    }
    let what = || "limit the read-write layer".to_owned();
    let project = free_project(&upper, id)?;
    quota::limit(&upper, project, bytes).map_err(std::io::Error::from).explain(what)?;
    for directory in [&upper, &work] {
        quota::set_project(directory, project).map_err(std::io::Error::from).explain(what)?;
    }
    Ok(())
}

/// Another limit, or none, for a container that exists.
///
/// # Errors
/// Conflict when it was made without one: what is in it already would not count.
pub fn change(bundle: &Path, bytes: Option<u64>) -> Result<()> {
    let upper = open(&bundle.join("upper"))?;
    let project = quota::project(&upper).unwrap_or(0);
    if project & OURS == 0 {
        return Err(Fault::conflict("the container was made without a limit for its read-write layer")
            .hint("take its changes to another with ctr-commit, and make that with --storage-opt"));
    }
    let changed = quota::limit(&upper, project, bytes.unwrap_or(0));
    changed.map_err(std::io::Error::from).explain(|| "change the limit of the read-write layer".into())
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .explain(|| format!("open {}", path.display()))
}

/// Of the container's id, which is random; another where that is somebody's.
fn free_project(upper: &OwnedFd, id: &str) -> Result<u32> {
    let first = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    for attempt in 0..ATTEMPTS {
        // All bits set is no project but the kernel's word for none.
        let project = (OURS | first.wrapping_add(attempt)).min(u32::MAX - 1);
        let unused = quota::is_unused(upper, project).map_err(std::io::Error::from);
        if unused.explain(|| format!("ask for the quota of project {project}"))? {
            return Ok(project);
        }
    }
    Err(Fault::new(Kind::Retryable, "no project id for the read-write layer's quota is free"))
}

/// What it would take.
fn cannot(bundle: &Path) -> Fault {
    let (kind, place) = mount_of(bundle).unwrap_or_else(|| ("unknown".to_owned(), "/".to_owned()));
    let fault = Fault::conflict(format!(
        "--storage-opt size: the file system at {place} ({kind}) does not limit what is below a directory"
    ));
    fault.hint(match kind.as_str() {
        "ext4" => format!("the feature: tune2fs -O project,quota DEVICE (unmounted); then mount it with -o prjquota at {place}"),
        "xfs" => format!("mount it with -o prjquota at {place}; for the root file system rootflags=prjquota"),
        _ => "$STAVES_ROOT on ext4 or xfs mounted with -o prjquota; or --read-only with --tmpfs PATH:size=BYTES".to_owned(),
    })
}

/// Type and place of the mount a path is below, by /proc/self/mountinfo (proc(5)).
fn mount_of(path: &Path) -> Option<(String, String)> {
    use std::io::{BufRead, BufReader};
    let path = std::fs::canonicalize(path).ok()?;
    let mut found: Option<(String, String)> = None;
    for line in
        BufReader::new(File::open("/proc/self/mountinfo").ok()?).lines().map_while(std::result::Result::ok)
    {
        let (mount, source) = line.split_once(" - ")?;
        let place = mount.split(' ').nth(4)?.replace("\\040", " ");
        // A later one covers those before it.
        if path.starts_with(&place) && found.as_ref().is_none_or(|(_, best)| place.len() >= best.len()) {
            found = Some((source.split(' ').next()?.to_owned(), place));
        }
    }
    found
}
