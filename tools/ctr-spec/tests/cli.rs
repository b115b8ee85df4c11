//! The tool as a program; what it makes, run by other people's runtimes.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::{Place, Ran};

fn spec(place: &Place, arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-spec"));
    place.furnish(&mut command);
    Ran::fed(command.args(arguments), input)
}

#[test]
fn a_record_goes_on_with_a_specification() {
    let place = Place::new();
    let input = r#"{"x":1.50,"staves":1,"image":{"reference":"r","digest":"d","config":{"config":{"Cmd":["sh"]}}},"config":{"env":["A=1"],"odd":[]},"y":{}}"#;
    let ran = spec(&place, &["-e", "B=2", "-m", "64m", "--", "ls", "-l"], input).expect(0);
    assert!(
        ran.stdout.starts_with(r#"{"x":1.50,"staves":1,"image":{"reference":"r","#)
            && ran.stdout.contains(r#""y":{},"spec":"#)
    );
    let record = ran.json();
    assert_eq!(record["config"]["env"], json!(["A=1", "B=2"]));
    assert_eq!(record["config"]["odd"], json!([]));
    assert_eq!(record["spec"]["process"]["args"], json!(["ls", "-l"]));
    assert_eq!(record["spec"]["linux"]["resources"]["memory"]["limit"], 64 << 20);
    let again = spec(&place, &["-e", "B=2", "-m", "64m", "--", "ls", "-l"], input).expect(0);
    assert_eq!(ran.stdout, again.stdout);
    assert!(!place.root().join("containers").exists(), "it makes nothing");
}

#[test]
fn what_is_wrong_is_said_with_the_right_status() {
    let place = Place::new();
    for (arguments, input, status, words) in [
        (&[][..], "", 3, "no record"),
        (&[], "{\"staves\":1", 3, "ctr-spec: "),
        (&[], "{\"staves\":1}", 2, "no command"),
        (&["x"], "{\"staves\":1,\"config\":{\"memory\":\"lots\"}}", 3, "lots"),
        (&["x"], "{\"staves\":1,\"config\":{\"memory\":[]}}", 3, "config.memory"),
        (&["x"], "{\"staves\":1,\"config\":{\"user\":\"ghost\"}}", 4, "ghost"),
        (
            &["x"],
            "{\"staves\":1,\"rootfs\":{\"driver\":\"overlay\",\"layers\":[\"/nonexistent/fs\"]}}",
            4,
            "/nonexistent/fs",
        ),
        (&["--memory", "lots"], "{\"staves\":1}", 2, "lots"),
        (&["--no-such-flag"], "{\"staves\":1}", 2, "--no-such-flag"),
        (&["--env-file", "/nonexistent/env"], "{\"staves\":1}", 4, "/nonexistent/env"),
        (&["--network", "container:nobody", "x"], "{\"staves\":1}", 4, "nobody"),
    ] {
        let ran = spec(&place, arguments, input);
        assert_eq!(ran.status, status, "{arguments:?} {input}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?} {input}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?} {input}");
    }
}

#[test]
fn names_come_from_the_layers() {
    let place = Place::new();
    let layer = place.root().join("layer");
    std::fs::create_dir_all(layer.join("etc")).unwrap();
    std::fs::write(layer.join("etc/passwd"), "www:x:33:34::/srv:/bin/sh\n").unwrap();
    std::fs::write(layer.join("etc/group"), "adm:x:4:www\n").unwrap();
    let record =
        json!({"staves":1,"rootfs":{"driver":"overlay","layers":[layer]},"config":{"command":["x"]}});
    let found = spec(&place, &["-u", "www", "--group-add", "adm"], &record.to_string()).expect(0).json();
    assert_eq!(found["spec"]["process"]["user"], json!({"uid":33,"gid":34,"additionalGids":[34,4]}));
    assert_eq!(found["spec"]["root"]["path"], "rootfs");
    let directory =
        spec(&place, &["--rootfs", layer.to_str().unwrap(), "-u", "www", "x"], "").expect(0).json();
    assert_eq!(directory["spec"]["root"]["path"], json!(layer));
}

#[test]
fn on_a_terminal_the_specification_alone() {
    let place = Place::new();
    let ran = spec(&place, &["--output", "table", "x"], r#"{"staves":1}"#).expect(0);
    let spec: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(spec["process"]["args"], json!(["x"]));
}

/// A bundle with busybox in it.
fn bundle(place: &Place) -> Option<PathBuf> {
    let busybox = Path::new("/usr/bin/busybox");
    if !busybox.exists() {
        testkit::skip("there is no static busybox to put into a root file system");
        return None;
    }
    let bundle = place.root().join("bundle");
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for dir in ["proc", "sys", "dev", "tmp", "etc"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(dir)).unwrap();
    }
    // runc before 1.1.8 gives a tmpfs the mode of the directory below, whatever its options say.
    std::fs::set_permissions(bundle.join("rootfs/tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::copy(busybox, bin.join("busybox")).unwrap();
    std::fs::set_permissions(bin.join("busybox"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
    std::fs::write(
        bundle.join("rootfs/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(bundle.join("rootfs/etc/group"), "root:x:0:\nwww:x:33:\nextra:x:50:www\n").unwrap();
    Some(bundle)
}

/// Runs a script in a container made by another runtime from our specification.
fn run_with(runtime: &Path, place: &Place, bundle: &Path, flags: &[&str], script: &str) -> Ran {
    let rootfs = bundle.join("rootfs");
    let mut arguments = vec!["--standalone", "--rootfs", rootfs.to_str().unwrap()];
    arguments.extend(flags);
    arguments.extend(["--", "/bin/busybox", "sh", "-c", script]);
    let mut spec = spec(place, &arguments, "").expect(0).json()["spec"].take();
    // One level, so that the runtime leaves no parent group behind.
    let name =
        format!("ctr-spec-test-{}-{}", std::process::id(), runtime.file_name().unwrap().to_str().unwrap());
    spec["linux"]["cgroupsPath"] = json!(format!("/{name}"));
    std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    // crun refuses a machine whose v2 hierarchy has controllers beside v1's, so it does not get to see that.
    let hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let mut command = testkit::die_with_parent("unshare");
    command
        .args(["--mount", "sh", "-c", hide, "sh"])
        .arg(runtime)
        .arg("--root")
        .arg(place.root().join("runtime"))
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(&name);
    Ran::of(command.stdin(Stdio::null()))
}

#[test]
fn other_runtimes_run_it() {
    if !testkit::is_root() {
        testkit::skip("running containers takes root");
        return;
    }
    for runtime in ["runc", "crun"] {
        let Some(runtime) = testkit::find_program(runtime) else {
            testkit::skip(&format!("{runtime} is not installed"));
            continue;
        };
        let place = Place::new();
        let Some(bundle) = bundle(&place) else { return };
        let run = |flags: &[&str], script: &str| {
            let ran = run_with(&runtime, &place, &bundle, flags, script);
            assert_eq!(ran.status, 0, "{} {flags:?}: {}", runtime.display(), ran.stderr);
            ran.stdout
        };

        let status =
            run(&[], "cat /proc/self/status; hostname; echo $HOME $PATH; ls /dev | sort | tr '\\n' ' '");
        assert!(
            status.contains("CapBnd:\t00000000a80425fb") && status.contains("CapEff:\t00000000a80425fb"),
            "{status}"
        );
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t0"), "{status}");
        assert!(status.contains("/root /usr/local/sbin:"), "{status}");
        assert!(
            status.contains("fd full") && status.contains("shm") && status.contains("mqueue"),
            "{status}"
        );

        let flags = "-u www -w /tmp -e A=b --cap-drop ALL --cap-add NET_ADMIN --security-opt no-new-privileges --read-only \
            --tmpfs /tmp:size=1m,mode=1777 --ulimit nofile=100:200 --memory 64m --pids-limit 50 --cpus 0.5 --cpu-shares 512 \
            --hostname ship --sysctl net.ipv4.ip_forward=1 -v /usr/share:/mnt:ro --device /dev/null:/dev/nothing";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let told = run(
            &flags,
            "id; pwd; echo $A; grep -E 'CapBnd|CapEff|NoNew' /proc/self/status; touch /x 2>&1; touch /tmp/y && ls /tmp; \
             touch /mnt/x 2>&1; ulimit -n; ulimit -Hn; hostname; cat /proc/sys/net/ipv4/ip_forward; ls -l /dev/nothing",
        );
        for words in [
            "uid=33(www) gid=33(www) groups=33(www),50(extra)\n/tmp\nb\n",
            "CapEff:\t0000000000000000\nCapBnd:\t0000000000001000\nNoNewPrivs:\t1\n",
            "/x: Read-only file system",
            "\ny\n",
            "/mnt/x: Read-only file system",
            "\n100\n200\nship\n1\n",
            "1,   3",
        ] {
            assert!(told.contains(words), "{}: no {words:?} in {told}", runtime.display());
        }

        let open = run(
            &["--privileged", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"],
            "grep -E 'Seccomp:|CapEff' /proc/self/status; ls -d /proc/kcore /dev/null; touch /sys/x 2>&1; true",
        );
        assert!(open.contains("Seccomp:\t0") && !open.contains("Read-only"), "{open}");
    }
}
