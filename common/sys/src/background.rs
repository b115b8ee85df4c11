//! Work that goes on after a tool has printed its result: making finished files durable.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;

/// A finished file that is to be marked as being on disk for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Absolute path.
    pub path: CString,
    /// Absolute path of a file to remove once it is done.
    pub marker: CString,
    /// Device, inode number and time of the last writing (seconds, nanoseconds) when the file was finished: another one
    /// under its name is left alone, even one that was given the inode of a file removed since.
    pub device: u64,
    pub inode: u64,
    pub modified: (i64, i64),
}

/// Files settled with one `syncfs`: below the usual limit of 1024 open files.
const BATCH: usize = 256;

/// How long the writing waits, in milliseconds. What a tool has finished, the next in the pipe is about to use: while a
/// file system is synced, whoever makes files in it waits for its journal.
const PAUSE: i32 = 1000;

/// Starts a process of its own that waits until the files are on disk, then gives each mode 0444 and removes its
/// marker. Returns at once.
///
/// The process holds none of this one's descriptors (a pipe's reader sees its end in time), is in a session of
/// its own, and is not this one's child, so that nobody has to wait for it. If it is killed, the files stay as
/// they are, which is correct, only later to be checked again.
///
/// # Errors
/// When no process can be made (`EAGAIN`, `ENOMEM`).
pub fn settle(files: &[Finished]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    // The child may not allocate: other threads could have held the allocator's lock at the fork.
    let mut open: Vec<RawFd> = vec![-1; files.len().min(BATCH)];
    // SAFETY: the child only makes async-signal-safe calls (see `detached`) and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => detached(|| {
            // SAFETY: the name ends in NUL; there is nothing to poll, so nothing is read.
            unsafe {
                libc::prctl(libc::PR_SET_NAME, c"staves-settle".as_ptr());
                libc::poll(std::ptr::null_mut(), 0, PAUSE);
            }
            for batch in files.chunks(BATCH) {
                settle_batch(batch, &mut open);
            }
        }),
        child => {
            reap(child);
            Ok(())
        }
    }
}

/// Starts a process of its own, like that of [`settle`], that has the file system below `directory` written to disk. Returns at
/// once.
///
/// # Errors
/// When no process can be made (`EAGAIN`, `ENOMEM`).
pub fn sync(directory: &CStr) -> io::Result<()> {
    // SAFETY: as in `settle`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => detached(|| {
            // SAFETY: `directory` ends in NUL; the descriptor is this process's only one. If it is -1 nothing happens.
            unsafe {
                libc::syncfs(libc::open(
                    directory.as_ptr(),
                    libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
                ));
            }
        }),
        child => {
            reap(child);
            Ok(())
        }
    }
}

/// Waits for the intermediate process, which ends at once.
fn reap(child: libc::pid_t) {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call; the pid is that of a child nobody else waits for.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// `work` may do what is allowed after a fork: async-signal-safe calls.
fn detached(work: impl FnOnce()) -> ! {
    // SAFETY: after a fork in a process with threads only async-signal-safe functions may be called
    // (signal-safety(7)). These are: setsid, prctl, poll, fork (glibc's handlers take the allocator's lock and release it in
    // the child), chdir, close, and the plain system calls of `work`. Nothing here allocates or panics.
    unsafe {
        libc::setsid();
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        close_all();
        // The working directory would keep its file system busy.
        libc::chdir(c"/".as_ptr());
        work();
        libc::_exit(0)
    }
}

/// Closes every descriptor, the standard ones first of all: somebody may be reading to their end.
fn close_all() {
    // SAFETY: this process uses no descriptor it inherited.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32) != 0 {
            for fd in 0..1024 {
                libc::close(fd);
            }
        }
    }
}

fn settle_batch(batch: &[Finished], open: &mut [RawFd]) {
    // Opened before the sync: what has its name afterwards may be another file.
    for (file, fd) in batch.iter().zip(open.iter_mut()) {
        *fd = open_same(file);
    }
    let mut synced: Option<u64> = None;
    for (file, fd) in batch.iter().zip(open.iter_mut()) {
        if *fd < 0 {
            // The file is gone, so its marker says nothing.
            // SAFETY: the marker is a string that ends in NUL.
            unsafe { libc::unlink(file.marker.as_ptr()) };
            continue;
        }
        // SAFETY: `fd` is open and owned by this loop; the marker is a string that ends in NUL.
        unsafe {
            if synced == Some(file.device) || libc::syncfs(*fd) == 0 {
                synced = Some(file.device);
                if libc::fchmod(*fd, 0o444) == 0 {
                    libc::unlink(file.marker.as_ptr());
                }
            }
            libc::close(*fd);
        }
    }
}

/// The file as it was finished, or -1.
fn open_same(file: &Finished) -> RawFd {
    // SAFETY: `path` ends in NUL; `status` is written by fstat before it is read; all zeroes is a valid `stat`.
    unsafe {
        let fd = libc::open(file.path.as_ptr(), libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC);
        if fd < 0 {
            return -1;
        }
        let mut status: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut status) == 0
            && status.st_dev == file.device
            && status.st_ino == file.inode
            && (status.st_mtime, status.st_mtime_nsec) == file.modified
        {
            return fd;
        }
        libc::close(fd);
    }
    -1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    fn finished(path: &Path, marker: &Path) -> Finished {
        let status = std::fs::metadata(path).unwrap();
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        let modified = (status.mtime(), status.mtime_nsec());
        Finished { path: c(path), marker: c(marker), device: status.dev(), inode: status.ino(), modified }
    }

    #[test]
    fn files_become_read_only_and_lose_their_marker() {
        let dir = std::env::temp_dir().join(format!("sys-settle-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files: Vec<_> = (0..3).map(|n| (dir.join(format!("f{n}")), dir.join(format!("m{n}")))).collect();
        for (file, marker) in &files {
            std::fs::write(file, b"x").unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
            std::fs::write(marker, b"").unwrap();
        }
        let mut objects: Vec<_> = files.iter().map(|(file, marker)| finished(file, marker)).collect();
        // Another file has taken the name of the last one.
        objects[2].inode += 1;
        settle(&objects).unwrap();
        let mut waited = 0;
        while files.iter().any(|(_, marker)| marker.exists()) && waited < 3000 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            waited += 1;
        }
        let mode = |n: usize| std::fs::metadata(&files[n].0).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(0), mode(1), mode(2)), (0o444, 0o444, 0o644));
        assert!(!files[2].1.exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
