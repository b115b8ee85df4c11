//! The tag that lists what refers to a manifest, where the registry does not list it itself (distribution spec, "Pushing
//! Manifests with Subject", "Deleting Manifests", "Referrers Tag Schema").
//!
//! It is an index that everyone who attaches something reads, changes and puts back, with nothing to keep two of them apart. So
//! what was put is read again, after a while in which another's reading and putting ends, and what is missing is put once more.

use crate::listing::{malformed, referrers_tag};
use crate::repository::Repository;
use fault::{Explain, Fault, Kind, Result};
use oci::manifest::{Document, MAX_INDEX_ENTRIES, media_type};
use oci::{Artifact, Descriptor, Digest};
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How often the list is changed before others are too quick.
const MAX_TRIES: u32 = 24;
/// How long another's change may take, at least and at most, for it to be seen.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

/// What becomes of the list.
enum Change<'a> {
    Add(&'a Value),
    Remove,
}

impl Repository {
    /// Lists a manifest with what it is about.
    pub(crate) fn list_referrer(
        &self,
        subject: &Digest,
        bytes: &[u8],
        own: &Digest,
        artifact: &Artifact,
    ) -> Result<()> {
        let mut entry = json!({"mediaType": artifact.media_type, "digest": own, "size": bytes.len()});
        if let Some(kind) = &artifact.artifact_type {
            entry["artifactType"] = kind.as_str().into();
        }
        if !artifact.annotations.is_empty() {
            entry["annotations"] = json!(artifact.annotations);
        }
        self.change_list(subject, own, &Change::Add(&entry)).map_err(|fault| {
            let fault = fault.within(format!("list it in the tag {}", referrers_tag(subject)));
            if fault.hint_text().is_some() {
                fault
            } else {
                fault.hint("it is there, but not listed; push it again")
            }
        })
    }

    /// Takes a manifest that was removed from the list of what it was about.
    pub(crate) fn unlist_referrer(&self, subject: &Digest, own: &Digest) -> Result<()> {
        self.change_list(subject, own, &Change::Remove)
            .map_err(|fault| fault.within(format!("take it out of the tag {}", referrers_tag(subject))))
    }

    fn change_list(&self, subject: &Digest, own: &Digest, change: &Change<'_>) -> Result<()> {
        let tag = referrers_tag(subject);
        let jitter = RandomState::new();
        for attempt in 0..MAX_TRIES {
            let begun = Instant::now();
            let mut index = self.referrers_index(&tag)?;
            if !apply(&mut index, own, change)? {
                return Ok(());
            }
            self.put_index(index, &tag)?;
            // Whoever read the list before it was changed has put his by then. The longer, the more there are; at random, so that
            // they do not meet again.
            let pause = (begun.elapsed() * 2).clamp(SHORTEST, LONGEST);
            let more = pause * attempt.min(4) * (jitter.hash_one(attempt) % 1000) as u32 / 1000;
            std::thread::sleep(pause + more);
        }
        if !apply(&mut self.referrers_index(&tag)?, own, change)? {
            return Ok(());
        }
        Err(Fault::conflict("others keep changing it").hint("try again when they are done"))
    }

    fn put_index(&self, mut index: Value, tag: &str) -> Result<()> {
        let put =
            |index: &Value| self.put_raw(index.to_string().as_bytes(), media_type::OCI_INDEX, tag).map(drop);
        let Err(fault) = put(&index) else { return Ok(()) };
        if fault.kind() != Kind::Input {
            return Err(fault);
        }
        // Registries refuse an index with an entry for what somebody has removed, who did not take it out.
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(fault);
        };
        let count = manifests.len();
        manifests.retain(|entry| {
            let digest = entry["digest"].as_str().unwrap_or_default();
            !self.manifest_digest(digest).is_err_and(|fault| fault.kind() == Kind::NotFound)
        });
        if manifests.len() == count { Err(fault) } else { put(&index) }
    }

    /// The index under the tag, or an empty one.
    fn referrers_index(&self, tag: &str) -> Result<Value> {
        let fetched = match self.manifest(tag) {
            Ok(fetched) => fetched,
            Err(fault) if fault.kind() == Kind::NotFound => {
                return Ok(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}));
            }
            Err(fault) => return Err(fault),
        };
        let Document::Index(_) = Document::parse(&fetched.bytes, fetched.media_type.as_deref())? else {
            return Err(Fault::input("there is something else in its place"));
        };
        serde_json::from_slice(&fetched.bytes).explain_as(Kind::Input, || malformed("referrers"))
    }
}

/// Whether the index is another one now. What others wrote into it stays, members nobody knows included.
fn apply(index: &mut Value, own: &Digest, change: &Change<'_>) -> Result<bool> {
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(Fault::input(malformed("referrers")));
    };
    let is_own = |entry: &Value| entry["digest"] == own.as_str();
    let count = manifests.len();
    match change {
        Change::Add(_) if manifests.iter().any(is_own) => Ok(false),
        Change::Add(_) if count >= MAX_INDEX_ENTRIES => {
            Err(Fault::input(format!("the list has {count} entries, and can have no more")))
        }
        Change::Add(entry) => {
            manifests.push((*entry).clone());
            Ok(true)
        }
        Change::Remove => {
            manifests.retain(|entry| !is_own(entry));
            Ok(manifests.len() < count)
        }
    }
}

/// What a manifest is about, if it says so.
pub(crate) fn subject_of(bytes: &[u8], media_type: Option<&str>) -> Option<(Descriptor, Artifact)> {
    let artifact = Artifact::parse(bytes, media_type).ok()?;
    Some((artifact.subject.clone()?, artifact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_there_once_and_the_others_stay_as_they_are() {
        let (own, other) = (Digest::of(b"own"), Digest::of(b"other"));
        let entry = json!({"digest": own, "size": 3});
        let theirs = json!({"digest": other, "size": 5, "unknown": [1]});
        let mut index = json!({"schemaVersion": 2, "manifests": [theirs], "annotations": {"a": "b"}});
        let before = index.clone();
        assert!(apply(&mut index, &own, &Change::Add(&entry)).unwrap());
        assert!(!apply(&mut index, &own, &Change::Add(&entry)).unwrap());
        assert_eq!(index["manifests"], json!([theirs, entry]));
        assert!(apply(&mut index, &own, &Change::Remove).unwrap());
        assert!(!apply(&mut index, &own, &Change::Remove).unwrap());
        assert_eq!(index, before);
        let mut full = json!({"manifests": vec![theirs; MAX_INDEX_ENTRIES]});
        assert_eq!(apply(&mut full, &own, &Change::Add(&entry)).unwrap_err().kind(), Kind::Input);
        assert_eq!(apply(&mut json!({}), &own, &Change::Remove).unwrap_err().kind(), Kind::Input);
    }
}
