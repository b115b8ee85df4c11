//! Facts about this machine that a specification depends on. Only what a wish needs is looked up.

use crate::userfiles;
use cli::{Explain, Fault, Kind, Result};
use oci::capabilities::CapSet;
use oci::cdi::SpecFile;
use oci::seccomp::Architecture;
use oci::spec::{Facts, Generated, HostDevice, Identity, Lookup, Peer, UserNamespace};
use oci::users::UserFiles;
use oci::wishes::{self, UserMode};
use oci_spec::runtime::PosixRlimitType;
use record::{Config, Record, Rootfs};
use rustix::fs::{Access, AtFlags, CWD, FileType, Stat};
use rustix::process::Resource;
use std::io::Read;
use std::path::{Path, PathBuf};
use store::{ContainerDir, Status, Store};

/// `CGROUP2_SUPER_MAGIC` (statfs(2)).
const CGROUP2: i64 = 0x6367_7270;

/// Facts for a container with these wishes.
pub fn gather(config: &Config) -> Result<Facts> {
    let uname = rustix::system::uname();
    let cgroup_v2 = rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == CGROUP2);
    let asks_apparmor = config.security_opt.iter().any(|option| option.starts_with("apparmor"));
    Ok(Facts {
        kernel: kernel(&uname.release().to_string_lossy()),
        architecture: Architecture::native(),
        cgroup_v2,
        capabilities: capabilities()?,
        apparmor: asks_apparmor && apparmor(),
        cpus: if config.cpus.is_some() { cpus() } else { 0 },
        swap_accounting: (config.memory.is_some() || config.memory_swap.is_some())
            && swap_accounting(cgroup_v2),
        hard_limits: hard_limits(config),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        // The shim is the init as well: it is static, so it runs in any root file system.
        init: if config.init { Some(shim::sibling("ctr-shim")?) } else { None },
        thermal_throttles: thermal_throttles(),
        ipv4_sysctls: exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
    })
}

/// The specification of a container with this identity, from the record's `image` and `rootfs` and from `config`, which is
/// the record's with the flags over it. Makes nothing.
///
/// User and group names are looked up in the unpacked layers; with none unpacked only numbers work.
pub fn specification(
    store: &Store,
    record: &Record,
    config: &Config,
    identity: &Identity,
) -> Result<Generated> {
    let mut expanded = config.clone();
    crate::from::expand(store, &mut expanded)?;
    let config = &expanded;
    let image = record.image()?;
    let rootfs = match &config.rootfs {
        Some(path) => {
            let path = Some(path.clone());
            Some(Rootfs { driver: "directory".to_owned(), path, ..Rootfs::default() })
        }
        None => record.rootfs()?,
    };
    let files = match &rootfs {
        Some(rootfs) => userfiles::read(rootfs)?,
        None => UserFiles::default(),
    };
    let mut identity = identity.clone();
    if let Some(path) = rootfs.filter(|rootfs| rootfs.driver == "directory").and_then(|rootfs| rootfs.path) {
        identity.root = PathBuf::from(path);
    }
    // A directory takes the place of the image, of what its configuration says too.
    let image = image.as_ref().map(|image| &image.config).filter(|_| config.rootfs.is_none());
    oci::spec::generate(image, config, &files, &identity, &gather(config)?, &Machine { store })
}

/// Who the container is and where its things are.
pub fn identity(store: &Store, id: &str, name: &str) -> Identity {
    Identity {
        id: id.to_owned(),
        name: name.to_owned(),
        bundle: Some(store.container_dir(id).bundle),
        root: PathBuf::from("rootfs"),
        volumes: store.root().join("volumes"),
    }
}

/// Where vendors put what their devices need; what is generated at boot counts more.
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
const MAX_CDI_FILES: usize = 1000;
const MAX_CDI_BYTES: u64 = 4 << 20;

/// Specifications of devices on this machine. One that cannot be read says why, and keeps nobody from the devices of others.
pub fn cdi_files() -> Vec<SpecFile> {
    cdi_files_in(&CDI_DIRECTORIES)
}

fn cdi_files_in(directories: &[&str]) -> Vec<SpecFile> {
    let mut files = Vec::new();
    for (priority, dir) in directories.iter().enumerate() {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.into_iter().take(MAX_CDI_FILES) {
            let Some(name) = path.to_str() else { continue };
            let read = || {
                let content =
                    store::atomic::read_at_most(&path, MAX_CDI_BYTES).map_err(|fault| fault.to_string())?;
                String::from_utf8(content.ok_or("it leads nowhere")?)
                    .map_err(|_| "it is not UTF-8".to_owned())
            };
            let json = match path.extension().and_then(|end| end.to_str()) {
                Some("json") => read(),
                Some("yaml" | "yml") => read().and_then(|yaml| json_of_yaml(&yaml)),
                _ => continue,
            };
            files.push(SpecFile { path: name.to_owned(), priority, json });
        }
    }
    files
}

/// Looks things up on this machine.
pub struct Machine<'a> {
    pub store: &'a Store,
}

impl Lookup for Machine<'_> {
    fn all_devices(&self) -> Result<Vec<HostDevice>> {
        let mut found = Vec::new();
        walk(Path::new("/dev"), 0, &mut found)?;
        // The container's own, whatever its terminal.
        found.retain(|device| !matches!(device.path.as_str(), "/dev/console" | "/dev/ptmx"));
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn devices_at(&self, path: &str) -> Result<Vec<HostDevice>> {
        let stat = rustix::fs::stat(path).map_err(|errno| {
            let error = std::io::Error::from(errno);
            let kind = if error.kind() == std::io::ErrorKind::NotFound {
                Kind::NotFound
            } else {
                Kind::of_io(&error)
            };
            Fault::new(kind, format!("device {path}")).because(error)
        })?;
        if let Some(device) = device(path.to_owned(), &stat) {
            return Ok(vec![device]);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Fault::input(format!("{path} is neither a device nor a directory of devices")));
        }
        let mut found = Vec::new();
        walk(Path::new(path), 0, &mut found)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn peer(&self, container: &str) -> Result<Peer> {
        let dir = self.store.find_container(container)?;
        let status = dir.status()?;
        let pid = dir.live_state()?.map_or(0, |state| state.pid);
        // One that waits to be started has its namespaces already.
        if pid <= 0 || status == Status::Exited {
            return Err(Fault::conflict(format!(
                "the container is {}, so it has no namespaces to join",
                status.name()
            ))
            .on(container)
            .hint(format!("ctr-start {container} starts it")));
        }
        Ok(Peer { pid, hostname: hostname_of(&dir), bundle: dir.bundle })
    }

    fn user_namespace(&self, mode: &UserMode, container: &Identity) -> Result<UserNamespace> {
        crate::users::namespace(self, mode, container)
    }

    fn profile(&self, path: &str) -> Result<String> {
        read_limited(path, 4 << 20)
    }

    fn cdi_files(&self) -> Result<Vec<SpecFile>> {
        Ok(cdi_files())
    }

    fn time_zone(&self, name: &str) -> Result<PathBuf> {
        let path = match name {
            "local" => PathBuf::from("/etc/localtime"),
            name => Path::new("/usr/share/zoneinfo").join(name),
        };
        let found = std::fs::canonicalize(&path).ok().filter(|path| path.is_file());
        found.ok_or_else(|| {
            Fault::not_found(format!("there is no time zone {name}: {} is not a file", path.display()))
                .hint("install tzdata on this machine, or set TZ with -e")
        })
    }
}

/// The same in JSON. `0660` is octal, as in the YAML 1.1 of the tools that write such files, and `yes` a word, as in that of the
/// library they are read with elsewhere.
fn json_of_yaml(text: &str) -> std::result::Result<String, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: true };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // What follows is a picture of the place.
        error.to_string().lines().next().unwrap_or("not YAML").to_owned()
    })?;
    Ok(value.to_string())
}

/// Major and minor of `6.1.0-18-amd64`.
fn kernel(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What this process has and its bounding set lets it hand on.
fn capabilities() -> Result<CapSet> {
    let sets = rustix::thread::capabilities(None).explain(|| "read this process's capabilities".into())?;
    Ok(CapSet(sets.effective.bits()).intersection(CapSet::ALL))
}

fn apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn cpus() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}

/// v1: the controller has the file for memory and swap. v2: a group below the root has one for swap.
fn swap_accounting(cgroup_v2: bool) -> bool {
    if !cgroup_v2 {
        return exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match own.lines().find_map(|line| line.strip_prefix("0::")) {
        // The root group has no limits, so it tells nothing; kernels without are rare.
        None | Some("/") => true,
        Some(group) => exists(&format!("/sys/fs/cgroup{group}/memory.swap.max")),
    }
}

fn hard_limits(config: &Config) -> Vec<(PosixRlimitType, u64)> {
    // Malformed ones are complained about by whoever parses them for good.
    let asked = config.ulimits.iter().filter_map(|text| wishes::ulimit(text).ok());
    asked
        .filter_map(|limit| Some((limit.kind, rustix::process::getrlimit(resource(limit.kind)).maximum?)))
        .collect()
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

fn thermal_throttles() -> u32 {
    if !exists("/sys/devices/system/cpu/cpu0/thermal_throttle") {
        return 0;
    }
    // `0-7`: the highest number there can be.
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    possible
        .trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|last| last.parse::<u32>().ok())
        .map_or(0, |last| last.min(8191) + 1)
}

fn exists(path: &str) -> bool {
    rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}

/// The name another container was given; its id when the file is gone.
fn hostname_of(dir: &ContainerDir) -> String {
    let name = std::fs::read_to_string(dir.bundle.join("hostname")).unwrap_or_default();
    match name.trim() {
        "" => dir.id.chars().take(12).collect(),
        name => name.to_owned(),
    }
}

fn device(path: String, stat: &Stat) -> Option<HostDevice> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Some(HostDevice {
        path,
        kind,
        major: i64::from(major),
        minor: i64::from(minor),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}

/// What every container makes for itself, and what other container managers keep below /dev.
const PASSED_OVER: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// Deeper than any /dev, less than what would hurt.
const MAX_DEPTH: u32 = 16;

fn walk(dir: &Path, depth: u32, found: &mut Vec<HostDevice>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).explain(|| format!("read {}", dir.display()))?.flatten() {
        let path = entry.path();
        let Ok(stat) = rustix::fs::lstat(&path) else { continue };
        let passed_over = entry.file_name().to_str().is_none_or(|name| PASSED_OVER.contains(&name));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if !passed_over {
                // A directory that went away or is closed to us has no devices for us.
                let _ = walk(&path, depth + 1, found);
            }
        } else if let Some(path) = path.to_str() {
            found.extend(device(path.to_owned(), &stat));
        }
    }
    Ok(())
}

fn read_limited(path: &str, most: u64) -> Result<String> {
    let file = std::fs::File::open(path).map_err(|error| {
        let kind =
            if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::of_io(&error) };
        Fault::new(kind, format!("open {path}")).because(error)
    })?;
    let mut text = String::new();
    let read = file.take(most + 1).read_to_string(&mut text).explain(|| format!("read {path}"))?;
    if read as u64 > most {
        return Err(Fault::input(format!("{path} is longer than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_specifications_keep_nobody_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let good = r#"{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"a","containerEdits":{"env":["A=1"]}}]}"#;
        std::fs::write(at("good.json"), good).unwrap();
        std::fs::write(at("binary.json"), [0xff; 9]).unwrap();
        std::fs::write(at("long.json"), vec![b' '; usize::try_from(MAX_CDI_BYTES).unwrap() + 1]).unwrap();
        std::fs::write(at("deep.json"), "[".repeat(1 << 20)).unwrap();
        std::fs::write(at("deep.yaml"), "[".repeat(1 << 16)).unwrap();
        // Each line is nine of the one before.
        let laughs =
            (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(",")));
        std::fs::write(at("laughs.yaml"), "a0: &a0 [x]\n".to_owned() + &laughs.collect::<String>()).unwrap();
        std::fs::create_dir(at("folder.json")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo.json"), FileType::Fifo, 0o600.into(), 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("endless.yaml")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("nowhere.json")).unwrap();
        let files = cdi_files_in(&[dir.path().to_str().unwrap(), "/nonexistent"]);
        assert_eq!(files.len(), 10);
        let edits = oci::cdi::edits(&["v.com/c=a".to_owned()], &files).unwrap();
        assert_eq!(edits.env, ["A=1"]);
        assert!(oci::cdi::edits(&["v.com/c=b".to_owned()], &files).is_err());
    }

    #[test]
    fn kernel_versions() {
        for (release, version) in [
            ("6.1.0-18-amd64", (6, 1)),
            ("5.10", (5, 10)),
            ("4.19.0", (4, 19)),
            ("odd", (0, 0)),
            ("", (0, 0)),
        ] {
            assert_eq!(kernel(release), version);
        }
    }

    #[test]
    fn this_machine_has_facts() {
        let config: Config =
            serde_json::from_str(r#"{"cpus":1,"memory":"1g","ulimits":["nofile=1"]}"#).unwrap();
        let facts = gather(&config).unwrap();
        assert!(facts.kernel >= (3, 0) && facts.cpus >= 1 && !facts.hostname.is_empty());
        assert_eq!(facts.hard_limits.len(), 1);
        let machine = Machine { store: &Store::at("/nonexistent/root", "/nonexistent/run") };
        let null = machine.devices_at("/dev/null").unwrap();
        assert_eq!((null[0].kind, null[0].major, null[0].minor), ('c', 1, 3));
        assert_eq!(machine.devices_at("/dev/no-such").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(machine.devices_at("/etc/passwd").unwrap_err().kind(), Kind::Input);
        assert!(machine.all_devices().unwrap().iter().any(|device| device.path == "/dev/null"));
        assert_eq!(machine.peer("nobody").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(machine.profile("/nonexistent/p.json").unwrap_err().kind(), Kind::NotFound);
    }
}
