//! What a secret is: read when a container is started, kept in memory, and in the container on a file system in memory.

use fault::{Explain, Fault, Kind, Result};
use oci::wishes::SecretSource;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use store::Store;

/// docker's limit of a secret is 500 kB.
const MAX_BYTES: u64 = 512 << 10;

pub fn read(store: &Store, source: &SecretSource) -> Result<Vec<u8>> {
    match source {
        SecretSource::Named(name) => {
            let path = store.root().join("secrets").join(name);
            let (value, mode) = read_file(&path).map_err(|fault| {
                if fault.kind() != Kind::NotFound {
                    return fault;
                }
                let place = path.display();
                Fault::not_found("there is no such secret")
                    .hint(format!("install -D -m 600 FILE {place}, or src=FILE, or env=VARIABLE"))
            })?;
            if mode & 0o077 != 0 {
                return Err(Fault::denied(format!("others may read {}", path.display()))
                    .hint(format!("chmod 600 {}", path.display())));
            }
            Ok(value)
        }
        SecretSource::File(path) => read_file(Path::new(path)).map(|(value, _)| value),
        SecretSource::Variable(name) => {
            use std::os::unix::ffi::OsStringExt;
            std::env::var_os(name).map(OsStringExt::into_vec).ok_or_else(|| {
                Fault::not_found(format!("the variable {name} is not set"))
                    .hint("it is taken from whoever sets the container up: ctr-create, or ctr-start when it is started again")
            })
        }
    }
}

fn read_file(path: &Path) -> Result<(Vec<u8>, u32)> {
    let failed = |error: std::io::Error| {
        let kind =
            if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::of_io(&error) };
        Fault::new(kind, format!("open {}", path.display())).because(error)
    };
    // A pipe nobody writes to must not hold everything up.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let status = file.metadata().explain(|| format!("look at {}", path.display()))?;
    if !status.is_file() {
        return Err(Fault::input(format!("{} is not a file", path.display())));
    }
    let mut value = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut value).explain(|| format!("read {}", path.display()))?;
    if value.len() as u64 > MAX_BYTES {
        return Err(Fault::input(format!("{} is longer than {MAX_BYTES} bytes", path.display())));
    }
    Ok((value, status.mode()))
}

/// As a variable: text, without the newline an editor puts at a file's end.
pub fn variable(name: &str, value: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or_else(|| {
        Fault::input("it is no text, which a variable has to be").hint("type=mount takes anything")
    })?;
    Ok(format!("{name}={}", text.strip_suffix('\n').unwrap_or(&text)))
}

/// A file system in memory, mounted nowhere.
pub fn folder() -> Result<OwnedFd> {
    match tmpfs(true) {
        // Linux before 6.4 may put it into swap.
        Err(_) => tmpfs(false),
        made => made,
    }
    .explain(|| "make a tmpfs for secrets".into())
}

fn tmpfs(never_in_swap: bool) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "secrets")?;
    fsconfig_set_string(&context, "mode", "0700")?;
    if never_in_swap {
        fsconfig_set_flag(&context, "noswap")?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

pub fn write(folder: &OwnedFd, name: &str, value: &[u8], (uid, gid, mode): (u32, u32, u32)) -> Result<()> {
    let failed = || "write it to memory".to_owned();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::from_raw_mode(0o600)).explain(failed)?;
    let mut file = std::fs::File::from(file);
    file.write_all(value).explain(failed)?;
    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).explain(failed)?;
    fchmod(&file, Mode::from_raw_mode(mode)).explain(failed)
}
