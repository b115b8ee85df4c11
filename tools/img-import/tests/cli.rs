//! The tool as a program.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{count, store, tar};
use oci::Digest;
use std::fs::File;
use std::io::Write;
use std::process::Command;
use testkit::{Place, Ran};

fn import(place: &Place, arguments: &[&str], archive: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-import"));
    place.furnish(&mut command);
    let file = place.path().join("stdin");
    std::fs::write(&file, archive).unwrap();
    Ran::of(command.env("SOURCE_DATE_EPOCH", "0").args(arguments).stdin(File::open(file).unwrap()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn an_archive_becomes_an_image() {
    let place = Place::new();
    let plain = tar(&[("bin/", b""), ("bin/sh", b"#!")]);
    let changes = [
        "-c",
        "CMD [\"/bin/sh\"]",
        "-c",
        "ENV A=b",
        "-m",
        "mine",
        "--author",
        "me",
        "--platform",
        "linux/arm/v7",
        "-",
        "app:1",
    ];
    let record = import(&place, &changes, &plain).expect(0).json();
    let image = &record["image"];
    assert_eq!(image["reference"], "docker.io/library/app:1");
    assert_eq!(image["config"]["config"]["Cmd"][0], "/bin/sh");
    assert_eq!(image["config"]["config"]["Env"][0], "A=b");
    assert_eq!(
        (&image["config"]["architecture"], &image["config"]["variant"]),
        (&"arm".into(), &"v7".into())
    );
    assert_eq!(
        (&image["config"]["history"][0]["comment"], &image["config"]["author"]),
        (&"mine".into(), &"me".into())
    );
    assert_eq!(image["config"]["created"], "1970-01-01T00:00:00Z");
    let diff_id = Digest::of(&plain);
    assert_eq!(image["layers"][0]["diff_id"], diff_id.as_str());
    assert_eq!(image["layers"][0]["digest"], diff_id.as_str());
    // The same again is the same.
    let again = import(&place, &changes, &plain).expect(0).json();
    assert_eq!(again["image"]["digest"], image["digest"]);
    for (packed, kind) in [(gzip(&plain), "gzip"), (zstd::encode_all(&plain[..], 1).unwrap(), "zstd")] {
        let record = import(&place, &[], &packed).expect(0).json();
        let layer = &record["image"]["layers"][0];
        assert_eq!(layer["digest"], Digest::of(&packed).as_str());
        assert_eq!(layer["diff_id"], diff_id.as_str());
        assert!(layer["media_type"].as_str().unwrap().ends_with(kind));
        // Without a name it is known by its digest.
        assert_eq!(record["image"]["reference"], record["image"]["digest"]);
    }
    assert_eq!(std::fs::read_dir(store(&place).root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_is_no_root_file_system_is_refused() {
    let place = Place::new();
    let good = tar(&[("a", b"1")]);
    let cut = gzip(&tar(&[("a", &vec![7; 100_000])]));
    for (bytes, expected) in [
        (Vec::new(), "nothing comes"),
        (b"hello".to_vec(), "cut short"),
        (vec![0; 1024], "no archive"),
        (tar(&[("../a", b"")]), "leads out"),
        (cut[..cut.len() - 20].to_vec(), "stdin"),
        (b"BZh91AY&SY".to_vec(), "bzip2"),
    ] {
        let ran = import(&place, &["-", "bad:1"], &bytes).expect(3);
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
    assert_eq!(count(&place, "blobs/sha256"), 0);
    for arguments in [
        &["-c", "RUN x"][..],
        &["-", "a@sha256:0000000000000000000000000000000000000000000000000000000000000000"],
        &["https://example.org/x.tar"],
        &["--platform", "x"],
        &["-", "A"],
    ] {
        import(&place, arguments, &good).expect(2);
    }
    import(&place, &["/nonexistent"], &good).expect(1);
    assert!(store(&place).images().unwrap().is_empty());
}
