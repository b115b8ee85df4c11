//! Layers made by hand. Shared by the tests of the tools that look into images.
#![allow(dead_code)]

use layer::pack::{Member, Packer};
use layer::{ItemKind, Time};

/// Writes an archive; every method adds an entry.
pub struct Layer(Packer<Vec<u8>>);

impl Layer {
    pub fn new() -> Layer {
        Layer(Packer::new(Vec::new()))
    }

    pub fn plain(path: &str) -> Member<'_> {
        Member {
            kind: ItemKind::File,
            path: path.as_bytes(),
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time { seconds: 1, nanoseconds: 0 },
            device: (0, 0),
            xattrs: &[],
        }
    }

    pub fn add(mut self, member: &Member<'_>, data: &[u8]) -> Layer {
        self.0.begin(&Member { size: data.len() as u64, ..*member }).unwrap();
        self.0.data(data).unwrap();
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Layer {
        self.add(&Layer::plain(path), data)
    }

    pub fn dir(self, path: &str) -> Layer {
        self.add(&Member { kind: ItemKind::Directory, mode: 0o755, ..Layer::plain(path) }, b"")
    }

    pub fn symlink(self, path: &str, to: &str) -> Layer {
        let member =
            Member { kind: ItemKind::Symlink, link: to.as_bytes(), mode: 0o777, ..Layer::plain(path) };
        self.add(&member, b"")
    }

    pub fn hard_link(self, path: &str, to: &str) -> Layer {
        self.add(&Member { kind: ItemKind::HardLink, link: to.as_bytes(), ..Layer::plain(path) }, b"")
    }

    pub fn tar(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}
