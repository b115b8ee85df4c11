//! What is made of the target.

use crate::{build, machine, project};

#[test]
fn images_files_and_archives() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[
            ("f", "file\n"),
            (
                "Dockerfile",
                "FROM bb:1 AS all\nCOPY --chown=7:8 f /f\nFROM scratch AS files\nCOPY --from=all --chmod=640 /f /out/f\nFROM all\n",
            ),
        ],
    );
    let ran = build(&place, "--target files --output type=local,dest=$DIR/out $DIR/app").expect(0);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        place.sh("cat $DIR/out/out/f; stat -c '%u:%g %a' $DIR/out/out/f").expect(0).stdout,
        "file\n7:8 640\n"
    );
    build(&place, "--target files -o $DIR/short $DIR/app").expect(0);
    assert!(place.path().join("short/out/f").exists());
    let ran = build(&place, "--target files --output type=tar $DIR/app | tar -tv --numeric-owner").expect(0);
    assert!(ran.stdout.contains("7/8") && ran.stdout.contains("out/f"), "{}", ran.stdout);
    build(&place, "-q --target files -o - $DIR/app >$DIR/a.tar").expect(0);
    // No image was made for them.
    assert_eq!(place.sh("img-ls -q | wc -l").expect(0).stdout, "1\n");
    build(&place, "-q -t me/it:1 --output type=docker,dest=$DIR/docker.tar --output type=oci,tar=false,dest=$DIR/layout $DIR/app").expect(0);
    assert!(place.sh("tar -tf $DIR/docker.tar").expect(0).stdout.contains("manifest.json"));
    let digest = place.sh("img-inspect me/it:1 | jq -r .image.digest").expect(0).stdout;
    let index = std::fs::read_to_string(place.path().join("layout/index.json")).unwrap();
    assert!(index.contains(digest.trim()), "{index}");
    let ran = build(&place, "-t me/it:1 --output type=oci $DIR/app | tar -t").expect(0);
    assert!(ran.stdout.contains("index.json") && !ran.stdout.contains("staves"), "{}", ran.stdout);
    assert_eq!(build(&place, "--output type=cacheonly $DIR/app").expect(0).stdout, "");
    build(&place, "--push $DIR/app").expect(2);
}

#[test]
fn an_image_is_pushed_and_runs_elsewhere() {
    let Some(place) = machine::place() else { return };
    let registry = testkit::FakeRegistry::start();
    let name = format!("{}/team/app:1", registry.address());
    project(&place, "app", &[("Dockerfile", "FROM bb:1\nRUN echo pushed >/f\n")]);
    build(&place, &format!("-q --push -t {name} $DIR/app")).expect(0);
    let other = testkit::Place::new();
    other.sh(&format!("img-pull -q {name}")).expect(0);
    let run = other.sh(&format!("ctr-run --rm --network none {name} cat /f")).expect(0);
    assert_eq!(run.stdout, "pushed\n");
}

#[test]
fn named_contexts_and_a_dockerfile_on_stdin() {
    let Some(place) = machine::place() else { return };
    project(&place, "extra", &[("e", "extra\n")]);
    project(&place, "app", &[("f", "file\n")]);
    let text =
        "FROM base\nCOPY --from=extra e /e\nCOPY f /f\nRUN --mount=from=extra,target=/x cat /x/e /f >/both\n";
    std::fs::write(place.path().join("Other"), text).unwrap();
    let words = "-q -t it:1 --build-context extra=$DIR/extra --build-context base=docker-image://bb:1 -f - $DIR/app <$DIR/Other";
    build(&place, words).expect(0);
    assert_eq!(crate::inside(&place, "it:1", "cat /both"), "extra\nfile\n");
    build(&place, "-q -f - $DIR/app <$DIR/Other").expect(7);
}

#[test]
fn several_platforms_are_one_index() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[("f", "file"), ("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n")],
    );
    let record = build(&place, "-t multi:1 --platform linux/amd64,linux/arm64/v8 $DIR/app").expect(0).json();
    assert_eq!(record["image"]["reference"], "docker.io/library/multi:1");
    for (platform, file) in [("linux/amd64", "/amd64"), ("linux/arm64", "/arm64")] {
        let files =
            place.sh(&format!("img-files --platform {platform} multi:1 | jq -r .path")).expect(0).stdout;
        assert_eq!(files.trim(), file, "{platform}");
    }
}
