//! `networks/<name>/network.json`: what a network is. Users may edit it.

mod ways;

use self::ways::WaysOut;
use crate::subnet::Subnet;
use fault::{Explain, Fault, Result};
use record::Extra;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use store::{Scratch, Store};

/// Name of the network containers get when they ask for none.
pub const DEFAULT: &str = "bridge";

/// Largest `network.json` read, in bytes.
const LARGEST: u64 = 1 << 20;
/// Most subnets, and most name servers, of a network.
const MOST: usize = 128;
/// Most addresses of a subnet that are kept for others.
const MOST_RESERVED: usize = 1024;

/// Content of `network.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    pub name: String,
    /// `bridge`, `routed`, `macvlan`, `ipvlan`, `none` or `cni`.
    pub driver: String,
    /// Name on the host of the bridge, or of the interface that has a routed network's gateways.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Of the first version: the only subnet. Read, and written with the default network alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// A container gets one address of each family, from the first subnet that has a free one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<FileSubnet>,
    /// Nothing leaves the network, and nothing comes in.
    #[serde(skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Other networks do not reach its published ports either.
    #[serde(skip_serializing_if = "is_false")]
    pub isolate: bool,
    /// Its containers do not reach each other (docker's `enable_icc=false`).
    #[serde(skip_serializing_if = "is_false")]
    pub no_icc: bool,
    /// Containers are seen outside by their own addresses.
    #[serde(skip_serializing_if = "is_false")]
    pub no_masquerade: bool,
    /// Addresses of the host that are seen outside in place of the containers', one of a family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<String>,
    /// Address of the host for ports that are published without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_binding: Option<String>,
    /// Containers have no way out by it, but `routes`.
    #[serde(skip_serializing_if = "is_false")]
    pub no_default_route: bool,
    /// Further ways of its containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<FileRoute>,
    /// Largest packet in bytes; the kernel's choice without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    #[serde(skip_serializing_if = "FileDns::is_default")]
    pub dns: FileDns,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `--opt`, as given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Of macvlan and ipvlan: the host's interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of macvlan and ipvlan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Of CNI: the network configuration list (CNI specification, section 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni: Option<Value>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One of `subnets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSubnet {
    pub subnet: String,
    /// The first host address without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Containers that ask for no address get one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    /// What no container gets, as somebody else has it: a name for people, and the address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// One of `routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRoute {
    pub destination: String,
    pub gateway: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// `dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileDns {
    /// Containers find each other by their names.
    pub enabled: bool,
    /// Asked for all other names, instead of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

/// A network, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    pub driver: Driver,
    /// Name on the host of the interface that has the gateways' addresses; empty with drivers that have none.
    pub device: String,
    pub pools: Vec<Pool>,
    /// `aux_addresses` of all subnets.
    pub reserved: Vec<IpAddr>,
    pub internal: bool,
    pub isolate: bool,
    pub no_icc: bool,
    pub no_masquerade: bool,
    pub outbound: Vec<IpAddr>,
    pub host_binding: Option<IpAddr>,
    pub no_default_route: bool,
    pub routes: Vec<Route>,
    pub mtu: Option<u32>,
    pub dns: Dns,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub created_at: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Driver {
    Bridge,
    /// A pair of links for each container, and the host routes between them: no wire is shared.
    Routed,
    /// A link on top of one of the host's: on the same wire, with a hardware address of its own.
    Macvlan(Parent),
    /// The same with the host's hardware address.
    Ipvlan(Parent),
    /// An interface without a way anywhere.
    None,
    /// The network configuration list.
    Cni(Value),
}

impl Driver {
    /// As `network.json` says it.
    pub fn name(&self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Routed => "routed",
            Driver::Macvlan(_) => "macvlan",
            Driver::Ipvlan(_) => "ipvlan",
            Driver::None => "none",
            Driver::Cni(_) => "cni",
        }
    }

    /// Whether the host is on the network by an interface of its own, which has the gateways' addresses: there names are asked for,
    /// and the firewall's rules are about it.
    pub fn has_device(&self) -> bool {
        matches!(self, Driver::Bridge | Driver::Routed)
    }
}

/// What a macvlan or ipvlan link is put on top of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// An interface of the host; `eth0.50` is made of `eth0` if it is missing. Without one, a dummy of the network's own.
    pub interface: Option<String>,
    pub mode: Option<String>,
}

/// A subnet and what containers get of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub subnet: Subnet,
    /// The bridge's address.
    pub gateway: IpAddr,
    pub range: Option<Subnet>,
}

/// A way containers have beside the one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Subnet,
    pub gateway: IpAddr,
    pub metric: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub enabled: bool,
    pub servers: Vec<IpAddr>,
}

impl Definition {
    /// Reads a network's definition; the default network is made when it is missing.
    ///
    /// Fails with not found for other names, and with input naming the file for one that makes no sense.
    pub fn load(store: &Store, name: &str) -> Result<Definition> {
        let file = match File::find(store, name)? {
            Some(file) => file,
            None if name == DEFAULT => write_default(store)?,
            None => return Err(unknown(store, name)),
        };
        file.check_named()
    }

    /// What [`Definition::load`] would give, and the file it would make first if it is missing.
    pub fn preview(store: &Store, name: &str) -> Result<(Definition, Option<PathBuf>)> {
        let found = File::find(store, name)?;
        let missing = found.is_none().then(|| path(store, name)).transpose()?;
        match found {
            Some(file) => Ok((file.check_named()?, None)),
            None if name == DEFAULT => Ok((File::default_bridge().check()?, missing)),
            None => Err(unknown(store, name)),
        }
    }

    /// Whether its definition is still there: one that was loaded may have been removed since.
    pub fn is_there(&self, store: &Store) -> bool {
        path(store, &self.name).is_ok_and(|path| path.exists())
    }

    /// The pool an address is of.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.contains(address))
    }

    /// The first pool of IPv4. Fails with input where there is none.
    pub fn v4(&self) -> Result<&Pool> {
        let first = self.pools.iter().find(|pool| !pool.subnet.is_ipv6());
        first.ok_or_else(|| Fault::input("the network has no IPv4 subnet").on(self.name.as_str()))
    }

    pub fn has_ipv6(&self) -> bool {
        self.pools.iter().any(|pool| pool.subnet.is_ipv6())
    }

    pub fn has_ipv4(&self) -> bool {
        self.pools.iter().any(|pool| !pool.subnet.is_ipv6())
    }
}

/// Fails with usage for a name no network can have: names come from records.
pub fn path(store: &Store, name: &str) -> Result<PathBuf> {
    store::check_name(name)?;
    Ok(store.network_dir(name).join("network.json"))
}

pub fn unknown(store: &Store, name: &str) -> Fault {
    let mut others = store.networks().unwrap_or_default();
    if !others.iter().any(|other| other == DEFAULT) {
        others.push(DEFAULT.to_owned());
    }
    others.sort();
    others.truncate(8);
    Fault::not_found("no such network")
        .on(name)
        .hint(format!("net-create {name} makes it; there is {}", others.join(", ")))
}

impl File {
    /// The definition a network has, if there is one. Its place is its name, whatever it says.
    pub fn find(store: &Store, name: &str) -> Result<Option<File>> {
        let path = path(store, name)?;
        match std::fs::metadata(&path) {
            Ok(status) if status.len() > LARGEST => {
                return Err(Fault::input(format!("{} is {} bytes long", path.display(), status.len()))
                    .hint(format!("{LARGEST} is the most that is read")));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).explain(|| format!("read {}", path.display()));
            }
            _ => {}
        }
        let Some(content) = store::atomic::read(&path)? else { return Ok(None) };
        let mut file = File::parse(&content, &path)?;
        name.clone_into(&mut file.name);
        Ok(Some(file))
    }

    pub fn parse(content: &[u8], path: &Path) -> Result<File> {
        serde_json::from_slice(content)
            .map_err(|error| Fault::input(format!("read {}", path.display())).because(error))
    }

    /// [`File::check`], and what goes wrong is of the file.
    pub fn check_named(self) -> Result<Definition> {
        let within = format!("networks/{}/network.json", self.name);
        self.check().map_err(|fault| fault.within(within))
    }

    /// With all subnets where new definitions have them, and their gateways.
    #[must_use]
    pub fn with_pools(mut self, pools: &[Pool]) -> File {
        (self.subnet, self.gateway) = (None, None);
        let before = std::mem::take(&mut self.subnets);
        let kept = |pool: &Pool| {
            let same =
                before.iter().find(|old| Subnet::parse(&old.subnet).is_ok_and(|old| old == pool.subnet));
            same.map(|old| old.aux_addresses.clone()).unwrap_or_default()
        };
        self.subnets = pools
            .iter()
            .map(|pool| FileSubnet { aux_addresses: kept(pool), ..FileSubnet::from(pool) })
            .collect();
        self
    }

    pub fn default_bridge() -> File {
        File {
            name: DEFAULT.into(),
            driver: "bridge".into(),
            device: "staves0".into(),
            subnet: Some("10.89.0.0/16".into()),
            gateway: Some("10.89.0.1".into()),
            ..File::default()
        }
    }

    /// Fails with input naming the member that makes no sense.
    pub fn check(self) -> Result<Definition> {
        store::check_name(&self.name).map_err(|fault| Fault::input(fault.to_string()))?;
        let parent = || Parent { interface: self.parent.clone(), mode: self.mode.clone() };
        let driver = match (self.driver.as_str(), &self.cni) {
            ("bridge", _) => Driver::Bridge,
            ("routed", _) => Driver::Routed,
            ("macvlan", _) => Driver::Macvlan(parent()),
            ("ipvlan", _) => Driver::Ipvlan(parent()),
            ("none", _) => Driver::None,
            ("cni", Some(list)) => Driver::Cni(list.clone()),
            ("cni", None) => return Err(Fault::input("a network of CNI plugins without \"cni\"")),
            (other, _) => return Err(Fault::input(format!("driver \"{other}\" is not known"))),
        };
        if driver.has_device() {
            check_device("device", &self.device)?;
        }
        if let Some(parent) = &self.parent {
            check_device("parent", parent)?;
        }
        if self.subnets.len() > MOST || self.dns.servers.len() > MOST {
            return Err(Fault::input(format!("more than {MOST} subnets or name servers")));
        }
        let first =
            self.subnet.map(|subnet| FileSubnet { subnet, gateway: self.gateway, ..FileSubnet::default() });
        let pools =
            first.iter().chain(&self.subnets).map(FileSubnet::check).collect::<Result<Vec<Pool>>>()?;
        let reserved = self.subnets.iter().map(FileSubnet::reserved).collect::<Result<Vec<_>>>()?.concat();
        for (index, pool) in pools.iter().enumerate() {
            if let Some(other) = pools[..index].iter().find(|other| other.subnet.overlaps(pool.subnet)) {
                return Err(Fault::input(format!("subnets {} and {} overlap", other.subnet, pool.subnet)));
            }
        }
        if pools.is_empty() && driver.has_device() {
            return Err(Fault::input(format!("a {} network without a subnet", driver.name())));
        }
        if self.mtu.is_some_and(|mtu| !(68..=65535).contains(&mtu)) {
            return Err(Fault::input(format!("mtu {} is not between 68 and 65535", self.mtu.unwrap_or(0))));
        }
        let server = |text: &String| {
            text.parse().map_err(|error| Fault::input(format!("name server \"{text}\"")).because(error))
        };
        let servers = self.dns.servers.iter().map(server).collect::<Result<_>>()?;
        let ways =
            WaysOut::check(&driver, &pools, &self.outbound, self.host_binding.as_deref(), &self.routes)?;
        if !driver.has_device() && (self.no_icc || self.no_masquerade) {
            let member = if self.no_icc { "no_icc" } else { "no_masquerade" };
            return Err(Fault::input(format!("{member} is for a bridge, not for driver {}", driver.name())));
        }
        if self.no_masquerade && !ways.outbound.is_empty() {
            return Err(Fault::input("no_masquerade, and addresses in \"outbound\": one or the other"));
        }
        Ok(Definition {
            name: self.name,
            driver,
            device: self.device,
            pools,
            reserved,
            internal: self.internal,
            isolate: self.isolate,
            no_icc: self.no_icc,
            no_masquerade: self.no_masquerade,
            outbound: ways.outbound,
            host_binding: ways.host_binding,
            no_default_route: self.no_default_route,
            routes: ways.routes,
            mtu: self.mtu,
            dns: Dns { enabled: self.dns.enabled, servers },
            labels: self.labels,
            options: self.options,
            created_at: self.created_at,
        })
    }
}

impl FileSubnet {
    pub fn check(&self) -> Result<Pool> {
        let subnet = Subnet::parse(&self.subnet)?;
        let gateway: IpAddr = match &self.gateway {
            None => subnet.host(0),
            Some(text) => {
                text.parse().map_err(|error| Fault::input(format!("gateway \"{text}\"")).because(error))?
            }
        };
        if !subnet.is_host(gateway) {
            return Err(Fault::input(format!("gateway {gateway} is no host address of {subnet}")));
        }
        let range = self.ip_range.as_deref().map(Subnet::parse).transpose()?;
        if let Some(range) = range.filter(|range| !subnet.holds(*range)) {
            return Err(Fault::input(format!("range {range} is not within {subnet}")));
        }
        Ok(Pool { subnet, gateway, range })
    }

    /// `aux_addresses`: hosts of the subnet, each once.
    fn reserved(&self) -> Result<Vec<IpAddr>> {
        if self.aux_addresses.len() > MOST_RESERVED {
            return Err(Fault::input(format!("more than {MOST_RESERVED} aux_addresses of {}", self.subnet)));
        }
        let Pool { subnet, gateway, .. } = self.check()?;
        let mut reserved: Vec<IpAddr> = Vec::new();
        for (name, text) in &self.aux_addresses {
            let address: IpAddr = text
                .parse()
                .map_err(|error| Fault::input(format!("address \"{text}\" of {name}")).because(error))?;
            if !subnet.is_host(address) {
                return Err(Fault::input(format!(
                    "address {address} of {name} is no host address of {subnet}"
                )));
            }
            if address == gateway || reserved.contains(&address) {
                return Err(Fault::input(format!("address {address} of {name} is taken twice in {subnet}")));
            }
            reserved.push(address);
        }
        Ok(reserved)
    }
}

impl From<&Pool> for FileSubnet {
    fn from(pool: &Pool) -> FileSubnet {
        FileSubnet {
            subnet: pool.subnet.to_string(),
            gateway: Some(pool.gateway.to_string()),
            ip_range: pool.range.map(|range| range.to_string()),
            aux_addresses: BTreeMap::new(),
        }
    }
}

impl FileDns {
    fn is_default(&self) -> bool {
        *self == FileDns::default()
    }
}

/// IFNAMSIZ, with its end, is 16; the kernel allows more letters than are wise in a path or a rule.
pub fn check_device(member: &str, name: &str) -> Result<()> {
    let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 15 || !name.bytes().all(usable) || name.starts_with('.') {
        return Err(Fault::input(format!("{member} \"{name}\" is no interface name")));
    }
    Ok(())
}

#[allow(clippy::trivially_copy_pass_by_ref)] // Serde's way of asking.
fn is_false(value: &bool) -> bool {
    !value
}

/// Made by a link, which fails when somebody else, perhaps an editor, was first.
fn write_default(store: &Store) -> Result<File> {
    let file = File::default_bridge();
    match write_new(store, &path(store, DEFAULT)?, &file)? {
        Some(_) => Ok(file),
        None => File::find(store, DEFAULT)?
            .ok_or_else(|| Fault::retryable("the network is being made and removed by others").on(DEFAULT)),
    }
}

/// Writes a definition where there is none; what was written, or `None` if there is one.
pub fn write_new(store: &Store, path: &Path, file: &File) -> Result<Option<Vec<u8>>> {
    let mut content = serde_json::to_vec_pretty(file).explain(|| "write network.json".into())?;
    content.push(b'\n');
    let scratch = Scratch::new(store)?;
    std::fs::write(scratch.path(), &content).explain(|| format!("write {}", scratch.path().display()))?;
    // Whoever sweeps may find the directory without a definition, and remove it.
    for last in [false, false, true] {
        if let Some(dir) = path.parent() {
            store.make_dir(dir)?;
        }
        match std::fs::hard_link(scratch.path(), path) {
            Ok(()) => return Ok(Some(content)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !last => {}
            Err(error) => return Err(error).explain(|| format!("write {}", path.display())),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(members: &[(&str, Value)]) -> Result<Definition> {
        let mut json = serde_json::to_value(File::default_bridge()).unwrap();
        for (member, value) in members {
            json[*member] = value.clone();
        }
        serde_json::from_value::<File>(json).unwrap().check()
    }

    #[test]
    fn a_definition_must_make_sense() {
        for (member, value) in [
            ("driver", "overlay"),
            ("driver", "cni"),
            ("name", "../x"),
            ("device", "a/b"),
            ("device", ""),
            ("gateway", "10.90.0.1"),
            ("subnet", "x"),
            ("parent", ".."),
        ] {
            let fault = changed(&[(member, value.into())]).unwrap_err();
            assert_eq!(fault.kind(), fault::Kind::Input, "{member}");
        }
        assert!(changed(&[]).is_ok());
        assert!(changed(&[("mtu", 20.into())]).is_err());
        assert!(changed(&[("dns", serde_json::json!({"servers": ["dns.example"]}))]).is_err());
    }

    #[test]
    fn several_subnets_have_gateways_and_ranges_of_their_own() {
        let subnets = serde_json::json!([
            {"subnet": "10.90.0.0/24", "ip_range": "10.90.0.128/25"},
            {"subnet": "fd00:90::/64", "gateway": "fd00:90::ff"},
        ]);
        let network = changed(&[("subnets", subnets)]).unwrap();
        assert_eq!(network.pools.len(), 3);
        assert_eq!(network.pools[1].gateway.to_string(), "10.90.0.1");
        assert_eq!(network.pools[1].range.unwrap().to_string(), "10.90.0.128/25");
        assert_eq!(
            network.pool_of("fd00:90::5".parse().unwrap()).unwrap().gateway.to_string(),
            "fd00:90::ff"
        );
        assert!(network.has_ipv6());
        for wrong in [
            serde_json::json!([{"subnet": "10.89.4.0/24"}]),
            serde_json::json!([{"subnet": "10.90.0.0/24", "ip_range": "10.91.0.0/25"}]),
            serde_json::json!([{"subnet": "10.90.0.0/24", "gateway": "fd00::1"}]),
            serde_json::json!([{"subnet": "10.90.0.0/24", "aux_addresses": {"router": "10.91.0.2"}}]),
            serde_json::json!([{"subnet": "10.90.0.0/24", "aux_addresses": {"router": "10.90.0.1"}}]),
            serde_json::json!([{"subnet": "10.90.0.0/24", "aux_addresses": {"a": "10.90.0.2", "b": "10.90.0.2"}}]),
            serde_json::json!([{"subnet": "10.90.0.0/24", "aux_addresses": {"a": "printer"}}]),
        ] {
            assert!(changed(&[("subnets", wrong.clone())]).is_err(), "{wrong}");
        }
    }
}
