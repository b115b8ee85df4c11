//! `cgroupsPath`: where a group is to be.

use crate::{Cgroup, Version};
use fault::{Fault, Result};
use std::path::{Component, Path, PathBuf};

#[derive(Debug)]
pub enum Place {
    BelowRoot(PathBuf),
    /// Relative to the caller's own group.
    BesideOwn(PathBuf),
}

impl Place {
    pub fn of(path: &str) -> Result<Place> {
        let relative = relative_path(path)?;
        Ok(if path.starts_with('/') { Place::BelowRoot(relative) } else { Place::BesideOwn(relative) })
    }

    pub fn relative(&self) -> &Path {
        match self {
            Place::BelowRoot(path) | Place::BesideOwn(path) => path,
        }
    }

    /// The directory it is below of, in the hierarchy at `root`.
    pub fn base(&self, version: Version, root: &Path) -> Result<PathBuf> {
        match self {
            Place::BelowRoot(_) => Ok(root.to_path_buf()),
            Place::BesideOwn(_) => {
                let own = Cgroup::of_process(std::process::id() as i32)?;
                Ok(beside(
                    version,
                    root,
                    own.directories.iter().find(|directory| directory.starts_with(root)),
                ))
            }
        }
    }
}

/// Below the caller's own group in version 1. In version 2 below that one's parent, as runc has it: the own group has a process, so
/// it cannot hand controllers down (cgroups(7), "no internal processes" rule).
fn beside(version: Version, root: &Path, own: Option<&PathBuf>) -> PathBuf {
    match (version, own) {
        // In the hierarchy's root itself it is in nothing.
        (_, None) => root.to_path_buf(),
        (Version::V1, Some(own)) => own.clone(),
        (Version::V2, Some(own)) => {
            own.parent().filter(|parent| parent.starts_with(root)).unwrap_or(root).to_path_buf()
        }
    }
}

/// `cgroupsPath` as a path below something. `..` would make groups outside of it.
pub fn relative_path(path: &str) -> Result<PathBuf> {
    let relative = inside(path)?;
    if relative.as_os_str().is_empty() {
        return Err(Fault::input("the control group path is empty"));
    }
    Ok(relative)
}

/// As [`relative_path`], but it may be the hierarchy's root.
pub fn inside(path: &str) -> Result<PathBuf> {
    let mut relative = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => relative.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Fault::input(format!("control group path {path:?} leaves its hierarchy")));
            }
        }
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(relative_path("/staves/ab").unwrap(), Path::new("staves/ab"));
        assert_eq!(relative_path("staves//./ab").unwrap(), Path::new("staves/ab"));
        for bad in ["", "/", "../x", "/staves/../../x", "a/..", "/..", "..", "./../x"] {
            assert_eq!(relative_path(bad).unwrap_err().kind(), fault::Kind::Input, "{bad}");
        }
        assert_eq!(inside("/").unwrap(), Path::new(""));
        assert!(inside("/../x").is_err());
    }

    #[test]
    fn a_relative_path_is_beside_the_own_group_or_below() {
        let root = Path::new("/sys/fs/cgroup");
        for (version, own, wanted) in [
            (Version::V2, Some("/sys/fs/cgroup/user/session"), "/sys/fs/cgroup/user"),
            (Version::V2, Some("/sys/fs/cgroup/session"), "/sys/fs/cgroup"),
            (Version::V2, Some("/sys/fs/cgroup"), "/sys/fs/cgroup"),
            (Version::V2, None, "/sys/fs/cgroup"),
            (Version::V1, Some("/sys/fs/cgroup/pids/a/b"), "/sys/fs/cgroup/pids/a/b"),
        ] {
            let own = own.map(PathBuf::from);
            assert_eq!(beside(version, root, own.as_ref()), Path::new(wanted), "{own:?}");
        }
    }
}
