//! What there is to do, as data: verbs, their options, their help.

use crate::call::Call;
use crate::options::{Flag, Opt, OptionsEnd};
use crate::{
    checkpoint, create, delete, events, exec, features, inspect, kill, pause, ps, restore, spec, start,
    update,
};
use fault::{Fault, Result};

#[derive(Clone, Copy)]
pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// As it stands in the usage line.
    pub operands: &'static str,
    pub details: &'static str,
    /// A command a line.
    pub examples: &'static str,
    pub flags: &'static [Flag],
    pub end: OptionsEnd,
    /// How many operands there may be.
    pub least: usize,
    pub most: usize,
    pub run: fn(&Call<'_>) -> Result<u8>,
    /// A failure's exit status.
    pub failure: u8,
    /// Processes of the container are made from this one.
    pub enters: bool,
}

const VERB: Verb = Verb {
    name: "",
    about: "",
    operands: "<container-id>",
    details: "",
    examples: "",
    flags: &[],
    end: OptionsEnd::Never,
    least: 1,
    most: 1,
    run: nothing,
    failure: 1,
    enters: false,
};

/// Of the template, which is no verb.
fn nothing(_: &Call<'_>) -> Result<u8> {
    Err(Fault::failed("this verb does nothing"))
}

const fn bundle() -> Flag {
    Flag::value(
        Opt::Bundle,
        "bundle",
        "DIR",
        "the bundle: the directory of config.json (default: the current one)",
    )
    .short('b')
}

const fn console_socket() -> Flag {
    Flag::value(
        Opt::ConsoleSocket,
        "console-socket",
        "PATH",
        "UNIX socket that is sent the master side of the process's terminal",
    )
}

const fn pidfd_socket() -> Flag {
    Flag::value(
        Opt::PidfdSocket,
        "pidfd-socket",
        "PATH",
        "UNIX socket that is sent a pid descriptor of the process",
    )
}

const fn pid_file() -> Flag {
    Flag::value(Opt::PidFile, "pid-file", "FILE", "write the process id to this file")
}

const fn preserve_fds() -> Flag {
    Flag::value(
        Opt::PreserveFds,
        "preserve-fds",
        "N",
        "pass so many descriptors after the standard streams and those of $LISTEN_FDS",
    )
}

const fn detach() -> Flag {
    Flag::switch(Opt::Detach, "detach", "leave as soon as the process runs").short('d')
}

const fn no_pivot() -> Flag {
    Flag::switch(
        Opt::NoPivot,
        "no-pivot",
        "move the root file system over / instead of exchanging them; for roots on a ramdisk",
    )
}

const fn no_new_keyring() -> Flag {
    Flag::switch(Opt::NoNewKeyring, "no-new-keyring", "leave the process the caller's session keyring")
}

const fn format() -> Flag {
    Flag::value(Opt::Format, "format", "FORMAT", "table or json (default: table)").short('f')
}

const fn image_path() -> Flag {
    Flag::value(Opt::ImagePath, "image-path", "DIR", "directory of the images (default: checkpoint)")
}

const fn work_path() -> Flag {
    Flag::value(
        Opt::WorkPath,
        "work-path",
        "DIR",
        "directory of criu's log and temporary files (default: that of the images)",
    )
}

const fn tcp_established() -> Flag {
    Flag::switch(Opt::TcpEstablished, "tcp-established", "allow open TCP connections")
}

const fn tcp_close() -> Flag {
    Flag::switch(Opt::TcpClose, "tcp-close", "close open TCP connections")
}

const fn ext_unix_sk() -> Flag {
    Flag::switch(Opt::ExtUnixSk, "ext-unix-sk", "allow UNIX sockets whose other side is outside")
}

const fn shell_job() -> Flag {
    Flag::switch(Opt::ShellJob, "shell-job", "allow a terminal that is shared with who called")
}

const fn file_locks() -> Flag {
    Flag::switch(Opt::FileLocks, "file-locks", "allow file locks")
}

const fn lazy_pages() -> Flag {
    Flag::switch(Opt::LazyPages, "lazy-pages", "leave memory where it is until it is used (userfaultfd)")
}

const fn auto_dedup() -> Flag {
    Flag::switch(Opt::AutoDedup, "auto-dedup", "free memory in images that a later one replaces")
}

const fn cgroups_mode() -> Flag {
    Flag::value(
        Opt::ManageCgroupsMode,
        "manage-cgroups-mode",
        "MODE",
        "what criu does with control groups: soft, full, strict or ignore (default: soft)",
    )
}

const fn empty_ns() -> Flag {
    Flag::values(Opt::EmptyNs, "empty-ns", "NAMESPACE", "leave what is in it to somebody else: network")
}

/// Options of every verb, before or after it.
pub const GLOBAL: &[Flag] = &[
    Flag::switch(Opt::Debug, "debug", "log more"),
    Flag::value(Opt::Log, "log", "FILE", "append to this log file (default: /dev/stderr)"),
    Flag::value(Opt::LogFormat, "log-format", "FORMAT", "text or json (default: text)"),
    Flag::value(
        Opt::Root,
        "root",
        "DIR",
        "where the states of containers are kept (default: /run/oci-runtime; for an ordinary user $XDG_RUNTIME_DIR/oci-runtime)",
    ),
    Flag::switch(
        Opt::SystemdCgroup,
        "systemd-cgroup",
        "have systemd make control groups: linux.cgroupsPath is slice:prefix:name",
    ),
    Flag::value(
        Opt::Rootless,
        "rootless",
        "BOOL",
        "go on without control groups where they may not be made: true, false or auto, for ordinary users (default: auto)",
    ),
    Flag::switch(Opt::Help, "help", "show help").short('h'),
    Flag::switch(Opt::Version, "version", "print the version").short('v'),
];

pub const VERBS: &[Verb] = &[
    Verb {
        name: "checkpoint",
        about: "save a running container in files, with its memory",
        details: "The container is ended and deleted then, unless it is left running. Takes criu.",
        examples: "oci-runtime checkpoint --image-path /var/tmp/demo demo",
        flags: CHECKPOINT,
        run: checkpoint::checkpoint,
        ..VERB
    },
    Verb {
        name: "create",
        about: "create a container",
        examples: "oci-runtime create --bundle b --pid-file demo.pid demo\n\
                   oci-runtime create --bundle b --console-socket console.sock demo",
        details: "Makes the container of a bundle: its namespaces, its root file system, its first process, which waits for \"start\". \
                  A bundle is a directory with a config.json (\"spec\" writes one) and the root file system it names.",
        flags: &[
            bundle(),
            console_socket(),
            pidfd_socket(),
            pid_file(),
            no_pivot(),
            no_new_keyring(),
            preserve_fds(),
        ],
        run: create::create,
        enters: true,
        ..VERB
    },
    Verb {
        name: "delete",
        about: "delete a container that has ended, and what it holds",
        examples: "oci-runtime delete demo\n\
                   oci-runtime list -q | xargs -n 1 oci-runtime delete --force",
        flags: &[Flag::switch(
            Opt::Force,
            "force",
            "kill it first if it runs; one that is not there is no error",
        )
        .short('f')],
        run: delete::delete,
        ..VERB
    },
    Verb {
        name: "events",
        about: "display events of a container: statistics, and that it ran out of memory",
        examples: "oci-runtime events --stats demo | jq .data.memory.usage\n\
                   oci-runtime events --interval 1s demo",
        details: "Prints a line of JSON for each. Ends with the container.",
        flags: &[
            Flag::value(
                Opt::Interval,
                "interval",
                "TIME",
                "between statistics: 500ms, 5s, 1m30s (default: 5s)",
            ),
            Flag::switch(Opt::Stats, "stats", "display the statistics once and leave"),
        ],
        run: events::events,
        ..VERB
    },
    Verb {
        name: "exec",
        about: "execute a new process in a container",
        examples: "oci-runtime exec demo ps\n\
                   oci-runtime exec -t --user 1000:1000 --env A=b demo sh\n\
                   oci-runtime exec --process process.json demo",
        operands: "<container-id> <command> [arguments] | --process FILE <container-id>",
        details: "The exit status is the process's, or 255 where it could not be executed.",
        flags: &[
            console_socket(),
            pidfd_socket(),
            Flag::value(Opt::Cwd, "cwd", "DIR", "working directory in the container"),
            Flag::values(Opt::Env, "env", "NAME=VALUE", "set an environment variable").short('e'),
            Flag::switch(Opt::Tty, "tty", "give the process a terminal").short('t'),
            Flag::value(Opt::User, "user", "UID[:GID]", "run as this user").short('u'),
            Flag::values(Opt::AdditionalGids, "additional-gids", "GID", "one more group").short('g'),
            Flag::value(Opt::Process, "process", "FILE", "process.json: the whole process").short('p'),
            detach(),
            pid_file(),
            Flag::value(Opt::ProcessLabel, "process-label", "LABEL", "SELinux label of the process"),
            Flag::value(Opt::Apparmor, "apparmor", "PROFILE", "AppArmor profile of the process"),
            Flag::switch(Opt::NoNewPrivs, "no-new-privs", "set no_new_privs"),
            Flag::values(Opt::Cap, "cap", "CAPABILITY", "give the process one more capability").short('c'),
            preserve_fds(),
            Flag::values(
                Opt::Cgroup,
                "cgroup",
                "[CONTROLLER:]PATH",
                "run it in this control group, which exists below the container's",
            ),
            Flag::switch(Opt::IgnorePaused, "ignore-paused", "even in a paused container, where it waits"),
        ],
        end: OptionsEnd::AfterFirst,
        most: usize::MAX,
        run: exec::exec,
        failure: 255,
        enters: true,
        ..VERB
    },
    Verb {
        name: "features",
        about: "show what this runtime can do, as JSON",
        examples: "oci-runtime features | jq -r '.linux.seccomp.actions[]'",
        operands: "",
        least: 0,
        most: 0,
        run: features::features,
        ..VERB
    },
    Verb {
        name: "kill",
        about: "send a signal (TERM by default) to a container's first process",
        examples: "oci-runtime kill demo\n\
                   oci-runtime kill --all demo KILL",
        operands: "<container-id> [signal]",
        details: "Without a pid namespace of the container's own, KILL goes to all of its processes.",
        flags: &[Flag::switch(Opt::All, "all", "to all processes; one that has ended is no error").short('a')],
        end: OptionsEnd::AfterFirst,
        most: 2,
        run: kill::kill,
        ..VERB
    },
    Verb {
        name: "list",
        about: "list containers",
        examples: "oci-runtime list\n\
                   oci-runtime list --format json | jq -r '.[] | select(.status == \"stopped\").id'",
        operands: "",
        flags: &[format(), Flag::switch(Opt::Quiet, "quiet", "print ids only").short('q')],
        least: 0,
        most: 0,
        run: inspect::list,
        ..VERB
    },
    Verb {
        name: "pause",
        about: "suspend all processes of a container",
        examples: "oci-runtime pause demo && oci-runtime resume demo",
        run: pause::pause,
        ..VERB
    },
    Verb {
        name: "ps",
        about: "display the processes of a container",
        examples: "oci-runtime ps demo\n\
                   oci-runtime ps demo -o pid,rss,args",
        operands: "<container-id> [ps options]",
        details: "The table is ps(1)'s with what is not the container's left out; its options are -ef by default.",
        flags: &[format()],
        end: OptionsEnd::AfterFirst,
        most: usize::MAX,
        run: ps::ps,
        ..VERB
    },
    Verb {
        name: "restore",
        about: "make a container again from its checkpoint, where it was left",
        details: "Stays until the container ends and deletes it then, as \"run\" does. The bundle is the one it was made from, or a \
                  copy. Takes criu. Whoever can write to the images decides what the restored processes may do.",
        examples: "oci-runtime restore --image-path /var/tmp/demo --bundle b demo",
        flags: RESTORE,
        run: restore::restore,
        ..VERB
    },
    Verb {
        name: "resume",
        about: "let a paused container go on",
        examples: "oci-runtime pause demo && oci-runtime resume demo",
        run: pause::resume,
        ..VERB
    },
    Verb {
        name: "run",
        about: "create and start a container",
        examples: "oci-runtime run --bundle b demo\n\
                   oci-runtime run --detach --bundle b --pid-file demo.pid demo </dev/null >demo.log 2>&1",
        details: "Stays until the container ends and deletes it then. The exit status is that of its process, \
                  128 + the signal's number if one killed it.",
        flags: &[
            bundle(),
            console_socket(),
            pidfd_socket(),
            detach(),
            Flag::switch(Opt::Keep, "keep", "do not delete the container when it has ended"),
            pid_file(),
            Flag::switch(
                Opt::NoSubreaper,
                "no-subreaper",
                "leave processes that lost their parent to somebody else",
            ),
            no_pivot(),
            no_new_keyring(),
            preserve_fds(),
        ],
        run: create::run,
        enters: true,
        ..VERB
    },
    Verb {
        name: "spec",
        about: "write a config.json to begin with",
        examples: "mkdir -p b/rootfs && oci-runtime spec --bundle b\n\
                   oci-runtime spec --rootless",
        operands: "",
        flags: &[
            bundle(),
            Flag::switch(Opt::SpecRootless, "rootless", "for a container made by an ordinary user"),
        ],
        least: 0,
        most: 0,
        run: spec::spec,
        ..VERB
    },
    Verb {
        name: "start",
        about: "execute the process of a created container",
        examples: "oci-runtime create --bundle b demo && oci-runtime start demo",
        run: start::start,
        ..VERB
    },
    Verb {
        name: "state",
        about: "print the state of a container, as JSON",
        examples: "oci-runtime state demo | jq -r .status",
        run: inspect::state,
        ..VERB
    },
    Verb {
        name: "update",
        about: "change the resources of a container",
        examples: "oci-runtime update --memory 64M --cpu-quota 50000 demo\n\
                   echo '{\"pids\":{\"limit\":100}}' | oci-runtime update --resources - demo",
        details: "What is not named stays. The file has the members of \"linux.resources\" in config.json: \
                  memory, cpu, pids, blockIO, unified; with it the other options are ignored.",
        flags: UPDATE,
        run: update::update,
        ..VERB
    },
];

const CHECKPOINT: &[Flag] = &[
    image_path(),
    work_path(),
    Flag::value(
        Opt::ParentPath,
        "parent-path",
        "DIR",
        "directory of an earlier pre-dump, relative to the image path: only what changed since is saved",
    ),
    Flag::switch(Opt::LeaveRunning, "leave-running", "let the container go on afterwards"),
    tcp_established(),
    Flag::switch(Opt::TcpSkipInFlight, "tcp-skip-in-flight", "leave out TCP connections not yet accepted"),
    tcp_close(),
    Flag::switch(Opt::LinkRemap, "link-remap", "give open files without a name one for the time"),
    ext_unix_sk(),
    shell_job(),
    lazy_pages(),
    Flag::value(
        Opt::StatusFd,
        "status-fd",
        "FD",
        "write a 0 byte to this descriptor when lazy pages can be had",
    ),
    Flag::value(Opt::PageServer, "page-server", "ADDRESS:PORT", "send the memory there instead of saving it"),
    file_locks(),
    Flag::switch(Opt::PreDump, "pre-dump", "save the memory only and let the container go on"),
    cgroups_mode(),
    empty_ns(),
    auto_dedup(),
];

const RESTORE: &[Flag] = &[
    bundle(),
    console_socket(),
    image_path(),
    work_path(),
    tcp_established(),
    tcp_close(),
    ext_unix_sk(),
    shell_job(),
    file_locks(),
    cgroups_mode(),
    detach(),
    pid_file(),
    Flag::switch(Opt::NoSubreaper, "no-subreaper", "leave processes that lost their parent to somebody else"),
    Flag::switch(Opt::NoPivot, "no-pivot", "accepted: criu chooses itself how to enter the root file system"),
    empty_ns(),
    auto_dedup(),
    lazy_pages(),
    Flag::value(
        Opt::LsmProfile,
        "lsm-profile",
        "TYPE:NAME",
        "run under this apparmor or selinux profile instead",
    ),
    Flag::value(
        Opt::LsmMountContext,
        "lsm-mount-context",
        "CONTEXT",
        "mount with this SELinux context instead",
    ),
];

const UPDATE: &[Flag] = &[
    Flag::value(
        Opt::Resources,
        "resources",
        "FILE",
        "read the resources from a file, or from stdin if it is -",
    )
    .short('r'),
    Flag::value(Opt::BlkioWeight, "blkio-weight", "N", "weight of block I/O, 10 to 1000"),
    Flag::value(Opt::CpuPeriod, "cpu-period", "USEC", "CFS period"),
    Flag::value(Opt::CpuQuota, "cpu-quota", "USEC", "CPU time in each period"),
    Flag::value(Opt::CpuBurst, "cpu-burst", "USEC", "CPU time that can be saved for a burst"),
    Flag::value(Opt::CpuShare, "cpu-share", "N", "CPU shares, the weight against others"),
    Flag::value(Opt::CpuRtPeriod, "cpu-rt-period", "USEC", "realtime period"),
    Flag::value(Opt::CpuRtRuntime, "cpu-rt-runtime", "USEC", "realtime CPU time in each period"),
    Flag::value(Opt::CpusetCpus, "cpuset-cpus", "LIST", "CPUs to use"),
    Flag::value(Opt::CpusetMems, "cpuset-mems", "LIST", "memory nodes to use"),
    Flag::value(Opt::KernelMemory, "kernel-memory", "BYTES", "ignored, as kernels do"),
    Flag::value(Opt::KernelMemoryTcp, "kernel-memory-tcp", "BYTES", "ignored, as kernels do"),
    Flag::value(Opt::Memory, "memory", "BYTES", "memory limit; -1 for none"),
    Flag::value(Opt::CpuIdle, "cpu-idle", "N", "1: only what others leave"),
    Flag::value(Opt::MemoryReservation, "memory-reservation", "BYTES", "soft limit of memory"),
    Flag::value(Opt::MemorySwap, "memory-swap", "BYTES", "limit of memory and swap together; -1 for none"),
    Flag::value(Opt::PidsLimit, "pids-limit", "N", "most processes; -1 for any number"),
    Flag::value(Opt::L3CacheSchema, "l3-cache-schema", "SCHEMA", "Intel RDT/CAT schema of the L3 cache"),
    Flag::value(Opt::MemBwSchema, "mem-bw-schema", "SCHEMA", "Intel RDT/MBA schema of memory bandwidth"),
];

pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}
