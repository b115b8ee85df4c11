//! Images from place to place: the same digest whichever way they went, and skopeo's, umoci's and buildah's word for it.

use pipelines::{Bench, DockerRegistry, find_program, skip};

fn have(program: &str) -> bool {
    let found = find_program(program).is_some();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// With `$W`, a registry that may be written to.
fn bench() -> Option<(Bench, DockerRegistry)> {
    Bench::with_another_registry()
}

const DIGEST: &str = "digest() { curl -sS -H 'Accept: application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json' http://$1/v2/$2/manifests/$3 | sha256sum | cut -d' ' -f1; }; set -e; ";

#[test]
fn a_copy_has_the_same_digest_wherever_it_went() {
    let Some((bench, _registry)) = bench() else { return };
    // One image, one for two platforms, docker's format.
    for (image, tag) in [("layers", "1"), ("multi", "1"), ("busybox", "docker")] {
        let script = format!(
            "{DIGEST} cd $DIR; S=docker://$R/{image}:{tag}; P={image}-{tag}
             img-copy -q -a $S docker://$W/a:{tag}; digest $W a {tag}
             img-copy -q -a $S oci:l-$P:x; img-copy -q -a oci:l-$P:x docker://$W/b:{tag}; digest $W b {tag}
             img-copy -q -a $S oci-archive:$P.tar; img-copy -q -a oci-archive:$P.tar docker://$W/c:{tag}; digest $W c {tag}
             img-copy -q -a $S dir:d-$P; img-copy -q -a dir:d-$P docker://$W/d:{tag}; digest $W d {tag}
             img-copy -q -a $S store:$P; img-copy -q -a $P docker://$W/e:{tag}; digest $W e {tag}
             img-copy -q -a $S docker-archive:$P.dtar; gzip -f $P.dtar; img-copy -q -a oci-archive:/dev/stdin docker://$W/f:{tag} <$P.dtar.gz; digest $W f {tag}"
        );
        let digests = bench.sh(&script).expect(0).stdout;
        let wanted = bench.sh(&format!("{DIGEST} digest $R {image} {tag}")).expect(0).stdout;
        let found: Vec<&str> = digests.lines().filter(|line| !line.starts_with("sha256:")).collect();
        assert_eq!(found, [wanted.trim(); 6], "{image}:{tag}\n{digests}");
    }
    if !have("skopeo") {
        return;
    }
    // Others read what was written, with the digest it has.
    for image in ["layers", "multi"] {
        let script = format!(
            "{DIGEST} cd $DIR; for it in oci:l-{image}-1:x oci-archive:{image}-1.tar dir:d-{image}-1; do
               rm -rf s; skopeo --insecure-policy copy -q --all $it dir:s; sha256sum s/manifest.json | cut -d' ' -f1; done
             digest $R {image} 1"
        );
        let ran = bench.sh(&script).expect(0).stdout;
        let digests: Vec<&str> = ran.lines().collect();
        assert!(digests.len() == 4 && digests.iter().all(|digest| *digest == digests[0]), "{image}: {ran}");
    }
    // And the other way.
    let script = format!(
        "{DIGEST} cd $DIR; S='skopeo --insecure-policy copy -q --all --src-tls-verify=false docker://'$R/multi:1
         $S oci:so:1; $S oci-archive:so.tar:n:1; $S dir:sd
         for it in oci:so:1 oci-archive:so.tar:n:1 dir:sd; do img-copy -q $it docker://$W/from-skopeo:1; done; digest $R multi 1"
    );
    let ran = bench.sh(&script).expect(0).stdout;
    let digests: Vec<&str> = ran.lines().map(|line| line.trim_start_matches("sha256:")).collect();
    assert!(digests.len() == 4 && digests.iter().all(|digest| *digest == digests[0]), "{ran}");
}

#[test]
fn what_is_there_is_not_copied_again() {
    let Some((bench, _registry)) = bench() else { return };
    let copied = |script: &str| {
        let record = bench.sh(script).expect(0).json();
        ["blobs", "present"].map(|member| record["copied"][member].as_u64().unwrap())
    };
    assert_eq!(copied("img-copy docker://$R/layers:1 docker://$W/one:1"), [5, 0]);
    assert_eq!(copied("img-copy docker://$R/layers:1 docker://$W/one:2"), [0, 5]);
    // Mounted from the other repository: the registry's own word that no upload took place.
    let uploads = "find $DIR/storage -path '*_uploads*' -type f | wc -l";
    assert_eq!(copied("img-copy docker://$W/one:1 docker://$W/two:1"), [5, 0]);
    assert_eq!(bench.sh(uploads).expect(0).stdout.trim(), "0");
    // Every tag, and nothing but names.
    let ran =
        bench.sh("img-copy --all-tags docker://$W/one docker://$W/three | jq -r .image.reference").expect(0);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    for place in ["oci:$DIR/planned:1", "dir:$DIR/planned-dir", "store:planned:1", "docker://$W/planned:1"] {
        let ran = bench.sh(&format!(
            "plan() {{ img-copy --dry-run docker://$R/layers:1 {place} | jq -c .step | sort | uniq -c | xargs; }}; cd $DIR; plan; ls -d planned* 2>/dev/null
             img-copy -q docker://$R/layers:1 {place} >/dev/null; plan"
        ));
        assert_eq!(ran.expect(0).stdout, "5 copy 1 name\n1 name 5 present\n", "{place}");
        bench.sh("rm -rf $DIR/planned*").expect(0);
    }
    let steps = bench.sh("img-copy --dry-run docker://$R/layers:1 docker://$W/never:1").expect(0).stdout;
    assert_eq!(steps.lines().count(), 6, "{steps}");
    bench.sh("img-inspect never:1").expect(4);
}

#[test]
fn one_platform_one_format() {
    let Some((bench, _registry)) = bench() else { return };
    let ran = bench.sh("img-copy --platform linux/arm64 docker://$R/multi:1 oci:$DIR/arm:1 && jq -c '.manifests|length' $DIR/arm/index.json");
    assert!(ran.expect(0).stdout.ends_with("1\n"));
    bench.sh("img-copy --platform linux/s390x docker://$R/multi:1 oci:$DIR/none").expect(4);
    let script = "cd $DIR; img-copy -q --format oci docker://$R/busybox:docker oci:o:1 && jq -r '.manifests[0].mediaType' o/index.json \
        && img-copy --format docker oci:o:1 docker://$W/back:1 | jq -r .copied.digest; img-copy docker://$R/busybox:docker docker://$W/plain:1 | jq -r .copied.digest";
    let ran = bench.sh(script).expect(0).stdout;
    let lines: Vec<&str> = ran.lines().collect();
    assert_eq!(lines[1], "application/vnd.oci.image.manifest.v1+json", "{ran}");
    assert_ne!(lines[0], lines[2], "{ran}");
    assert_eq!(lines[2], lines[3], "{ran}");
    if have("umoci") {
        bench
            .sh("umoci unpack --image $DIR/o:1 $DIR/unpacked && test -x $DIR/unpacked/rootfs/bin/busybox")
            .expect(0);
    }
}

#[test]
fn a_damaged_place_gives_nothing_a_name() {
    let Some((bench, _registry)) = bench() else { return };
    bench.sh("cd $DIR; img-copy -q docker://$R/layers:1 oci:l:1; img-copy -q oci:l:1 oci-archive:l.tar; img-copy -q oci:l:1 dir:d").expect(0);
    // One byte of the largest blob.
    bench.sh("cd $DIR; b=$(ls -S l/blobs/sha256/* | head -1); printf X | dd of=$b bs=1 seek=1000 conv=notrunc status=none; cp $b d/$(basename $b)").expect(0);
    for (from, to) in [
        ("oci:$DIR/l:1", "docker://$W/bad:1"),
        ("oci:$DIR/l:1", "oci:$DIR/bad:1"),
        ("oci:$DIR/l:1", "bad:1"),
        ("dir:$DIR/d", "dir:$DIR/bad-dir"),
        ("oci:$DIR/l:1", "oci-archive:$DIR/bad.tar"),
    ] {
        let ran = bench.sh(&format!("img-copy {from} {to}"));
        assert_eq!(ran.status, 3, "{from} {to}: {}", ran.stderr);
        assert!(ran.stderr.contains("digest"), "{}", ran.stderr);
    }
    let script = "curl -s -o /dev/null -w '%{http_code} ' http://$W/v2/bad/manifests/1; img-inspect bad:1 2>/dev/null; ls $DIR/bad.tar $DIR/bad-dir/manifest.json 2>/dev/null; \
        jq -c .manifests $DIR/bad/index.json 2>/dev/null; find $DIR -name '*.part' | wc -l";
    assert_eq!(bench.sh(script).expect(0).stdout.trim(), "404 0");
}

#[test]
fn archives_of_others_are_loaded() {
    let Some((bench, _registry)) = bench() else { return };
    if !have("skopeo") {
        return;
    }
    let ids = bench
        .sh(
            "cd $DIR; S='skopeo --insecure-policy copy -q --src-tls-verify=false docker://'$R/layers:1
             $S docker-archive:d.tar:app:docker; $S oci-archive:o.tar:team/app:oci; xz -k d.tar; gzip -k o.tar
             cat d.tar | img-load -q; cat o.tar | img-load -q; img-load -q -i d.tar.xz -t app:xz; img-load -q <o.tar.gz
             img-pull -q $R/layers:1 >/dev/null; img-inspect $R/layers:1 | jq -r .image.id",
        )
        .expect(0)
        .stdout;
    let ids: Vec<&str> = ids.lines().collect();
    assert!(ids.len() == 5 && ids.iter().all(|id| *id == ids[4]), "{ids:?}");
    // The tree of an image loaded from docker's archive is that of the one pulled.
    let script =
        "cd $DIR; img-unpack --to one app:docker >/dev/null; img-unpack --to two $R/layers:1 >/dev/null
        for it in one two; do (cd $it; find . -mindepth 1 -printf '%p %m %U %G %s %l %T@\n' | sort | sha256sum); done";
    let trees = bench.sh(script).expect(0).stdout;
    let trees: Vec<&str> = trees.lines().collect();
    assert_eq!(trees[0], trees[1]);
    // Through a pipe and back: the digest is the same.
    let script = "img-save $R/layers:1 | env STAVES_ROOT=$DIR/other img-load | jq -r .image.digest; img-inspect $R/layers:1 | jq -r .image.digest";
    let digests = bench.sh(script).expect(0).stdout;
    let digests: Vec<&str> = digests.lines().collect();
    assert_eq!(digests[0], digests[1]);
}
