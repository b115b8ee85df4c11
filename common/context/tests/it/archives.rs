//! ADD of archives, and archives as whole contexts.

use crate::place::{How, Place, copy, fill, list, mode, owner};
use crate::server::{Page, Server};
use context::web::Web;
use context::{AddSource, Fetched, Fetching, Options, Ownership, Source, Times};
use fault::Kind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use store::Store;
use testkit::{find_program, is_root, skip};

const UNPACK: How<'_> = How { ownership: Ownership::Keep, chmod: None, times: Times::Keep, unpack: true };

/// An archive made by tar(1), packed by one of tar's options.
fn tar(dir: &Path, to: &Path, packing: &str) {
    let status = Command::new("tar")
        .arg("-C")
        .arg(dir)
        .args([packing, "-cf"])
        .arg(to)
        .arg(".")
        .status()
        .expect("run tar");
    assert!(status.success(), "tar {packing}");
}

fn source(place: &Place) -> std::path::PathBuf {
    let dir = place.dir.path().join("source");
    fill(&dir, &["a", "d/b", "d/l -> ../a", "d/.wh.c", "e/.wh..wh..opq"]);
    dir
}

const UNPACKED: [&str; 9] = [
    "x/",
    "x/a=a",
    "x/d/",
    "x/d/.wh.c=d/.wh.c",
    "x/d/b=d/b",
    "x/d/l -> ../a",
    "x/e/",
    "x/e/.wh..wh..opq=e/.wh..wh..opq",
    "",
];

#[test]
fn archives_are_unpacked_however_they_are_packed_and_called() {
    for (packing, program) in
        [("--no-recursion", ""), ("--gzip", "gzip"), ("--xz", "xz"), ("--bzip2", "bzip2"), ("--zstd", "zstd")]
    {
        if !program.is_empty() && find_program(program).is_none() {
            skip(&format!("there is no program {program}"));
            continue;
        }
        let packing = if program.is_empty() { "--format=pax" } else { packing };
        let place = Place::new();
        tar(&source(&place), &place.context().join("picture.png"), packing);
        let chosen = place.select(&["picture.png"]).unwrap();
        let written = place.write(&chosen, "/x", &UNPACK).unwrap();
        assert_eq!(list(&place.root()), UNPACKED[..8], "{packing}");
        assert_eq!(written.unpacked, 1);
        // COPY, and ADD --unpack=false, copy it as it is.
        place.write(&chosen, "/as-is", &How::default()).unwrap();
        let (ours, theirs) = (place.root().join("as-is"), place.context().join("picture.png"));
        assert_eq!(std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());
        // Again into what is there.
        place.write(&chosen, "/x/", &UNPACK).unwrap();
        assert_eq!(list(&place.root())[1..], UNPACKED[..8], "{packing}");
    }
}

#[test]
fn an_archive_that_is_another_than_its_digest_says_is_told_of() {
    let place = Place::new();
    let archive = place.context().join("t");
    tar(&source(&place), &archive, "--format=ustar");
    let chosen = place.select(&["t"]).unwrap();
    chosen.digest().unwrap();
    assert_eq!(place.write(&chosen, "/x", &UNPACK).unwrap().changed, Vec::<String>::new());
    tar(&source_with_more(&place), &archive, "--format=ustar");
    assert_eq!(place.write(&chosen, "/x", &UNPACK).unwrap().changed, ["t"]);
}

fn source_with_more(place: &Place) -> std::path::PathBuf {
    let dir = place.dir.path().join("more");
    fill(&dir, &["more"]);
    dir
}

#[test]
fn what_is_no_archive_is_copied() {
    let place = Place::new();
    fill(&place.context(), &["a.tar", "d/inner"]);
    std::fs::write(place.context().join("empty.tar"), []).unwrap();
    std::fs::write(place.context().join("zeros.tar"), [0; 10240]).unwrap();
    std::fs::write(place.context().join("x.gz"), b"\x1f\x8b\x08 no gzip").unwrap();
    std::fs::write(place.context().join("x.bz2"), b"BZh9 no bzip2 at all").unwrap();
    std::fs::write(place.context().join("x.xz"), b"\xfd7zXZ\0 no xz").unwrap();
    tar(&place.context().join("d"), &place.context().join("d/in-a-directory.tar"), "--format=ustar");
    let chosen = place.select(&["*"]).unwrap();
    let written = place.write(&chosen, "/x/", &UNPACK).unwrap();
    assert_eq!((written.unpacked, written.files), (0, 8));
    // Archives in directories are files like any other.
    assert!(
        place.root().join("x/in-a-directory.tar").is_file() && place.root().join("x/zeros.tar").is_file()
    );
}

#[test]
fn what_is_there_is_merged_or_replaced() {
    let place = Place::new();
    tar(&source(&place), &place.context().join("t"), "--format=ustar");
    fill(&place.root(), &["x/a/old", "x/d/kept", "x/e -> /elsewhere", "elsewhere/"]);
    let chosen = place.select(&["t"]).unwrap();
    place.write(&chosen, "/x", &UNPACK).unwrap();
    let after = list(&place.root());
    assert!(
        after.contains(&"x/a=a".to_owned()) && after.contains(&"x/d/kept=x/d/kept".to_owned()),
        "{after:?}"
    );
    assert!(
        after.contains(&"x/e/.wh..wh..opq=e/.wh..wh..opq".to_owned()) && after[0] == "elsewhere/",
        "{after:?}"
    );
    fill(&place.root(), &["file"]);
    assert_eq!(place.write(&chosen, "/file", &UNPACK).unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn owners_and_times_are_the_archives_unless_others_are_asked_for() {
    if !is_root() {
        return skip("files of others take root");
    }
    let place = Place::new();
    let dir = source(&place);
    let archive = place.context().join("t");
    let status = Command::new("tar")
        .args(["--owner=5", "--group=6", "--mtime=@77", "--mode=u=rwx,go=", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&dir)
        .arg("a")
        .arg("d")
        .status()
        .expect("run tar");
    assert!(status.success());
    let chosen = place.select(&["t"]).unwrap();
    place.write(&chosen, "/x", &UNPACK).unwrap();
    let at = |name: &str| place.root().join(name);
    let time = |name: &str| at(name).symlink_metadata().unwrap().mtime();
    for name in ["x/a", "x/d", "x/d/b", "x/d/l"] {
        assert_eq!((owner(&at(name)), time(name)), ((5, 6), 77), "{name}");
    }
    assert_eq!((mode(&at("x/a")), owner(&at("x"))), (0o700, (0, 0)));
    let how = How { ownership: Ownership::To { uid: 8, gid: 9 }, times: Times::At(99), ..UNPACK };
    place.write(&chosen, "/y/z", &how).unwrap();
    for name in ["y", "y/z", "y/z/a", "y/z/d", "y/z/d/b", "y/z/d/l"] {
        assert_eq!((owner(&at(name)), time(name)), ((8, 9), 99), "{name}");
    }
}

/// An archive as tar(1) makes none: names, and what those that are links lead to.
fn raw_tar(members: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, link) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        for field in [108, 116, 124, 136] {
            header[field..field + 7].copy_from_slice(b"0000000");
        }
        header[156] = if link.is_empty() { b'0' } else { b'2' };
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        header[154] = 0;
        bytes.extend_from_slice(&header);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn where_it_is_unpacked_stays_a_directory() {
    let place = Place::new();
    let bytes = raw_tar(&[("", ""), (".", "elsewhere"), ("file", "")]);
    std::fs::write(place.context().join("odd.tar"), bytes).unwrap();
    let chosen = place.select(&["odd.tar"]).unwrap();
    place.write(&chosen, "/x/", &UNPACK).unwrap();
    assert!(place.root().join("x").is_dir());
    assert!(place.root().join("x/file").is_file());
}

#[test]
fn archives_cannot_lead_out() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for (number, members) in [
        &[("../outside/escaped", ""), ("ok", "")][..],
        &[("l", "../../outside"), ("l/escaped", "")],
        &[("l", outside.to_str().unwrap()), ("l/escaped", "")],
        &[("/../../escaped", "")],
    ]
    .iter()
    .enumerate()
    {
        let bytes = raw_tar(members);
        let name = format!("hostile-{number}");
        std::fs::write(place.context().join(&name), bytes).unwrap();
        let chosen = place.select(&[&name]).unwrap();
        // Refused, or inside: never out.
        let outcome = place.write(&chosen, "/x/y", &UNPACK);
        assert!(number == 1 || number == 2 || outcome.is_err(), "{members:?}");
        assert_eq!(list(&outside), Vec::<String>::new(), "{members:?}");
        assert!(!place.dir.path().join("escaped").exists() && !Path::new("/escaped").exists());
    }
}

fn fetch(place: &Place, argument: &str, mut stdin: &[u8]) -> fault::Result<Fetched> {
    let store = Store::at(place.dir.path().join("store"), place.dir.path().join("run"));
    let web = Web::new(&store, registry::Client::new(registry::Options::default()));
    Source::of(argument)?.fetch(Fetching { store: &store, web: &web, stdin: &mut stdin })
}

#[test]
fn arguments_mean_what_they_mean_to_docker() {
    let place = Place::new();
    fill(&place.context(), &["file", "github.com/a/b/"]);
    let there = place.context();
    assert_eq!(Source::of("-").unwrap(), Source::Stdin);
    assert_eq!(Source::of(there.to_str().unwrap()).unwrap(), Source::Directory(there.clone()));
    assert!(
        matches!(Source::of("https://h/x.git#main").unwrap(), Source::Git(url) if url.reference.as_deref() == Some("main"))
    );
    assert!(
        matches!(Source::of("github.com/no/such").unwrap(), Source::Git(url) if url.remote == "https://github.com/no/such")
    );
    assert_eq!(Source::of("http://h/x.tar").unwrap(), Source::Url("http://h/x.tar".into()));
    assert_eq!(Source::of(there.join("file").to_str().unwrap()).unwrap_err().kind(), Kind::Input);
    assert_eq!(Source::of("./no/such").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(AddSource::of("github.com/a/b").unwrap(), AddSource::Local);
    assert_eq!(AddSource::of("https://h/x").unwrap(), AddSource::Url);
    assert!(matches!(AddSource::of("git@h:x").unwrap(), AddSource::Git(_)));
    assert!(AddSource::of("https://h/x.git?what").is_err());
}

#[test]
fn whole_contexts_come_as_archives() {
    let (place, server) = (Place::new(), Server::new());
    let dir = source(&place);
    fill(&dir, &["Dockerfile", ".dockerignore"]);
    for packing in ["--format=ustar", "--gzip"] {
        let archive = place.dir.path().join("context.tar");
        tar(&dir, &archive, packing);
        let bytes = std::fs::read(&archive).unwrap();
        let url = server.put("/context", vec![Page { body: bytes.clone(), ..Page::default() }]);
        for (argument, stdin) in [("-", bytes.as_slice()), (url.as_str(), &[])] {
            let fetched = fetch(&place, argument, stdin).unwrap();
            let Fetched::Directory { path, scratch: Some(scratch), commit: None } = &fetched else {
                panic!("{fetched:?}")
            };
            assert_eq!(path, scratch.path());
            assert!(list(path).contains(&"Dockerfile=Dockerfile".to_owned()));
            drop(fetched);
            assert_eq!(list(&place.dir.path().join("store/tmp")), Vec::<String>::new());
        }
    }
}

#[test]
fn a_dockerfile_alone_is_a_context_too() {
    let (place, server) = (Place::new(), Server::new());
    let text = b"FROM scratch\n";
    let url = server.put("/Dockerfile", vec![Page { body: text.to_vec(), ..Page::default() }]);
    for (argument, stdin) in [("-", text.as_slice()), (url.as_str(), &[])] {
        let Fetched::Dockerfile(found) = fetch(&place, argument, stdin).unwrap() else {
            panic!("{argument}")
        };
        assert_eq!(found, text);
    }
    for bad in [&b""[..], b"\0\0\0", b"\x1f\x8b\x08\0\0\0 cut", &b"#\n".repeat(9 << 20)] {
        assert_eq!(
            fetch(&place, "-", bad).unwrap_err().kind(),
            Kind::Input,
            "{:?}",
            &bad[..bad.len().min(20)]
        );
    }
    let mut cut = std::fs::read(archive_of(&place)).unwrap();
    cut.truncate(cut.len() / 2);
    assert_eq!(fetch(&place, "-", &cut).unwrap_err().kind(), Kind::Input);
    assert_eq!(list(&place.dir.path().join("store/tmp")), Vec::<String>::new());
}

fn archive_of(place: &Place) -> std::path::PathBuf {
    let (dir, archive) = (source(place), place.dir.path().join("some.tar"));
    std::fs::write(dir.join("large"), vec![b'x'; 100_000]).unwrap();
    tar(&dir, &archive, "--format=ustar");
    archive
}

#[test]
fn an_address_is_unpacked_if_asked_for() {
    let (place, server) = (Place::new(), Server::new());
    let bytes = std::fs::read(archive_of(&place)).unwrap();
    let url = server.put("/t.tar", vec![Page { body: bytes, ..Page::default() }]);
    let store = Store::at(place.dir.path().join("store"), place.dir.path().join("run"));
    let page =
        Web::new(&store, registry::Client::new(registry::Options::default())).fetch(&url, None).unwrap();
    let chosen = page.context().unwrap().select(&[&page.name], &Options::default()).unwrap();
    place.write(&chosen, "/whole/", &How::default()).unwrap();
    place.write(&chosen, "/parts/", &UNPACK).unwrap();
    assert!(place.root().join("whole/t.tar").is_file() && place.root().join("parts/d/b").is_file());
    let _ = copy();
}
