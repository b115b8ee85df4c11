//! Choosing addresses.

use crate::definition::Definition;
use crate::host::Host;
use crate::release;
use fault::{Fault, Result};
use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::IpAddr;
use store::{Lease, Leases, Lock};

/// What a container asks for on a network, and is told of there.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    pub id: &'a str,
    /// Written into each lease.
    pub lease: Lease,
    /// Must be these, one of a family at the most.
    pub fixed: Vec<IpAddr>,
    /// Are taken if they are free.
    pub preferred: Vec<IpAddr>,
    /// The container has IPv6 switched off.
    pub without_ipv6: bool,
}

impl Wanted<'_> {
    /// Whether the container gets an address of this family there.
    fn has(&self, network: &Definition, ipv6: bool) -> bool {
        !(ipv6 && self.without_ipv6) && network.pools.iter().any(|pool| pool.subnet.is_ipv6() == ipv6)
    }
}

/// Leases one address of each family the network has: the one asked for, the preferred one, or the first free one from a
/// place that follows from the container's id, so that containers seldom meet and the same one comes back to the same address.
///
/// Fails with a conflict, and leases nothing, when the one asked for or all of a family are leased to living containers.
pub fn take(host: &Host<'_>, network: &Definition, wanted: &Wanted<'_>) -> Result<Vec<IpAddr>> {
    check_fixed(network, wanted)?;
    let mut taken: Vec<IpAddr> = Vec::new();
    for ipv6 in [false, true] {
        if !wanted.has(network, ipv6) {
            continue;
        }
        match take_one(host, network, wanted, ipv6) {
            Ok(address) => taken.push(address),
            Err(fault) => {
                let leases = host.store.leases(&network.name)?;
                for address in taken {
                    leases.release(address, wanted.id)?;
                }
                return Err(fault);
            }
        }
    }
    Ok(taken)
}

fn take_one(host: &Host<'_>, network: &Definition, wanted: &Wanted<'_>, ipv6: bool) -> Result<IpAddr> {
    let leases = host.store.leases(&network.name)?;
    let listed = OnceCell::new();
    let mut holder_of_fixed = None;
    for address in tried(&listed, &leases, network, wanted, ipv6) {
        // Twice at the most: a dead holder's address is free the second time.
        for _ in 0..2 {
            if leases.take(host.store, address, &wanted.lease)? {
                return Ok(address);
            }
            let Some(holder) = leases.read(address)? else { continue };
            if holder.container == wanted.id {
                leases.rewrite(address, &wanted.lease)?;
                return Ok(address);
            }
            if !reclaim(host, network, address, &holder)? {
                holder_of_fixed = Some(holder.container);
                break;
            }
        }
    }
    Err(none_free(network, wanted, ipv6, holder_of_fixed))
}

/// The addresses [`take`] would lease now, each with the holder it would take it from, one nobody looks after.
pub fn preview(
    host: &Host<'_>,
    network: &Definition,
    wanted: &Wanted<'_>,
) -> Result<Vec<(IpAddr, Option<String>)>> {
    check_fixed(network, wanted)?;
    let leases = host.store.leases(&network.name)?;
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        if !wanted.has(network, ipv6) {
            continue;
        }
        let listed = OnceCell::new();
        let mut holder_of_fixed = None;
        let mut free = None;
        for address in tried(&listed, &leases, network, wanted, ipv6) {
            match leases.read(address)? {
                None => free = Some((address, None)),
                Some(holder) if holder.container == wanted.id => free = Some((address, None)),
                Some(holder) if host.store.claim_remains(&holder.container).is_some() => {
                    free = Some((address, Some(holder.container)));
                }
                Some(holder) => holder_of_fixed = Some(holder.container),
            }
            if free.is_some() {
                break;
            }
        }
        found.push(free.ok_or_else(|| none_free(network, wanted, ipv6, holder_of_fixed))?);
    }
    Ok(found)
}

/// The candidates in the order in which they are tried: the first, which is mostly free; then, by a list of the leases, which is made
/// once, those that are free; last those that are not, whose holders may be gone. A full subnet costs little more than an empty one.
fn tried<'c>(
    listed: &'c OnceCell<HashSet<IpAddr>>,
    leases: &'c Leases,
    network: &'c Definition,
    wanted: &'c Wanted<'_>,
    ipv6: bool,
) -> impl Iterator<Item = IpAddr> + 'c {
    let is_leased = move |address: &IpAddr| {
        // One that cannot be read is told of by who takes a lease there.
        let list = || leases.addresses().unwrap_or_default().into_iter().collect();
        listed.get_or_init(list).contains(address)
    };
    let others = move |leased: bool| {
        let others = candidates(network, wanted, ipv6).skip(1);
        others.filter(move |address| is_leased(address) == leased)
    };
    candidates(network, wanted, ipv6).take(1).chain(others(false)).chain(others(true))
}

/// Nobody looks at more addresses than this for a free one: a /64 has more of them than there is time.
const MOST_LOOKED_AT: u128 = 1 << 20;

fn candidates<'c>(
    network: &'c Definition,
    wanted: &'c Wanted<'_>,
    ipv6: bool,
) -> impl Iterator<Item = IpAddr> + 'c {
    let of_family = move |address: &&IpAddr| address.is_ipv6() == ipv6;
    let fixed = wanted.fixed.iter().find(of_family).copied();
    let start = wanted.id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let pools = network.pools.iter().filter(move |pool| pool.subnet.is_ipv6() == ipv6);
    let around = pools.flat_map(move |pool| {
        let (subnet, within) = (pool.subnet, pool.range.unwrap_or(pool.subnet));
        let numbers = 0..within.hosts().saturating_add(2).min(MOST_LOOKED_AT);
        // A range's first and last address are hosts of the subnet, mostly.
        numbers.map(move |n| within.at(u128::from(start).wrapping_add(n))).filter(move |a| subnet.is_host(*a))
    });
    let chosen = wanted.preferred.iter().copied().filter(move |address| address.is_ipv6() == ipv6);
    let chosen = chosen.chain(around).filter(move |_| fixed.is_none());
    fixed.into_iter().chain(chosen).filter(move |address| {
        network.pool_of(*address).is_some_and(|pool| pool.subnet.is_host(*address))
            && !network.pools.iter().any(|pool| pool.gateway == *address)
            && !network.reserved.contains(address)
    })
}

/// An address asked for must be one of the network's.
fn check_fixed(network: &Definition, wanted: &Wanted<'_>) -> Result<()> {
    if wanted.without_ipv6 {
        let off = "the container has IPv6 switched off (net.ipv6.conf.all.disable_ipv6)";
        if let Some(address) = wanted.fixed.iter().find(|address| address.is_ipv6()) {
            return Err(Fault::input(format!("address {address} cannot be had: {off}"))
                .on(network.name.as_str())
                .hint("leave out one of the two"));
        }
        if !network.pools.is_empty() && !network.has_ipv4() {
            return Err(Fault::input(format!("there are addresses of IPv6 alone, and {off}"))
                .on(network.name.as_str())
                .hint("leave out the sysctl, or attach the container to a network with IPv4"));
        }
    }
    for address in &wanted.fixed {
        let Some(pool) = network.pool_of(*address) else {
            let subnets: Vec<String> = network.pools.iter().map(|pool| pool.subnet.to_string()).collect();
            return Err(Fault::input(format!("address {address} is not of the network's subnets"))
                .on(network.name.as_str())
                .hint(match subnets.as_slice() {
                    [] => "it has none".to_owned(),
                    some => format!("choose one of {}", some.join(", ")),
                }));
        };
        if pool.gateway == *address || !pool.subnet.is_host(*address) {
            return Err(Fault::input(format!("address {address} is the network's own"))
                .on(network.name.as_str())
                .hint("choose another one"));
        }
        if network.reserved.contains(address) {
            return Err(Fault::conflict(format!(
                "address {address} is kept for somebody else (net-create --aux-address)"
            ))
            .on(network.name.as_str())
            .hint("choose another one"));
        }
    }
    Ok(())
}

fn none_free(network: &Definition, wanted: &Wanted<'_>, ipv6: bool, holder: Option<String>) -> Fault {
    if let Some(address) = wanted.fixed.iter().find(|address| address.is_ipv6() == ipv6) {
        let holder = holder.unwrap_or_default();
        let short = holder.get(..12).unwrap_or(&holder);
        return Fault::conflict(format!("address {address} is leased to container {short}"))
            .on(network.name.as_str())
            .hint("choose another one, or detach that container");
    }
    let pools = network.pools.iter().filter(|pool| pool.subnet.is_ipv6() == ipv6);
    let places: Vec<String> = pools.map(|pool| pool.range.unwrap_or(pool.subnet).to_string()).collect();
    Fault::conflict(format!("no free address in {}", places.join(", ")))
        .on(network.name.as_str())
        .hint(format!("remove containers, or give networks/{}/network.json a larger subnet", network.name))
}

/// Changes what the leases a container holds say.
pub fn relist(host: &Host<'_>, network: &Definition, addresses: &[IpAddr], lease: &Lease) -> Result<()> {
    let leases = host.store.leases(&network.name)?;
    addresses.iter().try_for_each(|address| leases.rewrite(*address, lease))
}

/// Frees an address whose container nobody looks after, with all that leads to it; `false` if somebody does.
pub fn reclaim(host: &Host<'_>, network: &Definition, address: IpAddr, holder: &Lease) -> Result<bool> {
    let Some(_remains) = host.store.claim_remains(&holder.container) else { return Ok(false) };
    let leases = host.store.leases(&network.name)?;
    // Of two that found the same dead holder, the second must not take the first one's new lease for it.
    let _lock = Lock::exclusive(&host.store.network_dir(&network.name))?;
    if leases.read(address)?.as_ref() != Some(holder) {
        return Ok(true);
    }
    release::lease(host, network, address, holder)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{File, FileSubnet};
    use std::os::unix::fs::MetadataExt;
    use store::{Foreign, Store};

    fn id(number: u8) -> String {
        format!("{number:02x}").repeat(32)
    }

    /// Somebody who lives as long as this process.
    fn alive(store: &Store, id: &str) {
        let status = std::fs::metadata("/proc/self/ns/net").unwrap();
        let netns = format!("/proc/{}/ns/net", std::process::id());
        let foreign = Foreign { netns, netns_id: (status.dev(), status.ino()), ..Foreign::default() };
        drop(store.lock_foreign(id).unwrap());
        store.save_foreign(id, &foreign).unwrap();
    }

    fn wanted(id: &str) -> Wanted<'_> {
        Wanted { id, lease: Lease { container: id.to_owned(), ..Lease::default() }, ..Wanted::default() }
    }

    /// Of `10.61.0.0/28`, of which thirteen addresses are for containers.
    #[test]
    fn what_is_free_is_found_then_what_the_dead_left() {
        let dir = std::env::temp_dir().join(format!("network-address-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let subnet = FileSubnet { subnet: "10.61.0.0/28".into(), ..FileSubnet::default() };
        let network = File {
            name: "small".into(),
            driver: "bridge".into(),
            device: "small0".into(),
            subnets: vec![subnet],
            ..File::default()
        };
        let network = network.check().unwrap();
        let host = Host::new(&store).unwrap();
        let mut given = HashSet::new();
        for number in 1..=13 {
            let id = id(number);
            alive(&store, &id);
            let told = preview(&host, &network, &wanted(&id)).unwrap();
            let took = take(&host, &network, &wanted(&id)).unwrap();
            assert_eq!(told, [(took[0], None)], "{number}");
            assert!(given.insert(took[0]), "{number} got {} again", took[0]);
        }
        // None is free: that of one who is gone by now, wherever the search began.
        store.forget_foreign(&id(12)).unwrap();
        let leases = store.leases("small").unwrap();
        let of_dead = |address: &&IpAddr| leases.read(**address).unwrap().unwrap().container == id(12);
        let of_dead = *given.iter().find(of_dead).unwrap();
        alive(&store, &id(14));
        let told = preview(&host, &network, &wanted(&id(14))).unwrap();
        assert_eq!(told, [(of_dead, Some(id(12)))]);
        assert_eq!(take(&host, &network, &wanted(&id(14))).unwrap(), [of_dead]);
        // Its own again, and then there is none.
        assert_eq!(take(&host, &network, &wanted(&id(14))).unwrap(), [of_dead]);
        let fault = take(&host, &network, &wanted(&id(15))).unwrap_err();
        assert_eq!(fault.kind(), fault::Kind::Conflict);
        assert!(fault.to_string().contains("no free address in 10.61.0.0/28"), "{fault}");
        // What was asked for has its holder, whoever else is dead.
        let (id14, id15) = (id(14), id(15));
        let fixed = Wanted { fixed: vec![of_dead], ..wanted(&id15) };
        let fault = take(&host, &network, &fixed).unwrap_err().to_string();
        assert!(fault.contains(&id14[..12]), "{fault}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn who_has_ipv6_switched_off_gets_no_address_of_it() {
        let dir = std::env::temp_dir().join(format!("network-address-off-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let subnet = |subnet: &str| FileSubnet { subnet: subnet.into(), ..FileSubnet::default() };
        let network = |subnets: &[&str]| {
            let subnets = subnets.iter().map(|text| subnet(text)).collect();
            let (name, device) = ("off".into(), "off0".into());
            File { name, driver: "bridge".into(), device, subnets, ..File::default() }.check().unwrap()
        };
        let (both, six) = (network(&["10.61.1.0/24", "fd61::/64"]), network(&["fd61::/64"]));
        let host = Host::new(&store).unwrap();
        let id = id(1);
        alive(&store, &id);
        assert_eq!(take(&host, &both, &wanted(&id)).unwrap().len(), 2);
        let off = Wanted { without_ipv6: true, ..wanted(&id) };
        let taken = take(&host, &both, &off).unwrap();
        assert!(taken.len() == 1 && taken[0].is_ipv4(), "{taken:?}");
        assert_eq!(preview(&host, &both, &off).unwrap().len(), 1);
        let fault = take(&host, &six, &off).unwrap_err().to_string();
        assert!(fault.contains("IPv6 alone") && fault.contains("disable_ipv6"), "{fault}");
        let fixed = Wanted { fixed: vec!["fd61::9".parse().unwrap()], ..off.clone() };
        let fault = take(&host, &both, &fixed).unwrap_err().to_string();
        assert!(fault.contains("fd61::9 cannot be had"), "{fault}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
