//! Sending blobs and manifests (distribution spec, "Push").
//!
//! A small blob goes in one piece. A large one goes as a stream into an upload that the registry keeps, so that after a
//! cut it can be asked what arrived. An address the registry gives for that may be anybody's: it gets no credentials
//! unless it is the registry's own, and nothing unencrypted where the registry is spoken to in TLS.

mod session;

use crate::blob::own_failure;
use crate::referrers::subject_of;
use crate::repository::{Repository, Target, content_length, header, lock};
use crate::retry::{Failed, Patience};
use crate::transport::Content;
use fault::{Fault, Kind, Result};
use oci::digest::{Algorithm, Hasher};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Descriptor, Digest};
use session::Upload;
use std::io::Read;
use ureq::http::Method;

/// Blobs up to this size are sent in one piece, and from the beginning again when that is cut.
const MONOLITHIC: u64 = 1 << 20;
/// Bytes of a stream of unknown length that are sent at a time, and kept until they have arrived.
const CHUNK: usize = 4 << 20;

/// An upload that a registry has opened.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where the next piece goes.
    location: String,
    /// `OCI-Chunk-Min-Length`: pieces but the last one may not be smaller.
    least: u64,
}

/// What came of [`Repository::mount_blob`].
#[derive(Debug)]
pub enum Mount {
    /// The repository has the blob now.
    Done,
    /// It does not; the registry opened an upload instead.
    Open(Session),
    /// It does not, and said no more.
    Refused,
}

/// A manifest that a registry took.
#[derive(Clone, Debug)]
pub struct Stored {
    pub digest: Digest,
    /// `OCI-Subject`: the registry lists it among the referrers of this digest. `None` from one that does not know
    /// referrers: it is listed in a tag then, if it has a subject.
    pub subject: Option<Digest>,
}

/// Where a blob's bytes come from: all of them but the first so many.
pub type Source<'a> = dyn FnMut(u64) -> Result<Box<dyn Read + Send + 'a>> + 'a;

impl Repository {
    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// As [`Repository::manifest`].
    pub fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let what = format!("blobs/{}", descriptor.digest);
        Patience::new(&self.transport.options).until_done(|| match self.request(&Method::HEAD, &what, &[]) {
            // One of another size is sent again: the registry will find out what is wrong with it.
            Ok(response) => Ok(content_length(&response).is_none_or(|length| length == descriptor.size)),
            Err(Failed::Finally(fault)) if fault.kind() == Kind::NotFound => Ok(false),
            Err(failed) => Err(failed),
        })
    }

    /// Asks for a blob that another repository of the same registry has (distribution spec, "Mounting a blob from
    /// another repository"). That it is refused, for whatever reason, is no failure.
    ///
    /// # Errors
    /// When the registry cannot be reached, or is busy for too long.
    pub fn mount_blob(&self, digest: &Digest, from: &str) -> Result<Mount> {
        self.want("pull,push")?;
        let widening = lock(&self.widening);
        let is_new = self.want_from(from);
        let _widening = is_new.then_some(widening);
        let what = format!("blobs/uploads/?mount={digest}&from={}", crate::transport::encode(from));
        let target = if is_new { Target::Anew(&what) } else { Target::Below(&what) };
        let mounted = Patience::new(&self.transport.options).until_done(|| {
            let response = self.request_with(&Method::POST, target, &[], &mut Content::Bytes(&[]))?;
            if response.status().as_u16() == 201 {
                return Ok(Mount::Done);
            }
            // Another answer without an address is no upload either.
            Ok(session::opened(self, &what, &response).map_or(Mount::Refused, Mount::Open))
        });
        match mounted {
            Err(fault) if matches!(fault.kind(), Kind::Denied | Kind::NotFound | Kind::Input) => {
                // Perhaps only the other repository may not be read.
                self.want_no_more_from(from);
                Ok(Mount::Refused)
            }
            other => other,
        }
    }

    /// Sends a blob, telling `progress` how many bytes are on their way. `session` is one that is open already.
    ///
    /// # Errors
    /// [`Kind::Denied`], [`Kind::NotFound`], [`Kind::Retryable`]; [`Kind::Input`] when the registry refuses it or got something
    /// else than was sent; what `source` and its readers say.
    pub fn put_blob(
        &self,
        descriptor: &Descriptor,
        session: Option<Session>,
        source: &mut Source<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        self.want("pull,push")?;
        let mut upload = Upload::new(self, session);
        upload.until_done(|upload| {
            if !upload.is_open() {
                // The end of an upload may have arrived although its answer did not.
                if upload.was_lost() && self.has_blob(descriptor)? {
                    return Ok(());
                }
                upload.open()?;
            }
            let (size, arrived) = (descriptor.size, upload.arrived());
            if arrived > size {
                return Err(upload.absurd(size));
            }
            if arrived == 0 && size <= MONOLITHIC {
                let bytes = whole(source(0)?, size)?;
                progress(size);
                return upload.finish(&descriptor.digest, &bytes);
            }
            if arrived < size {
                let mut reader = source(arrived)?;
                upload.send(&mut reader, size - arrived, progress)?;
            }
            upload.finish(&descriptor.digest, &[])
        })
    }

    /// Sends a blob whose size and digest are not known before its end, and tells them.
    ///
    /// # Errors
    /// As [`Repository::put_blob`]; [`Kind::Conflict`] when the registry loses an upload, as what was read is gone.
    pub fn put_stream(&self, reader: &mut dyn Read, progress: &mut dyn FnMut(u64)) -> Result<(Digest, u64)> {
        self.want("pull,push")?;
        let mut upload = Upload::new(self, None);
        upload.until_done(Upload::open)?;
        let chunk = upload.chunk(CHUNK)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = Vec::with_capacity(chunk);
        let mut total = 0u64;
        loop {
            buffer.clear();
            (&mut *reader).take(chunk as u64).read_to_end(&mut buffer).map_err(own_failure)?;
            hasher.update(&buffer);
            let start = total;
            total += buffer.len() as u64;
            if buffer.len() < chunk {
                let digest = hasher.finish();
                let rest = &buffer;
                upload.until_done(|upload| {
                    upload.must_be_open()?;
                    if start > 0 {
                        upload.send_chunk(start, rest, progress)?;
                        return upload.finish(&digest, &[]);
                    }
                    upload.finish(&digest, rest)
                })?;
                progress(total);
                return Ok((digest, total));
            }
            upload.until_done(|upload| {
                upload.must_be_open()?;
                upload.send_chunk(start, &buffer, progress)
            })?;
        }
    }

    /// Puts a manifest or an index under a tag or its digest (distribution spec, "Pushing Manifests"). One that is about another
    /// is listed with that, by the registry or else in the tag that stands in for its list.
    ///
    /// # Errors
    /// As [`Repository::put_blob`]; [`Kind::Input`] when the registry says it has another digest; [`Kind::Conflict`] when others
    /// change the list again and again. The manifest is there when only the list could not be changed.
    pub fn put_manifest(&self, bytes: &[u8], media_type: &str, identifier: &str) -> Result<Stored> {
        let stored = self.put_raw(bytes, media_type, identifier)?;
        if let Some((subject, artifact)) = subject_of(bytes, Some(media_type))
            && stored.subject.as_ref() != Some(&subject.digest)
        {
            self.list_referrer(&subject.digest, bytes, &stored.digest, &artifact)?;
        }
        Ok(stored)
    }

    pub(crate) fn put_raw(&self, bytes: &[u8], media_type: &str, identifier: &str) -> Result<Stored> {
        self.want("pull,push")?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Fault::input(format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
        }
        let algorithm = Digest::parse(identifier).map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        let digest = hasher.finish();
        if Digest::parse(identifier).is_ok_and(|asked| asked != digest) {
            return Err(Fault::input(format!(
                "the manifest does not have the digest {identifier} but {digest}"
            )));
        }
        let what = format!("manifests/{identifier}");
        Patience::new(&self.transport.options).until_done(|| {
            let headers = [("content-type", media_type.to_owned())];
            let response =
                self.request_with(&Method::PUT, Target::Below(&what), &headers, &mut Content::Bytes(bytes))?;
            check_digest(&response, &digest)?;
            let subject = header(&response, "oci-subject").and_then(|text| Digest::parse(text).ok());
            Ok(Stored { digest: digest.clone(), subject })
        })
    }

    /// Removes a manifest by its digest, or a tag (distribution spec, "Deleting"; registries may refuse either). A manifest that
    /// was about another is taken out of the tag that lists it there, unless the registry lists referrers itself.
    ///
    /// # Errors
    /// As [`Repository::manifest`]; [`Kind::Denied`] where nothing can be removed.
    pub fn delete_manifest(&self, identifier: &str) -> Result<()> {
        self.want("pull,push,delete")?;
        let listed = match Digest::parse(identifier) {
            // It says itself what it is about, as long as it is there.
            Ok(digest) => {
                let fetched = self.manifest(identifier)?;
                let subject = subject_of(&fetched.bytes, fetched.media_type.as_deref());
                subject.map(|(subject, _)| (subject.digest, digest))
            }
            Err(_) => None,
        };
        let what = format!("manifests/{identifier}");
        let deleted = Patience::new(&self.transport.options)
            .until_done(|| self.request(&Method::DELETE, &what, &[]).map(drop));
        deleted.map_err(|fault| match fault.kind() {
            // 405 and 400 UNSUPPORTED.
            Kind::Input => fault.as_kind(Kind::Denied).within("it cannot be removed"),
            _ => fault,
        })?;
        match listed {
            Some((subject, own)) if self.listed_referrers(&subject, None)?.is_none() => {
                self.unlist_referrer(&subject, &own)
            }
            _ => Ok(()),
        }
    }
}

/// What the registry calls what it got, if it says so.
fn check_digest(response: &ureq::http::Response<ureq::Body>, expected: &Digest) -> Result<()> {
    let said = header(response, "docker-content-digest").and_then(|text| Digest::parse(text).ok());
    match said {
        // Of another algorithm it may be right as well.
        Some(said) if said.algorithm() == expected.algorithm() && said != *expected => {
            Err(Fault::input(format!("the registry has {said} where {expected} was sent")))
        }
        _ => Ok(()),
    }
}

/// A small blob.
fn whole(reader: impl Read, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    reader.take(size).read_to_end(&mut bytes).map_err(own_failure)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(session::ended(bytes.len() as u64, size)) }
}
