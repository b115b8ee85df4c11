//! `linux.seccomp` compiled to a filter, and profiles in docker's format.

use oci::capabilities::CapSet;
use oci::seccomp::{Architecture, Profile, Target};
use oci_spec::runtime::LinuxSeccomp;
use std::collections::BTreeSet;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    section(text);
    let Ok(profile) = Profile::parse(text) else { return };
    let architecture = Architecture::by_name("x86_64").expect("a known architecture");
    for (capabilities, kernel) in [(CapSet::EMPTY, (4, 7)), (CapSet::ALL, (6, 1))] {
        let target = Target { capabilities, kernel, architecture };
        if let Ok(Some(resolved)) = profile.resolve(&target) {
            section(&serde_json::to_string(&resolved).expect("a section is JSON"));
        }
    }
}

/// What libseccomp needs for more is measured in minutes, which `runtime::seccomp::filter` limits by ending the process.
const MOST_COMPARISONS: usize = 24;

pub fn section(text: &str) {
    if serde_json::from_str(text).is_ok_and(|section| combined(&section) > MOST_COMPARISONS) {
        return;
    }
    match runtime::seccomp::compile(text) {
        Ok(filter) => {
            loadable(&filter.program);
            filter.notify.iter().for_each(|program| loadable(program));
        }
        Err(fault) => assert!(matches!(fault.kind(), fault::Kind::Input | fault::Kind::Failed), "{fault}"),
    }
}

/// Comparisons in rules that compare several arguments, for each architecture.
fn combined(section: &LinuxSeccomp) -> usize {
    let architectures: BTreeSet<String> =
        section.architectures().iter().flatten().map(|arch| format!("{arch:?}")).collect();
    let rules = section.syscalls().iter().flatten().map(|rule| {
        let comparisons = rule.args().as_ref().map_or(0, Vec::len);
        if comparisons > 1 { comparisons * rule.names().len() } else { 0 }
    });
    rules.sum::<usize>() * (1 + architectures.len())
}

/// What the kernel asks of a filter beside its length (`bpf_check_classic`): every jump ends inside, and the last
/// instruction returns.
fn loadable(program: &[u8]) {
    const JUMP: u16 = 0x05;
    const JUMP_ALWAYS: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty() && (1..=4096).contains(&instructions.len()));
    for (index, bytes) in instructions.iter().enumerate() {
        let [low, high, if_true, if_false, k @ ..] = *bytes;
        let code = u16::from_ne_bytes([low, high]);
        let farthest = match code {
            JUMP_ALWAYS => u32::from_ne_bytes(k) as usize,
            _ if code & 7 == JUMP => usize::from(if_true.max(if_false)),
            _ => continue,
        };
        assert!(index + 1 + farthest < instructions.len(), "a jump out of the program at {index}");
    }
    let last = instructions[instructions.len() - 1];
    assert_eq!(u16::from_ne_bytes([last[0], last[1]]) & 7, RETURN);
}
