//! `networks/<name>/leases/<address>`: who has which address.
//!
//! A lease appears whole or not at all: it is written aside and linked to its name, which fails when the name is
//! taken. It is removed by its container's own tools, or by whoever holds the lock of that container's bundle and
//! sees that nobody looks after it; so removing needs no lock of its own.

use crate::{Lock, Scratch, Store, atomic, container, make_dirs};
use fault::{Explain, Kind, Result};
use record::{Attachment, Extra, Port};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// Longest lease read, in bytes: a thousand ports and names are not a tenth of it.
const LONGEST: u64 = 1 << 20;

/// Content of a lease: all that must be undone to free the address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The container's id.
    pub container: String,
    /// Interface name inside the container.
    pub interface: String,
    /// Ports of the host that lead to this address. In the lease before they are in the firewall.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// What the container is called on the network: its name, its short id, its host name, its aliases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Name servers this container asks beyond the network, instead of the network's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// The leases of one network.
#[derive(Clone, Debug)]
pub struct Leases {
    dir: PathBuf,
}

impl Store {
    /// Fails with usage when the name is none a network can have: names come from records.
    pub fn leases(&self, network: &str) -> Result<Leases> {
        container::check_name(network)?;
        Ok(Leases { dir: self.network_dir(network).join("leases") })
    }

    /// `$STAVES_ROOT/networks/<name>/attachments/<id>`: what CNI plugins have to undo for a container, there from before
    /// they do anything until it is undone.
    ///
    /// Fails with usage for a name or an id that is none.
    pub fn plugins_attachment(&self, network: &str, id: &str) -> Result<PathBuf> {
        container::check_name(network)?;
        if !container::is_id(id) {
            return Err(fault::Fault::usage(format!("\"{id}\" is no container's id")));
        }
        Ok(self.network_dir(network).join("attachments").join(id))
    }

    /// Ids of the containers CNI plugins have attached to a network, in no order.
    pub fn attached_by_plugins(&self, network: &str) -> Result<Vec<String>> {
        container::check_name(network)?;
        let names = names_in(&self.network_dir(network).join("attachments"))?;
        Ok(names.into_iter().filter(|name| container::is_id(name)).collect())
    }

    /// `$STAVES_ROOT/networks/<name>`. The caller has checked the name.
    pub fn network_dir(&self, network: &str) -> PathBuf {
        self.root().join("networks").join(network)
    }

    /// Names of all networks that have a directory, in no order.
    pub fn networks(&self) -> Result<Vec<String>> {
        let names = names_in(&self.root().join("networks"))?;
        Ok(names.into_iter().filter(|name| container::check_name(name).is_ok()).collect())
    }

    /// Whether this container is alive, so that what is leased to it must stay.
    pub fn is_looked_after(&self, id: &str) -> bool {
        container::is_id(id) && (self.container_dir(id).is_alive() || self.is_foreign_alive(id))
    }

    /// The right to undo what a container left behind: `None` if it is looked after or being worked on.
    /// A container that is gone needs no lock, because ids are never used again.
    pub fn claim_remains(&self, id: &str) -> Option<Remains> {
        if !container::is_id(id) {
            return Some(Remains { _lock: None });
        }
        let dir = self.container_dir(id);
        let foreign = self.foreign_dir(id);
        let works_on = [&dir.bundle, &foreign].into_iter().find(|dir| dir.is_dir());
        let lock = match works_on {
            Some(dir) => Some(Lock::try_exclusive(dir).ok()??),
            None => None,
        };
        if dir.is_alive() || self.is_foreign_alive(id) { None } else { Some(Remains { _lock: lock }) }
    }
}

/// Held while the remains of a dead container are undone.
#[derive(Debug)]
pub struct Remains {
    _lock: Option<Lock>,
}

impl Leases {
    /// Takes an address. `false` if it has a holder, be it this container.
    pub fn take(&self, store: &Store, address: IpAddr, lease: &Lease) -> Result<bool> {
        let path = self.path(address);
        let scratch = Scratch::new(store)?;
        atomic_content(lease).and_then(|content| {
            std::fs::write(scratch.path(), content).explain(|| format!("write {}", scratch.path().display()))
        })?;
        for made in [false, true] {
            match std::fs::hard_link(scratch.path(), &path) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !made => make_dirs(&self.dir)?,
                Err(error) => return Err(error).explain(|| format!("take address {address}")),
            }
        }
        Ok(false)
    }

    /// `None` if the address is free. A lease nobody can read, no file or a very long one among them, is held by nobody known: an
    /// empty one.
    pub fn read(&self, address: IpAddr) -> Result<Option<Lease>> {
        match atomic::read_at_most(&self.path(address), LONGEST) {
            Ok(content) => Ok(content.map(|content| serde_json::from_slice(&content).unwrap_or_default())),
            Err(fault) if fault.kind() == Kind::Input => Ok(Some(Lease::default())),
            Err(fault) => Err(fault),
        }
    }

    /// Replaces a lease its container holds.
    pub fn rewrite(&self, address: IpAddr, lease: &Lease) -> Result<()> {
        atomic::write(&self.path(address), &atomic_content(lease)?, 0o600)
    }

    /// Gives an address back if `container` holds it; `false` otherwise.
    pub fn release(&self, address: IpAddr, container: &str) -> Result<bool> {
        match self.read(address)? {
            Some(lease) if lease.container == container => self.remove(address).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Removes a lease, whoever holds it.
    pub fn remove(&self, address: IpAddr) -> Result<()> {
        let path = self.path(address);
        match std::fs::remove_file(&path) {
            // Somebody's directory is in its place.
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                crate::remove_tree(&path).map(drop)
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).explain(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// All leased addresses, in no order.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        Ok(names_in(&self.dir)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.dir.join(address.to_string())
    }
}

/// Gives back the addresses of a container whose run has ended, by removing files alone. For ctr-shim and ctr-rm,
/// which link no network code; their caller looks after the container or holds its lock.
///
/// Attachments with published ports are left: the firewall must forget them first. So are those of CNI plugins, which are
/// to be run. `true` if there are any, and `net-detach ID` has to be run.
#[must_use = "net-detach has to be run if this is true"]
pub fn release_all(store: &Store, id: &str, attachments: &[Attachment]) -> bool {
    let mut left = false;
    for attachment in attachments {
        if needs_net_detach(attachment) {
            left = true;
            continue;
        }
        let Ok(leases) = store.leases(&attachment.name) else { continue };
        for address in addresses_of(attachment) {
            // Best effort: a lease of a dead container is free to take.
            let _ = leases.release(address, id);
        }
    }
    left
}

/// Whether more has to be undone for an attachment than its leases.
pub fn needs_net_detach(attachment: &Attachment) -> bool {
    !attachment.ports.is_empty() || attachment.cni.is_some()
}

/// The addresses of an attachment without their prefix lengths.
pub fn addresses_of(attachment: &Attachment) -> impl Iterator<Item = IpAddr> {
    attachment.addresses.iter().filter_map(|text| text.split('/').next()?.parse().ok())
}

fn atomic_content(lease: &Lease) -> Result<Vec<u8>> {
    let mut content = serde_json::to_vec(lease).explain(|| "write lease".into())?;
    content.push(b'\n');
    Ok(content)
}

pub(crate) fn names_in(dir: &std::path::Path) -> Result<Vec<String>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).explain(|| format!("read {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn with_store(name: &str, test: impl FnOnce(&Store, &Path)) {
        let dir = std::env::temp_dir().join(format!("store-leases-{name}-{}", std::process::id()));
        test(&Store::at(dir.join("root"), dir.join("run")), &dir);
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn lease(container: &str) -> Lease {
        Lease { container: container.into(), interface: "eth0".into(), ..Lease::default() }
    }

    #[test]
    fn an_address_is_held_once_however_many_reach_for_it() {
        with_store("race", |store, _| {
            let leases = store.leases("bridge").unwrap();
            let address: IpAddr = "10.89.0.2".parse().unwrap();
            let winners = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..8)
                    .map(|n| {
                        let leases = &leases;
                        scope.spawn(move || leases.take(store, address, &lease(&n.to_string())).unwrap())
                    })
                    .collect();
                tries.into_iter().filter_map(|t| t.join().ok()).filter(|won| *won).count()
            });
            assert_eq!(winners, 1);
            let holder = leases.read(address).unwrap().unwrap().container;
            assert!(!leases.release(address, "somebody else").unwrap());
            assert!(leases.release(address, &holder).unwrap());
            assert_eq!(leases.read(address).unwrap(), None);
            // Nothing unfinished stays behind.
            assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
        });
    }

    #[test]
    fn what_is_no_lease_is_held_by_nobody_and_can_be_removed() {
        with_store("hostile", |store, _| {
            let leases = store.leases("bridge").unwrap();
            let address: IpAddr = "10.89.0.2".parse().unwrap();
            make_dirs(&leases.dir).unwrap();
            let path = leases.path(address);
            let deep = format!("{{\"container\":{}", "[".repeat(100_000));
            let long = vec![b' '; usize::try_from(LONGEST).unwrap() + 1];
            let write = |content: &[u8]| std::fs::write(&path, content).unwrap();
            let makers: [&dyn Fn(); 9] = [
                &|| {
                    let kind = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o600.into(), 0).unwrap();
                },
                &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
                &|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                &|| std::fs::create_dir_all(path.join("a/b")).unwrap(),
                &|| write(deep.as_bytes()),
                &|| write(&long),
                &|| write(b"[1,2]"),
                &|| write(br#"{"container":"a","container":"b","interface":"eth0"}"#),
                &|| write(br#"{"container":7,"interface":"eth0"}"#),
            ];
            for (number, make) in makers.iter().enumerate() {
                make();
                assert_eq!(leases.read(address).unwrap(), Some(Lease::default()), "{number}");
                assert!(!leases.release(address, "somebody").unwrap());
                assert!(!leases.take(store, address, &lease("another")).unwrap(), "{number}: not over it");
                leases.remove(address).unwrap();
                assert_eq!(leases.read(address).unwrap(), None, "{number}");
            }
        });
    }

    #[test]
    fn release_all_leaves_ports_to_net_detach_and_others_leases_alone() {
        with_store("all", |store, _| {
            let leases = store.leases("bridge").unwrap();
            let id = "a".repeat(64);
            for (last, holder) in [(2, id.as_str()), (3, id.as_str()), (4, "other")] {
                assert!(leases.take(store, IpAddr::from([10, 89, 0, last]), &lease(holder)).unwrap());
            }
            let attachment = |last: u8, ports: usize| Attachment {
                name: "bridge".into(),
                addresses: vec![format!("10.89.0.{last}/16")],
                ports: vec![Port::default(); ports],
                ..Attachment::default()
            };
            let hostile = Attachment { name: "../bridge".into(), ..attachment(3, 0) };
            assert!(!release_all(store, &id, &[attachment(2, 0), attachment(4, 0), hostile]));
            assert!(release_all(store, &id, &[attachment(3, 1)]));
            let mut left = leases.addresses().unwrap();
            left.sort();
            assert_eq!(left, [IpAddr::from([10, 89, 0, 3]), IpAddr::from([10, 89, 0, 4])]);
        });
    }

    #[test]
    fn remains_are_not_claimed_while_somebody_looks_after_them() {
        with_store("remains", |store, _| {
            let dir = store.container_dir(&"b".repeat(64));
            assert!(store.claim_remains(&dir.id).is_some());
            make_dirs(&dir.bundle).unwrap();
            make_dirs(&dir.run).unwrap();
            let shim = Lock::exclusive(&dir.run.join("lock")).unwrap();
            assert!(store.is_looked_after(&dir.id));
            assert!(store.claim_remains(&dir.id).is_none());
            drop(shim);
            let tool = Lock::exclusive(&dir.bundle).unwrap();
            assert!(store.claim_remains(&dir.id).is_none());
            drop(tool);
            assert!(store.claim_remains(&dir.id).is_some());
        });
    }
}
