//! Containers with a user namespace, made by the superuser.

use crate::Bench;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

fn mapping() -> Value {
    json!([{"containerID": 0, "hostID": 100_000, "size": 65536}])
}

/// A bench whose containers have a user namespace of their own, and whose root file system is theirs.
fn bench() -> Option<Bench> {
    let bench = Bench::new()?;
    let root = bench.bundle().join("rootfs");
    for name in ["proc", "dev", "sys", "m"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for path in [root.clone(), root.join("m")] {
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    bench.configure(&["true"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = mapping();
        config["linux"]["gidMappings"] = mapping();
    });
    Some(bench)
}

#[test]
fn limits_are_the_processes_and_not_the_mounts() {
    let Some(bench) = bench() else { return };
    bench.configure(&["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -f"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for number in 0..30 {
            let source = bench.path().join(format!("source-{number}"));
            std::fs::create_dir(&source).unwrap();
            let destination = format!("/m/{number}");
            mounts.push(
                json!({"destination": destination, "source": source, "type": "bind", "options": ["rbind"]}),
            );
        }
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 10},
            {"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0}]);
    });
    assert_eq!(bench.run(&bench.id("limits"), &[]).expect(0).stdout, "8\n10\n0\n");
}

/// A process in a network namespace that the machine's superuser owns.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Elsewhere {
        let mut command = Command::new("unshare");
        command.args(["--net", "--ipc", "--uts", "sleep", "1000"]).stdin(Stdio::null());
        let elsewhere = Elsewhere(command.spawn().unwrap());
        let own = std::fs::read_link("/proc/self/ns/uts").unwrap();
        let there = || std::fs::read_link(elsewhere.path("uts")).is_ok_and(|there| there != own);
        crate::wait_until(there, "no namespaces");
        elsewhere
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn namespaces_its_user_namespace_does_not_own_are_joined() {
    let Some(bench) = bench() else { return };
    let elsewhere = Elsewhere::new();
    let names = ["net", "ipc", "uts"];
    bench.configure(&["sleep", "1000"], |config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let name = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                name @ ("ipc" | "uts") => name,
                _ => continue,
            };
            namespace["path"] = json!(elsewhere.path(name));
        }
        config["hostname"] = json!(null);
        // Whoever may do nothing in a network namespace has no sysfs, and without an IPC namespace there are no queues.
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !matches!(mount["type"].as_str(), Some("sysfs" | "mqueue" | "cgroup")));
    });
    let (own, joining) = (&bench.id("own"), &bench.id("joining"));
    bench.start(own);
    let user = format!("/proc/{}/ns/user", bench.state(own)["pid"]);
    bench.configure(&["sleep", "1000"], |config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "user" {
                namespace["path"] = json!(user);
            }
        }
    });
    bench.start(joining);
    for id in [own, joining] {
        let pid = bench.state(id)["pid"].clone();
        for name in names {
            let link = |path: String| std::fs::read_link(path).unwrap();
            assert_eq!(link(format!("/proc/{pid}/ns/{name}")), link(elsewhere.path(name)), "{id}: {name}");
        }
        assert_eq!(
            std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap(),
            std::fs::read_link(&user).unwrap()
        );
        assert_eq!(bench.ran(&["exec", id, "id", "-u"]).expect(0).stdout, "0\n");
    }
}

#[test]
fn owners_of_the_containers_own_mounts_are_mapped() {
    let Some(bench) = bench() else { return };
    let source = bench.path().join("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    std::fs::write(source.join("below/file"), "").unwrap();
    let root = bench.bundle().join("rootfs");
    let command = "busybox stat -c %u:%g /m/plain/below/file /m/mapped/file /m/again/file";
    bench.configure(&["sh", "-c", command], |config| {
        let own = |source: &str, destination: &str| {
            let source = root.join(source);
            json!({"destination": destination, "source": source, "type": "bind", "options": ["rbind", "idmap"]})
        };
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/m/plain", "source": source, "type": "bind", "options": ["rbind"]}),
            // There is no such directory outside the container.
            own("m/plain/below", "/m/mapped"),
            json!({"destination": "/m/again", "source": source.join("below"), "type": "bind", "options": ["idmap"]}),
        ]);
    });
    let ran = bench.run(&bench.id("of-own"), &[]);
    if ran.status != 0 && ran.stderr.contains("its file system may not be able to") {
        testkit::skip("the file system of the temporary directory cannot map owners");
        return;
    }
    assert_eq!(ran.expect(0).stdout, "65534:65534\n0:0\n0:0\n");
    for (source, words) in [
        (root.join("m/nothing"), "no such file or directory"),
        // Mapped once is mapped for good.
        (root.join("m/mapped"), "mounts[10] on /m/x: map the owners of"),
    ] {
        bench.configure(&["true"], |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/m/x");
            mounts.push(json!({"destination": "/m/x", "source": source, "type": "bind", "options": ["rbind", "idmap"]}));
        });
        let id = &bench.id("not-of-own");
        crate::assert_says(&bench.run(id, &[]).expect(1), words);
        bench.assert_gone(id);
    }
}
