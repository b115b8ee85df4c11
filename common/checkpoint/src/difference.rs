//! What a container changed in its files, as a layer.

use fault::{Explain, Result};
use layer::ItemKind;
use layer::pack::Member;
use rootfs::{Change, Changes, Content, Sink, Tarball, Visitor};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::{BufWriter, Seek};
use store::ContainerDir;

const CHUNK: usize = 256 << 10;

/// A file without a name that holds the layer, and how many files could not be told in it because their names mean something else there.
///
/// It goes through a file because an archive tells a member's size before its content.
///
/// # Errors
/// For a container that is no overlay; when something cannot be read or the disk is full.
pub fn difference(dir: &ContainerDir) -> Result<(File, u64)> {
    let what = || format!("make a file in {}", dir.bundle.display());
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file: File = openat(CWD, &dir.bundle, flags, Mode::RUSR | Mode::WUSR).explain(what)?.into();
    let to = BufWriter::with_capacity(CHUNK, file.try_clone().explain(what)?);
    // It is read by whoever reads layers, and not all of these know sparse files.
    let mut layer = Layer { tarball: Tarball::new(to, false), misnamed: 0 };
    Changes::of(dir)?.visit(&mut layer)?;
    let misnamed = layer.misnamed;
    layer.tarball.finish()?;
    let mut file = file;
    file.rewind().explain(what)?;
    Ok((file, misnamed))
}

struct Layer {
    tarball: Tarball<BufWriter<File>>,
    misnamed: u64,
}

impl Layer {
    /// An empty file with a name that means something (image-spec, layer.md, "Whiteouts").
    fn mark(&mut self, dir: &[u8], name: &[u8]) -> Result<()> {
        let path = if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
        let member = Member {
            kind: ItemKind::File,
            path: &path,
            link: &[],
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: layer::Time::default(),
            device: (0, 0),
            xattrs: &[],
        };
        self.tarball.add(&member, Content::Nothing)
    }
}

impl Visitor for Layer {
    fn there(&mut self, _: Change, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        let is_misnamed =
            |path: &[u8]| path.split(|byte| *byte == b'/').any(|name| name.starts_with(b".wh."));
        if is_misnamed(member.path) || (member.kind == ItemKind::HardLink && is_misnamed(member.link)) {
            self.misnamed += 1;
            return Ok(());
        }
        self.tarball.add(member, content)
    }

    fn deleted(&mut self, path: &[u8], hidden: bool) -> Result<()> {
        if hidden {
            return Ok(());
        }
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        self.mark(dir, &[b".wh.", name].concat())
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        self.mark(path, b".wh..wh..opq")
    }
}
