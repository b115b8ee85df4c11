//! Options of sockets (socket(7)).

use rustix::fd::{AsFd, AsRawFd};

/// The number of the network namespace a socket is in, which no other has had since boot: the inode's is given away again.
/// `None` before Linux 5.14.
pub fn namespace_cookie(socket: impl AsFd) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which is how long `cookie` is, and `length`; both live until the call
    // is over.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (asked == 0).then_some(cookie)
}

/// Of `<asm-generic/socket.h>`.
const SO_NETNS_COOKIE: libc::c_int = 71;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn sockets_of_one_namespace_have_its_number() {
        let (one, other) = UnixStream::pair().unwrap();
        let cookie = namespace_cookie(&one);
        assert_eq!(cookie, namespace_cookie(&other));
        // Kernels that have it count from one.
        assert_ne!(cookie, Some(0));
        assert_eq!(namespace_cookie(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
