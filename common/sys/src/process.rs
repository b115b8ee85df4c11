//! Processes and namespaces.

use fault::Explain;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ffi::CStr;
use std::io;
use std::path::PathBuf;

/// libc's constant is of a type too small for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Both sides of a [`clone3`].
#[derive(Debug)]
pub enum Fork {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// The path this program was executed by, as execve(2) got it (getauxval(3), `AT_EXECFN`).
pub fn executed_as() -> Option<&'static CStr> {
    // SAFETY: getauxval(3) reads what the kernel gave the process, and may be called at any time.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    // SAFETY: if it is there it is the address of a NUL-terminated string on the first thread's stack, above all that is ever
    // pushed or popped; nothing writes there as long as the process lives.
    (address != 0).then(|| unsafe { CStr::from_ptr(address as *const libc::c_char) })
}

/// Makes a child process as `fork` does, in new namespaces (`CLONE_NEW*` flags of clone(2); with `CLONE_PARENT` a sibling) and, given the open
/// directory of a version 2 control group, inside it from its first instruction (Linux 5.7).
///
/// Fails with `EDEADLK` if this process has more than one thread: the child would have a copy of locks whose
/// holders do not exist in it, so that the next allocation could hang.
pub fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = namespaces | libc::CLONE_PIDFD as u64;
    let mut cgroup_fd = 0;
    if let Some(fd) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup_fd = fd.as_raw_fd() as u64;
    }
    let mut args = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // A sibling's death is told as this process's own.
        exit_signal: if namespaces & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup_fd,
    };
    // SAFETY: `args` is a valid clone_args of the size given, and `pidfd` outlives the call. Without CLONE_VM and
    // with no stack given, the child runs on its own copy of this stack, as after fork(2); there is no other
    // thread (checked above) that could hold a lock the child needs.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel wrote a new descriptor of ours to `pidfd` (CLONE_PIDFD) and nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Asks the kernel by unshare(2) with CLONE_VM, which changes nothing and fails with EINVAL when there is another
/// thread. Needs no /proc, which does not know this process any more once it has entered a container's namespaces.
pub fn is_single_threaded() -> io::Result<bool> {
    // SAFETY: with this flag unshare(2) either fails or has no effect.
    match unsafe { libc::unshare(libc::CLONE_VM) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            error => Err(error),
        },
    }
}

/// Ends a forked child at once, without running the parent's exit handlers or flushing its buffers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no precondition and does not return.
    unsafe { libc::_exit(status) }
}

/// Every signal to its default action and none blocked: what a program expects at its start. Rust ignores SIGPIPE,
/// and an ignored signal stays so across execve(2).
pub fn reset_signals() {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context. The two real-time signals
        // of the C library give EINVAL, which changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is the empty set on Linux, sigemptyset makes it so anyway, and both pointers are
    // valid for the call.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// A descriptor from which blocked signals are read, each a `signalfd_siginfo` whose first four bytes are the number.
/// The signals are blocked from here on.
pub fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use and lives through the calls; signalfd returns a new
    // descriptor nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sends any signal number, real-time ones too, through a pid descriptor (Linux 5.1).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call; a null siginfo means "as kill(2) would".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on to be closed by execve(2) (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: setting a flag on descriptors breaks no owner's assumption: they stay open in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves `count` descriptors from `first` on open across execve(2), those that are open.
pub fn keep_on_exec(first: u32, count: u32) {
    for number in first..first.saturating_add(count) {
        // SAFETY: a flag of a descriptor is changed, if that number is one.
        unsafe { libc::fcntl(number as libc::c_int, libc::F_SETFD, 0) };
    }
}

/// Closes every descriptor from `first` on but those to keep. For a process that is about to execute something and will only
/// end otherwise: what owned the others must neither use nor drop them, as their numbers may be given to something else.
pub fn close_all_from(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX)
}

/// Closes those descriptors. For a process just made by [`clone3`] that never returns to what owns them: it must neither use nor
/// drop them.
pub fn close_in_child(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    fds.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).try_for_each(|fd| close_range(fd, fd))
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing touches no memory. That nobody uses the descriptors any more is asked of the callers of the functions above.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces the session keyring by a new empty one, so that the container's processes do not hold the keys of
/// whoever started it (keyctl(2)). Kernels without keyrings say `ENOSYS`.
pub fn join_new_session_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is a valid C string for the call.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Executes a program; returns only on failure. The environment and arguments are used as they are.
pub fn execve(
    program: &CStr,
    arguments: &[std::ffi::CString],
    environment: &[std::ffi::CString],
) -> io::Error {
    match nix::unistd::execve(program, arguments, environment) {
        Err(errno) => io::Error::from_raw_os_error(errno as i32),
    }
}

/// Brings up the loopback interface of this network namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid; the name is shorter than its field; the ioctl reads the flags member, which
    // was just written.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts `fd` at the number `target`, open across execve(2), closing what was there.
pub fn duplicate_to(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // dup2 onto itself would leave close-on-exec set.
        // SAFETY: changes a flag of an open descriptor.
        let result = unsafe { libc::fcntl(target, libc::F_SETFD, 0) };
        return if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    }
    // SAFETY: callers pass standard stream numbers, which no OwnedFd of theirs holds.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives back to the system what the allocator holds unused.
pub fn trim_heap() {
    // SAFETY: malloc_trim(3) has no precondition.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A resource's soft and hard limit, by number (`RLIMIT_*`).
pub fn resource_limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is writable for the call; a wrong number gives EINVAL.
    let result = unsafe { libc::getrlimit(resource as _, &raw mut limit) };
    if result == 0 { Ok((limit.rlim_cur, limit.rlim_max)) } else { Err(io::Error::last_os_error()) }
}

/// Sets a resource limit by number (`RLIMIT_*`).
pub fn set_resource_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is a valid structure for the call; a wrong number gives EINVAL.
    let result = unsafe { libc::setrlimit(resource as _, &raw const limit) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same for another process (prlimit(2)).
pub fn set_resource_limit_of(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is a valid structure for the call, and the old one is not asked for.
    let result = unsafe { libc::prlimit64(pid, resource as _, &raw const limit, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts a program with every signal at its default and none blocked, whatever this process has set.
pub fn spawn_with_default_signals(command: &mut std::process::Command) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    // SAFETY: what runs between fork and exec only changes signal settings by async-signal-safe calls and does not allocate.
    unsafe {
        command.pre_exec(|| {
            reset_signals();
            Ok(())
        });
    }
    command.spawn()
}

/// The same for a program that must not outlive the thread that starts it, not even if that is killed
/// (prctl(2), `PR_SET_PDEATHSIG`).
pub fn spawn_bound(command: &mut std::process::Command) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    // SAFETY: what runs between fork and exec only makes async-signal-safe calls and does not allocate.
    unsafe {
        command.pre_exec(move || {
            reset_signals();
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // Killed before it could be told.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
    command.spawn()
}

/// A copy of a descriptor that is only known by its number, closed at execve(2).
///
/// Fails with `EBADF` when it is not open.
pub fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) checks the number; the new descriptor is nobody else's.
    unsafe {
        let fd = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Ends this process as the signal would, had it not been blocked.
pub fn die_of(signal: i32) -> ! {
    reset_signals();
    // SAFETY: raise(3) has no precondition; the handler is the default one.
    unsafe { libc::raise(signal) };
    exit_now(128 + signal)
}

/// A tool of the same build: beside this executable, never by PATH, so that versions cannot be mixed.
pub fn sibling(name: &str) -> fault::Result<PathBuf> {
    let own = std::env::current_exe().explain(|| "find this executable".into())?;
    let path = own.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    // Test programs live one directory below the tools.
    let above = own.parent().and_then(|dir| dir.parent()).map(|dir| dir.join(name));
    above.filter(|path| path.exists()).ok_or_else(|| {
        fault::Fault::failed(format!("{name} is not beside {}", own.display()))
            .hint("install all tools together")
    })
}
