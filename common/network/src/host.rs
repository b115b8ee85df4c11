//! The host's side: its sockets, its network namespace, and bridge and firewall made ready once since boot.

use crate::definition::{self, DEFAULT, Definition, Driver, FileSubnet, unknown};
use crate::firewall::{self, Firewall};
use crate::link::Link;
use crate::netlink::Socket;
use crate::occupied::check_overlap;
use crate::plan::Step;
use crate::routed::group_of;
use crate::subnet::Subnet;
use crate::{conntrack, link, sysctl};
use fault::{Explain, Fault, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::net::IpAddr;
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
    /// Path of the namespace of a container that has ended, which somebody holds.
    held: Option<String>,
}

/// A network namespace held open.
pub struct Namespace {
    file: File,
    identity: (u64, u64),
}

/// `$STAVES_RUN/networks/<name>/ready`: what was made since boot, and for which definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Bridge and index; empty and 0 of a network that has none.
    pub device: String,
    pub ifindex: u32,
    /// Subnets and gateways.
    pub pools: Vec<(String, String)>,
    #[serde(default)]
    pub mtu: Option<u32>,
    #[serde(default)]
    pub internal: bool,
    #[serde(default)]
    pub isolate: bool,
    /// Its containers do not reach each other.
    #[serde(default)]
    pub no_icc: bool,
    #[serde(default)]
    pub no_masquerade: bool,
    #[serde(default)]
    pub outbound: Vec<IpAddr>,
    /// The host routes between its containers, see [`crate::routed`].
    #[serde(default)]
    pub routed: bool,
    /// It has a resolver.
    #[serde(default)]
    pub names: bool,
    /// Inode of the host's network namespace: in another one nothing is ready.
    pub netns: u64,
}

/// Longest `ready` read, in bytes.
const LONGEST: u64 = 1 << 20;

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
            held: None,
        })
    }

    /// With the network namespace of a container that has ended, for CNI plugins to undo there what they did: its path.
    #[must_use]
    pub fn holding(self, namespace: Option<String>) -> Host<'a> {
        Host { held: namespace, ..self }
    }

    pub(crate) fn held_namespace(&self) -> Option<&str> {
        self.held.as_deref()
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
        self.inside(namespace, Socket::route)
    }

    /// Does something in another namespace.
    pub fn inside<T>(&self, namespace: &Namespace, work: impl FnOnce() -> Result<T>) -> Result<T> {
        within(&self.namespace, namespace, work)
    }

    /// What tells a namespace from all others there have been, also before this boot. `None` where the kernel does not say.
    pub fn mark_of(&self, namespace: &Namespace) -> Result<Option<String>> {
        let cookie = sys::socket::namespace_cookie(self.socket_inside(namespace)?);
        cookie.map(|cookie| Ok(format!("{}/{cookie}", store::boot_id()?))).transpose()
    }

    /// The network, ready for attachments: looked up if it was made since boot, else made. Of a network without a bridge
    /// nothing is made, and like others it is not removed as long as this is held.
    ///
    /// Fails with not found if its definition was removed meanwhile.
    pub fn ready(&self, network: &Definition) -> Result<InUse> {
        let dir = self.dir(network);
        for _ in 0..8 {
            if let Some(in_use) = self.look_in(network, &dir)? {
                return if network.is_there(self.store) {
                    Ok(in_use)
                } else {
                    Err(unknown(self.store, &network.name))
                };
            }
            let lock = self.lock(network)?;
            if !network.is_there(self.store) {
                return Err(unknown(self.store, &network.name));
            }
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
        let ready = self.look(network)?.map(|in_use| in_use.ready.ifindex);
        if !network.driver.has_device() {
            return Ok((Vec::new(), ready));
        }
        let bridge = link::find_bridge(self.route()?, network)?.map(|bridge| bridge.index);
        if ready.is_some() && ready == bridge {
            return Ok((Vec::new(), bridge));
        }
        check_kind(&link::all(self.route()?)?, network, bridge)?;
        check_overlap(self.store, self.route()?, network, bridge)?;
        let mut steps = vec![Step::SetUpBridge {
            device: network.device.clone(),
            addresses: network.pools.iter().map(|p| format!("{}/{}", p.gateway, p.subnet.prefix)).collect(),
        }];
        let sysctls = sysctl::of(network).into_iter().filter(sysctl::Sysctl::is_to_set);
        steps.extend(sysctls.map(|one| Step::SetSysctl { name: one.name(), value: one.value }));
        steps.push(Step::SetUpTable { table: firewall::TABLE });
        Ok((steps, None))
    }

    /// Makes bridge and table again after something of them was missing.
    pub fn repair(&self, network: &Definition, in_use: InUse) -> Result<InUse> {
        let dir = self.dir(network);
        drop(in_use);
        let lock = self.lock(network)?;
        self.make(network, &dir, &lock)?;
        drop(lock);
        self.ready(network)
    }

    /// Makes bridge and table whole, and calls `then` with the bridge's index while nobody is being attached.
    pub fn remake<T>(&self, network: &Definition, then: impl FnOnce(u32) -> Result<T>) -> Result<T> {
        let dir = self.dir(network);
        let lock = self.lock(network)?;
        if network.name != DEFAULT && !network.is_there(self.store) {
            return Err(unknown(self.store, &network.name));
        }
        self.make(network, &dir, &lock)?;
        let bridge = link::find_bridge(self.route()?, network)?.map(|bridge| bridge.index);
        then(bridge.ok_or_else(|| Fault::retryable("the bridge vanished").on(network.device.as_str()))?)
    }

    /// Calls `remove` while nobody attaches to the network. If that says true, the network is not ready any more.
    pub fn retire(&self, network: &Definition, remove: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let dir = self.dir(network);
        if !dir.is_dir() {
            return remove();
        }
        let _lock = self.lock(network)?;
        let removed = remove()?;
        if removed {
            let _ = std::fs::remove_file(dir.join("ready"));
        }
        Ok(removed)
    }

    /// The same, and takes away the network's directory below `$STAVES_RUN`, too. For a network that is removed.
    pub fn retire_for_good(&self, network: &Definition, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        let dir = self.dir(network);
        let _lock = self.lock(network)?;
        remove()?;
        // Who waits for the lock meanwhile sees that what he gets is gone.
        let _ = store::remove_tree(&dir);
        Ok(())
    }

    /// Calls `remove` if no network is ready, and keeps all from becoming so meanwhile: for what all of them share.
    pub fn when_none_is_ready(&self, remove: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let dir = self.store.run().join("networks");
        if !dir.is_dir() {
            return remove();
        }
        let _lock = locked(&dir, FlockOperation::LockExclusive)?;
        let networks = std::fs::read_dir(&dir).explain(|| format!("read {}", dir.display()))?;
        let ready = networks.flatten().any(|network| {
            // Those without a bridge have nothing in common with the others.
            read(&network.path().join("ready"))
                .is_some_and(|ready| ready.netns == self.namespace.identity.1 && !ready.device.is_empty())
        });
        if ready { Ok(false) } else { remove() }
    }

    /// Whether the network was ready since boot and has not been retired.
    pub fn was_made(&self, network: &Definition) -> bool {
        self.dir(network).join("ready").exists()
    }

    /// Names of networks that something was made for since boot.
    pub fn known(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.run().join("networks"));
        let names = entries.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
        names.filter(|name| store::check_name(name).is_ok()).collect()
    }

    /// The bridge network of this name as it was made since boot, whatever has become of its definition.
    pub fn made_as(&self, name: &str) -> Option<Definition> {
        let ready = read(&self.store.run().join("networks").join(name).join("ready"))?;
        let subnets = ready.pools.into_iter();
        let subnets = subnets.map(|(subnet, gateway)| FileSubnet {
            subnet,
            gateway: Some(gateway),
            ..FileSubnet::default()
        });
        let file = definition::File {
            name: name.to_owned(),
            driver: if ready.routed { "routed" } else { "bridge" }.into(),
            device: ready.device,
            subnets: subnets.collect(),
            ..definition::File::default()
        };
        file.check().ok().filter(|_| ready.netns == self.namespace.identity.1)
    }

    pub fn note(&self, text: String) {
        self.notes.borrow_mut().push(text);
    }

    fn dir(&self, network: &Definition) -> PathBuf {
        self.store.run().join("networks").join(&network.name)
    }

    /// The network if it has been made ready.
    pub fn look(&self, network: &Definition) -> Result<Option<InUse>> {
        self.look_in(network, &self.dir(network))
    }

    /// The lock of the network's directory, which is made if need be; alone.
    fn lock(&self, network: &Definition) -> Result<File> {
        let dir = self.dir(network);
        for _ in 0..8 {
            self.store.make_dir(&dir)?;
            match locked(&dir, FlockOperation::LockExclusive) {
                Ok(lock) if is_there(&lock) => return Ok(lock),
                // Removed with its network while this process waited.
                Ok(_) => {}
                Err(_) if !dir.is_dir() => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::retryable("the network is being made and removed by others").on(network.name.as_str()))
    }

    fn look_in(&self, network: &Definition, dir: &Path) -> Result<Option<InUse>> {
        let Ok(lock) = File::open(dir) else { return Ok(None) };
        flock(&lock, FlockOperation::LockShared).explain(|| format!("lock {}", dir.display()))?;
        if !is_there(&lock) {
            return Ok(None);
        }
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
            pools: network.pools.iter().map(|p| (p.subnet.to_string(), p.gateway.to_string())).collect(),
            mtu: network.mtu,
            internal: network.internal,
            isolate: network.isolate,
            no_icc: network.no_icc,
            no_masquerade: network.no_masquerade,
            outbound: network.outbound.clone(),
            routed: network.driver == Driver::Routed,
            names: network.dns.enabled,
            netns: self.namespace.identity.1,
        }
    }

    fn make(&self, network: &Definition, dir: &Path, lock: &File) -> Result<()> {
        let marker = dir.join("ready");
        let before = read(&marker)
            .filter(|before| (&before.device, before.netns) == (&network.device, self.namespace.identity.1));
        let ifindex =
            if network.driver.has_device() { self.make_bridge(network, before.as_ref())? } else { 0 };
        // Who removes the table makes sure, with this lock, that no network is ready.
        let _shared = locked(&self.store.run().join("networks"), FlockOperation::LockShared)?;
        if network.driver.has_device() {
            let made_as = before.as_ref().and_then(|_| self.made_as(&network.name));
            if let Some(other) = made_as.as_ref().filter(|made| made.driver != network.driver) {
                self.firewall()?.forget(other)?;
            }
            let known = self.firewall()?.knows(network)?;
            self.firewall()?.forget_seen_as(network, made_as.as_ref())?;
            firewall::make_table(network, known, lock)?;
            // What passed while there were no such rules: before the network was edited, after somebody emptied the table, or of a
            // network that had these addresses.
            let was_shut = before.is_some_and(|before| {
                (before.internal || !network.internal)
                    && (before.isolate || !network.isolate)
                    && (before.no_icc || !network.no_icc)
            });
            if !(known.as_it_is && was_shut) {
                let subnets: Vec<Subnet> = network.pools.iter().map(|pool| pool.subnet).collect();
                conntrack::forget_network(&subnets)?;
            }
            for note in firewall::open_ways(self.firewall()?, network, lock)? {
                self.note(note);
            }
        }
        let ready = serde_json::to_vec(&self.ready_as(network, ifindex)).explain(|| "write ready".into())?;
        store::atomic::write(&marker, &ready, 0o600)
    }

    /// `before` is how it was made since boot.
    fn make_bridge(&self, network: &Definition, before: Option<&Ready>) -> Result<u32> {
        let route = self.route()?;
        let present = link::find_bridge(route, network)?.map(|bridge| bridge.index);
        check_kind(&link::all(route)?, network, present)?;
        check_overlap(self.store, route, network, present)?;
        let index = link::make_bridge(route, network).map_err(privileges)?;
        for one in sysctl::of(network) {
            for note in one.set()? {
                self.note(note);
            }
        }
        let before = before.filter(|before| before.ifindex == index);
        for (subnet, gateway) in before.iter().flat_map(|before| &before.pools) {
            let stays = network
                .pools
                .iter()
                .any(|p| (p.subnet.to_string(), p.gateway.to_string()) == (subnet.clone(), gateway.clone()));
            if let (false, Ok(subnet), Ok(gateway)) = (stays, Subnet::parse(subnet), gateway.parse()) {
                link::remove_address(route, index, gateway, subnet.prefix)
                    .explain(|| format!("take {gateway} from {}", network.device))?;
            }
        }
        link::configure_bridge(route, network, index, present.is_none() || before.is_some())?;
        Ok(index)
    }
}

/// Fails with a conflict when containers are attached as a definition of the other kind had it: on a network's bridge, or without one.
/// They have other addresses and ways than this one's, and nothing changes those of a container that runs.
fn check_kind(links: &[Link], network: &Definition, bridge: Option<u32>) -> Result<()> {
    let is_routed = network.driver == Driver::Routed;
    let is_other = |link: &&Link| {
        link.name.starts_with(link::PREFIX)
            && if is_routed {
                link.master.is_some() && link.master == bridge
            } else {
                link.master.is_none() && link.group == group_of(&network.device)
            }
    };
    let Some(found) = links.iter().find(is_other) else { return Ok(()) };
    let (is, was) = if is_routed { ("routed", "bridge") } else { ("bridge", "routed") };
    Err(Fault::conflict(format!(
        "the driver is {is} now, and {} is of a container that was attached when it was {was}",
        found.name
    ))
    .on(network.name.as_str())
    .hint(format!(
        "detach its containers (net-detach) and attach them again, or put \"{was}\" back into networks/{}/network.json",
        network.name
    )))
}

/// Whether a directory that is open still has a name.
fn is_there(dir: &File) -> bool {
    dir.metadata().is_ok_and(|status| status.nlink() > 0)
}

fn privileges(fault: Fault) -> Fault {
    if fault.os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
        return Fault::denied(fault.to_string()).hint("run it as root");
    }
    fault
}

/// A socket into a namespace, without anything else of the host's.
pub(crate) fn socket_within(namespace: &Namespace) -> Result<Socket> {
    let own =
        Namespace::open("/proc/self/ns/net").explain(|| "open this process's network namespace".into())?;
    within(&own, namespace, Socket::route)
}

fn within<T>(own: &Namespace, namespace: &Namespace, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let enter = |file: &File| move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
    enter(&namespace.file).explain(|| "enter the container's network namespace".into())?;
    let done = work();
    if let Err(error) = enter(&own.file) {
        // Whatever this process did next would happen to the container's network instead of the host's.
        abort(error);
    }
    done
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
    serde_json::from_slice(&store::atomic::read_at_most(path, LONGEST).ok()??).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attached_in_the_other_way_keeps_a_network_from_being_made() {
        let network = |driver: &str| {
            let subnets = vec![FileSubnet { subnet: "10.90.0.0/24".into(), ..FileSubnet::default() }];
            let (name, device) = ("web".to_owned(), "staves1".to_owned());
            definition::File { name, driver: driver.into(), device, subnets, ..definition::File::default() }
                .check()
                .unwrap()
        };
        let link = |name: &str, master, group| Link { name: name.into(), master, group, ..Link::default() };
        let own = group_of("staves1");
        let (port, pair) = (link("stv0123456789ab", Some(7), 0), link("stv0123456789ab", None, own));
        let strangers =
            [link("eth0", Some(7), 0), link("stv0123456789cd", Some(8), 0), link("stv9", None, 0)];
        let checked = |driver: &str, links: &[&Link]| {
            let links: Vec<Link> = links.iter().copied().chain(&strangers).cloned().collect();
            check_kind(&links, &network(driver), Some(7)).map_err(|fault| fault.to_string())
        };
        assert_eq!(checked("bridge", &[&port]), Ok(()));
        assert_eq!(checked("routed", &[&pair]), Ok(()));
        assert!(checked("bridge", &[&pair]).unwrap_err().contains("stv0123456789ab is of a container"));
        assert!(checked("routed", &[&port]).unwrap_err().contains("driver is routed now"));
    }
}
