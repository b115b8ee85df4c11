//! `networks/<name>/network.json`: what a network is. Users may edit it.

use fault::{Explain, Fault, Result};
use record::Extra;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use store::{Scratch, Store};

/// Name of the network containers get when they ask for none.
pub const DEFAULT: &str = "bridge";

/// Content of `network.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct File {
    name: String,
    driver: String,
    device: String,
    subnet: String,
    gateway: String,
    #[serde(flatten)]
    extra: Extra,
}

/// A network, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub name: String,
    /// The bridge's interface name on the host.
    pub device: String,
    pub subnet: Subnet,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
}

/// An IPv4 subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    pub prefix: u8,
}

impl Definition {
    /// Reads a network's definition; the default network is made when it is missing.
    ///
    /// Fails with not found for other names, and with input naming the file for one that makes no sense.
    pub fn load(store: &Store, name: &str) -> Result<Definition> {
        let path = path(store, name)?;
        let content = match store::atomic::read(&path)? {
            Some(content) => content,
            None => write_default(store, &path)?,
        };
        File::parse(&content, &path)?.check().map_err(|fault| fault.within(path.display().to_string()))
    }

    /// What [`Definition::load`] would give, and the file it would make first if it is missing.
    pub fn preview(store: &Store, name: &str) -> Result<(Definition, Option<PathBuf>)> {
        let path = path(store, name)?;
        let (file, missing) = match store::atomic::read(&path)? {
            Some(content) => (File::parse(&content, &path)?, false),
            None => (File::default_bridge(), true),
        };
        let network = file.check().map_err(|fault| fault.within(path.display().to_string()))?;
        Ok((network, missing.then_some(path)))
    }
}

fn path(store: &Store, name: &str) -> Result<PathBuf> {
    if name != DEFAULT {
        return Err(Fault::not_found("no such network")
            .on(name)
            .hint(format!("the network there is: {DEFAULT}")));
    }
    Ok(store.network_dir(name).join("network.json"))
}

impl File {
    fn parse(content: &[u8], path: &Path) -> Result<File> {
        serde_json::from_slice(content)
            .map_err(|error| Fault::input(format!("read {}", path.display())).because(error))
    }

    fn default_bridge() -> File {
        File {
            name: DEFAULT.into(),
            driver: "bridge".into(),
            device: "staves0".into(),
            subnet: "10.89.0.0/16".into(),
            gateway: "10.89.0.1".into(),
            extra: Extra::new(),
        }
    }

    fn check(self) -> Result<Definition> {
        if self.driver != "bridge" {
            return Err(Fault::input(format!("driver \"{}\" is not known", self.driver)));
        }
        let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if self.device.is_empty() || self.device.len() > 15 || !self.device.bytes().all(usable) {
            return Err(Fault::input(format!("device \"{}\" is no interface name", self.device)));
        }
        let subnet = Subnet::parse(&self.subnet)?;
        let gateway: Ipv4Addr = self
            .gateway
            .parse()
            .map_err(|error| Fault::input(format!("gateway \"{}\"", self.gateway)).because(error))?;
        if !subnet.is_host(gateway) {
            return Err(Fault::input(format!("gateway {gateway} is no host address of {subnet}")));
        }
        Ok(Definition { name: self.name, device: self.device, subnet, gateway })
    }
}

/// Made by a link, which fails when somebody else, perhaps an editor, was first.
fn write_default(store: &Store, path: &Path) -> Result<Vec<u8>> {
    if let Some(dir) = path.parent() {
        store.make_dir(dir)?;
    }
    let mut content =
        serde_json::to_vec_pretty(&File::default_bridge()).explain(|| "write network.json".into())?;
    content.push(b'\n');
    let scratch = Scratch::new(store)?;
    std::fs::write(scratch.path(), &content).explain(|| format!("write {}", scratch.path().display()))?;
    match std::fs::hard_link(scratch.path(), path) {
        Ok(()) => Ok(content),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(store::atomic::read(path)?.unwrap_or_default())
        }
        Err(error) => Err(error).explain(|| format!("write {}", path.display())),
    }
}

impl Subnet {
    /// `10.89.0.0/16`; between /8 and /29, so that there is room for a gateway and containers.
    pub fn parse(text: &str) -> Result<Subnet> {
        let wrong = || Fault::input(format!("\"{text}\" is no IPv4 subnet, as 10.89.0.0/16 is one"));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=29).contains(&prefix) {
            return Err(Fault::input(format!("subnet {text} is not between /8 and /29")));
        }
        let subnet = Subnet { base: u32::from(address), prefix };
        if subnet.base & !subnet.mask() != 0 {
            return Err(Fault::input(format!("subnet {text} has host bits set")));
        }
        Ok(subnet)
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == self.base
    }

    /// Neither the network's nor the broadcast address.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != Ipv4Addr::from(self.base) && address != self.broadcast()
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base | !self.mask())
    }

    /// How many host addresses there are, the gateway's included.
    pub fn hosts(self) -> u32 {
        !self.mask() - 1
    }

    /// The host address with this number, counted from 0 and around.
    pub fn host(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1 + number % self.hosts())
    }

    pub fn overlaps(self, base: u32, mask: u32) -> bool {
        let common = self.mask() & mask;
        self.base & common == base & common
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_know_their_hosts() {
        let subnet = Subnet::parse("10.89.0.0/29").unwrap();
        assert_eq!(subnet.hosts(), 6);
        assert_eq!(subnet.host(0), Ipv4Addr::new(10, 89, 0, 1));
        assert_eq!(subnet.host(5), Ipv4Addr::new(10, 89, 0, 6));
        assert_eq!(subnet.host(6), subnet.host(0));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 89, 0, 7));
        assert!(!subnet.is_host(subnet.broadcast()));
        assert!(subnet.overlaps(u32::from(Ipv4Addr::new(10, 0, 0, 0)), 0xff00_0000));
        assert!(!subnet.overlaps(u32::from(Ipv4Addr::new(10, 88, 0, 0)), 0xffff_0000));
        for wrong in ["", "10.89.0.0", "10.89.0.1/16", "10.89.0.0/30", "10.89.0.0/7", "::/64", "10.89.0.0/x"]
        {
            assert!(Subnet::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_definition_must_make_sense() {
        for (member, value) in [
            ("driver", "macvlan"),
            ("device", "a/b"),
            ("device", ""),
            ("gateway", "10.90.0.1"),
            ("subnet", "x"),
        ] {
            let mut json = serde_json::to_value(File::default_bridge()).unwrap();
            json[member] = value.into();
            let file: File = serde_json::from_value(json).unwrap();
            assert_eq!(file.check().unwrap_err().kind(), fault::Kind::Input, "{member}");
        }
        assert!(File::default_bridge().check().is_ok());
    }
}
