//! Images for several platforms: made by `img-index`, read by others, and used by every tool of ours that takes an image.

use pipelines::{Bench, DockerRegistry, find_program, skip};

/// With `$W`, a registry that may be written to.
fn bench() -> Option<(Bench, DockerRegistry)> {
    let mut bench = Bench::new()?;
    let storage = bench.place.path().join("storage");
    std::fs::create_dir(&storage).unwrap();
    let registry = DockerRegistry::start(&storage, false)?;
    bench.place.set("W", registry.address());
    Some((bench, registry))
}

/// An index of two platforms in the store and at `$W/app:1`, taken apart and put together again.
const MAKE: &str = "set -e; cd $DIR
    for arch in amd64 arm64; do img-copy -q --platform linux/$arch docker://$R/multi:1 docker://$W/app:$arch; done >/dev/null
    img-index -q app:1 docker://$W/app:amd64 docker://$W/app:arm64 >/dev/null
    img-copy -q -a app:1 docker://$W/app:1 >/dev/null; ";

#[test]
fn others_read_what_was_made() {
    let Some((bench, _registry)) = bench() else { return };
    let wanted =
        bench.sh(&format!("{MAKE} img-inspect --raw app:1 | sha256sum | cut -d' ' -f1")).expect(0).stdout;
    // The same two manifests for the same platforms are the same index.
    assert_eq!(
        bench.sh("img-inspect --raw docker://$R/multi:1 | sha256sum | cut -d' ' -f1").expect(0).stdout,
        wanted
    );
    for (program, script) in [
        ("skopeo", "skopeo inspect --raw --tls-verify=false docker://$W/app:1 | sha256sum | cut -d' ' -f1
                    skopeo --insecure-policy copy -q --all --src-tls-verify=false docker://$W/app:1 dir:$DIR/copy; sha256sum $DIR/copy/manifest.json | cut -d' ' -f1
                    img-inspect --raw dir:$DIR/copy | sha256sum | cut -d' ' -f1"),
        ("docker-registry", "img-push -q --all-platforms app:1 $W/pushed:1 | cut -d: -f2; img-inspect --raw docker://$W/pushed:1 | sha256sum | cut -d' ' -f1"),
    ] {
        if find_program(program).is_none() {
            skip(&format!("{program} is not installed"));
            continue;
        }
        let ran = bench.sh(script).expect(0);
        assert!(ran.stdout.lines().count() >= 2 && ran.stdout.lines().all(|digest| digest == wanted.trim()), "{program}: {}{}", ran.stdout, ran.stderr);
    }
    for program in ["buildah", "podman"] {
        if find_program(program).is_none() {
            skip(&format!("{program} is not installed"));
            continue;
        }
        // What they make of it, we read, and the other way.
        let ran = bench.sh(&format!(
            "export STORAGE_DRIVER=vfs; O=\"--root $DIR/storage-{program} --runroot $DIR/run-{program}\"
             {program} $O manifest create theirs >/dev/null && {program} $O manifest add --all --tls-verify=false theirs docker://$W/app:1 >/dev/null &&
             {program} $O manifest inspect theirs | jq -r '.manifests[].platform.architecture' &&
             {program} $O manifest push --all --tls-verify=false theirs docker://$W/{program}:1 >/dev/null 2>&1 &&
             img-index -a -q from-{program}:1 docker://$W/{program}:1 >/dev/null && img-inspect from-{program}:1 | jq -r '.image.platforms[].architecture'"
        ));
        if ran.status != 0 {
            // An old one that cannot do without what this machine lacks.
            skip(&format!("{program} does not work here: {}", ran.stderr));
            continue;
        }
        assert_eq!(ran.stdout, "amd64\narm64\namd64\narm64\n", "{program}: {}", ran.stderr);
    }
}

#[test]
fn every_tool_takes_this_machines_image_and_none_loses_the_others() {
    let Some((bench, _registry)) = bench() else { return };
    let host = "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')";
    let script = format!(
        "{MAKE} H={host}
         img-ls app | jq -r .image.platform.architecture | grep -qx $H && echo ls
         img-history app:1 | jq -e '.history | length > 0' >/dev/null && echo history
         img-prune >/dev/null; img-prune --all --dry-run | grep -q delete
         for arch in amd64 arm64; do img-inspect --platform linux/$arch app:1 | jq -e '.image.layers | length > 0' >/dev/null; done && echo prune
         img-save app:1 >app.tar; img-inspect docker-archive:app.tar | jq -r .image.platform.architecture | grep -qx $H && echo save
         img-tag -q app:1 app:2 >/dev/null; img-rm -q app:1 >/dev/null
         img-copy -q -a app:2 dir:all >/dev/null; ls all | grep -c manifest.json
         img-files -q --platform linux/arm64 app:2 -p bin/busybox; img-cat app:2 /etc/passwd | grep -c ^root:
         img-unpack app:2 | jq -r '.rootfs.driver'
         img-rm -q app:2 >/dev/null; ls $STAVES_ROOT/blobs/sha256 | wc -l"
    );
    let ran = bench.sh(&script).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines,
        ["ls", "history", "prune", "save", "3", "/bin/busybox", "1", "overlay", "0"],
        "{}",
        ran.stderr
    );
}
