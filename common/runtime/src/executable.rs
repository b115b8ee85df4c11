//! This program's own file: what runs in a container can reach it by `/proc/PID/exe` of a process that enters, and must not be
//! able to write to it (CVE-2019-5736).

use fault::{Explain, Fault, Result};
use rustix::fs::{
    AtFlags, CWD, MemfdFlags, SealFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, fcntl_add_seals,
    fcntl_get_seals, memfd_create, statvfs, statx,
};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;

const OWN: &str = "/proc/self/exe";

/// A spelling of `/proc/self/fd/` nobody else uses: what was executed by it was executed from here.
const BY_DESCRIPTOR: &str = "/proc/self/fd/./";

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Executes this program again from where it cannot be written to, unless it runs from there: a read-only mount of the file
/// alone or, where the caller may not mount, a sealed copy in memory. For tools that enter a container themselves; to be called
/// before anything else.
///
/// Whether it runs from there is asked of the kernel, so nothing from outside can make it be left out, and nothing is left in
/// the environment.
pub fn protect_own_executable() -> Result<()> {
    if is_protected()? {
        return Ok(());
    }
    // Once more would be no better.
    if sys::process::executed_as().is_some_and(|path| path.to_bytes().starts_with(BY_DESCRIPTOR.as_bytes())) {
        return Err(Fault::failed("the own executable could not be protected")
            .hint("is /proc this machine's own, and the program no interpreter's?"));
    }
    let protected = match sys::mount::readonly_executable(Path::new(OWN)) {
        Ok(tree) => tree,
        // An ordinary user, or a kernel before 5.12.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => sealed_copy()?,
        Err(error) => return Err(error).explain(|| "protect the own executable".into()),
    };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = std::process::Command::new(format!("{BY_DESCRIPTOR}{}", protected.as_raw_fd()))
        .arg0(name)
        .args(arguments)
        .exec();
    Err(error).explain(|| "execute the protected copy of this program".into())
}

/// A read-only file system of the host's is not enough: the host may make it writable again.
fn is_protected() -> Result<bool> {
    let what = || "look at the own executable".to_owned();
    let mount = statvfs(OWN).explain(what)?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let stat = statx(CWD, OWN, AtFlags::empty(), StatxFlags::empty()).explain(what)?;
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // One that may be executed and not read is no sealed copy.
    let Ok(own) = File::open(OWN) else { return Ok(false) };
    Ok(fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SEALS)))
}

fn sealed_copy() -> Result<OwnedFd> {
    let what = || "copy the own executable".to_owned();
    let mut own = File::open(OWN)
        .explain(what)
        .map_err(|fault| fault.hint("an ordinary user has to be able to read it"))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create("oci-runtime", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all may be executed.
        Err(Errno::INVAL) => memfd_create("oci-runtime", flags),
        made => made,
    };
    let mut copy = File::from(copy.explain(what)?);
    std::io::copy(&mut own, &mut copy).explain(what)?;
    fcntl_add_seals(copy.as_fd(), SEALS).explain(what)?;
    // A file that is open for writing is not executed.
    let readable = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).explain(what)?;
    Ok(readable.into())
}
