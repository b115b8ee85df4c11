//! Files and directories of this machine that are named on the command line.

use cli::{Explain, Fault, Kind, Result};
use context::{Context, Ignore, Memory};
use std::path::{Path, PathBuf};
use store::Store;

/// One of them, links followed.
#[derive(Clone, Debug)]
pub struct Files {
    pub path: PathBuf,
    pub is_directory: bool,
    pub context: Context,
    /// What is chosen of the context: `/`, or the file's name.
    pub choice: String,
}

impl Files {
    /// `heeds_ignore`: files that an ignore file in the directory names do not count.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn open(store: &Store, text: &str, heeds_ignore: bool) -> Result<Files> {
        let path = std::fs::canonicalize(text).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Kind::NotFound,
                _ => Kind::of_io(&error),
            };
            Fault::new(kind, format!("find {text}")).because(error)
        })?;
        let is_directory = path.is_dir();
        let (directory, choice) = if is_directory {
            (path.as_path(), "/".to_owned())
        } else {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Fault::input(format!("the name of {text} is not UTF-8")))?;
            (path.parent().unwrap_or(Path::new("/")), name.to_owned())
        };
        let ignore =
            if is_directory && heeds_ignore { Ignore::find(directory, None)? } else { Ignore::none() };
        let context = Context::directory(directory, ignore, Memory::of(store, directory))?;
        Ok(Files { path, is_directory, context, choice })
    }

    /// The name it has on the command line, from the working directory on.
    pub fn absolute(text: &str) -> Result<PathBuf> {
        std::path::absolute(text).explain(|| format!("find {text}"))
    }
}

/// Where a path leads, links followed as far as there is something.
pub fn settled(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}
