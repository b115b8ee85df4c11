//! Sending what the registry lacks, and naming it.

use crate::Push;
use crate::args::Packing;
use crate::lanes::lanes;
use crate::plan::{Action, Blob, Plan, Source};
use crate::repack::repack;
use crate::rewrite::{self, Changed, Changes};
use cli::{Explain, Fault, Kind, Result};
use oci::manifest::media_type;
use oci::{Descriptor, Digest};
use registry::{Mount, Session};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is at the registry now.
pub struct Pushed {
    /// What the destination names: of the index where one was pushed, else of the image.
    pub named: Digest,
    /// Manifest of the record's image.
    pub manifest: Digest,
    pub index: Option<Digest>,
    /// Layers that are packed anew, by the digest they had.
    pub changes: Changes,
    /// Bytes of blobs sent.
    pub sent: u64,
}

pub fn apply(push: &Push<'_>, plan: &Plan) -> Result<Pushed> {
    let name = plan.to.stored_name();
    let sent = AtomicU64::new(0);
    let changed = lanes(&plan.blobs, push.parallel, |blob, stop| {
        let sending = Sending { push, plan, name: &name, stop, sent: &sent };
        Ok(sending.blob(blob)?.map(|changed| (blob.descriptor.digest.clone(), changed)))
    })?;
    let changes: Changes = changed.into_iter().flatten().collect();
    let (named, manifest, index) = put_manifests(plan, &changes)?;
    Ok(Pushed { named, manifest, index, changes, sent: sent.into_inner() })
}

fn put_manifests(plan: &Plan, changes: &Changes) -> Result<(Digest, Digest, Option<Digest>)> {
    let mut manifests = Changes::new();
    let mut first = None;
    for part in &plan.parts {
        let Source { bytes, media_type, descriptor } = &part.source;
        let has_changed =
            part.to_oci || part.artifact.blobs.iter().any(|blob| changes.contains_key(&blob.digest));
        let (bytes, media_type) = if has_changed {
            let kind = if part.to_oci { media_type::OCI_MANIFEST } else { media_type.as_str() };
            (rewrite::manifest(bytes, changes, part.to_oci)?, kind)
        } else {
            (bytes.clone(), media_type.as_str())
        };
        // The same bytes have the same digest, of whichever algorithm.
        let digest = if has_changed { Digest::of(&bytes) } else { descriptor.digest.clone() };
        first.get_or_insert_with(|| digest.clone());
        if plan.index.is_none() {
            if !plan.is_there {
                plan.repository.put_manifest(&bytes, media_type, plan.to.identifier())?;
            }
            return Ok((digest.clone(), digest, None));
        }
        if !plan.is_there {
            plan.repository.put_manifest(&bytes, media_type, digest.as_str())?;
        }
        if has_changed {
            let size = bytes.len() as u64;
            let new = Changed { digest, size, media_type: media_type.to_owned() };
            manifests.insert(descriptor.digest.clone(), new);
        }
    }
    let (Some(index), Some(first)) = (&plan.index, first) else {
        return Err(Fault::input("there is no image to push"));
    };
    let (bytes, kind, digest) = if manifests.is_empty() {
        (index.bytes.clone(), index.media_type.as_str(), index.descriptor.digest.clone())
    } else {
        let (bytes, kind) = rewrite::index(&index.bytes, &manifests)?;
        let digest = Digest::of(&bytes);
        (bytes, kind, digest)
    };
    if !plan.is_there {
        plan.repository.put_manifest(&bytes, kind, plan.to.identifier())?;
    }
    Ok((digest.clone(), first, Some(digest)))
}

/// One lane's view of the work.
struct Sending<'a> {
    push: &'a Push<'a>,
    plan: &'a Plan,
    name: &'a str,
    stop: &'a AtomicBool,
    sent: &'a AtomicU64,
}

impl Sending<'_> {
    fn blob(&self, blob: &Blob) -> Result<Option<Changed>> {
        let descriptor = &blob.descriptor;
        match &blob.action {
            Action::Keep => {
                self.push.progress.present(self.name, descriptor.digest.as_str());
                Ok(None)
            }
            Action::Send { mount } => {
                self.send(descriptor, mount)?;
                Ok(None)
            }
            Action::Repack { diff_id, packing, media_type } => {
                let (digest, size) = self.repack(descriptor, diff_id, *packing)?;
                Ok(Some(Changed { digest, size, media_type: (*media_type).to_owned() }))
            }
        }
    }

    fn repack(&self, descriptor: &Descriptor, diff_id: &Digest, packing: Packing) -> Result<(Digest, u64)> {
        let (push, digest) = (self.push, &descriptor.digest);
        let mut item = push.progress.start(self.name, digest.as_str(), digest.short(), None);
        let mut lost = 0;
        loop {
            let file = push.store.open_blob(digest, push.settle)?;
            let sent = repack(file, diff_id, packing, |packed| {
                let mut packed = Stoppable { reader: packed, stop: self.stop };
                self.plan.repository.put_stream(&mut packed, &mut |bytes| item.set(bytes))
            });
            match sent {
                Ok(sent) => {
                    self.sent.fetch_add(sent.1, Ordering::Relaxed);
                    item.done();
                    return Ok(sent);
                }
                // The registry has lost it, and what was packed is gone: from the beginning.
                Err(fault) if fault.kind() == Kind::Conflict => {
                    if lost == push.repacks {
                        return Err(fault.as_kind(Kind::Retryable));
                    }
                    lost += 1;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn send(&self, descriptor: &Descriptor, mount: &[String]) -> Result<()> {
        let mut session = None;
        for path in mount {
            match self.mount(descriptor, path)? {
                Mount::Done => {
                    self.push.progress.present(self.name, descriptor.digest.as_str());
                    return Ok(());
                }
                Mount::Open(open) => session = Some(open),
                Mount::Refused => {}
            }
        }
        self.upload(descriptor, session)
    }

    fn mount(&self, descriptor: &Descriptor, path: &str) -> Result<Mount> {
        let refused = || self.push.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = format!("{}/{path}", self.plan.repository.domain());
        if refused().contains(&at) {
            return Ok(Mount::Refused);
        }
        let mounted = self.plan.repository.mount_blob(&descriptor.digest, path)?;
        if matches!(mounted, Mount::Refused) {
            // Not for each layer again.
            refused().insert(at);
        }
        Ok(mounted)
    }

    fn upload(&self, descriptor: &Descriptor, session: Option<Session>) -> Result<()> {
        let digest = &descriptor.digest;
        let mut item =
            self.push.progress.start(self.name, digest.as_str(), digest.short(), Some(descriptor.size));
        let mut source = |from: u64| -> Result<Box<dyn Read + Send + '_>> {
            let mut file: File = self.push.store.open_blob(digest, self.push.settle)?;
            file.seek(SeekFrom::Start(from)).explain(|| format!("read blob {digest}"))?;
            Ok(Box::new(Stoppable { reader: file, stop: self.stop }))
        };
        self.plan.repository.put_blob(descriptor, session, &mut source, &mut |bytes| item.set(bytes))?;
        self.sent.fetch_add(descriptor.size, Ordering::Relaxed);
        item.done();
        Ok(())
    }
}

/// Ends what is being sent when something else has failed.
struct Stoppable<'a, R> {
    reader: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Fault::failed("another blob failed")));
        }
        self.reader.read(buffer)
    }
}
