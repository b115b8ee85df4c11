//! The process to run: the container's own, with what the user wants otherwise.

use crate::Args;
use cli::{Explain, Fault, Kind, Result};
use ctr_create::args::CreateFlags;
use oci::users::{self, UserFiles};
use oci::wishes::env;
use runtime::spec::CapabilityLists;
use runtime::{Process, Spec};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Longest passwd or group file read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

pub fn process(args: &Args, spec: &Spec, pid: i32) -> Result<Process> {
    let mut process = spec.process()?.clone();
    process.args.clone_from(&args.command);
    process.terminal = args.tty;
    let mut environment = std::mem::take(&mut process.env);
    if args.tty && !env::has(&environment, "TERM") {
        environment.push("TERM=xterm".to_owned());
    }
    if let Some(user) = &args.user {
        let who = users::resolve(user, &[], &user_files(pid)?)?;
        env::set(&mut environment, &format!("HOME={}", who.home));
        (process.user.uid, process.user.gid) = (who.uid, who.gid);
        process.user.additional_gids = who.groups;
        process.capabilities = process.capabilities.map(|sets| capabilities(sets, who.uid));
    }
    for variable in asked_environment(args)? {
        env::set(&mut environment, &variable);
    }
    process.env = environment;
    if let Some(workdir) = &args.workdir {
        if !workdir.starts_with('/') {
            return Err(Fault::usage(format!("the working directory {workdir} is not absolute")));
        }
        process.cwd = PathBuf::from(workdir);
    }
    Ok(process)
}

/// `-e` and `--env-file`, as ctr-create reads them.
fn asked_environment(args: &Args) -> Result<Vec<String>> {
    let mut flags = CreateFlags::default();
    flags.env.clone_from(&args.env);
    flags.env_file.clone_from(&args.env_file);
    let mut config = record::Config::default();
    flags.apply(&[], &mut config)?;
    Ok(config.env)
}

/// The superuser has what the container may have; anybody else nothing at once, as after any change of user.
fn capabilities(sets: CapabilityLists, uid: u32) -> CapabilityLists {
    let held = if uid == 0 { sets.bounding.clone() } else { Vec::new() };
    CapabilityLists { effective: held.clone(), permitted: held, ambient: Vec::new(), ..sets }
}

/// The container's passwd and group files as they are now.
fn user_files(pid: i32) -> Result<UserFiles> {
    let root = openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .explain(|| "open the container's root".into())?;
    Ok(UserFiles { passwd: text(&root, "etc/passwd")?, group: text(&root, "etc/group")? })
}

/// Opened inside the root whatever links lead to; only a regular file of bearable length is read.
fn text(root: &OwnedFd, path: &str) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(fd) = openat2(root, path, flags, Mode::empty(), resolve) else { return Ok(None) };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .explain(|| format!("read /{path} in the container"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Fault::new(Kind::Input, format!("/{path} in the container is too long")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
