//! Reading the archive, as a stream: its first two members tell what container to make, the rest goes into that one's bundle.

use crate::{DIFFERENCE, HEAD, Head, IMAGES, LOGS, RECORD, VERSION, directory, is_image, is_log};
use fault::{Explain, Fault, Kind, Result};
use flate2::bufread::MultiGzDecoder;
use layer::archive::{Archive, Entry, Kind as EntryKind, clean};
use layer::{Expected, Limits, Target, apply};
use record::Record;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use store::ContainerDir;

const CHUNK: usize = 256 << 10;
/// Longest `checkpoint.json`, in bytes.
const MAX_HEAD_BYTES: u64 = 64 << 10;
/// Longest `container.json`, in bytes: an image's configuration is the largest part of it.
const MAX_RECORD_BYTES: u64 = 32 << 20;
/// Most images: some ten a process.
const MAX_IMAGES: usize = 1 << 20;
/// Most files of a log.
const MAX_LOGS: usize = 10_000;

/// An archive of which the head and the record are read.
pub struct Incoming<'a> {
    pub head: Head,
    pub record: Record,
    archive: Archive<Box<dyn BufRead + Send + 'a>>,
}

/// What came with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    pub images: usize,
    pub logs: usize,
    pub difference: bool,
    /// Devices and attributes of changed files that cannot be made here.
    pub left_out: u64,
}

impl<'a> Incoming<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// [`Kind::Input`] for what is no such archive.
    pub fn open(input: impl Read + Send + 'a) -> Result<Incoming<'a>> {
        let mut archive = Archive::new(inflated(BufReader::with_capacity(CHUNK, input))?);
        let foreign = |fault: Fault| {
            fault.within("it is no archive of ctr-checkpoint").hint("ctr-checkpoint --export makes one")
        };
        let text = small(&mut archive, HEAD, MAX_HEAD_BYTES).map_err(foreign)?;
        let head: Head =
            serde_json::from_str(&text).explain_as(Kind::Input, || HEAD.into()).map_err(foreign)?;
        if head.staves_checkpoint != VERSION {
            return Err(Fault::input(format!(
                "the archive has format {}, this reads {VERSION}",
                head.staves_checkpoint
            )));
        }
        let text = small(&mut archive, RECORD, MAX_RECORD_BYTES)?;
        let record = Record::parse(&text).map_err(|fault| fault.within(RECORD))?;
        Ok(Incoming { head, record, archive })
    }

    /// Puts everything else into the bundle of a container that does not run and has none of it yet.
    ///
    /// # Errors
    /// [`Kind::Input`] for a member that does not belong there, [`Kind::Failed`] for a full disk. What was placed by then stays.
    pub fn place(mut self, dir: &ContainerDir) -> Result<Placed> {
        let images = dir.bundle.join(IMAGES);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&images).explain(|| format!("mkdir {}", images.display()))?;
        let (images, bundle) = (directory(&images)?, directory(&dir.bundle)?);
        let mut placed = Placed::default();
        let mut entry = Entry::default();
        while self.archive.next(&mut entry)? {
            let path = name_of(&entry)?;
            self.member(&entry, &path, &images, &bundle, dir, &mut placed)
                .map_err(|fault| fault.on(path.as_str()))?;
        }
        if placed.images == 0 {
            return Err(Fault::input("the archive has no images of processes"));
        }
        let promised = (self.head.images, self.head.logs, self.head.rootfs);
        if (placed.images, placed.logs, placed.difference) != promised {
            return Err(Fault::input("the archive does not have the members its head promises: it was cut"));
        }
        // Whoever writes it is not to lose its reader before its last block is out.
        let mut rest = self.archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).explain_as(Kind::Input, || "read the archive".into())?;
        Ok(placed)
    }

    fn member(
        &mut self,
        entry: &Entry,
        path: &str,
        images: &OwnedFd,
        bundle: &OwnedFd,
        dir: &ContainerDir,
        placed: &mut Placed,
    ) -> Result<()> {
        let strange = || Fault::input("it does not belong into an archive of ctr-checkpoint");
        if entry.kind != EntryKind::File || entry.sparse.is_some() {
            return Err(strange());
        }
        match path.split_once('/') {
            Some((IMAGES, name)) if is_image(name) => {
                placed.images += 1;
                if placed.images > MAX_IMAGES {
                    return Err(Fault::input(format!("the archive has more than {MAX_IMAGES} images")));
                }
                self.copy(images, name)
            }
            Some((LOGS, name)) if is_log(name) => {
                placed.logs += 1;
                if placed.logs > MAX_LOGS {
                    return Err(Fault::input(format!("the archive has more than {MAX_LOGS} files of a log")));
                }
                self.copy(bundle, name)
            }
            None if path == DIFFERENCE && self.head.rootfs && !placed.difference => {
                placed.difference = true;
                let upper = directory(&dir.bundle.join("upper"))?;
                let layer = self.archive.reader();
                let done = apply(layer, Expected::default(), &Limits::default(), &mut Target::layer(upper))?;
                placed.left_out = done.skipped.devices + done.skipped.xattrs;
                Ok(())
            }
            _ => Err(strange()),
        }
    }

    /// The present member becomes a new file.
    fn copy(&mut self, directory: &OwnedFd, name: &str) -> Result<()> {
        let failed = || format!("write {name}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR).explain(failed)?;
        let mut file = File::from(file);
        loop {
            let data = self.archive.data()?;
            if data.is_empty() {
                return Ok(());
            }
            let length = data.len();
            file.write_all(data).explain(failed)?;
            self.archive.consume(length);
        }
    }
}

/// The text of the next member, which must be this one.
fn small<R: BufRead>(archive: &mut Archive<R>, wanted: &str, limit: u64) -> Result<String> {
    let mut entry = Entry::default();
    if !archive.next(&mut entry)? {
        return Err(Fault::input(format!("the archive ends where {wanted} should be")));
    }
    let path = name_of(&entry)?;
    if path != wanted || entry.kind != EntryKind::File || entry.sparse.is_some() {
        return Err(Fault::input(format!("{path} is where {wanted} should be")));
    }
    if entry.size > limit {
        return Err(Fault::input(format!("{wanted} has {} bytes, {limit} at most", entry.size)));
    }
    let mut text = Vec::new();
    loop {
        let data = archive.data()?;
        if data.is_empty() {
            break;
        }
        let length = data.len();
        text.extend_from_slice(data);
        archive.consume(length);
    }
    String::from_utf8(text).map_err(|_| Fault::input(format!("{wanted} is not UTF-8")))
}

fn name_of(entry: &Entry) -> Result<String> {
    let mut path = Vec::new();
    clean(&entry.raw_path, &mut path).map_err(|fault| fault.on(rootfs::show(&entry.raw_path)))?;
    String::from_utf8(path).map_err(|_| Fault::input("a member's name is not UTF-8"))
}

/// The stream unpacked; its first bytes tell how.
fn inflated<'a>(mut raw: impl BufRead + Send + 'a) -> Result<Box<dyn BufRead + Send + 'a>> {
    let start = raw.fill_buf().explain(|| "read the archive".into())?;
    Ok(match start {
        [] => return Err(Fault::input("the archive is empty: the stage before it failed or wrote nothing")),
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(CHUNK, MultiGzDecoder::new(raw))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw).explain(|| "start zstd".into())?;
            Box::new(BufReader::with_capacity(CHUNK, decoder))
        }
        _ => Box::new(raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, Contents, write};
    use std::path::PathBuf;

    struct Bench {
        _dir: tempfile::TempDir,
        bundle: PathBuf,
        images: PathBuf,
    }

    impl Bench {
        fn new() -> Bench {
            let dir = tempfile::tempdir().unwrap();
            let (bundle, images) = (dir.path().join("bundle"), dir.path().join("images"));
            std::fs::create_dir(&bundle).unwrap();
            std::fs::create_dir(&images).unwrap();
            std::fs::write(bundle.join("log.json"), "new\n").unwrap();
            std::fs::write(bundle.join("log.json.1.gz"), "old\n").unwrap();
            std::fs::write(bundle.join("config.json"), "{}").unwrap();
            std::fs::write(images.join("core-1.img"), "core").unwrap();
            std::fs::write(images.join("pages-1.img"), vec![7; 700_000]).unwrap();
            Bench { _dir: dir, bundle, images }
        }

        fn pack(&self, compression: Compression, difference: Option<&File>) -> Result<Vec<u8>> {
            let mut archive = Vec::new();
            let record = Record::parse(r#"{"staves":1,"config":{"tty":true},"mine":1.50}"#)?;
            let contents = Contents {
                record: &record,
                created_at: "2026-01-02T03:04:05Z",
                images: &self.images,
                difference,
                bundle: &self.bundle,
            };
            write(&mut archive, compression, &contents)?;
            Ok(archive)
        }
    }

    /// A container without anything in it.
    fn empty() -> (tempfile::TempDir, ContainerDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::at(dir.path().join("root"), dir.path().join("run"));
        let container = store.container_dir(&"a".repeat(64));
        std::fs::create_dir_all(container.bundle.join("upper")).unwrap();
        (dir, container)
    }

    /// A tar as it is, header by header.
    fn tar(members: &[(&str, tar_kind::Kind, &[u8])]) -> Vec<u8> {
        let mut packer = layer::pack::Packer::new(Vec::new());
        for (name, kind, data) in members {
            let member = layer::pack::Member {
                kind: *kind,
                path: name.as_bytes(),
                link: b"/etc/passwd",
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: data.len() as u64,
                mtime: layer::Time::default(),
                device: (1, 3),
                xattrs: &[],
            };
            packer.begin(&member).unwrap();
            packer.data(data).unwrap();
        }
        packer.finish().unwrap()
    }

    mod tar_kind {
        pub use layer::ItemKind as Kind;
    }

    const GOOD_HEAD: (&str, tar_kind::Kind, &[u8]) = (
        HEAD,
        tar_kind::Kind::File,
        br#"{"staves_checkpoint":1,"created_at":"","rootfs":false,"images":1,"logs":0}"#,
    );
    const GOOD_RECORD: (&str, tar_kind::Kind, &[u8]) = (RECORD, tar_kind::Kind::File, b"{}");
    const GOOD_IMAGE: (&str, tar_kind::Kind, &[u8]) = ("checkpoint/core-1.img", tar_kind::Kind::File, b"x");

    #[test]
    fn what_is_written_is_read() {
        let bench = Bench::new();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let archive = bench.pack(compression, None).unwrap();
            let incoming = Incoming::open(archive.as_slice()).unwrap();
            assert_eq!(incoming.record.to_line(), r#"{"staves":1,"config":{"tty":true},"mine":1.50}"#);
            assert!(!incoming.head.rootfs && incoming.head.created_at == "2026-01-02T03:04:05Z");
            let (_dir, to) = empty();
            let placed = incoming.place(&to).unwrap();
            assert_eq!(placed, Placed { images: 2, logs: 2, ..Placed::default() });
            let read = |name: &str| std::fs::read(to.bundle.join(name)).unwrap();
            assert_eq!(read("checkpoint/core-1.img"), b"core");
            assert_eq!(read("checkpoint/pages-1.img"), vec![7; 700_000]);
            assert_eq!((read("log.json"), read("log.json.1.gz")), (b"new\n".to_vec(), b"old\n".to_vec()));
            assert!(!to.bundle.join("config.json").exists());
        }
    }

    #[test]
    fn changed_files_are_a_layer() {
        let bench = Bench::new();
        let layer =
            tar(&[("new", tar_kind::Kind::File, b"content"), ("dir", tar_kind::Kind::Directory, b"")]);
        let path = bench.bundle.join("layer");
        std::fs::write(&path, layer).unwrap();
        let archive = bench.pack(Compression::Zstd, Some(&File::open(&path).unwrap())).unwrap();
        let (_dir, to) = empty();
        assert!(Incoming::open(archive.as_slice()).unwrap().place(&to).unwrap().difference);
        assert_eq!(std::fs::read(to.bundle.join("upper/new")).unwrap(), b"content");
        assert!(to.bundle.join("upper/dir").is_dir());
    }

    #[test]
    fn cut_archives_are_refused() {
        let archive = Bench::new().pack(Compression::None, None).unwrap();
        for length in (0..archive.len()).step_by(9973) {
            let (_dir, to) = empty();
            let read = Incoming::open(&archive[..length]).and_then(|incoming| incoming.place(&to));
            // Cut between members it is shorter by what comes last, as with any tar.
            assert!(read.is_err() || archive[length..].iter().all(|byte| *byte == 0), "{length}");
        }
    }

    #[test]
    fn hostile_members_stay_out() {
        use tar_kind::Kind::{CharDevice, Directory, Fifo, File, HardLink, Symlink};
        for (what, bad) in [
            ("checkpoint/../../x", File),
            ("../x", File),
            ("checkpoint/a/b", File),
            ("checkpoint/.hidden", File),
            ("config.json", File),
            ("logs/config.json", File),
            ("logs/log.json/x", File),
            (DIFFERENCE, File),
            ("checkpoint/core-2.img", Symlink),
            ("checkpoint/core-2.img", HardLink),
            ("checkpoint/core-2.img", Fifo),
            ("checkpoint/core-2.img", CharDevice),
            ("checkpoint", Directory),
            ("checkpoint/core-1.img", File),
            (HEAD, File),
        ] {
            let data: &[u8] = if bad == File { b"evil" } else { b"" };
            let archive = tar(&[GOOD_HEAD, GOOD_RECORD, GOOD_IMAGE, (what, bad, data)]);
            let (dir, to) = empty();
            let placed = Incoming::open(archive.as_slice()).unwrap().place(&to);
            assert!(placed.is_err(), "{what} {bad:?}");
            assert!(!dir.path().join("x").exists() && !to.bundle.join("config.json").exists());
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_told() {
        use tar_kind::Kind::File;
        let head = |text: &'static str| (HEAD, File, text.as_bytes());
        for archive in [
            Vec::new(),
            b"nonsense".to_vec(),
            vec![0x1f, 0x8b, 0, 0],
            vec![0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3],
            tar(&[]),
            tar(&[GOOD_RECORD, GOOD_HEAD]),
            tar(&[GOOD_HEAD]),
            tar(&[GOOD_HEAD, (RECORD, File, b"[1]")]),
            tar(&[GOOD_HEAD, (RECORD, File, br#"{"staves":2}"#)]),
            tar(&[GOOD_HEAD, (RECORD, File, b"\xff")]),
            tar(&[head("{}"), GOOD_RECORD]),
            tar(&[
                head(r#"{"staves_checkpoint":2,"created_at":"","rootfs":false,"images":1,"logs":0}"#),
                GOOD_RECORD,
            ]),
            tar(&[(HEAD, File, &vec![b' '; 100_000]), GOOD_RECORD]),
        ] {
            assert!(Incoming::open(archive.as_slice()).is_err());
        }
        let promised = head(r#"{"staves_checkpoint":1,"created_at":"","rootfs":true,"images":1,"logs":0}"#);
        for archive in [tar(&[GOOD_HEAD, GOOD_RECORD]), tar(&[promised, GOOD_RECORD, GOOD_IMAGE])] {
            let (_dir, to) = empty();
            assert!(Incoming::open(archive.as_slice()).unwrap().place(&to).is_err());
        }
    }
}
