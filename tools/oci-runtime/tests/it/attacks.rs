//! Root file systems and specifications made to have the runtime touch what is outside the container.

use crate::{Bench, assert_says};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something of the host's, which must stay as it is.
struct Outside {
    path: PathBuf,
}

impl Outside {
    fn new(bench: &Bench) -> Outside {
        let path = bench.path().join("outside");
        std::fs::create_dir_all(path.join("sub")).unwrap();
        std::fs::write(path.join("file"), "kept").unwrap();
        Outside { path }
    }

    #[track_caller]
    fn assert_kept(&self) {
        let mut names: Vec<_> =
            std::fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["file", "sub"]);
        assert_eq!(std::fs::read_dir(self.path.join("sub")).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(self.path.join("file")).unwrap(), "kept");
    }
}

fn rootfs(bench: &Bench) -> PathBuf {
    bench.bundle().join("rootfs")
}

/// Puts a link in place of whatever is there.
fn link(target: impl AsRef<Path>, at: &Path) {
    if at.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        std::fs::remove_dir_all(at).unwrap();
    } else {
        let _ = std::fs::remove_file(at);
    }
    symlink(target, at).unwrap();
}

fn mount(config: &mut Value, destination: &str, kind: &str, source: impl AsRef<Path>) {
    let options = if kind == "bind" { json!(["bind"]) } else { json!([]) };
    config["mounts"].as_array_mut().unwrap().push(
        json!({"destination": destination, "type": kind, "source": source.as_ref(), "options": options}),
    );
}

fn without(config: &mut Value, destination: &str) {
    config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != destination);
}

/// CVE-2019-19921: a false /proc has the runtime write labels and parameters elsewhere.
#[test]
fn proc_and_sys_are_neither_links_nor_volumes() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("proc");
    for name in ["proc", "sys"] {
        bench.configure(&["true"], |_| {});
        link(&outside.path, &rootfs(&bench).join(name));
        assert_says(&bench.run(id, &[]).expect(1), "must be mounted on ordinary directory");
        std::fs::create_dir_all(rootfs(&bench).join("real/proc")).unwrap();
        link("real/proc", &rootfs(&bench).join(name));
        assert_says(&bench.run(id, &[]).expect(1), "must be mounted on ordinary directory");
        std::fs::remove_file(rootfs(&bench).join(name)).unwrap();
    }
    let before = std::fs::read(bench.bundle().join("config.json")).unwrap();
    for (destination, kind) in [
        ("/proc", "bind"),
        ("/proc", "tmpfs"),
        // CVE-2025-52881: only a part of it is false.
        ("/proc/self", "bind"),
        ("/proc/self/attr", "tmpfs"),
        ("/proc/self/attr/exec", "bind"),
        ("/proc/sys", "bind"),
        ("/proc/sys/kernel", "tmpfs"),
        ("/proc/thread-self", "bind"),
        ("/proc/sysrq-trigger", "bind"),
        ("/../proc/./sys/../sys", "tmpfs"),
    ] {
        std::fs::write(bench.bundle().join("config.json"), &before).unwrap();
        bench.configure(&["true"], |config| {
            config["linux"]["sysctl"] = json!({"kernel.domainname": "written"});
            mount(config, destination, kind, &outside.path);
        });
        let ran = bench.run(id, &[]).expect(1);
        assert!(ran.stderr.contains("cannot be mounted because it is"), "{destination}: {}", ran.stderr);
        outside.assert_kept();
    }
    // By way of a link, too.
    link("/proc/sys", &rootfs(&bench).join("way"));
    std::fs::write(bench.bundle().join("config.json"), &before).unwrap();
    bench.configure(&["true"], |config| mount(config, "/way", "bind", &outside.path));
    assert_says(&bench.run(id, &[]).expect(1), "/proc");
    outside.assert_kept();
}

/// CVE-2026-41579, CVE-2026-47766: what is made in /dev is made where the image says.
#[test]
fn a_dev_that_is_a_link_fills_nothing_outside() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("dev");
    let before = std::fs::read(bench.bundle().join("config.json")).unwrap();
    for mounted in [false, true] {
        for bound in [false, true] {
            std::fs::write(bench.bundle().join("config.json"), &before).unwrap();
            bench.configure(&["true"], |config| {
                if !mounted {
                    for destination in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                        without(config, destination);
                    }
                }
                if bound {
                    // In front: the volume is there when /dev is mounted and filled.
                    let volume = json!({"destination": "/volume", "type": "bind", "source": outside.path, "options": ["bind"]});
                    config["mounts"].as_array_mut().unwrap().insert(0, volume);
                }
            });
            let targets =
                [outside.path.clone(), "/volume".into(), "../../volume/sub".into(), "/missing".into()];
            for target in targets {
                link(&target, &rootfs(&bench).join("dev"));
                let ran = bench.run(id, &[]);
                assert!(mounted || ran.status == 1, "{target:?}: made in it");
                assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
                outside.assert_kept();
            }
        }
    }
}

/// CVE-2025-31133: what hides paths is the image's own /dev/null.
#[test]
fn a_false_null_hides_nothing() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("null");
    let before = std::fs::read(bench.bundle().join("config.json")).unwrap();
    for (what, file) in
        [("a link", None), ("a file", Some("-f")), ("a pipe", Some("-p")), ("another device", Some("-c"))]
    {
        std::fs::write(bench.bundle().join("config.json"), &before).unwrap();
        // Of the image itself, and of a directory bound over /dev.
        for bound in [false, true] {
            let dev = if bound { bench.path().join("dev") } else { rootfs(&bench).join("dev") };
            let _ = std::fs::remove_dir_all(&dev);
            std::fs::create_dir(&dev).unwrap();
            let null = dev.join("null");
            let made = match file {
                None => symlink(outside.path.join("file"), &null).is_ok(),
                Some("-f") => std::fs::write(&null, "").is_ok(),
                Some("-p") => Command::new("mkfifo").arg(&null).status().unwrap().success(),
                Some(_) => Command::new("mknod").arg(&null).args(["c", "1", "5"]).status().unwrap().success(),
            };
            assert!(made, "{what}");
            bench.configure(&["cat", "/secret"], |config| {
                for destination in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                    without(config, destination);
                }
                if bound {
                    mount(config, "/dev", "bind", &dev);
                }
                config["linux"]["maskedPaths"] = json!(["/secret"]);
            });
            std::fs::write(rootfs(&bench).join("secret"), "secret").unwrap();
            let ran = bench.run(id, &[]);
            // It fails or, where the image's link is replaced by the real one, hides.
            assert!(
                ran.stdout.is_empty() && !ran.stderr.contains("panic"),
                "{what}: {}{}",
                ran.stdout,
                ran.stderr
            );
            outside.assert_kept();
        }
    }
}

/// CVE-2025-52565: the terminal is mounted on, and opened from, where the image says.
#[test]
fn a_console_that_is_a_link_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("console");
    let dev = bench.path().join("dev");
    std::fs::create_dir_all(dev.join("pts")).unwrap();
    let console = bench.path().join("console.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&console).unwrap();
    let socket = console.display().to_string();
    for target in [outside.path.join("file"), "/proc/sys/kernel/domainname".into(), "/etc/missing".into()] {
        link(&target, &dev.join("console"));
        bench.configure(&["true"], |config| {
            config["process"]["terminal"] = json!(true);
            for destination in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                without(config, destination);
            }
            mount(config, "/dev", "bind", &dev);
            mount(config, "/dev/pts", "devpts", "devpts");
        });
        let bundle = bench.bundle().display().to_string();
        let ran = bench.ran(&["create", "--bundle", &bundle, "--console-socket", &socket, id]).expect(1);
        assert_says(&ran, "/dev/");
        assert!(!rootfs(&bench).join("etc/missing").exists());
        outside.assert_kept();
    }
}

/// CVE-2021-30465: a mount point becomes a link between being looked at and being mounted on.
#[test]
fn mount_points_that_are_swapped_lead_nowhere() {
    const ROUNDS: u32 = 150;
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("swap");
    // The attacker's volume is mounted first, the next mount goes into it, and it swaps what is there all the while.
    let volume = bench.path().join("volume");
    let goods = bench.path().join("goods");
    std::fs::create_dir_all(volume.join("point")).unwrap();
    std::fs::create_dir_all(&goods).unwrap();
    // Out of the container's root when followed from outside.
    let out = format!("{}{}", "../".repeat(12), outside.path.display());
    symlink(&out, volume.join("link")).unwrap();
    bench.configure(&["cat", "/proc/self/mountinfo"], |config| {
        mount(config, "/volume", "bind", &volume);
        mount(config, "/volume/point", "bind", &goods);
        mount(config, "/volume/point/deep/er", "tmpfs", "tmpfs");
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let [point, link] = [volume.join("point"), volume.join("link")];
            while !done.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &point,
                    rustix::fs::CWD,
                    &link,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        let mut made = 0;
        for _ in 0..ROUNDS {
            let ran = bench.run(id, &[]);
            assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
            if ran.status == 0 {
                made += 1;
                // Wherever it is, it is inside: a mount outside the root is gone when that is entered.
                let mounted = ran.stdout.lines().filter(|line| line.contains("/goods ")).count();
                assert_eq!(mounted, 1, "{}", ran.stdout);
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(made > 0, "none was made");
    });
    outside.assert_kept();
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounted.contains(&bench.path().display().to_string()), "{mounted}");
}

#[test]
fn users_are_looked_up_in_no_trap() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("passwd");
    let etc = rootfs(&bench).join("etc");
    std::fs::create_dir(&etc).unwrap();
    let passwd = etc.join("passwd");
    bench.configure(&["sh", "-c", "echo $HOME"], |config| {
        config["process"]["env"] = json!(["PATH=/bin"]);
    });
    let home = || bench.run(id, &[]).expect(0).stdout;
    std::fs::write(&passwd, "root:x:0:0::/of-root:/bin/sh\n").unwrap();
    assert_eq!(home(), "/of-root\n");
    // Neither waited for, nor read without end, nor believed.
    std::fs::remove_file(&passwd).unwrap();
    assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success());
    assert_eq!(home(), "/\n");
    for target in ["/dev/zero", "/dev/tty", "/proc/kmsg", "/proc/self/fd/0", "passwd"] {
        link(target, &passwd);
        assert_eq!(home(), "/\n", "{target}");
    }
    std::fs::write(outside.path.join("file"), "root:x:0:0::/outside:/bin/sh\n").unwrap();
    link(outside.path.join("file"), &passwd);
    assert_eq!(home(), "/\n");
    std::fs::remove_file(&passwd).unwrap();
    std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(home(), "/\n");
    std::fs::write(&passwd, "root:x:0:0::/a=b\0c:/bin/sh\nroot".repeat(1000)).unwrap();
    assert!(!home().contains("of-root"));
}

#[test]
fn a_working_directory_stays_inside() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("cwd");
    let way = rootfs(&bench).join("way");
    for target in
        [outside.path.clone(), Path::new(&"../".repeat(12)).join(outside.path.strip_prefix("/").unwrap())]
    {
        link(&target, &way);
        bench.configure(&["sh", "-c", "pwd; echo x >x"], |config| {
            config["process"]["cwd"] = json!("/way/sub");
        });
        let ran = bench.run(id, &[]);
        assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
        outside.assert_kept();
        bench.configure(&["sleep", "1000"], |config| config["process"]["cwd"] = json!("/"));
        bench.start(id);
        bench.ran(&["exec", "--cwd", "/way/sub", id, "sh", "-c", "echo x >y"]);
        outside.assert_kept();
        bench.ran(&["delete", "--force", id]).expect(0);
    }
}

#[test]
fn control_groups_stay_below_the_hierarchy() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let id = &bench.id("climb");
    let up = format!("{}{}", "../".repeat(12), outside.path.display());
    for path in [
        up.clone(),
        format!("/{up}"),
        format!("/oci-runtime/{up}"),
        "..".into(),
        "/..".into(),
        "/a/../..".into(),
    ] {
        bench.configure(&["true"], |config| config["linux"]["cgroupsPath"] = json!(path));
        let ran = bench.run(id, &[]);
        assert!(ran.status == 1 || path.len() < 10, "{path}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
        outside.assert_kept();
    }
}

#[test]
fn ids_are_no_paths() {
    let Some(bench) = Bench::new() else { return };
    let outside = Outside::new(&bench);
    let bundle = bench.bundle().display().to_string();
    std::fs::create_dir_all(bench.root()).unwrap();
    std::fs::write(outside.path.join("file"), "kept").unwrap();
    for id in ["..", ".", "/", "../outside", "a/b", "a\nb", "@seccomp", "", " ", "a\u{0}b", "\u{202e}x"] {
        for verb in ["run", "create", "state", "start", "kill", "delete", "pause", "resume", "ps", "update"] {
            // execve(2) takes no NUL.
            let id = id.replace('\0', "\\0");
            let mut arguments = vec![verb, "--", &id];
            if matches!(verb, "run" | "create") {
                arguments.splice(1..1, ["--bundle", &bundle]);
            }
            bench.ran(&arguments).expect(1);
        }
        bench.ran(&["delete", "--force", "--", &id.replace('\0', "\\0")]).expect(1);
    }
    outside.assert_kept();
    assert!(bench.root().is_dir());
}

/// CVE-2026-30892: part of the text is taken for a number, or for none.
#[test]
fn users_are_whole_numbers() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("user");
    bench.start(id);
    for user in [
        ":",
        "0:",
        ":0",
        "1000:",
        "-1",
        "+",
        "1e3",
        "0x10",
        " 5",
        "5 ",
        "5:5:5",
        "1:2,3",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "root",
        "٣",
        "1\n2",
        "0:-1",
        "0:4294967295",
    ] {
        let ran = bench.ran(&["exec", "--user", user, id, "id", "-u"]);
        assert!(ran.status == 255 && ran.stdout.is_empty(), "{user:?}: {}", ran.stdout);
    }
    for (user, said) in [("7", "7\n"), ("007", "7\n"), ("7:8", "7\n")] {
        assert_eq!(bench.ran(&["exec", "--user", user, id, "id", "-u"]).expect(0).stdout, said, "{user}");
    }
}
