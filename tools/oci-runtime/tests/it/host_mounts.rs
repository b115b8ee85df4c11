//! Containers in the host's mount namespace: what is mounted for them is the host's, and goes with them. The host is a mount namespace of
//! the test's own whose mounts are all shared, as systemd has it; next to it is another that they are shared to.

use crate::{Bench, PROGRAM, assert_says};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use testkit::Ran;

struct Host {
    holder: Child,
    neighbour: Child,
    root: PathBuf,
}

impl Host {
    fn new(bench: &Bench) -> Host {
        let holder = resident(Command::new("unshare").args([
            "-m",
            "sh",
            "-c",
            "mount --make-rprivate / && mount --make-rshared / && echo ready && exec sleep 1000",
        ]));
        let pid = holder.id().to_string();
        let neighbour = resident(Command::new("nsenter").args(["-m", "-t", &pid, "unshare", "-m"]).args([
            "--propagation",
            "unchanged",
            "sh",
            "-c",
            "echo ready && exec sleep 1000",
        ]));
        Host { holder, neighbour, root: bench.root() }
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string(), "--", program]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn runtime(&self, arguments: &[&str]) -> Command {
        let root = self.root.display().to_string();
        self.inside(PROGRAM, &[&["--root", &root], arguments].concat())
    }

    fn ran(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.runtime(arguments))
    }

    #[track_caller]
    fn start(&self, bench: &Bench, id: &str) {
        let log = bench.path().join("made");
        let file = || std::fs::File::create(&log).unwrap();
        let bundle = bench.bundle().display().to_string();
        let mut create = self.runtime(&["create", "--bundle", &bundle, id]);
        let status = create.stdout(file()).stderr(file()).status().unwrap();
        assert!(status.success(), "{}", std::fs::read_to_string(&log).unwrap());
        self.ran(&["start", id]).expect(0);
    }

    /// The mounts with how they are shared.
    fn mounts(&self) -> BTreeSet<String> {
        mounts(self.holder.id())
    }

    /// Those of the neighbour.
    fn mounts_nearby(&self) -> BTreeSet<String> {
        mounts(self.neighbour.id())
    }

    fn sh(&self, script: &str) -> String {
        Ran::of(&mut self.inside("sh", &["-c", script])).expect(0).stdout
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.neighbour, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process that is where it is to be.
fn resident(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn mounts(pid: u32) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A container that shares mounts, and what else is to be changed.
fn configure(bench: &Bench, command: &[&str], edit: impl FnOnce(&mut Value)) {
    bench.configure(command, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        edit(config);
    });
}

fn may_mount(config: &mut Value) {
    for list in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][list].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
    }
}

#[test]
fn its_mounts_are_the_hosts_and_go_with_it() {
    let Some(bench) = Bench::new() else { return };
    let host = Host::new(&bench);
    let id = bench.id("shared");
    // Something is mounted in it already.
    let rootfs = bench.bundle().join("rootfs").display().to_string();
    host.sh(&format!("mkdir {rootfs}/mine && mount -t tmpfs mine {rootfs}/mine && touch {rootfs}/mine/here"));
    configure(&bench, &["sh", "-c", "test -e /mine/here && exec sleep 1000"], |config| {
        config["root"]["readonly"] = json!(true);
        config["linux"]["rootfsPropagation"] = json!("rshared");
    });
    let (before, nearby) = (host.mounts(), host.mounts_nearby());
    host.start(&bench, &id);
    let state = host.ran(&["state", &id]).expect(0).stdout;
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["status"], "running");
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(namespace(&state["pid"].to_string()), namespace(&host.holder.id().to_string()));
    let during = host.mounts();
    assert!(before.is_subset(&during), "{:?}", before.difference(&during));
    let place = |mount: &String| mount.split(' ').nth(4).unwrap().to_owned();
    let new: Vec<String> = during.difference(&before).map(place).collect();
    assert!(new.contains(&format!("{rootfs}/proc")), "{new:?}");
    assert!(new.iter().all(|place| *place == rootfs || place.starts_with(&format!("{rootfs}/"))), "{new:?}");
    // The lower layer is all others get to see.
    let shown: Vec<String> = host.mounts_nearby().difference(&nearby).map(place).collect();
    assert_eq!(shown, [rootfs.as_str()]);

    let ran = host.ran(&["exec", &id, "sh", "-c", "pwd; echo /*; echo x >/file"]);
    assert!(ran.stdout.starts_with("/\n/bin /dev /mine /proc /sys\n"), "{}", ran.stdout);
    assert_says(&ran, "Read-only file system");
    host.ran(&["kill", &id, "KILL"]).expect(0);
    crate::wait_until(|| host.ran(&["state", &id]).stdout.contains("\"stopped\""), "it runs on");
    host.ran(&["delete", &id]).expect(0);
    assert_eq!(host.mounts(), before);
    assert_eq!(host.mounts_nearby(), nearby);
    bench.assert_gone(&id);
}

#[test]
fn what_it_mounts_stays_in_it_and_what_it_is_given_stays_mounted() {
    let Some(bench) = Bench::new() else { return };
    let host = Host::new(&bench);
    let id = bench.id("bound");
    let volume = bench.path().join("volume").display().to_string();
    host.sh(&format!(
        "mkdir -p {volume}/sub && mount -t tmpfs sub {volume}/sub && mkdir {volume}/sub/d {volume}/e"
    ));
    let script = "busybox mount -t tmpfs x /v/sub/d && busybox mount -t tmpfs x /v/e && \
                  busybox mount -t tmpfs x /bin && busybox mount -t tmpfs x / && exec /proc/self/exe sleep 1000";
    configure(&bench, &["busybox", "sh", "-c", script], |config| {
        may_mount(config);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rshared"]}),
        );
        mounts.push(json!({"destination": "/v/f", "type": "tmpfs", "source": "f"}));
    });
    let (before, nearby) = (host.mounts(), host.mounts_nearby());
    host.start(&bench, &id);
    let at = |mounts: BTreeSet<String>, place: &str| {
        mounts.iter().filter(|mount| mount.split(' ').nth(4) == Some(place)).count()
    };
    let rootfs = bench.bundle().join("rootfs").display().to_string();
    // Its own, over its root, is on the two layers.
    crate::wait_until(|| at(host.mounts(), &rootfs) == 3, "it does not mount");
    assert_eq!(at(host.mounts(), &format!("{rootfs}/v/sub/d")), 1);
    for below in ["sub/d", "e", "f"] {
        assert_eq!(at(host.mounts(), &format!("{volume}/{below}")), 0, "{below}");
    }
    host.ran(&["delete", "--force", &id]).expect(0);
    assert_eq!(host.mounts(), before);
    assert_eq!(host.mounts_nearby(), nearby);
}

#[test]
fn nothing_stays_of_what_fails_or_is_killed_on_the_way() {
    let Some(bench) = Bench::new() else { return };
    let host = Host::new(&bench);
    let bundle = bench.bundle().display().to_string();
    let (before, nearby) = (host.mounts(), host.mounts_nearby());
    let id = bench.id("failed");
    configure(&bench, &["true"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/x", "type": "nonsense", "source": "x"}));
    });
    assert_says(&host.ran(&["run", "--bundle", &bundle, &id]).expect(1), "nonsense");
    assert_eq!(host.mounts(), before);
    bench.assert_gone(&id);

    let id = bench.id("killed");
    configure(&bench, &["true"], |config| {
        config["mounts"].as_array_mut().unwrap().pop();
        config["hooks"] =
            json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]});
    });
    let ran = host.ran(&["create", "--bundle", &bundle, &id]);
    assert_ne!(ran.status, 0);
    assert_ne!(host.mounts(), before);
    host.ran(&["delete", "--force", &id]).expect(0);
    assert_eq!(host.mounts(), before);
    bench.assert_gone(&id);

    // The end of `run` is the container's.
    let id = bench.id("ended");
    configure(&bench, &["true"], |config| config["hooks"] = json!({}));
    host.ran(&["run", "--bundle", &bundle, &id]).expect(0);
    assert_eq!(host.mounts(), before);
    assert_eq!(host.mounts_nearby(), nearby);
    bench.assert_gone(&id);
}

#[test]
fn a_hostile_root_gets_no_mounts_outside() {
    let Some(bench) = Bench::new() else { return };
    let host = Host::new(&bench);
    let bundle = bench.bundle().display().to_string();
    let rootfs = bench.bundle().join("rootfs");
    let outside = bench.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "").unwrap();
    symlink(&outside, rootfs.join("absolute")).unwrap();
    symlink("../../outside", rootfs.join("relative")).unwrap();
    configure(&bench, &["sleep", "1000"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/absolute", "type": "tmpfs", "source": "t"}));
        mounts.push(json!({"destination": "/relative/file", "type": "bind", "source": "/etc/hosts", "options": ["bind"]}));
        mounts.push(json!({"destination": "/../../outside", "type": "tmpfs", "source": "t"}));
    });
    let before = host.mounts();
    let id = bench.id("links");
    host.start(&bench, &id);
    let inside = format!("{}/", rootfs.display());
    for mount in host.mounts().difference(&before) {
        let place = format!("{}/", mount.split(' ').nth(4).unwrap());
        assert!(place.starts_with(&inside), "{mount}");
    }
    host.ran(&["delete", "--force", &id]).expect(0);
    assert_eq!(host.mounts(), before);

    // Its place goes by another name.
    let id = bench.id("renamed");
    let renamed = bench.path().join("renamed");
    host.start(&bench, &id);
    std::fs::rename(bench.bundle(), &renamed).unwrap();
    host.ran(&["delete", "--force", &id]).expect(0);
    assert_eq!(host.mounts(), before);
    std::fs::rename(&renamed, bench.bundle()).unwrap();

    // What somebody else has put in its place is not touched.
    let moved = bench.path().join("moved");
    let id = bench.id("swapped");
    host.start(&bench, &id);
    let swap = format!(
        "umount -l {0} && umount -l {0} && mv {0} {1} && mkdir {0} && mount -t tmpfs other {0}",
        rootfs.display(),
        moved.display()
    );
    host.sh(&swap);
    host.ran(&["delete", "--force", &id]).expect(0);
    let other = host.mounts().difference(&before).cloned().collect::<Vec<_>>();
    assert!(other.len() == 1 && other[0].contains("tmpfs other"), "{other:?}");
    host.sh(&format!("umount {}", rootfs.display()));

    let id = bench.id("refused");
    let run = |options: &[&str]| {
        let arguments = [&["run", "--bundle", &bundle][..], options, &[&id]].concat();
        host.ran(&arguments).expect(1)
    };
    configure(&bench, &["true"], |_| {});
    assert_says(&run(&["--no-pivot"]), "takes a mount namespace");
    configure(&bench, &["true"], |config| config["root"]["path"] = json!("/"));
    assert_says(&run(&[]), "the machine's own root");
    configure(&bench, &["true"], |config| {
        config["root"]["path"] = json!("rootfs");
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
    });
    assert_says(&run(&[]), "needs a mount namespace");
    assert_eq!(host.mounts(), before);
    bench.assert_gone(&id);
}

#[test]
fn one_root_is_for_one_container() {
    let Some(bench) = Bench::new() else { return };
    let host = Host::new(&bench);
    let (first, second) = (bench.id("first"), bench.id("second"));
    let bundle = bench.bundle().display().to_string();
    configure(&bench, &["sleep", "1000"], |_| {});
    let before = host.mounts();
    host.start(&bench, &first);
    let with_first = host.mounts();
    let ran = host.ran(&["run", "--bundle", &bundle, &second]).expect(1);
    assert_says(&ran, "another container's root is mounted there");
    assert_eq!(host.mounts(), with_first);
    // Somebody hides all of it.
    let above = format!("mount --rbind {bundle} {bundle}");
    host.sh(&above);
    host.ran(&["kill", &first, "KILL"]).expect(0);
    assert_says(&host.ran(&["delete", "--force", &first]).expect(1), "other mounts cover");
    host.sh(&format!("mount --make-rprivate {bundle} && umount -l {bundle}"));
    host.ran(&["delete", "--force", &first]).expect(0);
    assert_eq!(host.mounts(), before);
    bench.assert_gone(&first);
    host.start(&bench, &second);
    host.ran(&["delete", "--force", &second]).expect(0);
    assert_eq!(host.mounts(), before);
}

#[test]
fn another_mount_namespace_is_told_of() {
    let Some(bench) = Bench::new() else { return };
    let host = Host::new(&bench);
    let id = bench.id("elsewhere");
    configure(&bench, &["sleep", "1000"], |_| {});
    let before = host.mounts();
    host.start(&bench, &id);
    // Seen from where it is not.
    let inside = bench.ran(&["exec", &id, "sh", "-c", "echo /*"]).expect(0);
    assert_eq!(inside.stdout, "/bin /dev /proc /sys\n");
    assert_says(&bench.ran(&["delete", "--force", &id]).expect(1), "in another mount namespace");
    host.ran(&["delete", "--force", &id]).expect(0);
    assert_eq!(host.mounts(), before);
    // With the namespace its mounts are gone.
    let id = bench.id("gone");
    host.start(&bench, &id);
    bench.ran(&["kill", &id, "KILL"]).expect(0);
    drop(host);
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
}
