//! The host's side: its sockets, its network namespace, and bridge and firewall made ready once since boot.

use crate::definition::Definition;
use crate::firewall::{self, Firewall};
use crate::link;
use crate::netlink::Socket;
use crate::plan::Step;
use fault::{Explain, Fault, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use store::Store;

/// What attaching, detaching and pruning work with. Opens nothing before it is needed.
pub struct Host<'a> {
    pub store: &'a Store,
    namespace: Namespace,
    route: OnceCell<Socket>,
    firewall: OnceCell<Firewall>,
    notes: RefCell<Vec<String>>,
}

/// A network namespace held open.
pub struct Namespace {
    file: File,
    identity: (u64, u64),
}

/// `$STAVES_RUN/networks/<name>/ready`: what was made since boot, and for which definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pub device: String,
    pub ifindex: u32,
    pub subnet: String,
    pub gateway: String,
    /// Inode of the host's network namespace: in another one nothing is ready.
    pub netns: u64,
}

/// A network that is ready and stays so while this is held.
pub struct InUse {
    pub ready: Ready,
    _lock: File,
}

impl Namespace {
    pub fn open(path: &str) -> std::io::Result<Namespace> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Namespace { file, identity: (metadata.dev(), metadata.ino()) })
    }

    pub fn is(&self, other: &Namespace) -> bool {
        self.identity == other.identity
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

impl<'a> Host<'a> {
    pub fn new(store: &'a Store) -> Result<Host<'a>> {
        let namespace = Namespace::open("/proc/self/ns/net")
            .explain(|| "open this process's network namespace".into())?;
        Ok(Host {
            store,
            namespace,
            route: OnceCell::new(),
            firewall: OnceCell::new(),
            notes: RefCell::default(),
        })
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn route(&self) -> Result<&Socket> {
        if let Some(open) = self.route.get() {
            return Ok(open);
        }
        let opened = Socket::route()?;
        Ok(self.route.get_or_init(|| opened))
    }

    pub fn firewall(&self) -> Result<&Firewall> {
        if let Some(open) = self.firewall.get() {
            return Ok(open);
        }
        let opened = Firewall::open()?;
        Ok(self.firewall.get_or_init(|| opened))
    }

    /// What the user should hear of, once.
    pub fn take_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    /// A socket into another namespace. The thread is back in its own when this returns.
    pub fn socket_inside(&self, namespace: &Namespace) -> Result<Socket> {
        let enter = |file: &File| move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        enter(&namespace.file).explain(|| "enter the container's network namespace".into())?;
        let socket = Socket::route();
        if let Err(error) = enter(&self.namespace.file) {
            // Whatever this process did next would happen to the container's network instead of the host's.
            abort(error);
        }
        socket
    }

    /// The network, ready for attachments: looked up if it was made since boot, else made.
    pub fn ready(&self, network: &Definition) -> Result<InUse> {
        let dir = self.dir(network);
        for _ in 0..8 {
            if let Some(in_use) = self.look(network, &dir)? {
                return Ok(in_use);
            }
            self.store.make_dir(&dir)?;
            let lock = locked(&dir, FlockOperation::LockExclusive)?;
            // Somebody else may have made it while this process waited.
            if read(&dir.join("ready")).is_none_or(|ready| !self.matches(&ready, network)) {
                self.make(network, &dir, &lock)?;
            }
            drop(lock);
        }
        Err(Fault::retryable("the network is being made and removed by others").on(network.name.as_str()))
    }

    /// What [`Host::ready`] would do, and the bridge's index if that is nothing.
    pub fn preview(&self, network: &Definition) -> Result<(Vec<Step>, Option<u32>)> {
        let ready = self.look(network, &self.dir(network))?.map(|in_use| in_use.ready.ifindex);
        let bridge = link::find_bridge(self.route()?, network)?.map(|bridge| bridge.index);
        if ready.is_some() && ready == bridge {
            return Ok((Vec::new(), bridge));
        }
        check_overlap(network)?;
        let mut steps = vec![Step::SetUpBridge {
            device: network.device.clone(),
            address: format!("{}/{}", network.gateway, network.subnet.prefix),
        }];
        let sysctls = [route_localnet(network), IP_FORWARD.to_owned()];
        steps.extend(
            sysctls
                .into_iter()
                .filter(|name| !is_set(name, "1"))
                .map(|name| Step::SetSysctl { name: name.replace('/', "."), value: "1" }),
        );
        steps.push(Step::SetUpTable { table: firewall::TABLE });
        Ok((steps, None))
    }

    /// Makes bridge and table again after something of them was missing.
    pub fn repair(&self, network: &Definition, in_use: InUse) -> Result<InUse> {
        let dir = self.dir(network);
        drop(in_use);
        let lock = locked(&dir, FlockOperation::LockExclusive)?;
        self.make(network, &dir, &lock)?;
        drop(lock);
        self.ready(network)
    }

    /// Calls `remove` when nobody uses the network, with the marker already gone. For net-prune.
    pub fn retire(&self, network: &Definition, remove: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let dir = self.dir(network);
        if !dir.is_dir() {
            return remove();
        }
        let _lock = locked(&dir, FlockOperation::LockExclusive)?;
        let removed = remove()?;
        if removed {
            let _ = std::fs::remove_file(dir.join("ready"));
        }
        Ok(removed)
    }

    fn dir(&self, network: &Definition) -> PathBuf {
        self.store.run().join("networks").join(&network.name)
    }

    fn look(&self, network: &Definition, dir: &Path) -> Result<Option<InUse>> {
        let Ok(lock) = File::open(dir) else { return Ok(None) };
        flock(&lock, FlockOperation::LockShared).explain(|| format!("lock {}", dir.display()))?;
        let ready = read(&dir.join("ready")).filter(|ready| self.matches(ready, network));
        Ok(ready.map(|ready| InUse { ready, _lock: lock }))
    }

    fn matches(&self, ready: &Ready, network: &Definition) -> bool {
        *ready == self.ready_as(network, ready.ifindex)
    }

    fn ready_as(&self, network: &Definition, ifindex: u32) -> Ready {
        Ready {
            device: network.device.clone(),
            ifindex,
            subnet: network.subnet.to_string(),
            gateway: network.gateway.to_string(),
            netns: self.namespace.identity.1,
        }
    }

    fn make(&self, network: &Definition, dir: &Path, lock: &File) -> Result<()> {
        check_overlap(network)?;
        let ifindex = link::make_bridge(self.route()?, network).map_err(privileges)?;
        // Connections from the host's loopback address leave by the bridge to reach published ports.
        sysctl(&route_localnet(network), "1")?;
        if sysctl(IP_FORWARD, "1")? {
            self.notes.borrow_mut().push("net.ipv4.ip_forward was off and is on now".into());
        }
        firewall::make_table(network, lock)?;
        let ready = serde_json::to_vec(&self.ready_as(network, ifindex)).explain(|| "write ready".into())?;
        store::atomic::write(&dir.join("ready"), &ready, 0o600)
    }
}

fn privileges(fault: Fault) -> Fault {
    if fault.os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
        return Fault::denied(fault.to_string()).hint("run it as root");
    }
    fault
}

#[allow(clippy::print_stderr)]
fn abort(error: rustix::io::Errno) -> ! {
    eprintln!("cannot return to the host's network namespace: {error}");
    std::process::abort()
}

fn locked(dir: &Path, how: FlockOperation) -> Result<File> {
    let file = File::open(dir).explain(|| format!("open {}", dir.display()))?;
    flock(&file, how).explain(|| format!("lock {}", dir.display()))?;
    Ok(file)
}

fn read(path: &Path) -> Option<Ready> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

const IP_FORWARD: &str = "net/ipv4/ip_forward";

fn route_localnet(network: &Definition) -> String {
    format!("net/ipv4/conf/{}/route_localnet", network.device)
}

/// Sets a kernel parameter; `true` if it was another one before.
fn sysctl(name: &str, value: &str) -> Result<bool> {
    if is_set(name, value) {
        return Ok(false);
    }
    std::fs::write(format!("/proc/sys/{name}"), value)
        .explain(|| format!("set {} to {value}", name.replace('/', ".")))?;
    Ok(true)
}

fn is_set(name: &str, value: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|present| present.trim() == value)
}

/// Another interface with a route into our subnet would make either unreachable.
fn check_overlap(network: &Definition) -> Result<()> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let hit = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // In the byte order of the machine, as the kernel holds them.
        let word = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok().map(u32::from_be);
        let (base, mask) = (word(1)?, word(7)?);
        let device = *fields.first()?;
        (mask != 0 && device != network.device && network.subnet.overlaps(base, mask))
            .then(|| device.to_owned())
    });
    match hit {
        None => Ok(()),
        Some(device) => Err(Fault::conflict(format!("subnet {} is in use on {device}", network.subnet))
            .on(network.name.as_str())
            .hint(format!("choose another subnet in networks/{}/network.json", network.name))),
    }
}
