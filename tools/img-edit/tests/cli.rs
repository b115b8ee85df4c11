//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, store, tar};
use oci::manifest::media_type::{DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, OCI_MANIFEST};
use oci::{Digest, Reference};
use serde_json::{Value, json};
use std::process::Command;
use store::{NewImage, Settle};
use testkit::{Place, Ran};

fn edit(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-edit"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn config(ran: &Ran) -> Value {
    ran.json()["image"]["config"]["config"].clone()
}

/// The blob with a digest, as text.
fn blob(place: &Place, digest: &Value) -> String {
    let digest = Digest::parse(digest.as_str().unwrap()).unwrap();
    std::fs::read_to_string(store(place).blob_path(&digest)).unwrap()
}

/// An image with members docker wrote, in docker's format unless `oci`.
fn put_docker(place: &Place, name: &str, layers: &[Vec<u8>], history: &Value) {
    let (store, settle) = (store(place), Settle::new());
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| store.put_blob(layer, &settle).unwrap()).collect();
    let config = json!({"zeta": 1, "architecture": "amd64", "os": "linux", "container_config": {"Cmd": ["x"]},
        "config": {"Hostname": "", "Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "OnBuild": ["RUN x"], "Labels": {"l": "1"},
            "Volumes": {"/old": {}}, "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30_000_000_000_u64}},
        "created": "2020-01-01T00:00:00Z", "history": history, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string();
    let described: Vec<Value> = layers
        .iter()
        .map(|layer| json!({"mediaType": DOCKER_LAYER, "size": layer.len(), "digest": Digest::of(layer)}))
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "size": config.len(), "digest": Digest::of(config.as_bytes())}, "layers": described})
    .to_string();
    let new = NewImage {
        manifest: manifest.as_bytes(),
        media_type: None,
        config: Some(config.as_bytes()),
        name: Some(&Reference::parse(name).unwrap()),
        index_digest: None,
    };
    store.put_image(&new, &settle).unwrap();
}

fn docker_place() -> Place {
    let mut place = Place::new();
    place.set("SOURCE_DATE_EPOCH", "1000000000");
    put_docker(&place, "app:1", &[tar(&[("a", b"1")])], &json!([{"created_by": "ADD"}]));
    place
}

#[test]
fn flags_change_what_they_say_and_nothing_else() {
    let place = docker_place();
    let ran = edit(
        &place,
        &[
            "app:1",
            "-t",
            "app:2",
            "-e",
            "A=2",
            "-e",
            "B=3",
            "--unset",
            "label.l",
            "-l",
            "k=v=w",
            "--entrypoint",
            "/app",
            "--cmd",
            "[\"-x\", \"a b\"]",
            "-u",
            "7:8",
            "-w",
            "/w",
            "--expose",
            "80",
            "--expose",
            "1-2/udp",
            "--volume",
            "/data",
            "--unset",
            "volume./old",
            "--stop-signal",
            "SIGINT",
            "--health-interval",
            "1m",
            "--health-retries",
            "3",
            "--onbuild",
            "RUN y",
            "--shell",
            "[\"/bin/bash\",\"-c\"]",
            "--author",
            "me",
            "--arch",
            "arm64",
            "--variant",
            "v8",
        ],
    )
    .expect(0);
    let record = ran.json();
    assert_eq!(record["image"]["reference"], "docker.io/library/app:2");
    assert_eq!(
        record["image"]["config"],
        json!({"zeta": 1, "architecture": "arm64", "os": "linux", "container_config": {"Cmd": ["x"]},
            "config": {"Hostname": "", "Env": ["PATH=/bin", "A=2", "B=3"], "Cmd": ["-x", "a b"], "OnBuild": ["RUN x", "RUN y"],
                "Labels": {"k": "v=w"}, "Volumes": {"/data": {}},
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 60_000_000_000_u64, "Retries": 3},
                "Entrypoint": ["/app"], "WorkingDir": "/w", "User": "7:8", "StopSignal": "SIGINT", "Shell": ["/bin/bash", "-c"],
                "ExposedPorts": {"80/tcp": {}, "1/udp": {}, "2/udp": {}}},
            "created": "2001-09-09T01:46:40Z", "history": [{"created_by": "ADD"}, {"created": "2001-09-09T01:46:40Z",
                "created_by": record["image"]["config"]["history"][1]["created_by"], "empty_layer": true}],
            "rootfs": record["image"]["config"]["rootfs"], "author": "me", "variant": "v8"})
    );
    let step = record["image"]["config"]["history"][1]["created_by"].as_str().unwrap();
    assert!(
        step.starts_with("img-edit --unset label.l --unset volume./old --env A=2")
            && step.contains("--cmd '[\"-x\", \"a b\"]'"),
        "{step}"
    );
    // Members stay in their order, and the format is docker's.
    let text = blob(&place, &record["image"]["id"]);
    assert!(
        text.starts_with("{\"zeta\":1,\"architecture\":\"arm64\",\"os\":\"linux\",\"container_config\":"),
        "{text}"
    );
    let manifest: Value = serde_json::from_str(&blob(&place, &record["image"]["digest"])).unwrap();
    assert_eq!(
        (&manifest["mediaType"], &manifest["config"]["mediaType"]),
        (&json!(DOCKER_MANIFEST), &json!(DOCKER_CONFIG))
    );
    assert_eq!(record["image"]["platform"]["architecture"], "arm64");
    // The old one is as it was, and the same edit gives the same image.
    let old = Ran::of(place.command("img-inspect").arg("app:1")).expect(0).json();
    assert_eq!(old["image"]["config"]["config"]["Env"], json!(["PATH=/bin", "A=1"]));
    assert_eq!(old["image"]["layers"], record["image"]["layers"]);
    let dated = |_| {
        place.sh("unset SOURCE_DATE_EPOCH; img-edit app:1 -e X=1 --created 5 -q; sleep 0.01").expect(0).stdout
    };
    assert_eq!(dated(1), dated(2));
    let again = [
        edit(&place, &["app:1", "-e", "X=1", "-q"]).expect(0).stdout,
        edit(&place, &["app:1", "-e", "X=1", "-q"]).expect(0).stdout,
    ];
    assert_eq!(again[0], again[1]);
}

#[test]
fn records_that_jq_edited_are_images() {
    let place = docker_place();
    let ran = place
        .sh("img-inspect app:1 | jq -c '.mine = 1.50 | .image.config.config.Env += [\"J=q\"]' | img-edit --env E=1 -t app:jq")
        .expect(0);
    assert_eq!(config(&ran)["Env"], json!(["PATH=/bin", "A=1", "J=q", "E=1"]));
    assert!(ran.stdout.contains("\"mine\":1.5"), "{}", ran.stdout);
    // Unchanged, it is the same image; without a name the new one is known by its digest.
    let same = place.sh("img-inspect app:1 | img-edit").expect(0).json();
    assert_eq!(
        same["image"]["digest"],
        Ran::of(place.command("img-inspect").arg("app:1")).json()["image"]["digest"]
    );
    let named = place.sh("img-inspect app:1 | img-edit -t other:1").expect(0).json();
    assert_eq!(
        (&named["image"]["digest"], named["image"]["reference"].as_str()),
        (&same["image"]["digest"], Some("docker.io/library/other:1"))
    );
    let unnamed =
        place.sh("img-inspect app:1 | img-edit --user 5 | img-unpack --to $DIR/tree").expect(0).json();
    assert_eq!(unnamed["image"]["reference"], unnamed["image"]["digest"]);
    assert_eq!(std::fs::read(place.path().join("tree/a")).unwrap(), b"1");
    assert!(place.sh("img-prune -q >/dev/null; img-inspect app:jq").expect(0).stdout.contains("J=q"));
    // What the layers are is not for the configuration to say.
    let ran = place.sh("img-inspect app:1 | jq '.image.config.rootfs.diff_ids = []' | img-edit").expect(3);
    assert!(ran.stderr.contains("rootfs"), "{}", ran.stderr);
    place.sh("img-inspect app:1 | jq '.image.config = 5' | img-edit --env A=b").expect(3);
    place.sh("img-inspect app:1 | jq '.image.config.config.Env = 5' | img-edit --env A=b").expect(3);
    place.sh("true | img-edit --env A=b").expect(3);
    std::fs::write(
        place.path().join("config"),
        blob(&place, &same["image"]["id"]).replace("\"sh\"", "\"file\""),
    )
    .unwrap();
    let ran =
        place.sh("img-edit app:1 --config $DIR/config && img-edit app:1 --config - <$DIR/config").expect(0);
    assert_eq!(config(&ran)["Cmd"], json!(["file"]));
    for bad in [
        "{",
        "[]",
        "7",
        &"[".repeat(100_000),
        "{\"config\":[]}",
        "{\"history\":[{},{}]}",
        "{\"rootfs\":{\"type\":\"layers\"}}",
    ] {
        let script = format!("img-edit app:1 --env A=b --config - <<'END'\n{bad}\nEND");
        let ran = place.sh(&script).expect(3);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    let short = place
        .sh("echo '{\"architecture\":\"amd64\",\"os\":\"linux\"}' | img-edit app:1 --config - --cmd y")
        .expect(0);
    assert_eq!(
        (config(&short), &short.json()["image"]["layers"]),
        (json!({"Cmd": ["y"]}), &same["image"]["layers"])
    );
}

#[test]
fn what_is_not_possible_is_said_and_nothing_is_made() {
    let place = docker_place();
    let before = std::fs::read(place.root().join("index.json")).unwrap();
    for arguments in [
        &["app:1", "-e", "A"][..],
        &["app:1", "-e", "=x"],
        &["app:1", "-l", "novalue"],
        &["app:1", "--entrypoint", "two words"],
        &["app:1", "--expose", "http"],
        &["app:1", "--volume", "relative"],
        &["app:1", "--workdir", "relative"],
        &["app:1", "--stop-signal", "NOSUCH"],
        &["app:1", "--health-interval", "5"],
        &["app:1", "--created", "now"],
        &["app:1", "--unset", "nothing"],
        &["app:1", "--unset", "user.x"],
        &["app:1", "--annotation", "k=v"],
        &["app:1", "--os", ""],
        &["app:1", "-e", "A=1", "-t", "x@sha256:aaaa"],
        &["app:1", "-e", "A=5", "-t", "UPPER"],
        &["app:1", "--new-base", "app:1"],
        &["--config", "-"],
    ] {
        let ran = edit(&place, arguments).expect(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments:?}");
    }
    edit(&place, &["nothing", "-e", "A=1"]).expect(4);
    let steps = edit(&place, &["app:1", "-e", "A=5", "-t", "x", "--dry-run"]).expect(0).stdout;
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps[0], json!({"step": "change", "member": "config.Env", "value": ["PATH=/bin", "A=5"]}));
    assert_eq!(steps.last().unwrap()["step"], "tag");
    let broken = place.sh("SOURCE_DATE_EPOCH=soon img-edit app:1 -e A=7").expect(2);
    assert!(broken.stderr.contains("SOURCE_DATE_EPOCH"), "{}", broken.stderr);
    assert_eq!(std::fs::read(place.root().join("index.json")).unwrap(), before);
    assert_eq!(images::count(&place, "tmp"), 0);
}

#[test]
fn formats_and_annotations() {
    let place = docker_place();
    let ran = edit(
        &place,
        &["app:1", "--format", "oci", "--annotation", "k=v", "--annotation", "gone=1", "-t", "oci:1"],
    )
    .expect(0);
    let manifest: Value = serde_json::from_str(&blob(&place, &ran.json()["image"]["digest"])).unwrap();
    assert_eq!(
        (&manifest["mediaType"], &manifest["annotations"]),
        (&json!(OCI_MANIFEST), &json!({"k": "v", "gone": "1"}))
    );
    assert_eq!(ran.json()["image"]["layers"][0]["media_type"], "application/vnd.oci.image.layer.v1.tar");
    // The configuration is the same, and with it the image's id.
    assert_eq!(
        ran.json()["image"]["id"],
        Ran::of(place.command("img-inspect").arg("app:1")).json()["image"]["id"]
    );
    edit(&place, &["oci:1", "--format", "docker"]).expect(3);
    let back = edit(
        &place,
        &["oci:1", "--format", "docker", "--unset", "annotation.k", "--unset", "annotation.gone"],
    )
    .expect(0);
    assert_eq!(
        back.json()["image"]["digest"],
        Ran::of(place.command("img-inspect").arg("app:1")).json()["image"]["digest"]
    );
}

#[test]
fn an_image_is_put_on_another_base() {
    let place = docker_place();
    let (old, new, own) = (tar(&[("base", b"old")]), tar(&[("base", b"new")]), tar(&[("own", b"1")]));
    put_docker(
        &place,
        "base:1",
        std::slice::from_ref(&old),
        &json!([{"created_by": "OLD"}, {"created_by": "ENV", "empty_layer": true}]),
    );
    put_docker(
        &place,
        "base:2",
        &[new.clone(), tar(&[("more", b"")])],
        &json!([{"created_by": "NEW"}, {"created_by": "MORE"}]),
    );
    put_docker(
        &place,
        "on:1",
        &[old.clone(), own.clone()],
        &json!([{"created_by": "OLD"}, {"created_by": "OWN"}]),
    );
    let ran = edit(&place, &["on:1", "--old-base", "base:1", "--new-base", "base:2", "-t", "on:2"]).expect(0);
    let image = &ran.json()["image"];
    let steps: Vec<&str> = image["config"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["created_by"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["NEW", "MORE", "OWN", "img-edit --new-base base:2"]);
    assert_eq!(image["layers"].as_array().unwrap().len(), 3);
    place.sh("img-unpack --to $DIR/on on:2 && cd $DIR/on && test $(cat base) = new -a $(cat own) = 1 -a -e more").expect(0);
    // One that does not stand there.
    let ran = edit(&place, &["app:1", "--old-base", "base:1", "--new-base", "base:2"]).expect(5);
    assert!(ran.stderr.contains("does not stand on the old base: 0 of its 1"), "{}", ran.stderr);
    // An image made by hand tells of no steps.
    put(&place, "plain", &[old, own]);
    let told = edit(&place, &["plain", "--env", "A=1"]).expect(0).json();
    assert!(told["image"]["config"].get("history").is_none(), "{told}");
}

#[test]
fn other_programs_read_what_it_makes() {
    let place = docker_place();
    if testkit::find_program("skopeo").is_none() {
        return testkit::skip("no skopeo");
    }
    place.sh("img-edit app:1 --env B=2 --format oci -t made:1 && img-edit made:1 --format docker -l k=v -t made:2").expect(0);
    let inspect =
        |image: &str| place.sh(&format!("skopeo inspect {image} | jq -c .")).expect(0).json()["Env"].clone();
    assert_eq!(inspect("oci:$STAVES_ROOT:docker.io/library/made:1"), json!(["PATH=/bin", "A=1", "B=2"]));
    // All of it, with every digest looked at. A layout with docker's manifests skopeo does not read, but archives.
    place.sh("skopeo copy -q oci:$STAVES_ROOT:docker.io/library/made:1 dir:$DIR/made").expect(0);
    place.sh("img-save -q -o $DIR/made.tar made:2").expect(0);
    assert_eq!(inspect("docker-archive:$DIR/made.tar"), json!(["PATH=/bin", "A=1", "B=2"]));
}
