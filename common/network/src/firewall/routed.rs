//! Rules about routed networks, whose links are known by their group: in chains of their own, which stay empty where there is no such
//! network. They say of a group what the others say of a bridge.

use super::TABLE;
use super::foreign::MARK;
use super::rules::BRIDGES_OF_OTHERS;
use crate::create::DEVICE;
use crate::definition::Definition;
use crate::link::PREFIX;
use crate::routed;
use std::net::IpAddr;

/// All groups of ours.
pub(super) const ROUTED: &str = "routed";
/// Each group with itself.
const PAIRS: &str = "routed_pairs";
pub(super) const INTERNAL: &str = "routed_internal";
pub(super) const ISOLATED: &str = "routed_isolated";
const NAMED: &str = "routed_named";
const UNMASKED: &str = "routed_unmasked";
/// Addresses containers are seen by outside, where one was chosen.
const OUTBOUND: [&str; 2] = ["routed_outbound", "routed_outbound6"];
/// The host's address for each group, as which it sends to containers.
const GATEWAY: [&str; 2] = ["routed_gateway", "routed_gateway6"];
/// Each group with the host's addresses on it.
pub(super) const AT: [&str; 2] = ["routed_at", "routed_at6"];
const ADDRESS: [&str; 2] = ["ipv4_addr", "ipv6_addr"];

/// Maps in which a network's element changes with its definition.
pub(super) const CHANGING: [&str; 4] = [OUTBOUND[0], OUTBOUND[1], GATEWAY[0], GATEWAY[1]];

/// Chains, and where they are jumped to from.
pub(super) const CHAINS: [&str; 8] = [
    "routed_guard",
    "routed_prerouting",
    "routed_postrouting",
    "routed_forward",
    "routed_within",
    "routed_entering",
    "routed_nobody",
    "routed_input",
];

/// The sets a network can be in, with its key in each.
pub(super) fn memberships(network: &Definition) -> Vec<(&'static str, Vec<u8>)> {
    let Some(group) = routed::group(network) else { return Vec::new() };
    let key = group.to_ne_bytes();
    let sets = [ROUTED, INTERNAL, ISOLATED, NAMED, UNMASKED].into_iter().chain(CHANGING);
    let mut all: Vec<(&str, Vec<u8>)> = sets.map(|set| (set, key.to_vec())).collect();
    all.push((PAIRS, [key, key].concat()));
    all.extend(network.pools.iter().map(|pool| {
        let address = match pool.gateway {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        (AT[usize::from(pool.gateway.is_ipv6())], [&key[..], &address].concat())
    }));
    all
}

/// Sets and maps.
pub(super) fn sets() -> Vec<String> {
    let one = |kind: &str, name: &str, of: &str| format!("add {kind} inet {TABLE} {name} {{ type {of}; }}");
    let mut lines: Vec<String> =
        [ROUTED, INTERNAL, ISOLATED, NAMED, UNMASKED].map(|set| one("set", set, "devgroup")).into();
    lines.push(one("set", PAIRS, "devgroup . devgroup"));
    for (family, address) in ADDRESS.into_iter().enumerate() {
        lines.push(one("map", OUTBOUND[family], &format!("devgroup : {address}")));
        lines.push(one("map", GATEWAY[family], &format!("devgroup : {address}")));
        lines.push(one("set", AT[family], &format!("devgroup . {address}")));
    }
    lines
}

/// What the network is, as elements. What changes of it has been taken out before.
pub(super) fn elements(network: &Definition) -> Vec<String> {
    let Some(group) = routed::group(network) else { return Vec::new() };
    let mut lines = Vec::new();
    let mut put = |verb: &str, set: &str, element: String| {
        lines.push(format!("{verb} element inet {TABLE} {set} {{ {element} }}"));
    };
    for (set, element, is_one) in [
        (ROUTED, group.to_string(), true),
        (PAIRS, format!("{group} . {group}"), !network.no_icc),
        (INTERNAL, group.to_string(), network.internal),
        (ISOLATED, group.to_string(), network.isolate),
        (NAMED, group.to_string(), network.dns.enabled),
        (UNMASKED, group.to_string(), network.no_masquerade),
    ] {
        put("add", set, element.clone());
        if !is_one {
            put("delete", set, element);
        }
    }
    let family = |address: &IpAddr| usize::from(address.is_ipv6());
    for address in &network.outbound {
        put("add", OUTBOUND[family(address)], format!("{group} : {address}"));
    }
    for ipv6 in [false, true] {
        let mut gateways = network.pools.iter().map(|pool| pool.gateway).filter(|ip| ip.is_ipv6() == ipv6);
        if let Some(first) = gateways.clone().next() {
            put("add", GATEWAY[usize::from(ipv6)], format!("{group} : {first}"));
        }
        gateways
            .by_ref()
            .for_each(|gateway| put("add", AT[usize::from(ipv6)], format!("{group} . {gateway}")));
    }
    lines
}

/// Chains and what is in them, in order; where the others have a rule of the same kind, that tells why.
pub(super) fn rules() -> Vec<(&'static str, String)> {
    let mut rules: Vec<(&str, String)> = Vec::new();
    let mut add = |chain: &'static str, text: &str| rules.push((chain, text.to_owned()));
    add("routed_guard", "ip daddr 127.0.0.0/8 iifgroup @routed drop");
    add("routed_guard", "ip saddr 127.0.0.0/8 iifgroup @routed drop");
    // Each link is one container's: with another's address, or the host's, it begins something for somebody else. Asked once for each
    // connection; of each packet it would cost small ones a twelfth of their number.
    add("routed_prerouting", "iifgroup @routed fib saddr . iif oif missing drop");
    // From elsewhere nobody comes with addresses of containers, which firewalld trusts. By names: a
    // set of them cannot be asked for where the way back leads.
    for way_back in [PREFIX, DEVICE] {
        let elsewhere = "iifname != \"lo\" iifgroup != @routed iifname != @bridges";
        add("routed_prerouting", &format!("{elsewhere} fib saddr oifname \"{way_back}*\" drop"));
    }
    for (ip, at) in ["ip", "ip6"].into_iter().zip(AT) {
        let asks = format!("meta l4proto {{ tcp, udp }} th dport 53 iifgroup . {ip} daddr @{at}");
        add("routed_prerouting", &format!("{asks} accept"));
        // Containers see the host by its address on their network, as on a bridge.
        let to_routed = format!(
            "oifgroup @routed ct status dnat snat {ip} to oifgroup map @{}",
            GATEWAY[usize::from(ip == "ip6")]
        );
        let subnets = if ip == "ip" { "subnets" } else { "subnets6" };
        add("routed_postrouting", &format!("{ip} saddr @{subnets} {to_routed}"));
    }
    add(
        "routed_postrouting",
        "ip saddr 127.0.0.0/8 oifgroup @routed snat ip to oifgroup map @routed_gateway",
    );
    add("routed_postrouting", "oifgroup @routed accept");
    add("routed_postrouting", "iifgroup @routed_unmasked oifname != @bridges accept");
    add(
        "routed_postrouting",
        "ip saddr @subnets oifname != @bridges snat ip to iifgroup map @routed_outbound",
    );
    add(
        "routed_postrouting",
        "ip6 saddr @subnets6 oifname != @bridges snat ip6 to iifgroup map @routed_outbound6",
    );

    add("routed_forward", "iifgroup != @routed oifgroup != @routed return");
    add("routed_forward", "iifgroup @routed_internal goto routed_within");
    add("routed_forward", "oifgroup @routed_internal goto routed_within");
    add("routed_within", "iifgroup . oifgroup @routed_pairs goto passed");
    add("routed_within", "jump routed_nobody");
    add("routed_within", "drop");
    add("routed_forward", "ct state established,related goto passed");
    add("routed_forward", "oifgroup @routed goto routed_entering");
    add("routed_entering", "iifgroup . oifgroup @routed_pairs goto passed");
    add("routed_entering", "iifgroup @routed oifgroup @routed_isolated drop");
    add("routed_entering", "iifname @bridges oifgroup @routed_isolated drop");
    add("routed_entering", "ct status dnat goto passed");
    add("routed_entering", "drop");
    // To bridges of ours: what is published there.
    add("routed_forward", "oifname @isolated drop");
    add("routed_forward", "oifname @bridges ct status dnat goto passed");
    add("routed_forward", "jump routed_nobody");
    // Addresses of the network that no container has are its device's: who asks for one that has gone hears of it, as on a bridge,
    // instead of waiting. What is on bridges cannot be told from that.
    add("routed_nobody", "iifgroup @routed oifname @bridges reject with icmpx type host-unreachable");
    for name in BRIDGES_OF_OTHERS {
        add("routed_forward", &format!("oifname \"{name}\" return"));
    }
    add("routed_forward", "goto passed");

    for (ip, at) in ["ip", "ip6"].into_iter().zip(AT) {
        for protocol in ["udp", "tcp"] {
            let asks = format!("{protocol} dport 53 iifgroup @routed_named iifgroup . {ip} daddr @{at}");
            add("routed_input", &format!("{asks} meta mark set meta mark | {MARK:#x} accept"));
        }
        add("routed_input", &format!("iifgroup @routed_internal iifgroup . {ip} daddr != @{at} drop"));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::super::rules::rules as all_rules;
    use super::*;

    #[test]
    fn each_chain_is_there_and_led_to() {
        let own = rules();
        assert!(own.iter().all(|(chain, _)| CHAINS.contains(chain)));
        for chain in CHAINS {
            assert!(own.iter().any(|(other, _)| *other == chain), "{chain} is empty");
            let leads = |rule: &str| rule.ends_with(&format!(" {chain}")) || rule == format!("jump {chain}");
            let led_to = own.iter().chain(&all_rules()).any(|(_, rule)| leads(rule));
            assert!(led_to, "nothing leads to {chain}");
        }
    }

    #[test]
    fn what_nothing_may_pass_comes_first() {
        let own = rules();
        let at = |chain: &str, part: &str| {
            let found = own.iter().position(|(other, rule)| *other == chain && rule.contains(part));
            found.unwrap_or_else(|| panic!("no {part} in {chain}"))
        };
        for side in ["iifgroup @routed_internal", "oifgroup @routed_internal"] {
            assert!(at("routed_forward", side) < at("routed_forward", "ct state established"));
        }
        assert!(at("routed_forward", "oifname @isolated drop") < at("routed_forward", "ct status dnat"));
        assert!(at("routed_forward", "jump routed_nobody") < at("routed_forward", "oifname \"docker*\""));
        assert!(at("routed_entering", "oifgroup @routed_isolated") < at("routed_entering", "ct status dnat"));
        assert_eq!(own.iter().rev().find(|(chain, _)| *chain == "routed_entering").unwrap().1, "drop");
        // Who sends is looked at before what is let pass.
        assert!(at("routed_prerouting", "fib saddr . iif") < at("routed_prerouting", "th dport 53"));
    }
}
