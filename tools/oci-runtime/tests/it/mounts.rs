//! Mounts that need more than the container itself can do.

use crate::{Bench, assert_says};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

const MAPPING: [(&str, u32); 3] = [("containerID", 0), ("hostID", 100_000), ("size", 65536)];

fn mapping() -> serde_json::Value {
    let members = MAPPING.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    json!([members.collect::<serde_json::Map<_, _>>()])
}

#[test]
fn owners_are_mapped() {
    let Some(bench) = Bench::new() else { return };
    let source = bench.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "").unwrap();
    bench.configure(&["busybox", "stat", "-c", "%u:%g", "/m/file"], |config| {
        config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/m", "source": source,
            "type": "bind", "options": ["bind", "idmap"], "uidMappings": mapping(), "gidMappings": mapping()}));
    });
    let ran = bench.run(&bench.id("mapped"), &[]);
    if ran.status != 0 && ran.stderr.contains("map the owners") {
        testkit::skip("the file system of the temporary directory cannot map owners");
        return;
    }
    assert_eq!(ran.expect(0).stdout, "100000:100000\n");
}

#[test]
fn a_source_out_of_reach_in_a_user_namespace_is_taken_outside() {
    let Some(bench) = Bench::new() else { return };
    let closed = bench.path().join("closed");
    let source = closed.join("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), "inside\n").unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    // The rest of the way is everybody's, and mount points are there: its superuser may not make any.
    for name in ["proc", "dev", "sys", "m"] {
        std::fs::create_dir(bench.bundle().join("rootfs").join(name)).unwrap();
    }
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o755)).unwrap();
    bench.configure(&["sh", "-c", "cat /m/file; id -u"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = mapping();
        config["linux"]["gidMappings"] = mapping();
        config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/m", "source": source,
            "type": "bind", "options": ["bind", "ro"]}));
    });
    assert_eq!(bench.run(&bench.id("closed"), &[]).expect(0).stdout, "inside\n0\n");
}

#[test]
fn every_namespace_of_another_container_can_be_joined() {
    let Some(bench) = Bench::new() else { return };
    let (first, second) = (&bench.id("first"), &bench.id("second"));
    for name in ["proc", "dev", "sys"] {
        std::fs::create_dir(bench.bundle().join("rootfs").join(name)).unwrap();
    }
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o755)).unwrap();
    bench.configure(&["sleep", "1000"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = mapping();
        config["linux"]["gidMappings"] = mapping();
    });
    bench.start(first);
    let pid = bench.state(first)["pid"].clone();
    let command = "id -u; test -d /proc/1 && echo there";
    bench.configure(&["sh", "-c", command], |config| {
        config["linux"]["uidMappings"] = json!([]);
        config["linux"]["gidMappings"] = json!([]);
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let name = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                "mount" => continue,
                name => name,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{name}"));
        }
    });
    // It has another number in the namespace it is in than here.
    assert_eq!(bench.run(second, &[]).expect(0).stdout, "0\nthere\n");
}

#[test]
fn what_is_hidden_may_be_copied_up() {
    let Some(bench) = Bench::new() else { return };
    bench.configure(&["sh", "-c", "cat /data/file; echo new >/data/new && cat /data/new"], |config| {
        config["mounts"].as_array_mut().unwrap().push(
            json!({"destination": "/data", "source": "tmpfs", "type": "tmpfs", "options": ["tmpcopyup"]}),
        );
        config["mounts"].as_array_mut().unwrap().push(
            json!({"destination": "/dev/shm", "source": "shm", "type": "tmpfs", "options": ["remount", "ro"]}),
        );
    });
    let data = bench.bundle().join("rootfs/data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "hidden\n").unwrap();
    assert_eq!(bench.run(&bench.id("copied"), &[]).expect(0).stdout, "hidden\nnew\n");
    assert!(!data.join("new").exists());
}

/// A mount namespace that exists gets the container's root; that of the caller would lose its own.
#[test]
fn a_mount_namespace_is_joined_by_path() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("joined");
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", "echo ready; exec sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut line)
        .unwrap();
    let by_path = |pid: u32| {
        bench.configure(
            &["sh", "-c", "echo /proc/self/ns/* >/dev/null; cat /proc/self/mountinfo"],
            |config| {
                for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                    if namespace["type"] == "mount" {
                        namespace["path"] = json!(format!("/proc/{pid}/ns/mnt"));
                    }
                }
            },
        );
    };
    by_path(holder.id());
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ran = bench.run(&id, &[]);
    let refused = {
        by_path(std::process::id());
        bench.run(&id, &[])
    };
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(ran.expect(0).stdout.lines().any(|mount| mount.contains(" /dev/pts ")));
    assert_eq!(before, after);
    assert_says(&refused.expect(1), "the one this program is in");
    bench.assert_gone(&id);
}
