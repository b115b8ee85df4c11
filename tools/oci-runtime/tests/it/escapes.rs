//! What processes in a container may try on the programs and descriptors of the runtime that enters it.

use crate::{Bench, PROGRAM, assert_says, wait_until};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use testkit::Ran;

/// Descriptors the runtime may have open.
const DESCRIPTORS: std::ops::Range<u32> = 3..24;

/// Up from wherever a descriptor leads, as far as there is anything.
const UP: &str = "../../../../../../../../../..";

/// Everything a container can be given but a seccomp profile: its own defences are not what is tested.
fn all_capabilities(config: &mut Value) {
    let features = Ran::of(Command::new(PROGRAM).arg("features")).expect(0).stdout;
    let features: Value = serde_json::from_str(&features).unwrap();
    let all = &features["linux"]["capabilities"];
    config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    config["process"]["noNewPrivileges"] = json!(false);
}

/// A program of its own to attack, and what it was.
fn own_program(bench: &Bench) -> (PathBuf, Vec<u8>) {
    let program = bench.path().join("oci-runtime");
    std::fs::copy(PROGRAM, &program).unwrap();
    let content = std::fs::read(&program).unwrap();
    (program, content)
}

fn with(program: &PathBuf, bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--root").arg(bench.root()).args(arguments).stdin(Stdio::null());
    command
}

/// CVE-2019-5736: `/proc/PID/exe` is opened while the program runs, and written to when it has ended.
const OVERWRITE: &str = r#"exec 3</proc/$1/exe; kill -9 $1
for n in $(busybox seq 100); do
  if { echo x >/proc/self/fd/3; } 2>/error; then echo WROTE; exit; fi
  case "$(cat /error)" in *busy*) busybox usleep 10000;; *) cat /error; exit;; esac
done"#;

#[test]
fn the_runtimes_program_cannot_be_written_to() {
    let Some(bench) = Bench::new() else { return };
    let (program, before) = own_program(&bench);
    let id = &bench.id("exe");
    bench.configure(&["sleep", "1000"], all_capabilities);
    let rootfs = bench.bundle().join("rootfs");
    std::fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox-victim")).unwrap();
    assert!(Command::new("mkfifo").arg(rootfs.join("fifo")).status().unwrap().success());
    bench.start(id);
    // Its log is a pipe nobody reads, so it stays.
    for (victim, arguments, outcome) in [
        ("the container's own", &["/bin/busybox-victim", "sleep", "1000"][..], "WROTE"),
        ("the runtime's", &["/proc/self/exe", "--log", "/fifo", "list"], "Read-only file system"),
    ] {
        let pid = bench.path().join("pid");
        let pid_file = pid.display().to_string();
        let arguments = [&["exec", "--detach", "--pid-file", &pid_file, id], arguments].concat();
        let mut command = with(&program, &bench, &arguments);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{victim}");
        let status = std::fs::read_to_string(&pid).unwrap();
        let inside = pid_inside(status.trim());
        let ran = bench.ran(&["exec", id, "sh", "-c", OVERWRITE, "attack", &inside]).expect(0);
        assert!(ran.stdout.contains(outcome), "{victim}: {}", ran.stdout);
    }
    assert_eq!(std::fs::read(&program).unwrap(), before, "it was written to");
}

/// A process's number in its own pid namespace.
fn pid_inside(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn an_image_cannot_have_the_runtimes_program_executed_unprotected() {
    let Some(bench) = Bench::new() else { return };
    let (program, before) = own_program(&bench);
    let id = &bench.id("shebang");
    let script = bench.bundle().join("rootfs/bin/evil");
    std::fs::write(&script, "#!/proc/self/exe --version\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bundle = bench.bundle().display().to_string();
    for arguments in [&["/bin/evil"][..], &["/proc/self/exe", "--version"]] {
        bench.configure(arguments, all_capabilities);
        let ran = Ran::of(&mut with(&program, &bench, &["run", "--bundle", &bundle, id])).expect(0);
        assert!(ran.stdout.contains(" version "), "{}", ran.stdout);
    }
    // What it runs as the first process is no more to be written to.
    assert!(Command::new("mkfifo").arg(bench.bundle().join("rootfs/fifo")).status().unwrap().success());
    bench.configure(&["/proc/self/exe", "--log", "/fifo", "list"], all_capabilities);
    let mut run = with(&program, &bench, &["run", "--detach", "--bundle", &bundle, id]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let ran = bench.ran(&["exec", id, "sh", "-c", "echo x >/proc/1/exe"]).expect(1);
    assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&program).unwrap(), before, "it was written to");
}

/// CVE-2016-9962: whoever is inside looks at processes that come in, before they are what they shall be.
#[test]
fn nobody_looks_into_a_process_that_enters() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("trace");
    // The same user, with the same capabilities as what comes in will have.
    bench.configure(&["sleep", "1000"], |_| {});
    bench.start(id);
    let script = r#"while test ! -e /stop; do for p in /proc/[0-9]*; do
        l=$(busybox readlink $p/exe 2>/dev/null) && case $l in */busybox) ;; *) echo "SEEN $l $(busybox ls -l $p/fd)";; esac
        done; done"#;
    let log = bench.path().join("log").display().to_string();
    let mut attack = bench.command(&["exec", id, "sh", "-c", script]);
    let attack = attack.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..40 {
        bench.ran(&["--log", &log, "exec", id, "true"]).expect(0);
    }
    std::fs::write(bench.bundle().join("rootfs/stop"), "").unwrap();
    let said = attack.wait_with_output().unwrap().stdout;
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// CVE-2024-21626: a working directory or a program by way of what the runtime has open outside.
#[test]
fn no_descriptor_of_the_runtimes_leads_out() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("fd");
    let outside = "/usr/bin/busybox";
    symlink("/proc/self/fd", bench.bundle().join("rootfs/fds")).unwrap();
    for fd in DESCRIPTORS {
        for directory in [format!("/proc/self/fd/{fd}"), format!("/fds/{fd}"), format!("/proc/1/fd/{fd}")] {
            bench.configure(&["cat", &format!("{UP}/etc/hostname")], |config| {
                config["process"]["cwd"] = json!(directory);
            });
            let ran = bench.run(id, &[]).expect(1);
            assert!(ran.stdout.is_empty() && !bench.root().join(id).exists(), "{directory}: {}", ran.stdout);
        }
        bench.configure(&[&format!("/proc/self/fd/{fd}/{UP}{outside}"), "echo", "out"], |config| {
            config["process"]["cwd"] = json!("/");
        });
        let ran = bench.run(id, &[]).expect(1);
        assert!(ran.stdout.is_empty(), "{fd}: {}", ran.stdout);
    }
    bench.configure(&["sleep", "1000"], |_| {});
    bench.start(id);
    for fd in DESCRIPTORS {
        let directory = format!("/proc/self/fd/{fd}");
        let ran = bench.ran(&["exec", "--cwd", &directory, id, "cat", &format!("{UP}/etc/hostname")]);
        assert!(ran.stdout.is_empty() && ran.status == 255, "{directory}: {}", ran.stdout);
        let ran = bench.ran(&["exec", id, &format!("{directory}/{UP}{outside}"), "echo", "out"]);
        assert!(ran.stdout.is_empty() && ran.status == 255, "{directory}: {}", ran.stdout);
    }
}

#[test]
fn a_directory_that_is_handed_over_is_no_working_directory() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("handed");
    let ran = |options: &str, arguments: &str| {
        let script = format!(
            "exec 3</etc 4</usr; exec {PROGRAM} --root {} {options} {arguments}",
            bench.root().display()
        );
        Ran::of(Command::new("bash").args(["-c", &script]).stdin(Stdio::null()))
    };
    let run = format!("run --bundle {}", bench.bundle().display());
    bench.configure(&["pwd"], |config| config["process"]["cwd"] = json!("/proc/self/fd/3"));
    assert_says(&ran(&format!("{run} --preserve-fds 1"), id).expect(1), "is outside the container");
    // What is not handed over is not there.
    bench.configure(&["sh", "-c", "test -e /proc/self/fd/3 && ! test -e /proc/self/fd/4"], |config| {
        config["process"]["cwd"] = json!("/");
    });
    ran(&format!("{run} --preserve-fds 1"), id).expect(0);
    ran(&run, id).expect(1);
    bench.configure(&["sleep", "1000"], |_| {});
    bench.start(id);
    let exec = "exec --preserve-fds 1 --cwd /proc/self/fd/3";
    assert_says(&ran(exec, &format!("{id} pwd")).expect(255), "is outside the container");
}

#[test]
fn nothing_of_the_runtimes_is_in_an_environment() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("environment");
    let seen = bench.path().join("seen");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("env >>{}", seen.display())]}]);
    bench.configure(&["env"], |config| {
        config["hooks"] =
            json!({"prestart": hook, "createContainer": hook, "poststart": hook, "poststop": hook});
    });
    // A mark of former versions says nothing.
    let bundle = bench.bundle().display().to_string();
    let mut command = bench.command(&["run", "--bundle", &bundle, id]);
    let inside = Ran::of(command.env("STAVES_PROTECTED", "1")).expect(0).stdout;
    assert!(!inside.contains("STAVES"), "{inside}");
    let mut names: Vec<String> = Vec::new();
    for line in std::fs::read_to_string(&seen).unwrap().lines() {
        names.extend(line.split_once('=').map(|(name, _)| name.to_owned()));
    }
    names.retain(|name| std::env::var_os(name).is_none());
    names.sort();
    names.dedup();
    // The shell's own, and what was given.
    names.retain(|name| !["_", "OLDPWD", "PWD", "SHLVL", "STAVES_PROTECTED"].contains(&name.as_str()));
    assert!(names.is_empty(), "{names:?}");
    wait_until(|| !bench.root().join(id).exists(), "it is left");
}

/// A procfs of the host's that is still in the mount namespace would let a user namespace mount one of its own.
#[test]
fn without_pivot_nothing_unmasked_can_be_mounted() {
    let Some(bench) = Bench::new() else { return };
    let script = "mkdir -p /tmp/p && busybox mount -t proc none /tmp/p && echo mounted; \
        busybox mount -t sysfs none /tmp/p && echo mounted; cat /proc/self/comm";
    bench.configure(&["busybox", "unshare", "-mrpf", "sh", "-c", script], |config| {
        all_capabilities(config);
        config["root"]["readonly"] = json!(false);
    });
    for options in [&["--no-pivot"][..], &[]] {
        let ran = bench.run(&bench.id("bare"), options).expect(0);
        assert_eq!(ran.stdout, "cat\n", "{}", ran.stderr);
    }
}
