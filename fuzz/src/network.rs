//! Published ports, a network's definition, and leases.
//!
//! Input: a JSON object for `network.json`, a lease and a port of a record; or lines of text.

use super::scratch::Scratch;
use network::{Definition, HostPort, Subnet, Wish};
use record::{Attachment, PortWish};
use std::net::{IpAddr, Ipv4Addr};
use store::Store;

pub fn check(data: &[u8]) {
    if data.first() == Some(&b'{') {
        if let Ok(wish) = serde_json::from_slice(data) {
            port(&wish);
        }
        files(data);
        return;
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        port(&PortWish::Text(line.to_owned()));
        subnet(line);
    }
}

/// The two readers of `-p`: what both take means the same to both.
fn port(text: &PortWish) {
    let (ours, theirs) = (Wish::from_record(text), oci::wishes::port(text));
    for fault in [ours.as_ref().err(), theirs.as_ref().err()].into_iter().flatten() {
        assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
    }
    if let Ok(wish) = ours {
        let host = if let HostPort::At(host) = wish.host { host } else { 1024 };
        assert!(wish.count > 0 && u32::from(wish.container) + u32::from(wish.count) <= 65536, "{wish:?}");
        if let HostPort::At(host) = wish.host {
            assert!(u32::from(host) + u32::from(wish.count) <= 65536, "{wish:?}");
        }
        let made = wish.at(host);
        let within = !matches!(wish.host, HostPort::Within(first, last) if !(first..=last).contains(&host));
        assert_eq!(wish.is_met_by(&made), within, "{wish:?}");
        assert!(wish.meets(host, &made));
        if let Ok(port) = theirs {
            assert_eq!((port.container, port.count.unwrap_or(1)), (wish.container, wish.count));
            assert_eq!(port.protocol, wish.protocol.name());
            let host = match (port.host, port.host_last) {
                (None, _) => HostPort::Any,
                (Some(host), None) => HostPort::At(host),
                (Some(first), Some(last)) => HostPort::Within(first, last),
            };
            assert_eq!(host, wish.host);
        }
    }
}

fn subnet(text: &str) {
    if let Ok(subnet) = Subnet::parse(text) {
        assert_eq!(Subnet::parse(&subnet.to_string()).expect("its own spelling"), subnet);
        for number in [0, 1, subnet.hosts() - 1, u128::MAX] {
            assert!(subnet.is_host(subnet.host(number)));
        }
        assert!(!subnet.is_host(subnet.base()));
        assert!(subnet.broadcast().is_none_or(|last| !subnet.is_host(last.into())));
    }
}

fn files(data: &[u8]) {
    let scratch = Scratch::new("network");
    let store = Store::at(scratch.path().join("root"), scratch.path().join("run"));
    let dir = store.network_dir(network::DEFAULT);
    std::fs::create_dir_all(dir.join("leases")).expect("make directories");
    std::fs::write(dir.join("network.json"), data).expect("write a file");
    if let Ok(network) = Definition::load(&store, network::DEFAULT) {
        assert!(network.pools.iter().all(|pool| pool.subnet.is_host(pool.gateway)));
        assert!(network.device.len() < 16 && !network.device.contains('/'));
        assert!(network.driver != network::Driver::Bridge || !network.device.is_empty());
    }
    let address = IpAddr::V4(Ipv4Addr::new(10, 89, 0, 2));
    std::fs::write(dir.join("leases/10.89.0.2"), data).expect("write a file");
    let leases = store.leases(network::DEFAULT).expect("a valid name");
    let lease = leases.read(address).expect("it can be read").expect("it is there");
    let _ = (store.is_looked_after(&lease.container), store.claim_remains(&lease.container));
    if let Ok(attachment) = serde_json::from_slice::<Attachment>(data) {
        let _ = store::release_all(&store, &"a".repeat(64), &[attachment]);
    }
}
