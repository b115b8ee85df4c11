//! Others' tools on what Staves made: runtimes on a bundle, image tools on the store.

use pipelines::{Bench, Place, Ran, find_program, skip};

fn have(program: &str) -> bool {
    let found = find_program(program).is_some();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// A control group view that every runtime accepts: crun refuses a hybrid one, so that its second half is hidden.
fn in_pure_groups(place: &Place, script: &str) -> Ran {
    let script = format!("mount --make-rprivate /; umount /sys/fs/cgroup/unified 2>/dev/null; {script}");
    Ran::of(place.command("unshare").args(["--mount", "bash", "-o", "pipefail", "-c", &script]))
}

#[test]
fn runc_and_crun_run_an_unpacked_bundle() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("img-pull $R/busybox:1 | img-unpack --bundle $DIR/bundle").expect(0);
    // Without a terminal, and with another command: the bundle is data.
    bench
        .sh(r#"cd $DIR/bundle && jq '.process.args = ["sh", "-c", "echo ran as $(id -u) in $(pwd)"] | .process.terminal = false' config.json >new \
            && mv new config.json"#)
        .expect(0);
    for runtime in ["runc", "crun"] {
        if !have(runtime) {
            continue;
        }
        let script = format!("{runtime} --root $DIR/{runtime} run -b $DIR/bundle staves-test-{runtime}-$$");
        let ran = in_pure_groups(&bench.place, &script).expect(0);
        assert_eq!(ran.stdout, "ran as 0 in /\n", "{runtime}");
    }
}

#[test]
fn a_plain_directory_is_the_image_flattened() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("img-pull $R/layers:1 | img-unpack --to $DIR/flat >/dev/null && cd $DIR/flat && cat deep/er hidden/new kept/file/inner \
             && ls -A hidden && find . -name '.wh.*'")
        .expect(0);
    assert_eq!(ran.stdout, "now a file\nnew\ninner\nnew\n");
}

#[test]
fn skopeo_and_umoci_read_the_store() {
    let Some(bench) = Bench::new() else { return };
    let record = bench.sh("img-pull $R/busybox:1").expect(0).json();
    let reference = record["image"]["reference"].as_str().expect("the record has a reference").to_owned();
    if have("skopeo") {
        let seen = bench
            .sh(&format!("skopeo inspect --raw oci:$STAVES_ROOT:{reference} | sha256sum"))
            .expect(0)
            .stdout;
        let digest = record["image"]["digest"].as_str().unwrap_or_default();
        assert_eq!(format!("sha256:{}", seen.split(' ').next().unwrap_or_default()), digest);
        bench
            .sh(&format!("skopeo --insecure-policy copy -q oci:$STAVES_ROOT:{reference} oci:$DIR/copy:1"))
            .expect(0);
    }
    if have("umoci") {
        let tags = bench.sh("umoci ls --layout $STAVES_ROOT").expect(0).stdout;
        assert!(tags.lines().any(|tag| tag == reference), "{tags}");
    }
}

#[test]
fn a_saved_image_is_read_by_others() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("img-pull $R/busybox:1 $R/layers:1 | img-save >$DIR/two.tar && img-save -o $DIR/one.tar $R/layers:1").expect(0);
    let digest = bench.sh("img-inspect $R/layers:1 | jq -r .image.digest").expect(0).stdout;
    if have("skopeo") {
        let copied = bench.sh(
            "skopeo --insecure-policy copy -q oci-archive:$DIR/one.tar oci:$DIR/copy:1 && jq -r '.manifests[0].digest' $DIR/copy/index.json",
        );
        assert_eq!(copied.expect(0).stdout, digest);
        // As a docker archive: the layers uncompressed by their diff ids, which are the configuration's.
        let layers = bench.sh(
            "for it in $R/busybox:1 $R/layers:1; do skopeo --insecure-policy inspect --config docker-archive:$DIR/two.tar:$it | jq -c .rootfs.diff_ids; done",
        );
        let wanted =
            bench.sh("img-inspect $R/busybox:1 $R/layers:1 | jq -c '[.image.layers[].diff_id]'").expect(0);
        assert_eq!(layers.expect(0).stdout, wanted.stdout);
    }
    if have("podman") {
        let loaded =
            bench.sh("podman --root $DIR/p --runroot $DIR/pr load -q -i $DIR/two.tar").expect(0).stdout;
        assert_eq!(loaded.lines().count(), 2, "{loaded}");
    }
}

#[test]
fn a_container_runs_under_another_runtime() {
    let Some(bench) = Bench::new() else { return };
    if !have("runc") {
        return;
    }
    let ran = bench.sh("ctr-run --rm --runtime runc $R/busybox:1 sh -c 'echo by runc; exit 6'").expect(6);
    assert_eq!(ran.stdout, "by runc\n");
}
