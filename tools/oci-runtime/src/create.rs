//! `create` and `run`.

use crate::attend::{Relay, Signals, attend};
use crate::bundle::Bundle;
use crate::call::Call;
use crate::console::{self, HostTerminal, Receiver};
use crate::delete::{destroy, end};
use crate::groups;
use crate::notify::{Listener, Notify};
use crate::options::Opt;
use crate::pidfile::PidFile;
use crate::place::{GATE, Place};
use crate::state::{self, Container, Stored};
use crate::{process, rootless, start};
use cgroup::Cgroup;
use fault::{Fault, Result};
use runtime::hooks::Hooks;
use runtime::host_root;
use runtime::{Created, Gate, Manners, NamespaceKind, Options, RootFs, Spec, Stdio};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub fn create(call: &Call<'_>) -> Result<u8> {
    make(call, Verb::Create).map_err(|fault| fault.within(format!("{} create failed", call.program)))
}

pub fn run(call: &Call<'_>) -> Result<u8> {
    let verb = if call.options.has(Opt::Detach) { Verb::RunDetached } else { Verb::Run };
    make(call, verb).map_err(|fault| fault.within(format!("{} run failed", call.program)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    RunDetached,
    Run,
}

/// runc's words.
const WITHOUT_GROUPS: &str = "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is \
                              strongly discouraged (as it is impossible to properly kill all container's processes)";

/// What a container is made with that comes from outside its bundle.
struct Wishes<'a> {
    verb: Verb,
    console: Option<Receiver>,
    pidfd_socket: Option<Receiver>,
    pid_file: Option<PidFile>,
    /// Of a process with a terminal that is stayed with.
    terminal: Option<HostTerminal>,
    signals: Option<Signals>,
    /// The specification names no control group.
    default_group: bool,
    call: &'a Call<'a>,
}

fn make(call: &Call<'_>, verb: Verb) -> Result<u8> {
    let id = call.id()?;
    let mut bundle = Bundle::load(call)?;
    let has_terminal = bundle.spec.process()?.terminal;
    let detach = verb != Verb::Run;
    let console = call.options.path(Opt::ConsoleSocket);
    console::check(has_terminal, detach, console, call.program)?;
    rootless::check(&bundle.spec)?;
    let default_group = bundle.spec.linux.cgroups_path.as_deref().is_none_or(str::is_empty);
    complete(&mut bundle.spec, call, id);
    for warning in bundle.spec.warnings() {
        call.log.warn(&warning);
    }
    let wishes = Wishes {
        verb,
        console: console.map(Receiver::connect).transpose()?,
        pidfd_socket: call.options.path(Opt::PidfdSocket).map(Receiver::connect).transpose()?,
        pid_file: call.options.path(Opt::PidFile).map(PidFile::open).transpose()?,
        terminal: if has_terminal && !detach { Some(HostTerminal::open()?) } else { None },
        signals: if detach { None } else { Some(Signals::block()?) },
        default_group,
        call,
    };
    if !detach && !call.options.has(Opt::NoSubreaper) {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| Fault::failed("become a subreaper").because(std::io::Error::from(error)))?;
    }
    let place = Place::take(call, id)?;
    let made = show_notify(&mut bundle.spec, &place, verb)
        .and_then(|listener| Ok((prepare(&bundle, &place, &wishes)?, listener)));
    match made {
        Ok(((created, stored), listener)) => {
            let container = Container { stored, place };
            finish(&container, &created, &wishes, listener)
        }
        Err(fault) => {
            let _ = place.remove();
            Err(fault)
        }
    }
}

/// What the specification leaves to the runtime and the call.
pub fn complete(spec: &mut Spec, call: &Call<'_>, id: &str) {
    if spec.linux.cgroups_path.as_deref().is_none_or(str::is_empty) {
        // An ordinary user may own a group at most where it is.
        let is_users = process::effective_uid() != 0;
        let parent = crate::delete::PARENT_GROUP;
        spec.linux.cgroups_path = Some(match groups::systemd(call) {
            Some(_) => format!(":{}:{id}", parent.trim_start_matches('/')),
            None if is_users => id.to_owned(),
            None => format!("{parent}/{id}"),
        });
    }
    groups::allow_default_devices(spec.linux.resources.get_or_insert_default());
    if call.inherited.listening > 0
        && let Some(process) = &mut spec.process
    {
        process.env.push(format!("LISTEN_FDS={}", call.inherited.listening));
        process.env.push("LISTEN_PID=1".to_owned());
    }
}

/// The socket on which the container's process says that it is ready, listened on by whoever starts it.
fn show_notify(spec: &mut Spec, place: &Place, verb: Verb) -> Result<Option<Listener>> {
    let Some(notify) = Notify::from_env() else { return Ok(None) };
    Notify::show(spec, place)?;
    if verb == Verb::Create { Ok(None) } else { notify.listen(place) }
}

/// Makes the first process and writes down what there is of the container, before it is complete: hooks may ask for it.
fn prepare(bundle: &Bundle, place: &Place, wishes: &Wishes<'_>) -> Result<(Created, Stored)> {
    let call = wishes.call;
    let spec = &bundle.spec;
    let gate = place.path.join(GATE);
    let rootfs = if host_root::is_asked_for(spec) {
        if call.options.has(Opt::NoPivot) {
            return Err(Fault::usage("--no-pivot takes a mount namespace in linux.namespaces")
                .hint("it would put the container's root over the machine's"));
        }
        let attached = host_root::attach(spec, &bundle.path, &place.mounts_of_others(), |root| {
            place.write_mounts(root)
        })?;
        RootFs::OnHost(Arc::new(attached))
    } else {
        RootFs::Directory
    };
    let created = runtime::create(Options {
        id: call.id()?,
        bundle: &bundle.path,
        spec,
        rootfs: &rootfs,
        stdio: if spec.terminal() { Stdio::Terminal } else { Stdio::Inherited },
        seccomp_cache: &seccomp_cache(call),
        network_namespace: None,
        user_namespace: None,
        trees: Vec::new(),
        gate: if wishes.verb == Verb::Create { Gate::Socket(&gate) } else { Gate::Caller },
        dies_with_parent: wishes.verb == Verb::Run,
        callers_alone: &[],
        manners: Manners {
            no_pivot: call.options.has(Opt::NoPivot),
            no_new_keyring: call.options.has(Opt::NoNewKeyring),
            preserve_fds: call.inherited.listening + call.inherited.preserved,
            home: true,
            find_command: true,
            rootless: call.rootless,
            default_group: wishes.default_group,
            systemd: groups::systemd(call),
        },
    })?;
    if created.cgroup.directories().is_empty() && !spec.makes_namespace(NamespaceKind::Pid) {
        call.log.warn(WITHOUT_GROUPS);
    }
    call.log.debug(|| format!("made process {} in {:?}", created.pid, created.cgroup.directories()));
    if let Some(flags) = created.seccomp_flags {
        call.log.debug(|| format!("seccomp filter flags: {flags}"));
    }
    let stored = stored(call.id()?, bundle, created.pid, &created.cgroup, created.rdt.clone());
    let saved = stored.and_then(|stored| state::save_new(place, &stored, &bundle.text).map(|()| stored));
    match saved {
        Ok(stored) => Ok((created, stored)),
        Err(fault) => {
            end(&created.pidfd);
            let _ = created.cgroup.remove_with_new_parents();
            Err(fault)
        }
    }
}

/// Compiled programs; no id of a container is a name like this.
pub fn seccomp_cache(call: &Call<'_>) -> PathBuf {
    call.root.join("@seccomp")
}

/// What is written down of a container of the bundle that has this first process.
pub fn stored(
    id: &str,
    bundle: &Bundle,
    pid: i32,
    cgroup: &Cgroup,
    rdt: Option<runtime::rdt::Group>,
) -> Result<Stored> {
    let gone = || Fault::failed("the container's first process ended while it was set up");
    let spec = &bundle.spec;
    Ok(Stored {
        oci_version: spec.oci_version.clone(),
        id: id.to_owned(),
        pid,
        pid_started: process::stat(pid).ok_or_else(gone)?.started,
        rootfs: crate::call::absolute(&spec.root_path(&bundle.path)?)?,
        bundle: bundle.path.clone(),
        created: jiff::Timestamp::now().to_string(),
        annotations: spec.annotations.clone(),
        cgroups: cgroup.directories().to_vec(),
        systemd: cgroup.unit().cloned(),
        own_pid_namespace: spec.makes_namespace(NamespaceKind::Pid),
        rdt,
        hooks: Hooks {
            poststart: spec.hooks.poststart.clone(),
            poststop: spec.hooks.poststop.clone(),
            ..Hooks::default()
        },
        resources: None,
    })
}

/// From the first process to a container that is created, or run.
fn finish(
    container: &Container,
    created: &Created,
    wishes: &Wishes<'_>,
    listener: Option<Listener>,
) -> Result<u8> {
    let log = wishes.call.log;
    let terminal = match created.ready() {
        Ok(terminal) => terminal,
        Err(fault) => {
            // The process is reaped and its groups are gone.
            let _ = container.place.remove();
            return Err(fault);
        }
    };
    let outcome = hand_out(created, terminal, wishes).and_then(|relay| {
        if wishes.verb == Verb::Create {
            return Ok(0);
        }
        created.start().map_err(|failure| failure.fault)?;
        start::run_poststart(container, log)?;
        match (&wishes.signals, listener) {
            (None, None) => Ok(0),
            (None, Some(listener)) => {
                listener.pass_on(created.pid, &created.pidfd, log);
                Ok(0)
            }
            (Some(signals), None) => attend(created.pid, &created.pidfd, signals, relay, log),
            (Some(signals), Some(listener)) => std::thread::scope(|scope| {
                scope.spawn(|| listener.pass_on(created.pid, &created.pidfd, log));
                attend(created.pid, &created.pidfd, signals, relay, log)
            }),
        }
    });
    let keep = match (&outcome, wishes.verb) {
        (Ok(_), Verb::Create | Verb::RunDetached) => true,
        (Ok(_), Verb::Run) => wishes.call.options.has(Opt::Keep),
        (Err(_), _) => {
            end(&created.pidfd);
            false
        }
    };
    container.place.unlock();
    if !keep && let Err(fault) = destroy(container, log) {
        log.warn_of(&fault);
    }
    outcome
}

/// Gives everybody who asked what the process has. What is left is the terminal, for who stays.
fn hand_out<'a>(
    created: &Created,
    terminal: Option<OwnedFd>,
    wishes: &'a Wishes<'_>,
) -> Result<Option<Relay<'a>>> {
    if let (Some(receiver), Some(terminal)) = (&wishes.console, &terminal) {
        receiver.send(terminal, "/dev/ptmx")?;
    }
    if let Some(receiver) = &wishes.pidfd_socket {
        receiver.send(&created.pidfd, "pidfd")?;
    }
    if let Some(file) = &wishes.pid_file {
        file.write(created.pid)?;
    }
    Ok(match (terminal, &wishes.terminal) {
        (Some(master), Some(host)) => {
            // Before the process looks and prints.
            runtime::leave_newlines(&master)?;
            host.pass_size(&master);
            Some(Relay { master, host })
        }
        _ => None,
    })
}
