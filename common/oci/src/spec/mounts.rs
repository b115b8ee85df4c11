//! `mounts`: the file systems every container has, the files that make its host name and names resolve, the image's
//! volumes, and what the user wants, sorted so that a mount comes after the one it lies in.

use super::files::USER_FILES;
use super::process::INIT_PATH;
use super::{BindUse, Generator, Peer, Tree, TreeUse, VolumeUse};
use crate::wishes::mount::clean_target;
use crate::wishes::{IpcMode, MountKind, MountPlan, ReadOnly, SecretGoes, VolumePlan};
use fault::{Fault, Result};
use oci_spec::runtime::Mount;
use std::path::PathBuf;

/// Mounts and what they need.
#[derive(Default)]
pub(super) struct Mounts {
    pub list: Vec<Mount>,
    pub volumes: Vec<VolumeUse>,
    pub binds: Vec<BindUse>,
    pub trees: Vec<TreeUse>,
    pub rootfs_propagation: Option<&'static str>,
}

/// Target, type, source, options.
const DEFAULTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
];

/// Files of the bundle over files in /etc.
pub(super) const BUNDLE_FILES: [(&str, &str); 3] =
    [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")];

/// From this kernel on read-only can reach what is mounted below (mount_setattr(2)).
const DEEP_READ_ONLY: (u32, u32) = (5, 12);

/// Sixteen images' worth: an image's volumes are hostile input.
const MAX_IMAGE_VOLUMES: usize = 256;

/// Whether a file of the bundle is bound there.
pub(super) fn is_bundle_file(target: &str) -> bool {
    BUNDLE_FILES.iter().chain(&USER_FILES).any(|(known, _)| *known == target)
}

/// Whether a mount's source stands for something that belongs to one container alone: a file of its bundle, or a
/// volume without a name.
pub(super) fn is_placeholder(source: &str) -> bool {
    let is_digest = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    BUNDLE_FILES.iter().chain(&USER_FILES).any(|(_, file)| *file == source)
        || source.strip_suffix("/_data").and_then(|path| path.rsplit('/').next()).is_some_and(is_digest)
}

impl Generator<'_> {
    /// `files` of the bundle are bound beside the usual ones.
    pub(super) fn mounts(
        &mut self,
        network_peer: Option<&Peer>,
        files: &[(&'static str, String)],
    ) -> Result<Mounts> {
        let plans = self.plans()?;
        self.check_own_mounts(&plans)?;
        let mut mounts = Mounts { list: self.default_mounts(&plans)?, ..Mounts::default() };
        // Sorted among the rest as docker does, so that a mount over /etc does not hide them.
        let (outer, inner): (Vec<_>, Vec<_>) = plans.iter().partition(|plan| depth(&plan.target) < 2);
        for plan in outer {
            self.add(&mut mounts, plan)?;
        }
        self.add_bundle_files(&mut mounts, &plans, network_peer);
        if self.has_init() {
            let init =
                self.facts.init.clone().ok_or_else(|| Fault::failed("there is no init program to use"))?;
            mounts.list.push(new_mount(INIT_PATH, "bind", init, &["bind", "ro", "rprivate"]));
        }
        self.add_user_files(&mut mounts, &plans, files);
        self.add_time_zone(&mut mounts, &plans)?;
        for plan in inner {
            self.add(&mut mounts, plan)?;
        }
        for secret in &self.wishes.secrets {
            let target = match &secret.goes {
                SecretGoes::File { target, .. } => target.clone(),
                // Not in the specification, which is a file: it is added when the command is started.
                SecretGoes::Variable(_) => String::new(),
            };
            if !target.is_empty() {
                let mut options = vec!["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"];
                options.extend(self.mapped());
                mounts.list.push(new_mount(&target, "bind", TreeUse::source(&target), &options));
            }
            mounts.trees.push(TreeUse { target, tree: Tree::Secret(secret.clone()) });
        }
        self.add_injected_mounts(&mut mounts);
        Ok(mounts)
    }

    /// The user's mounts, and the image's volumes where the user has none, outer ones first.
    fn plans(&self) -> Result<Vec<MountPlan>> {
        let mut plans = self.wishes.mounts.clone();
        if self.image.volumes.len() > MAX_IMAGE_VOLUMES {
            return Err(Fault::input(format!("the image declares more than {MAX_IMAGE_VOLUMES} volumes")));
        }
        for path in self.image.volumes.keys() {
            let target = clean_target(path).map_err(|fault| fault.within("the image's volumes"))?;
            if target == "/proc" || target.starts_with("/proc/") {
                return Err(Fault::input(format!("the image's volumes: nothing can be mounted at {target}")));
            }
            if plans.iter().all(|plan| plan.target != target) {
                let more = VolumePlan::default();
                let kind = MountKind::Volume { name: None, propagation: "rprivate", populate: true, more };
                plans.push(MountPlan {
                    target,
                    read_only: ReadOnly::No,
                    options: Vec::new(),
                    chown: false,
                    overlay: None,
                    kind,
                });
            }
        }
        if self.config.read_only_tmpfs {
            for target in ["/run", "/tmp", "/var/tmp"] {
                if plans.iter().all(|plan| plan.target != target) {
                    plans.push(read_only_tmpfs(target));
                }
            }
        }
        plans.sort_by_key(|plan| depth(&plan.target));
        Ok(plans)
    }

    fn default_mounts(&self, plans: &[MountPlan]) -> Result<Vec<Mount>> {
        let taken = |target: &str| plans.iter().any(|plan| plan.target == target);
        let own_dev = taken("/dev");
        let mut list = Vec::with_capacity(DEFAULTS.len() + BUNDLE_FILES.len() + plans.len() + 1);
        for (target, kind, source, options) in DEFAULTS {
            if taken(target) || (own_dev && target.starts_with("/dev/")) {
                continue;
            }
            let mut options: Vec<&str> = options.to_vec();
            let writable = self.config.privileged && matches!(target, "/sys" | "/sys/fs/cgroup")
                || self.wishes.security.writable_cgroups && target == "/sys/fs/cgroup";
            if writable {
                options.retain(|option| *option != "ro");
            }
            if target == "/proc" {
                options.extend(self.wishes.security.proc_options.iter().map(String::as_str));
            }
            let shm_size = self.wishes.shm_size.map(|bytes| format!("size={bytes}"));
            if let Some(size) = shm_size.as_deref().filter(|_| target == "/dev/shm") {
                options.retain(|option| !option.starts_with("size="));
                options.push(size);
            }
            match (target, &self.wishes.ipc) {
                ("/dev/shm", IpcMode::None) => {}
                ("/dev/shm", IpcMode::Host) => {
                    list.push(new_mount(target, "bind", "/dev/shm", &["rbind", "rprivate"]));
                }
                ("/dev/shm", IpcMode::Container(name)) => {
                    let source = format!("/proc/{}/root/dev/shm", self.lookup.peer(name)?.pid);
                    list.push(new_mount(target, "bind", source, &["rbind", "rprivate"]));
                }
                _ => list.push(new_mount(target, kind, source, &options)),
            }
        }
        Ok(list)
    }

    fn add_bundle_files(&self, mounts: &mut Mounts, plans: &[MountPlan], network_peer: Option<&Peer>) {
        let Some(bundle) = network_peer.map(|peer| &peer.bundle).or(self.container.bundle.as_ref()) else {
            return;
        };
        for (target, file) in BUNDLE_FILES {
            if plans.iter().any(|plan| plan.target == target) {
                continue;
            }
            let mut options = vec!["rbind", "rprivate"];
            options.extend(self.mapped());
            if self.config.read_only {
                options.push("ro");
            }
            mounts.list.push(new_mount(target, "bind", bundle.join(file), &options));
        }
    }

    /// What the mounts every container has cannot do.
    fn check_own_mounts(&mut self, plans: &[MountPlan]) -> Result<()> {
        let joins_shm = matches!(self.wishes.ipc, IpcMode::Host | IpcMode::Container(_) | IpcMode::None);
        if self.wishes.shm_size.is_some() && (joins_shm || plans.iter().any(|plan| plan.target == "/dev/shm"))
        {
            self.warnings.push("shm-size has no effect: /dev/shm is not this container's own".to_owned());
        }
        // Through the machine's own hierarchies it could change other groups than its own.
        if self.wishes.security.writable_cgroups && !self.config.privileged && !self.has_cgroup_namespace() {
            return Err(Fault::input("writable-cgroups needs a cgroup namespace of the container's own")
                .hint("give --cgroupns private too"));
        }
        Ok(())
    }

    fn add_time_zone(&self, mounts: &mut Mounts, plans: &[MountPlan]) -> Result<()> {
        let Some(name) = &self.wishes.time_zone else { return Ok(()) };
        if plans.iter().all(|plan| plan.target != "/etc/localtime") {
            let file = self.lookup.time_zone(name)?;
            mounts.list.push(new_mount("/etc/localtime", "bind", file, &["bind", "ro", "rprivate"]));
        }
        Ok(())
    }

    fn add(&self, mounts: &mut Mounts, plan: &MountPlan) -> Result<()> {
        let (source, recursive, propagation) = match &plan.kind {
            MountKind::Tmpfs => {
                mounts.list.push(tmpfs(plan));
                return Ok(());
            }
            MountKind::Bind { source, create_source, propagation, recursive } => {
                let source = PathBuf::from(source);
                let shared = propagation.ends_with("shared");
                let create = *create_source;
                let is_mapped = self.users.is_none() || plan.options.iter().any(|option| is_map(option));
                let chown = plan.chown;
                mounts.binds.push(BindUse { source: source.clone(), create, shared, chown, is_mapped });
                (source, *recursive, *propagation)
            }
            MountKind::Volume { name, propagation, populate, more } => {
                let volume = self.volume(plan, name.as_deref(), *populate, more);
                let path = volume.path.clone();
                if let Some(subpath) = &more.subpath {
                    if plan.overlay.is_some() {
                        return Err(Fault::input(format!(
                            "{}: an overlay of a part of a volume is not supported",
                            plan.target
                        )));
                    }
                    let tree = Tree::Volume { name: volume.name.clone(), subpath: Some(subpath.clone()) };
                    mounts.trees.push(TreeUse { target: plan.target.clone(), tree });
                    mounts.volumes.push(volume);
                    (TreeUse::source(&plan.target), true, *propagation)
                } else {
                    mounts.volumes.push(volume);
                    (path, true, *propagation)
                }
            }
            MountKind::Image { reference, subpath } => {
                let tree = Tree::Image {
                    reference: reference.clone(),
                    digest: String::new(),
                    layers: Vec::new(),
                    subpath: subpath.clone(),
                };
                mounts.trees.push(TreeUse { target: plan.target.clone(), tree });
                let mut options = vec!["bind", "ro", "rprivate"];
                options.extend(self.mapped());
                options.extend(plan.options.iter().map(String::as_str));
                mounts.list.push(new_mount(&plan.target, "bind", TreeUse::source(&plan.target), &options));
                return Ok(());
            }
        };
        let source = match &plan.overlay {
            None => source,
            Some(_) if self.users.is_some() => {
                return Err(Fault::input(format!(
                    "{}: an overlay in a user namespace is not supported: overlayfs cannot map its owners",
                    plan.target
                )));
            }
            Some(overlay) => {
                let writes = overlay.writes.as_ref().map(|(upper, work)| (upper.into(), work.into()));
                let tree = Tree::Overlay { lower: source, writes };
                mounts.trees.push(TreeUse { target: plan.target.clone(), tree });
                TreeUse::source(&plan.target)
            }
        };
        // Mounts travel through the root's own propagation, so that must not be private.
        match propagation {
            "shared" | "rshared" => mounts.rootfs_propagation = Some("shared"),
            "slave" | "rslave" => mounts.rootfs_propagation = mounts.rootfs_propagation.or(Some("rslave")),
            _ => {}
        }
        let mut options = vec![if recursive { "rbind" } else { "bind" }, propagation];
        options.extend(self.read_only_option(plan, recursive)?);
        options.extend(plan.options.iter().map(String::as_str));
        if matches!(plan.kind, MountKind::Volume { .. }) && !plan.options.iter().any(|option| is_map(option))
        {
            options.extend(self.mapped());
        }
        mounts.list.push(new_mount(&plan.target, "bind", source, &options));
        Ok(())
    }

    fn read_only_option(&self, plan: &MountPlan, recursive: bool) -> Result<Option<&'static str>> {
        let deep = recursive && self.facts.kernel >= DEEP_READ_ONLY;
        match plan.read_only {
            ReadOnly::No => Ok(None),
            ReadOnly::Shallow => Ok(Some("ro")),
            ReadOnly::Deep => Ok(Some(if deep { "rro" } else { "ro" })),
            ReadOnly::DeepOrFail if deep => Ok(Some("rro")),
            ReadOnly::DeepOrFail => Err(Fault::failed(format!(
                "{} cannot be made read-only with all that is mounted below it: that needs a recursive bind and Linux 5.12",
                plan.target
            ))),
        }
    }

    fn volume(&self, plan: &MountPlan, name: Option<&str>, populate: bool, more: &VolumePlan) -> VolumeUse {
        let anonymous = name.is_none();
        let name = name.map_or_else(|| anonymous_name(&self.container.id, &plan.target), str::to_owned);
        VolumeUse {
            path: self.container.volumes.join(&name).join("_data"),
            name,
            anonymous,
            target: plan.target.clone(),
            // What the image has there belongs at the volume's root, which is not what is mounted.
            populate: populate && more.subpath.is_none(),
            read_only: plan.read_only != ReadOnly::No,
            chown: plan.chown,
            driver: more.driver.clone().or_else(|| self.config.volume_driver.clone()),
            options: more.options.clone(),
            labels: more.labels.clone(),
        }
    }
}

/// As podman's: the image's files are there, whatever is written goes with the container.
fn read_only_tmpfs(target: &str) -> MountPlan {
    let options =
        ["rw", "nosuid", "nodev", "tmpcopyup", if target == "/run" { "mode=755" } else { "mode=1777" }];
    MountPlan {
        chown: false,
        overlay: None,
        target: target.to_owned(),
        read_only: ReadOnly::No,
        options: options.map(str::to_owned).to_vec(),
        kind: MountKind::Tmpfs,
    }
}

/// Whether a mount option maps owners.
fn is_map(option: &str) -> bool {
    matches!(option, "idmap" | "ridmap")
}

fn depth(target: &str) -> usize {
    target.matches('/').count()
}

/// 64 hexadecimal digits, as docker's volumes without a name have; the same container piped in again gets the same.
fn anonymous_name(id: &str, target: &str) -> String {
    crate::Digest::of(format!("{id}\0{target}").as_bytes()).hex().to_owned()
}

/// docker's defaults for a tmpfs; what the user says of a thing replaces what they say.
fn tmpfs(plan: &MountPlan) -> Mount {
    let mut options = vec!["noexec", "nosuid", "nodev"];
    for option in &plan.options {
        let positive = option.strip_prefix("no").unwrap_or(option);
        options.retain(|present| present.strip_prefix("no").unwrap_or(present) != positive);
        let key = option.split_once('=').map(|(key, _)| key);
        options.retain(|present| key.is_none() || present.split_once('=').map(|(key, _)| key) != key);
        options.push(option);
    }
    if plan.read_only != ReadOnly::No {
        options.push("ro");
    }
    options.push("rprivate");
    new_mount(&plan.target, "tmpfs", "tmpfs", &options)
}

pub(super) fn new_mount(target: &str, kind: &str, source: impl Into<PathBuf>, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(target))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}
