//! Making networks: what is asked for becomes a definition, which is a file and no more. Its bridge is made with the
//! first attachment.

mod asked;
mod free;

pub use asked::Asked;

use crate::conflist::{host_local, ipam_to_choose};
use crate::definition::{DEFAULT, File, FileSubnet, path, write_new};
use crate::host::Host;
use crate::occupied::Taken;
use crate::routed::group_of;
use crate::signals::Uninterrupted;
use crate::subnet::Subnet;
use fault::{Fault, Result};
use free::{check_free, free_v4, free_v6, global_id};
use std::path::PathBuf;
use store::Lock;

/// Begins the bridges' names; the default network's is the one with 0.
pub(crate) const DEVICE: &str = "staves";
/// Words of `--network` that are no networks.
const WORDS: [&str; 8] = ["none", "host", "default", "private", "container", "ns", "slirp4netns", "pasta"];

/// What [`create`] came to.
#[derive(Clone, Debug)]
pub struct Created {
    pub file: File,
    /// It was not there before.
    pub made: bool,
    /// What the user should hear of.
    pub notes: Vec<String>,
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
    let bridge = matches!(file.driver.as_str(), "bridge" | "routed");
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
        let mut names = (1..=u16::MAX).map(|n| format!("{DEVICE}{n}"));
        let free = names.find(|name| !is_taken(name, &file.driver, taken));
        file.device = free.unwrap_or_default();
    } else if bridge && is_taken(&file.device, &file.driver, taken) {
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

/// Whether an interface has this name, or another network's links would be taken for this one's.
fn is_taken(device: &str, driver: &str, taken: &Taken) -> bool {
    let group = group_of(device);
    taken.devices.contains(device)
        || driver == "routed" && taken.devices.iter().any(|other| group_of(other) == group)
}

fn of(subnet: Subnet) -> FileSubnet {
    FileSubnet { subnet: subnet.to_string(), ..FileSubnet::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conflist::named;
    use fault::Kind;
    use serde_json::{Value, json};

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
