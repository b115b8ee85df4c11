//! From a set-up container to the user's command: user, limits, capabilities, seccomp, execve.

use crate::capabilities::Sets;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{PosixRlimitType, Process};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags, accessat, openat2};
use rustix::io::Errno;
use rustix::process::Gid;
use rustix::thread::Uid;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A failure to run the command, with docker's status for it.
pub struct ExecFailure {
    pub fault: Fault,
    pub exit_code: Option<i32>,
}

impl From<Fault> for ExecFailure {
    fn from(fault: Fault) -> ExecFailure {
        ExecFailure { fault, exit_code: None }
    }
}

/// A compiled filter and its flags.
#[derive(Clone, Debug)]
pub struct Filter {
    pub program: Vec<u8>,
    pub flags: u32,
}

/// Everything worked out before privileges are given up.
pub struct Command {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    path: Option<String>,
    cwd: PathBuf,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: Option<u32>,
    sets: Option<Sets>,
    limits: Vec<(u32, u64, u64)>,
    no_new_privileges: bool,
    apparmor: Option<String>,
    oom_score_adj: Option<i32>,
    filter: Option<Filter>,
}

impl Command {
    pub fn new(process: &Process, filter: Option<Filter>) -> Result<Command> {
        let arguments = process.args().clone().unwrap_or_default();
        if arguments.is_empty() || arguments[0].is_empty() {
            return Err(
                Fault::input("the process has no command").hint("give one, or use an image that has one")
            );
        }
        let environment = process.env().clone().unwrap_or_default();
        let path = environment.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).map(str::to_owned);
        let user = process.user();
        Ok(Command {
            arguments: c_strings(arguments, "argument")?,
            environment: c_strings(environment, "environment variable")?,
            path,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            sets: process.capabilities().as_ref().map(Sets::of).transpose()?,
            limits: process
                .rlimits()
                .iter()
                .flatten()
                .map(|l| (resource(l.typ()), l.soft(), l.hard()))
                .collect(),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            apparmor: process.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
            oom_score_adj: process.oom_score_adj(),
            filter,
        })
    }

    /// Becomes the command. Returns only on failure.
    pub fn execute(&self) -> ExecFailure {
        match self.give_up_privileges() {
            Ok(()) => self.find_and_execute(),
            Err(fault) => fault.into(),
        }
    }

    fn give_up_privileges(&self) -> Result<()> {
        if let Some(score) = self.oom_score_adj {
            std::fs::write("/proc/self/oom_score_adj", score.to_string())
                .explain(|| format!("set the OOM score adjustment {score}"))
                .map_err(|fault| fault.hint("lowering it needs CAP_SYS_RESOURCE"))?;
        }
        for (resource, soft, hard) in &self.limits {
            sys::process::set_resource_limit(*resource, *soft, *hard)
                .explain(|| format!("set resource limit {resource} to {soft}:{hard}"))
                .map_err(|fault| fault.hint("raising a hard limit needs CAP_SYS_RESOURCE"))?;
        }
        if let Some(profile) = &self.apparmor {
            apply_apparmor(profile)?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.umask.unwrap_or(0o022)));
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).explain(|| "set no_new_privs".into())?;
        } else {
            // Without no_new_privs, loading a filter takes CAP_SYS_ADMIN, so it comes before that is given up.
            self.load_filter()?;
        }
        // The working directory is entered with the container's user below, but for one only root can see.
        let entered = self.enter_cwd().is_ok();
        if let Some(sets) = &self.sets {
            sets.limit_bounding()?;
        }
        self.change_user()?;
        if let Some(sets) = &self.sets {
            sets.apply()?;
        }
        if !entered {
            self.enter_cwd()?;
        }
        self.check_cwd()?;
        if self.no_new_privileges {
            self.load_filter()?;
        }
        Ok(())
    }

    fn load_filter(&self) -> Result<()> {
        match &self.filter {
            Some(filter) => {
                sys::seccomp::load(&filter.program, filter.flags).explain(|| "load the seccomp filter".into())
            }
            None => Ok(()),
        }
    }

    fn change_user(&self) -> Result<()> {
        rustix::thread::set_keep_capabilities(true).explain(|| "keep capabilities".into())?;
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups).explain(|| "set the supplementary groups".into())?;
        let gid = Gid::from_raw(self.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).explain(|| format!("become group {}", self.gid))?;
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).explain(|| format!("become user {}", self.uid))?;
        rustix::thread::set_keep_capabilities(false).explain(|| "keep capabilities no longer".into())
    }

    fn enter_cwd(&self) -> Result<()> {
        if !self.cwd.is_absolute() {
            return Err(Fault::input(format!(
                "the working directory {} is not absolute",
                self.cwd.display()
            )));
        }
        rustix::process::chdir(&self.cwd)
            .explain(|| format!("change to the working directory {}", self.cwd.display()))
    }

    /// A directory from outside the root shows itself by its name (CVE-2024-21626).
    fn check_cwd(&self) -> Result<()> {
        let here = rustix::process::getcwd(Vec::new()).explain(|| "find the working directory".into())?;
        if here.as_bytes().first() == Some(&b'/') {
            return Ok(());
        }
        Err(Fault::denied(format!("the working directory {} is outside the container", self.cwd.display())))
    }

    fn find_and_execute(&self) -> ExecFailure {
        let name = self.arguments[0].to_string_lossy().into_owned();
        let program = match find_program(&name, self.path.as_deref()) {
            Ok(program) => program,
            Err(failure) => return failure,
        };
        // Last of all, so that nothing opened meanwhile slips through.
        if let Err(error) = sys::process::close_on_exec_from(3) {
            return Fault::failed("close descriptors").because(error).into();
        }
        sys::process::reset_signals();
        let error = sys::process::execve(&program, &self.arguments, &self.environment);
        let exit_code = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => 127,
            _ => 126,
        };
        let hint = match error.raw_os_error() {
            Some(libc::ENOEXEC) => Some("is it built for another processor, or a script without #! line?"),
            Some(libc::ENOENT) => Some("the program is there, but its interpreter or loader is not"),
            _ => None,
        };
        let mut fault = Fault::failed(format!("execute {}", program.to_string_lossy())).because(error);
        if let Some(hint) = hint {
            fault = fault.hint(hint);
        }
        ExecFailure { fault, exit_code: Some(exit_code) }
    }
}

/// As execvp(3): a name with a slash is a path, any other is looked for in PATH, which must be one of the container's.
fn find_program(name: &str, path: Option<&str>) -> Result<CString, ExecFailure> {
    let c_string = |path: &Path| {
        CString::new(path.as_os_str().as_bytes())
            .map_err(|_| ExecFailure::from(Fault::input("NUL in a path")))
    };
    let not_found = || ExecFailure {
        fault: Fault::not_found(format!("{name}: executable file not found in $PATH"))
            .hint("check the spelling, or whether the image has it"),
        exit_code: Some(127),
    };
    if name.contains('/') {
        return match usable(Path::new(name)) {
            Ok(()) => c_string(Path::new(name)),
            Err(error @ (Errno::NOENT | Errno::NOTDIR)) => Err(ExecFailure {
                fault: Fault::not_found(format!("{name}: no such file or directory"))
                    .because(std::io::Error::from(error)),
                exit_code: Some(127),
            }),
            Err(error) => Err(ExecFailure {
                fault: Fault::denied(format!("{name}: cannot be executed"))
                    .because(std::io::Error::from(error)),
                exit_code: Some(126),
            }),
        };
    }
    let mut denied = false;
    for directory in path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(':')
    {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        match usable(&candidate) {
            Ok(()) => return c_string(&candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(ExecFailure {
            fault: Fault::denied(format!("{name}: found in $PATH, but permission is denied")),
            exit_code: Some(126),
        });
    }
    Err(not_found())
}

fn usable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn apply_apparmor(profile: &str) -> Result<()> {
    if !Path::new("/sys/kernel/security/apparmor").exists() && !Path::new("/sys/module/apparmor").exists() {
        return Err(Fault::failed(format!("apply AppArmor profile {profile}: AppArmor is not enabled here")));
    }
    let proc = private_proc()?;
    let text = format!("exec {profile}");
    for file in ["self/attr/apparmor/exec", "self/attr/exec"] {
        match write_proc(&proc, file, &text) {
            Err(fault) if fault.os_error() == Some(libc::ENOENT) => {}
            other => return other.map_err(|fault| fault.within(format!("apply AppArmor profile {profile}"))),
        }
    }
    Err(Fault::failed(format!("apply AppArmor profile {profile}: the kernel offers no way")))
}

/// A procfs nobody else has, so that nothing can be mounted over what is written to (CVE-2025-52881).
pub fn private_proc() -> Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).explain(|| "open a procfs".into())?;
    fsconfig_create(&context).explain(|| "open a procfs".into())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).explain(|| "open a procfs".into())
}

/// Writes to a file of a private procfs.
pub fn write_proc(proc: &OwnedFd, file: &str, value: &str) -> Result<()> {
    // `self` is a link, so links are allowed; leaving the file system is not.
    let fd = openat2(
        proc.as_fd(),
        file,
        OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    )
    .explain(|| format!("open /proc/{file}"))?;
    rustix::io::write(&fd, value.as_bytes()).explain(|| format!("write {value:?} to /proc/{file}"))?;
    Ok(())
}

fn c_strings(strings: Vec<String>, what: &str) -> Result<Vec<CString>> {
    strings
        .into_iter()
        .map(|text| {
            CString::new(OsStr::new(&text).as_bytes())
                .map_err(|_| Fault::input(format!("{what} holds a NUL byte")))
        })
        .collect()
}

fn resource(kind: PosixRlimitType) -> u32 {
    let number = match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    number as u32
}
