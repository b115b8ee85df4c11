//! `config.json` of a bundle that other runtimes run: the image's own defaults, nothing of this machine's state.

use cli::{Explain, Fault, Result};
use oci::capabilities::CapSet;
use oci::seccomp::Architecture;
use oci::spec::{Facts, HostDevice, Identity, ImageDefaults, Lookup, Peer, UserNamespace, generate};
use oci::users::UserFiles;
use oci::wishes::UserMode;
use record::{Config, Image};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Longest passwd or group file that is read.
const MAX_USER_FILE: u64 = 16 << 20;

/// Writes `config.json` into `bundle`, which will be found at `final_place`.
pub fn write_config(image: &Image, bundle: &Path, final_place: &Path) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    let files =
        UserFiles { passwd: user_file(&rootfs, "etc/passwd")?, group: user_file(&rootfs, "etc/group")? };
    let name = final_place.file_name().unwrap_or_default().to_string_lossy();
    let identity = Identity {
        // A runtime gets its own id on its command line.
        id: oci::Digest::of(name.as_bytes()).hex().to_owned(),
        name: name.into_owned(),
        bundle: None,
        root: Path::new("rootfs").to_owned(),
        volumes: final_place.join("volumes"),
    };
    let mut config = Config { hostname: Some("staves".to_owned()), ..Config::default() };
    let defaults = ImageDefaults::of(Some(&image.config))?;
    if defaults.entrypoint.is_empty() && defaults.cmd.is_empty() {
        // An image of files only still makes a bundle, to be edited or entered.
        config.command = Some(vec!["sh".to_owned()]);
    }
    let generated = generate(Some(&image.config), &config, &files, &identity, &facts(), &NoLookup)?;
    let mut spec = generated.json()?;
    make_portable(&mut spec, final_place);
    let mut text = serde_json::to_vec_pretty(&spec).explain(|| "write config.json".into())?;
    text.push(b'\n');
    let path = bundle.join("config.json");
    std::fs::write(&path, text).explain(|| format!("write {}", path.display()))
}

/// A bundle stands alone: it has no volumes and no cgroup that belongs to one container of ours.
fn make_portable(spec: &mut Value, bundle: &Path) {
    if let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) {
        mounts.retain(|mount| {
            let source = mount.get("source").and_then(Value::as_str).unwrap_or_default();
            !Path::new(source).starts_with(bundle)
        });
    }
    if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
        linux.shift_remove("cgroupsPath");
    }
}

/// Resolved inside the tree, which is hostile.
fn user_file(rootfs: &Path, name: &str) -> Result<Option<String>> {
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(std::io::Error::from)
        .explain(|| format!("open {}", rootfs.display()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(fd) = sys::fs::open_in_root(&root, name, flags) else { return Ok(None) };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|status| status.is_file() && status.len() <= MAX_USER_FILE) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_USER_FILE).read_to_end(&mut bytes).explain(|| format!("read {name}"))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn facts() -> Facts {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    Facts {
        kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        architecture: Architecture::native(),
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        capabilities: CapSet::default_of_containers(),
        apparmor: false,
        cpus: 1,
        swap_accounting: false,
        hard_limits: Vec::new(),
        hostname: "staves".to_owned(),
        init: None,
        thermal_throttles: 0,
        ipv4_sysctls: true,
    }
}

/// The defaults ask for nothing of the machine.
struct NoLookup;

impl Lookup for NoLookup {
    fn all_devices(&self) -> Result<Vec<HostDevice>> {
        Ok(Vec::new())
    }

    fn devices_at(&self, path: &str) -> Result<Vec<HostDevice>> {
        Err(Fault::not_found("a bundle has no devices of the host").on(path))
    }

    fn user_namespace(&self, _: &UserMode, _: &Identity) -> Result<UserNamespace> {
        Err(Fault::input("a bundle asks for no user namespace"))
    }

    fn peer(&self, container: &str) -> Result<Peer> {
        Err(Fault::not_found("a bundle joins no container").on(container))
    }

    fn profile(&self, path: &str) -> Result<String> {
        Err(Fault::not_found("a bundle has the default profile").on(path))
    }

    fn cdi_files(&self) -> Result<Vec<oci::cdi::SpecFile>> {
        Ok(Vec::new())
    }

    fn time_zone(&self, name: &str) -> Result<std::path::PathBuf> {
        Err(Fault::not_found(format!("there is no time zone {name}")))
    }
}
