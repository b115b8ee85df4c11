//! An image's configuration, a user's wishes and facts about the machine become an OCI runtime specification
//! (runtime-spec `config.json`). Pure: what has to be looked up on the machine is asked of a [`Lookup`].
//!
//! Defaults are docker's throughout (moby `daemon/pkg/oci/defaults.go`, `daemon/oci_linux.go`).

mod files;
mod image;
mod injected;
mod mounts;
mod process;
mod resources;
mod users;

pub use image::ImageDefaults;

use crate::Platform;
use crate::capabilities::CapSet;
use crate::cdi;
use crate::seccomp::{self, Architecture, Profile, Target};
use crate::users::{UserFiles, resolve};
use crate::wishes::{
    CgroupMode, IdMap, IpcMode, NetworkMode, Personality, PidMode, Seccomp, Secret, UserMode, UtsMode, Wishes,
};
use fault::{Fault, Result};
use mounts::Mounts;
use oci_spec::runtime::{
    Linux, LinuxIntelRdt, LinuxNamespace, LinuxNamespaceType, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSeccomp, PosixRlimitType, Root, Spec,
};
use record::Config;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The version of the runtime specification written; runc 1.1 and crun take it.
pub const OCI_VERSION: &str = "1.0.2";

/// What the pure code has to know about the machine and the caller.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Major and minor.
    pub kernel: (u32, u32),
    /// `None` where no system call filter is known for it.
    pub architecture: Option<Architecture>,
    /// Whether the controllers are on the unified hierarchy (v2); v1 and hybrid are not.
    pub cgroup_v2: bool,
    /// What the caller can give away: its effective set.
    pub capabilities: CapSet,
    pub apparmor: bool,
    /// CPUs a container can be given.
    pub cpus: u32,
    /// Whether memory and swap together can be limited.
    pub swap_accounting: bool,
    /// The caller's hard limits; a kind that is missing has none.
    pub hard_limits: Vec<(PosixRlimitType, u64)>,
    /// The machine's host name, for containers that share it.
    pub hostname: String,
    /// The program `--init` puts before the command.
    pub init: Option<PathBuf>,
    /// How many `/sys/devices/system/cpu/cpuN/thermal_throttle` there are to hide.
    pub thermal_throttles: u32,
    /// Kernel parameters of a new network namespace that exist: ping_group_range, ip_unprivileged_port_start.
    pub ipv4_sysctls: bool,
}

/// Which container is being made, and where its things are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// 64 hexadecimal digits.
    pub id: String,
    pub name: String,
    /// Holds `hostname`, `hosts` and `resolv.conf`, which are bound over those in /etc. `None`: the image's stay.
    pub bundle: Option<PathBuf>,
    /// The root directory; `rootfs`, that in the bundle, unless a directory was given.
    pub root: PathBuf,
    /// Directory of the volumes: `$STAVES_ROOT/volumes`.
    pub volumes: PathBuf,
}

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    pub path: String,
    /// `c`, `b` or `p`.
    pub kind: char,
    pub major: i64,
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Another container whose namespaces are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Of its init, on the host.
    pub pid: i32,
    /// Its `hosts` and `resolv.conf` go with its network.
    pub bundle: PathBuf,
    pub hostname: String,
}

/// What has to be asked while a specification is made; each is asked only when a wish needs it.
pub trait Lookup {
    /// Every device of the host, for privileged containers.
    fn all_devices(&self) -> Result<Vec<HostDevice>>;
    /// The device at a path, symbolic links followed, or all below it when it is a directory. Paths begin with `path`.
    fn devices_at(&self, path: &str) -> Result<Vec<HostDevice>>;
    /// What a user namespace other than the machine's is.
    fn user_namespace(&self, mode: &UserMode, container: &Identity) -> Result<UserNamespace>;
    /// A running container by name or id.
    fn peer(&self, container: &str) -> Result<Peer>;
    /// Text of a seccomp profile.
    fn profile(&self, path: &str) -> Result<String>;
    /// Specifications of the Container Device Interface.
    fn cdi_files(&self) -> Result<Vec<cdi::SpecFile>>;
    /// The file of a time zone, `local` for this machine's; symbolic links are followed.
    fn time_zone(&self, name: &str) -> Result<PathBuf>;
}

/// The user namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    New {
        uids: Vec<IdMap>,
        gids: Vec<IdMap>,
    },
    /// One that exists, by the path of its file.
    Join(PathBuf),
}

/// A volume the container uses; whoever makes the container sees that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// Made from container and target for one without a name, so that it is the same each time.
    pub name: String,
    pub anonymous: bool,
    /// Where in the container.
    pub target: String,
    /// `$STAVES_ROOT/volumes/<name>/_data`.
    pub path: PathBuf,
    /// Fill it with what the image has at the target when it is empty.
    pub populate: bool,
    pub read_only: bool,
    /// Give it to the container's user.
    pub chown: bool,
    /// Of one that is made; `None` and empty: as it is.
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A mount whose source has no path: whoever runs the container makes it ready, each time anew. In the specification its
/// source is [`TreeUse::source`], which is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeUse {
    /// Where in the container.
    pub target: String,
    pub tree: Tree,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// A volume whose driver or options have something mounted, or a part of a volume.
    Volume {
        name: String,
        subpath: Option<String>,
    },
    /// An image's files. Its layers, lowest first, are filled in when the container is made.
    Image {
        reference: String,
        digest: String,
        layers: Vec<PathBuf>,
        subpath: Option<String>,
    },
    /// A directory under a layer that takes the writes: `writes` are upper and work directory, the bundle's own if absent.
    Overlay {
        lower: PathBuf,
        writes: Option<(PathBuf, PathBuf)>,
    },
    Secret(Secret),
}

impl TreeUse {
    /// Relative to the bundle. Run by a program that does not know of trees the container fails and runs with nothing else.
    pub fn source(target: &str) -> PathBuf {
        PathBuf::from(format!("trees{target}"))
    }
}

/// A directory or file of the host the container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindUse {
    pub source: PathBuf,
    /// Make it, as a directory, when it is missing; else it has to be there.
    pub create: bool,
    /// Its mount has to be shared already, for mounts to pass to the host and back.
    pub shared: bool,
    /// Give it, with all in it, to the container's user.
    pub chown: bool,
    /// What is on disk are the container's own ids.
    pub is_mapped: bool,
}

/// A specification and what has to be done before it can be run.
#[derive(Clone, Debug)]
pub struct Generated {
    pub spec: Spec,
    /// What was left out or done otherwise.
    pub warnings: Vec<String>,
    pub volumes: Vec<VolumeUse>,
    pub binds: Vec<BindUse>,
    pub trees: Vec<TreeUse>,
    /// `None`: the machine's.
    pub users: Option<UserNamespace>,
    /// The container's host name.
    pub hostname: String,
    /// The user's, else the image's, else SIGTERM.
    pub stop_signal: i32,
    /// Files of the bundle beside `hostname`, `hosts` and `resolv.conf`, which have to be written: name, text.
    pub files: Vec<(&'static str, String)>,
    pub wishes: Wishes,
}

impl Generated {
    /// The specification as JSON, sets and maps in a fixed order: `config.json` and the record's `spec`.
    pub fn json(&self) -> Result<serde_json::Value> {
        to_json(&self.spec)
    }

    /// Makes a specification that was written for a container not made yet, and perhaps edited since, that of this
    /// container: root, control group, and the sources of what belongs to a container alone (its files in /etc, its
    /// volumes without a name). What else the user changed stays.
    ///
    /// Fails with input on what is not a specification.
    pub fn settle(&self, mut adopted: serde_json::Value) -> Result<serde_json::Value> {
        let malformed = |what: &str| Fault::input(format!("spec{what} is not an object"));
        let own = self.json()?;
        let spec = adopted.as_object_mut().ok_or_else(|| malformed(""))?;
        let root = spec.entry("root").or_insert_with(|| serde_json::json!({}));
        root.as_object_mut()
            .ok_or_else(|| malformed(".root"))?
            .insert("path".to_owned(), own["root"]["path"].clone());
        let linux = spec.entry("linux").or_insert_with(|| serde_json::json!({}));
        let linux = linux.as_object_mut().ok_or_else(|| malformed(".linux"))?;
        linux.insert("cgroupsPath".to_owned(), own["linux"]["cgroupsPath"].clone());
        let alone = |target: &str| {
            mounts::is_bundle_file(target)
                || self.volumes.iter().any(|volume| volume.anonymous && volume.target == target)
        };
        for mount in spec.get_mut("mounts").and_then(|list| list.as_array_mut()).into_iter().flatten() {
            let target = mount["destination"].as_str().filter(|target| alone(target)).map(str::to_owned);
            // A source the user put there is no bare name of a bundle's file and no volume without a name.
            let placeholder = mount["source"].as_str().is_some_and(mounts::is_placeholder);
            let ours = own["mounts"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|ours| ours["destination"].as_str() == target.as_deref());
            if let (Some(_), true, Some(ours)) = (target, placeholder, ours) {
                mount["source"] = ours["source"].clone();
            }
        }
        Ok(adopted)
    }
}

/// A specification as JSON, the same each time. oci-spec keeps capabilities, annotations and kernel parameters in
/// hash tables.
pub fn to_json(spec: &Spec) -> Result<serde_json::Value> {
    let mut json = serde_json::to_value(spec)
        .map_err(|error| Fault::failed("write the specification").because(error))?;
    if let Some(sets) = json.pointer_mut("/process/capabilities").and_then(|sets| sets.as_object_mut()) {
        for set in sets.values_mut().filter_map(|set| set.as_array_mut()) {
            set.sort_unstable_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    for map in ["/annotations", "/linux/sysctl", "/linux/resources/unified"] {
        if let Some(map) = json.pointer_mut(map).and_then(|map| map.as_object_mut()) {
            map.sort_keys();
        }
    }
    Ok(json)
}

/// Makes the specification.
///
/// `image` is the whole image configuration, as the record's `image.config` has it. Fails with input on wishes that
/// are wrong or contradict each other, with not found on users, groups, devices and containers that do not exist.
pub fn generate(
    image: Option<&serde_json::Value>,
    config: &Config,
    files: &UserFiles,
    container: &Identity,
    facts: &Facts,
    lookup: &dyn Lookup,
) -> Result<Generated> {
    let wishes = Wishes::parse(config)?;
    if let (Some(wanted), Some(image)) = (&wishes.platform, image) {
        check_platform(wanted, image)?;
    }
    let image = ImageDefaults::of(image)?;
    let injected = match wishes.cdi_devices.as_slice() {
        [] => cdi::Edits::default(),
        names => cdi::edits(names, &lookup.cdi_files()?)?,
    };
    let users = match &wishes.users {
        UserMode::Host => None,
        mode => Some(lookup.user_namespace(mode, container)?),
    };
    Generator { image, config, container, facts, lookup, warnings: Vec::new(), wishes, injected, users }
        .run(files)
}

fn check_platform(wanted: &Platform, image: &serde_json::Value) -> Result<()> {
    let member = |name: &str| image.get(name).and_then(serde_json::Value::as_str);
    let (Some(os), Some(architecture)) = (member("os"), member("architecture")) else { return Ok(()) };
    let found = Platform::of(os, architecture, member("variant"));
    if wanted.rank(&found).is_some() {
        return Ok(());
    }
    Err(Fault::input(format!("the image is for {found}, not for {wanted}"))
        .hint(format!("img-pull --platform {wanted} gets another")))
}

struct Generator<'a> {
    image: ImageDefaults,
    config: &'a Config,
    container: &'a Identity,
    facts: &'a Facts,
    lookup: &'a dyn Lookup,
    warnings: Vec<String>,
    wishes: Wishes,
    /// What devices bring along.
    injected: cdi::Edits,
    /// `None`: the machine's.
    users: Option<UserNamespace>,
}

impl Generator<'_> {
    fn run(mut self, files: &UserFiles) -> Result<Generated> {
        let network_peer = self.network_peer()?;
        let hostname = self.hostname(network_peer.as_ref());
        let wanted = self.config.user.as_deref().unwrap_or(&self.image.user);
        let mut user = resolve(wanted, &self.config.group_add, files)?;
        self.add_groups(&mut user);
        let capabilities = self.capabilities();

        let mut linux = Linux::default();
        linux
            .set_cgroups_path(Some(self.cgroups_path()))
            .set_namespaces(Some(self.namespaces(network_peer.as_ref())?))
            .set_seccomp(self.seccomp(capabilities)?)
            .set_masked_paths(self.masked_paths())
            .set_readonly_paths(self.readonly_paths())
            .set_sysctl(self.sysctls())
            .set_personality(self.personality())
            .set_intel_rdt(self.rdt_class());
        self.add_resources(&mut linux)?;
        self.add_devices(&mut linux)?;

        let process = self.process(&user, &hostname, capabilities)?;
        let bundle_files = self.user_files(&user, files)?;
        let mut mounts = self.mounts(network_peer.as_ref(), &bundle_files)?;
        self.fit_to_users(&mut mounts);
        let (uids, gids) = self.id_mappings();
        linux.set_uid_mappings(uids).set_gid_mappings(gids);
        linux.set_rootfs_propagation(mounts.rootfs_propagation.map(str::to_owned));

        let mut root = Root::default();
        root.set_path(self.container.root.clone()).set_readonly(Some(self.config.read_only));
        let mut spec = Spec::default();
        spec.set_version(OCI_VERSION.to_owned())
            .set_root(Some(root))
            .set_process(Some(process))
            .set_mounts(Some(mounts.list))
            .set_hostname(Some(hostname.clone()).filter(|_| self.wishes.uts == UtsMode::Private))
            .set_domainname(self.config.domainname.clone().filter(|name| !name.is_empty()))
            .set_hooks(self.hooks()?)
            .set_annotations(self.annotations())
            .set_linux(Some(linux));
        let stop_signal = self.stop_signal()?;
        Ok(Generated {
            spec,
            warnings: self.warnings,
            volumes: mounts.volumes,
            binds: mounts.binds,
            trees: mounts.trees,
            users: self.users,
            hostname,
            stop_signal,
            files: bundle_files,
            wishes: self.wishes,
        })
    }

    fn network_peer(&self) -> Result<Option<Peer>> {
        match &self.wishes.network {
            NetworkMode::Container(name) => self.lookup.peer(name).map(Some),
            _ => Ok(None),
        }
    }

    fn hostname(&self, network_peer: Option<&Peer>) -> String {
        if let Some(name) = &self.wishes.hostname {
            return name.clone();
        }
        if let Some(peer) = network_peer {
            return peer.hostname.clone();
        }
        if self.wishes.uts == UtsMode::Host || self.wishes.network == NetworkMode::Host {
            return self.facts.hostname.clone();
        }
        if let UtsMode::Container(name) = &self.wishes.uts
            && let Ok(peer) = self.lookup.peer(name)
        {
            return peer.hostname;
        }
        self.container.id.chars().take(12).collect()
    }

    fn cgroups_path(&self) -> PathBuf {
        let parent = self.wishes.cgroup_parent.as_deref().unwrap_or("/staves");
        PathBuf::from(parent).join(&self.container.id)
    }

    fn personality(&self) -> Option<LinuxPersonality> {
        let mut personality = LinuxPersonality::default();
        personality.set_domain(match self.wishes.personality? {
            Personality::Linux => LinuxPersonalityDomain::PerLinux,
            Personality::Linux32 => LinuxPersonalityDomain::PerLinux32,
        });
        Some(personality)
    }

    fn rdt_class(&self) -> Option<LinuxIntelRdt> {
        let class = self.config.rdt_class.clone().filter(|class| !class.is_empty())?;
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_clos_id(Some(class));
        Some(rdt)
    }

    fn stop_signal(&self) -> Result<i32> {
        const SIGTERM: i32 = 15;
        match (self.wishes.stop_signal, self.image.stop_signal.as_str()) {
            (Some(signal), _) => Ok(signal),
            (None, "") => Ok(SIGTERM),
            (None, text) => {
                crate::wishes::signal(text).map_err(|fault| fault.within("the image's StopSignal"))
            }
        }
    }

    fn annotations(&self) -> Option<std::collections::HashMap<String, String>> {
        let annotations = &self.config.annotations;
        (!annotations.is_empty()).then(|| annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// The bounding set: what was asked for, as far as the caller has it to give.
    fn capabilities(&mut self) -> CapSet {
        let have = self.facts.capabilities;
        if self.config.privileged {
            return have;
        }
        let wish = self.wishes.capabilities;
        let wanted = wish.apply(CapSet::default_of_containers());
        // Missing ones of the defaults and of ALL were not asked for by name; docker says nothing of them either.
        let missing: Vec<String> = wish.add.intersection(wanted).without(have).names().collect();
        if !missing.is_empty() {
            self.warnings
                .push(format!("not given, because this process does not have them: {}", missing.join(" ")));
        }
        wanted.intersection(have)
    }

    fn seccomp(&mut self, capabilities: CapSet) -> Result<Option<LinuxSeccomp>> {
        let Some(architecture) = self.facts.architecture else {
            self.warnings.push("no system call filter: none is known for this architecture".to_owned());
            return Ok(None);
        };
        let target = Target { capabilities, kernel: self.facts.kernel, architecture };
        let resolve = |text: &str| Profile::parse(text)?.resolve(&target);
        match &self.wishes.security.seccomp {
            Seccomp::Unconfined => Ok(None),
            Seccomp::Default if self.config.privileged => Ok(None),
            Seccomp::Default | Seccomp::Builtin => Ok(Some(seccomp::builtin(&target))),
            Seccomp::Inline(text) => resolve(text),
            Seccomp::File(path) => {
                resolve(&self.lookup.profile(path)?).map_err(|fault| fault.within(path.clone()))
            }
        }
    }

    fn namespaces(&self, network_peer: Option<&Peer>) -> Result<Vec<LinuxNamespace>> {
        let own = |kind| namespace(kind, None);
        let of =
            |kind, name, pid: i32| namespace(kind, Some(PathBuf::from(format!("/proc/{pid}/ns/{name}"))));
        let mut list = vec![own(LinuxNamespaceType::Mount)];
        match &self.users {
            None => {}
            Some(UserNamespace::New { .. }) => list.push(own(LinuxNamespaceType::User)),
            Some(UserNamespace::Join(path)) => {
                list.push(namespace(LinuxNamespaceType::User, Some(path.clone())));
            }
        }
        match (&self.wishes.network, network_peer) {
            (NetworkMode::Host, _) => {}
            (NetworkMode::Container(_), Some(peer)) => {
                list.push(of(LinuxNamespaceType::Network, "net", peer.pid));
            }
            (NetworkMode::Path(path), _) => {
                list.push(namespace(LinuxNamespaceType::Network, Some(path.clone())));
            }
            _ => list.push(own(LinuxNamespaceType::Network)),
        }
        match &self.wishes.uts {
            UtsMode::Host => {}
            UtsMode::Private => list.push(own(LinuxNamespaceType::Uts)),
            UtsMode::Container(name) => {
                list.push(of(LinuxNamespaceType::Uts, "uts", self.lookup.peer(name)?.pid));
            }
        }
        match &self.wishes.pid {
            PidMode::Host => {}
            PidMode::Private => list.push(own(LinuxNamespaceType::Pid)),
            PidMode::Container(name) => {
                list.push(of(LinuxNamespaceType::Pid, "pid", self.lookup.peer(name)?.pid));
            }
        }
        match &self.wishes.ipc {
            IpcMode::Host => {}
            IpcMode::Private | IpcMode::None => list.push(own(LinuxNamespaceType::Ipc)),
            IpcMode::Container(name) => {
                list.push(of(LinuxNamespaceType::Ipc, "ipc", self.lookup.peer(name)?.pid));
            }
        }
        if self.has_cgroup_namespace() {
            list.push(own(LinuxNamespaceType::Cgroup));
        }
        Ok(list)
    }

    /// docker's default: private on v2, the host's on v1.
    fn has_cgroup_namespace(&self) -> bool {
        match self.wishes.cgroupns {
            CgroupMode::Private => true,
            CgroupMode::Host => false,
            CgroupMode::Default => self.facts.cgroup_v2,
        }
    }
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}

#[cfg(test)]
mod tests;
