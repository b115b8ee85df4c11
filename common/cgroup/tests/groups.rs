//! Groups of the machine the tests run on, below a parent of each test's own.

#![allow(clippy::print_stderr)] // What is skipped is said aloud.

use cgroup::{Cgroup, LinuxResources, Version};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A parent that is removed with all below it.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Option<Parent> {
        if !rustix::process::geteuid().is_root() || cgroup::version().is_none() {
            eprintln!("SKIPPED: groups are made by root, where control groups are mounted");
            return None;
        }
        let parent = Parent(format!("/staves-test-{name}-{}", std::process::id()));
        match Cgroup::create(&parent.path("probe"), None) {
            Ok(probe) => {
                probe.remove().expect("remove the probe");
                Some(parent)
            }
            Err(fault) => {
                eprintln!("SKIPPED: no group can be made here: {fault}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // What a test that failed has left as well.
        for (_, group) in cgroup::list(&self.0).unwrap_or_default() {
            group.kill();
            let _ = group.remove();
        }
        let _ = cgroup::remove_parent(&self.0);
    }
}

struct Sleeper(Child);

impl Sleeper {
    fn within(group: &Cgroup) -> Sleeper {
        let child = Command::new("sleep").arg("1000").spawn().expect("start sleep");
        for directory in group.directories() {
            std::fs::write(directory.join("cgroup.procs"), child.id().to_string()).expect("join the group");
        }
        Sleeper(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).expect("resources")
}

/// What a file of the group says, by its name in either version; `None` where there is none.
fn text(group: &Cgroup, files: &[&str]) -> Option<String> {
    let mut paths =
        group.directories().iter().flat_map(|directory| files.iter().map(|file| directory.join(file)));
    paths.find_map(|path| std::fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
}

fn there(group: &Cgroup) -> Vec<PathBuf> {
    group.directories().iter().filter(|directory| directory.exists()).cloned().collect()
}

#[test]
fn what_a_failed_limit_made_is_removed_and_nothing_else() {
    let Some(parent) = Parent::new("failed") else { return };
    let bad = resources(r#"{"pids":{"limit":10},"cpu":{"cpus":"999999"}}"#);
    assert!(Cgroup::create(&parent.path("new"), Some(&bad)).is_err());
    let old = Cgroup::create(&parent.path("old"), None).expect("make a group");
    assert!(Cgroup::create(&parent.path("old"), Some(&bad)).is_err());
    assert_eq!(there(&old).len(), old.directories().len(), "the group was there before");
    old.remove().expect("remove it");
    let new = Cgroup::create(&parent.path("new"), None).expect("make the other");
    new.remove().expect("remove it");
}

#[test]
fn a_group_in_use_is_refused_and_killed_with_what_is_below_it() {
    let Some(parent) = Parent::new("kill") else { return };
    let group = Cgroup::create(&parent.path("busy"), None).expect("make a group");
    let below = Cgroup::create(&parent.path("busy/below"), None).expect("make one below");
    let mut sleeper = Sleeper::within(&below);
    let fault = Cgroup::create(&parent.path("busy"), None).expect_err("it is in use");
    assert!(fault.to_string().contains("container's cgroup is not empty: 1 process(es) found"), "{fault}");
    group.freeze().expect("freeze");
    assert!(group.is_frozen());
    group.kill();
    let status = sleeper.0.wait().expect("wait for it");
    assert!(!status.success());
    group.remove().expect("remove both");
    assert!(there(&group).is_empty() && there(&below).is_empty());
}

#[test]
fn what_was_made_on_the_way_to_a_failure_is_removed() {
    let Some(parent) = Parent::new("way") else { return };
    let bad = resources(r#"{"cpu":{"cpus":"999999"}}"#);
    let kept = Cgroup::create(&parent.path("kept"), None).expect("make a group");
    assert!(Cgroup::create(&parent.path("kept/a/b/c"), Some(&bad)).is_err());
    assert_eq!(there(&kept).len(), kept.directories().len());
    assert!(kept.directories().iter().all(|directory| !directory.join("a").exists()));
    // A name the kernel refuses, below one it takes.
    assert!(Cgroup::create(&parent.path("kept/a/b\nc"), None).is_err());
    assert!(kept.directories().iter().all(|directory| !directory.join("a").exists()));
    kept.remove().expect("remove it");
}

#[test]
fn no_path_leaves_the_hierarchy() {
    let Some(parent) = Parent::new("escape") else { return };
    let inside = Cgroup::create(&parent.path("inside"), None).expect("make a group");
    for path in [
        "../escaped".to_owned(),
        "/../escaped".to_owned(),
        "/../../../tmp/escaped".to_owned(),
        parent.path("inside/../../../escaped"),
        parent.path("inside/.."),
        "..".to_owned(),
        format!("{}/..", "a/".repeat(200)),
    ] {
        let fault = Cgroup::create(&path, None).expect_err(&path);
        assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
    }
    for directory in inside.directories() {
        for above in directory.ancestors().take_while(|above| above.starts_with("/sys/fs")) {
            assert!(!above.join("escaped").exists(), "{}", above.display());
        }
    }
    inside.remove().expect("remove it");
}

#[test]
fn limits_are_lowered_and_raised_in_any_order() {
    let Some(parent) = Parent::new("order") else { return };
    // The quotas of groups below may not be a greater part of the time than this.
    let half = resources(r#"{"cpu":{"quota":50000,"period":100000}}"#);
    let above = Cgroup::create(&parent.path("above"), Some(&half)).expect("make a group");
    let group = Cgroup::create(&parent.path("above/below"), None).expect("make one below");
    let burst = text(&group, &["cpu.cfs_burst_us", "cpu.max.burst"]).is_some();
    if !burst {
        eprintln!("SKIPPED: this kernel has no bursts");
    }
    for (quota, period) in
        [(50_000, 100_000), (5000, 10_000), (400_000, 800_000), (1000, 2000), (3000, 100_000)]
    {
        let mut cpu = serde_json::json!({"cpu": {"quota": quota, "period": period}});
        if burst {
            cpu["cpu"]["burst"] = quota.into();
        }
        group.apply(&resources(&cpu.to_string())).expect("set the quota");
        let set = text(&group, &["cpu.max"]).or_else(|| {
            Some(format!(
                "{} {}",
                text(&group, &["cpu.cfs_quota_us"])?,
                text(&group, &["cpu.cfs_period_us"])?
            ))
        });
        assert_eq!(set, Some(format!("{quota} {period}")));
        if burst {
            assert_eq!(text(&group, &["cpu.cfs_burst_us", "cpu.max.burst"]), Some(quota.to_string()));
        }
    }
    // Version 2 lets groups below have more, and less come of it.
    let more = group.apply(&resources(r#"{"cpu":{"quota":90000,"period":100000}}"#));
    match (group.version(), more) {
        (Version::V1, Err(fault)) => {
            assert!(fault.to_string().starts_with("linux.resources.cpu."), "{fault}");
        }
        (version, more) => assert!(version == Version::V2 && more.is_ok(), "{more:?}"),
    }
    let swap = text(&group, &["memory.memsw.limit_in_bytes", "memory.swap.max"]).is_some();
    for (limit, both) in
        [(64 << 20, 128 << 20), (16 << 20, 32 << 20), (512 << 20, 512 << 20), (-1, -1), (8 << 20, 8 << 20)]
    {
        let mut memory = serde_json::json!({"memory": {"limit": limit}});
        if swap {
            memory["memory"]["swap"] = both.into();
        }
        group.apply(&resources(&memory.to_string())).expect("set the limit");
        if limit > 0 {
            let set = text(&group, &["memory.limit_in_bytes", "memory.max"]);
            assert_eq!(set, Some(limit.to_string()));
        }
    }
    above.remove().expect("remove both");
}

#[test]
fn an_idle_group_has_no_weight() {
    let Some(parent) = Parent::new("idle") else { return };
    let group = Cgroup::create(&parent.path("one"), None).expect("make a group");
    if text(&group, &["cpu.idle"]).is_none() {
        eprintln!("SKIPPED: this kernel has no idle groups");
        return group.remove().expect("remove it");
    }
    let idle = || text(&group, &["cpu.idle"]).expect("cpu.idle");
    group.apply(&resources(r#"{"cpu":{"shares":512,"idle":1}}"#)).expect("make it idle");
    assert_eq!(idle(), "1");
    let fault = group.apply(&resources(r#"{"cpu":{"shares":256}}"#)).expect_err("it is idle");
    assert!(fault.to_string().starts_with("linux.resources.cpu.shares: "), "{fault}");
    assert!(fault.hint_text().is_some_and(|hint| hint.contains("cpu.idle")), "{fault}");
    group.apply(&resources(r#"{"cpu":{"shares":2048,"idle":0}}"#)).expect("make it usual");
    assert_eq!(idle(), "0");
    let weight = text(&group, &["cpu.shares", "cpu.weight"]).expect("its weight");
    assert!(weight == "2048" || weight == "174", "{weight}");
    group.remove().expect("remove it");
}

#[test]
fn a_group_frozen_from_above_is_told_apart() {
    let Some(parent) = Parent::new("frozen") else { return };
    let above = Cgroup::create(&parent.path("above"), None).expect("make a group");
    let below = Cgroup::create(&parent.path("above/below"), None).expect("make one below");
    let _sleeper = Sleeper::within(&below);
    assert!(!below.is_frozen() && !below.is_frozen_from_above());
    above.freeze().expect("freeze the one above");
    assert!(above.is_frozen() && !above.is_frozen_from_above());
    assert!(!below.is_frozen() && !below.is_to_be_frozen() && below.is_frozen_from_above());
    let fault = below.thaw().expect_err("the one above is frozen");
    assert_eq!(fault.kind(), fault::Kind::Conflict, "{fault}");
    let beside = parent.path("above/beside");
    Cgroup::create(&beside, None).expect("what is new is not looked at");
    let fault = Cgroup::create(&beside, None).expect_err("it is there, and frozen");
    assert!(fault.to_string().contains("container's cgroup unexpectedly frozen"), "{fault}");
    below.freeze().expect("freeze the one below, too");
    assert!(below.is_frozen());
    below.thaw().expect_err("the one above is frozen");
    above.thaw().expect("let them run");
    assert!(!below.is_frozen() && !below.is_frozen_from_above());
    below.freeze().expect("freeze it alone");
    assert!(below.is_frozen() && !above.is_frozen());
    // What is stopped can be killed.
    below.kill();
    above.remove().expect("remove all");
}

#[test]
fn groups_within_are_removed_when_the_last_process_has_left() {
    let Some(parent) = Parent::new("nest") else { return };
    let group = Cgroup::create(&parent.path("top"), None).expect("make a group");
    let deep = Cgroup::create(&parent.path("top/a/b/c/d"), None).expect("make one deep in it");
    for name in ["top/a/x", "top/a/b/y", "top/z"] {
        Cgroup::create(&parent.path(name), None).expect("make one in it");
    }
    let sleeper = Sleeper::within(&deep);
    assert_eq!(group.all_processes().expect("its processes"), [sleeper.0.id() as i32]);
    let before = std::time::Instant::now();
    let fault = group.remove().expect_err("it is in use");
    assert!(fault.hint_text().is_some() && before.elapsed().as_secs() < 10, "{fault}");
    assert!(!there(&deep).is_empty());
    // Nobody reaps it meanwhile.
    group.kill();
    group.remove().expect("remove all");
    assert!(there(&group).is_empty());
}

#[test]
fn memory_in_use_is_not_taken_away() {
    let Some(parent) = Parent::new("usage") else { return };
    let group = Cgroup::create(&parent.path("one"), None).expect("make a group");
    // The last lines are what comes before the end: tail keeps all of it.
    let script =
        r#"for procs; do echo $$ >"$procs"; done; { head -c 16000000 /dev/zero; sleep 1000; } | tail"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args(group.directories().iter().map(|d| d.join("cgroup.procs")));
    let mut shell = shell.stdout(Stdio::null()).spawn().expect("start a shell");
    let used = || text(&group, &["memory.usage_in_bytes", "memory.current"]).unwrap_or_default();
    for _ in 0..500 {
        if used().parse().unwrap_or(0) > 16_000_000 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let less = resources(r#"{"memory":{"limit":4194304,"checkBeforeUpdate":true}}"#);
    let fault = group.apply(&less).expect_err("it is in use").to_string();
    let words = match group.version() {
        Version::V1 => "unable to set memory limit to 4194304 (current usage: ",
        Version::V2 => "linux.resources.memory.limit: rejecting memory limit 4194304 <= usage ",
    };
    assert!(fault.contains(words), "{fault}");
    group.kill();
    shell.wait().expect("wait for it");
    group.remove().expect("remove it");
}

#[test]
fn what_a_group_has_used_is_counted() {
    let Some(parent) = Parent::new("stats") else { return };
    let limits = resources(r#"{"pids":{"limit":0}}"#);
    let group = Cgroup::create(&parent.path("one"), Some(&limits)).expect("make a group");
    let _sleeper = Sleeper::within(&group);
    let stats = serde_json::to_value(group.stats()).expect("as JSON");
    assert_eq!((&stats["pids"]["current"], &stats["pids"]["limit"]), (&1.into(), &1.into()), "{stats}");
    assert!(stats["cpuset"]["cpus"].as_array().is_some_and(|cpus| !cpus.is_empty()), "{stats}");
    assert!(stats["memory"]["raw"].as_object().is_some_and(|raw| raw.len() > 10), "{stats}");
    // Nothing has happened.
    assert!(stats["memory"]["events"].is_null(), "{stats}");
    for member in ["kernel", "kernelTCP", "swap", "usage"] {
        assert!(stats["memory"][member]["failcnt"].is_u64(), "{stats}");
    }
    if group.version() == Version::V1 {
        let usage = &stats["cpu"]["usage"];
        let processors = |member: &str| usage[member].as_array().map(Vec::len);
        assert!(processors("percpu").is_some_and(|count| count > 0), "{stats}");
        assert_eq!(processors("percpu"), processors("percpu_kernel"));
        assert_eq!(processors("percpu"), processors("percpu_user"));
    }
    group.kill();
    group.remove().expect("remove it");
}

#[test]
fn files_are_set_by_their_names() {
    let Some(parent) = Parent::new("unified") else { return };
    let group = Cgroup::create(&parent.path("one"), None).expect("make a group");
    let set = |file: &str, value: &str| {
        group.apply(&resources(&serde_json::json!({"unified": {file: value}}).to_string()))
    };
    if group.version() == Version::V1 {
        let fault = set("memory.high", "1").expect_err("there is no such file");
        assert!(fault.to_string().contains("linux.resources.unified"), "{fault}");
        eprintln!("SKIPPED: files are set by their names in version 2 groups");
        return group.remove().expect("remove it");
    }
    set("memory.high", "4194304").expect("set it");
    assert_eq!(text(&group, &["memory.high"]).as_deref(), Some("4194304"));
    for file in ["memory.nope", "nope.max"] {
        let fault = set(file, "1").expect_err("there is no such file");
        assert!(fault.to_string().starts_with(&format!("linux.resources.unified.{file}: ")), "{fault}");
        assert!(fault.hint_text().is_some(), "{fault}");
    }
    let asked = resources(r#"{"unified":{"nope.max":"1"}}"#);
    let fault = Cgroup::create(&parent.path("two"), Some(&asked)).expect_err("there is no such controller");
    assert!(fault.to_string().contains("unified.nope.max: the nope controller is not available"), "{fault}");
    // In one write, the kernel would refuse the second line or read the first alone.
    let mut devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let device = devices.find_map(|entry| std::fs::read_to_string(entry.path().join("dev")).ok());
    match device.as_deref().map(str::trim) {
        Some(device) if text(&group, &["io.max"]).is_some() => {
            let lines = format!("{device} rbps=1048576\n{device} wiops=100\n");
            set("io.max", &lines).expect("set both");
            let kept = text(&group, &["io.max"]).unwrap_or_default();
            assert_eq!(kept, format!("{device} rbps=1048576 wbps=max riops=max wiops=100"));
        }
        _ => eprintln!("SKIPPED: no block device here has limits"),
    }
    group.remove().expect("remove it");
}

#[test]
fn a_further_process_goes_where_the_first_one_has_gone() {
    let Some(parent) = Parent::new("entries") else { return };
    let group = Cgroup::create(&parent.path("one"), None).expect("make a group");
    if group.version() == Version::V1 {
        eprintln!("SKIPPED: in version 1 a group may have both processes and groups");
        return group.remove().expect("remove it");
    }
    let directory = &group.directories()[0];
    let first = Sleeper::within(&group);
    let pid = rustix::process::Pid::from_raw(first.0.id() as i32).expect("a process id");
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("open it");
    // As systemd does in a container: its processes go into a group of their own.
    std::fs::create_dir(directory.join("init.scope")).expect("make a group within");
    std::fs::write(directory.join("init.scope/cgroup.procs"), pid.to_string()).expect("go there");
    std::fs::write(directory.join("cgroup.subtree_control"), "+pids").expect("hand a controller down");
    let own = std::process::id() as i32;
    let before = Cgroup::of_process(own).expect("the own group");
    let enter = |group: &Cgroup| {
        let entries = group.entries(pidfd.as_fd()).expect("open the group");
        let entered = entries.into_iter().try_for_each(cgroup::Entry::enter);
        let now = Cgroup::of_process(own).expect("the own group").directories().to_vec();
        std::fs::write(before.directories()[0].join("cgroup.procs"), own.to_string()).expect("go back");
        entered.map(|()| now)
    };
    assert_eq!(enter(&group).expect("enter"), [directory.join("init.scope")]);
    let fault = enter(&group.clone().exactly()).expect_err("that one cannot be joined");
    assert!(fault.to_string().starts_with("join the control group: "), "{fault}");
    group.kill();
    group.remove().expect("remove both");
}

#[test]
fn a_relative_path_is_below_the_own_group_or_beside_it() {
    let Some(parent) = Parent::new("relative") else { return };
    let own = Cgroup::create(&parent.path("own"), None).expect("make a group");
    let before = Cgroup::of_process(std::process::id() as i32).expect("the own group");
    let go_to = |group: &Cgroup| {
        for directory in group.directories() {
            let procs = directory.join("cgroup.procs");
            std::fs::write(&procs, std::process::id().to_string()).expect("move this process");
        }
    };
    go_to(&own);
    let made = Cgroup::create("relative/one", Some(&resources(r#"{"pids":{"limit":9}}"#)));
    let escaped = Cgroup::create("../relative", None);
    go_to(&before);
    let made = made.expect("make a group by a relative path");
    assert_eq!(escaped.expect_err("it leaves").kind(), fault::Kind::Input);
    assert_eq!(text(&made, &["pids.max"]).as_deref(), Some("9"));
    for (directory, own) in made.directories().iter().zip(own.directories()) {
        let base = match made.version() {
            Version::V1 => own,
            Version::V2 => own.parent().expect("its parent"),
        };
        assert_eq!(directory, &base.join("relative/one"));
    }
    made.remove().expect("remove it");
    own.remove().expect("remove the own one, and what is below it");
}

#[test]
fn processes_that_fork_all_the_time_are_stopped() {
    let Some(parent) = Parent::new("forks") else { return };
    let group = Cgroup::create(&parent.path("one"), None).expect("make a group");
    let script =
        r#"for procs; do echo $$ >"$procs"; done; for i in 1 2 3; do while :; do (:); done & done; wait"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args(group.directories().iter().map(|d| d.join("cgroup.procs")));
    let mut shell = shell.spawn().expect("start a shell");
    while group.all_processes().expect("its processes").len() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for _ in 0..5 {
        group.freeze().expect("freeze");
        assert!(group.is_frozen());
        let pids = group.all_processes().expect("its processes");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(group.all_processes().expect("its processes"), pids);
        group.thaw().expect("thaw");
        assert!(!group.is_to_be_frozen());
    }
    group.freeze().expect("freeze");
    group.kill();
    shell.wait().expect("wait for it");
    group.remove().expect("remove it");
}
