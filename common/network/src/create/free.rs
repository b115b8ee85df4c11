//! Subnets that are nobody else's.

use crate::definition::Definition;
use crate::occupied::Taken;
use crate::subnet::Subnet;
use fault::{Fault, Result};
use std::net::IpAddr;

/// Of /24, in this order: podman's and docker's pools without the default network's, then what home routers have.
const POOLS: [(&str, &str); 2] =
    [("10.90.0.0/24", "10.255.255.0/24"), ("192.168.0.0/24", "192.168.255.0/24")];
/// Of macvlan and ipvlan the host is on the same wire, and so in the same subnet.
pub fn check_free(network: &Definition, taken: &Taken, bridge: bool) -> Result<()> {
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

pub fn free_v4(taken: &Taken) -> Result<Subnet> {
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
pub fn free_v6(taken: &Taken, global_id: [u8; 5]) -> Result<Subnet> {
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
pub fn global_id() -> [u8; 5] {
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
