//! Versions of the specification.

use fault::{Fault, Result};
use std::fmt;

/// A version both this crate and some plugin may speak. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    pub const NEWEST: Version = Version::V1_1_0;

    pub const fn name(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Fails with input for a version that is not known. None at all means the first one, as libcni has it.
    pub fn parse(text: &str) -> Result<Version> {
        Version::known(text).ok_or_else(|| {
            Fault::input(format!("CNI version \"{}\" is not known", crate::shown(text))).hint(format!(
                "known are {} to {}",
                Version::V0_1_0,
                Version::NEWEST
            ))
        })
    }

    pub fn known(text: &str) -> Option<Version> {
        if text.is_empty() {
            return Some(Version::V0_1_0);
        }
        Version::ALL.into_iter().find(|version| version.name() == text)
    }

    /// A result with a list of addresses; before, there was one of each family.
    pub fn has_lists(self) -> bool {
        self >= Version::V0_3_0
    }

    /// `CHECK`, and the result of `ADD` given to `DEL`.
    pub fn has_check(self) -> bool {
        self >= Version::V0_4_0
    }

    /// `GC` and `STATUS`.
    pub fn has_gc(self) -> bool {
        self >= Version::V1_1_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_back_and_the_order_is_that_of_age() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.name()).unwrap(), version);
        }
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::parse("").unwrap(), Version::V0_1_0);
        let fault = Version::parse("1.2.0\u{1b}[31m").unwrap_err();
        assert_eq!(fault.kind(), fault::Kind::Input);
        assert!(!fault.to_string().contains('\u{1b}'), "{fault}");
    }
}
