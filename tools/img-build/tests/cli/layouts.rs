//! Build contexts that are OCI layouts.

use crate::{build, inside, machine, project, server};
use testkit::Place;

/// A layout of two images, `$DIR/layout`: `one`, and `latest` with a trigger.
fn layout(place: &Place) {
    for (name, text) in [
        ("one", "FROM bb:1\nENV OF=one\nRUN echo one >/which\n"),
        ("latest", "FROM bb:1\nENV OF=latest\nRUN echo latest >/which\nONBUILD RUN echo $OF >/triggered\n"),
    ] {
        project(place, name, &[("Dockerfile", text)]);
        build(place, &format!("-q -t {name} $DIR/{name} && img-copy -q {name} oci:$DIR/layout:{name}"))
            .expect(0);
    }
}

const USES: &str =
    "FROM base\nCOPY --from=base /which /copied\nRUN --mount=from=base,target=/m cat /m/which >/mounted\n";

#[test]
fn images_are_taken_out_of_layouts() {
    let Some(first) = machine::place() else { return };
    layout(&first);
    let place = Place::new();
    place.sh(&format!("cp -r {}/layout $DIR/layout", first.path().display())).expect(0);
    project(&place, "app", &[("Dockerfile", USES)]);
    let index = std::fs::read_to_string(place.path().join("layout/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == "one")
        .unwrap()["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    for (of, expected) in [
        ("", "latest latest latest latest\n"),
        (":one", "one one one none\n"),
        (&format!("@{digest}"), "one one one none\n"),
        (&format!(":latest@{digest}"), "one one one none\n"),
    ] {
        let words = format!("-q -t it:1 --build-context base=oci-layout://$DIR/layout{of} $DIR/app");
        build(&place, &words).expect(0);
        let look = "echo $(cat /copied /mounted) $OF $(cat /triggered 2>/dev/null || echo none)";
        assert_eq!(inside(&place, "it:1", look), expected, "{of}");
    }
    // No name is left behind: there are the images that were built.
    assert_eq!(place.sh("img-ls -q | sort -u | wc -l").expect(0).stdout, "2\n");
    assert_eq!(place.sh("img-ls | jq -r .image.reference | grep -c layout").expect(1).stdout, "0\n");
}

#[test]
fn what_has_not_changed_is_not_copied() {
    let Some(first) = machine::place() else { return };
    layout(&first);
    let place = Place::new();
    place.sh(&format!("cp -r {}/layout $DIR/layout", first.path().display())).expect(0);
    project(&place, "app", &[("Dockerfile", "FROM scratch\nCOPY --from=base /which /which\n")]);
    let words = "-t it:1 --build-context base=oci-layout://$DIR/layout:one $DIR/app";
    build(&place, &format!("--print {words}")).expect(0);
    let made = build(&place, words).expect(0).json();
    // Copied once; what nobody needs any more may go, and what is cached needs none of it.
    let packed =
        "cd $DIR/layout/blobs/sha256 && for f in *; do gzip -t $f 2>/dev/null && rm $f; done; ls | wc -l";
    place.sh(&format!("img-prune && {packed}")).expect(0);
    let count = "ls $STAVES_ROOT/blobs/sha256 $STAVES_ROOT/layers | wc -l";
    let before = place.sh(count).expect(0).stdout;
    let again = build(&place, words).expect(0);
    assert_eq!(again.stderr.matches("CACHED").count(), 1, "{}", again.stderr);
    assert_eq!(again.json()["image"]["digest"], made["image"]["digest"]);
    assert_eq!(place.sh(count).expect(0).stdout, before);
    // Another image under the name is another one.
    let index = place.path().join("layout/index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let swapped = text.replace(":\"one\"", ":\"two\"").replace(":\"latest\"", ":\"one\"");
    std::fs::write(&index, swapped.replace(": \"one\"", ": \"two\"").replace(": \"latest\"", ": \"one\""))
        .unwrap();
    let ran = build(&place, words).expect(4);
    assert!(ran.stderr.contains("is not there"), "its files are wanted: {}", ran.stderr);
}

#[test]
fn of_several_platforms_a_stage_has_its_own() {
    let Some(place) = machine::place() else { return };
    let text = "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n";
    project(&place, "base", &[("f", "f"), ("Dockerfile", text)]);
    build(&place, "-q -t base:1 --platform linux/amd64,linux/arm64 $DIR/base").expect(0);
    place.sh("img-copy -q -a base:1 oci:$DIR/layout:1").expect(0);
    let text = "FROM --platform=linux/arm64 base AS other\nFROM base\nCOPY --from=other / /\n";
    project(&place, "app", &[("Dockerfile", text)]);
    let words = "-t it:1 --platform linux/amd64 --build-context base=oci-layout://$DIR/layout $DIR/app";
    let record = build(&place, words).expect(0).json();
    assert_eq!(record["image"]["config"]["architecture"], "amd64");
    assert_eq!(place.sh("img-files it:1 | jq -r .path").expect(0).stdout, "/amd64\n/arm64\n");
}

#[test]
fn what_is_no_image_in_a_layout_is_told() {
    let Some(place) = machine::place() else { return };
    layout(&place);
    project(&place, "app", &[("Dockerfile", "FROM base\nRUN true\n")]);
    place.sh("mkdir $DIR/empty").expect(0);
    for (of, status, says) in [
        ("$DIR/nowhere", 4, "no image layout"),
        ("$DIR/empty", 4, "no image layout"),
        ("$DIR/layout:three", 4, "there is one, latest"),
        (
            "$DIR/layout@sha256:0123456789012345678901234567890123456789012345678901234567890123",
            4,
            "not there",
        ),
        ("$DIR/layout@sha256:0", 2, "oci-layout://DIR"),
    ] {
        let ran = build(&place, &format!("--build-context base=oci-layout://{of} $DIR/app"));
        assert!(ran.status == status && ran.stderr.contains(says), "{of}: {} {}", ran.status, ran.stderr);
    }
    let ran =
        build(&place, "--platform linux/s390x --build-context base=oci-layout://$DIR/layout:one $DIR/app");
    assert!(ran.status == 4 && ran.stderr.contains("s390x"), "{}", ran.stderr);
    // A layer that is not what its digest says.
    let other = Place::new();
    other.sh(&format!("cp -r {}/layout $DIR/layout", place.path().display())).expect(0);
    other
        .sh("cd $DIR/layout/blobs/sha256 && for f in *; do if gzip -t $f 2>/dev/null; then printf x | dd of=$f bs=1 seek=40 conv=notrunc 2>/dev/null; fi; done")
        .expect(0);
    project(&other, "app", &[("Dockerfile", "FROM base\nRUN true\n")]);
    let ran = build(&other, "--build-context base=oci-layout://$DIR/layout:one $DIR/app").expect(3);
    assert!(ran.stderr.contains("digest"), "{}", ran.stderr);
    // The server of the tests of repositories is no layout either.
    let server = server::Server::of_directory(place.path());
    assert_eq!(
        build(&place, &format!("--build-context base=oci-layout://{} $DIR/app", server.url())).status,
        4
    );
}
