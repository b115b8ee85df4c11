//! User namespaces, from inside and from outside of containers, which are run by the tools of this build.

use std::os::unix::fs::MetadataExt;
use testkit::{Place, Ran, find_program, is_root, profile_dir, skip};

/// State of one's own, and a record of two layers with busybox. `None`, said aloud, where containers cannot be run so.
fn bench() -> Option<Place> {
    if !is_root() {
        skip("idmapped mounts take root");
        return None;
    }
    let Some(busybox) = find_program("busybox") else {
        skip("there is no busybox (package busybox-static)");
        return None;
    };
    for tool in ["ctr-shim", "ctr-start", "ctr-rm", "ctr-exec", "ctr-restart", "ctr-cp", "ctr-export"] {
        let built = profile_dir().join(tool);
        assert!(built.is_file(), "{} is not built; cargo build --release first", built.display());
    }
    let place = Place::new();
    let (lower, upper) = (place.path().join("lower"), place.path().join("top"));
    for dir in [lower.join("bin"), lower.join("etc"), lower.join("tmp"), upper.join("etc")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::copy(busybox, lower.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "ls", "stat", "echo", "touch", "sleep", "chown", "id", "mkdir"] {
        std::os::unix::fs::symlink("busybox", lower.join("bin").join(name)).unwrap();
    }
    std::fs::write(upper.join("etc/other"), b"x\n").unwrap();
    std::os::unix::fs::chown(upper.join("etc/other"), Some(1000), Some(1001)).unwrap();
    let layers = format!("[\"{}\",\"{}\"]", lower.display(), upper.display());
    let record = format!("{{\"staves\":1,\"rootfs\":{{\"driver\":\"overlay\",\"layers\":{layers}}}}}\n");
    std::fs::write(place.path().join("record"), record).unwrap();
    let probe = run(&place, "--uidmap 0:100000:65536 -- cat /proc/self/uid_map");
    if probe.status != 0 && probe.stderr.contains("map the owners") {
        skip("this kernel or file system cannot map owners");
        return None;
    }
    Some(place)
}

/// Runs a container to its end: flags, `--`, command.
fn run(place: &Place, words: &str) -> Ran {
    place.sh(&format!("ctr-create --rm {words} <$DIR/record | ctr-start --attach"))
}

fn start(place: &Place, words: &str) {
    place.sh(&format!("ctr-create {words} <$DIR/record | ctr-start")).expect(0);
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn owners_are_inside_what_the_layers_say() {
    let Some(place) = bench() else { return };
    let script = "id -u; id -g; cat /proc/self/uid_map; stat -c %u:%g / /etc/other /etc/hosts";
    let ran = run(&place, &format!("--uidmap 0:100000:65536 -- sh -c '{script}'")).expect(0);
    assert_eq!(words(&ran.stdout), ["0", "0", "0", "100000", "65536", "0:0", "1000:1001", "0:0"]);
    // What is written is on disk as the container sees it, and nothing of the layers was given to anybody.
    let script =
        "touch /new /tmp/theirs; chown 7:8 /tmp/theirs; chown 9 /etc/other; while :; do sleep 1; done";
    start(&place, &format!("--name c --uidmap 0:100000:65536 -- sh -c '{script}'"));
    let seen = place.sh("until ctr-exec c stat -c %u /etc/other | grep -q 9; do sleep 0.1; done; ctr-exec c stat -c %u:%g /new /tmp/theirs /etc/other");
    assert_eq!(words(&seen.expect(0).stdout), ["0:0", "7:8", "9:1001"]);
    let upper = place.sh("echo $STAVES_ROOT/containers/*/upper").expect(0).stdout.trim().to_owned();
    let owner = |path: String| std::fs::metadata(path).map(|status| (status.uid(), status.gid())).unwrap();
    assert_eq!(owner(format!("{upper}/new")), (0, 0));
    assert_eq!(owner(format!("{upper}/tmp/theirs")), (7, 8));
    assert_eq!(owner(place.path().join("top/etc/other").display().to_string()), (1000, 1001));
    // Its processes are those users outside.
    let pid =
        place.sh("ctr-exec c cat /proc/1/uid_map; jq .pid $STAVES_RUN/containers/*/state.json").expect(0);
    let pid = pid.stdout.lines().last().unwrap().trim().to_owned();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t100000\t100000"), "{status}");
    place.sh("ctr-rm -f c").expect(0);
}

#[test]
fn what_is_bound_is_nobodys_unless_it_is_mapped() {
    let Some(place) = bench() else { return };
    let host = place.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), b"x").unwrap();
    let script = "stat -c %u:%g /h/file /m/file; touch /m/made /v/made; touch /h/made || echo refused";
    let mounts = "-v $DIR/host:/h -v $DIR/host:/m:idmap -v data:/v";
    let ran = run(&place, &format!("--userns auto {mounts} -- sh -c '{script}'")).expect(0);
    assert_eq!(words(&ran.stdout), ["65534:65534", "0:0", "refused"]);
    assert_eq!(std::fs::metadata(host.join("made")).unwrap().uid(), 0);
    assert_eq!(std::fs::metadata(place.root().join("volumes/data/_data/made")).unwrap().uid(), 0);
    // Without a user namespace there is nothing to map to.
    let ran = run(&place, "-v $DIR/host:/m:idmap -- cat /m/file");
    assert!(ran.status != 0 && ran.stderr.contains("idmap"), "{}", ran.stderr);
    place.sh("vol-rm data");
}

#[test]
fn every_container_has_a_range_of_its_own() {
    let Some(place) = bench() else { return };
    // As many at once as come.
    let script = "for n in $(seq 20); do ctr-create --name c$n --userns auto:size=1000 -- sleep 100 <$DIR/record >$DIR/out$n & done; wait; ls $STAVES_ROOT/ids";
    let ran = place.sh(script).expect(0);
    let mut taken: Vec<(u32, u32)> = ran
        .stdout
        .lines()
        .map(|name| {
            let mut parts = name.split('-').map(str::parse::<u32>);
            (parts.next().unwrap().unwrap(), parts.nth(1).unwrap().unwrap())
        })
        .collect();
    taken.sort_unstable();
    assert_eq!(taken.len(), 20, "{}", ran.stdout);
    assert!(taken.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "{taken:?}");
    // A container keeps its own, and what one had that is gone is somebody's again.
    let map = |name: &str| place.sh(&format!("ctr-exec {name} cat /proc/self/uid_map")).expect(0).stdout;
    place.sh("ctr-start c1 c2").expect(0);
    let before = map("c1");
    assert_ne!(before, map("c2"));
    place.sh("ctr-restart -t 0 c1").expect(0);
    assert_eq!(map("c1"), before);
    place.sh("ctr-stop -t 0 c1 && ctr-start c1").expect(0);
    assert_eq!(map("c1"), before);
    let all: Vec<String> = (1..=20).map(|n| format!("c{n}")).collect();
    place.sh(&format!("ctr-rm -f {}", all.join(" "))).expect(0);
    assert_eq!(place.sh("ls $STAVES_ROOT/ids").expect(0).stdout, "");
    // One that cannot be made keeps nothing.
    let ran = run(&place, "--userns auto -u nobody-knows -- id");
    assert!(ran.status != 0);
    assert_eq!(place.sh("ls $STAVES_ROOT/ids").expect(0).stdout, "");
}

#[test]
fn the_network_namespace_is_the_containers_own_after_a_restart_too() {
    let Some(place) = bench() else { return };
    start(&place, "--name c --userns auto -- sleep 100");
    let check = "cat /proc/sys/net/ipv4/ping_group_range; stat -c %u /proc/sys/net/ipv4/ping_group_range; ls /sys/class/net";
    for _ in 0..2 {
        let ran = place.sh(&format!("ctr-exec c sh -c '{check}'")).expect(0);
        assert_eq!(words(&ran.stdout), ["0", "65535", "0", "lo"]);
        place.sh("ctr-restart -t 0 c").expect(0);
    }
    place.sh("ctr-rm -f c").expect(0);
}

#[test]
fn namespaces_that_exist_are_joined() {
    let Some(place) = bench() else { return };
    start(&place, "--name c --uidmap 0:300000:1000 -- sleep 100");
    let script = "cat /proc/self/uid_map; touch /x; stat -c %u /x /etc/other";
    for mode in ["container:c", "path:/proc/$(jq .pid $STAVES_RUN/containers/*/state.json)/ns/user"] {
        let ran = run(&place, &format!("--userns {mode} -- sh -c '{script}'"));
        // Its user 1000 has no place in there.
        assert_eq!(words(&ran.expect(0).stdout), ["0", "300000", "1000", "0", "65534"], "{mode}");
    }
    place.sh("ctr-rm -f c").expect(0);
}

#[test]
fn files_are_copied_with_the_containers_owners() {
    let Some(place) = bench() else { return };
    start(
        &place,
        "--name c --userns auto -- sh -c 'mkdir /d; touch /d/f; chown 5:6 /d/f; while :; do sleep 1; done'",
    );
    place.sh("until ctr-exec c stat -c %u /d/f | grep -q 5; do sleep 0.1; done").expect(0);
    std::fs::write(place.path().join("plain"), b"x").unwrap();
    std::os::unix::fs::chown(place.path().join("plain"), Some(3), Some(4)).unwrap();
    place.sh("ctr-cp $DIR/plain c:/plain && ctr-cp -a $DIR/plain c:/kept").expect(0);
    let ran = place.sh("ctr-exec c stat -c %u:%g /plain /kept").expect(0);
    assert_eq!(words(&ran.stdout), ["0:0", "3:4"]);
    place.sh("ctr-cp -a c:/d/f $DIR/back").expect(0);
    assert_eq!(std::fs::metadata(place.path().join("back")).unwrap().uid(), 5);
    let listed = "tar -tvf - --numeric-owner d/f | sed 's/ .*5.6 .*/ 5:6/'; ";
    let running = place.sh(&format!("ctr-export c | {listed}")).expect(0).stdout;
    place.sh("ctr-stop -t 0 c").expect(0);
    let ended = place.sh(&format!("ctr-export c | {listed}")).expect(0).stdout;
    assert!(running.contains("5:6") && running == ended, "{running} {ended}");
    place.sh("ctr-rm c").expect(0);
}

#[test]
fn what_cannot_be_is_refused() {
    let Some(place) = bench() else { return };
    for (flags, words) in [
        ("--userns nomap", "ordinary users"),
        ("--userns keep-id:uid=5", "keeps all ids"),
        ("--userns path:/nonexistent", "does not exist"),
        ("--userns container:nobody", "nobody"),
        ("--uidmap 0:1:1 --userns auto", "exclude each other"),
        ("--uidmap 1:100000:10", "not mapped"),
        ("--subuidname no-such-user-at-all", "/etc/subuid"),
        ("--userns auto:size=4294967295", "no 4294967295 users"),
        ("--userns auto --runtime /bin/false", "another runtime"),
        ("--userns auto -v $DIR:/o:O", "overlay"),
    ] {
        let ran = run(&place, &format!("{flags} -- id"));
        assert!(ran.status != 0 && ran.stderr.contains(words), "{flags}: {}", ran.stderr);
    }
    let ran = run(&place, "--userns keep-id -- cat /proc/self/uid_map").expect(0);
    assert_eq!(words(&ran.stdout), ["0", "0", "4294967295"]);
}
