//! WORKDIR: the directory is made where it is missing.

use crate::key::Key;
use crate::report::Vertex;
use crate::stage::Stage;
use cli::{Explain, Fault, Result};
use dockerfile::Step;
use runtime::root::Root;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

pub fn workdir(stage: &mut Stage<'_, '_>, path: &str, step: &Step, vertex: &Vertex<'_>) -> Result<()> {
    if path == "/" {
        vertex.done();
        return Ok(());
    }
    let user = stage.built.scope.user().to_owned();
    let key = Key::new("workdir")
        .with("files", stage.built.files.key.as_str())
        .with("path", path)
        .with("user", &user)
        .with("time", stage.built.clock.text())
        .finish();
    stage.layer(&key, step, vertex, false, |_, unfinished, lower| {
        let root = Root { fd: unfinished.mount(lower)? };
        make(&root, Path::new(path), &user, lower)?;
        Ok(Vec::new())
    })
}

/// `mkdir -p`; what is made is the user's.
fn make(root: &Root, path: &Path, user: &str, lower: &[PathBuf]) -> Result<()> {
    let mut missing = Vec::new();
    for ancestor in path.ancestors().filter(|ancestor| *ancestor != Path::new("/")) {
        match root.open(ancestor) {
            Ok(found) => {
                let status = fstat(&found).explain(|| format!("look at {}", ancestor.display()))?;
                if rustix::fs::FileType::from_raw_mode(status.st_mode) != rustix::fs::FileType::Directory {
                    return Err(Fault::conflict(format!("{} is no directory", ancestor.display())));
                }
                break;
            }
            Err(Errno::NOENT) => missing.push(ancestor),
            Err(error) => return Err(error).explain(|| format!("open {}", ancestor.display())),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let owner = if user.is_empty() { (0, 0) } else { crate::copy::user(user, lower)? };
    for path in missing.into_iter().rev() {
        root.make_directories(path)?;
        let made = root.open(path).explain(|| format!("open {}", path.display()))?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        let opened = rustix::fs::openat(
            &made,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .explain(|| format!("open {}", path.display()))?;
        chownat(&opened, c".", Some(uid), Some(gid), AtFlags::empty())
            .and_then(|()| chmodat(&opened, c".", Mode::from_raw_mode(0o755), AtFlags::empty()))
            .explain(|| format!("set the owner of {}", path.display()))?;
    }
    Ok(())
}
