//! Settings of the process itself, on the machine's own file system.

use crate::{CHILD, SKIPPED, Test, root};
use runtime::Process;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output, Stdio};

pub const TESTS: &[Test] = &[
    ("user_groups_umask_and_capabilities", user_groups_umask_and_capabilities),
    ("capabilities_that_cannot_be_given_are_left_out", capabilities_that_cannot_be_given_are_left_out),
    ("limits_and_oom_score", limits_and_oom_score),
    ("limits_are_set_from_outside", limits_are_set_from_outside),
    ("scheduler_and_io_priority", scheduler_and_io_priority),
    ("personality_and_memory_policy", personality_and_memory_policy),
    ("affinity_of_further_processes", affinity_of_further_processes),
    ("environment_as_it_is_and_as_runc_has_it", environment_as_it_is_and_as_runc_has_it),
    ("failures_have_dockers_status", failures_have_dockers_status),
    ("start_hooks_have_the_commands_privileges", start_hooks_have_the_commands_privileges),
    ("descriptors_are_kept_by_number", descriptors_are_kept_by_number),
    ("the_parents_death_is_noticed_by_another_user", the_parents_death_is_noticed_by_another_user),
    ("pipes_are_the_users_and_files_are_not", pipes_are_the_users_and_files_are_not),
    ("labels_without_a_module_are_an_error", labels_without_a_module_are_an_error),
];

/// A process that does not do anything special, with some members replaced.
fn process(args: &[&str], members: &Value) -> Value {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut process = json!({"args": args, "cwd": "/", "env": [path]});
    for (name, value) in members.as_object().expect("members") {
        process[name] = value.clone();
    }
    process
}

fn child(wish: &Value) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the own executable"));
    command.env(CHILD, wish.to_string());
    command
}

fn run(wish: &Value) -> Output {
    child(wish).stdin(Stdio::null()).output().expect("run the child")
}

/// What a command prints that has to succeed.
fn printed(wish: &Value) -> String {
    let output = run(wish);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{wish}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn member(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn own_status(name: &str) -> String {
    member(&std::fs::read_to_string("/proc/self/status").expect("the own status"), name)
}

fn user_groups_umask_and_capabilities() {
    if !root() {
        return;
    }
    let kill = json!(["CAP_KILL"]);
    let members = json!({
        "user": {"uid": 1000, "gid": 1001, "umask": 0o77, "additionalGids": [5, 6]},
        "noNewPrivileges": true,
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NOBODY_KNOWS"], "permitted": kill,
                         "effective": kill, "inheritable": kill, "ambient": ["CAP_KILL", "CAP_CHOWN"]}
    });
    let status = printed(&json!({ "process": process(&["cat", "/proc/self/status"], &members) }));
    for (name, value) in [
        ("Uid", "1000 1000 1000 1000"),
        ("Gid", "1001 1001 1001 1001"),
        ("Groups", "5 6"),
        ("Umask", "0077"),
        ("NoNewPrivs", "1"),
        ("CapBnd", "0000000000000021"),
        ("CapInh", "0000000000000020"),
        ("CapPrm", "0000000000000020"),
        ("CapEff", "0000000000000020"),
        ("CapAmb", "0000000000000020"),
    ] {
        assert_eq!(member(&status, name), value, "{name}");
    }
}

fn capabilities_that_cannot_be_given_are_left_out() {
    if !root() {
        return;
    }
    let held = u64::from_str_radix(&own_status("CapPrm"), 16).expect("hexadecimal");
    let names = oci::capabilities::NAMES;
    let Some(number) = (0..names.len()).find(|number| held & 1 << number == 0) else {
        println!("{SKIPPED}this process has every capability");
        return;
    };
    let both = json!([format!("CAP_{}", names[number]), "CAP_KILL"]);
    let members = json!({"capabilities": {
        "bounding": both, "permitted": both, "effective": both, "inheritable": both, "ambient": both}});
    let process = process(&["cat", "/proc/self/status"], &members);
    let status = printed(&json!({ "process": process }));
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        assert_eq!(member(&status, name), "0000000000000020", "{name}");
    }
    let warnings = Process::parse(process.to_string().as_bytes()).expect("a process").warnings(false);
    assert!(warnings.iter().any(|warning| warning.contains(names[number])), "{warnings:?}");
}

fn limits_and_oom_score() {
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    let members = json!({"rlimits": limit, "oomScoreAdj": 999});
    let look = process(&["sh", "-c", "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj"], &members);
    if root() {
        assert_eq!(printed(&json!({ "process": look })), "100\n200\n999\n");
    }
    let members = json!({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}]});
    let output = run(&json!({"process": process(&["true"], &members)}));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("RLIMIT_NOFILE"), "{said}");
}

fn limits_are_set_from_outside() {
    if !root() {
        return;
    }
    let members = json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}], "oomScoreAdj": 7});
    let look = process(&["sh", "-c", "ulimit -Hc; cat /proc/self/oom_score_adj"], &members);
    assert_eq!(printed(&json!({"process": look, "limited": true})), "0\n7\n");
}

fn scheduler_and_io_priority() {
    if !root() {
        return;
    }
    let members = json!({
        "scheduler": {"policy": "SCHED_BATCH", "nice": 11},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}
    });
    let look = process(&["sh", "-c", "chrt -p $$; ionice -p $$; nice"], &members);
    let said = printed(&json!({ "process": look }));
    assert!(said.contains("SCHED_BATCH") && said.contains("best-effort: prio 6\n11\n"), "{said}");
    // More time than there is in a period.
    let members =
        json!({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 9000, "deadline": 8000, "period": 8000}});
    let output = run(&json!({"process": process(&["true"], &members)}));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("SCHED_DEADLINE"), "{said}");
}

fn personality_and_memory_policy() {
    let look = process(&["sh", "-c", "uname -m"], &json!({}));
    let machine = printed(&json!({"process": look, "linux": {"personality": {"domain": "LINUX32"}}}));
    let wanted = if cfg!(target_arch = "x86_64") { "i686\n" } else { "" };
    if wanted.is_empty() {
        println!("{SKIPPED}another processor");
    } else {
        assert_eq!(machine, wanted);
    }
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        println!("{SKIPPED}this kernel has no memory policies");
        return;
    }
    let look = process(&["head", "-n", "1", "/proc/self/numa_maps"], &json!({}));
    let policy = |policy: &Value| printed(&json!({"process": look, "linux": {"memoryPolicy": policy}}));
    let maps = policy(&json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}));
    assert!(maps.contains(" bind=static:0 "), "{maps}");
    let maps = policy(&json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}));
    assert!(maps.contains(" interleave:0 "), "{maps}");
    let maps = policy(&json!({"mode": "MPOL_DEFAULT"}));
    assert!(maps.contains(" default "), "{maps}");
}

fn affinity_of_further_processes() {
    let allowed = own_status("Cpus_allowed_list");
    let Some((first, last)) = allowed.split_once(['-', ',']) else {
        println!("{SKIPPED}there is one processor");
        return;
    };
    let last = last.rsplit(['-', ',']).next().expect("a processor");
    let look = |affinity: &Value, is_first: bool| {
        let members = if affinity.is_null() { json!({}) } else { json!({ "execCPUAffinity": affinity }) };
        let look = process(&["grep", "Cpus_allowed_list:", "/proc/self/status"], &members);
        let child = child(&json!({"process": look, "affinity": true, "first": is_first}));
        // As if whoever starts it were bound to one.
        let mut bound = Command::new("taskset");
        bound.args(["-c", first]).arg(child.get_program());
        bound.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = bound.output().expect("run taskset");
        member(&String::from_utf8_lossy(&output.stdout), "Cpus_allowed_list")
    };
    assert_eq!(look(&json!({"initial": last, "final": first}), false), first);
    assert_eq!(look(&json!({"initial": first, "final": last}), false), last);
    assert_eq!(look(&json!({ "initial": last }), false), last);
    assert_eq!(look(&Value::Null, false), allowed);
    assert_eq!(look(&json!({ "final": first }), true), allowed);
}

fn environment_as_it_is_and_as_runc_has_it() {
    let env = json!(["A=1", "PATH=/usr/bin:/bin", "A=2", "HOME="]);
    let look = process(&["env"], &json!({ "env": env }));
    let plain = printed(&json!({ "process": look }));
    assert!(plain.contains("HOME=\n"), "{plain}");
    let root = rustix::process::geteuid().is_root();
    let tidy = printed(&json!({"process": look, "home": true}));
    let mut lines: Vec<&str> = tidy.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines[0], "A=2");
    assert!(lines[1].starts_with("HOME=/") && (!root || lines[1] == "HOME=/root"), "{tidy}");
    assert_eq!(lines.len(), 3, "{tidy}");
    let bad = process(&["env"], &json!({"env": ["NOVALUE"]}));
    assert_eq!(run(&json!({"process": bad, "home": true})).status.code(), Some(125));
}

fn failures_have_dockers_status() {
    for (args, status, words) in [
        (&["no-such-program"][..], 127, "executable file not found in $PATH"),
        (&["/no/such/program"], 127, "no such file or directory"),
        (&["/etc/passwd"], 126, "cannot be executed"),
        (&["/etc"], 126, "cannot be executed"),
    ] {
        let output = run(&json!({"process": process(args, &json!({}))}));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(status) && said.contains(words), "{args:?}: {said}");
    }
    let nowhere = process(&["true"], &json!({"cwd": "/no/such/directory"}));
    let output = run(&json!({ "process": nowhere }));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/directory"));
}

fn start_hooks_have_the_commands_privileges() {
    if !root() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("runtime-machine-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).expect("open to all");
    let script = format!(
        "exec >{}/said; id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; echo $FOO; ls /proc/self/fd; cat",
        dir.display()
    );
    let state = json!({"ociVersion": "1.3.0", "id": "c1", "status": "created", "bundle": "/b"});
    let members = json!({"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": true,
        "env": ["FOO=bar", "PATH=/usr/bin:/bin"], "capabilities": {}});
    let mut wish = json!({
        "process": process(&["sh", "-c", "echo command"], &members), "state": state,
        "hooks": {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    });
    assert_eq!(printed(&wish), "command\n");
    let said = std::fs::read_to_string(dir.join("said")).expect("what the hook said");
    let (looks, state) = said.split_once('{').expect("the state");
    assert!(looks.starts_with("1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nbar\n"), "{said}");
    // The shell's own, and the directory that is listed.
    let descriptors: Vec<&str> = looks.lines().skip(4).collect();
    assert_eq!(descriptors, ["0", "1", "2", "3"], "{said}");
    assert!(state.contains("\"status\":\"created\""), "{said}");
    wish["hooks"]["startContainer"][0]["args"] = json!(["sh", "-c", "echo no >&2; exit 9"]);
    let output = run(&wish);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error running startContainer hook #0:") && said.contains("stderr: no"), "{said}");
    assert!(output.stdout.is_empty());
    std::fs::remove_dir_all(dir).expect("remove the directory");
}

fn descriptors_are_kept_by_number() {
    let look = "read x <&3 && echo kept; { read y <&4; } 2>/dev/null || echo closed";
    let wish = json!({"process": process(&["bash", "-c", look], &json!({})), "preserve": 1});
    let own = std::env::current_exe().expect("the own executable");
    let output = Command::new("sh")
        .args(["-c", "exec \"$0\" 3</etc/passwd 4</etc/passwd"])
        .arg(own)
        .env(CHILD, wish.to_string())
        .output()
        .expect("run sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\nclosed\n");
}

fn the_parents_death_is_noticed_by_another_user() {
    if !root() {
        return;
    }
    let members = json!({"user": {"uid": 1000, "gid": 1000}});
    let wish = json!({"process": process(&["sh", "-c", "echo $$; exec sleep 1000"], &members), "dies_with_parent": true});
    let own = std::env::current_exe().expect("the own executable");
    let mut parent = Command::new("sh")
        .args(["-c", "\"$0\" & wait"])
        .arg(own)
        .env(CHILD, wish.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run sh");
    let mut line = String::new();
    let stdout = parent.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
        .expect("the process's number");
    let pid: i32 = line.trim().parse().expect("a number");
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert!(lives());
    parent.kill().expect("kill the parent");
    parent.wait().expect("reap the parent");
    for _ in 0..1000 {
        if !lives() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    panic!("the process outlived its parent");
}

fn pipes_are_the_users_and_files_are_not() {
    if !root() {
        return;
    }
    let members = json!({"user": {"uid": 1000, "gid": 1000}});
    let wish = json!({"process": process(&["sh", "-c", "echo opened >/dev/stdout"], &members)});
    assert_eq!(printed(&wish), "opened\n");
    let path = std::env::temp_dir().join(format!("runtime-machine-file-{}", std::process::id()));
    let file = std::fs::File::create(&path).expect("a file");
    let wish = json!({"process": process(&["sh", "-c", "echo written"], &members)});
    assert!(child(&wish).stdout(file).status().expect("run the child").success());
    assert_eq!(std::fs::metadata(&path).expect("the file").uid(), 0);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "written\n");
    std::fs::remove_file(path).expect("remove the file");
}

fn labels_without_a_module_are_an_error() {
    for (name, there) in [
        ("apparmorProfile", runtime::labels::apparmor_enabled()),
        ("selinuxLabel", runtime::labels::selinux_enabled()),
    ] {
        if there {
            println!("{SKIPPED}{name}: its module is active here");
            continue;
        }
        let mut process = process(&["true"], &json!({}));
        process[name] = "no:such:label:s0".into();
        let output = run(&json!({ "process": process }));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(125) && said.contains("no:such:label:s0"), "{said}");
    }
}
