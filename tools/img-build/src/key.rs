//! What a step depends on, as a digest.
//!
//! The files of a stage have a key as well: of a base image its layers', after that the key of the last step that writes files. So a
//! command's key covers the steps before it that write files, and not what was only said of the image.

use oci::Digest;
use oci::digest::{Algorithm, Hasher};

/// Changes whenever steps with the same key would make something else.
const VERSION: &str = "staves build step 3";

/// Puts a key together: each part with its name and length, so that no two lists of parts read the same.
pub struct Key(Hasher);

impl Key {
    pub fn new(kind: &str) -> Key {
        Key(Hasher::new(Algorithm::Sha256)).with("version", VERSION).with("kind", kind)
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Key {
        let value = value.as_ref();
        self.0.update(format!("{name}:{}:", value.len()).as_bytes());
        self.0.update(value);
        self.0.update(b"\n");
        self
    }

    #[must_use]
    pub fn with_all<T: AsRef<[u8]>>(self, name: &str, values: &[T]) -> Key {
        let key = self.with(name, values.len().to_string());
        values.iter().fold(key, |key, value| key.with(name, value))
    }

    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_mixed_up() {
        let keys = [
            Key::new("run").with("a", "bc"),
            Key::new("run").with("ab", "c"),
            Key::new("run").with("a", "b").with("c", ""),
            Key::new("run").with_all("a", &["b", "c"]),
            Key::new("run").with_all("a", &["bc"]),
            Key::new("run").with_all("a", &["b"]).with("a", "c"),
            Key::new("copy").with("a", "bc"),
        ]
        .map(Key::finish);
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{place}");
        }
        assert_eq!(Key::new("run").with("a", "bc").finish(), keys[0]);
    }
}
