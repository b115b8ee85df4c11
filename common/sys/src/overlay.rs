//! Overlay mounts by the new mount API.

use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use rustix::process::{chdir, fchdir};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the upper directory may still be in use by a mount that is being taken down, and how often to look.
const LONGEST_IN_USE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The read-write part of an overlay.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
    /// Nothing is ever synced, neither by what runs in it nor when it is unmounted (Linux 5.10): for what nobody needs after
    /// a crash of the machine.
    pub volatile: bool,
}

/// A detached overlay of `lower`, lowest first; read-only without a writable part. It is gone when the descriptor is
/// closed, unless it was put somewhere by then.
pub fn mount(lower: &[PathBuf], writable: Option<Writable<'_>>) -> Result<OwnedFd> {
    if let Some(Writable { work, .. }) = writable {
        // The kernel's mark of a volatile overlay, which it never removes.
        let _ = std::fs::remove_dir(work.join("work/incompat/volatile"));
    }
    let deadline = Instant::now() + LONGEST_IN_USE;
    loop {
        match mount_once(lower, writable) {
            Err(fault) if fault.os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(LOOK_AGAIN);
            }
            mounted => return mounted,
        }
    }
}

fn mount_once(lower: &[PathBuf], writable: Option<Writable<'_>>) -> Result<OwnedFd> {
    match attempt(writable, |context| add_one_by_one(context, lower)) {
        // Linux before 6.7 knows no `lowerdir+`. Before 6.5 it takes any option and complains in the end.
        Err(fault) if fault.os_error() == Some(libc::EINVAL) && !lower.is_empty() => {
            let layers = Descriptors::open(lower)?;
            attempt(writable, |context| fsconfig_set_string(context, "lowerdir", layers.joined.as_str()))
        }
        mounted => mounted,
    }
}

fn attempt(
    writable: Option<Writable<'_>>,
    set_lower: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>,
) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .explain(|| "open an overlay file system".into())
        .map_err(|fault| fault.hint("the kernel needs the overlay module: modprobe overlay"))?;
    let failed = |error: Errno, what: &str| {
        let said = crate::mount::context_messages(context.as_fd());
        let fault =
            Fault::failed(format!("set up the overlay ({what})")).because(std::io::Error::from(error));
        if said.is_empty() { fault } else { fault.hint(format!("the kernel says: {said}")) }
    };
    set_lower(context.as_fd()).map_err(|error| failed(error, "lower layers"))?;
    if let Some(Writable { upper, work, volatile }) = writable {
        for (key, value) in [("upperdir", upper), ("workdir", work)] {
            fsconfig_set_string(&context, key, value).map_err(|error| failed(error, key))?;
        }
        // What is in the upper directory is to be a layer's content as it is, whatever the kernel was built or told to do
        // otherwise (Documentation/filesystems/overlayfs.rst, "Renaming directories", "Metadata only copy up"): no directory
        // that is a reference to one below, no file without its data.
        for key in ["redirect_dir", "metacopy"] {
            fsconfig_set_string(&context, key, "off").map_err(|error| failed(error, key))?;
        }
        if volatile {
            fsconfig_set_flag(&context, "volatile").map_err(|error| failed(error, "volatile"))?;
        }
    }
    fsconfig_create(&context).map_err(|error| failed(error, "create"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|error| failed(error, "mount"))
}

/// Topmost first.
fn add_one_by_one(context: BorrowedFd<'_>, lower: &[PathBuf]) -> rustix::io::Result<()> {
    lower.iter().rev().try_for_each(|layer| fsconfig_set_string(context, "lowerdir+", layer))
}

/// All layers in one string, which fsconfig(2) limits to 255 bytes: each is named by its descriptor's number, which is
/// its name in `/proc/self/fd`, the working directory as long as this lives.
struct Descriptors {
    joined: String,
    before: OwnedFd,
    _layers: Vec<OwnedFd>,
}

impl Descriptors {
    fn open(lower: &[PathBuf]) -> Result<Descriptors> {
        let open = |path: &Path| {
            openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .explain(|| format!("open {}", path.display()))
        };
        let layers = lower.iter().rev().map(|layer| open(layer)).collect::<Result<Vec<OwnedFd>>>()?;
        let numbers: Vec<String> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let joined = numbers.join(":");
        if joined.len() > 255 {
            return Err(Fault::failed(format!("this kernel cannot stack {} layers", layers.len()))
                .hint("Linux 6.7 and newer can"));
        }
        let before = open(Path::new("."))?;
        chdir("/proc/self/fd").explain(|| "go to /proc/self/fd".into())?;
        Ok(Descriptors { joined, before, _layers: layers })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // It was the working directory, so it can be again.
        let _ = fchdir(&self.before);
    }
}
