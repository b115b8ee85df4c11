//! Which networks a container is to be attached to, and what it asks for on each.

use crate::attach::Request;
use crate::definition::{DEFAULT, Definition, Driver, check_device};
use crate::link;
use crate::port::Wish;
use crate::sysctl::{OF_ENDPOINT, OfInterface};
use fault::{Fault, Result};
use oci::wishes::NetworkMode;
use record::{Attachment, Config, NetworkWish};
use std::collections::HashSet;
use std::net::IpAddr;
use store::Store;

/// A network and what is asked for there.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub wish: NetworkWish,
    pub network: Definition,
}

/// Which network is a container's way out, for IPv4 and for IPv6, and where its ports are published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    pub v4: Option<String>,
    pub v6: Option<String>,
}

/// The networks asked for by flags, else by the record, else the default one; none for a container that has its network
/// from elsewhere.
pub fn wishes(request: &Request<'_>, ports: &[Wish]) -> Result<Vec<NetworkWish>> {
    let mut asked =
        if request.networks.is_empty() { of_config(request.config) } else { request.networks.to_vec() };
    let several = asked.len() > 1;
    let mut names = HashSet::new();
    for wish in &mut asked {
        match wish.name.as_str() {
            "" | "private" | "default" => DEFAULT.clone_into(&mut wish.name),
            mode if is_elsewhere(mode) => {
                if several {
                    return Err(Fault::input(format!("network {mode} excludes others")));
                }
                return no_ports(mode, ports).map(|()| Vec::new());
            }
            _ => {}
        }
        if !names.insert(wish.name.clone()) {
            return Err(Fault::input("a network is asked for twice").on(wish.name.as_str()));
        }
    }
    Ok(asked)
}

fn of_config(config: &Config) -> Vec<NetworkWish> {
    if !config.networks.is_empty() {
        return config.networks.clone();
    }
    vec![NetworkWish { name: config.network.clone().unwrap_or_default(), ..NetworkWish::default() }]
}

fn is_elsewhere(mode: &str) -> bool {
    NetworkMode::parse(mode).is_ok_and(|mode| mode == NetworkMode::None || !mode.is_private())
}

fn no_ports(network: &str, wishes: &[Wish]) -> Result<()> {
    match wishes.first() {
        None => Ok(()),
        Some(wish) => {
            Err(Fault::input(format!("with network {network} there is nothing to publish {wish} from"))
                .hint("leave out the port, or attach the container to a bridge"))
        }
    }
}

impl Wanted {
    /// The definitions of what is asked for; `load` reads one.
    ///
    /// Fails with input for a wish the network cannot meet.
    pub fn load(wish: NetworkWish, load: impl FnOnce(&str) -> Result<Definition>) -> Result<Wanted> {
        let network = load(&wish.name)?;
        let wanted = Wanted { wish, network };
        wanted.addresses()?;
        wanted.mac()?;
        wanted.link_local()?;
        let NetworkWish { ip, ip6, mac, interface, link_local_ips, .. } = &wanted.wish;
        let asks = [ip, ip6, mac, interface].iter().any(|member| member.is_some());
        if wanted.network.driver == Driver::None && (asks || !link_local_ips.is_empty()) {
            return Err(Fault::input("a network of driver none has neither interface nor addresses")
                .on(wanted.network.name.as_str()));
        }
        wanted.sysctls()?;
        let other = |name: &&String| *name != OF_ENDPOINT || wanted.network.driver == Driver::None;
        if let (Some(option), false) =
            (wanted.wish.driver_opts.keys().find(other), matches!(wanted.network.driver, Driver::Cni(_)))
        {
            let driver = wanted.network.driver.name();
            return Err(Fault::input(format!("driver {driver} has no option {option} for one container"))
                .on(wanted.network.name.as_str()));
        }
        if let Some(interface) = &wanted.wish.interface {
            check_interface(interface).map_err(|fault| fault.on(wanted.network.name.as_str()))?;
        }
        let mut names = wanted.wish.aliases.iter();
        if let Some(alias) = names.find(|alias| !is_host_name(alias)) {
            return Err(Fault::input(format!("alias \"{alias}\" is no host name")));
        }
        Ok(wanted)
    }

    /// The addresses that are asked for.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let parse = |text: &String, ipv6: bool| {
            let address: Option<IpAddr> = text.parse().ok();
            address.filter(|address| address.is_ipv6() == ipv6).ok_or_else(|| {
                Fault::input(format!("\"{text}\" is no IPv{} address", if ipv6 { 6 } else { 4 }))
            })
        };
        let v4 = self.wish.ip.as_ref().map(|text| parse(text, false));
        v4.into_iter().chain(self.wish.ip6.as_ref().map(|text| parse(text, true))).collect()
    }

    pub fn mac(&self) -> Result<Option<[u8; 6]>> {
        let Some(text) = &self.wish.mac else { return Ok(None) };
        let wrong =
            || Fault::input(format!("\"{text}\" is no hardware address, as 02:42:0a:59:00:02 is one"));
        link::parse_mac(text).map(Some).ok_or_else(wrong)
    }

    /// Kernel parameters of the interface. What a CNI plugin makes of its options is its own affair.
    pub fn sysctls(&self) -> Result<Vec<OfInterface>> {
        match self.wish.driver_opts.get(OF_ENDPOINT) {
            Some(text) if !matches!(self.network.driver, Driver::Cni(_)) => {
                OfInterface::parse(text).map_err(|fault| fault.on(self.network.name.as_str()))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Addresses beside the leased ones, with their prefix lengths.
    pub fn link_local(&self) -> Result<Vec<(IpAddr, u8)>> {
        let parse = |text: &String| {
            let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
            let address: Option<IpAddr> = address.parse().ok();
            let longest = if address.is_some_and(|a| a.is_ipv6()) { 128 } else { 32 };
            // The ranges of RFC 3927 and RFC 4291.
            let usual = if longest == 32 { 16 } else { 64 };
            let prefix = prefix.map_or(Some(usual), |text| text.parse().ok().filter(|p| *p <= longest));
            match (address, prefix) {
                (Some(address), Some(prefix)) if is_link_local(address) => Ok((address, prefix)),
                _ => Err(Fault::input(format!("\"{text}\" is no link-local address"))
                    .hint("one of 169.254.0.0/16 or fe80::/64")),
            }
        };
        if self.network.driver == Driver::Routed
            && let Some(text) = self.wish.link_local_ips.first()
        {
            return Err(Fault::input(format!(
                "link-local address {text}: nobody shares a link with the container"
            ))
            .on(self.network.name.as_str())
            .hint("networks of driver bridge have such addresses"));
        }
        self.wish.link_local_ips.iter().map(parse).collect()
    }

    fn priority(&self) -> i32 {
        self.wish.gw_priority.unwrap_or(0)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn check_interface(name: &str) -> Result<()> {
    check_device("interface", name)?;
    if name == "lo" {
        return Err(Fault::input("every container has an interface lo already"));
    }
    Ok(())
}

/// Names are put into `hosts` and into answers of the resolver.
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The first of the networks with the highest priority leads out, for each family the first of them that has it.
pub fn ways(attached: &[Wanted]) -> Ways {
    let best = |ipv6: bool| {
        let leads_out = |one: &&Wanted| {
            let has_family = one.network.pools.iter().any(|pool| pool.subnet.is_ipv6() == ipv6);
            match &one.network.driver {
                _ if one.network.internal || one.network.no_default_route => false,
                Driver::None => false,
                // Nothing leads out of a dummy.
                Driver::Macvlan(parent) | Driver::Ipvlan(parent) => has_family && parent.interface.is_some(),
                // Its configuration alone knows.
                Driver::Cni(_) => has_family || (one.network.pools.is_empty() && !ipv6),
                Driver::Bridge | Driver::Routed => has_family,
            }
        };
        let mut best: Option<&Wanted> = None;
        for one in attached.iter().filter(leads_out) {
            if best.is_none_or(|other| one.priority() > other.priority()) {
                best = Some(one);
            }
        }
        best.map(|one| one.network.name.clone())
    };
    Ways { v4: best(false), v6: best(true) }
}

impl Ways {
    /// Where ports are published: replies leave by the way out.
    pub fn published_on(&self) -> Option<&str> {
        self.v4.as_deref().or(self.v6.as_deref())
    }

    pub fn is_way_out(&self, network: &str, ipv6: bool) -> bool {
        (if ipv6 { &self.v6 } else { &self.v4 }).as_deref() == Some(network)
    }
}

/// The interface's name that is asked for, or the first of `eth0`, `eth1`… nobody has.
pub fn interface(wish: &NetworkWish, attached: &[Attachment], wanted: &[Wanted]) -> Result<String> {
    let of_others = attached.iter().filter(|one| one.name != wish.name);
    let taken = of_others.filter_map(|one| one.interface.as_deref());
    let asked = wanted.iter().filter(|one| one.network.name != wish.name);
    let taken: HashSet<&str> = taken.chain(asked.filter_map(|one| one.wish.interface.as_deref())).collect();
    match &wish.interface {
        Some(name) if taken.contains(name.as_str()) => {
            Err(Fault::conflict(format!("the container has an interface {name} already"))
                .on(wish.name.as_str()))
        }
        Some(name) => Ok(name.clone()),
        // One more than are taken has one that is not.
        None => Ok((0..=taken.len())
            .map(|n| format!("eth{n}"))
            .find(|name| !taken.contains(name.as_str()))
            .unwrap_or_default()),
    }
}

/// What a container asks for, once it is attached to these: so its record says it, for its next start.
pub fn put(config: &mut Config, attached: &[Attachment], asked: &[NetworkWish]) {
    let before = of_config(config);
    let wish = |attachment: &Attachment| {
        let named = |wish: &&NetworkWish| {
            wish.name == attachment.name || (attachment.name == DEFAULT && is_default(&wish.name))
        };
        let found = asked.iter().find(named).or_else(|| before.iter().find(named)).cloned();
        NetworkWish { name: attachment.name.clone(), ..found.unwrap_or_default() }
    };
    let wishes: Vec<NetworkWish> = attached.iter().map(wish).collect();
    match wishes.as_slice() {
        [only] if *only == (NetworkWish { name: only.name.clone(), ..NetworkWish::default() }) => {
            config.network = Some(only.name.clone());
            config.networks = Vec::new();
        }
        _ => {
            config.network = None;
            config.networks = wishes;
        }
    }
}

fn is_default(name: &str) -> bool {
    matches!(name, "" | "private" | "default")
}

/// What is known of a network a container is attached to: its wish, and the definition if that is still there.
pub fn attached(store: &Store, attachment: &Attachment, config: &Config) -> Option<Wanted> {
    let network = Definition::load(store, &attachment.name).ok()?;
    let wish = of_config(config).into_iter().find(|wish| wish.name == attachment.name);
    let named = || NetworkWish { name: attachment.name.clone(), ..NetworkWish::default() };
    Some(Wanted { wish: wish.unwrap_or_else(named), network })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::File;

    fn wanted(name: &str, subnet: &str, priority: Option<i32>, internal: bool) -> Wanted {
        let file = File {
            name: name.into(),
            driver: "bridge".into(),
            device: "staves9".into(),
            subnet: Some(subnet.into()),
            internal,
            ..File::default()
        };
        let wish = NetworkWish { name: name.into(), gw_priority: priority, ..NetworkWish::default() };
        Wanted { wish, network: file.check().unwrap() }
    }

    #[test]
    fn the_way_out_is_the_first_of_the_highest_priority() {
        let (a, b) = (wanted("a", "10.1.0.0/24", None, false), wanted("b", "10.2.0.0/24", None, false));
        let six = wanted("six", "fd00:6::/64", None, false);
        let inside = wanted("inside", "10.3.0.0/24", Some(9), true);
        let of = |list: &[&Wanted]| ways(&list.iter().map(|one| (*one).clone()).collect::<Vec<_>>());
        let both = of(&[&inside, &a, &b, &six]);
        assert_eq!((both.v4.as_deref(), both.v6.as_deref()), (Some("a"), Some("six")));
        assert_eq!(both.published_on(), Some("a"));
        assert!(both.is_way_out("six", true) && !both.is_way_out("six", false));
        let high = wanted("b", "10.2.0.0/24", Some(1), false);
        assert_eq!(of(&[&a, &high]).v4.as_deref(), Some("b"));
        assert_eq!(of(&[&inside]), Ways::default());
        assert_eq!(of(&[&inside, &six]).published_on(), Some("six"));
    }

    #[test]
    fn interfaces_are_counted_past_those_that_are_there_or_asked_for() {
        let plain = |name: &str| NetworkWish { name: name.into(), ..NetworkWish::default() };
        let attached = |name: &str, interface: &str| Attachment {
            name: name.into(),
            interface: Some(interface.into()),
            ..Attachment::default()
        };
        let mut asks = wanted("c", "10.4.0.0/24", None, false);
        asks.wish.interface = Some("eth1".into());
        let there = [attached("a", "eth0")];
        assert_eq!(interface(&plain("b"), &there, &[asks.clone()]).unwrap(), "eth2");
        assert_eq!(interface(&plain("a"), &there, &[]).unwrap(), "eth0");
        assert_eq!(interface(&asks.wish, &there, &[asks.clone()]).unwrap(), "eth1");
        let twice = NetworkWish { interface: Some("eth0".into()), ..plain("b") };
        assert_eq!(interface(&twice, &there, &[]).unwrap_err().kind(), fault::Kind::Conflict);
    }

    #[test]
    fn what_is_asked_for_must_make_sense() {
        type Change = fn(&mut NetworkWish);
        let wrong: [Change; 8] = [
            |wish| wish.ip = Some("fd00::1".into()),
            |wish| wish.ip6 = Some("10.0.0.1".into()),
            |wish| wish.mac = Some("02:42".into()),
            |wish| wish.mac = Some("01:00:5e:00:00:01".into()),
            |wish| wish.interface = Some("a/b".into()),
            |wish| wish.interface = Some("lo".into()),
            |wish| wish.aliases = vec!["a b".into()],
            |wish| wish.link_local_ips = vec!["10.0.0.1".into()],
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            let one = wanted("a", "10.1.0.0/24", None, false);
            let mut wish = one.wish;
            change(&mut wish);
            let loaded = Wanted::load(wish, |_| Ok(one.network));
            assert_eq!(loaded.unwrap_err().kind(), fault::Kind::Input, "{number}");
        }
    }

    #[test]
    fn the_record_says_what_is_attached() {
        let attached = |name: &str| Attachment { name: name.into(), ..Attachment::default() };
        let mut config = Config::default();
        put(&mut config, &[attached("web")], &[]);
        assert_eq!((config.network.as_deref(), config.networks.len()), (Some("web"), 0));
        let db = NetworkWish { name: "db".into(), ip: Some("10.0.0.9".into()), ..NetworkWish::default() };
        put(&mut config, &[attached("web"), attached("db")], std::slice::from_ref(&db));
        assert_eq!((config.network.as_deref(), config.networks.len()), (None, 2));
        assert_eq!(config.networks[1], db);
        put(&mut config, &[attached("db")], &[]);
        assert_eq!(config.networks, [db]);
    }
}
