//! Descriptors this process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A duplicate of a descriptor named by number (`--progress-fd 3`), closed on exec; the original stays as it is.
///
/// # Errors
/// `EBADF` when no such descriptor is open.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC reads no memory; a number that is no open descriptor is an error.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `duplicate` and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_what_is_open() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(inherited(file.as_raw_fd()).is_ok());
        for number in [-1, i32::MAX] {
            assert_eq!(inherited(number).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }
}
