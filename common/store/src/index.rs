//! `index.json`: which images there are and what they are called (OCI image spec, image-layout.md).
//!
//! Other programs read and rewrite the file at any time, so nothing about it is remembered except in a cache that
//! is thrown away when the file changes. Entries and members this module does not understand are kept as they are.
//! Changes are made under a lock on `blobs/`; skopeo and umoci know no lock, so a change of theirs that overlaps
//! with one of ours can be lost, as it can between two of them.

pub(crate) mod cache;
mod image;
mod put;
mod sweep;

pub use image::{to_record, unsuitable_platform};
pub use put::NewImage;
pub use sweep::Swept;

use crate::{Lock, Scratch, Store, make_dirs};
use fault::{Explain, Fault, Kind, Result};
use oci::manifest::{ANNOTATION_CONFIG_DIGEST, ANNOTATION_INDEX_DIGEST, ANNOTATION_REF_NAME, media_type};
use oci::{Descriptor, Digest, Platform, Reference};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Longest `index.json` that is read: a hundred thousand images.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// One entry of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub descriptor: Descriptor,
}

impl Entry {
    /// What it is called: a full reference if this project wrote it, anything if another program did.
    pub fn name(&self) -> Option<&str> {
        self.descriptor.annotation(ANNOTATION_REF_NAME)
    }

    /// The name as a reference, if it is a full one.
    pub fn reference(&self) -> Option<Reference> {
        let name = self.name()?;
        Reference::parse(name).ok().filter(|reference| reference.to_string() == name)
    }

    /// Digest of the image manifest (of an index, where another program put one here).
    pub fn digest(&self) -> &Digest {
        &self.descriptor.digest
    }

    /// Digest of the index the manifest was chosen from.
    pub fn index_digest(&self) -> Option<Digest> {
        Digest::parse(self.descriptor.annotation(ANNOTATION_INDEX_DIGEST)?).ok()
    }

    /// Digest of the image configuration, docker's image id. Noted down in entries this project wrote.
    pub fn config_digest(&self) -> Option<Digest> {
        Digest::parse(self.descriptor.annotation(ANNOTATION_CONFIG_DIGEST)?).ok()
    }

    fn parse(json: &str) -> Option<Entry> {
        serde_json::from_str(json).ok().map(|descriptor| Entry { descriptor })
    }

    fn has_digest(&self, digest: &Digest) -> bool {
        self.digest() == digest || self.index_digest().as_ref() == Some(digest)
    }
}

/// An image to give a name.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    pub reference: &'a Reference,
    pub media_type: &'a str,
    pub digest: &'a Digest,
    /// Bytes of the manifest.
    pub size: u64,
    pub platform: Option<&'a Platform>,
    pub index_digest: Option<&'a Digest>,
    pub config_digest: &'a Digest,
}

/// What an image is looked for by.
enum Key<'a> {
    Name(&'a str),
    /// First digits of the digest of a manifest, an index or a configuration.
    Digits(&'a str),
}

#[derive(Deserialize)]
struct RawIndex<'a> {
    #[serde(borrow, default)]
    manifests: Vec<&'a serde_json::value::RawValue>,
}

impl Store {
    /// Every image, in the order of the file. Entries that are no descriptors are left out.
    pub fn images(&self) -> Result<Vec<Entry>> {
        Ok(parse_entries(&read_text(&self.index_path())?)?.into_iter().map(|(entry, _)| entry).collect())
    }

    /// The image a reference names.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn find_reference(&self, reference: &Reference) -> Result<Entry> {
        let name = reference.stored_name();
        let found = self.lookup(&Key::Name(&name))?.into_iter().next();
        found.ok_or_else(|| no_such_image(&reference.familiar()))
    }

    /// The image people mean: by reference, short or full, by the exact name another program gave it, by digest
    /// or by any unambiguous beginning of the digest of its manifest, configuration (docker's image id) or index.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Conflict`] when a beginning fits several.
    pub fn find_image(&self, text: &str) -> Result<Entry> {
        if let Ok(reference) = Reference::parse(text) {
            match self.find_reference(&reference) {
                Err(fault) if fault.kind() == Kind::NotFound => {}
                found => return found,
            }
        }
        if let Some(entry) = self.lookup(&Key::Name(text))?.into_iter().next() {
            return Ok(entry);
        }
        let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha512:")).unwrap_or(text);
        let digits_only = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.is_empty() || digits.len() > 128 || !digits_only {
            return Err(no_such_image(text));
        }
        let mut found = self.lookup(&Key::Digits(digits))?.into_iter();
        let first = found.next().ok_or_else(|| no_such_image(text))?;
        if let Some(other) = found.find(|entry| entry.digest() != first.digest()) {
            return Err(Fault::conflict("more than one image begins so").on(text).hint(format!(
                "{} and {} do",
                first.digest(),
                other.digest()
            )));
        }
        Ok(first)
    }

    /// Images that are, or were chosen from, what has this digest, whatever they are called.
    pub fn find_digest(&self, digest: &Digest) -> Result<Vec<Entry>> {
        let found = self.lookup(&Key::Digits(digest.hex()))?;
        Ok(found.into_iter().filter(|entry| entry.has_digest(digest)).collect())
    }

    /// Gives an image a name, taking it from the image that had it, which stays as an unnamed one (docker's
    /// "dangling") if it has no other.
    ///
    /// Every blob of the image has to be there; the ones that are not, because a sweep came between, are returned
    /// and nothing is changed.
    pub fn put_reference(&self, new: &NewEntry<'_>, blobs: &[&Digest]) -> Result<Vec<Digest>> {
        let entry = to_json(new);
        let name = new.reference.stored_name();
        self.edit_index(|entries| {
            let missing: Vec<Digest> = blobs
                .iter()
                .filter(|digest| !self.blob_path(digest).is_file())
                .map(|digest| (*digest).clone())
                .collect();
            if !missing.is_empty() {
                return Ok((false, missing));
            }
            Ok((put(entries, &name, new.digest, entry), Vec::new()))
        })
    }

    /// Gives an image that is here one more name, taking it from the image that had it, as [`Store::put_reference`] does.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the image has gone meanwhile.
    pub fn tag(&self, image: &Entry, reference: &Reference) -> Result<()> {
        let name = reference.stored_name();
        self.edit_index(|entries| {
            let known = entries.iter().find(|known| digest_of(known) == Some(image.digest().as_str()));
            let mut entry = known.ok_or_else(|| no_such_image(image.digest().as_str()))?.clone();
            // Annotations that are no object are none (image spec, descriptor.md).
            if !entry.get("annotations").is_some_and(Value::is_object) {
                entry["annotations"] = json!({});
            }
            entry["annotations"][ANNOTATION_REF_NAME] = json!(name);
            Ok((put(entries, &name, image.digest(), entry), ()))
        })
    }

    /// Takes a name away; the image goes with its last name. Its blobs stay until [`Store::sweep_blobs`].
    ///
    /// Returns the entry and whether the image is gone; `None` if there was no such name.
    pub fn remove_name(&self, name: &str) -> Result<Option<(Entry, bool)>> {
        self.edit_index(|entries| {
            let Some(at) = entries.iter().position(|entry| name_of(entry) == Some(name)) else {
                return Ok((false, None));
            };
            let removed = entries.remove(at);
            let digest = removed.get("digest");
            let gone = !entries.iter().any(|entry| entry.get("digest") == digest);
            Ok((true, Entry::parse(&removed.to_string()).map(|entry| (entry, gone))))
        })
    }

    /// Removes an image under all its names; returns what was removed.
    pub fn remove_image(&self, digest: &Digest) -> Result<Vec<Entry>> {
        self.edit_index(|entries| {
            let mut removed = Vec::new();
            entries.retain(|entry| {
                if entry.get("digest").and_then(Value::as_str) != Some(digest.as_str()) {
                    return true;
                }
                removed.extend(Entry::parse(&entry.to_string()));
                false
            });
            Ok((!removed.is_empty(), removed))
        })
    }

    fn index_path(&self) -> PathBuf {
        self.root().join("index.json")
    }

    fn lookup(&self, key: &Key<'_>) -> Result<Vec<Entry>> {
        cache::lookup(self, key)
    }

    /// Held while references or blobs are removed or added to the index; briefly.
    fn lock_images(&self) -> Result<Lock> {
        let blobs = self.root().join("blobs");
        make_dirs(&blobs)?;
        Lock::exclusive(&blobs)
    }

    /// Changes the entries; `change` says whether it did.
    fn edit_index<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> Result<(bool, T)>) -> Result<T> {
        let _lock = self.lock_images()?;
        let path = self.index_path();
        let text = read_text(&path)?;
        let mut index: Value = if text.is_empty() {
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []})
        } else {
            serde_json::from_str(&text).map_err(|error| malformed(&path, error))?
        };
        let manifests =
            index.as_object_mut().map(|index| index.entry("manifests").or_insert_with(|| json!([])));
        let Some(Value::Array(entries)) = manifests else {
            return Err(Fault::failed(format!("{} is not an image index", path.display())));
        };
        let (changed, result) = change(entries)?;
        if changed {
            self.replace(&self.root().join("index.json"), index.to_string().as_bytes())?;
            self.ensure_layout()?;
        }
        Ok(result)
    }

    /// The file that says the root is an OCI image layout.
    fn ensure_layout(&self) -> Result<()> {
        let path = self.root().join("oci-layout");
        if path.exists() {
            return Ok(());
        }
        self.replace(&path, br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// Old or new, never between, and what a killed process left lies in `tmp/` where it is swept.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let scratch = Scratch::new(self)?;
        std::fs::write(scratch.path(), content)
            .and_then(|()| std::fs::rename(scratch.path(), path))
            .explain(|| format!("write {}", path.display()))?;
        scratch.keep();
        Ok(())
    }
}

fn to_json(new: &NewEntry<'_>) -> Value {
    let mut entry = json!({"mediaType": new.media_type, "digest": new.digest, "size": new.size});
    if let Some(platform) = new.platform {
        entry["platform"] = json!(platform);
    }
    entry["annotations"] = json!({
        ANNOTATION_REF_NAME: new.reference.stored_name(),
        ANNOTATION_CONFIG_DIGEST: new.config_digest,
    });
    if let Some(index) = new.index_digest {
        entry["annotations"][ANNOTATION_INDEX_DIGEST] = json!(index);
    }
    entry
}

/// Whether anything changed.
fn put(entries: &mut Vec<Value>, name: &str, digest: &Digest, entry: Value) -> bool {
    let has_name = |other: &Value| name_of(other) == Some(name);
    if entries.iter().filter(|other| has_name(other)).eq([&entry]) {
        return false;
    }
    let replaced: Vec<Value> = entries.extract_if(.., |other| has_name(other)).collect();
    // It has a name now.
    entries.retain(|other| name_of(other).is_some() || digest_of(other) != Some(digest.as_str()));
    entries.push(entry);
    for mut old in replaced {
        if entries.iter().any(|other| digest_of(other) == digest_of(&old)) {
            continue;
        }
        if let Some(Value::Object(annotations)) = old.get_mut("annotations") {
            annotations.shift_remove(ANNOTATION_REF_NAME);
        }
        entries.push(old);
    }
    true
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(ANNOTATION_REF_NAME)?.as_str()
}

fn digest_of(entry: &Value) -> Option<&str> {
    entry.get("digest")?.as_str()
}

/// Empty when there is no file, or one that a crash of the machine left without content.
fn read_text(path: &Path) -> Result<String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).explain(|| format!("open {}", path.display())),
    };
    read_open(&file, path)
}

fn read_open(mut file: &std::fs::File, path: &Path) -> Result<String> {
    use std::io::Read;
    let mut bytes = Vec::with_capacity(
        file.metadata().map_or(0, |status| status.len().min(MAX_INDEX_BYTES)) as usize + 1,
    );
    file.by_ref()
        .take(MAX_INDEX_BYTES + 1)
        .read_to_end(&mut bytes)
        .explain(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(Fault::failed(format!("{} is larger than {MAX_INDEX_BYTES} bytes", path.display())));
    }
    if bytes.iter().all(|b| *b == 0) {
        return Ok(String::new());
    }
    String::from_utf8(bytes).map_err(|error| malformed(path, error))
}

/// The entries with their text.
fn parse_entries(text: &str) -> Result<Vec<(Entry, &str)>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let index: RawIndex<'_> =
        serde_json::from_str(text).map_err(|error| malformed(Path::new("index.json"), error))?;
    Ok(index.manifests.into_iter().filter_map(|raw| Some((Entry::parse(raw.get())?, raw.get()))).collect())
}

/// All of them, those that cannot be understood too.
fn count_entries(text: &str) -> usize {
    serde_json::from_str::<RawIndex<'_>>(text).map_or(0, |index| index.manifests.len())
}

fn malformed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::failed(format!("{} is malformed", path.display())).because(error)
}

fn no_such_image(text: &str) -> Fault {
    Fault::not_found("no such image").on(text).hint(format!("img-pull {text}"))
}

#[cfg(test)]
mod tests;
