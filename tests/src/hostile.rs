//! Images nobody should have to unpack, pushed to a registry of their own.

use crate::{Bench, DockerRegistry};
use tar::{Builder, EntryType, Header};

/// A tar under construction, without the checks that a decent writer makes.
pub struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub fn new() -> Archive {
        Archive(Builder::new(Vec::new()))
    }

    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Archive {
        self.entry(EntryType::Regular, name, "", content)
    }

    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Archive {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Archive {
        self.entry(EntryType::Link, name, target, b"")
    }

    #[must_use]
    pub fn dir(self, name: &str) -> Archive {
        self.entry(EntryType::Directory, name, "", b"")
    }

    #[must_use]
    pub fn entry(mut self, kind: EntryType, name: &str, target: &str, content: &[u8]) -> Archive {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        // Written as they are: `set_path` refuses what this is for.
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        if kind == EntryType::Char {
            header.set_device_major(1).expect("ustar has devices");
            header.set_device_minor(3).expect("ustar has devices");
        }
        header.set_cksum();
        self.0.append(&header, content).expect("write to memory");
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("write to memory")
    }
}

impl Default for Archive {
    fn default() -> Archive {
        Archive::new()
    }
}

/// Pushes an image of these layers as `hostile:1` to a registry that is returned; `$H` is its address in `bench`'s scripts.
pub fn push(bench: &mut Bench, layers: &[Vec<u8>]) -> Option<DockerRegistry> {
    let dir = bench.place.path().join("hostile");
    std::fs::create_dir_all(dir.join("registry")).expect("make a directory");
    let registry = DockerRegistry::start(&dir.join("registry"), false)?;
    bench.place.set("H", registry.address());
    for (number, layer) in layers.iter().enumerate() {
        std::fs::write(dir.join(format!("{number}.tar")), layer).expect("write a layer");
    }
    bench
        .sh("cd $DIR/hostile && umoci init --layout image && umoci new --image image:1 \
             && for layer in ?.tar; do umoci raw add-layer --image image:1 $layer || exit; done \
             && skopeo --insecure-policy copy -q --dest-tls-verify=false oci:image:1 docker://$H/hostile:1")
        .expect(0);
    Some(registry)
}
