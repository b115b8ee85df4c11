//! Digests: the name of content by its hash (OCI image spec, descriptor.md, "Digests").

use fault::{Fault, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// The registered algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Hexadecimal digits of a hash.
    pub const fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// `sha256:<64 hex digits>` or `sha512:<128 hex digits>`, lower case. Always valid, so it can be part of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    text: String,
}

impl Digest {
    /// # Errors
    /// [`fault::Kind::Input`] unless it is a registered algorithm and exactly as many lower-case digits as it has.
    pub fn parse(text: &str) -> Result<Digest> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(Fault::input(format!("not a digest: {}", shorten(text)))
                .hint("a digest looks like sha256:4f1c…"));
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => {
                return Err(Fault::input(format!("unsupported digest algorithm {}", shorten(name)))
                    .hint("sha256 and sha512 are supported"));
            }
        };
        if hex.len() != algorithm.hex_len() || !is_hex(hex) {
            return Err(Fault::input(format!(
                "not a digest: {} is followed by {} lower-case hexadecimal digits",
                algorithm.name(),
                algorithm.hex_len()
            )));
        }
        Ok(Digest { algorithm, text: text.to_owned() })
    }

    /// The sha256 digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits after the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The first twelve digits, as people are shown them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Lower-case hexadecimal digits only.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Hostile text short enough for an error message.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(80).collect::<String>())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Digest> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a digest while the bytes pass by.
#[derive(Clone)]
pub struct Hasher(State);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        let (algorithm, text) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, write_out("sha256:", &state.finalize())),
            State::Sha512(state) => (Algorithm::Sha512, write_out("sha512:", &state.finalize())),
        };
        Digest { algorithm, text }
    }
}

fn write_out(prefix: &str, hash: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(prefix.len() + 2 * hash.len());
    text.push_str(prefix);
    for byte in hash {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_parses_is_the_very_text(text in "(sha256|sha512|sha1)?:?[0-9a-fA-F]{60,66}|.{0,80}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.as_str(), text.as_str());
                prop_assert_eq!(format!("{}:{}", digest.algorithm().name(), digest.hex()), text);
            }
        }
    }

    #[test]
    fn hashes_as_sha256sum_and_sha512sum_do() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").as_str(), abc);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"a");
        hasher.update(b"bc");
        let digest = hasher.finish();
        assert!(digest.hex().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
        assert_eq!(Digest::parse(abc).unwrap().short(), "ba7816bf8f01");
    }

    #[test]
    fn only_registered_algorithms_with_their_own_length() {
        let digits = "a".repeat(64);
        for bad in [
            String::new(),
            "sha256".into(),
            "sha256:".into(),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha256:{}", "a".repeat(65)),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}g", "a".repeat(63)),
            format!("sha512:{digits}"),
            format!("md5:{}", "a".repeat(32)),
            format!("../sha256:{digits}"),
            format!("sha256:../../{}", "a".repeat(58)),
            format!(" sha256:{digits}"),
            format!("sha256:{digits}\n"),
            format!("sha256:é{}", "a".repeat(62)),
        ] {
            assert_eq!(Digest::parse(&bad).unwrap_err().kind(), fault::Kind::Input, "{bad:?}");
        }
    }
}
