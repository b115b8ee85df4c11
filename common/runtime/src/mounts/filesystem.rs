//! File systems mounted anew, and those whose settings are changed.

use super::options::Options;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::Mount;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use sys::mount::MOUNT_ATTR_RDONLY;

/// Longest string fsconfig(2) takes, and longest data mount(2) takes.
const MAX_STRING: usize = 255;
const MAX_DATA: usize = 4095;

/// One instance is shared with the host, with other containers or with the runtime: read-only is the mount, never the file
/// system. A tmpfs is still to be filled.
const SHARED_OR_FILLED: [&str; 8] =
    ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "devtmpfs", "tmpfs"];
/// What stands for a type where none needs to be given.
const NO_TYPE: [&str; 2] = ["none", ""];

/// Why a file system could not be mounted.
pub(super) enum Refusal {
    /// `EPERM` or `EBUSY`: this process may not mount it where it is.
    Forbidden(Fault),
    Other(Fault),
}

impl Refusal {
    pub fn into_fault(self) -> Fault {
        match self {
            Refusal::Forbidden(fault) | Refusal::Other(fault) => fault,
        }
    }
}

/// A file system mounted nowhere yet.
pub(super) fn new(
    kind: &str,
    mount: &Mount,
    options: &Options,
    mode: Option<u32>,
) -> Result<OwnedFd, Refusal> {
    let failed = |error: Errno, what: &str, said: &str| {
        let fault = Fault::failed(format!("mount {kind} on {} ({what})", mount.destination().display()))
            .because(std::io::Error::from(error));
        let fault = match (said, error) {
            ("", Errno::NODEV) => fault.hint(format!("this kernel has no file system {kind}")),
            // What shows the network or the queues of the host is not for a user namespace, and to bind it shows more.
            (_, Errno::PERM) if matches!(kind, "sysfs" | "mqueue") => fault.hint(
                "a user namespace needs a network or ipc namespace of its own for it; bind the host's otherwise (rbind, ro)",
            ),
            ("", _) => fault,
            _ => fault.hint(format!("the kernel says: {said}")),
        };
        if matches!(error, Errno::PERM | Errno::BUSY) {
            Refusal::Forbidden(fault)
        } else {
            Refusal::Other(fault)
        }
    };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| failed(error, "open", ""))?;
    let said = |error: Errno, what: &str| failed(error, what, &sys::mount::context_messages(context.as_fd()));
    if let Some(source) = mount.source() {
        fsconfig_set_string(&context, "source", source).map_err(|error| said(error, "source"))?;
    }
    if let Some(mode) = mode {
        fsconfig_set_string(&context, "mode", format!("{mode:o}")).map_err(|error| said(error, "mode"))?;
    }
    configure(&context, kind, options).map_err(|(error, key)| said(error, &key))?;
    fsconfig_create(&context).map_err(|error| said(error, "create"))?;
    let attributes = MountAttrFlags::from_bits_retain(options.of_new() as _);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|error| said(error, "mount"))
}

/// The file system's own settings and those any may have.
fn configure(context: &OwnedFd, kind: &str, options: &Options) -> Result<(), (Errno, String)> {
    for key in &options.superblock {
        fsconfig_set_flag(context, *key).map_err(|error| (error, (*key).to_owned()))?;
    }
    if is_readonly(kind, options) {
        fsconfig_set_flag(context, "ro").map_err(|error| (error, "ro".to_owned()))?;
    }
    for (key, value) in &options.data {
        let set = match value {
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, key.as_str()),
        };
        set.map_err(|error| (error, key.clone()))?;
    }
    Ok(())
}

/// Some cannot be mounted otherwise: those on a disk that is read-only.
fn is_readonly(kind: &str, options: &Options) -> bool {
    options.sets(MOUNT_ATTR_RDONLY) && !SHARED_OR_FILLED.contains(&kind) && !NO_TYPE.contains(&kind)
}

/// Whether something of it is too long for the new mount API, as the many layers of an overlay are.
pub(super) fn is_long(mount: &Mount, options: &Options) -> bool {
    let long_source = mount.source().as_ref().is_some_and(|source| source.as_os_str().len() > MAX_STRING);
    let is_long = |(key, value): &(String, Option<String>)| {
        key.len() > MAX_STRING || value.as_ref().is_some_and(|value| value.len() > MAX_STRING)
    };
    long_source || options.data.iter().any(is_long)
}

/// Mounts what is too long by mount(2), on an opened target. Attributes are for the caller to set.
pub(super) fn mount_long(kind: &str, mount: &Mount, options: &Options, target: &OwnedFd) -> Result<()> {
    let what = || format!("mount {kind} on {}", mount.destination().display());
    let nul = |_| Fault::input(format!("{}: a NUL byte in what is to be mounted", what()));
    let words: Vec<String> = options
        .data
        .iter()
        .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
        .collect();
    let data = words.join(",");
    if data.len() > MAX_DATA {
        return Err(Fault::input(format!("{}: its options are longer than {MAX_DATA} bytes", what())));
    }
    let data = CString::new(data).map_err(nul)?;
    let source = mount.source().as_ref().map_or(&b"none"[..], |source| source.as_os_str().as_bytes());
    let source = CString::new(source).map_err(nul)?;
    let mut flags = MountFlags::empty();
    for name in &options.superblock {
        match *name {
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "async" => flags -= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "mand" => flags |= MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
            "nomand" => flags -= MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
            "lazytime" => flags |= MountFlags::LAZYTIME,
            _ => flags -= MountFlags::LAZYTIME,
        }
    }
    if is_readonly(kind, options) {
        flags |= MountFlags::RDONLY;
    }
    // The host's /proc still, as the container's root is entered later.
    let place = format!("/proc/self/fd/{}", target.as_raw_fd());
    rustix::mount::mount(source.as_c_str(), place.as_str(), kind, flags, data.as_c_str())
        .map_err(std::io::Error::from)
        .explain(what)
}

/// Changes the settings of the file system that is mounted on a target.
pub(super) fn reconfigure(kind: &str, mount: &Mount, options: &Options, target: &OwnedFd) -> Result<()> {
    if options.superblock.is_empty() && options.data.is_empty() && !is_readonly(kind, options) {
        return Ok(());
    }
    let failed = |error: Errno, what: &str, said: &str| {
        let fault = Fault::failed(format!("remount {} ({what})", mount.destination().display()))
            .because(std::io::Error::from(error));
        if said.is_empty() { fault } else { fault.hint(format!("the kernel says: {said}")) }
    };
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(target, "", flags).map_err(|error| failed(error, "find", ""))?;
    let said = |error: Errno, what: &str| failed(error, what, &sys::mount::context_messages(context.as_fd()));
    configure(&context, kind, options).map_err(|(error, key)| said(error, &key))?;
    fsconfig_reconfigure(&context).map_err(|error| said(error, "reconfigure"))
}
