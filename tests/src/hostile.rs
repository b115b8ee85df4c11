//! Images nobody should have to unpack, pushed to a registry of their own.

use crate::{Bench, DockerRegistry, FakeRegistry};
use oci::{Digest, Platform};
use serde_json::json;
use std::path::Path;
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

    /// A header whose size is these twelve bytes, and nothing behind it.
    #[must_use]
    pub fn header(mut self, kind: EntryType, name: &str, size: [u8; 12]) -> Archive {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.size = size;
        header.set_cksum();
        self.0.get_mut().extend_from_slice(header.as_bytes());
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

/// What `docker save` writes of an image with these layers, which may be packed.
pub fn docker_archive(layers: &[Vec<u8>], diff_ids: &[Digest]) -> Vec<u8> {
    let config = json!({"os": "linux", "architecture": Platform::host().architecture,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let paths: Vec<String> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
    let list = json!([{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": paths}]);
    let mut archive = Archive::new()
        .file("c.json", config.to_string().as_bytes())
        .file("manifest.json", list.to_string().as_bytes());
    for (path, layer) in paths.iter().zip(layers) {
        archive = archive.file(path, layer);
    }
    archive.finish()
}

/// Documents and blobs of an image as somebody might make them up.
#[derive(Clone, Debug, Default)]
pub struct MadeUp {
    /// What the name stands for, and the media type it is handed over with.
    pub root: Vec<u8>,
    pub media_type: String,
    /// Documents it points to, with their media types.
    pub documents: Vec<(Vec<u8>, String)>,
    /// By the name they have, which need not be theirs.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

impl MadeUp {
    /// To a registry, as `made-up:1`.
    pub fn push(&self, registry: &FakeRegistry) {
        for (_, blob) in &self.blobs {
            registry.put_blob(blob);
        }
        for (number, (document, media_type)) in self.documents.iter().enumerate() {
            registry.put_manifest("made-up", &format!("part{number}"), media_type, document);
        }
        registry.put_manifest("made-up", "1", &self.media_type, &self.root);
    }

    /// As an image layout in a directory, where it is called `made-up:1`.
    pub fn layout(&self, dir: &Path) {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("make a directory");
        let put = |digest: &Digest, bytes: &[u8]| {
            std::fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).expect("write a blob");
        };
        put(&Digest::of(&self.root), &self.root);
        self.documents.iter().for_each(|(bytes, _)| put(&Digest::of(bytes), bytes));
        self.blobs.iter().for_each(|(digest, bytes)| put(digest, bytes));
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": self.media_type,
            "digest": Digest::of(&self.root), "size": self.root.len(),
            "annotations": {"org.opencontainers.image.ref.name": "made-up:1"}}]});
        std::fs::write(dir.join("index.json"), index.to_string()).expect("write a file");
        std::fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).expect("write a file");
    }
}
