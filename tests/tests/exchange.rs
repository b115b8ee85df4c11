//! docker, podman and buildah on the other side of a registry: what one pushes the other pulls, with the same digests, and what
//! is unpacked is the same tree.

use pipelines::engine::{DOCKERD, PODMAN, have, with_engine};
use pipelines::tree::{self, Entry, ODD, Tree};
use pipelines::{Bench, Ran};

/// What dockerd puts below a container's root when it makes one; names that are there already it leaves alone.
const OF_DOCKER: [&str; 12] = [
    "./.dockerenv",
    "./dev",
    "./dev/console",
    "./dev/pts",
    "./dev/shm",
    "./etc",
    "./etc/hostname",
    "./etc/hosts",
    "./etc/mtab",
    "./etc/resolv.conf",
    "./proc",
    "./sys",
];
/// The directories it puts them into get a new time by that.
const FILLED: [&str; 3] = [".", "./dev", "./etc"];
const CAPABILITY: &str = "security.capability";

/// `img-push` to the registry, `docker pull` from it; `export-NAME` is what `docker create` and `docker export` make of it, `ours-NAME`
/// what `img-unpack` does; last, where dockerd keeps the one layer of `odd`.
const TREES: &str = r"
tar -C odd --format=pax --sort=name --xattrs --xattrs-include='*' --sparse --numeric-owner -cf odd.tar .
img-import -q -c 'CMD none' odd.tar odd:1 >/dev/null; img-push -q odd:1 $W/odd:1 >/dev/null; img-unpack -q --to ours-odd odd:1 >/dev/null
for it in $IMAGES; do
  img-pull -q $R/$it >/dev/null; img-push -q $R/$it $W/$it >/dev/null; img-unpack -q --to ours-${it%:*} $R/$it >/dev/null
done
for it in odd:1 $IMAGES; do
  n=${it%:*}; docker pull -q $W/$it >/dev/null; docker create --name $n $W/$it none >/dev/null; mkdir export-$n
  docker export $n | tar -C export-$n -xp --numeric-owner --same-owner --xattrs --xattrs-include='*' --warning=no-timestamp
done
docker image inspect --format '{{.GraphDriver.Data.UpperDir}}' $W/odd:1
kill $(cat $DIR/docker.pid); wait
";

#[test]
fn docker_exports_the_tree_that_is_unpacked() {
    let Some((bench, _registry)) = Bench::with_another_registry() else { return };
    if !have(&["dockerd", "docker", "setfattr", "setcap"]) {
        return;
    }
    let images = ["layers:1", "config:1"].into_iter().chain(debian(&bench)).collect::<Vec<_>>().join(" ");
    let script = format!("cd $DIR; IMAGES='{images}'\n({ODD})\n{TREES}");
    let ran = with_engine(&bench, DOCKERD, &script).expect(0);
    let read = |name: &str| tree::read(&bench.place.path().join(name));
    for name in ["odd"].into_iter().chain(images.split(' ').filter_map(|image| image.split(':').next())) {
        let ours = read(&format!("ours-{name}"));
        let mut exported = read(&format!("export-{name}"));
        exported.retain(|path, _| ours.contains_key(path) || !OF_DOCKER.contains(&path.as_str()));
        let mut wanted = ours.clone();
        as_exported(&mut wanted);
        forget_links_capability(&mut wanted);
        for path in FILLED {
            if let (Some(wanted), Some(exported)) = (wanted.get_mut(path), exported.get(path)) {
                wanted.modified = exported.modified;
            }
        }
        assert_eq!(tree::differences(&wanted, &exported), [""; 0], "{name}");
        assert!(ours.len() > 20, "{name}: {}", ours.len());
    }
    // Nothing of it is lost here.
    let (odd, ours) = (read("odd"), read("ours-odd"));
    assert_eq!(tree::differences(&odd, &ours), [""; 0]);
    // What dockerd itself has on disk, before it exports.
    let stored = read(ran.stdout.trim());
    let mut wanted = ours;
    as_stored(&mut wanted);
    forget_links_capability(&mut wanted);
    wanted.insert(".".into(), Entry { modified: stored["."].modified, ..wanted["."].clone() });
    assert_eq!(tree::differences(&wanted, &stored), [""; 0]);
}

/// The largest image, where it could be made.
fn debian(bench: &Bench) -> Option<&'static str> {
    let found = bench.sh("curl -fsS -o /dev/null http://$R/v2/debian/manifests/12").status == 0;
    found.then_some("debian:12")
}

/// What docker 20.10 keeps of a tree when it unpacks it: times before 1970 become 1970, extended attributes without a value
/// (in a pax header: one that is taken back) are not set.
fn as_stored(tree: &mut Tree) {
    for entry in tree.values_mut() {
        if entry.modified.0 < 0 {
            entry.modified = (0, 0);
        }
        entry.attributes.retain(|_, value| !value.is_empty());
    }
}

/// What it exports of that: whole seconds, and of the extended attributes capabilities alone, without the user name space's root
/// that those of version 3 (`VFS_CAP_REVISION_3`) name after their 20 bytes.
fn as_exported(tree: &mut Tree) {
    as_stored(tree);
    for entry in tree.values_mut() {
        entry.modified.1 = 0;
        entry.attributes.retain(|name, _| name == CAPABILITY);
        for value in entry.attributes.values_mut().filter(|value| value.get(3) == Some(&3)) {
            value.truncate(20);
            value[3] = 2;
        }
    }
}

/// It sets the owner again for every further name of a file, at which the kernel takes the capabilities away; GNU tar writes
/// them with the first name only.
fn forget_links_capability(tree: &mut Tree) {
    let mut names = std::collections::BTreeMap::<String, usize>::new();
    for entry in tree.values() {
        *names.entry(entry.first.clone()).or_default() += 1;
    }
    for entry in tree.values_mut().filter(|entry| names[&entry.first] > 1) {
        entry.attributes.remove(CAPABILITY);
    }
}

fn lines(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().collect()
}

/// All of them are one.
#[track_caller]
fn assert_same(ran: &Ran, count: usize) {
    let lines = lines(ran);
    assert!(
        lines.len() == count && lines.iter().all(|line| *line == lines[0] && line.starts_with("sha256:")),
        "{lines:#?}\n{}",
        ran.stderr
    );
}

/// The digests a registry, `img-pull` and `img-copy` have of `$1`, which comes from elsewhere.
const DIGESTS: &str = r#"
accept='application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json'
digests() {
  curl -fsS -H "Accept: $accept" http://$W/v2/${1%:*}/manifests/${1#*:} | sha256sum | sed 's/\([0-9a-f]*\).*/sha256:\1/'
  img-pull -q $W/$1 >/dev/null; img-inspect $W/$1 | jq -r '.image.index_digest // .image.digest'
  rm -rf $DIR/layout; img-copy -q -a docker://$W/$1 oci:$DIR/layout:x >/dev/null; jq -r '.manifests[0].digest' $DIR/layout/index.json
}
"#;

#[test]
fn what_docker_pushes_is_pulled() {
    let Some((bench, _registry)) = Bench::with_another_registry() else { return };
    if !have(&["dockerd", "docker"]) {
        return;
    }
    let set_up = format!("{DOCKERD}{DIGESTS}");
    // Somebody else's layers, as they were; then one that docker made, with whiteouts and links in it.
    let script = r"cd $DIR
push() { docker push $W/$1 | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p'; digests $1; }
docker pull -q $R/layers:1 >/dev/null; docker tag $R/layers:1 $W/a:1; push a:1
docker run --name made $R/busybox:1 sh -c 'cd /etc; rm group; ln passwd linked; ln -s passwd soft; mkdir -p new/dir; rm -rf /var/www; mkdir /var/www; chmod 4711 /bin/busybox; mkfifo fifo; chown -h 7:8 soft new'
docker commit made $W/made:1 >/dev/null; push made:1
img-unpack -q --to made-ours $W/made:1 >/dev/null
docker create --name again $W/made:1 >/dev/null; mkdir made-docker
docker export again | tar -C made-docker -xp --numeric-owner --same-owner --xattrs --xattrs-include='*'
kill $(cat $DIR/docker.pid); wait";
    let ran = with_engine(&bench, &set_up, script).expect(0);
    let lines = lines(&ran);
    assert_eq!(lines.len(), 2 * 4, "{lines:#?}\n{}", ran.stderr);
    assert!(lines.chunks(4).all(|of| of.iter().all(|digest| *digest == of[0])), "{lines:#?}");
    let mut ours = tree::read(&bench.place.path().join("made-ours"));
    let mut dockers = tree::read(&bench.place.path().join("made-docker"));
    for tree in [&mut ours, &mut dockers] {
        as_exported(tree);
        tree.retain(|path, _| !OF_DOCKER.contains(&path.as_str()) && !FILLED.contains(&path.as_str()));
    }
    assert_eq!(tree::differences(&ours, &dockers), [""; 0]);
    assert!(!ours.contains_key("./etc/group") && ours["./etc/passwd"].first == "./etc/linked");
}

#[test]
fn what_is_pushed_is_pulled_by_docker_and_comes_back() {
    let Some((bench, _registry)) = Bench::with_another_registry() else { return };
    if !have(&["dockerd", "docker"]) {
        return;
    }
    // By tools of both kinds, of several formats: the digest docker names, and its id through an archive back.
    let script = r"
img-pull -q $R/layers:1 $R/busybox:docker $R/busybox:zstd >/dev/null
img-push -q $R/layers:1 $W/layers:1 >/dev/null
img-copy -q docker://$R/busybox:docker docker://$W/v2s2:1 >/dev/null
img-copy -q -a docker://$R/multi:1 docker://$W/multi:1 >/dev/null
for it in layers:1 v2s2:1 multi:1; do
  docker pull -q $W/$it >/dev/null; digests $it
  docker image inspect --format '{{json .RepoDigests}}' $W/$it | jq -r '.[]' | grep ^$W/${it%:*}@ | sed 's/.*@//'
  docker save $W/$it | env STAVES_ROOT=$DIR/loaded-$it img-load -q
  docker image inspect --format '{{.Id}}' $W/$it; img-inspect $W/$it | jq -r .image.id
done
kill $(cat $DIR/docker.pid); wait
";
    let ran = with_engine(&bench, &format!("{DOCKERD}{DIGESTS}"), script).expect(0);
    let lines = lines(&ran);
    assert_eq!(lines.len(), 3 * 7, "{lines:#?}\n{}", ran.stderr);
    for image in lines.chunks(7) {
        let (digests, ids) = image.split_at(4);
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{lines:#?}");
        assert!(ids.iter().all(|id| *id == ids[0]), "{lines:#?}");
    }
}

#[test]
fn podman_and_buildah_exchange_by_a_registry() {
    let Some((bench, _registry)) = Bench::with_another_registry() else { return };
    if !have(&["podman", "buildah", "conmon"]) {
        return;
    }
    let set_up = format!(
        "{PODMAN}{DIGESTS}
b() {{ buildah --root $DIR/podman --runroot $DIR/podman-run --storage-driver overlay \"$@\"; }}
T=--tls-verify=false; cd $DIR"
    );
    // Pushed by podman: as it was, in either format, packed with zstd; an index.
    let ran = with_engine(
        &bench,
        &set_up,
        r"
p pull -q $T $R/layers:1 >/dev/null
push() { p push -q $T --digestfile d $2 $R/layers:1 $W/$1 >/dev/null; cat d; echo; digests $1; }
push plain:1; push oci:1 '--format oci'; push docker:1 '--format v2s2'; push zstd:1 '--compression-format zstd --format oci'
p manifest create list >/dev/null; p manifest add $T list $R/busybox:1 >/dev/null; p manifest add $T list $R/arm:1 >/dev/null
p manifest push -q --all $T --digestfile d list docker://$W/list:1 >/dev/null; cat d; echo; digests list:1",
    )
    .expect(0);
    let lines = lines(&ran);
    assert_eq!(lines.len(), 5 * 4, "{lines:#?}\n{}", ran.stderr);
    assert!(lines.chunks(4).all(|of| of.iter().all(|digest| *digest == of[0])), "{lines:#?}");
    // Pushed by buildah, a layer of its own with whiteouts on top.
    let ran = with_engine(
        &bench,
        &set_up,
        r"
c=$(b from $T $R/layers:1); m=$(b mount $c); rm -r $m/caps; ln $m/etc/passwd $m/etc/linked; b umount $c >/dev/null; b commit -q $c made >/dev/null
b push -q $T --digestfile d made docker://$W/made:1; cat d; echo; digests made:1; img-unpack -q --to made $W/made:1 >/dev/null
test ! -e made/caps && test made/etc/passwd -ef made/etc/linked",
    )
    .expect(0);
    assert_same(&ran, 4);
    // And the other way: pushed by us, pulled by each, back by an archive or a layout.
    let ran = with_engine(
        &bench,
        &set_up,
        r"
img-pull -q $R/layers:1 >/dev/null; img-push -q $R/layers:1 $W/ours:1 >/dev/null
img-copy -q docker://$R/busybox:zstd docker://$W/ours:2 >/dev/null; img-copy -q --format docker docker://$R/config:1 docker://$W/ours:3 >/dev/null
F=oci-archive
for it in ours:1 ours:2 ours:3; do
  # What is in docker's format they would convert, the configuration too; buildah's archive has two names of it.
  [ $it != ours:3 ] || F=docker-archive
  p pull -q $T $W/$it | sed 's/^/sha256:/'; p save -q --format docker-archive $W/$it | img-load -q; p save -q --format $F $W/$it | img-load -q
  p rmi -f $W/$it >/dev/null; b pull -q $T $W/$it | sed 's/^/sha256:/'; b push -q $W/$it $F:b.tar:x:1; img-load -q -i b.tar | tail -1; rm b.tar
  img-inspect docker://$W/$it | jq -r .image.id
done",
    )
    .expect(0);
    let lines = self::lines(&ran);
    assert_eq!(lines.len(), 3 * 6, "{lines:#?}\n{}", ran.stderr);
    assert!(lines.chunks(6).all(|of| of.iter().all(|id| *id == of[0])), "{lines:#?}");
}
