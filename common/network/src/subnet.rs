//! Subnets of IPv4 and IPv6.

use fault::{Fault, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet with room for a gateway and at least one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Of IPv4 the lower 32 bits.
    base: u128,
    pub prefix: u8,
    v6: bool,
}

impl Subnet {
    /// `10.89.0.0/16`, `fd00:89::/64`; between /8 and /30, of IPv6 /126.
    pub fn parse(text: &str) -> Result<Subnet> {
        let wrong =
            || Fault::input(format!("\"{text}\" is no subnet, as 10.89.0.0/16 and fd00:89::/64 are some"));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv6() { 126 } else { 30 };
        if !(8..=longest).contains(&prefix) {
            return Err(Fault::input(format!("subnet {text} is not between /8 and /{longest}")));
        }
        let subnet = Subnet { base: number(address), prefix, v6: address.is_ipv6() };
        if subnet.base & !subnet.mask() != 0 {
            let right = Subnet { base: subnet.base & subnet.mask(), ..subnet };
            return Err(
                Fault::input(format!("subnet {text} has host bits set")).hint(format!("{right} has none"))
            );
        }
        Ok(subnet)
    }

    /// The subnet of this many bits an address is in.
    pub fn around(address: IpAddr, prefix: u8) -> Subnet {
        let subnet = Subnet { base: number(address), prefix, v6: address.is_ipv6() };
        Subnet { base: subnet.base & subnet.mask(), ..subnet }
    }

    pub fn is_ipv6(self) -> bool {
        self.v6
    }

    fn bits(self) -> u32 {
        if self.v6 { 128 } else { 32 }
    }

    /// Bits of an address of this family above none.
    fn all(self) -> u128 {
        if self.v6 { u128::MAX } else { u128::from(u32::MAX) }
    }

    fn mask(self) -> u128 {
        let host_bits = self.bits() - u32::from(self.prefix).min(self.bits());
        self.all() & u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }

    fn address(self, number: u128) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::from(number))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(number & self.all()).unwrap_or(0)))
        }
    }

    /// The network's own address.
    pub fn base(self) -> IpAddr {
        self.address(self.base)
    }

    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6 && number(address) & self.mask() == self.base
    }

    /// Neither the network's address nor, of IPv4, that of broadcasts. The first of IPv6 is every router's (RFC 4291, 2.6.1).
    pub fn is_host(self, address: IpAddr) -> bool {
        self.contains(address) && address != self.base() && self.broadcast().map(IpAddr::V4) != Some(address)
    }

    /// IPv6 has none.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.address(self.base | (self.all() & !self.mask())) {
            IpAddr::V4(last) => Some(last),
            IpAddr::V6(_) => None,
        }
    }

    /// How many host addresses there are, the gateway's included.
    pub fn hosts(self) -> u128 {
        let size = self.all() & !self.mask();
        if self.v6 { size } else { size - 1 }
    }

    /// The host address with this number, counted from 0 and around.
    pub fn host(self, number: u128) -> IpAddr {
        self.address(self.base + 1 + number % self.hosts())
    }

    /// The address with this number, the network's own being 0, around.
    pub fn at(self, number: u128) -> IpAddr {
        let size = (self.all() & !self.mask()).saturating_add(1);
        self.address(self.base + number % size)
    }

    /// The first of `first`, the one after it and so on up to `last` that overlaps none of `taken`.
    pub fn first_free(first: Subnet, last: Subnet, taken: &[Subnet]) -> Option<Subnet> {
        let size = (first.all() & !first.mask()).checked_add(1)?;
        let mut base = first.base;
        while base <= last.base {
            let candidate = Subnet { base, ..first };
            let in_the_way = taken.iter().filter(|other| other.overlaps(candidate));
            match in_the_way.map(|other| other.base | (other.all() & !other.mask())).max() {
                None => return Some(candidate),
                // Behind the largest of them at once: a /8 has 65536 subnets of 24 bits.
                Some(end) => base = end.checked_add(1)?.checked_next_multiple_of(size)?,
            }
        }
        None
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        let common = self.mask() & other.mask();
        self.v6 == other.v6 && self.base & common == other.base & common
    }

    /// Whether all of `other` is in this one.
    pub fn holds(self, other: Subnet) -> bool {
        self.prefix <= other.prefix && self.contains(other.base())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_know_their_hosts() {
        let subnet = Subnet::parse("10.89.0.0/29").unwrap();
        assert_eq!(subnet.hosts(), 6);
        assert_eq!(subnet.host(0), ip("10.89.0.1"));
        assert_eq!(subnet.host(5), ip("10.89.0.6"));
        assert_eq!(subnet.host(6), subnet.host(0));
        assert_eq!(subnet.broadcast(), Some(Ipv4Addr::new(10, 89, 0, 7)));
        assert!(!subnet.is_host(ip("10.89.0.7")));
        assert!(!subnet.is_host(ip("10.89.0.0")));
        assert!(subnet.is_host(ip("10.89.0.3")));
        assert!(!subnet.is_host(ip("::ffff:10.89.0.3")));
        assert!(subnet.overlaps(Subnet::around(ip("10.0.0.0"), 8)));
        assert!(!subnet.overlaps(Subnet::around(ip("10.88.0.0"), 16)));
        assert!(subnet.overlaps(Subnet::around(ip("1.2.3.4"), 0)));
        for wrong in [
            "",
            "10.89.0.0",
            "10.89.0.1/16",
            "10.89.0.0/31",
            "10.89.0.0/7",
            "10.89.0.0/x",
            "10.89.0.0/64",
            "fd00::/127",
            "fd00::1/64",
            "::/0",
        ] {
            assert!(Subnet::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn subnets_of_ipv6_know_theirs() {
        let subnet = Subnet::parse("fd00:89::/64").unwrap();
        assert_eq!(subnet.to_string(), "fd00:89::/64");
        assert_eq!(subnet.hosts(), u128::from(u64::MAX));
        assert_eq!(subnet.host(0), ip("fd00:89::1"));
        assert_eq!(subnet.host(u128::from(u64::MAX) - 1), ip("fd00:89::ffff:ffff:ffff:ffff"));
        assert_eq!(subnet.host(u128::from(u64::MAX)), subnet.host(0));
        assert_eq!(subnet.broadcast(), None);
        assert!(!subnet.is_host(ip("fd00:89::")));
        assert!(subnet.is_host(ip("fd00:89::ffff:ffff:ffff:ffff")));
        assert!(!subnet.contains(ip("fd00:8a::1")));
        assert!(subnet.holds(Subnet::parse("fd00:89::8000:0:0:0/65").unwrap()));
        assert!(!Subnet::parse("fd00:89::/126").unwrap().holds(subnet));
        assert!(!subnet.overlaps(Subnet::around(ip("0.0.0.0"), 0)));
    }

    #[test]
    fn the_first_free_subnet_is_behind_what_is_in_the_way() {
        let subnet = |text: &str| Subnet::parse(text).unwrap();
        let (first, last) = (subnet("10.90.0.0/24"), subnet("10.255.255.0/24"));
        let free = |taken: &[&str]| {
            let taken: Vec<Subnet> = taken.iter().map(|text| subnet(text)).collect();
            Subnet::first_free(first, last, &taken).map(|free| free.to_string())
        };
        assert_eq!(free(&[]).unwrap(), "10.90.0.0/24");
        assert_eq!(free(&["10.90.0.8/30", "10.90.1.0/24", "fd00::/8"]).unwrap(), "10.90.2.0/24");
        assert_eq!(free(&["10.90.0.0/15", "10.92.0.0/16"]).unwrap(), "10.93.0.0/24");
        assert_eq!(free(&["10.0.0.0/8"]), None);
        let (first, last) = (subnet("192.168.0.0/24"), subnet("192.168.255.0/24"));
        assert_eq!(Subnet::first_free(first, last, &[subnet("192.168.0.0/16")]), None);
        let end = subnet("fd00::/64");
        let top = Subnet::around(ip("ffff:ffff:ffff:ffff::"), 64);
        assert_eq!(Subnet::first_free(top, top, &[top]), None);
        assert_eq!(Subnet::first_free(end, top, &[end]).unwrap().to_string(), "fd00:0:0:1::/64");
    }

    /// Against a search that looks at every one.
    #[test]
    fn the_first_free_subnet_is_the_first() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (first, last) = (Subnet::parse("10.90.0.0/24").unwrap(), Subnet::parse("10.90.63.0/24").unwrap());
        for _ in 0..2000 {
            let taken: Vec<Subnet> = (0..random(40))
                .map(|_| {
                    let prefix = 20 + random(11) as u8;
                    let [third, fourth] = [random(70) as u8, random(256) as u8];
                    Subnet::around(IpAddr::from([10, 90, third, fourth]), prefix)
                })
                .collect();
            let slow = (0..64)
                .map(|third| Subnet::around(IpAddr::from([10, 90, third, 0]), 24))
                .find(|candidate| !taken.iter().any(|other| other.overlaps(*candidate)));
            assert_eq!(Subnet::first_free(first, last, &taken), slow, "{taken:?}");
        }
    }
}
