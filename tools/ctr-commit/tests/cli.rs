//! The tool as a program, on real containers.

#[path = "../../ctr-diff/tests/machine/mod.rs"]
mod machine;

use machine::{assert_unmounted, place, start};
use serde_json::{Value, json};
use testkit::{Place, find_program, skip};

const CHANGES: &str = "mkdir -p /a; echo x >/a/f; ln /a/f /a/g; chown 7:8 /a/f; rm /etc/passwd; rm -r /home; mkdir -p /home/q; rm -r /var/www; echo v >/data/v; chmod 4755 /a/f";

#[test]
fn a_committed_image_runs_and_is_run_as_the_container_was() {
    let Some(place) = place() else { return };
    start(&place, "-v $DIR/here:/data -v /vol -e A=b -w /a -l k=v --stop-signal INT", CHANGES);
    let record = place
        .sh("ctr-commit -m why -a me -c 'ENV C=d' -c 'EXPOSE 80' -c 'CMD [\"cat\",\"f\"]' --iidfile $DIR/iid c me/it:1")
        .expect(0)
        .json();
    let image = &record["image"];
    assert_eq!(image["reference"], "docker.io/me/it:1");
    assert!(record.get("container").is_none() && record.get("rootfs").is_none());
    let config = &image["config"]["config"];
    assert!(config["Env"].as_array().unwrap().ends_with(&[json!("A=b"), json!("C=d")]), "{config}");
    assert_eq!((&config["Cmd"], &config["WorkingDir"]), (&json!(["cat", "f"]), &json!("/a")));
    assert_eq!((&config["Labels"]["k"], &config["StopSignal"]), (&json!("v"), &json!("INT")));
    assert_eq!((&config["ExposedPorts"], &config["Volumes"]), (&json!({"80/tcp": {}}), &json!({"/vol": {}})));
    let step = &image["config"]["history"][1];
    assert_eq!((&step["comment"], &step["author"]), (&json!("why"), &json!("me")));
    assert_eq!(image["layers"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::read_to_string(place.path().join("iid")).unwrap(), image["id"].as_str().unwrap());
    assert_eq!(place.sh("ctr-run --network none --rm me/it:1").expect(0).stdout, "x\n");
    let look = "stat -c \"%u:%g %a %h\" /a/f; ls /home; ls /etc; ls /var /data /etc/hosts 2>&1";
    let inside = place.sh(&format!("ctr-run --network none --rm me/it:1 sh -c '{look}'")).expect(1).stdout;
    assert!(
        inside.starts_with("7:8 4755 2\nq\n") && !inside.contains("passwd") && !inside.contains("www"),
        "{inside}"
    );
    assert!(inside.contains("/data: No such file"), "{inside}");
    // The layer holds what was changed, and deletions.
    let files = place.sh("img-files --layers me/it:1 | jq -r 'select(.layer == \"'$(img-inspect me/it:1 | jq -r .image.layers[1].digest)'\") | .type + \" \" + .path'");
    let files = if files.status == 0 { files.stdout } else { String::new() };
    for line in ["whiteout /etc/passwd", "opaque /home", "hardlink /a/g", "directory /home/q"] {
        assert!(files.is_empty() || files.contains(line), "{line}: {files}");
    }
    assert!(!files.contains("/etc/hosts") && !files.contains("/data"), "{files}");
    place.sh("ctr-kill -q c").expect(0);
    // Ended it gives the same layer; and the one after it the same again.
    let again = place.sh("ctr-inspect c | ctr-commit - me/it:2").expect(0).json();
    assert_eq!(again["image"]["layers"], image["layers"]);
    assert_unmounted(&place);
}

/// What is the same as before in a directory that hides what was there before is in the layer: nothing else has it.
#[test]
fn a_directory_exchanged_for_a_copy_of_it_keeps_its_files() {
    let Some(place) = place() else { return };
    place
        .sh(r#"ctr-run -q --network none --name c bb:1 sh -c 'mkdir -p /var/www/in/deep; echo x >/var/www/in/deep/f; touch -d "2001-02-03 04:05:06" /var/www/in/deep/f; echo y >/var/www/g' && ctr-commit -q c base:1"#)
        .expect(0);
    let script = "cp -a /var/www /w; rm -r /var/www; mv /w /var/www; echo z >/var/www/in/z; rm /var/www/g";
    place.sh(&format!("ctr-run -q --network none --name d base:1 sh -c '{script}'")).expect(0);
    let told = place.sh("ctr-diff --output table d").expect(0).stdout;
    assert_eq!(
        told,
        "C /var\nC /var/www\nD /var/www/g\nC /var/www/in\nC /var/www/in/deep\nA /var/www/in/z\n"
    );
    place.sh("ctr-commit -q d it:1").expect(0);
    let files = place.sh("img-files it:1 | jq -r .path | grep ^/var/www").expect(0).stdout;
    assert_eq!(
        files,
        "/var/www\n/var/www/in\n/var/www/in/deep\n/var/www/in/deep/f\n/var/www/in/z\n/var/www/index.html\n"
    );
}

#[test]
fn the_same_container_gives_the_same_image_whichever_way() {
    let Some(place) = place() else { return };
    place.sh("ctr-run -q --network none --name c bb:1 sh -c 'echo x >/n'").expect(0);
    let commit =
        |options: &str| place.sh(&format!("SOURCE_DATE_EPOCH=1 ctr-commit {options} c")).expect(0).json();
    assert_eq!(commit("")["image"]["digest"], commit("--no-pause")["image"]["digest"]);
    let docker = commit("--format docker");
    let types = [&docker["image"]["layers"][0]["media_type"], &docker["image"]["layers"][1]["media_type"]];
    assert!(types.iter().all(|kind| kind.as_str().unwrap().contains("docker")), "{docker}");
    for packing in ["zstd", "none"] {
        let image = commit(&format!("--compression {packing}"));
        assert_eq!(image["image"]["layers"][1]["diff_id"], commit("")["image"]["layers"][1]["diff_id"]);
        let id = image["image"]["digest"].as_str().unwrap();
        assert_eq!(place.sh(&format!("ctr-run --network none --rm {id} cat /n")).expect(0).stdout, "x\n");
    }
    let flat = commit("--squash");
    assert_eq!(flat["image"]["layers"].as_array().unwrap().len(), 1);
    assert_eq!(flat["image"]["config"]["history"].as_array().unwrap().len(), 1);
    let id = flat["image"]["digest"].as_str().unwrap();
    assert_eq!(place.sh(&format!("ctr-run --network none --rm {id} cat /n")).expect(0).stdout, "x\n");
    // Nothing changed is no layer.
    place.sh("ctr-run -q --network none --name e bb:1 true").expect(0);
    let same = place.sh("ctr-commit e").expect(0).json();
    assert_eq!(same["image"]["layers"].as_array().unwrap().len(), 1);
    assert_eq!(same["image"]["config"]["history"][1]["empty_layer"], true);
    // A plain directory only as a whole.
    place.sh("img-unpack --to $DIR/tree bb:1 >/dev/null; ctr-create -q --network none --rootfs $DIR/tree --name d -- true >/dev/null </dev/null").expect(0);
    assert!(place.sh("ctr-commit d").expect(5).stderr.contains("--squash"));
    place.sh("ctr-commit -q --squash d of:tree && ctr-run --network none --rm of:tree true").expect(0);
}

#[test]
fn a_killed_commit_leaves_the_container_running() {
    let Some(place) = place() else { return };
    start(
        &place,
        "",
        "head -c 60000000 /dev/urandom >/big; (while :; do echo tick; sleep 0.05; done) & true",
    );
    for moment in ["0.02", "0.1", "0.3", "0.6"] {
        place.sh(&format!("ctr-commit c x:1 >/dev/null 2>&1 & pid=$!; sleep {moment}; kill -9 $pid 2>/dev/null; wait; true")).expect(0);
        let lines =
            |place: &Place| place.sh("ctr-logs c | wc -l").expect(0).stdout.trim().parse::<u64>().unwrap();
        let before = lines(&place);
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while lines(&place) == before {
            assert!(std::time::Instant::now() < give_up, "it stands still ({moment})");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    // Whole, or not there.
    let ran = place.sh("img-ls x:1 | jq -r .image.reference");
    if ran.stdout.contains("x:1") {
        place.sh("ctr-run --network none --rm x:1 test -s /big").expect(0);
    }
    place.sh("ctr-commit -q c x:2 && ctr-exec c true && ctr-kill -q c").expect(0);
    assert_eq!(place.sh("ls -A $STAVES_ROOT/tmp").stdout, "");
}

#[test]
fn podman_runs_it() {
    let Some(place) = place() else { return };
    if find_program("podman").is_none() {
        return skip("podman is not installed");
    }
    place.sh("ctr-run -q --network none --name c bb:1 sh -c 'rm /etc/passwd; echo x >/n; rm -r /home; mkdir /home'").expect(0);
    place.sh("ctr-commit -q -c 'CMD [\"cat\",\"/n\"]' c me/it:1").expect(0);
    let podman = "podman --root $DIR/p --runroot $DIR/pr --cgroup-manager cgroupfs --storage-driver vfs";
    place.sh(&format!("img-save me/it:1 | {podman} load")).expect(0);
    let ran = place.sh(&format!("dir=$({podman} image mount docker.io/me/it:1) && cat $dir/n && ! test -e $dir/etc/passwd && test -z \"$(ls $dir/home)\"; code=$?; {podman} image umount -a >/dev/null; exit $code"));
    assert_eq!(ran.expect(0).stdout, "x\n");
}

#[test]
fn what_cannot_be_is_told() {
    let place = Place::new();
    place.sh("ctr-commit nobody x:1").expect(4);
    place.sh(": | ctr-commit").expect(3);
    place.sh("ctr-commit nobody x@sha256:0").expect(2);
    place.sh("ctr-commit -c 'RUN x' nobody").expect(2);
    let value: Value =
        json!({"rootfs": {"driver": "overlay", "layers": ["/nonexistent/layers/sha256-0/fs"]}});
    place.container(&"b".repeat(64), "gone", &value);
    place.sh("ctr-commit gone").expect(5);
    place.sh("ctr-commit --dry-run gone").expect(5);
}
