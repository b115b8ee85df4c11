//! Making networks: what is asked for becomes a definition, which is a file and no more. Its bridge is made with the
//! first attachment.

use crate::conflist::{conflist, find_plugin, host_local, ipam_to_choose, named};
use crate::definition::{DEFAULT, Definition, File, FileDns, FileRoute, FileSubnet, path, write_new};
use crate::host::Host;
use crate::occupied::Taken;
use crate::signals::Uninterrupted;
use crate::subnet::Subnet;
use fault::{Explain, Fault, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use store::Lock;

/// Of /24, in this order: podman's and docker's pools without the default network's, then what home routers have.
const POOLS: [(&str, &str); 2] =
    [("10.90.0.0/24", "10.255.255.0/24"), ("192.168.0.0/24", "192.168.255.0/24")];
/// Begins the bridges' names; the default network's is the one with 0.
const DEVICE: &str = "staves";
/// Words of `--network` that are no networks.
const WORDS: [&str; 8] = ["none", "host", "default", "private", "container", "ns", "slirp4netns", "pasta"];

/// What is asked for, as `net-create` has it on its command line.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `none`, `cni`, or the name of a CNI plugin, with or without `cni:`.
    pub driver: String,
    pub subnets: Vec<String>,
    /// Each is of the subnet that contains it, and so are ranges.
    pub gateways: Vec<String>,
    pub ranges: Vec<String>,
    /// Kept for others, by name.
    pub reserved: BTreeMap<String, String>,
    /// `DESTINATION,GATEWAY[,METRIC]`.
    pub routes: Vec<String>,
    pub internal: bool,
    pub isolate: bool,
    pub mtu: Option<u32>,
    pub dns: Vec<String>,
    pub no_dns: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub parent: Option<String>,
    pub mode: Option<String>,
    pub device: Option<String>,
    /// A CNI network configuration list, or the configuration of one plugin.
    pub cni: Option<Value>,
}

/// What [`create`] came to.
#[derive(Clone, Debug)]
pub struct Created {
    pub file: File,
    /// It was not there before.
    pub made: bool,
    /// What the user should hear of.
    pub notes: Vec<String>,
}

impl Asked {
    /// The definition, as far as it was asked for: subnets and a device may still be to be chosen.
    pub fn file(&self) -> Result<File> {
        let mut file = File {
            name: self.name.clone(),
            driver: self.driver.clone(),
            internal: self.internal,
            isolate: self.isolate,
            mtu: self.mtu,
            labels: self.labels.clone(),
            options: self.options.clone(),
            parent: self.parent.clone(),
            mode: self.mode.clone(),
            device: self.device.clone().unwrap_or_default(),
            subnets: subnets(&self.subnets, &self.gateways, &self.ranges, &self.reserved)?,
            routes: self.routes.iter().map(|text| route(text)).collect::<Result<_>>()?,
            ..File::default()
        };
        let plugin = match self.driver.as_str() {
            "bridge" | "macvlan" | "ipvlan" | "none" => None,
            "cni" if self.cni.is_some() => None,
            "cni" => {
                return Err(Fault::usage("a network of CNI plugins takes their configuration: --cni FILE"));
            }
            other => Some(other.strip_prefix("cni:").unwrap_or(other)),
        };
        if plugin.is_some() || self.cni.is_some() {
            if self.driver != "cni" && self.cni.is_some() {
                return Err(Fault::usage(format!("--cni says what drives the network, not {}", self.driver)));
            }
            "cni".clone_into(&mut file.driver);
            return self.of_plugins(file, plugin);
        }
        // podman's --interface-name is the bridge's name, or the parent's.
        if matches!(file.driver.as_str(), "macvlan" | "ipvlan") && !file.device.is_empty() {
            let device = std::mem::take(&mut file.device);
            if file.parent.as_ref().is_some_and(|parent| *parent != device) {
                return Err(Fault::usage("--parent and --interface-name name different interfaces"));
            }
            file.parent = Some(device);
        }
        crate::options::apply(&mut file)?;
        let bridge = file.driver == "bridge";
        // Only a bridge has an address at which names can be asked for.
        file.dns = FileDns { enabled: bridge && !self.no_dns, servers: self.dns.clone() };
        let of_bridges = [
            ("--isolate", file.isolate),
            ("--device", !file.device.is_empty()),
            ("--dns", !self.dns.is_empty()),
        ];
        if let Some((flag, _)) = of_bridges.iter().find(|(_, given)| *given && !bridge) {
            return Err(Fault::usage(format!("{flag} is for a bridge, not for driver {}", file.driver)));
        }
        crate::options::check_links(&mut file)?;
        Ok(file)
    }

    /// Everything a plugin is to know is in its configuration.
    fn of_plugins(&self, mut file: File, plugin: Option<&str>) -> Result<File> {
        let said = [
            ("--internal", self.internal),
            ("--isolate", self.isolate),
            ("--mtu", self.mtu.is_some()),
            ("--dns", !self.dns.is_empty()),
            ("--parent", self.parent.is_some()),
            ("--mode", self.mode.is_some()),
            ("--device", self.device.is_some()),
            ("--aux-address", !self.reserved.is_empty()),
            ("--route", !self.routes.is_empty()),
        ];
        if let Some((flag, _)) = said.iter().find(|(_, given)| *given) {
            return Err(Fault::usage(format!("CNI plugins are told by their configuration, not by {flag}"))
                .hint("--opt NAME=VALUE sets a member of a plugin's, --cni FILE gives all of it"));
        }
        let list = match (&self.cni, plugin) {
            (Some(_), _) if !self.options.is_empty() || !self.subnets.is_empty() => {
                return Err(Fault::usage("--opt and --subnet say nothing beside --cni: the file has it all"));
            }
            (Some(given), _) => conflist(given, &self.name)?,
            (None, Some(plugin)) => {
                find_plugin(plugin)?;
                let plugin = named(plugin, &self.options)?;
                json!({"cniVersion": "1.0.0", "name": self.name, "plugins": [plugin]})
            }
            (None, None) => return Err(Fault::usage("which CNI plugin?")),
        };
        file.cni = Some(list);
        Ok(file)
    }
}

/// podman's `DESTINATION,GATEWAY[,METRIC]`.
fn route(text: &str) -> Result<FileRoute> {
    let wrong = |why: &str| {
        Fault::usage(format!("--route {text}: {why}"))
            .hint("DESTINATION,GATEWAY[,METRIC], as 10.5.0.0/16,10.90.0.9,100")
    };
    let parts: Vec<&str> = text.split(',').collect();
    let (destination, gateway, metric) = match parts[..] {
        [destination, gateway] => (destination, gateway, None),
        [destination, gateway, metric] => {
            (destination, gateway, Some(metric.parse().map_err(|_| wrong("the metric is no number"))?))
        }
        _ => return Err(wrong("not two or three parts")),
    };
    if matches!(gateway, "blackhole" | "unreachable" | "prohibit") {
        return Err(wrong("only routes by a gateway are made"));
    }
    Ok(FileRoute { destination: destination.to_owned(), gateway: gateway.to_owned(), metric })
}

/// Puts together what was given apart: a gateway and a range are of the subnet they lie in.
fn subnets(
    subnets: &[String],
    gateways: &[String],
    ranges: &[String],
    reserved: &BTreeMap<String, String>,
) -> Result<Vec<FileSubnet>> {
    let as_usage = |fault: Fault| fault.as_kind(Kind::Usage);
    let parsed: Vec<Subnet> =
        subnets.iter().map(|text| Subnet::parse(text)).collect::<Result<_>>().map_err(as_usage)?;
    let mut list: Vec<FileSubnet> = parsed
        .iter()
        .map(|subnet| FileSubnet { subnet: subnet.to_string(), ..FileSubnet::default() })
        .collect();
    if list.is_empty() && !(gateways.is_empty() && ranges.is_empty() && reserved.is_empty()) {
        return Err(Fault::usage(
            "--gateway, --ip-range and --aux-address are of a --subnet, and there is none",
        ));
    }
    for text in gateways {
        let address: IpAddr =
            text.parse().explain_as(Kind::Usage, || format!("--gateway {text} is no address"))?;
        let place = parsed.iter().position(|subnet| subnet.contains(address));
        let place = place
            .ok_or_else(|| Fault::usage(format!("--gateway {text} is in none of the network's subnets")))?;
        if list[place].gateway.replace(address.to_string()).is_some() {
            return Err(Fault::usage(format!("subnet {} has two gateways", parsed[place])));
        }
    }
    for text in ranges {
        let range = Subnet::parse(text).map_err(as_usage)?;
        let place = parsed.iter().position(|subnet| subnet.holds(range));
        let place = place.ok_or_else(|| {
            Fault::usage(format!("--ip-range {text} is within none of the network's subnets"))
        })?;
        if list[place].ip_range.replace(range.to_string()).is_some() {
            return Err(Fault::usage(format!("subnet {} has two ranges", parsed[place])));
        }
    }
    for (name, text) in reserved {
        let address: IpAddr =
            text.parse().explain_as(Kind::Usage, || format!("--aux-address {name}={text} is no address"))?;
        let place = parsed.iter().position(|subnet| subnet.contains(address));
        let place = place.ok_or_else(|| {
            Fault::usage(format!("--aux-address {name}={text} is in none of the network's subnets"))
        })?;
        list[place].aux_addresses.insert(name.clone(), address.to_string());
    }
    Ok(list)
}

/// Which families a network is to have, beside those of the subnets that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Those given; IPv4 if none is.
    #[default]
    Given,
    /// `--ipv6`: a subnet of either, whichever were given.
    Both,
    /// `--ipv4=false`.
    Ipv6,
}

impl Families {
    /// Asking for none in particular asks for what is there. One without addresses of ours has them from elsewhere.
    fn are_those_of(self, file: &File) -> bool {
        let pools = file.clone().check().map(|network| network.pools).unwrap_or_default();
        let has = |ipv6: bool| pools.iter().any(|pool| pool.subnet.is_ipv6() == ipv6);
        match self {
            Families::Given => true,
            _ if pools.is_empty() => true,
            Families::Both => has(false) && has(true),
            Families::Ipv6 => !has(false),
        }
    }
}

/// Makes a network.
///
/// One that is there already is found if it is the same in all that was asked for, else that is a conflict.
pub fn create(host: &Host<'_>, asked: &File, families: Families) -> Result<Created> {
    check_name(&asked.name)?;
    let store = host.store;
    let networks = store.root().join("networks");
    store.make_dir(&networks)?;
    // So that of two who choose at once each sees what the other has chosen.
    let _lock = Lock::directory(&networks)?;
    let _whole = Uninterrupted::begin();
    let (file, notes) = match settle(host, asked, families)? {
        Settled::Found(file) => return Ok(Created { file, made: false, notes: Vec::new() }),
        Settled::New(file, notes) => (file, notes),
    };
    match write_new(store, &path(store, &file.name)?, &file)? {
        Some(_) => Ok(Created { file, made: true, notes }),
        // An editor's, which needs no lock.
        None => Err(exists(&file.name)),
    }
}

/// What [`create`] would do: the definition, and where it would be written if it is not there.
pub fn plan_create(host: &Host<'_>, asked: &File, families: Families) -> Result<(File, Option<PathBuf>)> {
    check_name(&asked.name)?;
    match settle(host, asked, families)? {
        Settled::Found(file) => Ok((file, None)),
        Settled::New(file, _) => {
            let path = path(host.store, &file.name)?;
            Ok((file, Some(path)))
        }
    }
}

enum Settled {
    Found(File),
    New(File, Vec<String>),
}

fn settle(host: &Host<'_>, asked: &File, families: Families) -> Result<Settled> {
    if let Some(present) = File::find(host.store, &asked.name)? {
        return if is_as_asked(&present, asked) && families.are_those_of(&present) {
            Ok(Settled::Found(present))
        } else {
            Err(exists(&asked.name))
        };
    }
    let taken = Taken::look(host.store, host.route()?, &asked.name)?;
    let mut file = chosen(asked.clone(), families, &taken, global_id())?;
    file.created_at = Some(jiff::Timestamp::now().to_string());
    let damaged =
        taken.damaged.iter().map(|why| format!("what a damaged network has taken is unknown: {why}"));
    Ok(Settled::New(file, damaged.collect()))
}

pub fn exists(name: &str) -> Fault {
    Fault::conflict("a network of this name exists and is another")
        .on(name)
        .hint("net-inspect shows it; --ignore takes it as it is, net-rm removes it")
}

/// Asking for nothing in particular asks for what is there.
fn is_as_asked(present: &File, asked: &File) -> bool {
    let have = present.clone().check().map(|network| network.pools).unwrap_or_default();
    // What was asked for is no whole definition yet.
    let mut want = asked.subnets.iter().map(FileSubnet::check);
    present.driver == asked.driver
        && want.all(|pool| pool.is_ok_and(|pool| have.contains(&pool)))
        && asked.subnets.iter().all(|subnet| {
            subnet.aux_addresses.is_empty()
                || present.subnets.iter().any(|present| present.aux_addresses == subnet.aux_addresses)
        })
        && (present.internal, present.isolate) == (asked.internal, asked.isolate)
        && (asked.options.is_empty() || shut(present) == shut(asked))
        && (asked.routes.is_empty() || present.routes == asked.routes)
        && (asked.mtu.is_none() || present.mtu == asked.mtu)
        && (asked.labels.is_empty() || present.labels == asked.labels)
        && (asked.options.is_empty() || present.options == asked.options)
        && (asked.device.is_empty() || present.device == asked.device)
        && (&asked.parent, &asked.mode, &asked.cni) == (&present.parent, &present.mode, &present.cni)
}

/// What options stand for, wherever it was written down.
fn shut(file: &File) -> (bool, bool, bool, &[String], Option<&String>) {
    let File { no_icc, no_masquerade, no_default_route, outbound, host_binding, .. } = file;
    (*no_icc, *no_masquerade, *no_default_route, outbound, host_binding.as_ref())
}

/// docker's rule, less the words that mean something else after `--network`.
pub fn check_name(name: &str) -> Result<()> {
    store::check_name(name)?;
    if name == DEFAULT {
        return Err(Fault::conflict("the default network is always there")
            .on(name)
            .hint("networks/bridge/network.json changes it; take another name for another network"));
    }
    if WORDS.contains(&name) {
        return Err(Fault::usage("this word after --network is no network's name").on(name));
    }
    Ok(())
}

/// Fills in what is left to be chosen, and makes sure that nothing given is anybody else's.
fn chosen(mut file: File, families: Families, taken: &Taken, global_id: [u8; 5]) -> Result<File> {
    let bridge = file.driver == "bridge";
    let wants_subnet = match &mut file.cni {
        Some(list) => ipam_to_choose(list).is_some(),
        None => file.driver != "none",
    };
    let has = |file: &File, ipv6: bool| file.subnets.iter().any(|subnet| subnet.subnet.contains(':') == ipv6);
    let wants_v4 = match families {
        Families::Given => file.subnets.is_empty(),
        Families::Both => !has(&file, false),
        Families::Ipv6 if has(&file, false) => {
            return Err(Fault::usage("--ipv4=false, and a --subnet of IPv4").on(file.name.as_str()));
        }
        Families::Ipv6 => false,
    };
    if wants_subnet && wants_v4 {
        file.subnets.insert(0, of(free_v4(taken)?));
    }
    if wants_subnet && families != Families::Given && !has(&file, true) {
        file.subnets.push(of(free_v6(taken, global_id)?));
    }
    if bridge && file.device.is_empty() {
        let free = (1..=u16::MAX).map(|n| format!("{DEVICE}{n}")).find(|name| !taken.devices.contains(name));
        file.device = free.unwrap_or_default();
    } else if taken.devices.contains(&file.device) && bridge {
        return Err(Fault::conflict(format!("interface {} exists, or is another network's", file.device))
            .on(file.name.as_str())
            .hint("leave it out, and a free one is chosen"));
    }
    let network = file.clone().check().map_err(|fault| fault.on(file.name.as_str()))?;
    check_free(&network, taken, bridge)?;
    file = file.with_pools(&network.pools);
    let subnets = file.subnets.clone();
    if let Some(ipam) = file.cni.as_mut().and_then(ipam_to_choose) {
        *ipam = host_local(&subnets);
    }
    Ok(file)
}

fn of(subnet: Subnet) -> FileSubnet {
    FileSubnet { subnet: subnet.to_string(), ..FileSubnet::default() }
}

/// Of macvlan and ipvlan the host is on the same wire, and so in the same subnet.
fn check_free(network: &Definition, taken: &Taken, bridge: bool) -> Result<()> {
    let refused = |pool: Subnet, by: &str| {
        Err(Fault::conflict(format!("subnet {pool} overlaps with {by}"))
            .on(network.name.as_str())
            .hint("choose another one, or leave it out and a free one is chosen"))
    };
    for pool in &network.pools {
        let base = pool.subnet.base();
        let unusable = base.is_multicast() || base.is_loopback() || base.is_unspecified();
        if unusable || matches!(base, IpAddr::V4(v4) if v4.octets()[0] >= 240 || v4.octets()[0] == 0) {
            return Err(
                Fault::input(format!("subnet {} is for no network", pool.subnet)).on(network.name.as_str())
            );
        }
        if let Some((other, subnet)) = taken.networks.iter().find(|(_, other)| other.overlaps(pool.subnet)) {
            return refused(pool.subnet, &format!("{subnet} of network {other}"));
        }
        if let Some(subnet) = taken.host.iter().find(|other| bridge && other.overlaps(pool.subnet)) {
            return refused(pool.subnet, &format!("{subnet}, which the host reaches elsewhere"));
        }
    }
    Ok(())
}

fn free_v4(taken: &Taken) -> Result<Subnet> {
    let occupied = taken.subnets();
    for (first, last) in POOLS {
        if let Some(free) = Subnet::first_free(Subnet::parse(first)?, Subnet::parse(last)?, &occupied) {
            return Ok(free);
        }
    }
    Err(Fault::conflict("no subnet is free between 10.90.0.0 and 10.255.255.255 or in 192.168.0.0/16")
        .hint("choose one with --subnet, or remove networks: net-prune --unused"))
}

/// RFC 4193, section 3.1: fd, 40 bits of the machine's own, 16 of the subnet, 64 of the host.
fn free_v6(taken: &Taken, global_id: [u8; 5]) -> Result<Subnet> {
    let of_machine = |subnet: [u8; 2]| {
        let mut octets = [0_u8; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&global_id);
        octets[6..8].copy_from_slice(&subnet);
        Subnet::around(IpAddr::from(octets), 64)
    };
    Subnet::first_free(of_machine([0, 1]), of_machine([0xff, 0xff]), &taken.subnets()).ok_or_else(|| {
        Fault::conflict("no subnet of the machine's IPv6 prefix is free")
            .hint("choose one with --subnet fd…::/64")
    })
}

/// The same for all networks of a machine, and another on others. machine-id(5) asks not to be told as it is.
fn global_id() -> [u8; 5] {
    let id = std::fs::read("/etc/machine-id").ok().filter(|id| id.len() >= 32);
    // Of a machine without one any will do: what is taken is looked up in any case.
    let id = id.or_else(|| std::fs::read("/proc/sys/kernel/random/uuid").ok()).unwrap_or_default();
    let digest = oci::Digest::of(&[b"staves: networks of ", id.as_slice()].concat());
    let mut bytes = [0_u8; 5];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let digits = digest.hex().get(place * 2..place * 2 + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut Asked)) -> Asked {
        let mut asked = Asked { name: "web".into(), driver: "bridge".into(), ..Asked::default() };
        change(&mut asked);
        asked
    }

    fn taken(networks: &[&str], host: &[&str], devices: &[&str]) -> Taken {
        let subnets =
            |texts: &[&str]| texts.iter().map(|text| Subnet::parse(text).unwrap()).collect::<Vec<_>>();
        Taken {
            networks: subnets(networks).into_iter().map(|subnet| ("other".to_owned(), subnet)).collect(),
            host: subnets(host),
            devices: devices.iter().map(|name| (*name).to_owned()).collect(),
            ..Taken::default()
        }
    }

    const ID: [u8; 5] = [1, 2, 3, 4, 5];

    fn made(asked: &Asked, ipv6: bool, taken: &Taken) -> Result<File> {
        let families = if ipv6 { Families::Both } else { Families::Given };
        chosen(asked.file()?, families, taken, ID)
    }

    #[test]
    fn what_is_not_given_is_chosen() {
        let taken = taken(&["10.89.0.0/16", "10.90.0.0/24"], &["10.90.1.0/25"], &["staves0", "staves1"]);
        let file = made(&asked(|_| ()), true, &taken).unwrap();
        assert_eq!(file.device, "staves2");
        let subnets: Vec<&str> = file.subnets.iter().map(|subnet| subnet.subnet.as_str()).collect();
        assert_eq!(subnets, ["10.90.2.0/24", "fd01:203:405:1::/64"]);
        assert_eq!(file.subnets[0].gateway.as_deref(), Some("10.90.2.1"));
        assert!(file.dns.enabled);
        let six = chosen(asked(|_| ()).file().unwrap(), Families::Ipv6, &taken, ID).unwrap();
        assert_eq!(six.subnets.len(), 1);
        assert_eq!(six.subnets[0].subnet, "fd01:203:405:1::/64");
        let four = asked(|asked| asked.subnets = vec!["10.7.0.0/24".into()]).file().unwrap();
        assert_eq!(chosen(four, Families::Ipv6, &taken, ID).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn gateways_and_ranges_find_their_subnets() {
        let asked = asked(|asked| {
            asked.subnets = vec!["fd00:7::/64".into(), "10.7.0.0/24".into()];
            asked.gateways = vec!["10.7.0.254".into()];
            asked.ranges = vec!["10.7.0.128/25".into()];
            asked.reserved =
                [("router".into(), "10.7.0.130".into()), ("six".into(), "fd00:7:0::5".into())].into();
        });
        let file = made(&asked, false, &Taken::default()).unwrap();
        assert_eq!(file.subnets[0].gateway.as_deref(), Some("fd00:7::1"));
        assert_eq!(file.subnets[1].gateway.as_deref(), Some("10.7.0.254"));
        assert_eq!(file.subnets[1].ip_range.as_deref(), Some("10.7.0.128/25"));
        assert_eq!(file.subnets[1].aux_addresses["router"], "10.7.0.130");
        assert_eq!(file.subnets[0].aux_addresses["six"], "fd00:7::5");
        assert_eq!(file.check().unwrap().reserved.len(), 2);
        // Only IPv6 stays so, unless both are asked for.
        let only = Asked {
            name: asked.name,
            driver: asked.driver,
            subnets: vec!["fd00:7::/64".into()],
            ..Asked::default()
        };
        assert_eq!(made(&only, false, &Taken::default()).unwrap().subnets.len(), 1);
        assert_eq!(made(&only, true, &Taken::default()).unwrap().subnets[0].subnet, "10.90.0.0/24");
    }

    #[test]
    fn what_is_taken_or_senseless_is_refused() {
        let taken = taken(&["10.5.0.0/16"], &["10.6.0.0/16"], &["br0"]);
        let subnet = |text: &str, driver: &str| {
            made(
                &asked(|asked| (asked.subnets, asked.driver) = (vec![text.into()], driver.into())),
                false,
                &taken,
            )
        };
        assert_eq!(subnet("10.5.1.0/24", "bridge").unwrap_err().kind(), Kind::Conflict);
        assert_eq!(subnet("10.6.1.0/24", "bridge").unwrap_err().kind(), Kind::Conflict);
        assert_eq!(subnet("10.5.1.0/24", "macvlan").unwrap_err().kind(), Kind::Conflict);
        assert!(subnet("10.6.1.0/24", "macvlan").is_ok(), "the host is on that wire");
        for senseless in ["224.0.0.0/24", "127.3.0.0/24", "0.0.0.0/8", "ff00::/64", "255.0.0.0/24"] {
            assert_eq!(subnet(senseless, "bridge").unwrap_err().kind(), Kind::Input, "{senseless}");
        }
        for change in [
            (|a: &mut Asked| a.gateways = vec!["10.1.0.1".into()]) as fn(&mut Asked),
            |a| (a.subnets, a.gateways) = (vec!["10.1.0.0/24".into()], vec!["10.2.0.1".into()]),
            |a| (a.subnets, a.ranges) = (vec!["10.1.0.0/24".into()], vec!["10.1.0.0/16".into()]),
            |a| a.subnets = vec!["10.1.0.1/24".into()],
            |a| a.reserved = [("router".into(), "10.1.0.2".into())].into(),
            |a| {
                (a.subnets, a.reserved) =
                    (vec!["10.1.0.0/24".into()], [("router".into(), "10.2.0.2".into())].into());
            },
            |a| a.driver = "overlay".into(),
            |a| a.driver = "../evil".into(),
            |a| a.driver = "cni".into(),
            |a| a.mode = Some("bridge".into()),
            |a| a.parent = Some("eth0".into()),
            |a| a.routes = vec!["10.5.0.0/16".into()],
            |a| a.routes = vec!["10.5.0.0/16,10.90.0.9,x".into()],
            |a| a.routes = vec!["10.5.0.0/16,blackhole".into()],
            |a| (a.driver, a.isolate) = ("macvlan".into(), true),
            |a| {
                (a.driver, a.device, a.parent) = ("macvlan".into(), Some("eth1".into()), Some("eth0".into()));
            },
            |a| (a.driver, a.dns) = ("ipvlan".into(), vec!["1.1.1.1".into()]),
            |a| (a.driver, a.mode) = ("ipvlan".into(), Some("vepa".into())),
        ] {
            let fault = made(&asked(change), false, &taken).unwrap_err();
            assert_eq!(fault.kind(), Kind::Usage, "{fault}");
        }
        let lan = asked(|a| (a.driver, a.device) = ("ipvlan".into(), Some("eth1".into())));
        let lan = made(&lan, false, &Taken::default()).unwrap();
        assert_eq!((lan.parent.as_deref(), lan.device.as_str()), (Some("eth1"), ""));
        let device = asked(|asked| asked.device = Some("br0".into()));
        assert_eq!(made(&device, false, &taken).unwrap_err().kind(), Kind::Conflict);
        let full = Taken {
            networks: vec![("all".into(), Subnet::parse("10.0.0.0/8").unwrap())],
            ..Taken::default()
        };
        assert_eq!(made(&asked(|_| ()), false, &full).unwrap().subnets[0].subnet, "192.168.0.0/24");
    }

    #[test]
    fn names_that_mean_something_else_are_no_names() {
        for name in ["", "none", "host", "container", "ns", "../x", ".x", "a/b"] {
            assert_eq!(check_name(name).unwrap_err().kind(), Kind::Usage, "{name}");
        }
        assert_eq!(check_name("bridge").unwrap_err().kind(), Kind::Conflict);
        assert!(check_name("web-1.front_end").is_ok());
    }

    #[test]
    fn a_configuration_of_plugins_is_a_list() {
        let of = |given: Value| asked(|a| (a.driver, a.cni) = ("cni".into(), Some(given))).file();
        let list = of(json!({"type": "ptp", "cniVersion": "0.4.0", "mtu": 1400})).unwrap().cni.unwrap();
        assert_eq!(list["cniVersion"], "0.4.0");
        assert_eq!((&list["name"], &list["plugins"][0]["mtu"]), (&"web".into(), &1400.into()));
        for wrong in [
            json!(7),
            json!({}),
            json!({"plugins": []}),
            json!({"plugins": [{"name": "x"}]}),
            json!({"plugins": [{"type": "../../bin/sh"}]}),
        ] {
            assert_eq!(of(wrong.clone()).unwrap_err().kind(), Kind::Input, "{wrong}");
        }
        let options = [("mtu", "1400"), ("isGateway", "true"), ("bridge", "cni7")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let plugin = named("ptp", &options.into()).unwrap();
        assert_eq!(
            plugin,
            json!({"type": "ptp", "ipam": null, "mtu": 1400, "isGateway": true, "bridge": "cni7"})
        );
        let list = json!({"cniVersion": "1.0.0", "name": "web", "plugins": [plugin]});
        let bare = File { name: "web".into(), driver: "cni".into(), cni: Some(list), ..File::default() };
        let file = chosen(bare, Families::Given, &Taken::default(), ID).unwrap();
        let ipam = &file.cni.unwrap()["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][0][0], json!({"subnet": "10.90.0.0/24", "gateway": "10.90.0.1"}));
    }
}
