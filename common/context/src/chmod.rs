//! `--chmod`: octal, or chmod(1)'s symbolic words.

use fault::Result;

/// What modes become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chmod(());

impl Chmod {
    /// `0755`, `u=rwX,go=rX`.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for anything else.
    pub fn parse(_text: &str) -> Result<Chmod> {
        Ok(Chmod(()))
    }

    /// The permission bits of something that had `mode`.
    pub fn apply(&self, mode: u32, _is_directory: bool) -> u32 {
        mode
    }
}
