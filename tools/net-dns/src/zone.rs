//! Who is called what on a network: the leases, indexed by name and by address.

use hickory_proto::rr::Name;
use network::{Definition, Subnet};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use store::Lease;

/// What docker and podman call the host.
const OF_THE_HOST: [&[u8]; 3] =
    [b"host.containers.internal", b"host.docker.internal", b"gateway.docker.internal"];

/// Names of one container that are listened to: more than anybody has, and no way to fill the memory.
const MOST_NAMES: usize = 256;

/// Longest name there can be (RFC 1035, section 2.3.4), as text.
pub const LONGEST_NAME: usize = 255;

/// The names of one network.
#[derive(Debug, Default)]
pub struct Zone {
    /// `.<network>` in lower case: containers are also called by their name with this behind it.
    suffix: Vec<u8>,
    subnets: Vec<Subnet>,
    gateways: Vec<IpAddr>,
    /// In lower case.
    by_name: HashMap<Box<[u8]>, Vec<IpAddr>>,
    by_address: HashMap<IpAddr, Tenant>,
}

/// Who has an address.
#[derive(Debug)]
struct Tenant {
    /// The container's id.
    container: String,
    names: Vec<Box<[u8]>>,
    /// As it was written.
    first: Option<String>,
    servers: Vec<SocketAddr>,
}

impl Zone {
    pub fn new(network: &Definition) -> Zone {
        let mut zone = Zone::default();
        zone.describe(network);
        zone
    }

    /// Another definition of the same network; the leases stay.
    pub fn describe(&mut self, network: &Definition) {
        self.suffix = format!(".{}", network.name).to_ascii_lowercase().into_bytes();
        self.subnets = network.pools.iter().map(|pool| pool.subnet).collect();
        self.gateways = network.pools.iter().map(|pool| pool.gateway).collect();
    }

    /// Takes note of a lease, or of its end.
    pub fn set(&mut self, address: IpAddr, lease: Option<&Lease>) {
        if let Some(before) = self.by_address.remove(&address) {
            for name in before.names {
                let Some(addresses) = self.by_name.get_mut(&name) else { continue };
                addresses.retain(|other| *other != address);
                if addresses.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        let Some(lease) = lease else { return };
        let usable = |name: &&String| !name.is_empty() && name.len() <= LONGEST_NAME;
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for name in lease.names.iter().filter(usable).take(MOST_NAMES) {
            let name = name.trim_end_matches('.').to_ascii_lowercase().into_bytes().into_boxed_slice();
            if !name.is_empty() && !names.contains(&name) {
                self.by_name.entry(name.clone()).or_default().push(address);
                names.push(name);
            }
        }
        let servers = lease.dns.iter().filter_map(|text| crate::resolv::server(text)).collect();
        let first = lease.names.iter().find(usable).cloned();
        self.by_address.insert(address, Tenant { container: lease.container.clone(), names, first, servers });
    }

    pub fn clear(&mut self) {
        self.by_name.clear();
        self.by_address.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The addresses of a name, of both families; `None` for a name nobody here has.
    pub fn addresses(&self, name: &[u8]) -> Option<&[IpAddr]> {
        if let Some(addresses) = self.by_name.get(name) {
            return Some(addresses);
        }
        if let Some(addresses) = name.strip_suffix(&*self.suffix).and_then(|short| self.by_name.get(short)) {
            return Some(addresses);
        }
        OF_THE_HOST.contains(&name).then_some(&self.gateways)
    }

    /// The first name of whoever has this address.
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.by_address.get(&address)?.first.as_deref()
    }

    /// Whether an address is one of the network's, leased or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Whether all addresses with this beginning are the network's.
    pub fn holds(&self, address: IpAddr, prefix: u8) -> bool {
        self.subnets.iter().any(|subnet| prefix >= subnet.prefix && subnet.contains(address))
    }

    /// The host's own addresses on this network.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateways.contains(&address)
    }

    /// The container that has this address, by its id.
    pub fn container_at(&self, address: IpAddr) -> Option<&str> {
        Some(&self.by_address.get(&address)?.container)
    }

    /// The name servers which whoever has this address wants to be asked.
    pub fn servers_of(&self, address: IpAddr) -> &[SocketAddr] {
        self.by_address.get(&address).map_or(&[], |tenant| &tenant.servers)
    }
}

/// A name as text in lower case, without the final dot. `false` for one that cannot be anybody's here: a label with a dot in it
/// would look like two.
pub fn key(name: &Name, key: &mut Vec<u8>) -> bool {
    key.clear();
    for label in name {
        if label.contains(&b'.') {
            return false;
        }
        if !key.is_empty() {
            key.push(b'.');
        }
        key.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    true
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn network() -> Definition {
        let json = serde_json::json!({"name":"Shop","driver":"bridge","device":"staves1",
            "subnets":[{"subnet":"10.90.0.0/24"},{"subnet":"fd00:90::/64"}],"dns":{"enabled":true}});
        let dir = std::env::temp_dir().join(format!(
            "net-dns-zone-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let store = store::Store::at(dir.join("root"), dir.join("run"));
        store.make_dir(&store.network_dir("Shop")).unwrap();
        std::fs::write(store.network_dir("Shop").join("network.json"), json.to_string()).unwrap();
        let network = Definition::load(&store, "Shop").unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        network
    }

    pub fn lease(names: &[&str]) -> Lease {
        Lease { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Lease::default() }
    }

    pub fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn names_come_and_go_with_leases() {
        let mut zone = Zone::new(&network());
        zone.set(ip("10.90.0.2"), Some(&lease(&["Web", "db", ""])));
        zone.set(ip("fd00:90::2"), Some(&lease(&["Web", "db"])));
        zone.set(ip("10.90.0.3"), Some(&lease(&["other", "db", "DB."])));
        assert_eq!(zone.addresses(b"web").unwrap(), [ip("10.90.0.2"), ip("fd00:90::2")]);
        assert_eq!(zone.addresses(b"db").unwrap().len(), 3);
        assert_eq!(zone.addresses(b"other.shop").unwrap(), [ip("10.90.0.3")]);
        assert_eq!(zone.addresses(b"other.shop.shop"), None);
        assert_eq!(zone.addresses(b""), None);
        assert_eq!(zone.name_of(ip("10.90.0.2")), Some("Web"));
        assert_eq!(zone.addresses(b"host.docker.internal").unwrap(), [ip("10.90.0.1"), ip("fd00:90::1")]);
        zone.set(ip("10.90.0.2"), Some(&lease(&["renamed"])));
        assert_eq!(zone.addresses(b"web").unwrap(), [ip("fd00:90::2")]);
        zone.set(ip("fd00:90::2"), None);
        assert_eq!((zone.addresses(b"web"), zone.addresses(b"db").unwrap().len()), (None, 1));
        zone.set(ip("10.90.0.2"), None);
        zone.set(ip("10.90.0.3"), None);
        assert!(zone.is_empty() && zone.by_name.is_empty());
    }

    #[test]
    fn own_addresses_are_known() {
        let zone = Zone::new(&network());
        assert!(zone.contains(ip("10.90.0.77")) && !zone.contains(ip("10.91.0.1")));
        assert!(zone.is_gateway(ip("10.90.0.1")) && !zone.is_gateway(ip("10.90.0.77")));
        assert!(zone.holds(ip("10.90.0.0"), 24) && !zone.holds(ip("10.90.0.0"), 16));
    }
}
