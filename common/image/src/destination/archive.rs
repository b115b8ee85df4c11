//! `oci-archive:FILE[:NAME]` and `docker-archive:FILE[:REF]`: one tar that is both, as `img-save` writes it.

use super::layout::entry_of;
use super::{Destination, Place, pass};
use crate::archive::write::docker_entry;
use crate::archive::{Writer, blob_path};
use crate::{Raw, Source, lock};
use fault::{Fault, Result};
use oci::manifest::{Document, Manifest, media_type};
use oci::{Descriptor, Digest, Platform, Reference};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;

pub struct ArchiveDestination {
    /// As given, or the image's own.
    name: Option<String>,
    state: Mutex<State>,
}

struct State {
    writer: Writer,
    written: HashSet<Digest>,
    root: Option<Raw>,
    /// Docker knows one image by a name: the one that suits this machine best.
    docker: Option<(Option<u32>, Manifest)>,
}

impl ArchiveDestination {
    /// `-` is stdout.
    pub fn create(file: &Path, name: Option<&str>, names: &[Reference]) -> Result<ArchiveDestination> {
        let into = Some(file).filter(|file| *file != Path::new("-"));
        let name = name.map(str::to_owned).or_else(|| names.first().map(Reference::stored_name));
        let writer = Writer::create(into)?;
        let state = State { writer, written: HashSet::new(), root: None, docker: None };
        Ok(ArchiveDestination { name, state: Mutex::new(state) })
    }
}

impl Destination for ArchiveDestination {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(lock(&self.state).written.contains(&blob.digest))
    }

    fn put(&self, blob: &Descriptor, source: &dyn Source, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut state = lock(&self.state);
        state.writer.begin(&blob_path(&blob.digest), blob.size)?;
        pass(blob, source, progress, |piece| state.writer.put(piece))?;
        state.writer.pad(blob.size)?;
        state.written.insert(blob.digest.clone());
        Ok(())
    }

    fn can_put_again(&self) -> bool {
        false
    }

    fn put_manifest(&self, raw: &Raw, place: Place<'_>) -> Result<()> {
        let mut state = lock(&self.state);
        state.writer.document(&blob_path(&raw.digest), &raw.bytes)?;
        // An artifact is nothing to docker.
        if let Ok(Document::Manifest(manifest)) = raw.document() {
            let rank = match place {
                Place::Child(platform) => platform.and_then(|platform| Platform::host().rank(platform)),
                Place::Root { .. } => Some(0),
            };
            let better = match &state.docker {
                None => true,
                Some((known, _)) => rank.is_some_and(|rank| known.is_none_or(|known| rank < known)),
            };
            if better {
                state.docker = Some((rank, manifest));
            }
        }
        if let Place::Root { .. } = place {
            state.root = Some(raw.clone());
        }
        Ok(())
    }

    /// The stream is one.
    fn lanes(&self) -> usize {
        1
    }

    fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let root = state.root.take().ok_or_else(|| Fault::failed("the archive has no image"))?;
        let reference = self
            .name
            .as_deref()
            .and_then(|name| Reference::parse(name).ok().filter(|_| name.contains([':', '/'])));
        let full = reference.as_ref().map(Reference::stored_name);
        let entry = entry_of(&root, self.name.as_deref(), full.as_deref());
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]}).to_string();
        state.writer.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        state.writer.document("index.json", index.as_bytes())?;
        if let Some((_, manifest)) = state.docker.take() {
            // A digest is no tag, and docker refuses it as one.
            let tag = reference.filter(|name| name.digest().is_none()).map(|name| name.familiar());
            let layers: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
            let entry = docker_entry(&manifest.config.digest, &layers, tag.as_slice());
            state.writer.document("manifest.json", json!([entry]).to_string().as_bytes())?;
        }
        state.writer.finish()
    }
}
