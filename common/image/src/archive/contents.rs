//! What a tar archive of images has in it, taken in one pass: the reader may be a pipe.
//!
//! Two families write such archives: OCI image layouts (image-layout.md) and `docker save`, whose members are named by its
//! `manifest.json`, often the last of them. So every member that can be part of an image is kept by its content as it
//! passes; what it is for is known at the end.

use fault::{Fault, Result};
use layer::archive::{Archive, Entry, Kind, clean};
use oci::manifest::MAX_CONFIG_BYTES;
use oci::{Digest, manifest::MAX_MANIFEST_BYTES};
use std::collections::HashMap;
use std::io::BufRead;

/// Members of an archive; docker's have three for each layer.
const MAX_MEMBERS: usize = 100_000;
/// Documents of all members together, which are held in memory.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// `index.json` and `manifest.json` name every image.
const MAX_LIST: u64 = 16 << 20;
/// Links to links are followed so far.
const MAX_LINKS: usize = 16;

/// A member's content where it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub digest: Digest,
    pub size: u64,
    /// Its first bytes, which tell how it is packed.
    pub start: Vec<u8>,
}

/// Takes members while they pass.
pub trait Keeper {
    /// Whether the content of a blob that is known by its name is there already; it is passed over then.
    fn has(&mut self, digest: &Digest, size: u64, offset: u64) -> Result<bool>;
    /// Begins a member; `digest` is what its name promises, `offset` where its content begins in the archive.
    fn begin(&mut self, path: &str, digest: Option<&Digest>, size: u64, offset: u64) -> Result<()>;
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// The member is complete: its digest.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] when it is not what its name promised.
    fn end(&mut self) -> Result<Digest>;
}

/// An archive after its last member.
#[derive(Debug, Default)]
pub struct Contents {
    /// Members that are or may be JSON documents, by path.
    documents: HashMap<String, Vec<u8>>,
    document_bytes: u64,
    members: HashMap<String, Member>,
    links: HashMap<String, String>,
}

/// What a member can be, by its name.
enum Role {
    Blob(Digest),
    /// A tar with any name: docker's layers.
    Layer,
    Document(u64),
    Nothing,
}

impl Contents {
    /// Reads an unpacked archive to its end and hands what may be needed to `keeper`.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for what is no archive, or more than an archive of images has.
    pub fn read(input: impl BufRead, keeper: &mut dyn Keeper) -> Result<Contents> {
        let mut contents = Contents::default();
        let mut archive = Archive::new(input);
        let mut entry = Entry::default();
        let mut path = Vec::new();
        let mut count = 0;
        while archive.next(&mut entry)? {
            count += 1;
            if count > MAX_MEMBERS {
                return Err(Fault::input(format!("the archive has more than {MAX_MEMBERS} members")));
            }
            clean(&entry.raw_path, &mut path)?;
            let Ok(name) = std::str::from_utf8(&path).map(str::to_owned) else { continue };
            match entry.kind {
                Kind::File if entry.sparse.is_some() => {
                    return Err(Fault::input("a sparse file where a blob is expected").on(name));
                }
                Kind::File => contents.take(name, entry.size, &mut archive, keeper)?,
                Kind::Symlink | Kind::HardLink => contents.link(name, &entry),
                _ => {}
            }
        }
        if count == 0 {
            return Err(Fault::input("it is no archive, or an empty one"));
        }
        // To the end of the stream, or its writer fails at a closed pipe.
        let mut rest = archive.into_inner();
        while let Ok(buffer) = rest.fill_buf()
            && !buffer.is_empty()
        {
            let length = buffer.len();
            rest.consume(length);
        }
        Ok(contents)
    }

    fn take<R: BufRead>(
        &mut self,
        name: String,
        size: u64,
        archive: &mut Archive<R>,
        keeper: &mut dyn Keeper,
    ) -> Result<()> {
        match role(&name, size) {
            Role::Nothing => Ok(()),
            Role::Document(limit) => {
                if size > limit {
                    return Err(Fault::input(format!("it has {size} bytes, more than {limit}")).on(name));
                }
                self.add_document(name, size, archive)
            }
            Role::Layer => self.keep(name, None, size, archive, keeper),
            Role::Blob(digest) => {
                if size <= MAX_MANIFEST_BYTES.max(MAX_CONFIG_BYTES)
                    && self.document_bytes + size <= MAX_DOCUMENTS
                {
                    // Manifests are few and small; layers so small cost little.
                    return self.keep_small(name, &digest, size, archive, keeper);
                }
                self.keep(name, Some(&digest), size, archive, keeper)
            }
        }
    }

    fn add_document<R: BufRead>(&mut self, name: String, size: u64, archive: &mut Archive<R>) -> Result<()> {
        self.document_bytes += size;
        if self.document_bytes > MAX_DOCUMENTS {
            return Err(Fault::input(format!("its documents have more than {MAX_DOCUMENTS} bytes")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        copy(archive, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.documents.insert(name, bytes);
        Ok(())
    }

    /// A blob that may be a document: looked into before it is known to be one.
    fn keep_small<R: BufRead>(
        &mut self,
        name: String,
        digest: &Digest,
        size: u64,
        archive: &mut Archive<R>,
        keeper: &mut dyn Keeper,
    ) -> Result<()> {
        let offset = archive.position();
        let mut bytes = Vec::with_capacity(size as usize);
        copy(archive, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        let start = bytes.get(..6).unwrap_or(&bytes).to_vec();
        if !keeper.has(digest, size, offset)? {
            keeper.begin(&name, Some(digest), size, offset)?;
            keeper.write(&bytes)?;
            keeper.end().map_err(|fault| fault.on(&name))?;
        }
        if matches!(bytes.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'[')) {
            self.document_bytes += size;
            self.documents.insert(name.clone(), bytes);
        }
        self.members.insert(name, Member { digest: digest.clone(), size, start });
        Ok(())
    }

    fn keep<R: BufRead>(
        &mut self,
        name: String,
        digest: Option<&Digest>,
        size: u64,
        archive: &mut Archive<R>,
        keeper: &mut dyn Keeper,
    ) -> Result<()> {
        let mut start = Vec::with_capacity(6);
        let offset = archive.position();
        if let Some(digest) = digest
            && keeper.has(digest, size, offset)?
        {
            start.extend(archive.data()?.iter().take(6));
            self.members.insert(name, Member { digest: digest.clone(), size, start });
            return Ok(());
        }
        keeper.begin(&name, digest, size, offset)?;
        copy(archive, |piece| {
            let missing = 6 - start.len();
            start.extend(piece.iter().take(missing));
            keeper.write(piece)
        })?;
        let digest = keeper.end().map_err(|fault| fault.on(&name))?;
        self.members.insert(name, Member { digest, size, start });
        Ok(())
    }

    /// Docker's older archives hold a layer once and link to it (`<id>/layer.tar`).
    fn link(&mut self, name: String, entry: &Entry) {
        let mut raw = Vec::new();
        if entry.kind == Kind::Symlink && !entry.link.starts_with(b"/") {
            let folder = name.rfind('/').and_then(|slash| name.get(..=slash)).unwrap_or_default();
            raw.extend_from_slice(folder.as_bytes());
        }
        raw.extend_from_slice(&entry.link);
        let mut target = Vec::new();
        // One that leads out of the archive leads nowhere.
        if clean(&raw, &mut target).is_ok()
            && let Ok(target) = String::from_utf8(target)
        {
            self.links.insert(name, target);
        }
    }

    /// A document, through links.
    pub fn document(&self, path: &str) -> Option<&[u8]> {
        self.documents.get(&self.followed(path)?).map(Vec::as_slice)
    }

    /// All documents.
    pub fn documents(&self) -> impl Iterator<Item = &[u8]> {
        self.documents.values().map(Vec::as_slice)
    }

    /// A kept member, through links.
    pub fn member(&self, path: &str) -> Option<&Member> {
        self.members.get(&self.followed(path)?)
    }

    fn followed(&self, path: &str) -> Option<String> {
        let mut cleaned = Vec::new();
        clean(path.as_bytes(), &mut cleaned).ok()?;
        let mut path = String::from_utf8(cleaned).ok()?;
        for _ in 0..MAX_LINKS {
            let Some(target) = self.links.get(&path) else { return Some(path) };
            path.clone_from(target);
        }
        None
    }

    /// Whether the member is there, documents too.
    pub fn has(&self, path: &str) -> bool {
        self.document(path).is_some() || self.member(path).is_some()
    }
}

/// `blobs/<algorithm>/<hex>`: where an image layout has a blob.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn role(name: &str, size: u64) -> Role {
    if let Some(rest) = name.strip_prefix("blobs/") {
        // A name that is no digest cannot be pointed at.
        let digest =
            rest.split_once('/').and_then(|(kind, hex)| Digest::parse(&format!("{kind}:{hex}")).ok());
        return digest.map_or(Role::Nothing, Role::Blob);
    }
    match name {
        "index.json" | "manifest.json" => return Role::Document(MAX_LIST),
        "oci-layout" | "repositories" => return Role::Document(1 << 20),
        _ => {}
    }
    let file = name.rsplit('/').next().unwrap_or_default();
    let is = |extension: &str| file.len() > extension.len() && file.ends_with(extension);
    if is(".json") {
        return if size <= MAX_CONFIG_BYTES { Role::Document(MAX_CONFIG_BYTES) } else { Role::Nothing };
    }
    // `<id>/json` and `<id>/VERSION` are what dockers before 1.10 read.
    if is(".tar") || is(".tar.gz") || is(".tgz") || is(".tar.zst") { Role::Layer } else { Role::Nothing }
}

fn copy<R: BufRead>(archive: &mut Archive<R>, mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    loop {
        let piece = archive.data()?;
        let length = piece.len();
        if length == 0 {
            return Ok(());
        }
        to(piece)?;
        archive.consume(length);
    }
}
