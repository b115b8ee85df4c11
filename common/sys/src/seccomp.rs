//! Loading compiled seccomp filters.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;

/// One instruction of a filter program, as the kernel takes it (`struct sock_filter`).
pub const INSTRUCTION_BYTES: usize = size_of::<libc::sock_filter>();

/// The kernel's bound of a program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_TSYNC`.
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG`.
pub const FLAG_LOG: u32 = 2;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
pub const FLAG_SPEC_ALLOW: u32 = 4;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const FLAG_NEW_LISTENER: u32 = 8;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

/// Puts a filter on this process (seccomp(2)). Needs `no_new_privs` or CAP_SYS_ADMIN; every program this process
/// executes keeps it.
///
/// Fails with `EINVAL` if the bytes are not a whole number of instructions, 1 to 4096 of them, if the kernel
/// finds the program unsound or does not know a flag, or if a listener is asked for: see [`load_with_listener`].
pub fn load(program: &[u8], flags: u32) -> io::Result<()> {
    if flags & FLAG_NEW_LISTENER != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    set_filter(program, flags).map(drop)
}

/// The same with [`FLAG_NEW_LISTENER`], and the descriptor on which system calls are told of that the filter leaves to
/// somebody else (seccomp_unotify(2)). `EBUSY` where this process has one from an earlier filter.
pub fn load_with_listener(program: &[u8], flags: u32) -> io::Result<OwnedFd> {
    let fd = set_filter(program, flags | FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the kernel answers with a new descriptor, which nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows a flag. No filter is loaded: there is none at address 0, which is looked at after the flags.
pub fn knows_flag(flag: u32) -> bool {
    // What has a listener only makes sense with one.
    let flags = if flag == FLAG_WAIT_KILLABLE_RECV { flag | FLAG_NEW_LISTENER } else { flag };
    // SAFETY: the kernel is given no memory; it fails with EFAULT instead of reading address 0.
    unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<libc::sock_fprog>())
    };
    io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

fn set_filter(program: &[u8], flags: u32) -> io::Result<i32> {
    let count = program.len() / INSTRUCTION_BYTES;
    if !program.len().is_multiple_of(INSTRUCTION_BYTES) || count == 0 || count > MAX_INSTRUCTIONS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // Bytes have no alignment to speak of; the kernel wants the instructions'.
    let mut instructions = Vec::with_capacity(count);
    for chunk in program.chunks_exact(INSTRUCTION_BYTES) {
        instructions.push(libc::sock_filter {
            code: u16::from_ne_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        });
    }
    let filter = libc::sock_fprog { len: count as u16, filter: instructions.as_mut_ptr() };
    // SAFETY: `filter` describes `count` instructions in a live vector; the kernel copies and verifies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    if result >= 0 { Ok(result as i32) } else { Err(io::Error::last_os_error()) }
}
