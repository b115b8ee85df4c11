//! Changes as a layer.

use crate::changes::{Change, Visitor};
use crate::look::{Content, Sink};
use crate::tarball::Tarball;
use fault::Result;
use layer::ItemKind;
use layer::pack::Member;
use std::io::Write;

/// Writes a layer: what is there, whiteouts of what is not, marks of opaque directories (image-spec, layer.md).
#[derive(Debug)]
pub struct LayerTarball<W> {
    tarball: Tarball<W>,
    /// Members of the archive.
    pub members: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
    /// Files whose names begin with `.wh.`, which no layer can hold; left out.
    pub misnamed: u64,
}

impl<W: Write> LayerTarball<W> {
    /// Without sparse files: not all who read layers know them.
    pub fn new(to: W) -> LayerTarball<W> {
        LayerTarball { tarball: Tarball::new(to, false), members: 0, bytes: 0, misnamed: 0 }
    }

    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<W> {
        self.tarball.finish()
    }

    /// An empty file, which is nobody's and of no time, so that the same changes always make the same layer.
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
        self.members += 1;
        self.tarball.add(&member, Content::Nothing)
    }
}

impl<W: Write> Sink for LayerTarball<W> {
    fn add(&mut self, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        let is_misnamed =
            |path: &[u8]| path.split(|byte| *byte == b'/').any(|name| name.starts_with(b".wh."));
        if is_misnamed(member.path) || (member.kind == ItemKind::HardLink && is_misnamed(member.link)) {
            self.misnamed += 1;
            return Ok(());
        }
        self.members += 1;
        if member.kind == ItemKind::File {
            self.bytes += member.size;
        }
        self.tarball.add(member, content)
    }
}

impl<W: Write> Visitor for LayerTarball<W> {
    fn there(&mut self, _: Change, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        self.add(member, content)
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
