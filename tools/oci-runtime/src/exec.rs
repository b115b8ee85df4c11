//! `exec`.

use crate::attend::{Relay, Signals, attend};
use crate::call::Call;
use crate::console::{self, HostTerminal, Receiver};
use crate::create::seccomp_cache;
use crate::groups;
use crate::options::Opt;
use crate::pidfile::PidFile;
use crate::state::Container;
use cgroup::Cgroup;
use fault::{Explain, Fault, Result};
use runtime::spec::ConsoleSize;
use runtime::{ExecOptions, Manners, NamespaceKind, Process, Spec, Status, Stdio};
use std::path::Path;

/// Longest process.json read, in bytes.
const MAX_PROCESS_BYTES: u64 = 4 << 20;

pub fn exec(call: &Call<'_>) -> Result<u8> {
    run(call).map_err(|fault| fault.within("exec failed"))
}

fn run(call: &Call<'_>) -> Result<u8> {
    let options = call.options;
    let container = Container::load(call)?;
    let status = container.status()?;
    match status {
        Status::Stopped => return Err(Fault::conflict("cannot exec in a stopped container")),
        Status::Paused if !options.has(Opt::IgnorePaused) => {
            return Err(Fault::conflict(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        _ => {}
    }
    let spec = container.spec()?;
    let mut process = match options.path(Opt::Process) {
        Some(path) => from_file(path)?,
        None => from_options(call, &spec)?,
    };
    if call.inherited.listening > 0 {
        process.env.push(format!("LISTEN_FDS={}", call.inherited.listening));
        process.env.push("LISTEN_PID=1".to_owned());
    }
    for warning in process.warnings(spec.namespace(NamespaceKind::User).is_some()) {
        call.log.warn(&warning);
    }
    let detach = options.has(Opt::Detach);
    let console = options.path(Opt::ConsoleSocket);
    console::check(process.terminal, detach, console, call.program)?;
    let console = console.map(Receiver::connect).transpose()?;
    let pidfd_socket = options.path(Opt::PidfdSocket).map(Receiver::connect).transpose()?;
    let pid_file = options.path(Opt::PidFile).map(PidFile::open).transpose()?;
    let host = if process.terminal && !detach { Some(HostTerminal::open()?) } else { None };
    if let Some((rows, columns)) = host.as_ref().and_then(HostTerminal::size) {
        // Its terminal is made when it is about to run: it would not find it resized in time.
        process.console_size = Some(ConsoleSize { height: rows.into(), width: columns.into() });
    }
    let asked = options.all(Opt::Cgroup)?;
    let cgroup = match container.cgroup()? {
        // Made where there were none for it.
        None if asked.is_empty() => Cgroup::open(&[])?,
        _ => groups::below(container.need_cgroup()?, &asked)?,
    };
    let pidfd =
        container.open_init()?.ok_or_else(|| Fault::conflict("cannot exec in a stopped container"))?;
    let signals = if detach { None } else { Some(Signals::block()?) };
    let executed = runtime::exec(ExecOptions {
        pidfd,
        process: &process,
        linux: Some(&spec.linux),
        seccomp: spec.linux.seccomp.as_deref().map(serde_json::value::RawValue::get),
        seccomp_cache: &seccomp_cache(call),
        state: &|| container.oci_state(container.status_unfrozen()),
        cgroup: &cgroup,
        rdt: container.stored.rdt.as_ref(),
        detach,
        stdio: if process.terminal { Stdio::Terminal } else { Stdio::Inherited },
        user_namespace: spec.namespace(NamespaceKind::User).is_some()
            && is_elsewhere("user", container.stored.pid),
        // criu restores every container into one.
        time_namespace: is_elsewhere("time", container.stored.pid),
        keyring: None,
        manners: Manners {
            preserve_fds: call.inherited.listening + call.inherited.preserved,
            home: true,
            find_command: false,
            rootless: call.rootless,
            ..Manners::default()
        },
    })
    .map_err(|failure| match failure.fault {
        // Until then the first process is this program, which nobody without privileges outside may look into.
        fault if status == Status::Created && fault.os_error() == Some(libc::EPERM) => fault
            .within("the container waits for start, until when only the machine's superuser may enter it"),
        fault => fault,
    })?;
    call.log.debug(|| format!("made process {} in the container of {}", executed.pid, container.stored.pid));
    let outcome = hand_out(&executed, console.as_ref(), pidfd_socket.as_ref(), pid_file.as_ref());
    if let Err(fault) = outcome {
        crate::delete::end(&executed.pidfd);
        return Err(fault);
    }
    let relay = match (executed.terminal, &host) {
        (Some(master), Some(host)) => Some(Relay { master, host }),
        _ => None,
    };
    match signals {
        None => Ok(0),
        Some(signals) => attend(executed.pid, &executed.pidfd, &signals, relay, call.log),
    }
}

fn hand_out(
    executed: &runtime::Executed,
    console: Option<&Receiver>,
    pidfd_socket: Option<&Receiver>,
    pid_file: Option<&PidFile>,
) -> Result<()> {
    if let (Some(receiver), Some(terminal)) = (console, &executed.terminal) {
        receiver.send(terminal, "/dev/ptmx")?;
    }
    if let Some(receiver) = pidfd_socket {
        receiver.send(&executed.pidfd, "pidfd")?;
    }
    match pid_file {
        Some(file) => file.write(executed.pid),
        None => Ok(()),
    }
}

/// A namespace that the container's first process is in and this one is not: joining one's own user namespace is refused.
fn is_elsewhere(name: &str, pid: i32) -> bool {
    let link = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/{name}")).ok();
    let theirs = link(&pid.to_string());
    theirs.is_some() && theirs != link("self")
}

fn from_file(path: &Path) -> Result<Process> {
    use std::io::Read;
    let what = || format!("read {}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).explain(what)?;
    file.take(MAX_PROCESS_BYTES + 1).read_to_end(&mut text).explain(what)?;
    if text.len() as u64 > MAX_PROCESS_BYTES {
        return Err(Fault::input(format!("{}: it is too long", what())));
    }
    Process::parse(&text).map_err(|fault| fault.within(path.display().to_string()))
}

/// The container's own process, with what the options want otherwise.
fn from_options(call: &Call<'_>, spec: &Spec) -> Result<Process> {
    let options = call.options;
    let mut process = spec.process()?.clone();
    process.args = (1..options.operands.len())
        .map(|index| options.operand(index).map(str::to_owned))
        .collect::<Result<_>>()?;
    if process.args.is_empty() {
        return Err(Fault::usage("exec args cannot be empty"));
    }
    process.terminal = options.has(Opt::Tty);
    if let Some(directory) = options.text(Opt::Cwd)? {
        process.cwd = directory.into();
    }
    if let Some(profile) = options.text(Opt::Apparmor)? {
        profile.clone_into(&mut process.apparmor_profile);
    }
    if let Some(label) = options.text(Opt::ProcessLabel)? {
        label.clone_into(&mut process.selinux_label);
    }
    if options.is_set(Opt::NoNewPrivs) {
        process.no_new_privileges = options.has(Opt::NoNewPrivs);
    }
    process.env.extend(options.all(Opt::Env)?.into_iter().map(str::to_owned));
    for name in options.all(Opt::Cap)? {
        let lists = process.capabilities.get_or_insert_default();
        for list in [&mut lists.bounding, &mut lists.effective, &mut lists.permitted] {
            list.push(name.to_owned());
        }
        // An ambient capability has to be inheritable.
        if !lists.inheritable.is_empty() {
            lists.ambient.push(name.to_owned());
        }
    }
    if let Some(user) = options.text(Opt::User)? {
        let number = |what: &str, text: &str| {
            text.parse().map_err(|_| Fault::usage(format!("bad {what}: {text:?} is no number of a {what}")))
        };
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        if let Some(gid) = gid {
            process.user.gid = number("gid", gid)?;
        }
        process.user.uid = number("uid", uid)?;
    }
    for gid in options.all(Opt::AdditionalGids)? {
        let number = gid.parse();
        let wrong = |_| Fault::usage(format!("additional-gids must be a positive number {gid}"));
        process.user.additional_gids.push(number.map_err(wrong)?);
    }
    Ok(process)
}
