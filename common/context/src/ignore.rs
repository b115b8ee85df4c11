//! `.dockerignore` and patterns as in it.

use fault::Result;
use std::path::Path;

/// What a context leaves out.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    name: String,
}

impl Ignore {
    pub fn none() -> Ignore {
        Ignore::default()
    }

    /// From the text of an ignore file; `name` is what messages call it.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for a pattern that is none.
    pub fn parse(_text: &[u8], name: &str) -> Result<Ignore> {
        Ok(Ignore { name: name.to_owned() })
    }

    /// The ignore file of a context: `DOCKERFILE.dockerignore` beside the Dockerfile, else the context's `.containerignore`, else its
    /// `.dockerignore`, else nothing is ignored.
    ///
    /// # Errors
    /// When one is there and cannot be read or understood.
    pub fn find(_context: &Path, _dockerfile: Option<&Path>) -> Result<Ignore> {
        Ok(Ignore::none())
    }

    /// The file the rules are from, for messages; empty if there is none.
    pub fn name(&self) -> &str {
        &self.name
    }
}
