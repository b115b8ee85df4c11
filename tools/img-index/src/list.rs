//! The document of an index, member by member: what it says that is not known here stays.

use crate::Args;
use cli::{Explain, Fault, Kind, Result};
use image::{Convert, Format, Raw};
use oci::manifest::{MAX_INDEX_ENTRIES, MAX_MANIFEST_BYTES, media_type as t};
use oci::{Digest, Platform};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// What an index tells images apart by: the platform, normalised, and features of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    platform: Platform,
    os_features: Value,
}

#[derive(Clone, Debug)]
pub struct List {
    json: Map<String, Value>,
    entries: Vec<Value>,
}

impl List {
    pub fn new() -> List {
        let mut json = Map::new();
        json.insert("schemaVersion".into(), json!(2));
        json.insert("mediaType".into(), json!(t::OCI_INDEX));
        json.insert("manifests".into(), json!([]));
        List { json, entries: Vec::new() }
    }

    /// # Errors
    /// [`Kind::Input`] when it is malformed.
    pub fn of(raw: &Raw) -> Result<List> {
        let malformed = || Fault::input("malformed index");
        let json: Value =
            serde_json::from_slice(&raw.bytes).explain_as(Kind::Input, || "malformed index".into())?;
        let Value::Object(mut json) = json else { return Err(malformed()) };
        let Some(Value::Array(entries)) = json.get_mut("manifests").map(Value::take) else {
            return Err(malformed());
        };
        if !entries.iter().all(Value::is_object) {
            return Err(malformed());
        }
        Ok(List { json, entries })
    }

    pub fn digests(&self) -> Vec<Digest> {
        self.entries.iter().filter_map(|entry| Digest::parse(entry["digest"].as_str()?).ok()).collect()
    }

    /// Puts entries in, each in the place of one with its digest or its platform.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when two of them are for the same platform.
    pub fn add(&mut self, entries: Vec<Value>) -> Result<()> {
        for (at, entry) in entries.iter().enumerate() {
            let Some(key) = key(entry) else { continue };
            let same = |other: &&Value| {
                self::key(other).as_ref() == Some(&key) && other["digest"] != entry["digest"]
            };
            if let Some(other) = entries[..at].iter().find(same) {
                return Err(Fault::conflict(format!("two images are for {}", key.platform)).hint(format!(
                    "{} and {} are",
                    text(&other["digest"]),
                    text(&entry["digest"])
                )));
            }
        }
        for entry in entries {
            let key = key(&entry);
            let is_same = |other: &Value| {
                other["digest"] == entry["digest"] || key.is_some() && self::key(other) == key
            };
            let first = self.entries.iter().position(is_same);
            self.entries.retain(|other| !is_same(other));
            let at = first.unwrap_or(self.entries.len()).min(self.entries.len());
            self.entries.insert(at, entry);
        }
        if self.entries.len() > MAX_INDEX_ENTRIES {
            return Err(Fault::input(format!("the index would have more than {MAX_INDEX_ENTRIES} entries")));
        }
        Ok(())
    }

    /// Takes an entry out, with what a build said about it.
    pub fn remove(&mut self, which: &str) -> Result<Vec<String>> {
        let at = self.find(which)?;
        let digest = text(&self.entries[at]["digest"]).to_owned();
        let is_about = |entry: &Value| entry["annotations"]["vnd.docker.reference.digest"] == digest.as_str();
        let gone = self.entries.extract_if(.., |entry| entry["digest"] == digest.as_str() || is_about(entry));
        Ok(gone.map(|entry| text(&entry["digest"]).to_owned()).collect())
    }

    /// Says of an entry what the options say.
    pub fn describe(&mut self, which: &str, args: &Args) -> Result<()> {
        let at = self.find(which)?;
        describe(&mut self.entries[at], args)?;
        let changed = key(&self.entries[at]);
        let others = self.entries.iter().enumerate().filter(|(other, _)| *other != at);
        if changed.is_some() && others.map(|(_, entry)| key(entry)).any(|key| key == changed) {
            return Err(Fault::conflict("the index has another image for that platform").on(which));
        }
        Ok(())
    }

    pub fn annotate(&mut self, annotations: &[String]) -> Result<()> {
        annotate(&mut self.json, annotations)
    }

    /// An entry by its platform or the beginning of its digest.
    fn find(&self, which: &str) -> Result<usize> {
        let places = |fits: &dyn Fn(&Value) -> bool| -> Vec<usize> {
            (0..self.entries.len()).filter(|at| fits(&self.entries[*at])).collect()
        };
        let digits = which.split_once(':').map_or(which, |(_, hex)| hex);
        let is_digest = digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let found = if is_digest {
            places(&|entry| {
                let digest = text(&entry["digest"]);
                digest.starts_with(which)
                    || digest.split_once(':').is_some_and(|(_, hex)| hex.starts_with(which))
            })
        } else {
            let wanted = Platform::parse(which)?;
            let exact = places(&|entry| key(entry).is_some_and(|key| same(&key.platform, &wanted)));
            let loose = |entry: &Value| {
                let fits = |key: Key| {
                    key.platform.os == wanted.os && key.platform.architecture == wanted.architecture
                };
                // linux/arm says no variant, and means whatever there is.
                which.split('/').count() < 3 && key(entry).is_some_and(fits)
            };
            if exact.is_empty() { places(&loose) } else { exact }
        };
        match found.as_slice() {
            [at] => Ok(*at),
            [] => Err(Fault::not_found(format!("the index has no {which}")).hint(self.what_there_is())),
            _ => {
                Err(Fault::conflict(format!("the index has more than one {which}"))
                    .hint(self.what_there_is()))
            }
        }
    }

    fn what_there_is(&self) -> String {
        let shown = self.entries.iter().take(20).map(|entry| {
            let platform = key(entry).map_or_else(|| "-".to_owned(), |key| key.platform.to_string());
            format!("{platform} {}", text(&entry["digest"]))
        });
        format!("there is {}", shown.collect::<Vec<_>>().join(", "))
    }

    /// The document: `children` are the manifests in it, as far as they are needed for another format; it returns those that became
    /// others.
    ///
    /// # Errors
    /// [`Kind::Input`] for what the format cannot say, [`Kind::Conflict`] when nothing is left in it.
    pub fn finish(mut self, format: Option<Format>, children: &[Raw]) -> Result<(Raw, Vec<Raw>)> {
        if self.entries.is_empty() {
            return Err(Fault::conflict("nothing would be left in the index").hint("img-rm removes it"));
        }
        let media_type = |entry: &Value| text(&entry["mediaType"]).to_owned();
        let all_dockers = self.entries.iter().all(|entry| media_type(entry) == t::DOCKER_MANIFEST);
        let has_annotations =
            |json: &Map<String, Value>| json.get("annotations").is_some_and(|value| !value.is_null());
        let annotated = has_annotations(&self.json)
            || self.entries.iter().filter_map(Value::as_object).any(has_annotations);
        if annotated && format == Some(Format::Docker) {
            return Err(
                Fault::input("docker's manifest lists have no annotations").hint("keep the OCI format")
            );
        }
        if format.is_none() {
            let kind = if all_dockers && !annotated { t::DOCKER_LIST } else { t::OCI_INDEX };
            self.json.insert("mediaType".into(), json!(kind));
        }
        self.json.insert("manifests".into(), json!(self.entries));
        let bytes = Value::Object(self.json).to_string().into_bytes();
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Fault::input(format!("the index would be larger than {MAX_MANIFEST_BYTES} bytes")));
        }
        let raw = Raw::new(bytes.clone(), Digest::of(&bytes), None)?;
        let Some(format) = format else { return Ok((raw, Vec::new())) };
        let mut known = HashMap::new();
        for child in children {
            known.insert(child.digest.clone(), format.convert(child, &HashMap::new())?);
        }
        let raw = format.convert(&raw, &known)?;
        let changed = known.into_iter().filter(|(old, new)| *old != new.digest).map(|(_, new)| new);
        Ok((raw, changed.collect()))
    }
}

/// Says of one entry what the options say.
pub fn describe(entry: &mut Value, args: &Args) -> Result<()> {
    let words = [
        ("architecture", &args.arch),
        ("os", &args.os),
        ("os.version", &args.os_version),
        ("variant", &args.variant),
    ];
    if !entry["platform"].is_object() {
        entry["platform"] = json!({});
    }
    let Some(platform) = entry["platform"].as_object_mut() else { return Ok(()) };
    for (member, word) in words {
        match word.as_deref() {
            Some("") => drop(platform.shift_remove(member)),
            Some(word) => drop(platform.insert(member.to_owned(), json!(word))),
            None => {}
        }
    }
    for (member, features) in [("os.features", &args.os_features), ("features", &args.features)] {
        if !features.is_empty() {
            platform.insert(member.to_owned(), json!(features));
        }
    }
    check_platform(entry)?;
    let Some(entry) = entry.as_object_mut() else { return Ok(()) };
    annotate(entry, &args.entry_annotation)
}

/// # Errors
/// [`Kind::Input`] for an entry without an operating system or an architecture.
pub fn check_platform(entry: &Value) -> Result<()> {
    if ["os", "architecture"].iter().any(|member| text(&entry["platform"][*member]).is_empty()) {
        return Err(Fault::input("nobody says what platform the image is for").hint("--os and --arch do"));
    }
    Ok(())
}

fn annotate(of: &mut Map<String, Value>, annotations: &[String]) -> Result<()> {
    for annotation in annotations {
        let (key, value) = match annotation.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (annotation.as_str(), None),
        };
        if key.is_empty() {
            return Err(Fault::usage("an annotation has a key: KEY=VALUE").on(annotation));
        }
        let own = of.entry("annotations").or_insert_with(|| json!({}));
        if !own.is_object() {
            *own = json!({});
        }
        match value {
            Some(value) => own[key] = json!(value),
            None => drop(own.as_object_mut().and_then(|own| own.shift_remove(key))),
        }
    }
    if of.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
        of.shift_remove("annotations");
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn same(one: &Platform, other: &Platform) -> bool {
    (&one.os, &one.architecture, &one.variant) == (&other.os, &other.architecture, &other.variant)
}

/// `None` for an entry that is no image for a platform.
fn key(entry: &Value) -> Option<Key> {
    let own: Platform = serde_json::from_value(entry.get("platform")?.clone()).ok()?;
    if own.os.is_empty() || own.os == "unknown" {
        return None;
    }
    let platform = Platform {
        os_version: own.os_version,
        ..Platform::of(&own.os, &own.architecture, own.variant.as_deref())
    };
    Some(Key { platform, os_features: entry["platform"]["os.features"].clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seed: &str, platform: &Value) -> Value {
        json!({"mediaType": t::DOCKER_MANIFEST, "digest": Digest::of(seed.as_bytes()), "size": 9, "platform": platform})
    }

    fn linux(architecture: &str, variant: Option<&str>) -> Value {
        json!({"os": "linux", "architecture": architecture, "variant": variant})
    }

    #[test]
    fn an_image_takes_the_place_of_the_one_for_its_platform() {
        let mut list = List::new();
        list.add(vec![entry("a", &linux("amd64", None)), entry("b", &linux("arm64", Some("v8")))]).unwrap();
        list.add(vec![entry("c", &linux("arm64", None)), entry("d", &linux("arm", Some("v6")))]).unwrap();
        let wanted: Vec<Digest> = ["a", "c", "d"].iter().map(|seed| Digest::of(seed.as_bytes())).collect();
        assert_eq!(list.digests(), wanted);
        let twice = vec![entry("e", &linux("s390x", None)), entry("f", &linux("s390x", None))];
        assert_eq!(list.clone().add(twice).unwrap_err().kind(), Kind::Conflict);
        // No variant is the usual one, or the only one there is.
        assert_eq!(list.find("linux/arm").unwrap(), 2);
        assert_eq!(list.find("arm64").unwrap(), 1);
        assert_eq!(list.find(&wanted[0].hex()[..8]).unwrap(), 0);
        assert_eq!(list.find("linux/386").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(list.remove("linux/amd64").unwrap(), [wanted[0].to_string()]);
        let (raw, _) = list.clone().finish(None, &[]).unwrap();
        assert_eq!(raw.media_type, t::DOCKER_LIST);
        list.annotate(&["k=v".into()]).unwrap();
        assert_eq!(list.clone().finish(Some(Format::Docker), &[]).unwrap_err().kind(), Kind::Input);
        assert_eq!(list.clone().finish(None, &[]).unwrap().0.media_type, t::OCI_INDEX);
        list.annotate(&["k".into()]).unwrap();
        assert_eq!(list.finish(None, &[]).unwrap().0.digest, raw.digest);
    }

    #[test]
    fn what_others_wrote_stays() {
        let json = json!({"schemaVersion": 2, "mediaType": t::OCI_INDEX, "theirs": {"x": [1]}, "manifests": [
            {"mediaType": t::OCI_MANIFEST, "digest": Digest::of(b"a"), "size": 1, "theirs": 2, "platform": linux("arm64", Some("v8"))}]});
        let bytes = json.to_string().into_bytes();
        let raw = Raw::new(bytes.clone(), Digest::of(&bytes), None).unwrap();
        assert_eq!(List::of(&raw).unwrap().finish(None, &[]).unwrap().0.bytes, bytes);
        for bad in ["{\"manifests\":[1]}", "{\"manifests\":{}}", "[]"] {
            let raw =
                Raw { bytes: bad.as_bytes().to_vec(), digest: Digest::of(b""), media_type: String::new() };
            assert!(List::of(&raw).is_err(), "{bad}");
        }
    }
}
