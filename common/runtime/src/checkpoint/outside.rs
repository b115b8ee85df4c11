//! What of a container is not in it: bind mounts, masks, namespaces given by path, the streams it was started with. criu is told
//! what to leave out of the images, and what takes its place when they are restored.

use crate::root::{Root, open_host};
use crate::spec::{Spec, namespace_path};
use cgroup::Cgroup;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxNamespaceType, Mount};
use rustix::fs::{FileType, Mode, OFlags, openat, readlink, stat};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Devices that are bound from outside where nodes cannot be made.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// What a mount is called in the images: its destination, as the specification has it.
fn name(mount: &Mount) -> Result<String> {
    let destination = mount.destination();
    let text = destination
        .to_str()
        .ok_or_else(|| Fault::input(format!("mount on {}: it is not text", destination.display())))?;
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(format!("/{}", parts.join("/")))
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    let has = |name: &str| mount.options().iter().flatten().any(|option| option == name);
    !has("remount") && (mount.typ().as_deref() == Some("bind") || has("bind") || has("rbind"))
}

pub(super) fn source(mount: &Mount, bundle: &Path) -> PathBuf {
    mount.source().as_ref().map_or_else(|| bundle.to_owned(), |source| bundle.join(source))
}

/// Version 1 groups in a container are bind mounts: their places, and the directories outside.
fn group_mounts(spec: &Spec, group: &Cgroup) -> Vec<(String, PathBuf)> {
    if group.version() == cgroup::Version::V2 {
        return Vec::new();
    }
    let mounts = spec.mounts.iter().filter(|mount| mount.typ().as_deref() == Some("cgroup"));
    let in_one = |mount: &Mount| -> Vec<(String, PathBuf)> {
        let Ok(base) = name(mount) else { return Vec::new() };
        let hierarchy = |directory: &PathBuf| {
            let rest = directory.strip_prefix(cgroup::MOUNT).ok()?;
            let first = rest.components().next()?.as_os_str().to_str()?;
            if !cgroup::is_version_1(directory) {
                return None;
            }
            Some((format!("{base}/{first}"), directory.clone()))
        };
        group.directories().iter().filter_map(hierarchy).collect()
    };
    mounts.flat_map(in_one).collect()
}

fn device_paths(spec: &Spec) -> impl Iterator<Item = String> {
    let own = spec.linux.devices.iter().map(|device| device.path().to_string_lossy().into_owned());
    DEVICES.iter().map(|path| (*path).to_owned()).chain(own)
}

/// Mount points in the container and what they are called. Links in the way are followed as they were when it was made.
pub fn mounts_to_leave_out(spec: &Spec, group: &Cgroup, pid: i32) -> Result<Vec<(String, String)>> {
    let root = Root { fd: open_host(Path::new(&format!("/proc/{pid}/root")))? };
    let mut mounts = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| is_bind(mount)) {
        let name = name(mount)?;
        mounts.push((place_of(&root, &name).unwrap_or_else(|| name.clone()), name));
    }
    mounts.extend(group_mounts(spec, group).into_iter().map(|(place, _)| (place.clone(), place)));
    for path in &spec.linux.masked_paths {
        // Directories are behind a tmpfs of the container's own.
        if let Ok(fd) = root.open(Path::new(path))
            && !crate::root::is_directory(&fd)
        {
            mounts.push((place_of_descriptor(&fd).unwrap_or_else(|| path.clone()), "/dev/null".to_owned()));
        }
    }
    mounts.extend(device_paths(spec).map(|path| (path.clone(), path)));
    Ok(once(mounts))
}

/// What those names stand for on this machine.
pub fn mounts_to_put_in(spec: &Spec, group: &Cgroup, bundle: &Path) -> Result<Vec<(String, String)>> {
    let text = |path: PathBuf| {
        path.into_os_string()
            .into_string()
            .map_err(|path| Fault::input(format!("the source {} of a mount is not text", path.display())))
    };
    let mut mounts = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| is_bind(mount)) {
        mounts.push((name(mount)?, text(source(mount, bundle))?));
    }
    for (place, directory) in group_mounts(spec, group) {
        mounts.push((place, text(directory)?));
    }
    mounts.extend(device_paths(spec).map(|path| (path.clone(), path)));
    Ok(once(mounts))
}

/// The first of each key: criu would not look at another.
fn once(mounts: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen = std::collections::HashSet::new();
    mounts.into_iter().filter(|(key, _)| seen.insert(key.clone())).collect()
}

fn place_of(root: &Root, path: &str) -> Option<String> {
    place_of_descriptor(&root.open(Path::new(path)).ok()?)
}

/// In a mount namespace that is not this process's a path ends at its root.
fn place_of_descriptor(fd: &OwnedFd) -> Option<String> {
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?;
    link.into_string().ok().filter(|place| place.starts_with('/'))
}

/// Namespaces given by path that stay outside: kind in the specification, criu's name, the key, and the criu that first knew them.
const LEFT_OUT: [(LinuxNamespaceType, &str, &str, u64); 2] = [
    (LinuxNamespaceType::Network, "net", "extRootNetNS", 31_100),
    (LinuxNamespaceType::Pid, "pid", "extRootPidNS", 31_500),
];

/// Those namespaces as options of a dump.
pub fn namespaces_to_leave_out(spec: &Spec, pid: i32, version: u64) -> Result<Vec<String>> {
    let mut external = Vec::new();
    for (kind, criu, key, least) in LEFT_OUT {
        if spec.namespace(kind).and_then(namespace_path).is_none() {
            continue;
        }
        need_version(version, least, &format!("a {kind} namespace given by path"))?;
        let file = format!("/proc/{pid}/ns/{criu}");
        let inode = stat(&file).explain(|| format!("stat {file}"))?.st_ino;
        external.push(format!("{criu}[{inode}]:{key}"));
    }
    Ok(external)
}

/// What stands in for namespaces given by path when a container is restored.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Key and descriptor.
    pub opened: Vec<(&'static str, OwnedFd)>,
    /// Kind and file.
    pub joined: Vec<(String, String)>,
}

pub fn namespaces_to_put_in(spec: &Spec, version: u64) -> Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    for namespace in &spec.linux.namespaces {
        let (kind, Some(path)) = (namespace.typ(), namespace_path(namespace)) else { continue };
        if let Some((_, _, key, least)) = LEFT_OUT.into_iter().find(|(one, ..)| *one == kind) {
            need_version(version, least, &format!("a {kind} namespace given by path"))?;
            let fd = openat(rustix::fs::CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .explain(|| format!("open the {kind} namespace {}", path.display()))?;
            namespaces.opened.push((key, fd));
            continue;
        }
        let name = match kind {
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::Mount => "mnt",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Time => "time",
            _ => {
                return Err(Fault::input(format!(
                    "a container cannot be restored into the {kind} namespace {}",
                    path.display()
                ))
                .hint("criu joins none of that kind: give the container one of its own"));
            }
        };
        namespaces.joined.push((name.to_owned(), path.display().to_string()));
    }
    Ok(namespaces)
}

pub fn need_version(version: u64, least: u64, what: &str) -> Result<()> {
    if version >= least {
        return Ok(());
    }
    let dotted = format!("{}.{}", least / 10_000, least / 100 % 100);
    Err(Fault::failed(format!("{what} takes criu {dotted} or later, this is {version}")))
}

/// What the first process's standard streams are, as criu names them.
pub fn streams(pid: i32) -> Vec<String> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    (0..3).map(|number| stream(pid, number, &mounts).unwrap_or_default()).collect()
}

fn stream(pid: i32, number: i32, mounts: &str) -> Option<String> {
    let path = format!("/proc/{pid}/fd/{number}");
    let link = readlink(&path, Vec::new()).ok()?.to_string_lossy().into_owned();
    let file = stat(&path).ok()?;
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount: u64 = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    if !link.starts_with('/') || has_mount(mounts, mount) {
        return Some(link);
    }
    // Opened outside: criu could not find it again by its path.
    let kind = FileType::from_raw_mode(file.st_mode);
    let terminal =
        kind == FileType::CharacterDevice && matches!(rustix::fs::major(file.st_rdev), 4 | 136..=143);
    Some(if terminal {
        format!("tty[{:x}:{:x}]", file.st_rdev, file.st_dev)
    } else {
        format!("file[{mount:x}:{:x}]", file.st_ino)
    })
}

fn has_mount(mounts: &str, id: u64) -> bool {
    mounts.lines().any(|line| line.split(' ').next().and_then(|first| first.parse().ok()) == Some(id))
}

/// Those that criu has to be told of for a dump.
pub fn streams_to_leave_out(names: &[String]) -> Vec<String> {
    let outside = |name: &&String| name.starts_with("file[") || name.starts_with("tty[");
    let mut external: Vec<String> = names.iter().filter(outside).cloned().collect();
    external.dedup();
    external
}

/// Which of this process's streams take the place of which. What was opened inside comes from the images.
pub fn streams_to_put_in(names: &[String]) -> Vec<(String, i32)> {
    let mut streams: Vec<(String, i32)> = Vec::new();
    for (number, name) in (0..).zip(names.iter().take(3)) {
        if is_key(name) && streams.iter().all(|(one, _)| one != name) {
            streams.push((name.clone(), number));
        }
    }
    streams
}

fn is_key(name: &str) -> bool {
    let Some(inside) = name.strip_suffix(']').and_then(|name| name.split_once('[')) else { return false };
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match inside {
        ("pipe:", number) => {
            number.len() <= 20 && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        ("file" | "tty", numbers) => {
            numbers.len() <= 40 && numbers.split_once(':').is_some_and(|(a, b)| is_hex(a) && is_hex(b))
        }
        _ => false,
    }
}

/// The group a process is in, for each hierarchy (`/proc/PID/cgroup`, cgroups(7)).
pub fn group_roots(text: &str) -> Vec<(String, String)> {
    let root = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    text.lines().filter_map(root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_streams_are_keys() {
        let names = ["pipe:[12]", "/dev/null", "pipe:[12]"].map(str::to_owned);
        assert_eq!(streams_to_put_in(&names), [("pipe:[12]".to_owned(), 0)]);
        let names = ["tty[8801:19]", "file[1c:2a]", "socket:[3]"].map(str::to_owned);
        let wanted = [("tty[8801:19]".to_owned(), 0), ("file[1c:2a]".to_owned(), 1)];
        assert_eq!(streams_to_put_in(&names), wanted);
        assert_eq!(streams_to_leave_out(&names).len(), 2);
        for name in
            ["pipe:[]", "pipe:[1]x", "pipe:[-1]", "extRootNetNS", "file[1]", "file[:]", "x[1:2]", "", "]["]
        {
            assert!(!is_key(name), "{name}");
        }
    }

    #[test]
    fn groups_are_read() {
        assert_eq!(group_roots("0::/oci-runtime/c\n"), [(String::new(), "/oci-runtime/c".to_owned())]);
        let both = "4:cpu,cpuacct:/a:b\n1:name=systemd:/\nnonsense\n";
        let wanted = [("cpu,cpuacct", "/a:b"), ("name=systemd", "/")];
        assert_eq!(group_roots(both), wanted.map(|(one, two)| (one.to_owned(), two.to_owned())));
    }

    #[test]
    fn own_streams_have_names() {
        let names = streams(std::process::id() as i32);
        assert_eq!(names.len(), 3);
        assert!(streams(-1).iter().all(String::is_empty));
        assert!(has_mount("36 35 98:0 / / rw\n40 35 0:1 / /x rw\n", 40) && !has_mount("36 35", 3));
    }

    #[test]
    fn bind_mounts_are_told_from_others() {
        let spec = |mounts: serde_json::Value| {
            let text = serde_json::json!({"ociVersion": "1.0.0", "root": {"path": "rootfs"}, "mounts": mounts,
                "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
                "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}});
            Spec::parse(text.to_string().as_bytes()).unwrap()
        };
        let spec = spec(serde_json::json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data//x/", "type": "bind", "source": "there", "options": ["rbind", "ro"]},
            {"destination": "/y", "source": "/z", "options": ["bind"]},
        ]));
        let group = Cgroup::open(&[]).unwrap();
        let mounts = mounts_to_put_in(&spec, &group, Path::new("/bundle")).unwrap();
        assert_eq!(mounts[0], ("/data/x".to_owned(), "/bundle/there".to_owned()));
        assert_eq!(mounts[1], ("/y".to_owned(), "/z".to_owned()));
        assert!(
            mounts[2..].iter().all(|(name, source)| name == source && name.starts_with("/dev/")),
            "{mounts:?}"
        );
        assert!(mounts.contains(&("/dev/null".to_owned(), "/dev/null".to_owned())));
    }
}
