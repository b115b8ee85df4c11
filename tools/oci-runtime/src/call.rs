//! One call of the program: what holds for every verb.

use crate::log::Log;
use crate::options::{Opt, Parsed};
use crate::process;
use fault::{Explain, Fault, Result};
use runtime::Rootless;
use std::path::{Component, Path, PathBuf};

const DEFAULT_ROOT: &str = "/run/oci-runtime";

#[derive(Debug)]
pub struct Call<'a> {
    pub program: &'a str,
    pub options: &'a Parsed,
    pub log: &'a Log,
    /// Absolute.
    pub root: PathBuf,
    /// Nobody named one.
    pub root_is_default: bool,
    /// Of what lies in `$XDG_RUNTIME_DIR` only sticky files are safe from clean-up.
    pub root_is_sticky: bool,
    pub inherited: Inherited,
    /// What becomes of a container whose control groups are closed to the caller.
    pub rootless: Rootless,
}

impl<'a> Call<'a> {
    pub fn new(
        program: &'a str,
        options: &'a Parsed,
        log: &'a Log,
        inherited: Result<Inherited>,
    ) -> Result<Call<'a>> {
        let (root, named) = match options.path(Opt::Root) {
            Some(path) => (absolute(path)?, true),
            None => (PathBuf::new(), false),
        };
        if named && root == Path::new("/") {
            return Err(Fault::usage("Option --root argument should not be set to /"));
        }
        let own = if named { None } else { users_root() };
        Ok(Call {
            program,
            options,
            log,
            rootless: rootless(options)?,
            root_is_default: !named,
            root_is_sticky: own.is_some(),
            root: if named { root } else { own.unwrap_or_else(|| DEFAULT_ROOT.into()) },
            inherited: inherited?,
        })
    }

    /// The container's.
    pub fn id(&self) -> Result<&str> {
        let id = self.options.operand(0)?;
        if id.is_empty() { Err(Fault::usage("container id cannot be empty")) } else { Ok(id) }
    }
}

fn rootless(options: &Parsed) -> Result<Rootless> {
    match options.text(Opt::Rootless)?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("auto") => Ok(Rootless::Auto),
        Some("true" | "t" | "1") => Ok(Rootless::Yes),
        Some("false" | "f" | "0") => Ok(Rootless::No),
        Some(other) => Err(Fault::usage(format!("invalid value {other:?} for flag -rootless"))),
    }
}

/// An ordinary user's, or that of the superuser of a user's own namespace.
fn users_root() -> Option<PathBuf> {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    let theirs = runtime::is_rootless()
        && (process::effective_uid() != 0 || std::env::var_os("USER").is_none_or(|user| user != "root"));
    theirs.then(|| Path::new(&directory).join("oci-runtime"))
}

/// Without `.` and `..`, as far as the text tells.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).explain(|| format!("find {}", path.display()))?;
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    Ok(clean)
}

/// Descriptors of the caller that are for the container, from 3 on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited {
    /// By socket activation (sd_listen_fds(3)).
    pub listening: u32,
    /// By `--preserve-fds`.
    pub preserved: u32,
}

/// Finds them, and that they are there.
pub fn inherited_descriptors(parsed: &Parsed) -> Result<Inherited> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let listening =
        number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id())).unwrap_or_default();
    let preserved = parsed.number(Opt::PreserveFds, "preserve-fds")?.unwrap_or_default();
    let preserved = u32::try_from(preserved)
        .map_err(|_| Fault::usage(format!("invalid value {preserved} for flag -preserve-fds")))?;
    for index in 0..listening.saturating_add(preserved) {
        let open = i32::try_from(index).ok().and_then(|index| sys::descriptor::inherited(3 + index).ok());
        if open.is_none() {
            let of = listening.saturating_add(preserved);
            return Err(Fault::usage(format!("unable to stat preserved-fd {index} (of {of})"))
                .because(std::io::Error::from_raw_os_error(libc::EBADF)));
        }
    }
    Ok(Inherited { listening, preserved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_absolute_and_clean() {
        for (path, wanted) in [("/a/../b/./c", "/b/c"), ("/..", "/"), ("/a//b/", "/a/b")] {
            assert_eq!(absolute(Path::new(path)).unwrap(), Path::new(wanted));
        }
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
    }
}
