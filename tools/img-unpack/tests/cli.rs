//! The tool as a program, on images made by hand.

mod images;
mod ordinary_user;

use images::{count, put, put_with, store, tar};
use oci::Digest;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::{Place, Ran, find_program, is_root, skip};

fn unpack(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn pipe(place: &Place, arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
    place.furnish(&mut command);
    let file = place.path().join("input");
    fs::write(&file, input).unwrap();
    Ran::of(command.args(arguments).stdin(fs::File::open(file).unwrap()))
}

fn two_layers() -> Vec<Vec<u8>> {
    vec![
        tar(&[("etc/", b""), ("etc/gone", b"1"), ("etc/kept", b"1")]),
        tar(&[("etc/", b""), ("etc/.wh.gone", b""), ("etc/new", b"2")]),
    ]
}

#[test]
fn names_in_records_out_and_once_is_enough() {
    let place = Place::new();
    put(&place, "app", &two_layers());
    let record = unpack(&place, &["app"]).expect(0).json();
    let layers: Vec<&str> =
        record["rootfs"]["layers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(record["rootfs"]["driver"], "overlay");
    assert_eq!(fs::read(format!("{}/etc/kept", layers[0])).unwrap(), b"1");
    assert_eq!(fs::read(format!("{}/etc/new", layers[1])).unwrap(), b"2");
    // Nothing is read when all is there.
    fs::remove_dir_all(place.root().join("blobs")).unwrap();
    let text = format!("{{\"zeta\":1.50,\"image\":{},\"alpha\":[ ]}}", record["image"]);
    let again = pipe(&place, &[], &text).expect(0);
    assert!(again.stdout.starts_with("{\"zeta\":1.50,\"image\":{"), "{}", again.stdout);
    assert!(again.stdout.contains(",\"alpha\":[ ],\"rootfs\":{"), "{}", again.stdout);
    assert_eq!(again.json()["rootfs"], record["rootfs"]);
    assert_eq!(count(&place, "tmp"), 0);
    assert_eq!(
        pipe(&place, &["-q"], &text).expect(0).stdout.trim(),
        record["image"]["digest"].as_str().unwrap()
    );
}

#[test]
fn bad_input_has_its_status_and_leaves_nothing() {
    let place = Place::new();
    pipe(&place, &[], "").expect(3);
    pipe(&place, &[], "{\"image\":").expect(3);
    pipe(&place, &[], "{\"staves\":1}").expect(3);
    pipe(&place, &[], r#"{"image":{"reference":"x","digest":"y","layers":[{"diff_id":"../..","digest":"","size":0,"media_type":""}]}}"#)
        .expect(3);
    unpack(&place, &["nothing"]).expect(4);
    let layers = two_layers();
    put_with(&place, "liar", &layers, &[Digest::of(&layers[0]), Digest::of(b"something else")]);
    let ran = unpack(&place, &["liar"]).expect(3);
    assert!(ran.stderr.contains("diff id") && ran.stdout.is_empty(), "{}", ran.stderr);
    // The good layer is there if it was done before the bad one failed.
    assert!(count(&place, "tmp") == 0 && count(&place, "layers") <= 1);
    put(&place, "hostile", &[tar(&[("../evil", b"x")])]);
    let ran = unpack(&place, &["hostile"]).expect(3);
    assert!(ran.stderr.contains("leads out of the layer"), "{}", ran.stderr);
    put(&place, "cut", &[two_layers()[0][..700].to_vec()]);
    unpack(&place, &["cut"]).expect(3);
    let many: Vec<String> = (0..50).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    put(&place, "many", &[tar(&many)]);
    unpack(&place, &["--max-entries", "49", "many"]).expect(3);
    unpack(&place, &["--max-size", "1k", "many"]).expect(3);
    unpack(&place, &["--max-size", "much", "many"]).expect(2);
    assert!(count(&place, "tmp") == 0 && count(&place, "layers") <= 1);
    // The others still go on.
    let ran = unpack(&place, &["liar", "many", "nothing"]).expect(3);
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn a_blob_that_is_missing_is_not_found() {
    let place = Place::new();
    let layers = two_layers();
    put(&place, "app", &layers);
    fs::remove_file(store(&place).blob_path(&Digest::of(&layers[1]))).unwrap();
    for arguments in [&["app"][..], &["--to", "tree", "app"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
        place.furnish(&mut command);
        let ran = Ran::of(command.args(arguments).current_dir(place.path())).expect(4);
        assert!(ran.stderr.contains("img-pull docker.io/library/app:latest"), "{}", ran.stderr);
    }
    assert!(!place.path().join("tree").exists());
    assert_eq!(count(&place, "tmp"), 0);
}

#[test]
fn flattened_into_a_new_or_empty_directory() {
    let place = Place::new();
    put(&place, "app", &two_layers());
    let dir = place.path().join("tree");
    for make in [false, true] {
        if make {
            fs::remove_dir_all(&dir).unwrap();
            fs::create_dir(&dir).unwrap();
        }
        let record = unpack(&place, &["--to", dir.to_str().unwrap(), "app"]).expect(0).json();
        assert_eq!(record["rootfs"]["driver"], "directory");
        assert_eq!(record["rootfs"]["path"], dir.to_str().unwrap());
        let mut names: Vec<_> =
            fs::read_dir(dir.join("etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["kept", "new"]);
    }
    let ran = unpack(&place, &["--to", dir.to_str().unwrap(), "app"]).expect(5);
    assert!(ran.stderr.contains("not empty"), "{}", ran.stderr);
    unpack(&place, &["--to", "x", "app", "app"]).expect(2);
    // On failure the directory is as it was.
    put(&place, "hostile", &[tar(&[("fine", b"x")]), tar(&[("../evil", b"x")])]);
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    unpack(&place, &["--to", empty.to_str().unwrap(), "hostile"]).expect(3);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    unpack(&place, &["--to", place.path().join("new").to_str().unwrap(), "hostile"]).expect(3);
    assert!(!place.path().join("new").exists());
    assert_eq!((count(&place, "layers"), count(&place, "tmp")), (0, 0));
}

#[test]
fn a_dry_run_says_what_it_would_do() {
    let place = Place::new();
    put(&place, "app", &two_layers());
    let ran = unpack(&place, &["--dry-run", "app"]).expect(0);
    assert_eq!((ran.stdout.lines().count(), count(&place, "layers")), (2, 0));
    assert_eq!(ran.json()["step"], "unpack");
    unpack(&place, &["app"]).expect(0);
    assert_eq!(unpack(&place, &["--dry-run", "app"]).expect(0).stdout, "");
}

#[test]
fn an_image_without_layers_and_one_that_hides_all_below() {
    if !is_root() {
        return skip("opaque directories of overlayfs take root");
    }
    let place = Place::new();
    put(&place, "scratch", &[]);
    let record = unpack(&place, &["scratch"]).expect(0).json();
    let layers = record["rootfs"]["layers"].as_array().unwrap();
    assert_eq!(fs::read_dir(layers[0].as_str().unwrap()).unwrap().count(), 0);
    put(&place, "hides", &[tar(&[("low", b"")]), tar(&[(".wh..wh..opq", b""), ("high", b"")])]);
    let record = unpack(&place, &["hides"]).expect(0).json();
    let layers = record["rootfs"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    assert!(fs::exists(format!("{}/high", layers[0].as_str().unwrap())).unwrap());
}

/// One large layer and a few small ones, so that there is time to interfere.
fn slow_image(place: &Place) {
    let data = vec![7u8; 4000];
    let layer = |tag: &str, files: usize| {
        let names: Vec<String> = (0..files).map(|n| format!("{tag}{}/{n}", n % 17)).collect();
        tar(&names.iter().map(|name| (name.as_str(), &data[..])).collect::<Vec<_>>())
    };
    put(place, "slow", &[layer("a", 800), layer("b", 300), layer("c", 400)]);
}

#[test]
fn several_at_once_unpack_each_layer_once() {
    let place = Place::new();
    slow_image(&place);
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
        place.furnish(&mut command);
        command.arg("slow").stdout(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let mut owners = std::collections::HashSet::new();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    for entry in fs::read_dir(place.root().join("layers")).unwrap() {
        let info: Value =
            serde_json::from_slice(&fs::read(entry.unwrap().path().join("layer.json")).unwrap()).unwrap();
        owners.insert(info["owner"].as_str().unwrap().to_owned());
        assert!(info["entries"].as_u64().unwrap() >= 300);
    }
    assert!(!owners.is_empty());
    assert_eq!((count(&place, "layers"), count(&place, "tmp")), (3, 0));
}

#[test]
fn killed_at_any_moment_it_succeeds_when_repeated() {
    let place = Place::new();
    slow_image(&place);
    for moment in 0..32u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
        place.furnish(&mut command);
        let mut child = command.arg("slow").stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(moment * moment * 40));
        let _ = child.kill();
        child.wait().unwrap();
        // What has its place is whole.
        for layer in store(&place).layers().unwrap() {
            assert!(store(&place).has_layer(&layer));
        }
        if moment % 8 == 7 {
            unpack(&place, &["slow"]).expect(0);
            fs::remove_dir_all(place.root().join("layers")).unwrap();
        }
    }
    unpack(&place, &["slow"]).expect(0);
    store(&place).sweep_scratch().unwrap();
    assert_eq!((count(&place, "layers"), count(&place, "tmp")), (3, 0));
}

#[test]
fn it_tells_the_other_end_of_the_pipe_that_it_unpacks() {
    let announces = |arguments: &[&str]| {
        let place = Place::new();
        let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
        place.furnish(&mut command);
        let (reader, writer) = std::io::pipe().unwrap();
        let output = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = output.stdin(reader).spawn().unwrap();
        // The command still holds the end it gave the child: what is announced stays so until it is dropped.
        let deadline = std::time::Instant::now()
            + Duration::from_millis(if arguments.is_empty() { 10_000 } else { 300 });
        let mut announced = false;
        while !announced && std::time::Instant::now() < deadline {
            announced = sys::pipe::is_announced(&writer, sys::pipe::Reader::Unpacks);
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(writer);
        child.wait().unwrap();
        announced
    };
    assert!(announces(&[]));
    // Not into the store, or not as img-pull would do it.
    for arguments in
        [&["--to", "/nowhere/at/all"][..], &["--max-size", "1m"], &["--max-entries", "5"], &["--dry-run"]]
    {
        assert!(!announces(arguments), "{arguments:?}");
    }
}

#[test]
fn interrupted_it_leaves_nothing_half_made() {
    let place = Place::new();
    slow_image(&place);
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-unpack"));
    place.furnish(&mut command);
    // It waits for a layer somebody else is making, so that the signal surely comes in time.
    let held: Vec<_> = store(&place)
        .images()
        .unwrap()
        .iter()
        .flat_map(|entry| {
            let image = store(&place).load_image(entry, &oci::Platform::host()).unwrap();
            image.layers.into_iter().map(|layer| Digest::parse(&layer.diff_id).unwrap()).collect::<Vec<_>>()
        })
        .map(|diff_id| store(&place).lock_layer(&diff_id).unwrap())
        .collect();
    let child = command.arg("slow").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Until it holds signals back it ends by them.
    let status = format!("/proc/{}/status", child.id());
    testkit::wait_until("it to hold signals back", || {
        let held = std::fs::read_to_string(&status).unwrap_or_default();
        let held = held.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap_or_default();
        u64::from_str_radix(held, 16).is_ok_and(|signals| signals & 2 != 0)
    });
    std::thread::sleep(Duration::from_millis(300));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    drop(held);
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    assert_eq!((count(&place, "layers"), count(&place, "tmp")), (0, 0));
    unpack(&place, &["slow"]).expect(0);
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    if !is_root() || find_program("unshare").is_none() {
        return skip("a small file system of one's own takes root and unshare");
    }
    let place = Place::new();
    put(&place, "app", &[tar(&[("large", &vec![1; 6 << 20])])]);
    // Blobs stay where there is room; layers and unfinished work get a file system that is too small.
    let script = "set -e; mkdir -p $STAVES_ROOT/small; mount -t tmpfs -o size=2m none $STAVES_ROOT/small
        mkdir $STAVES_ROOT/small/tmp; mkdir -p $STAVES_ROOT/tmp; mount --bind $STAVES_ROOT/small/tmp $STAVES_ROOT/tmp
        set +e; \"$1\" app; status=$?; ls -A $STAVES_ROOT/tmp; exit $status";
    let mut command = Command::new("unshare");
    place.furnish(&mut command);
    command.args(["--mount", "--propagation", "private", "bash", "-c", script, "bash"]);
    let ran = Ran::of(command.arg(env!("CARGO_BIN_EXE_img-unpack"))).expect(1);
    assert!(ran.stderr.contains("the disk is full") && ran.stderr.contains("img-prune"), "{}", ran.stderr);
    assert_eq!((ran.stdout.as_str(), count(&place, "layers")), ("", 0));
}

#[test]
fn a_bundle_runs_under_other_runtimes() {
    let (Some(images), true) = (testkit::images(), is_root()) else { return };
    let Some(layout) = images.layout("busybox") else { return };
    let place = Place::new();
    Ran::of(Command::new("cp").arg("-r").arg(layout).arg(place.root())).expect(0);
    let name = serde_json::from_slice::<Value>(&fs::read(place.root().join("index.json")).unwrap()).unwrap();
    let name =
        name["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    let bundle = place.path().join("bundle");
    unpack(&place, &["--bundle", bundle.to_str().unwrap(), &name]).expect(0);
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["sh", "-c", "echo hello from $(id -u)"]);
    fs::File::create(&path).unwrap().write_all(spec.to_string().as_bytes()).unwrap();
    for runtime in ["runc", "crun"] {
        if find_program(runtime).is_none() {
            skip(runtime);
            continue;
        }
        // crun 1.8 refuses the hybrid hierarchy; in a mount namespace of its own there is none.
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" run --bundle \"$1\" \"$2\"";
        let id = format!("staves-test-{}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, runtime]);
        let ran = Ran::of(command.arg(&bundle).arg(id).stdin(Stdio::null())).expect(0);
        assert_eq!(ran.stdout, "hello from 0\n", "{runtime}");
    }
}

#[test]
fn the_same_tree_as_umoci_makes() {
    let (Some(images), true) = (testkit::images(), is_root()) else { return };
    let (Some(layout), Some(_)) = (images.layout("layers"), find_program("umoci")) else {
        return skip("umoci or the image with layers is missing");
    };
    let place = Place::new();
    Ran::of(Command::new("cp").arg("-r").arg(layout).arg(place.root())).expect(0);
    let script = "set -e; name=$(jq -r '.manifests[0].annotations[\"org.opencontainers.image.ref.name\"]' $STAVES_ROOT/index.json)
        $1 --to $DIR/ours $name > /dev/null
        umoci --log=error unpack --image $STAVES_ROOT:$name $DIR/theirs
        list() { cd $1; find . -mindepth 1 -printf '%p %y %m %U %G %T@ %l %n' -type f -printf ' %s' -o -printf '\n' | sort
                 find . -type f -exec sha256sum {} + | sort; getfattr -Rhd -m - . 2>/dev/null || true; }
        diff <(list $DIR/ours) <(list $DIR/theirs/rootfs)";
    let mut command = Command::new("bash");
    place.furnish(&mut command);
    Ran::of(command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_img-unpack")])).expect(0);
}
