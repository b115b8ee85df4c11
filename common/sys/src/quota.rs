//! Project quotas (quotactl(2), ioctl_fsxattr): a limit on what is below a directory, as ext4 and XFS have it.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::{Errno, Result};

/// `struct fsxattr` of `<linux/fs.h>`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of `<linux/quota.h>`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Dqblk {
    /// In blocks of 1 KiB.
    hard_limit: u64,
    soft_limit: u64,
    /// In bytes.
    used: u64,
    inode_hard_limit: u64,
    inode_soft_limit: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// Longer than `struct fs_quota_stat` of `<linux/dqblk_xfs.h>`, of which the flags alone are looked at.
#[repr(C)]
struct QuotaStat {
    version: i8,
    flags: u16,
    rest: [u64; 31],
}

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// `XQM_CMD(5)`.
const Q_XGETQSTAT: u32 = 0x5805;
const PRJQUOTA: u32 = 2;
const QIF_BLIMITS: u32 = 1;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
const BLOCK: u64 = 1024;

/// Whether the file system a file is on keeps projects to their limits. Those that have no quotas do not.
pub fn are_enforced(file: impl AsFd) -> bool {
    let mut stat = QuotaStat { version: 0, flags: 0, rest: [0; 31] };
    // SAFETY: the kernel writes a struct fs_quota_stat, 80 bytes, to what is 256 bytes long and lives until the call is over.
    let asked = unsafe { quotactl(file.as_fd(), Q_XGETQSTAT, 0, (&raw mut stat).cast()) };
    asked.is_ok() && stat.flags & FS_QUOTA_PDQ_ENFD != 0
}

/// Whether nothing is counted for a project.
pub fn is_unused(file: impl AsFd, project: u32) -> Result<bool> {
    let mut quota = Dqblk::default();
    // SAFETY: for Q_GETQUOTA the kernel writes a struct if_dqblk, which this is, and it lives until the call is over.
    match unsafe { quotactl(file.as_fd(), Q_GETQUOTA, project, (&raw mut quota).cast()) } {
        Ok(()) => Ok(quota.used == 0 && quota.inodes == 0),
        // Never heard of.
        Err(Errno::NOENT | Errno::SRCH) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Lets a project have so many bytes on the file system a file is on; 0: any number.
pub fn limit(file: impl AsFd, project: u32, bytes: u64) -> Result<()> {
    let quota = Dqblk { hard_limit: bytes.div_ceil(BLOCK), valid: QIF_BLIMITS, ..Dqblk::default() };
    let mut quota = Dqblk { soft_limit: quota.hard_limit, ..quota };
    // SAFETY: for Q_SETQUOTA the kernel reads a struct if_dqblk, which this is, and it lives until the call is over.
    unsafe { quotactl(file.as_fd(), Q_SETQUOTA, project, (&raw mut quota).cast()) }
}

/// The project of a file or directory; 0: none.
pub fn project(file: impl AsFd) -> Result<u32> {
    attributes(file.as_fd()).map(|attributes| attributes.projid)
}

/// Makes a directory one of a project, and everything that will be made in it.
pub fn set_project(directory: impl AsFd, project: u32) -> Result<()> {
    let directory = directory.as_fd();
    let mut attributes = attributes(directory)?;
    attributes.projid = project;
    attributes.xflags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: FS_IOC_FSSETXATTR reads a struct fsxattr, which this is, and it lives until the call is over.
    let set = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR as _, &raw mut attributes) };
    outcome(i64::from(set))
}

fn attributes(file: BorrowedFd<'_>) -> Result<FsXattr> {
    let mut attributes = FsXattr::default();
    // SAFETY: FS_IOC_FSGETXATTR writes a struct fsxattr, which this is, and it lives until the call is over.
    let read = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    outcome(i64::from(read)).map(|()| attributes)
}

/// quotactl_fd(2), Linux 5.14: the file system by a descriptor, not by its device, which need not be there.
///
/// # Safety
/// `data` points to what `command` reads or writes, for as long as the call lasts.
unsafe fn quotactl(file: BorrowedFd<'_>, command: u32, id: u32, data: *mut libc::c_void) -> Result<()> {
    let command = libc::c_long::from(command) << 8 | libc::c_long::from(PRJQUOTA);
    // SAFETY: the descriptor is open, and data is what the caller says.
    let called = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            libc::c_long::from(file.as_raw_fd()),
            command,
            libc::c_long::from(id),
            data,
        )
    };
    outcome(called)
}

fn outcome(returned: i64) -> Result<()> {
    if returned == -1 { Err(errno()) } else { Ok(()) }
}

fn errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!((size_of::<FsXattr>(), size_of::<Dqblk>(), size_of::<QuotaStat>()), (28, 72, 256));
        assert_eq!(std::mem::offset_of!(QuotaStat, flags), 2);
    }

    #[test]
    fn without_quotas_nothing_is_enforced() {
        let proc = std::fs::File::open("/proc/self").unwrap();
        assert!(!are_enforced(&proc));
        assert!(limit(&proc, 5, 1).is_err() && set_project(&proc, 5).is_err() && project(&proc).is_err());
    }
}
