//! An archive's members handed on.

use crate::look::{Content, Sink, show};
use fault::{Fault, Result};
use layer::archive::{Archive, Entry, Kind, clean};
use layer::pack::Member;
use layer::{ItemKind, Limits, Time};
use std::io::{self, BufRead};

/// Hands the members of a plain tar on, as they come, and reads what follows its end.
///
/// # Errors
/// [`fault::Kind::Input`] for what is no archive, with the name of the member that is wrong; what the sink says.
pub fn unpack(mut input: impl BufRead, sink: &mut dyn Sink) -> Result<()> {
    check_packing(&mut input)?;
    let mut archive = Archive::new(input);
    let mut entry = Entry::default();
    let (mut path, mut link) = (Vec::new(), Vec::new());
    let mut entries = 0;
    while archive.next(&mut entry)? {
        entries += 1;
        if entries > Limits::default().entries {
            return Err(Fault::input(format!(
                "the archive has more than {} members",
                Limits::default().entries
            )));
        }
        let named = |fault: Fault| fault.on(show(&entry.raw_path));
        clean(&entry.raw_path, &mut path).map_err(named)?;
        match entry.kind {
            Kind::HardLink => clean(&entry.link, &mut link)
                .map_err(|_| named(Fault::input("its hard link leads out of the archive")))?,
            _ => link.clone_from(&entry.link),
        }
        let member = Member {
            kind: kind(entry.kind),
            path: &path,
            link: &link,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.size),
            mtime: Time {
                seconds: entry.mtime.tv_sec,
                nanoseconds: u32::try_from(entry.mtime.tv_nsec).unwrap_or(0),
            },
            device: entry.device,
            xattrs: &entry.xattrs,
        };
        let added = match entry.kind {
            Kind::File => sink.add(&member, Content::Stream(&mut archive.reader(), entry.sparse.as_ref())),
            _ => sink.add(&member, Content::Nothing),
        };
        added.map_err(|fault| fault.on(show(&entry.raw_path)))?;
    }
    // Whoever writes it is not to lose its reader before its last block is out.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| Fault::input("read the archive").because(error))?;
    Ok(())
}

fn check_packing(input: &mut impl BufRead) -> Result<()> {
    let start = input.fill_buf().map_err(|error| Fault::input("read the archive").because(error))?;
    let packing = match start {
        [] => return Err(Fault::input("nothing comes: the stage before it failed or printed nothing")),
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [b'B', b'Z', b'h', ..] => "bzip2",
        _ => return Ok(()),
    };
    Err(Fault::input(format!("the archive is packed with {packing}")).hint(format!("{packing} -dc FILE | …")))
}

fn kind(kind: Kind) -> ItemKind {
    match kind {
        Kind::File => ItemKind::File,
        Kind::HardLink => ItemKind::HardLink,
        Kind::Symlink => ItemKind::Symlink,
        Kind::CharDevice => ItemKind::CharDevice,
        Kind::BlockDevice => ItemKind::BlockDevice,
        Kind::Directory => ItemKind::Directory,
        Kind::Fifo => ItemKind::Fifo,
    }
}
