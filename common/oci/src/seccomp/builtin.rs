//! The built-in profile: docker's (moby `profiles/seccomp/default.json`, August 2026), said in fewer words.
//!
//! Whatever is not allowed here fails with EPERM: io_uring, keyrings, userfaultfd, what makes namespaces and mounts
//! without CAP_SYS_ADMIN, and everything unknown.

use super::Condition;
use oci_spec::runtime::LinuxSeccompOperator as Op;

/// One comparison of a system call's argument.
pub(super) struct Arg {
    pub index: usize,
    pub op: Op,
    /// Of a masked comparison: the mask; the masked bits must be 0.
    pub value: u64,
}

pub(super) struct Rule {
    pub names: &'static [&'static str],
    /// It fails with this error instead of being allowed.
    pub errno: Option<u32>,
    pub args: &'static [Arg],
    pub when: Condition<'static, &'static str>,
}

const ALWAYS: Condition<'static, &'static str> =
    Condition { arches: &[], not_arches: &[], caps: &[], not_caps: &[], kernel: None, not_kernel: None };

/// C libraries fall back from clone3, whose flags a filter cannot see, to clone, when they get this.
const ENOSYS: u32 = 38;

/// `CLONE_NEW*`: NS, CGROUP, UTS, IPC, USER, PID, NET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Families `socket` does not get: the kernel's cryptography, and the way to a virtual machine's host.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Allowed always, names separated by spaces.
pub(super) const ALLOWED: &[&str] = &[
    // Files and directories
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
     faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 \
     fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate \
     ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown lchown32 link linkat listmount _llseek \
     lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 \
     pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename \
     renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statmount statx \
     symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime \
     utimensat utimensat_time64 utimes vmsplice write writev",
    // Extended attributes
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat \
     llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Waiting for events
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
     io_submit _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    // Memory
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 \
     mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
     pkey_mprotect process_mrelease remap_file_pages",
    // Processes, threads and scheduling
    "alarm execve execveat exit exit_group fork get_thread_area getcpu getpgid getpgrp getpid getppid \
     getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set kill pause pidfd_open \
     pidfd_send_signal prctl prlimit64 restart_syscall riscv_hwprobe sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield set_thread_area set_tid_address setpgid setpriority setrlimit setsid \
     tgkill times tkill ugetrlimit uretprobe vfork wait4 waitid waitpid",
    // Signals
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn",
    // Locks between threads
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list rseq \
     set_robust_list",
    // Identity and confinement
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid \
     getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset \
     landlock_restrict_self seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
     setuid setuid32",
    // Time
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer \
     time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
     timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Sockets and pipes
    "accept accept4 bind connect getpeername getsockname getsockopt listen pipe pipe2 recv recvfrom \
     recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall \
     socketpair",
    // System V and POSIX IPC
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget",
    // The system
    "getrandom sysinfo uname",
];

const fn allow(names: &'static [&'static str], when: Condition<'static, &'static str>) -> Rule {
    Rule { names, errno: None, args: &[], when }
}

const fn allow_arg(name: &'static [&'static str], args: &'static [Arg]) -> Rule {
    Rule { names: name, errno: None, args, when: ALWAYS }
}

const fn with_cap(cap: &'static [&'static str], names: &'static [&'static str]) -> Rule {
    allow(names, Condition { caps: cap, ..ALWAYS })
}

const fn on(arches: &'static [&'static str], names: &'static [&'static str]) -> Rule {
    allow(names, Condition { arches, ..ALWAYS })
}

/// Allowed, or refused in another way, under a condition. Of several rules for a call any may allow it.
pub(super) const RULES: &[Rule] = &[
    // Older kernels let ptrace get round a filter.
    allow(&["process_vm_readv", "process_vm_writev", "ptrace"], Condition { kernel: Some((4, 8)), ..ALWAYS }),
    allow_arg(&["socket"], &[Arg { index: 0, op: Op::ScmpCmpLt, value: AF_ALG }]),
    allow_arg(&["socket"], &[Arg { index: 0, op: Op::ScmpCmpEq, value: AF_ALG + 1 }]),
    allow_arg(&["socket"], &[Arg { index: 0, op: Op::ScmpCmpGt, value: AF_VSOCK }]),
    // PER_LINUX, PER_LINUX32, both with UNAME26, and the question which it is.
    allow_arg(&["personality"], &[Arg { index: 0, op: Op::ScmpCmpEq, value: 0 }]),
    allow_arg(&["personality"], &[Arg { index: 0, op: Op::ScmpCmpEq, value: 0x8 }]),
    allow_arg(&["personality"], &[Arg { index: 0, op: Op::ScmpCmpEq, value: 0x2_0000 }]),
    allow_arg(&["personality"], &[Arg { index: 0, op: Op::ScmpCmpEq, value: 0x2_0008 }]),
    allow_arg(&["personality"], &[Arg { index: 0, op: Op::ScmpCmpEq, value: 0xffff_ffff }]),
    on(&["ppc64le"], &["sync_file_range2", "swapcontext"]),
    on(
        &["arm", "arm64"],
        &[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "sync_file_range2",
            "breakpoint",
            "cacheflush",
            "set_tls",
        ],
    ),
    on(&["amd64", "x32"], &["arch_prctl"]),
    on(&["amd64", "x32", "x86"], &["modify_ldt"]),
    on(&["s390", "s390x"], &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"]),
    on(&["riscv64"], &["riscv_flush_icache"]),
    with_cap(&["CAP_DAC_READ_SEARCH"], &["open_by_handle_at"]),
    with_cap(
        &["CAP_SYS_ADMIN"],
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    Rule {
        names: &["clone"],
        errno: None,
        args: &[Arg { index: 0, op: Op::ScmpCmpMaskedEq, value: CLONE_NAMESPACES }],
        when: Condition { not_caps: &["CAP_SYS_ADMIN"], not_arches: &["s390", "s390x"], ..ALWAYS },
    },
    // On s390 the flags come second.
    Rule {
        names: &["clone"],
        errno: None,
        args: &[Arg { index: 1, op: Op::ScmpCmpMaskedEq, value: CLONE_NAMESPACES }],
        when: Condition { not_caps: &["CAP_SYS_ADMIN"], arches: &["s390", "s390x"], ..ALWAYS },
    },
    Rule {
        names: &["clone3"],
        errno: Some(ENOSYS),
        args: &[],
        when: Condition { not_caps: &["CAP_SYS_ADMIN"], ..ALWAYS },
    },
    with_cap(&["CAP_SYS_BOOT"], &["reboot"]),
    with_cap(&["CAP_SYS_CHROOT"], &["chroot"]),
    with_cap(&["CAP_SYS_MODULE"], &["delete_module", "init_module", "finit_module"]),
    with_cap(&["CAP_SYS_PACCT"], &["acct"]),
    with_cap(
        &["CAP_SYS_PTRACE"],
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    with_cap(&["CAP_SYS_RAWIO"], &["iopl", "ioperm"]),
    with_cap(&["CAP_SYS_TIME"], &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    with_cap(&["CAP_SYS_TTY_CONFIG"], &["vhangup"]),
    with_cap(&["CAP_SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    with_cap(&["CAP_SYSLOG"], &["syslog"]),
    with_cap(&["CAP_BPF"], &["bpf"]),
    with_cap(&["CAP_PERFMON"], &["perf_event_open"]),
];
