//! A directory with a cache does not grow with every build: what no cache in it names any more is removed.

use super::MEDIA_TYPE;
use cli::{Explain, Result};
use oci::Digest;
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// What is younger may be another build's that has no name yet.
const REST: Duration = Duration::from_hours(1);
const MAX_BYTES: u64 = 64 << 20;

/// Removes blobs that no manifest of the layout names, if all there is in it is caches.
///
/// # Errors
/// When the directory cannot be read.
pub fn prune(dir: &Path) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    let _lock = store::Lock::exclusive(&dir.join("blobs"))?;
    // What cannot be understood is left as it is.
    let Some(named) = named(dir) else { return Ok(()) };
    let entries = std::fs::read_dir(&blobs).explain(|| format!("read {}", blobs.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_old = || {
            let modified = entry.metadata().and_then(|status| status.modified());
            modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > REST))
        };
        if Digest::parse(&format!("sha256:{name}")).is_ok() && !named.contains(&name) && is_old() {
            // It is there again when it is needed again.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Names of all blobs that caches need; `None` where something else is in the layout, too.
fn named(dir: &Path) -> Option<HashSet<String>> {
    let index = read(&dir.join("index.json"))?;
    let mut named = HashSet::new();
    for entry in index["manifests"].as_array()? {
        let hex = hex(entry)?;
        let manifest = read(&dir.join("blobs/sha256").join(&hex))?;
        if manifest["artifactType"] != MEDIA_TYPE {
            return None;
        }
        named.insert(hex);
        let layers = manifest["layers"].as_array()?;
        for blob in layers.iter().chain([&manifest["config"]]) {
            named.insert(self::hex(blob)?);
        }
    }
    Some(named)
}

fn hex(descriptor: &Value) -> Option<String> {
    let digest = Digest::parse(descriptor["digest"].as_str()?).ok()?;
    (digest.algorithm().name() == "sha256").then(|| digest.hex().to_owned())
}

fn read(path: &Path) -> Option<Value> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::time::SystemTime;

    fn blob(dir: &Path, bytes: &[u8], is_old: bool) -> String {
        let digest = Digest::of(bytes);
        let path = dir.join("blobs/sha256").join(digest.hex());
        fs::write(&path, bytes).unwrap();
        if is_old {
            let time = SystemTime::now() - 2 * REST;
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        digest.to_string()
    }

    #[test]
    fn what_no_cache_names_goes() {
        let dir = std::env::temp_dir().join(format!("img-build-prune-{}", std::process::id()));
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let there = |digest: &str| dir.join("blobs/sha256").join(&digest[7..]).exists();
        let (kept, old, new) =
            (blob(&dir, b"kept", true), blob(&dir, b"old", true), blob(&dir, b"new", false));
        let config = blob(&dir, b"{}", true);
        let manifest = |kind: &str| {
            json!({"artifactType": kind, "config": {"digest": config}, "layers": [{"digest": kept}]})
                .to_string()
        };
        let foreign = blob(&dir, manifest("other").as_bytes(), true);
        let own = blob(&dir, manifest(MEDIA_TYPE).as_bytes(), true);
        let index = |digests: &[&String]| {
            let entries: Vec<Value> = digests.iter().map(|digest| json!({"digest": digest})).collect();
            fs::write(dir.join("index.json"), json!({"manifests": entries}).to_string()).unwrap();
        };
        index(&[&own, &foreign]);
        prune(&dir).unwrap();
        assert!(there(&old), "somebody else's image is there, too");
        index(&[&own]);
        prune(&dir).unwrap();
        assert!(!there(&old) && !there(&foreign));
        assert!([&kept, &new, &config, &own].iter().all(|digest| there(digest)));
        store::remove_tree(&dir).unwrap();
    }
}
