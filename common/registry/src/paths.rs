//! Where users and distributions put what is about registries.

use fault::{Explain, Fault, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Larger is no file a person wrote.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A variable's value, if it has one that is not empty.
pub(crate) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// `containers` in the user's configuration directory.
pub(crate) fn user_containers() -> Option<PathBuf> {
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|folder| folder.join("containers"))
}

/// A file's content; `None` when there is no such file. One open where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let what = || format!("read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error).explain(what),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).explain(what)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Fault::input(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// A file in TOML; `None` when there is no such file.
pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let text =
        String::from_utf8(bytes).map_err(|_| Fault::input(format!("{} is not UTF-8", path.display())))?;
    toml::from_str(&text).map(Some).map_err(|error| {
        // Never the parser's whole text: it quotes the line, which may hold a header with a token.
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(0, |before| before.matches('\n').count() + 1);
        Fault::input(format!("{} line {line}: {}", path.display(), error.message()))
    })
}
