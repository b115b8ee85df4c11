//! Loading compiled seccomp filters.

use std::io;

/// One instruction of a filter program, as the kernel takes it (`struct sock_filter`).
pub const INSTRUCTION_BYTES: usize = size_of::<libc::sock_filter>();

/// `SECCOMP_FILTER_FLAG_LOG`.
pub const FLAG_LOG: u32 = 2;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
pub const FLAG_SPEC_ALLOW: u32 = 4;

/// Puts a filter on this process (seccomp(2)). Needs `no_new_privs` or CAP_SYS_ADMIN; every program this process
/// executes keeps it.
///
/// Fails with `EINVAL` if the bytes are not a whole number of instructions, 1 to 4096 of them, or the kernel
/// finds the program unsound.
pub fn load(program: &[u8], flags: u32) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
    let count = program.len() / INSTRUCTION_BYTES;
    if !program.len().is_multiple_of(INSTRUCTION_BYTES) || count == 0 || count > 4096 {
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
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
