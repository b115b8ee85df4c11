//! Archives of images, as `img-load` takes them: whatever is in one, what the store lists afterwards is whole.
//!
//! Input: the archive, packed or not.

use super::scratch::Scratch;
use ::image::archive::{Contents, Keeper, images};
use ::image::{Loader, Raw};
use fault::{Fault, Kind, Result};
use oci::digest::{Algorithm, Hasher};
use oci::manifest::{MAX_LAYERS, MAX_MANIFEST_BYTES};
use oci::{Digest, Document, Platform};
use store::{Settle, Store};

/// More than any input unpacks to that is worth its time.
const MAX_UNPACKED: u64 = 8 << 20;

pub fn check(data: &[u8]) {
    let mut keeper = Hashing::default();
    let contents = match ::image::archive::inflate::inflated(data)
        .and_then(|input| Contents::read(input, &mut keeper))
    {
        Ok(contents) => contents,
        Err(fault) => return assert!(matches!(fault.kind(), Kind::Input | Kind::Failed), "{fault}"),
    };
    let platform = Platform::parse("linux/amd64").expect("a platform");
    let found = images(&contents, &platform, &mut |_| Ok(false));
    for image in found.iter().flatten().flatten() {
        assert!(image.manifest.layers.len() <= MAX_LAYERS);
        assert_eq!(Digest::of(&image.text.bytes).hex().len(), 64);
        // Nothing is taken for an image's that the archive did not have.
        for layer in &image.manifest.layers {
            assert!(keeper.kept.contains(&(layer.digest.clone(), layer.size)), "{}", layer.digest);
        }
    }
    if found.is_ok_and(|found| !found.is_empty()) {
        load(data, &platform);
    }
}

/// Into a store, the same archive twice.
fn load(data: &[u8], platform: &Platform) {
    let yard = Scratch::new("archive");
    let (store, settle) = (Store::at(yard.path().join("root"), yard.path().join("run")), Settle::new());
    for _ in 0..2 {
        let mut progress = |_: &str, _: u64| {};
        let mut loader = Loader { store: &store, settle: &settle, platform, progress: &mut progress };
        let Ok(found) = loader.read(data) else { break };
        for image in found.iter().flatten() {
            // As img-load does it; what is left out stays unlisted.
            let _ = loader.list(image, None);
        }
    }
    for entry in store.images().expect("the list") {
        let manifest = store.read_blob(entry.digest(), MAX_MANIFEST_BYTES).expect("its manifest");
        let raw = Raw::new(manifest, entry.digest().clone(), Some(&entry.descriptor.media_type));
        let Ok(Document::Manifest(manifest)) = raw.expect("a manifest").document() else {
            panic!("{} is listed and no image", entry.digest());
        };
        let config = store.read_config(&manifest).expect("its configuration");
        manifest.layers_with_diff_ids(&config).expect("diff ids for its layers");
        for layer in &manifest.layers {
            assert!(
                store.has_blob(&layer.digest, Some(layer.size), &settle).expect("a store"),
                "{}",
                layer.digest
            );
        }
    }
    assert_eq!(std::fs::read_dir(yard.path().join("root/tmp")).map_or(0, Iterator::count), 0);
    assert!(std::fs::read_dir(yard.path()).expect("it is there").count() <= 2);
}

/// Keeps digests, and nothing else.
#[derive(Default)]
struct Hashing {
    now: Option<(Hasher, Option<Digest>, u64, u64)>,
    kept: Vec<(Digest, u64)>,
    total: u64,
}

impl Keeper for Hashing {
    fn has(&mut self, digest: &Digest, size: u64, _: u64) -> Result<bool> {
        Ok(self.kept.contains(&(digest.clone(), size)))
    }

    fn begin(&mut self, path: &str, digest: Option<&Digest>, size: u64, _: u64) -> Result<()> {
        assert!(self.now.is_none(), "{path} begins within another");
        assert!(!path.split('/').any(|part| part == ".."), "{path}");
        let algorithm = digest.map_or(Algorithm::Sha256, Digest::algorithm);
        self.now = Some((Hasher::new(algorithm), digest.cloned(), size, 0));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (hasher, _, size, written) = self.now.as_mut().expect("a member");
        hasher.update(bytes);
        *written += bytes.len() as u64;
        assert!(written <= size, "more bytes than the header said");
        self.total += bytes.len() as u64;
        if self.total > MAX_UNPACKED { Err(Fault::input("enough")) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<Digest> {
        let (hasher, promised, size, written) = self.now.take().expect("a member");
        assert_eq!(size, written);
        let digest = hasher.finish();
        if promised.is_some_and(|promised| promised != digest) {
            return Err(Fault::input("another digest"));
        }
        self.kept.push((digest.clone(), size));
        Ok(digest)
    }
}
