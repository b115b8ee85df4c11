//! `--storage-opt size`: on a file system with project quotas, where this kernel has them, and on one without.

use testkit::{Place, find_program, is_root, profile_dir, skip};

/// State of one's own, and a record of a layer with busybox. `None`, said aloud, where containers cannot be run.
fn bench() -> Option<Place> {
    if !is_root() {
        skip("containers take root");
        return None;
    }
    let Some(busybox) = find_program("busybox") else {
        skip("there is no busybox (package busybox-static)");
        return None;
    };
    for tool in ["ctr-shim", "ctr-start", "ctr-rm", "ctr-inspect", "ctr-run"] {
        let built = profile_dir().join(tool);
        assert!(built.is_file(), "{} is not built; cargo build --release first", built.display());
    }
    let place = Place::new();
    let layer = place.path().join("layer");
    std::fs::create_dir_all(layer.join("bin")).unwrap();
    std::fs::copy(busybox, layer.join("bin/busybox")).unwrap();
    for name in ["sh", "dd", "df", "rm", "mv", "wc"] {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).unwrap();
    }
    let record = serde_json::json!({"staves": 1, "rootfs": {"driver": "overlay", "layers": [layer]}});
    std::fs::write(place.path().join("record"), record.to_string()).unwrap();
    Some(place)
}

#[test]
fn a_file_system_without_quotas_is_named() {
    let Some(place) = bench() else { return };
    let ran = place.sh(
        "unshare -m sh -c 'mkdir $DIR/t && mount -t tmpfs none $DIR/t && export STAVES_ROOT=$DIR/t/root &&
         ctr-create --network none --storage-opt size=1m -- sh <$DIR/record; status=$?; ls -A $STAVES_ROOT/containers; exit $status'",
    );
    assert_eq!((ran.status, ran.stdout.as_str()), (5, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("(tmpfs)") && ran.stderr.contains("prjquota"), "{}", ran.stderr);
    let record = format!(r#"{{"staves":1,"config":{{"rootfs":"{}/layer"}}}}"#, place.path().display());
    let directory = format!("echo '{record}' | ctr-create --storage-opt size=1m -- sh");
    assert!(place.sh(&directory).expect(3).stderr.contains("no read-write layer"));
}

#[test]
fn no_more_is_written_than_that() {
    let Some(place) = bench() else { return };
    place
        .sh("truncate -s 96M $DIR/image && mkfs.ext4 -q -O quota,project -E quotatype=prjquota $DIR/image && mkdir $DIR/mnt")
        .expect(0);
    let script = r#"
        modprobe -qa loop quota_v2 2>/dev/null
        mount -o loop,prjquota "$DIR/image" "$DIR/mnt" || exit 98
        export STAVES_ROOT="$DIR/mnt/root"
        try() { ctr-start --attach "$1"; echo "$1 $?"; }
        make() { ctr-create -q --network none --name "$@" <"$DIR/record" >/dev/null; }
        make a --storage-opt size=8m -- sh -c 'df -k / | { read x; read x size x; echo $size; }; dd if=/dev/zero of=/f bs=1M count=6 2>/dev/null; mv /f /g && echo moved; dd if=/dev/zero of=/h bs=1M count=6 2>/dev/null || echo full'
        try a
        make b --storage-opt size=8m -- sh -c 'dd if=/dev/zero of=/f bs=1M count=6 2>/dev/null && echo fits'
        try b
        make c -- sh -c 'dd if=/dev/zero of=/f bs=1M count=12 2>/dev/null && echo fits'
        try c
        ctr-inspect a | jq -c '.config.storage_opts.size = "20m" | .config.command = ["sh", "-c", "dd if=/dev/zero of=/h bs=1M count=6 2>/dev/null && echo fits"]' | ctr-start --attach
        ctr-inspect c | jq -c '.config.storage_opts.size = "20m"' | ctr-start --attach 2>&1 | grep -o 'made without a limit'
        ctr-rm -f a b c >/dev/null
        umount "$DIR/mnt"
    "#;
    std::fs::write(place.path().join("script"), script).unwrap();
    let ran = place.sh("exec unshare -m sh $DIR/script");
    if ran.status == 98 {
        return skip(&format!("no ext4 with project quotas here: {}", ran.stderr.trim()));
    }
    let expected = "8192\nmoved\nfull\na 0\nfits\nb 0\nfits\nc 0\nfits\nmade without a limit\n";
    assert_eq!((ran.stdout.as_str(), ran.status), (expected, 0), "{}", ran.stderr);
}
