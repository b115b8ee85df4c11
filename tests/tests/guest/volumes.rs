//! Each tool on volumes, once, by what it does.

use crate::bench;

#[test]
fn volumes_are_made_filled_copied_and_removed() {
    let Some(bench) = bench() else { return };
    bench.sh("vol-create -q --label kind=test data").expect(0);
    let write = "echo one >/data/file; chown 7:8 /data/file; chmod 640 /data/file; ln /data/file /data/again; mkdir /data/empty";
    bench.sh(&format!("ctr-run -q --rm --network none -v data:/data box:1 sh -c '{write}'")).expect(0);
    bench.sh("ctr-run -q -d --name user --network none -v data:/data:ro box:1 sleep 100000").expect(0);
    bench.sh("ctr-exec user touch /data/x").expect(1);
    let users = bench.sh("vol-ls --filter label=kind=test | jq -r '.volumes[0] | .name, .containers[0].name // .containers[0]'").expect(0);
    assert!(users.stdout.starts_with("data\n"), "{}", users.stdout);
    let id = bench.sh("ctr-inspect user | jq -r .container.id").expect(0).stdout;
    assert!(users.stdout.contains("user") || users.stdout.contains(id.trim()), "{}", users.stdout);
    bench.sh("vol-rm data").expect(5);
    let place = bench.sh("vol-inspect data | jq -r '.volumes[0].mountpoint'").expect(0).stdout;
    assert_eq!(
        bench.sh(&format!("stat -c '%u:%g %a %h' {}/file", place.trim())).expect(0).stdout,
        "7:8 640 2\n"
    );

    bench.sh("vol-clone -q data copy && vol-export data | vol-import -q brought").expect(0);
    let read = "cat /d/file; stat -c \"%u:%g %a %h\" /d/again; ls /d";
    for volume in ["copy", "brought"] {
        let ran = bench
            .sh(&format!("ctr-run -q --rm --network none -v {volume}:/d box:1 sh -c '{read}'"))
            .expect(0);
        assert_eq!(ran.stdout, "one\n7:8 640 2\nagain\nempty\nfile\n", "{volume}");
    }
    // One of memory, which is new for each container.
    bench.sh("vol-create -q memory --opt type=tmpfs --opt device=tmpfs --opt o=size=4m").expect(0);
    let fill = "dd if=/dev/zero of=/d/x bs=1M count=8 2>/dev/null; stat -c %s /d/x; stat -f -c %T /d";
    let ran =
        bench.sh(&format!("ctr-run -q --rm --network none -v memory:/d box:1 sh -c '{fill}'")).expect(0);
    assert_eq!(ran.stdout, "4194304\ntmpfs\n");

    // An anonymous one goes with `ctr-rm -v`, another when nobody uses it.
    bench.sh("ctr-run -q --name a --network none -v /d box:1 true && ctr-rm -v a").expect(0);
    bench.sh("ctr-run -q --name b --network none -v /d box:1 true && ctr-rm b").expect(0);
    let anonymous = bench.sh("vol-ls -q --filter anonymous=true").expect(0).stdout;
    assert_eq!(anonymous.lines().count(), 1, "{anonymous}");
    assert_eq!(bench.sh("vol-prune -f -q").expect(0).stdout, anonymous);
    bench.sh("ctr-rm -f user && vol-rm -q data copy").expect(0);
    assert_eq!(bench.sh("vol-prune -f -a -q | sort").expect(0).stdout, "brought\nmemory\n");
    assert_eq!(bench.sh("vol-ls").expect(0).stdout, "");
}
