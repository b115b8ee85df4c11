//! From a set-up container to the user's command: user, limits, capabilities, seccomp, execve.

mod environment;
mod program;

pub use crate::procfs::{private_proc, write_proc};

use crate::capabilities::Sets;
use crate::hooks::{self, Hooks, Place, Point};
use crate::scheduling::Scheduling;
use crate::seccomp::{self, Filter};
use crate::spec::{Linux, Process};
use crate::state::State;
use crate::{labels, spec};
use fault::{Explain, Fault, Result};
use rustix::fs::{FileType, FsWord, Gid, Mode, Uid, fchown, fstat, fstatfs};
use rustix::io::Errno;
use std::borrow::Cow;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

const PIPEFS_MAGIC: FsWord = 0x5049_5045;
const DEVPTS_SUPER_MAGIC: FsWord = 0x1cd1;

const RAISING: &str = "raising a hard limit needs CAP_SYS_RESOURCE, and none is above /proc/sys/fs/nr_open";

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

/// Everything worked out before privileges are given up.
pub struct Command {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    cwd: PathBuf,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: Option<u32>,
    sets: Option<Sets>,
    limits: Vec<(u32, u64, u64)>,
    no_new_privileges: bool,
    apparmor: Option<String>,
    selinux: Option<String>,
    oom_score_adj: Option<i32>,
    scheduling: Scheduling,
    filter: Option<Filter>,
    terminal: bool,
    home: bool,
    preserved: u32,
    start_hooks: Option<(Hooks, State)>,
}

impl Command {
    pub fn new(process: &Process, filter: Option<Filter>) -> Result<Command> {
        process.check()?;
        process.check_capabilities()?;
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Command {
            arguments: environment::c_strings(&process.args, "argument")?,
            environment: environment::c_strings(&process.env, "environment variable")?,
            cwd: process.cwd.clone(),
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone(),
            umask: process.user.umask,
            sets: process.capabilities.as_ref().map(Sets::of),
            limits: limits(process),
            no_new_privileges: process.no_new_privileges,
            apparmor: given(&process.apparmor_profile),
            selinux: given(&process.selinux_label),
            oom_score_adj: process.oom_score_adj,
            scheduling: Scheduling::of(process)?,
            filter,
            terminal: process.terminal,
            home: false,
            preserved: 0,
            start_hooks: None,
        })
    }

    /// With what holds for every process of the container: memory policy and personality.
    pub fn in_container(mut self, linux: &Linux) -> Result<Command> {
        self.scheduling.add_container(linux)?;
        Ok(self)
    }

    /// With runc's environment: each variable once, the last one's value, and `HOME` from the container's passwd file where
    /// it is missing or empty.
    pub fn with_home(mut self) -> Result<Command> {
        self.environment = environment::once_each(self.environment)?;
        self.home = true;
        Ok(self)
    }

    /// The command gets so many descriptors after the standard streams; they must be open and the caller's own.
    #[must_use]
    pub fn preserving(mut self, descriptors: u32) -> Command {
        self.preserved = descriptors;
        self
    }

    /// Limits and the OOM score were set from outside by [`Limits::set`], as it has to be in a user namespace.
    #[must_use]
    pub fn limited_from_outside(mut self) -> Command {
        self.limits.clear();
        self.oom_score_adj = None;
        self
    }

    /// Runs the `startContainer` hooks just before the command. They are the container's programs, so they run with no more
    /// privileges than its command.
    #[must_use]
    pub fn with_start_hooks(mut self, hooks: &Hooks, state: State) -> Command {
        if !hooks.start_container.is_empty() {
            let hooks = Hooks { start_container: hooks.start_container.clone(), ..Hooks::default() };
            self.start_hooks = Some((hooks, state));
        }
        self
    }

    /// `process.execCPUAffinity.initial`: before joining the container's control groups.
    pub fn enter_initial_affinity(&self) -> Result<()> {
        self.scheduling.enter_initial_affinity()
    }

    /// After joining them: `process.execCPUAffinity.final`. `first`: the container's first process, which the member is not
    /// for; it is freed of the affinity of whoever started it, and so is any other if the member says nothing.
    pub fn enter_final_affinity(&self, first: bool) -> Result<()> {
        if first || !self.scheduling.has_affinity() {
            crate::scheduling::reset_affinity();
            return Ok(());
        }
        self.scheduling.enter_final_affinity()
    }

    /// Has the calls that are left to a seccomp agent left to it from here on; the parent passes the listener on. Still
    /// with the privileges that loading takes.
    pub fn load_notify(&self, parent: &OwnedFd) -> Result<()> {
        self.filter.as_ref().map_or(Ok(()), |filter| seccomp::load_notify(filter, parent))
    }

    /// Becomes the command. Returns only on failure, with nothing open any more but the standard streams, what is preserved and
    /// `keep`.
    ///
    /// First of all everything else is closed: through a directory of the host's that is open here any path of the container's
    /// could lead out, be it the working directory, the program or a file that is read (CVE-2024-21626).
    pub fn execute(&self, keep: &[BorrowedFd<'_>]) -> ExecFailure {
        if let Err(error) = sys::process::close_all_from(3 + self.preserved, keep) {
            return Fault::failed("close descriptors").because(error).into();
        }
        let environment = self.environment();
        match self.give_up_privileges().and_then(|()| self.run_start_hooks(&environment)) {
            Ok(()) => self.find_and_execute(&environment),
            Err(fault) => fault.into(),
        }
    }

    fn environment(&self) -> Cow<'_, [CString]> {
        if !self.home || environment::lookup(&self.environment, b"HOME").is_some() {
            return Cow::Borrowed(&self.environment);
        }
        let mut environment = self.environment.clone();
        environment.push(environment::home(self.uid));
        Cow::Owned(environment)
    }

    fn run_start_hooks(&self, environment: &[CString]) -> Result<()> {
        let Some((hooks, state)) = &self.start_hooks else { return Ok(()) };
        let environment: Vec<String> =
            environment.iter().map(|pair| pair.to_string_lossy().into_owned()).collect();
        if self.filter.is_none() {
            Command::shed(3)?;
        }
        let place = Place { directory: None, environment: Some(&environment) };
        hooks::run(hooks, Point::StartContainer, state, place)?;
        // They are the command's, and were kept from the hooks.
        sys::process::keep_on_exec(3, self.preserved);
        Ok(())
    }

    fn give_up_privileges(&self) -> Result<()> {
        if let Some(score) = self.oom_score_adj {
            write_proc(&private_proc()?, "self/oom_score_adj", &score.to_string())
                .map_err(|fault| oom_score_fault(fault, score))?;
        }
        for (resource, soft, hard) in &self.limits {
            sys::process::set_resource_limit(*resource, *soft, *hard)
                .explain(|| format!("set {} to {soft}:{hard}", resource_name(*resource)))
                .map_err(|fault| fault.hint(RAISING))?;
        }
        labels::apply(self.apparmor.as_deref(), self.selinux.as_deref())?;
        self.scheduling.apply()?;
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
        if self.uid != 0 {
            self.own_streams()?;
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
        let Some(filter) = &self.filter else { return Ok(()) };
        // Nothing of this runtime's is for the hooks either.
        Command::shed(if self.start_hooks.is_some() { 3 } else { 3 + self.preserved })?;
        filter.load()
    }

    /// Lets go of descriptors and dispositions of signals that are not the process's. Before a filter, which may refuse it:
    /// from there on, what is opened is closed on execution anyway.
    fn shed(first: u32) -> Result<()> {
        sys::process::close_on_exec_from(first).explain(|| "close descriptors".into())?;
        sys::process::reset_signals();
        Ok(())
    }

    /// Gives the user the standard streams that were made for it, so that it can open `/dev/stdout`: pipes and the
    /// container's terminal. Files and terminals of whoever started it keep their owner.
    fn own_streams(&self) -> Result<()> {
        let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        for stream in streams {
            if self.is_made_for_it(stream)? {
                match fchown(stream, Some(Uid::from_raw(self.uid)), None) {
                    // Of somebody the user namespace does not know, or on a read-only file system.
                    Ok(()) | Err(Errno::PERM | Errno::ROFS) => {}
                    Err(error) => {
                        return Err(std::io::Error::from(error))
                            .explain(|| "give the standard streams to the user".into());
                    }
                }
            }
        }
        Ok(())
    }

    fn is_made_for_it(&self, stream: BorrowedFd<'_>) -> Result<bool> {
        let stat = match fstat(stream) {
            Ok(stat) => stat,
            // Closed by whoever started it.
            Err(Errno::BADF) => return Ok(false),
            Err(error) => {
                return Err(std::io::Error::from(error)).explain(|| "look at the standard streams".into());
            }
        };
        if stat.st_uid == self.uid {
            return Ok(false);
        }
        let magic = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => PIPEFS_MAGIC,
            FileType::CharacterDevice if self.terminal => DEVPTS_SUPER_MAGIC,
            _ => return Ok(false),
        };
        Ok(fstatfs(stream).is_ok_and(|stat| stat.f_type == magic))
    }

    fn change_user(&self) -> Result<()> {
        // The kernel forgets it when the user or group changes (prctl(2)).
        let death_signal = if (self.uid, self.gid) == (0, 0) {
            None
        } else {
            rustix::process::parent_process_death_signal()
                .explain(|| "look at the parent death signal".into())?
        };
        rustix::thread::set_keep_capabilities(true).explain(|| "keep capabilities".into())?;
        self.set_groups()?;
        let gid = Gid::from_raw(self.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .explain(|| format!("become group {}", self.gid))
            .map_err(unmapped)?;
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .explain(|| format!("become user {}", self.uid))
            .map_err(unmapped)?;
        rustix::thread::set_keep_capabilities(false).explain(|| "keep capabilities no longer".into())?;
        if death_signal.is_some() {
            rustix::process::set_parent_process_death_signal(death_signal)
                .explain(|| "set the parent death signal".into())?;
        }
        Ok(())
    }

    fn set_groups(&self) -> Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // A user namespace made by an ordinary user; runc leaves the groups out there, too.
            Err(Errno::PERM) if setgroups_denied() => Ok(()),
            other => other.explain(|| "set the supplementary groups".into()).map_err(unmapped),
        }
    }

    fn enter_cwd(&self) -> Result<()> {
        rustix::process::chdir(&self.cwd)
            .explain(|| format!("chdir to cwd (\"{}\") set in config.json failed", self.cwd.display()))
    }

    /// A directory from outside the root shows itself by its name (CVE-2024-21626).
    fn check_cwd(&self) -> Result<()> {
        let here = rustix::process::getcwd(Vec::new()).explain(|| "find the working directory".into())?;
        if here.as_bytes().first() == Some(&b'/') {
            return Ok(());
        }
        Err(Fault::denied(format!("the working directory {} is outside the container", self.cwd.display())))
    }

    /// Raises the hard limits that are to be raised, the one thing about limits that can fail; nothing is closer to its limit
    /// then. For whoever wants to know before [`Command::execute`].
    pub fn raise_limits(&self) -> Result<()> {
        for (resource, soft, hard) in &self.limits {
            let fail = || format!("set {} to {soft}:{hard}", resource_name(*resource));
            let (current, highest) = sys::process::resource_limit(*resource).explain(fail)?;
            if *hard > highest {
                sys::process::set_resource_limit(*resource, current, *hard)
                    .explain(fail)
                    .map_err(|fault| fault.hint(RAISING))?;
            }
        }
        Ok(())
    }

    /// Fails as [`Command::execute`] would where the program is not there, for whoever wants to know before.
    pub fn check_program(&self) -> Result<(), ExecFailure> {
        let environment = self.environment();
        let name = self.arguments[0].to_string_lossy();
        let path = environment::lookup(&environment, b"PATH");
        if name.contains('/') {
            program::find(&self.cwd.join(&*name).to_string_lossy(), None)?;
        } else {
            program::find(&name, path.as_deref())?;
        }
        Ok(())
    }

    fn find_and_execute(&self, environment: &[CString]) -> ExecFailure {
        let name = self.arguments[0].to_string_lossy().into_owned();
        let path = environment::lookup(environment, b"PATH");
        let program = match program::find(&name, path.as_deref()) {
            Ok(program) => program,
            Err(failure) => return failure,
        };
        // Last of all, so that nothing opened meanwhile slips through.
        if self.filter.is_none()
            && let Err(fault) = Command::shed(3 + self.preserved)
        {
            return fault.into();
        }
        program::failure(&program, sys::process::execve(&program, &self.arguments, environment))
    }
}

/// A process's resource limits and OOM score, for whoever is to set them from outside: its own superuser may not raise the ones nor
/// lower the other.
#[derive(Debug)]
pub struct Limits {
    resources: Vec<(u32, u64, u64)>,
    oom_score_adj: Option<i32>,
}

impl Limits {
    pub fn of(process: &Process) -> Limits {
        Limits { resources: limits(process), oom_score_adj: process.oom_score_adj }
    }

    pub fn set(&self, pid: i32) -> Result<()> {
        for (resource, soft, hard) in &self.resources {
            sys::process::set_resource_limit_of(pid, *resource, *soft, *hard)
                .explain(|| format!("set {} to {soft}:{hard}", resource_name(*resource)))
                .map_err(|fault| fault.hint(RAISING))?;
        }
        if let Some(score) = self.oom_score_adj {
            std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
                .explain(|| format!("write to /proc/{pid}"))
                .map_err(|fault| oom_score_fault(fault, score))?;
        }
        Ok(())
    }
}

fn limits(process: &Process) -> Vec<(u32, u64, u64)> {
    // Names that are none were refused by `Process::check`.
    let numbered = |limit: &spec::Rlimit| limit.resource().map(|resource| (resource, limit.soft, limit.hard));
    process.rlimits.iter().filter_map(numbered).collect()
}

fn resource_name(number: u32) -> &'static str {
    spec::RESOURCES.iter().find(|(_, resource)| *resource == number).map_or("?", |(name, _)| name)
}

fn oom_score_fault(fault: Fault, score: i32) -> Fault {
    fault.within(format!("set the OOM score adjustment {score}")).hint("lowering it needs CAP_SYS_RESOURCE")
}

fn unmapped(fault: Fault) -> Fault {
    match fault.os_error() {
        Some(libc::EINVAL) => fault.hint("the id is not mapped in the container's user namespace"),
        _ => fault,
    }
}

fn setgroups_denied() -> bool {
    let read = || -> Result<String> {
        let proc = private_proc()?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::openat(&proc, "self/setgroups", flags, Mode::empty())
            .explain(|| "open /proc/self/setgroups".into())?;
        std::io::read_to_string(std::fs::File::from(file)).explain(|| "read /proc/self/setgroups".into())
    };
    read().is_ok_and(|text| text.trim() == "deny")
}
