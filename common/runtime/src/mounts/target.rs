//! What is mounted on: found or made inside the container's root.

use crate::root::{Root, Target, inside_error, is_directory};
use fault::{Explain, Fault, Result};
use rustix::fs::{FsWord, Mode, OFlags, fstat, fstatfs, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

const PROC_SUPER_MAGIC: FsWord = 0x9fa0;
/// Inode of a procfs's root.
const PROC_ROOT_INODE: u64 = 1;
/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Files of /proc that may be covered, as lxcfs does; anything else there would let a container lie to the runtime.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// An absolute path without dots, from the container's root. A relative one is from there as well, and one that names the
/// root's own place outside is taken to mean what is inside, as runc takes it.
pub(super) fn normalise(destination: &Path, root_path: &Path) -> PathBuf {
    let clean = |path: &Path| {
        let mut clean = PathBuf::from("/");
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => drop(clean.pop()),
                _ => {}
            }
        }
        clean
    };
    let path = clean(destination);
    if root_path == Path::new("/") || root_path.as_os_str().is_empty() {
        return path;
    }
    match path.strip_prefix(root_path) {
        Ok(inside) => Path::new("/").join(inside),
        Err(_) => path,
    }
}

/// Opens what is mounted on, made if it is missing, and says whether it was there.
pub(super) fn find_or_make(root: &Root, path: &Path, kind: Target) -> Result<(OwnedFd, bool)> {
    match root.open(path) {
        Ok(fd) => Ok((fd, true)),
        Err(Errno::NOENT) => {
            make(root, path, kind)?;
            root.open(path).map(|fd| (fd, false)).map_err(|error| inside_error(path, error))
        }
        Err(error) => Err(inside_error(path, error)),
    }
}

/// The same for a file system which must be where its name says: with a link in between, the real one could be elsewhere and
/// a false one in its place (CVE-2019-19921).
pub(super) fn find_or_make_without_links(root: &Root, path: &Path, kind: &str) -> Result<OwnedFd> {
    let ordinary = || {
        Fault::denied(format!("filesystem {kind:?} must be mounted on ordinary directory")).on(shown(path))
    };
    let fd = match root.open_without_links(path) {
        Err(Errno::NOENT) => {
            make(root, path, Target::Directory)?;
            root.open_without_links(path)
        }
        found => found,
    };
    match fd {
        Ok(fd) if is_directory(&fd) => Ok(fd),
        Ok(_) | Err(Errno::LOOP | Errno::NOTDIR) => Err(ordinary()),
        Err(error) => Err(inside_error(path, error)),
    }
}

/// Makes what is missing of a path: directories with 0755, a file with 0644. Links are followed inside the root, to what is
/// not there yet as well; each step is opened before the next, so none leads out.
fn make(root: &Root, path: &Path, kind: Target) -> Result<()> {
    let failed = |error: Errno| inside_error(path, error);
    let mut pending = Vec::new();
    push(&mut pending, path);
    let mut reached: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let directory = reached.last().unwrap_or(&root.fd);
        let is_last = pending.is_empty();
        match readlinkat(directory, &name, Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(failed(Errno::LOOP));
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    reached.clear();
                }
                push(&mut pending, &target);
                continue;
            }
            // There, and not a link.
            Err(Errno::INVAL) if is_last => return Ok(()),
            Err(Errno::INVAL) => {}
            Err(Errno::NOENT) if is_last && kind == Target::File => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return openat(directory, &name, flags, Mode::from_raw_mode(0o644)).map(drop).map_err(failed);
            }
            Err(Errno::NOENT) => match mkdirat(directory, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(directory, &name, flags, Mode::empty()).map_err(failed)?;
        reached.push(next);
    }
    Ok(())
}

/// On a stack, the first component on top.
fn push(pending: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => pending.push(name.to_owned()),
            Component::ParentDir => pending.push("..".into()),
            _ => {}
        }
    }
}

/// What is about to be mounted, as far as it matters on /proc.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cover<'a> {
    Filesystem(&'a str),
    Bind(&'a OwnedFd),
}

/// A mount over the root would not be seen, and one over /proc, or in it but for a few files, would fool whoever writes there
/// later (CVE-2025-52881). /proc may be bound over /proc, where none may be mounted.
pub(super) fn refuse_by_name(path: &Path, cover: Cover<'_>) -> Result<()> {
    if path == Path::new("/") {
        return Err(Fault::denied("a mount on / would lie on the top of the container's root"));
    }
    if path == Path::new("/proc") {
        return match cover {
            Cover::Filesystem("proc") => Ok(()),
            Cover::Bind(source) if is_proc_root(source) => Ok(()),
            _ => Err(Fault::denied("/proc cannot be mounted because it is not of type proc")),
        };
    }
    let may = matches!(cover, Cover::Bind(_)) && PROC_FILES.iter().any(|file| Path::new(file) == path);
    if may || !path.starts_with("/proc") { Ok(()) } else { Err(inside_proc(path)) }
}

/// The same of where a link led to.
pub(super) fn refuse_by_place(target: &OwnedFd, path: &Path) -> Result<()> {
    // What is there by its name is allowed by now.
    if path.starts_with("/proc") || !is_proc(target) { Ok(()) } else { Err(inside_proc(path)) }
}

fn inside_proc(path: &Path) -> Fault {
    Fault::denied(format!("{} cannot be mounted because it is inside /proc", path.display()))
}

fn is_proc(fd: &OwnedFd) -> bool {
    fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
}

fn is_proc_root(fd: &OwnedFd) -> bool {
    is_proc(fd) && fstat(fd).is_ok_and(|stat| stat.st_ino == PROC_ROOT_INODE)
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The mode a directory has.
pub(super) fn mode_of(directory: &OwnedFd) -> Result<u32> {
    fstat(directory).map(|stat| stat.st_mode & 0o7777).explain(|| "look at a mount point".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_inside() {
        let root = Path::new("/bundle/rootfs");
        for (destination, wanted) in [
            ("/proc/", "/proc"),
            ("//proc/./x", "/proc/x"),
            ("proc", "/proc"),
            ("../../proc/../etc", "/etc"),
            ("/", "/"),
            ("", "/"),
            ("/bundle/rootfs/final", "/final"),
            ("/bundle/rootfs", "/"),
            ("/bundle/rootfsx", "/bundle/rootfsx"),
        ] {
            assert_eq!(normalise(Path::new(destination), root), Path::new(wanted), "{destination}");
        }
        assert_eq!(normalise(Path::new("/a"), Path::new("/")), Path::new("/a"));
    }

    /// A root of its own, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Scratch, Root) {
            let path = std::env::temp_dir().join(format!("runtime-target-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root/etc")).unwrap();
            let root = crate::root::open_host(&path.join("root")).unwrap();
            (Scratch(path), Root { fd: root })
        }

        fn link(&self, target: &str, name: &str) {
            std::os::unix::fs::symlink(target, self.0.join("root").join(name)).unwrap();
        }

        fn is_there(&self, name: &str) -> bool {
            self.0.join(name).symlink_metadata().is_ok()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_to_what_is_not_there_are_followed_inside() {
        let (scratch, root) = Scratch::new("dangling");
        scratch.link("/tmp/foo/bar", "jump");
        scratch.link("/jump/baz/hosts", "etc/hosts");
        let (_, existed) = find_or_make(&root, Path::new("/etc/hosts"), Target::File).unwrap();
        assert!(!existed && scratch.0.join("root/tmp/foo/bar/baz/hosts").is_file());
        assert!(find_or_make(&root, Path::new("/etc/hosts"), Target::File).unwrap().1);
        scratch.link("../../../../../outside/x", "up");
        find_or_make(&root, Path::new("/up/y"), Target::Directory).unwrap();
        assert!(scratch.is_there("root/outside/x/y") && !scratch.is_there("outside"));
        scratch.link("loop", "loop");
        assert!(find_or_make(&root, Path::new("/loop/y"), Target::Directory).is_err());
        scratch.link("/a/../b", "dots");
        find_or_make(&root, Path::new("/dots"), Target::Directory).unwrap();
        assert!(scratch.0.join("root/b").is_dir());
        std::fs::write(scratch.0.join("root/file"), "").unwrap();
        assert!(find_or_make(&root, Path::new("/file/x"), Target::Directory).is_err());
    }

    #[test]
    fn proc_is_no_link() {
        let (scratch, root) = Scratch::new("proc");
        let open = || find_or_make_without_links(&root, Path::new("/proc"), "proc");
        scratch.link("/etc", "proc");
        let fault = open().unwrap_err().to_string();
        assert!(fault.contains("must be mounted on ordinary directory"), "{fault}");
        std::fs::remove_file(scratch.0.join("root/proc")).unwrap();
        scratch.link("/missing", "proc");
        assert!(open().is_err());
        std::fs::remove_file(scratch.0.join("root/proc")).unwrap();
        assert!(is_directory(open().unwrap()));
        std::fs::remove_dir(scratch.0.join("root/proc")).unwrap();
        std::fs::write(scratch.0.join("root/proc"), "").unwrap();
        assert!(open().is_err());
    }

    #[test]
    fn proc_is_covered_by_proc_alone() {
        let (_scratch, root) = Scratch::new("cover");
        let proc = crate::root::open_host(Path::new("/proc")).unwrap();
        let inner = crate::root::open_host(Path::new("/proc/self")).unwrap();
        let etc = root.open(Path::new("/etc")).unwrap();
        let refuse = |target: &OwnedFd, path: &str, cover: Cover<'_>| {
            let path = Path::new(path);
            refuse_by_name(path, cover).and_then(|()| refuse_by_place(target, path))
        };
        for (target, path, cover) in [
            (&etc, "/proc", Cover::Filesystem("proc")),
            (&etc, "/proc", Cover::Bind(&proc)),
            (&etc, "/etc", Cover::Bind(&proc)),
            (&inner, "/proc/uptime", Cover::Bind(&etc)),
            (&etc, "/sys", Cover::Filesystem("tmpfs")),
        ] {
            refuse(target, path, cover).unwrap();
        }
        for (target, path, cover) in [
            (&etc, "/", Cover::Filesystem("tmpfs")),
            (&etc, "/proc", Cover::Filesystem("tmpfs")),
            (&etc, "/proc", Cover::Bind(&inner)),
            (&etc, "/proc", Cover::Bind(&etc)),
            (&etc, "/proc/self", Cover::Bind(&etc)),
            (&etc, "/proc/x", Cover::Filesystem("proc")),
            (&inner, "/elsewhere", Cover::Bind(&etc)),
            (&inner, "/proc/uptime", Cover::Filesystem("tmpfs")),
        ] {
            assert!(refuse(target, path, cover).is_err(), "{path} {cover:?}");
        }
    }
}
