//! The process to run: the container's own, with what the user wants otherwise.

use crate::Args;
use cli::{Explain, Fault, Result};
use ctr_create::args::CreateFlags;
use ctr_create::running;
use oci::capabilities::CapSet;
use oci::users;
use oci::wishes::env;
use runtime::spec::CapabilityLists;
use runtime::{Process, Spec};
use std::path::PathBuf;

pub fn process(args: &Args, spec: &Spec, pid: i32) -> Result<Process> {
    let mut process = spec.process()?.clone();
    process.args.clone_from(&args.command);
    process.terminal = args.tty;
    let mut environment = std::mem::take(&mut process.env);
    if args.tty && !env::has(&environment, "TERM") {
        environment.push("TERM=xterm".to_owned());
    }
    if args.privileged {
        unconfine(&mut process)?;
    }
    if let Some(user) = &args.user {
        let who = users::resolve(user, &[], &running::of_process(pid)?)?;
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

/// `--privileged`: all this process has to give. The namespaces, mounts and devices are still the container's.
fn unconfine(process: &mut Process) -> Result<()> {
    let held = rustix::thread::capabilities(None).explain(|| "read this process's capabilities".into())?;
    let names: Vec<String> = CapSet::ALL.intersection(CapSet(held.effective.bits())).names().collect();
    process.capabilities = Some(CapabilityLists {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..CapabilityLists::default()
    });
    process.no_new_privileges = false;
    process.apparmor_profile.clear();
    process.selinux_label.clear();
    Ok(())
}

/// The superuser has what the container may have; anybody else nothing at once, as after any change of user.
fn capabilities(sets: CapabilityLists, uid: u32) -> CapabilityLists {
    let held = if uid == 0 { sets.bounding.clone() } else { Vec::new() };
    CapabilityLists { effective: held.clone(), permitted: held, ambient: Vec::new(), ..sets }
}
