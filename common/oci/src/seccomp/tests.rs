use super::*;
use std::collections::BTreeMap;

fn target(capabilities: CapSet, arch: &str) -> Target {
    Target { capabilities, kernel: (6, 1), architecture: Architecture::by_name(arch).unwrap() }
}

/// System calls by name, with what is decided about each.
fn decisions(seccomp: &LinuxSeccomp) -> BTreeMap<String, Vec<String>> {
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in seccomp.syscalls().iter().flatten() {
        let mut args: Vec<String> = rule.args().iter().flatten().map(|arg| format!("{arg:?}")).collect();
        args.sort();
        for name in rule.names() {
            calls.entry(name.clone()).or_default().push(format!(
                "{:?} {:?} {args:?}",
                rule.action(),
                rule.errno_ret()
            ));
        }
    }
    for list in calls.values_mut() {
        list.sort();
        list.dedup();
    }
    calls
}

fn has(seccomp: &LinuxSeccomp, name: &str) -> bool {
    decisions(seccomp).contains_key(name)
}

#[test]
fn default_container_gets_dockers_decisions() {
    let filter = builtin(&target(CapSet::default_of_containers(), "x86_64"));
    for name in ["read", "execve", "chroot", "ptrace", "arch_prctl", "modify_ldt", "futex_waitv", "openat2"] {
        assert!(has(&filter, name), "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "bpf",
        "io_uring_setup",
        "keyctl",
        "add_key",
        "reboot",
        "kexec_load",
        "userfaultfd",
        "riscv_flush_icache",
    ] {
        assert!(!has(&filter, name), "{name}");
    }
    let decisions = decisions(&filter);
    assert_eq!(decisions["clone3"], ["ScmpActErrno Some(38) []"]);
    assert_eq!(decisions["socket"].len(), 3);
    assert_eq!(decisions["personality"].len(), 5);
    assert!(decisions["clone"].iter().all(|d| d.contains("value: 2114060288")));
    assert_eq!(filter.default_errno_ret(), Some(1));
    assert_eq!(filter.architectures().as_ref().unwrap().len(), 3);
}

#[test]
fn capabilities_kernel_and_architecture_open_more() {
    let all = builtin(&target(CapSet::ALL, "x86_64"));
    assert_eq!(decisions(&all)["clone"], ["ScmpActAllow None []"]);
    assert!(!decisions(&all)["clone3"].iter().any(|d| d.contains("Errno")));
    assert!(has(&all, "mount") && has(&all, "reboot") && has(&all, "open_by_handle_at"));
    let arm = builtin(&target(CapSet::EMPTY, "aarch64"));
    assert!(has(&arm, "cacheflush") && !has(&arm, "arch_prctl") && !has(&arm, "chroot"));
    let s390 = decisions(&builtin(&target(CapSet::EMPTY, "s390x")));
    assert!(s390["clone"].len() == 1 && s390["clone"][0].contains("index: 1"));
    let old = Target { kernel: (4, 7), ..target(CapSet::EMPTY, "x86_64") };
    assert!(!has(&builtin(&old), "ptrace"));
}

#[test]
fn no_call_is_listed_twice_and_the_order_is_fixed() {
    let names: Vec<&str> = builtin::ALLOWED.iter().flat_map(|names| names.split(' ')).collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(names.len(), unique.len());
    assert_eq!(names.len(), 361);
    let target = target(CapSet::default_of_containers(), "x86_64");
    assert_eq!(
        serde_json::to_string(&builtin(&target)).unwrap(),
        serde_json::to_string(&builtin(&target)).unwrap()
    );
}

#[test]
#[allow(clippy::print_stderr)]
fn dockers_own_file_resolves_to_the_same() {
    // Another's file, looked at where somebody has it: STAVES_DOCKER_SECCOMP=…/default.json.
    let Some(path) = std::env::var_os("STAVES_DOCKER_SECCOMP") else {
        eprintln!("SKIPPED: STAVES_DOCKER_SECCOMP does not name docker's default.json");
        return;
    };
    let profile = Profile::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    for capabilities in [CapSet::EMPTY, CapSet::default_of_containers(), CapSet::ALL] {
        for arch in ["x86_64", "aarch64", "riscv64", "s390x"] {
            let target = target(capabilities, arch);
            let theirs = profile.resolve(&target).unwrap().unwrap();
            let ours = builtin(&target);
            assert_eq!(decisions(&theirs), decisions(&ours), "{arch}");
            assert_eq!(theirs.architectures(), ours.architectures());
            assert_eq!(
                (theirs.default_action(), theirs.default_errno_ret()),
                (ours.default_action(), ours.default_errno_ret())
            );
        }
    }
}

#[test]
fn a_users_profile_is_resolved_by_the_same_rules() {
    let profile = Profile::parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
            {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],"later":1,
            "syscalls":[
              {"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":13},
              {"names":["chown","fchown"],"action":"SCMP_ACT_KILL_PROCESS","includes":{"caps":["CAP_CHOWN"]}},
              {"names":["bpf"],"action":"SCMP_ACT_LOG","excludes":{"minKernel":"5.0"}},
              {"names":["x"],"action":"SCMP_ACT_TRAP","includes":{"arches":["arm64"]},"comment":"c","args":null},
              {"names":["clone"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
    )
    .unwrap();
    let filter = profile.resolve(&target(CapSet::EMPTY, "x86_64")).unwrap().unwrap();
    assert_eq!(decisions(&filter).keys().collect::<Vec<_>>(), ["clone", "mkdir"]);
    assert_eq!(filter.architectures().as_ref().unwrap(), &[Arch::ScmpArchX86_64, Arch::ScmpArchX86]);
    let filter = profile.resolve(&target(CapSet::ALL, "aarch64")).unwrap().unwrap();
    assert_eq!(decisions(&filter).keys().collect::<Vec<_>>(), ["chown", "clone", "fchown", "mkdir", "x"]);
}

#[test]
fn broken_profiles_are_refused() {
    let target = target(CapSet::EMPTY, "x86_64");
    for text in ["", "[]", r#"{"defaultAction":"NO"}"#, r#"{"syscalls":5}"#] {
        assert!(Profile::parse(text).is_err(), "{text}");
    }
    for text in [
        r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"x"}}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
    ] {
        assert!(Profile::parse(text).unwrap().resolve(&target).is_err(), "{text}");
    }
    assert!(Profile::parse("{}").unwrap().resolve(&target).unwrap().is_none());
}
