//! A section compiled by libseccomp.

use super::Filter;
use super::instructions::{answer_enosys, split};
use super::profile::{Architecture, Profile, native};
use fault::{Explain, Fault, Result};
use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use std::os::fd::OwnedFd;
use sys::seccomp::{INSTRUCTION_BYTES, MAX_INSTRUCTIONS};

/// Compiles a section, however long that takes.
///
/// Fails with an input error that names the member.
pub fn compile(section: &str) -> Result<Filter> {
    let profile = Profile::parse(section)?;
    profile.check_listener()?;
    let default = profile.default_action()?;
    let flags = profile.flags()?;
    let architectures = profile.architectures()?;
    let mut context = ScmpFilterContext::new(default).explain(|| "start a seccomp filter".into())?;
    for one in &architectures {
        if !context.is_arch_present(one.scmp).unwrap_or(false) {
            context.add_arch(one.scmp).map_err(|error| {
                Fault::input(format!("linux.seccomp.architectures: add {} to the filter", one.name))
                    .because(error)
                    .hint("architectures of one filter have one byte order")
            })?;
        }
    }
    // no_new_privs is the runtime's business.
    context.set_ctl_nnp(false).explain(|| "set up the seccomp filter".into())?;
    // A binary tree over the numbers; libseccomp before 2.5 has only the list.
    let _ = context.set_ctl_optimize(2);
    for (index, rule) in profile.rules().iter().enumerate() {
        let member = format!("linux.seccomp.syscalls[{index}]");
        rule.check_names(&member)?;
        let action = rule.action(&member)?;
        let alternatives = rule.conditions(&member)?;
        // libseccomp refuses rules that say nothing new.
        if action == default {
            continue;
        }
        for name in &rule.names {
            // A call libseccomp does not know cannot be named in a filter; see `answer_enosys`.
            let Ok(number) = ScmpSyscall::from_name(name) else { continue };
            for conditions in &alternatives {
                context.add_rule_conditional(action, number, conditions).map_err(|error| {
                    Fault::input(format!("{member}: add the rule for {name}")).because(error)
                })?;
            }
        }
    }
    let mut program = export(&context)?;
    if !is_permissive(default) {
        program = answer_enosys(&program, &newest_numbers(&profile, &architectures));
    }
    let count = program.len() / INSTRUCTION_BYTES;
    if count > MAX_INSTRUCTIONS {
        return Err(Fault::input(format!(
            "linux.seccomp: its filter has {count} instructions, and the kernel takes {MAX_INSTRUCTIONS}"
        ))
        .hint("fewer rules, or fewer that compare arguments"));
    }
    if !profile.notifies() {
        return Ok(Filter { program, flags, notify: None });
    }
    let (program, notify) = split(&program);
    Ok(Filter { program, flags, notify: Some(notify) })
}

/// What is not named happens; with `SCMP_ACT_TRACE` a tracer sees to it.
fn is_permissive(default: ScmpAction) -> bool {
    matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_))
}

/// libseccomp before 2.6 writes to descriptors only.
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>> {
    let memory: OwnedFd = super::memory_file()?;
    context.export_bpf(&memory).explain(|| "compile the seccomp filter".into())?;
    super::read_whole(memory)
}

/// For each architecture, the machine's own among them, the highest number of a system call the profile speaks of.
fn newest_numbers(profile: &Profile, architectures: &[Architecture]) -> Vec<(Architecture, u32)> {
    let native = native();
    let implied = architectures.iter().all(|one| one.name != native.name).then_some(native);
    let newest = |one: Architecture| {
        profile
            .rules()
            .iter()
            .flat_map(|rule| &rule.names)
            .filter_map(|name| ScmpSyscall::from_name_by_arch(name, one.scmp).ok())
            .map(i32::from)
            // ARM's private calls are far above the common ones. Numbers below 0 stand for calls the architecture lacks.
            .filter(|number| *number >= 0 && number & 0xf_0000 == 0)
            .max()
    };
    architectures.iter().copied().chain(implied).filter_map(|one| Some((one, newest(one)? as u32))).collect()
}
