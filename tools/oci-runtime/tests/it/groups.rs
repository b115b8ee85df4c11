//! Verbs about control groups: pause, resume, update, events.

use crate::{Bench, assert_says, groups_of, wait_until};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

/// What a limit is now, whichever version there is.
fn limit(id: &str, files: &[&str]) -> String {
    let groups = groups_of(id);
    let mut paths = groups.iter().flat_map(|group| files.iter().map(move |file| group.join(file)));
    let text = paths.find_map(|path| std::fs::read_to_string(path).ok());
    text.unwrap_or_else(|| panic!("none of {files:?} in {groups:?}")).trim().to_owned()
}

fn memory(id: &str) -> String {
    limit(id, &["memory.limit_in_bytes", "memory.max"])
}

#[test]
fn a_container_is_paused_and_goes_on() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("pause");
    bench.start(&id);
    bench.ran(&["pause", &id]).expect(0);
    assert_eq!(bench.status(&id), "paused");
    assert_says(&bench.ran(&["pause", &id]).expect(1), "container not running");
    assert_says(&bench.ran(&["exec", &id, "true"]).expect(255), "cannot exec in a paused container");
    assert_says(&bench.ran(&["start", &id]).expect(1), "cannot start a container in the paused state");
    assert_says(&bench.ran(&["delete", &id]).expect(1), "that is not stopped: paused");
    bench.ran(&["resume", &id]).expect(0);
    assert_eq!(bench.status(&id), "running");
    assert_says(&bench.ran(&["resume", &id]).expect(1), "container not paused");
    bench.ran(&["exec", &id, "true"]).expect(0);
    // KILL gets through to what is paused.
    bench.ran(&["pause", &id]).expect(0);
    bench.ran(&["kill", &id, "KILL"]).expect(0);
    bench.wait_for(&id, "stopped");
}

#[test]
fn limits_are_changed() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("update");
    bench.configure(&["sleep", "1000"], |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        config["linux"]["resources"]["cpu"] = json!({"quota": 50000, "period": 100_000});
    });
    bench.start(&id);
    assert_eq!(memory(&id), (64 << 20).to_string());
    bench.ran(&["update", "--memory", "50M", &id, "--pids-limit", "20"]).expect(0);
    assert_eq!(memory(&id), (50 << 20).to_string());
    assert_eq!(limit(&id, &["pids.max"]), "20");
    // The period it was made with stays with it.
    bench.ran(&["update", "--cpu-quota", "30000", &id]).expect(0);
    let quota = limit(&id, &["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota == "30000" || quota == "30000 100000", "{quota}");
    let mut child = bench
        .command(&["update", "--resources", "-", &id])
        .stdin(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let resources = json!({"memory": {"limit": 40 << 20}, "pids": {"limit": -1}, "unknown": {"x": 1}, "devices": [{"allow": false}]});
    child.stdin.take().unwrap().write_all(resources.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(memory(&id), (40 << 20).to_string());
    assert_eq!(limit(&id, &["pids.max"]), "max");
    bench.ran(&["exec", &id, "sh", "-c", "echo x >/dev/null"]).expect(0);
    for (arguments, words) in [
        (&["--memory", "lots"][..], "invalid value for memory"),
        (&["--cpu-period", "x"], "invalid value for cpu-period"),
        (&["--resources", "/nonexistent"], "/nonexistent"),
        (&["--resources", "/proc/self/maps"], "/proc/self/maps"),
        (&["--l3-cache-schema", "L3:0=f"], "RDT"),
    ] {
        let mut all = vec!["update"];
        all.extend(arguments);
        all.push(&id);
        assert_says(&bench.ran(&all).expect(1), words);
    }
    assert_eq!(memory(&id), (40 << 20).to_string());
}

#[test]
fn statistics_are_printed() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("stats");
    bench.start(&id);
    let event = bench.ran(&["events", "--stats", &id]).expect(0).json();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(id.as_str())));
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
    assert_says(&bench.ran(&["events", "--interval", "0", &id]).expect(1), "greater than 0");
    assert_says(&bench.ran(&["events", "--interval", "5", &id]).expect(1), "invalid value");
    let out = bench.path().join("events");
    let mut child = bench
        .command(&["events", "--interval", "20ms", &id])
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&out).unwrap();
    wait_until(|| read().lines().count() >= 3, "no events come");
    bench.ran(&["delete", "-f", &id]).expect(0);
    assert!(child.wait().unwrap().success());
    for line in read().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["type"], "stats");
    }
}

#[test]
fn want_of_memory_is_told() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("oom");
    bench.configure(&["sleep", "1000"], |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20});
    });
    bench.start(&id);
    let out = bench.path().join("events");
    let mut child = bench
        .command(&["events", "--interval", "1h", &id])
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    // Version 1 tells by an event descriptor, version 2 by the file itself.
    let watched = |fd: std::io::Result<std::fs::DirEntry>| {
        let target = fd.and_then(|fd| std::fs::read_link(fd.path())).unwrap_or_default();
        target.to_string_lossy().contains("[eventfd]") || target.ends_with("memory.events")
    };
    let watching = format!("/proc/{}/fd", child.id());
    wait_until(|| std::fs::read_dir(&watching).unwrap().any(watched), "it does not watch");
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut dd = bench.command(&["exec", &id, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
    assert_eq!(dd.stderr(Stdio::null()).status().unwrap().code(), Some(137));
    wait_until(|| !std::fs::read_to_string(&out).unwrap().is_empty(), "no event comes");
    let event: Value = serde_json::from_str(std::fs::read_to_string(&out).unwrap().trim()).unwrap();
    assert_eq!(event, json!({"type": "oom", "id": id}));
    bench.ran(&["delete", "-f", &id]).expect(0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_process_is_put_into_a_group_below() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("below");
    bench.start(&id);
    let groups = groups_of(&id);
    for group in &groups {
        std::fs::create_dir(group.join("sub")).unwrap();
        // A new cpuset of version 1 can have no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if group.starts_with("/sys/fs/cgroup/cpuset") {
                let value = std::fs::read_to_string(group.join(file)).unwrap();
                std::fs::write(group.join("sub").join(file), value.trim()).unwrap();
            }
        }
    }
    let exec = |asked: &[&str]| {
        let mut arguments = vec!["exec"];
        arguments.extend(asked.iter().flat_map(|one| ["--cgroup", one]));
        arguments.extend([id.as_str(), "cat", "/proc/self/cgroup"]);
        bench.ran(&arguments)
    };
    let is_below = |text: &str| text.lines().filter(|line| line.ends_with("/sub")).count();
    assert_eq!(is_below(&exec(&[]).expect(0).stdout), 0);
    assert_eq!(is_below(&exec(&["/"]).expect(0).stdout), 0);
    assert_eq!(is_below(&exec(&["sub"]).expect(0).stdout), groups.len());
    assert_says(&exec(&[".."]).expect(255), "bad sub cgroup path: ..");
    assert_says(&exec(&["nonexistent"]).expect(255), "nonexistent: no such file or directory");
    assert_says(&exec(&["nope:sub"]).expect(255), "unknown controller nope");
    assert_says(&exec(&["sub", "sub"]).expect(255), "missing <controller>: prefix");
    if groups.len() > 1 {
        assert_eq!(is_below(&exec(&["memory:sub", "pids:/sub"]).expect(0).stdout), 2);
        assert_says(&exec(&["pids:sub", "pids:sub"]).expect(255), "specified multiple times");
    }
}

#[test]
fn a_process_goes_where_the_first_one_has_gone() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("gone");
    bench.start(&id);
    let groups = groups_of(&id);
    let [group] = groups.as_slice() else {
        return testkit::skip("in version 1 a group may have both processes and groups");
    };
    // As systemd does it in a container.
    let within = group.join("init.scope");
    std::fs::create_dir(&within).unwrap();
    std::fs::write(within.join("cgroup.procs"), bench.state(&id)["pid"].to_string()).unwrap();
    std::fs::write(group.join("cgroup.subtree_control"), "+pids").unwrap();
    let text = bench.ran(&["exec", &id, "cat", "/proc/self/cgroup"]).expect(0).stdout;
    assert!(text.trim().ends_with("/init.scope"), "{text}");
    assert_says(&bench.ran(&["exec", "--cgroup", "/", &id, "true"]).expect(255), "join the control group");
    bench.ran(&["delete", "-f", &id]).expect(0);
    assert!(!group.exists());
}

#[test]
fn limits_that_make_no_sense_are_refused_and_leave_nothing() {
    let Some(bench) = Bench::new() else { return };
    for (resources, words) in [
        (
            json!({"memory": {"limit": 32 << 20, "swap": 16 << 20}}),
            "memory.swap: memory+swap limit should be >=",
        ),
        (json!({"memory": {"limit": -2}}), "memory.limit: -2 is not a number of bytes"),
        (json!({"cpu": {"quota": 5000, "burst": 6000}}), "cpu.burst: 6000 is more than the quota"),
        (json!({"cpu": {"idle": 2}}), "cpu.idle: 2 is neither 0 nor 1"),
        (json!({"cpu": {"cpus": "999999"}}), "cpu.cpus: "),
        (json!({"unified": {"memory/high": "1"}}), "linux.resources.unified"),
    ] {
        let id = bench.id("senseless");
        bench.configure(&["true"], |config| config["linux"]["resources"] = resources.clone());
        assert_says(&bench.run(&id, &[]).expect(1), words);
        bench.assert_gone(&id);
        assert!(groups_of(&id).is_empty(), "{resources}");
    }
}

#[test]
fn no_limit_of_processes_is_not_a_limit_of_none() {
    let Some(bench) = Bench::new() else { return };
    for (pids, wanted) in [(json!({}), "max"), (json!({"limit": -1}), "max")] {
        let id = bench.id("pids");
        bench.configure(&["sleep", "1000"], |config| config["linux"]["resources"]["pids"] = pids.clone());
        bench.start(&id);
        assert_eq!(limit(&id, &["pids.max"]), wanted, "{pids}");
        bench.ran(&["update", "--pids-limit", "0", &id]).expect(0);
        assert_eq!(limit(&id, &["pids.max"]), "1", "{pids}");
        bench.ran(&["delete", "-f", &id]).expect(0);
    }
}

/// What a line of `/proc/PID/cgroup` is of, and the path in it.
fn lines(text: &str) -> Vec<(String, String)> {
    let parts = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1).map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap())
    };
    text.lines().map(parts).collect()
}

#[test]
fn hierarchies_without_controllers_are_joined_too() {
    let Some(bench) = Bench::new() else { return };
    let mounted: Vec<&str> = [("systemd", "name=systemd"), ("unified", "")]
        .into_iter()
        .filter(|(name, _)| Path::new("/sys/fs/cgroup").join(name).join("cgroup.procs").exists())
        .map(|(_, line)| line)
        .collect();
    if mounted.is_empty() {
        return testkit::skip("there is none beside version 1's");
    }
    let id = &bench.id("hybrid");
    bench.start(id);
    let pid = bench.state(id)["pid"].clone();
    let first = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let further = bench.ran(&["exec", id, "cat", "/proc/self/cgroup"]).expect(0).stdout;
    for text in [first, further] {
        for line in &mounted {
            let path = lines(&text).into_iter().find(|(name, _)| name == line).unwrap().1;
            assert!(path.ends_with(&format!("/oci-runtime/{id}")), "{line}: {path}");
        }
    }
    if mounted.contains(&"") {
        std::fs::create_dir(format!("/sys/fs/cgroup/unified/oci-runtime/{id}/sub")).unwrap();
        let text =
            bench.ran(&["exec", "--cgroup", "unified:sub", id, "cat", "/proc/self/cgroup"]).expect(0).stdout;
        assert!(lines(&text).contains(&(String::new(), format!("/oci-runtime/{id}/sub"))), "{text}");
    }
    bench.ran(&["delete", "-f", id]).expect(0);
    bench.assert_gone(id);
    bench.configure(&["true"], |_| {});
    bench.run(id, &[]).expect(0);
    bench.assert_gone(id);
}

#[test]
fn what_fails_leaves_no_group_above() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("above");
    bench.configure(&["true"], |config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{id}/a/b"));
        config["mounts"] =
            json!([{"destination": "/m", "source": "/nowhere/at/all", "type": "bind", "options": ["bind"]}]);
    });
    assert_says(&bench.run(id, &[]).expect(1), "/nowhere/at/all");
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let left: Vec<_> =
        hierarchies.chain(["/sys/fs/cgroup".into()]).filter(|path| path.join(id).exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_device_rule_may_have_a_letter_that_means_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.configure(&["dd", "if=/dev/kmsg", "of=/dev/null", "count=1"], |config| {
        config["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
        config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "ra"}]);
    });
    let ran = bench.run(&bench.id("letter"), &[]).expect(1);
    assert_says(&ran, "devices[1].access: the a in");
    assert_says(&ran, "peration not permitted");
}

#[test]
fn who_may_arrange_its_groups_owns_them() {
    let Some(bench) = Bench::new() else { return };
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return testkit::skip("version 1 groups are handed over to nobody");
    }
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["proc", "dev", "sys"] {
        std::fs::create_dir_all(bench.bundle().join("rootfs").join(name)).unwrap();
    }
    let script = "busybox mkdir /sys/fs/cgroup/below && echo 0 >/sys/fs/cgroup/below/cgroup.procs && cat /proc/self/cgroup; sleep 1000";
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    for (options, owner) in [(json!(["rw", "nosuid"]), 100_007), (json!(["ro"]), 0)] {
        let id = &bench.id("owner");
        bench.configure(&["sh", "-c", script], |config| {
            config["process"]["user"] = json!({"uid": 7, "gid": 7});
            config["linux"]["uidMappings"] = mapping.clone();
            config["linux"]["gidMappings"] = mapping.clone();
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "user" && one["type"] != "cgroup");
            namespaces.extend([json!({"type": "user"}), json!({"type": "cgroup"})]);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
            mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
        });
        bench.start(id);
        let group = &groups_of(id)[0];
        let owner_of = |name: &str| std::fs::metadata(group.join(name)).unwrap().uid();
        for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            assert_eq!(owner_of(name), owner, "{options}: {name:?}");
        }
        assert_eq!(owner_of("pids.max"), 0);
        if owner != 0 {
            crate::wait_until(|| group.join("below").exists(), "it makes no group");
        }
        bench.ran(&["delete", "-f", id]).expect(0);
    }
}
