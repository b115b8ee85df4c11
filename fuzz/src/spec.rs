//! An image's configuration and a user's wishes made into a runtime specification.
//!
//! Input: a record with `image.config`, `config`, `spec`, and of this target's own `passwd`, `group` (texts) and `profile`
//! (a seccomp profile, as a text).

use fault::{Fault, Result};
use oci::capabilities::CapSet;
use oci::seccomp::Architecture;
use oci::spec::{Facts, HostDevice, Identity, Lookup, Peer, UserNamespace, generate};
use oci::users::UserFiles;
use oci::wishes::{IdMap, UserMode};
use record::{Reader, Record};
use serde_json::Value;
use std::path::PathBuf;

pub fn check(data: &[u8]) {
    for record in Reader::new(data).flatten() {
        let _ = one(&record);
    }
}

fn one(record: &Record) -> Result<()> {
    let image = record.image()?.map(|image| image.config);
    let files = UserFiles { passwd: record.get("passwd")?, group: record.get("group")? };
    let machine = Machine { profile: record.get("profile")?.unwrap_or_default() };
    let generated = generate(image.as_ref(), &record.config()?, &files, &identity(), &facts(), &machine)?;
    let json = generated.json()?;
    let text = serde_json::to_vec(&json).expect("a specification is JSON");
    // What one tool writes the other takes.
    runtime::Spec::parse(&text).expect("a specification that was generated");
    assert_eq!(generated.settle(json.clone()).expect("its own"), json);
    if let Some(adopted) = record.get::<Value>("spec")?
        && let Ok(settled) = generated.settle(adopted)
    {
        assert_eq!(settled["root"]["path"], json["root"]["path"]);
        assert_eq!(settled["linux"]["cgroupsPath"], json["linux"]["cgroupsPath"]);
    }
    Ok(())
}

fn identity() -> Identity {
    Identity {
        id: "c".repeat(64),
        name: "brisk_cooper".to_owned(),
        bundle: Some(PathBuf::from("/bundle")),
        root: PathBuf::from("rootfs"),
        volumes: PathBuf::from("/volumes"),
    }
}

fn facts() -> Facts {
    Facts {
        kernel: (6, 1),
        architecture: Architecture::by_name("x86_64"),
        cgroup_v2: false,
        capabilities: CapSet::ALL,
        apparmor: false,
        cpus: 4,
        swap_accounting: true,
        hard_limits: Vec::new(),
        hostname: "machine".to_owned(),
        init: Some(PathBuf::from("/ctr-shim")),
        thermal_throttles: 2,
        ipv4_sysctls: true,
    }
}

/// A machine with one device, one container and one file.
struct Machine {
    profile: String,
}

impl Lookup for Machine {
    fn all_devices(&self) -> Result<Vec<HostDevice>> {
        self.devices_at("/dev/fuse")
    }

    fn devices_at(&self, path: &str) -> Result<Vec<HostDevice>> {
        let path = path.to_owned();
        Ok(vec![HostDevice { path, kind: 'c', major: 10, minor: 229, mode: 0o666, uid: 0, gid: 0 }])
    }

    fn user_namespace(&self, mode: &UserMode, _: &Identity) -> Result<UserNamespace> {
        if let UserMode::Path(path) = mode {
            return Ok(UserNamespace::Join(path.into()));
        }
        let ids = || vec![IdMap { container: 0, host: 100_000, size: 65_536 }];
        Ok(UserNamespace::New { uids: ids(), gids: ids() })
    }

    fn peer(&self, container: &str) -> Result<Peer> {
        if container == "gone" {
            return Err(Fault::not_found("no such container"));
        }
        Ok(Peer { pid: 42, bundle: PathBuf::from("/peer"), hostname: container.to_owned() })
    }

    fn profile(&self, _path: &str) -> Result<String> {
        Ok(self.profile.clone())
    }

    fn cdi_files(&self) -> Result<Vec<oci::cdi::SpecFile>> {
        Ok(Vec::new())
    }

    fn time_zone(&self, name: &str) -> Result<std::path::PathBuf> {
        Ok(std::path::Path::new("/usr/share/zoneinfo").join(name))
    }
}
