//! The container's `/etc/passwd` and `/etc/group`, read before anything is mounted.
//!
//! The layers are looked at as overlayfs would show them: the top-most layer that has a name decides, a whiteout
//! hides it, an opaque directory hides what layers below have in it, and symbolic links are followed inside the
//! root file system, across layers. Everything there is hostile: no path leaves its layer, nothing but a regular file is
//! opened, and no more than [`MAX_BYTES`] are read.

use cli::{Explain, Fault, Kind, Result};
use oci::users::UserFiles;
use record::Rootfs;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// Longest file read; one of a million users is shorter.
pub const MAX_BYTES: u64 = 4 << 20;

/// As many symbolic links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Both files of a root file system.
///
/// Fails with not found when a layer is not there (not unpacked), with input when a file is too long.
pub fn read(rootfs: &Rootfs) -> Result<UserFiles> {
    let paths: Vec<&str> = match &rootfs.path {
        Some(path) if rootfs.driver == "directory" => vec![path.as_str()],
        _ => rootfs.layers.iter().rev().map(String::as_str).collect(),
    };
    let layers = Layers::open(&paths)?;
    Ok(UserFiles { passwd: layers.text("etc/passwd")?, group: layers.text("etc/group")? })
}

/// Open directories, top-most first.
struct Layers(Vec<OwnedFd>);

/// What the top-most layer that has a name has there.
enum Found {
    Nothing,
    Directory {
        /// How many layers take part, counted from the top.
        depth: usize,
    },
    Link(String),
    File {
        layer: usize,
    },
    Other,
}

impl Layers {
    fn open(paths: &[&str]) -> Result<Layers> {
        let open = |path: &&str| {
            rustix::fs::openat(CWD, *path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| {
                    let kind = if errno == Errno::NOENT { Kind::NotFound } else { Kind::Failed };
                    Fault::new(kind, format!("open {path}")).because(std::io::Error::from(errno))
                })
        };
        paths.iter().map(open).collect::<Result<_>>().map(Layers)
    }

    /// Text of a file; `None` when there is no regular file of this name. What is not UTF-8 in it is replaced.
    fn text(&self, path: &str) -> Result<Option<String>> {
        let Some((layer, path)) = self.resolve(path)? else { return Ok(None) };
        let Some(layer) = self.0.get(layer) else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat2(layer, path.as_str(), flags, Mode::empty(), inside()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno).explain(|| format!("open /{path} of the container")),
        };
        let stat = rustix::fs::fstat(&fd).explain(|| format!("look at /{path} of the container"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::from(fd).take(MAX_BYTES + 1).read_to_end(&mut bytes);
        if read.explain(|| format!("read /{path} of the container"))? as u64 > MAX_BYTES {
            return Err(Fault::input(format!("/{path} of the container is longer than {MAX_BYTES} bytes")));
        }
        Ok(Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ))
    }

    /// The layer that has the file, and its path there without links.
    fn resolve(&self, path: &str) -> Result<Option<(usize, String)>> {
        let mut left: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut done: Vec<(String, usize)> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            let depth = done.last().map_or(self.0.len(), |(_, depth)| *depth);
            let path = done
                .iter()
                .map(|(name, _)| name.as_str())
                .chain([name.as_str()])
                .collect::<Vec<_>>()
                .join("/");
            match self.find(&path, depth)? {
                Found::Directory { depth } => done.push((name, depth)),
                Found::File { layer } => return Ok(left.is_empty().then_some((layer, path))),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    left.extend(target.rsplit('/').map(str::to_owned));
                }
                Found::Nothing | Found::Other => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Looks a path without links up in the `depth` top-most layers.
    fn find(&self, path: &str, depth: usize) -> Result<Found> {
        let mut directory = false;
        for (index, layer) in self.0.iter().enumerate().take(depth) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat2(layer, path, flags, Mode::empty(), inside()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => continue,
                Err(errno) => return Err(errno).explain(|| format!("look at /{path} of the container")),
            };
            let stat = rustix::fs::fstat(&fd).explain(|| format!("look at /{path} of the container"))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if is_opaque(layer, path) => {
                    return Ok(Found::Directory { depth: index + 1 });
                }
                FileType::Directory => directory = true,
                // Below a directory anything else is hidden, and ends what is merged.
                _ if directory => return Ok(Found::Directory { depth: index }),
                FileType::RegularFile => return Ok(Found::File { layer: index }),
                FileType::Symlink => return Ok(read_link(&fd).map_or(Found::Other, Found::Link)),
                FileType::CharacterDevice if is_whiteout(&stat) => return Ok(Found::Nothing),
                _ => return Ok(Found::Other),
            }
        }
        Ok(if directory { Found::Directory { depth } } else { Found::Nothing })
    }
}

/// Never out of the layer, never through a link: links are followed here, across layers.
fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn is_whiteout(stat: &Stat) -> bool {
    stat.st_rdev == 0
}

fn is_opaque(layer: &OwnedFd, path: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat2(layer, path, flags, Mode::empty(), inside()) else { return false };
    ["trusted.overlay.opaque", "user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0u8; 1];
        rustix::fs::fgetxattr(&fd, name, &mut value[..]) == Ok(1) && value == *b"y"
    })
}

fn read_link(fd: impl AsFd) -> Option<String> {
    rustix::fs::readlinkat(fd, "", Vec::new()).ok()?.into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let dir = std::env::temp_dir().join(format!("ctr-create-users-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Tree(dir)
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        /// Layers lowest first, as records list them.
        fn read(&self, layers: &[&str]) -> Result<UserFiles> {
            for layer in layers {
                fs::create_dir_all(self.0.join(layer)).unwrap();
            }
            let layers = layers.iter().map(|layer| self.0.join(layer).display().to_string()).collect();
            read(&Rootfs { layers, driver: "overlay".into(), ..Rootfs::default() })
        }

        fn passwd(&self, layers: &[&str]) -> Option<String> {
            self.read(layers).unwrap().passwd
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_top_most_layer_wins() {
        let tree = Tree::new("top");
        tree.put("a/etc/passwd", "low");
        tree.put("b/etc/passwd", "high");
        tree.put("a/etc/group", "group");
        let files = tree.read(&["a", "b", "c"]).unwrap();
        assert_eq!((files.passwd.as_deref(), files.group.as_deref()), (Some("high"), Some("group")));
        assert_eq!(tree.passwd(&["c"]), None);
        let path = Some(tree.0.join("a").display().to_string());
        assert_eq!(
            read(&Rootfs { path, driver: "directory".into(), ..Rootfs::default() })
                .unwrap()
                .passwd
                .as_deref(),
            Some("low")
        );
    }

    #[test]
    fn links_stay_inside_and_cross_layers() {
        let tree = Tree::new("links");
        tree.put("a/usr/lib/passwd", "linked");
        tree.link("b/etc/passwd", "../../../usr/lib/passwd");
        assert_eq!(tree.passwd(&["a", "b"]).as_deref(), Some("linked"));
        tree.put("outside", "secret");
        let absolute = tree.0.join("outside").display().to_string();
        tree.link("c/etc/passwd", &absolute);
        tree.link("d/etc/passwd", "../../outside");
        tree.link("e/etc", "/usr/lib");
        tree.link("f/etc/passwd", "passwd");
        tree.link("g/etc", &tree.0.join("a/usr/lib").display().to_string());
        assert_eq!(tree.passwd(&["c"]), None);
        assert_eq!(tree.passwd(&["d"]), None);
        assert_eq!(tree.passwd(&["a", "e"]).as_deref(), Some("linked"));
        assert_eq!(tree.passwd(&["f"]), None);
        assert_eq!(tree.passwd(&["g"]), None);
    }

    #[test]
    fn only_regular_files_of_bearable_length() {
        let tree = Tree::new("odd");
        fs::create_dir_all(tree.0.join("dir/etc/passwd")).unwrap();
        assert_eq!(tree.passwd(&["dir"]), None);
        fs::create_dir_all(tree.0.join("fifo/etc")).unwrap();
        rustix::fs::mknodat(CWD, tree.0.join("fifo/etc/passwd"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(tree.passwd(&["fifo"]), None);
        tree.put("long/etc/group", "");
        fs::File::options()
            .write(true)
            .open(tree.0.join("long/etc/group"))
            .unwrap()
            .set_len(MAX_BYTES + 1)
            .unwrap();
        assert_eq!(tree.read(&["long"]).unwrap_err().kind(), Kind::Input);
        tree.put("bytes/etc/passwd", "");
        fs::write(tree.0.join("bytes/etc/passwd"), b"a\xff").unwrap();
        assert_eq!(tree.passwd(&["bytes"]).as_deref(), Some("a\u{fffd}"));
        let missing = Rootfs { layers: vec![tree.0.join("none").display().to_string()], ..Rootfs::default() };
        assert_eq!(read(&missing).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide() {
        if !rustix::process::geteuid().is_root() {
            testkit::skip("whiteouts take root to make");
            return;
        }
        let tree = Tree::new("white");
        tree.put("a/etc/passwd", "hidden");
        fs::create_dir_all(tree.0.join("b/etc")).unwrap();
        rustix::fs::mknodat(CWD, tree.0.join("b/etc/passwd"), FileType::CharacterDevice, Mode::empty(), 0)
            .unwrap();
        assert_eq!(tree.passwd(&["a", "b"]), None);
        fs::create_dir_all(tree.0.join("c")).unwrap();
        rustix::fs::mknodat(CWD, tree.0.join("c/etc"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        assert_eq!(tree.passwd(&["a", "c"]), None);
        tree.put("e/etc/passwd", "again");
        assert_eq!(tree.passwd(&["a", "b", "c", "e"]).as_deref(), Some("again"));
        fs::create_dir_all(tree.0.join("d/etc")).unwrap();
        let opaque = fs::File::open(tree.0.join("d/etc")).unwrap();
        match rustix::fs::fsetxattr(&opaque, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
        {
            Ok(()) => assert_eq!(tree.passwd(&["a", "d"]), None),
            Err(error) => testkit::skip(&format!("no trusted attributes here: {error}")),
        }
    }
}
