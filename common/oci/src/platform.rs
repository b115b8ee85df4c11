//! Platforms: what an image was made for and what this machine runs.
//!
//! Spellings and the order of what else will do follow containerd's `platforms` package, which docker uses.

use crate::digest::shorten;
use fault::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `os/architecture[/variant]`, Go's names for both. As images write it; [`Platform::parse`] normalises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Platform {
    /// The one this program runs on.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "arm" => ("arm", Some("v7")),
            other => (other, None),
        };
        Platform::of(std::env::consts::OS, architecture, variant)
    }

    /// `linux/arm64`, `linux/arm/v7`, or only the part that differs from this machine: `arm64`, `linux`.
    ///
    /// # Errors
    /// [`fault::Kind::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !parts.iter().all(is_word) {
            return Err(bad_platform(text));
        }
        match parts.as_slice() {
            [one] if is_os(&one.to_ascii_lowercase()) => {
                let host = Platform::host();
                Ok(Platform::of(one, &host.architecture, host.variant.as_deref()))
            }
            [one] => {
                let platform = Platform::of(std::env::consts::OS, one, None);
                if is_architecture(&platform.architecture) { Ok(platform) } else { Err(bad_platform(text)) }
            }
            [os, architecture] => Ok(Platform::of(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::of(os, architecture, Some(variant))),
            _ => Err(bad_platform(text)),
        }
    }

    /// Normalised: `x86_64` is `amd64`, `armhf` is `arm/v7`, `arm64/v8` is `arm64`.
    pub fn of(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", None),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            ("powerpc64le", variant) => ("ppc64le", variant),
            ("loongarch64", variant) => ("loong64", variant),
            (architecture, variant) => (architecture, variant),
        };
        Platform {
            os,
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
        }
    }

    /// How well an image for `image` does where this one is asked for: 0 is exactly right, more is worse, `None`
    /// does not run. A machine also runs older variants of its architecture and its 32-bit sibling.
    pub fn rank(&self, image: &Platform) -> Option<u32> {
        let wanted = Platform::of(&self.os, &self.architecture, self.variant.as_deref());
        let image = Platform::of(&image.os, &image.architecture, image.variant.as_deref());
        if wanted.os != image.os {
            return None;
        }
        let wanted_level = level(wanted.variant.as_deref());
        let image_level = level(image.variant.as_deref());
        match (wanted.architecture.as_str(), image.architecture.as_str()) {
            ("arm", "arm") => older(wanted_level.unwrap_or(7), image_level.unwrap_or(7)),
            ("amd64", "amd64") => older(wanted_level.unwrap_or(1), image_level.unwrap_or(1)),
            ("arm64", "arm64") => older(wanted_level.unwrap_or(8), image_level.unwrap_or(8)),
            ("arm64", "arm") => Some(100 + older(8, image_level.unwrap_or(7))?),
            ("amd64", "386") => Some(100),
            (a, b) if a == b && (wanted.variant == image.variant || wanted.variant.is_none()) => Some(0),
            _ => None,
        }
    }

    /// As a record carries it.
    pub fn to_record(&self) -> record::Platform {
        record::Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            ..record::Platform::default()
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Platform> {
        Platform::parse(text)
    }
}

/// `v7` is 7; a fraction (`v8.2`) counts as its whole number.
fn level(variant: Option<&str>) -> Option<u32> {
    let digits = variant?.strip_prefix('v')?;
    digits.split('.').next()?.parse().ok()
}

fn older(wanted: u32, image: u32) -> Option<u32> {
    wanted.checked_sub(image)
}

fn is_os(text: &str) -> bool {
    matches!(
        text,
        "linux" | "windows" | "darwin" | "macos" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "wasi"
    )
}

fn is_architecture(text: &str) -> bool {
    matches!(
        text,
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "loong64"
            | "mips"
            | "mipsle"
            | "mips64"
            | "mips64le"
            | "ppc64"
            | "ppc64le"
            | "riscv64"
            | "s390x"
            | "wasm"
    )
}

fn bad_platform(text: &str) -> Fault {
    Fault::usage(format!("not a platform: {}", shorten(text)))
        .hint("write os/architecture[/variant], as in linux/arm64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        for (typed, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("i686", "linux/386"),
            ("windows/amd64", "windows/amd64"),
            ("macOS/arm64", "darwin/arm64"),
        ] {
            assert_eq!(Platform::parse(typed).unwrap().to_string(), expected, "{typed}");
        }
        assert_eq!(Platform::parse("macos").unwrap(), Platform::parse("Darwin").unwrap());
        for bad in ["", "/", "linux/", "/amd64", "a/b/c/d", "lin ux/amd64", "nonsense", "linux/amd64/"] {
            assert_eq!(Platform::parse(bad).unwrap_err().kind(), fault::Kind::Usage, "{bad:?}");
        }
    }

    #[test]
    fn a_machine_runs_its_own_and_what_is_older() {
        let rank = |wanted: &str, image: &str| {
            Platform::parse(wanted).unwrap().rank(&Platform::parse(image).unwrap())
        };
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), None);
        assert!(rank("linux/amd64/v3", "linux/amd64") < rank("linux/amd64", "linux/386"));
        assert_eq!(rank("linux/amd64", "linux/arm64"), None);
        assert_eq!(rank("linux/386", "linux/amd64"), None);
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert!(rank("linux/arm/v7", "linux/arm/v6") < rank("linux/arm/v7", "linux/arm/v5"));
        assert!(rank("linux/arm64", "linux/arm/v7").is_some());
        assert_eq!(rank("linux/amd64", "windows/amd64"), None);
        assert_eq!(rank("linux/s390x", "linux/s390x"), Some(0));
    }
}
