//! The tool as a program, on real containers.

#[path = "../../ctr-diff/tests/machine/mod.rs"]
mod machine;

use machine::{assert_unmounted, place, start};
use testkit::Place;

/// Runs a script in the directory `here`.
fn sh(place: &Place, script: &str) -> testkit::Ran {
    place.sh(&format!("cd $DIR/here; {script}"))
}

#[test]
fn dockers_rules_of_where_things_go() {
    let Some(place) = place() else { return };
    start(
        &place,
        "",
        "mkdir -p /d/e; echo f >/d/f; chmod 640 /d/f; ln -s f /d/link; ln -s e /d/way; ln -s nothing-yet /d/dangling",
    );
    sh(&place, "echo one >one; mkdir -p tree/sub; echo two >tree/sub/two; touch -d @1000000000 one")
        .expect(0);
    let exec = |command: &str| place.sh(&format!("ctr-exec c {command}")).expect(0).stdout;
    // Files in.
    let record = sh(&place, "ctr-cp one c:/d").expect(0).json();
    assert_eq!((&record["copied"]["files"], &record["copied"]["bytes"]), (&1.into(), &4.into()));
    assert_eq!(record["container"]["name"], "c");
    sh(&place, "ctr-cp one c:/d/new; ctr-cp one c:d/e/; ctr-cp one c:/d/f; ctr-cp one c:/d/way/; ctr-cp one c:/d/dangling").expect(0);
    assert_eq!(exec("cat /d/one /d/new /d/e/one /d/f /d/nothing-yet"), "one\n".repeat(5));
    assert_eq!(exec("stat -c %u:%g:%Y /d/one"), "0:0:1000000000\n");
    assert_eq!(exec("readlink /d/way"), "e\n");
    assert!(sh(&place, "ctr-cp one c:/d/none/").expect(4).stderr.contains("no such directory"));
    sh(&place, "ctr-cp one c:/none/one").expect(4);
    sh(&place, "ctr-cp none c:/d").expect(4);
    // Directories in.
    sh(&place, "ctr-cp tree c:/d; ctr-cp tree c:/d/t; ctr-cp tree/. c:/d/e; ctr-cp tree/. c:/d/u").expect(0);
    assert_eq!(exec("cat /d/tree/sub/two /d/t/sub/two /d/e/sub/two /d/u/sub/two"), "two\n".repeat(4));
    sh(&place, "ctr-cp tree c:/d/f").expect(5);
    sh(&place, "ctr-cp tree c:/d/f/").expect(4);
    // A directory is no file's to replace, below either.
    sh(&place, "mkdir -p bad/f; ctr-cp bad/. c:/d").expect(5);
    sh(&place, "mkdir bad2; echo x >bad2/e; ctr-cp bad2/. c:/d").expect(5);
    // Out.
    sh(&place, "ctr-cp c:/d out; ctr-cp c:/d out; mkdir flat; ctr-cp c:/d/. flat; ctr-cp c:/d/f .; ctr-cp c:/d/f named").expect(0);
    assert_eq!(
        sh(&place, "cat out/f out/d/f flat/f f named; stat -c %a f").stdout,
        format!("{}644\n", "one\n".repeat(5))
    );
    assert_eq!(
        sh(&place, "ctr-cp c:/d/link l1; ctr-cp -L c:/d/link l2; readlink l1; cat l2").stdout.lines().last(),
        Some("one")
    );
    assert!(sh(&place, "test -L l1 && test ! -L l2").status == 0);
    sh(&place, "ctr-cp c:/d one").expect(5);
    sh(&place, "ctr-cp c:/nope .").expect(4);
    sh(&place, "ctr-cp c:/d/f/ .").expect(4);
    // Names with colons, neither end in a container, a dry run.
    sh(&place, "echo x >a:b; ctr-cp ./a:b c:/tmp && ctr-exec c cat /tmp/a:b").expect(0);
    sh(&place, "ctr-cp one two").expect(2);
    assert!(sh(&place, "ctr-cp --dry-run one c:/d/e").expect(0).stdout.contains("\"as\":\"one\""));
    // Within one, but not into itself.
    sh(&place, "ctr-cp c:/d c:/tmp/copy && ctr-exec c test -f /tmp/copy/f").expect(0);
    assert!(sh(&place, "ctr-cp c:/d c:/d/e").expect(5).stderr.contains("into itself"));
    place.sh("ctr-kill -q c").expect(0);
}

#[test]
fn links_of_the_container_lead_nowhere_else() {
    let Some(place) = place() else { return };
    std::fs::create_dir(place.path().join("victim")).unwrap();
    std::fs::write(place.path().join("victim/file"), "untouched").unwrap();
    let out = place.path().join("victim").display().to_string();
    let up = "../".repeat(30);
    start(
        &place,
        "",
        &format!(
            "mkdir /d; ln -s {out} /d/abs; ln -s {up}{out} /d/rel; ln -s /proc/1/root{out} /d/magic; ln -s {out}/file /d/file; ln -s / /d/root"
        ),
    );
    for link in ["abs", "rel", "magic"] {
        let ran = sh(
            &place,
            &format!("echo evil >file; ctr-cp file c:/d/{link}/file; ctr-cp file c:/d/{link}/new"),
        );
        assert_ne!(ran.status, 0, "{link}");
        sh(&place, &format!("ctr-cp c:/d/{link}/file stolen")).expect(4);
        sh(
            &place,
            &format!(
                "mkdir -p t/d/{link}; echo evil >t/d/{link}/file; tar -C t -c d/{link}/file | ctr-cp - c:/"
            ),
        );
    }
    sh(&place, "ctr-cp file c:/d/file");
    sh(&place, "ctr-cp -L c:/d/file stolen").expect(4);
    // The root a link means is the container's.
    sh(&place, "ctr-cp file c:/d/root/tmp/in && ctr-exec c cat /tmp/in").expect(0);
    // A tree that comes out is not written through links that came with it, nor through what is here already.
    sh(&place, "mkdir -p into; ln -s $DIR/victim into/d").expect(0);
    sh(&place, "ctr-cp c:/d into").expect(5);
    sh(&place, "mkdir clash; ln -s $DIR/victim clash/sub; ctr-exec c mkdir -p /m/sub; ctr-exec c sh -c 'echo evil >/m/sub/file'; ctr-cp c:/m/. clash").expect(5);
    sh(&place, "printf x >x; tar -c --transform 's,x,../../victim/file,' -P x | ctr-cp - c:/tmp").expect(3);
    let left = place.sh("cat $DIR/victim/file; ls $DIR/victim").stdout;
    assert_eq!(left, "untouchedfile\n");
    place.sh("ctr-kill -q c").expect(0);
}

#[test]
fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere_else() {
    let Some(place) = place() else { return };
    std::fs::create_dir(place.path().join("victim")).unwrap();
    std::fs::write(place.path().join("victim/file"), "secret").unwrap();
    let out = place.path().join("victim").display().to_string();
    // CVE-2018-15664: the path is looked up, and then is another.
    let swap = format!("mv /d/x /d/y; ln -s {out} /d/x; rm /d/x; mv /d/y /d/x");
    start(
        &place,
        "",
        &format!("mkdir -p /d/x/sub; echo mine >/d/x/file; (while :; do {swap}; done) 2>/dev/null & true"),
    );
    let rounds = "echo evil >file; mkdir -p tree/x/sub; echo evil >tree/x/file; echo evil >tree/x/sub/file; for i in $(seq 25); do \
         ctr-cp -q file c:/d/x/file; ctr-cp -q tree/. c:/d; tar -C tree -c x/file | ctr-cp -q - c:/d; \
         rm -rf got; ctr-cp -q c:/d/x/. got; cat got/file; ctr-cp -q c:/d gotten; ctr-cp c:/d/x/file - | tar -xO; done 2>/dev/null; \
         grep -r secret . ; true";
    let ran = sh(&place, rounds).expect(0);
    assert!(!ran.stdout.contains("secret"), "it came out: {}", ran.stdout);
    assert!(ran.stdout.contains("mine") || ran.stdout.contains("evil"), "nothing was ever copied");
    assert_eq!(place.sh("cat $DIR/victim/file; ls $DIR/victim").stdout, "secretfile\n");
    place.sh("ctr-kill -q c").expect(0);
}

#[test]
fn volumes_and_mounts_whatever_the_container_is_doing() {
    let Some(place) = place() else { return };
    start(&place, "-v vol:/vol -v $DIR/here:/ro:ro --tmpfs /tt", "mkdir /own");
    sh(&place, "echo one >one; for to in vol tt own; do ctr-cp -q one c:/$to/one || exit 1; done").expect(0);
    assert_eq!(place.sh("ctr-exec c cat /vol/one /tt/one /own/one").stdout, "one\n".repeat(3));
    assert_eq!(
        place.sh("cat $STAVES_ROOT/volumes/vol/_data/one; ctr-cp c:/tt/one - | tar -xO").stdout,
        "one\none\n"
    );
    assert!(sh(&place, "ctr-cp one c:/ro/x").expect(6).stderr.contains("read-only"));
    // What is mounted stays so.
    sh(&place, "echo '1.2.3.4 zz' >hosts; ctr-cp hosts c:/etc/hosts && ctr-exec c cat /etc/hosts | grep zz && ctr-exec c grep -q /etc/hosts /proc/mounts").expect(0);
    // The whole of it does not go into /proc.
    sh(&place, "mkdir ../all; ctr-cp -q c:/. ../all; test -f ../all/vol/one && test -z \"$(ls -A ../all/proc)$(ls -A ../all/sys)\"").expect(0);
    // Here is one of its mounts: it would be copied into itself, deeper and deeper.
    sh(&place, "mkdir inside; ctr-cp c:/. inside").expect(5);
    sh(&place, "ctr-cp c:/ro fine").expect(5);
    place.sh("ctr-kill -q c").expect(0);
    sh(
        &place,
        "ctr-cp -q one c:/own/two && ctr-cp -q one c:/vol/two && ctr-cp c:/own/two - | tar -xO | cmp - one",
    )
    .expect(0);
    assert_eq!(
        place.sh("cat $STAVES_ROOT/volumes/vol/_data/two; ls $STAVES_ROOT/containers/*/upper/vol").stdout,
        "one\n"
    );
    sh(&place, "ctr-cp one c:/ro/x").expect(6);
    assert_unmounted(&place);
    place.sh("ctr-start -q c >/dev/null && ctr-exec c cat /own/two /vol/two && ctr-kill -q c").expect(0);
    place.sh("ctr-run -q --network none --read-only --name r bb:1 true").expect(0);
    sh(&place, "ctr-cp one r:/tmp/x").expect(6);
    // One that waits to be started.
    place.sh("img-unpack bb:1 | ctr-create -q --network none --name w -- cat /n >/dev/null").expect(0);
    assert_eq!(sh(&place, "ctr-cp -q one w:/n >/dev/null; ctr-start -a w").stdout, "one\n");
    // From container to container.
    sh(&place, "ctr-cp -q r:/etc/group w:/g && ctr-cp -q w:/g - | tar -xO | grep -q root").expect(0);
}

#[test]
fn everything_is_kept_with_archive_and_nothing_unsafe_without() {
    let Some(place) = place() else { return };
    start(
        &place,
        "",
        "mkdir /a; echo x >/a/f; ln /a/f /a/g; chown 7:8 /a/f; chmod 4711 /a/f; mknod /a/null c 1 3; mkfifo /a/p; dd if=/dev/zero of=/a/holes bs=1 count=1 seek=8M",
    );
    sh(&place, "ctr-cp -a c:/a kept && ctr-cp c:/a plain").expect(0);
    let look = |dir: &str| {
        sh(&place, &format!("stat -c '%n %u:%g %a %h %F' {dir}/*; du -k {dir}/holes | cut -f1"))
            .expect(0)
            .stdout
    };
    let kept = look("kept");
    assert!(
        kept.contains("kept/f 7:8 4711 2 regular file") && kept.contains("null") && kept.contains("fifo"),
        "{kept}"
    );
    let plain = look("plain");
    assert!(plain.contains("plain/f 0:0 711 2 regular file") && !plain.contains("null"), "{plain}");
    for text in [&kept, &plain] {
        assert!(text.lines().last().unwrap().parse::<u64>().unwrap() < 64, "holes: {text}");
    }
    if testkit::find_program("setfattr").is_some() {
        sh(&place, "setfattr -n user.colour -v blue kept/f; ctr-cp -a kept c:/b; ctr-cp -a c:/b back; getfattr -n user.colour --only-values back/f | grep blue").expect(0);
    }
    // The same by archive, sparse files included.
    sh(&place, "tar -S -C kept -c . | ctr-cp -a - c:/tmp; ctr-cp -a c:/tmp/. round; cmp kept/holes round/holes && stat -c '%u:%g %a %h' round/f | grep '7:8 4711 2'").expect(0);
    sh(&place, "head -c 300 /dev/urandom | ctr-cp - c:/tmp").expect(3);
    assert!(sh(&place, "echo x | gzip | ctr-cp - c:/tmp").expect(3).stderr.contains("gzip"));
    sh(&place, ": | ctr-cp - c:/tmp").expect(3);
    place.sh("ctr-kill -q c").expect(0);
}

#[test]
fn large_files_to_the_byte_in_flat_memory() {
    let Some(place) = place() else { return };
    start(&place, "", "true");
    sh(&place, "head -c 200000000 /dev/urandom >big").expect(0);
    // 64 MiB of address space hold the program, and no file.
    sh(&place, "ulimit -v 65536; ctr-cp -q big c:/big && ctr-cp c:/big - | tar -xO | cmp - big && ctr-cp -q c:/big back && cmp big back && tar -c big | ctr-cp -q - c:/tmp && ctr-exec c cmp /big /tmp/big").expect(0);
    place.sh("ctr-kill -q c").expect(0);
}

#[test]
fn what_cannot_be_is_told() {
    let place = Place::new();
    place.sh("ctr-cp nobody:/x .").expect(4);
    place.sh("ctr-cp a: .").expect(2);
    place.sh("ctr-cp x -").expect(2);
    place.sh(": | ctr-cp :/x .").expect(3);
}
