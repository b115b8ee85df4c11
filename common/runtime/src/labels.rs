//! What the process is to the machine's security module: AppArmor's profile, SELinux's label.

use crate::procfs::{private_proc, write_proc};
use crate::spec::Process;
use fault::{Fault, Result};
use rustix::fs::FsWord;
use std::os::fd::OwnedFd;

const SELINUX_MAGIC: FsWord = 0xf97c_ff8c;

/// Refuses a profile or label no module of this machine would look at. To be asked outside the container, where /sys is the
/// machine's own; costs nothing where neither is wanted.
pub fn check(process: &Process) -> Result<()> {
    if !process.selinux_label.is_empty() && !selinux_enabled() {
        return Err(Fault::failed(format!(
            "process.selinuxLabel {}: selinux label is specified in config, but selinux is disabled or not supported",
            process.selinux_label
        ))
        .hint("leave the label out on this machine"));
    }
    if !process.apparmor_profile.is_empty() && !apparmor_enabled() {
        return Err(Fault::failed(format!(
            "process.apparmorProfile {}: AppArmor is not enabled on this machine",
            process.apparmor_profile
        ))
        .hint("leave the profile out on this machine"));
    }
    Ok(())
}

pub fn selinux_enabled() -> bool {
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|stat| stat.f_type == SELINUX_MAGIC)
}

pub fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Has the program this process executes next run under an AppArmor profile and with an SELinux label.
pub fn apply(profile: Option<&str>, label: Option<&str>) -> Result<()> {
    if profile.is_none() && label.is_none() {
        return Ok(());
    }
    let proc = private_proc()?;
    if let Some(profile) = profile {
        apply_profile(&proc, profile).map_err(|fault| {
            fault
                .within(format!("apply the AppArmor profile {profile}"))
                .hint("apparmor_parser(8) loads profiles; aa-status(8) lists them")
        })?;
    }
    if let Some(label) = label {
        write_proc(&proc, "self/attr/exec", label)
            .map_err(|fault| fault.within(format!("set the SELinux label {label}")))?;
    }
    Ok(())
}

fn apply_profile(proc: &OwnedFd, profile: &str) -> Result<()> {
    let text = format!("exec {profile}");
    match write_proc(proc, "self/attr/apparmor/exec", &text) {
        // Before Linux 5.8 all modules shared one file.
        Err(fault) if fault.os_error() == Some(libc::ENOENT) => write_proc(proc, "self/attr/exec", &text),
        other => other,
    }
}

/// SELinux's label of the keys this thread makes from here on; `None` is the process's own again. The container's session
/// keyring has the label of the process it is for.
pub fn label_keys(label: Option<&str>) -> Result<()> {
    write_proc(&private_proc()?, "self/attr/keycreate", label.unwrap_or_default())
        .map_err(|fault| fault.within("label the session keyring"))
}
