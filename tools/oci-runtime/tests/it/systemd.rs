//! `--systemd-cgroup`, with a real systemd: one started for the test, in namespaces and control groups of its own.

use crate::checkpoint::{counted, criu_works};
use crate::{Bench, PROGRAM, assert_says};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testkit::Ran;

/// Ends with everything in it when dropped.
struct Systemd {
    outer: Child,
    /// Process 1, as it is called outside.
    pid: u32,
    name: String,
    /// Those a process has to join to be in its groups.
    groups: Vec<PathBuf>,
    /// A process that is in them all the time.
    resident: Option<Child>,
}

const TARGET: &str = "[Unit]\nDefaultDependencies=no\n";

impl Systemd {
    /// `units`: further ones, that the target wants. `None`, said aloud, where none can be started.
    fn new(bench: &Bench, units: &[(&str, &str)]) -> Option<Systemd> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !Path::new("/lib/systemd/systemd").exists() {
            testkit::skip("there is no systemd to be started");
            return None;
        }
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
            && !Path::new("/sys/fs/cgroup/systemd/cgroup.procs").exists()
        {
            testkit::skip("there is no control group hierarchy for systemd");
            return None;
        }
        let directory = bench.path().join("units");
        std::fs::create_dir(&directory).unwrap();
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let target = format!("{TARGET}Wants={}\n", names.join(" "));
        for (name, text) in units.iter().chain(&[("test.target", target.as_str())]) {
            std::fs::write(directory.join(name), text).unwrap();
        }
        let name = format!("systemd-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let log = std::fs::File::create(bench.path().join("systemd.log")).unwrap();
        let outer = testkit::die_with_parent("bash")
            .args(["-c", include_str!("systemd-start.sh"), "systemd-start", &name, "test.target"])
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut systemd = Systemd { outer, pid: 0, name, groups: Vec::new(), resident: None };
        let said = || std::fs::read_to_string(bench.path().join("systemd.log")).unwrap_or_default();
        wait_until(
            || {
                assert!(systemd.outer.try_wait().unwrap().is_none(), "systemd did not start:\n{}", said());
                systemd.pid = child_of(systemd.outer.id());
                // Before, it is in this process's mounts and groups, and then it removes groups it does not know.
                let comm = std::fs::read_to_string(format!("/proc/{}/comm", systemd.pid));
                let root = PathBuf::from(format!("/proc/{}/root/run/systemd", systemd.pid));
                comm.is_ok_and(|comm| comm == "systemd\n")
                    && root.join("system/test.target").exists()
                    && root.join("private").exists()
            },
            "systemd does not start",
        );
        wait_until(
            || {
                systemd.make_groups();
                // systemd removes groups where nobody is whenever it comes across them.
                let mut resident = systemd.inside("sleep", &["1000"]).spawn().unwrap();
                let is_up = systemd.ran("systemctl", &["is-active", "test.target"]).status == 0
                    && resident.try_wait().unwrap().is_none();
                if is_up {
                    systemd.resident = Some(resident);
                } else {
                    let _ = resident.kill();
                    let _ = resident.wait();
                }
                is_up
            },
            "systemd does not come up",
        );
        Some(systemd)
    }

    /// Groups for the test's own processes: in the topmost there may be none.
    fn make_groups(&mut self) {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.pid)).unwrap();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if !matches!(fields[2], "cgroup" | "cgroup2") {
                continue;
            }
            let top = root.join(fields[1].trim_start_matches('/'));
            let group = top.join("test");
            if std::fs::create_dir(&group).is_err() {
                continue;
            }
            // A cpuset of version 1 is of no use before it has something.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if fields[2] == "cgroup" && group.join(file).exists() {
                    let _ = std::fs::copy(top.join(file), group.join(file));
                }
            }
            let procs = group.join("cgroup.procs");
            if !self.groups.contains(&procs) {
                self.groups.push(procs);
            }
        }
    }

    /// A command in its namespaces and groups.
    fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        const ENTER: &str =
            "while [ $1 != -- ]; do echo 0 >$1 || exit; shift; done; shift; exec nsenter \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", ENTER, "enter"])
            .args(&self.groups)
            .args(["--", "-m", "-u", "-i", "-n", "-p", "-C"]);
        command.args(["-t", &self.pid.to_string(), "--", program]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn ran(&self, program: &str, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.inside(program, arguments))
    }

    /// The runtime inside.
    fn runtime(&self, bench: &Bench, arguments: &[&str]) -> Ran {
        let root = bench.root().display().to_string();
        self.ran(PROGRAM, &[&["--root", &root, "--systemd-cgroup"], arguments].concat())
    }

    /// For what leaves a process behind.
    #[track_caller]
    fn make(&self, bench: &Bench, arguments: &[&str]) {
        let root = bench.root().display().to_string();
        let log = bench.path().join("made");
        let file = || std::fs::File::create(&log).unwrap();
        let mut command = self.inside(PROGRAM, &[&["--root", &root, "--systemd-cgroup"], arguments].concat());
        let status = command.stdout(file()).stderr(file()).status().unwrap();
        assert!(status.success(), "{arguments:?}: {}", std::fs::read_to_string(&log).unwrap());
    }

    /// systemd forgets a unit that has ended when it has nothing else to do.
    fn wait_until_gone(&self, unit: &str) {
        crate::wait_until(|| self.property(unit, "LoadState") == "not-found", "systemd still knows the unit");
    }

    /// A property of a unit, in systemctl's words.
    fn property(&self, unit: &str, name: &str) -> String {
        let ran = self.ran("systemctl", &["show", "--value", "-p", name, unit]).expect(0);
        ran.stdout.trim().to_owned()
    }

    fn sh(&self, script: &str) -> String {
        self.ran("sh", &["-c", script]).expect(0).stdout
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        for child in [&mut self.outer].into_iter().chain(&mut self.resident) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let remove = "find /sys/fs/cgroup /sys/fs/cgroup/* -maxdepth 1 -name \"$1\" -type d 2>/dev/null | sort -u | \
            while read -r top; do find \"$top\" -depth -type d -exec rmdir {} +; done";
        wait_until(
            || {
                let _ = Command::new("bash")
                    .args(["-c", remove, "remove", &self.name])
                    .stderr(Stdio::null())
                    .status();
                let left = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
                left.chain([PathBuf::from("/sys/fs/cgroup")]).all(|root| !root.join(&self.name).exists())
            },
            "the control groups stay",
        );
    }
}

/// Where the processor itself is emulated a start takes its time.
#[track_caller]
fn wait_until(mut is_so: impl FnMut() -> bool, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_mins(3);
    while !is_so() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or_default()
}

/// As an engine asks for it.
fn configure(bench: &Bench, path: &str, command: &[&str]) {
    bench.configure(command, |config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20},
            "pids": {"limit": 50},
            "cpu": {"shares": 2048, "quota": 50000, "period": 100_000, "cpus": "0"},
            "devices": [{"allow": false, "access": "rwm"}],
        });
        config["annotations"] = json!({
            "org.systemd.property.TimeoutStopSec": "3",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
        });
    });
}

const UNIT: &str = "cri-x.scope";

#[test]
fn a_container_is_a_unit() {
    let Some(bench) = Bench::new() else { return };
    let Some(systemd) = Systemd::new(&bench, &[]) else { return };
    let bundle = bench.bundle().display().to_string();
    configure(&bench, "pods-burstable.slice:cri:x", &["sleep", "1000"]);
    systemd.make(&bench, &["create", "--bundle", &bundle, "c"]);
    systemd.runtime(&bench, &["start", "c"]).expect(0);
    for (name, value) in [
        ("Slice", "pods-burstable.slice"),
        ("ControlGroup", "/pods.slice/pods-burstable.slice/cri-x.scope"),
        ("Delegate", "yes"),
        ("ActiveState", "active"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("AllowedCPUs", "0"),
        ("DevicePolicy", "strict"),
        ("TimeoutStopUSec", "3s"),
        ("CollectMode", "inactive-or-failed"),
    ] {
        assert_eq!(systemd.property(UNIT, name), value, "{name}");
    }
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory = if is_v2 { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(systemd.property(UNIT, memory), (64 << 20).to_string());
    assert!(systemd.property(UNIT, "DeviceAllow").contains("/dev/char/1:3 rwm"));

    // Processes of `exec` are in it, wherever the first is.
    let state: Value =
        serde_json::from_str(&systemd.runtime(&bench, &["state", "c"]).expect(0).stdout).unwrap();
    let pid = state["pid"].to_string();
    let groups = |pid: &str| {
        let text = systemd.sh(&format!("cat /proc/{pid}/cgroup"));
        let in_use = |line: &&str| is_v2 || !line.starts_with("0:");
        text.lines().filter(in_use).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(groups(&pid).iter().all(|line| line.ends_with("/cri-x.scope")), "{:?}", groups(&pid));
    systemd.make(&bench, &["exec", "--detach", "--pid-file", &format!("{bundle}/pid"), "c", "sleep", "1000"]);
    let second = std::fs::read_to_string(format!("{bundle}/pid")).unwrap();
    assert_eq!(groups(&second), groups(&pid));
    let written =
        systemd.runtime(&bench, &["exec", "c", "sh", "-c", "echo x >/dev/null && echo yes"]).expect(0);
    assert_eq!(written.stdout, "yes\n");

    // What is changed stays so when systemd sets everything again.
    systemd.runtime(&bench, &["update", "--memory", "50M", "--pids-limit", "20", "c"]).expect(0);
    systemd.ran("systemctl", &["daemon-reload"]).expect(0);
    assert_eq!(systemd.property(UNIT, memory), (50 << 20).to_string());
    assert_eq!(systemd.property(UNIT, "TasksMax"), "20");
    let events = systemd.runtime(&bench, &["events", "--stats", "c"]).expect(0);
    let events: Value = serde_json::from_str(&events.stdout).unwrap();
    assert_eq!(events["data"]["memory"]["usage"]["limit"], 50 << 20);
    assert_eq!(events["data"]["pids"]["limit"], 20);
    let written =
        systemd.runtime(&bench, &["exec", "c", "sh", "-c", "echo x >/dev/null && echo yes"]).expect(0);
    assert_eq!(written.stdout, "yes\n");

    systemd.runtime(&bench, &["pause", "c"]).expect(0);
    let state = systemd.runtime(&bench, &["state", "c"]).expect(0);
    assert!(state.stdout.contains("\"paused\""), "{}", state.stdout);
    systemd.runtime(&bench, &["resume", "c"]).expect(0);
    assert_says(&systemd.runtime(&bench, &["delete", "c"]).expect(1), "not stopped: running");
    systemd.runtime(&bench, &["delete", "--force", "c"]).expect(0);
    systemd.wait_until_gone(UNIT);
    assert_eq!(systemd.sh("find /sys/fs/cgroup -name cri-x.scope"), "");
}

#[test]
fn names_are_taken_and_free_again() {
    let Some(bench) = Bench::new() else { return };
    let Some(systemd) = Systemd::new(&bench, &[]) else { return };
    let bundle = bench.bundle().display().to_string();
    // Without a path it is named after the container.
    bench.configure(&["cat", "/proc/1/cgroup"], |config| {
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|namespace| namespace["type"] != "cgroup");
    });
    for _ in 0..3 {
        let ran = systemd.runtime(&bench, &["run", "--bundle", &bundle, "c1"]).expect(0);
        assert!(ran.stdout.contains("/system.slice/oci-runtime-c1.scope"), "{}", ran.stdout);
    }
    // A taken name stays whose it is.
    configure(&bench, "system.slice:cri:x", &["sleep", "1000"]);
    systemd.make(&bench, &["run", "--detach", "--bundle", &bundle, "first"]);
    let ran = systemd.runtime(&bench, &["run", "--bundle", &bundle, "second"]).expect(1);
    assert_says(&ran, "cri-x.scope");
    assert_says(&ran, "already");
    assert_eq!(systemd.property(UNIT, "ActiveState"), "active");
    assert!(!bench.root().join("second").exists());
    systemd.runtime(&bench, &["delete", "--force", "first"]).expect(0);
    // What cannot be set leaves no unit.
    configure(&bench, ":cri:x", &["true"]);
    bench.configure(&["true"], |config| {
        config["linux"]["resources"]["unified"] = json!({"memory.nonsense": "1"});
    });
    let ran = systemd.runtime(&bench, &["run", "--bundle", &bundle, "third"]).expect(1);
    assert_says(&ran, "linux.resources.unified");
    systemd.wait_until_gone(UNIT);
    configure(&bench, ":cri:x", &["true"]);
    bench.configure(&["true"], |config| {
        config["annotations"]["org.systemd.property.Nonsense"] = json!("true");
    });
    let ran = systemd.runtime(&bench, &["run", "--bundle", &bundle, "fourth"]).expect(1);
    assert_says(&ran, "Nonsense");
    for (path, words) in [
        ("/a/b", "expected cgroupsPath to be of format \\\"slice:prefix:name\\\" for systemd cgroups"),
        ("a.scope:p:n", "invalid slice name: a.scope"),
        ("a.slice:p:n/m", "cannot be a unit of systemd"),
    ] {
        configure(&bench, path, &["true"]);
        assert_says(&systemd.runtime(&bench, &["run", "--bundle", &bundle, "fifth"]).expect(1), words);
    }
}

#[test]
fn a_slice_is_a_group_too() {
    let Some(bench) = Bench::new() else { return };
    let Some(systemd) = Systemd::new(&bench, &[]) else { return };
    let bundle = bench.bundle().display().to_string();
    configure(&bench, "pods.slice:unused:pods-x.slice", &["sleep", "1000"]);
    // Properties of scopes.
    bench.configure(&["sleep", "1000"], |config| config["annotations"] = json!({}));
    systemd.make(&bench, &["run", "--detach", "--bundle", &bundle, "c"]);
    assert_eq!(systemd.property("pods-x.slice", "ControlGroup"), "/pods.slice/pods-x.slice");
    assert_eq!(systemd.property("pods-x.slice", "TasksMax"), "50");
    systemd.runtime(&bench, &["exec", "c", "true"]).expect(0);
    systemd.runtime(&bench, &["delete", "--force", "c"]).expect(0);
    assert_eq!(systemd.property("pods-x.slice", "ActiveState"), "inactive");
}

const BUS: [(&str, &str); 2] = [
    ("dbus.socket", "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n"),
    (
        "dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nOOMScoreAdjust=0\n\
         ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile\n",
    ),
];

#[test]
fn a_bus_is_another_way() {
    let Some(bench) = Bench::new() else { return };
    if testkit::find_program("dbus-daemon").is_none() {
        return testkit::skip("there is no dbus-daemon");
    }
    let Some(systemd) = Systemd::new(&bench, &BUS) else { return };
    let (bundle, root) = (bench.bundle().display().to_string(), bench.root().display().to_string());
    let through = |address: &str, arguments: &[&str]| {
        let arguments = [&["--root", &root, "--systemd-cgroup"], arguments].concat();
        Ran::of(systemd.inside(PROGRAM, &arguments).env("DBUS_SYSTEM_BUS_ADDRESS", address))
    };
    // systemd comes to the bus when the bus is there, and until then the bus would have to start it.
    let bus = "--address=unix:path=/run/dbus/system_bus_socket";
    crate::wait_until(
        || systemd.ran("busctl", &[bus, "status", "org.freedesktop.systemd1"]).status == 0,
        "systemd is not on the bus",
    );
    configure(&bench, ":cri:x", &["echo", "hello"]);
    let ran = through("unix:path=/run/dbus/system_bus_socket", &["run", "--bundle", &bundle, "c"]).expect(0);
    assert_eq!(ran.stdout, "hello\n");
    systemd.wait_until_gone(UNIT);
    for (address, words) in [
        ("unix:path=/nonexistent", "connect to /nonexistent"),
        ("tcp:host=localhost", "nothing tells where systemd is"),
    ] {
        let ran = through(address, &["run", "--bundle", &bundle, "c"]).expect(1);
        assert_says(&ran, words);
        assert!(!bench.root().join("c").exists());
    }
}

const OF_A_USER: (&str, &str) = (
    "user.service",
    "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nUser=games\nSlice=user.slice\nDelegate=pids memory cpu\n\
     Environment=XDG_RUNTIME_DIR=/run/user/test HOME=/run/user/test\n\
     ExecStartPre=+install -d -o games -m 700 /run/user/test /run/user/test/systemd /run/user/test/systemd/user\n\
     ExecStartPre=+cp /run/systemd/system/test.target /run/user/test/systemd/user/\n\
     ExecStart=/lib/systemd/systemd --user --unit=test.target\nKillMode=mixed\n",
);

/// Within what the user's systemd has been given: between groups of others it could not move a process. Arguments: the user's
/// directory. The user is the superuser of a user namespace, as engines have it for ordinary users.
const BY_A_USER: &str = r#"
group=/sys/fs/cgroup/user.slice/user.service/t
mkdir $group && chown -R games $group && echo 0 >$group/cgroup.procs
cd "$1"
export XDG_RUNTIME_DIR=/run/user/test
exec setpriv --reuid games --regid games --clear-groups env -u DBUS_SESSION_BUS_ADDRESS \
    unshare --user --map-root-user --mount sh -ec '
runtime="./oci-runtime --root $PWD/states --systemd-cgroup"
trap "$runtime delete --force c" EXIT
$runtime run --detach --bundle bundle c </dev/null >made 2>&1 || cat made
cat /proc/$($runtime state c | sed -n "s/.*\"pid\": \([0-9]*\).*/\1/p")/cgroup
$runtime exec c echo executed
$runtime update --pids-limit 20 c
group=$(find /sys/fs/cgroup/user.slice -name oci-runtime-c.scope)
cat $group/pids.max
$runtime pause c
$runtime resume c
$runtime delete --force c
find /sys/fs/cgroup/user.slice -name oci-runtime-c.scope
'"#;

#[test]
fn a_users_own_systemd_does_the_same() {
    let Some(bench) = Bench::new() else { return };
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return testkit::skip("version 1 control groups are nothing for users");
    }
    let Some(systemd) = Systemd::new(&bench, &[OF_A_USER]) else { return };
    let is_up = || systemd.ran("systemctl", &["is-active", OF_A_USER.0]).status == 0;
    wait_until(is_up, "the user's systemd does not come up");
    bench.configure(&["sleep", "1000"], |config| {
        config["linux"]["resources"]["pids"] = json!({"limit": 50});
        config["mounts"].as_array_mut().unwrap().retain(|mount| {
            !matches!(mount["destination"].as_str(), Some("/sys" | "/dev/pts" | "/sys/fs/cgroup"))
        });
    });
    let directory = bench.path().display().to_string();
    std::fs::copy(PROGRAM, bench.path().join("oci-runtime")).unwrap();
    systemd.sh(&format!("chmod 755 {directory} && chown -R games {directory}"));
    let ran = systemd.ran("sh", &["-ec", BY_A_USER, "sh", &directory]).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines,
        ["0::/user.slice/user.service/user.slice/oci-runtime-c.scope", "executed", "20"],
        "{}",
        ran.stderr
    );
}

#[test]
fn a_restored_container_is_a_unit_again() {
    let Some(bench) = Bench::new() else { return };
    if !criu_works() {
        return;
    }
    let Some(systemd) = Systemd::new(&bench, &[]) else { return };
    let bundle = bench.bundle().display().to_string();
    let images = bench.path().join("images").display().to_string();
    let file = bench.make_counter();
    let command: Vec<String> = {
        let config = std::fs::read(bench.bundle().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        serde_json::from_value(config["process"]["args"].clone()).unwrap()
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    configure(&bench, "pods.slice:cri:x", &command);
    systemd.make(&bench, &["run", "--detach", "--bundle", &bundle, "c"]);
    wait_until(|| counted(&file).1 > 3, "it does not count");
    systemd.runtime(&bench, &["checkpoint", "--image-path", &images, "c"]).expect(0);
    systemd.wait_until_gone(UNIT);
    let (_, then) = counted(&file);
    systemd.make(&bench, &["restore", "--detach", "--bundle", &bundle, "--image-path", &images, "c"]);
    wait_until(|| counted(&file).1 > then + 3, "it does not count after it was restored");
    for (name, value) in [
        ("ControlGroup", "/pods.slice/cri-x.scope"),
        ("ActiveState", "active"),
        ("TasksMax", "50"),
        ("Delegate", "yes"),
    ] {
        assert_eq!(systemd.property(UNIT, name), value, "{name}");
    }
    let state = systemd.runtime(&bench, &["state", "c"]).expect(0).stdout;
    let pid = serde_json::from_str::<Value>(&state).unwrap()["pid"].to_string();
    // criu is not there any more; the container is.
    let processes = systemd.sh("cat /sys/fs/cgroup/pods.slice/cri-x.scope/cgroup.procs");
    assert!(processes.lines().any(|line| line == pid), "{pid} is not in {processes}");
    systemd.runtime(&bench, &["update", "--pids-limit", "20", "c"]).expect(0);
    assert_eq!(systemd.property(UNIT, "TasksMax"), "20");
    systemd.runtime(&bench, &["exec", "c", "cat", "/keep/file"]).expect(0);
    systemd.runtime(&bench, &["delete", "--force", "c"]).expect(0);
    systemd.wait_until_gone(UNIT);
    assert_eq!(systemd.sh("find /sys/fs/cgroup -name cri-x.scope"), "");
}

/// criu itself begins, and finds nothing to restore.
#[test]
fn a_restore_that_fails_leaves_no_unit() {
    let Some(bench) = Bench::new() else { return };
    if testkit::find_program("criu").is_none() {
        return testkit::skip("criu is not installed");
    }
    let Some(systemd) = Systemd::new(&bench, &[]) else { return };
    let bundle = bench.bundle().display().to_string();
    let images = bench.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("descriptors.json"), r#"["","",""]"#).unwrap();
    let images = images.display().to_string();
    let restore = || {
        let arguments = ["restore", "--detach", "--bundle", &bundle, "--image-path", &images, "r"];
        let ran = systemd.runtime(&bench, &arguments).expect(1);
        assert!(!bench.root().join("r").exists());
        ran
    };
    configure(&bench, ":cri:x", &["true"]);
    assert_says(&restore(), "criu failed");
    systemd.wait_until_gone(UNIT);
    assert_eq!(systemd.sh("find /sys/fs/cgroup -name cri-x.scope"), "");
    configure(&bench, "/a/b", &["true"]);
    assert_says(&restore(), "expected cgroupsPath to be of format");
    // Somebody else's unit stays.
    configure(&bench, ":cri:x", &["sleep", "1000"]);
    systemd.make(&bench, &["run", "--detach", "--bundle", &bundle, "first"]);
    assert_says(&restore(), "cri-x.scope");
    assert_eq!(systemd.property(UNIT, "ActiveState"), "active");
    systemd.runtime(&bench, &["delete", "--force", "first"]).expect(0);
}

#[test]
fn a_machine_without_systemd_says_so() {
    let Some(bench) = Bench::new() else { return };
    if Path::new("/run/systemd/system").exists() {
        return testkit::skip("this machine has been booted with systemd");
    }
    bench.configure(&["true"], |_| {});
    let bundle = bench.bundle().display().to_string();
    let ran = bench.ran(&["--systemd-cgroup", "run", "--bundle", &bundle, "c"]).expect(1);
    assert_says(&ran, "System has not been booted with systemd");
    assert!(!bench.root().join("c").exists());
}
