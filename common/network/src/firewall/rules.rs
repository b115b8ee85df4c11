//! The rules: the same however many networks, containers and ports there are; these are elements of sets and maps.

use super::element::{V4, V6};
use super::foreign::MARK;
use super::{Known, TABLE, routed};
use crate::definition::{Definition, Driver};
use crate::netlink::text;
use fault::{Explain, Fault, Result};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

/// All bridges of ours.
pub(super) const BRIDGES: &str = "bridges";
/// Each bridge with itself: what br_netfilter shows us of traffic between ports of one bridge.
const PAIRS: &str = "pairs";
/// Bridges nothing leaves and nothing comes in to.
pub(super) const INTERNAL: &str = "internal";
/// Bridges whose published ports other networks do not reach.
pub(super) const ISOLATED: &str = "isolated";
/// Bridges with a resolver.
const NAMED: &str = "named";
/// Bridges whose containers are seen outside as they are.
const UNMASKED: &str = "unmasked";
/// Addresses that bridges' containers are seen by outside, where one was chosen; the second of IPv6.
pub(super) const OUTBOUND: [&str; 2] = ["outbound", "outbound6"];
/// Subnets of ours; the second of IPv6.
const SUBNETS: [&str; 2] = ["subnets", "subnets6"];
/// The chain that is left to the administrator: made, jumped to before all else, and never written to.
pub(super) const USER: &str = "user";

/// Chains about internal networks: of what is forwarded, and of what comes in.
const INNER: [&str; 2] = ["inner", "inner_input"];

/// IFNAMSIZ (linux/if.h).
const NAME_LENGTH: usize = 16;

/// Bridges of other engines by their names. What their rules let in is for them to say: a packet with our mark would
/// get past them.
pub(super) const BRIDGES_OF_OTHERS: [&str; 8] =
    ["docker*", "br-*", "podman*", "cni*", "virbr*", "lxcbr*", "lxdbr*", "incusbr*"];

/// Makes the table, or brings the rules of one that is there up to date without touching its elements.
///
/// `lock` guards the network; nft(8) holds it too, so that one whose caller was killed is waited for.
pub fn make_table(network: &Definition, known: Known, lock: &File) -> Result<()> {
    nft(&script(network, known), Some(lock))
        .map_err(|fault| fault.within(format!("make firewall table {TABLE}")))
}

/// The sets a network can be in, with its key in each.
pub(super) fn memberships(network: &Definition) -> Vec<(&'static str, Vec<u8>)> {
    let mut name = network.device.as_bytes().to_vec();
    name.resize(NAME_LENGTH, 0);
    let pair = [&name[..], &name[..]].concat();
    let by_name = [
        (BRIDGES, name.clone()),
        (PAIRS, pair),
        (INTERNAL, name.clone()),
        (ISOLATED, name.clone()),
        (NAMED, name.clone()),
        (UNMASKED, name.clone()),
        (OUTBOUND[0], name.clone()),
        (OUTBOUND[1], name),
    ];
    by_name.into_iter().chain(routed::memberships(network)).collect()
}

/// The rules, and which of them a network is concerned by.
fn script(network: &Definition, known: Known) -> String {
    // Chains are taken away first, all in one transaction: one of an earlier version may have another priority.
    let base = [
        ("guard", "filter hook prerouting priority -300"),
        ("prerouting", "nat hook prerouting priority -100"),
        ("output", "nat hook output priority -100"),
        ("postrouting", "nat hook postrouting priority 100"),
        ("input", "filter hook input priority -5"),
        ("forward", "filter hook forward priority -5"),
        ("forwarded", "filter hook forward priority 200"),
    ];
    let mut lines = vec![format!("add table inet {TABLE}"), format!("add chain inet {TABLE} {USER}")];
    for (chain, hook) in base {
        lines.extend(["add", "flush", "delete"].map(|verb| format!("{verb} chain inet {TABLE} {chain}")));
        lines.push(format!("add chain inet {TABLE} {chain} {{ type {hook}; }}"));
    }
    for chain in ["publish", "out", "out6", "entering", "leaving", "within", "passed"] {
        lines.extend(["add", "flush"].map(|verb| format!("{verb} chain inet {TABLE} {chain}")));
    }
    // What these ask of each packet is asked where there is such a network. Nobody empties them: another one may be being made.
    let internal = network.internal || known.internal_ones;
    let is_routed = known.routed_ones || network.driver == Driver::Routed;
    let asked = |chain: &str| {
        (internal || !INNER.contains(&chain)) && (is_routed || !routed::CHAINS.contains(&chain))
    };
    for chain in INNER.into_iter().chain(routed::CHAINS) {
        lines.push(format!("add chain inet {TABLE} {chain}"));
        if asked(chain) {
            lines.push(format!("flush chain inet {TABLE} {chain}"));
        }
    }
    if is_routed {
        lines.extend(routed::sets());
    }
    for set in [BRIDGES, INTERNAL, ISOLATED, NAMED, UNMASKED] {
        lines.push(format!("add set inet {TABLE} {set} {{ type ifname; }}"));
    }
    lines.push(format!("add set inet {TABLE} {PAIRS} {{ type ifname . ifname; }}"));
    for (map, address) in OUTBOUND.into_iter().zip(["ipv4_addr", "ipv6_addr"]) {
        lines.push(format!("add map inet {TABLE} {map} {{ type ifname : {address}; }}"));
    }
    for ((maps, address), subnets) in [(V4, "ipv4_addr"), (V6, "ipv6_addr")].into_iter().zip(SUBNETS) {
        lines.push(format!(
            "add set inet {TABLE} {subnets} {{ type {address}; flags interval; auto-merge; }}"
        ));
        let at = format!("{address} . inet_proto . inet_service");
        for (map, kind) in [
            (maps.ports, format!("inet_proto . inet_service : {address} . inet_service;")),
            (maps.ports_at, format!("{at} : {address} . inet_service;")),
            (maps.ranges, format!("{at} : {address}; flags interval;")),
        ] {
            lines.push(format!("add map inet {TABLE} {map} {{ type {kind} }}"));
        }
    }
    lines.extend(
        rules()
            .into_iter()
            .chain(routed::rules())
            .filter(|(chain, _)| asked(chain))
            .map(|(chain, rule)| format!("add rule inet {TABLE} {chain} {rule}")),
    );
    lines.extend(subnets(network, "add"));
    let device = format!("\"{}\"", network.device);
    let pair = format!("{device} . {device}");
    for (set, element, is_one) in [
        (BRIDGES, &device, true),
        // Neighbours who are not to meet by the bridge do not by the host either.
        (PAIRS, &pair, !network.no_icc),
        (INTERNAL, &device, network.internal),
        (ISOLATED, &device, network.isolate),
        (NAMED, &device, network.dns.enabled),
        (UNMASKED, &device, network.no_masquerade),
    ] {
        // Only what is there can be deleted.
        let verbs = if is_one { &["add"][..] } else { &["add", "delete"] };
        lines.extend(verbs.iter().map(|verb| format!("{verb} element inet {TABLE} {set} {{ {element} }}")));
    }
    // What was there before has been taken out.
    for address in &network.outbound {
        let map = OUTBOUND[usize::from(address.is_ipv6())];
        lines.push(format!("add element inet {TABLE} {map} {{ {device} : {address} }}"));
    }
    lines.extend(routed::elements(network));
    lines.join("\n") + "\n"
}

/// A line for each of the network's subnets.
fn subnets(network: &Definition, verb: &str) -> Vec<String> {
    let line = |subnet: crate::Subnet| {
        let set = SUBNETS[usize::from(subnet.is_ipv6())];
        format!("{verb} element inet {TABLE} {set} {{ {subnet} }}")
    };
    network.pools.iter().map(|pool| line(pool.subnet)).collect()
}

/// Takes a network's subnets out. Those that an older nft(8) has merged with others, and cannot part from them, stay: if they are
/// ever somebody else's, containers do not see who asks from there.
pub(super) fn forget_subnets(network: &Definition) {
    for line in subnets(network, "delete") {
        let _ = nft(&format!("{line}\n"), None);
    }
}

/// Chains and what is in them, in order.
///
/// Every packet of the machine comes by, so that what is asked first costs least: a set of names is ten times a comparison with
/// what the packet or its connection says.
pub(super) fn rules() -> Vec<(&'static str, String)> {
    // Loopback addresses of ours are nobody else's, neither as destination nor as source: route_localnet, which lets us reach
    // published ports from them, would let containers use them.
    let mut rules = vec![
        ("guard", "jump routed_guard".to_owned()),
        ("guard", "ip daddr 127.0.0.0/8 iifname @bridges drop".to_owned()),
        ("guard", "ip saddr 127.0.0.0/8 iifname @bridges drop".to_owned()),
        ("prerouting", "jump routed_prerouting".to_owned()),
        // Before routing, that is before the kernel drops what comes from elsewhere to a loopback address.
        ("prerouting", "ip daddr 127.0.0.0/8 return".to_owned()),
        // A container's questions to its network's resolver are that one's, whatever port 53 is published for.
        (
            "prerouting",
            "iifname @bridges meta l4proto { tcp, udp } th dport 53 fib daddr . iif type local return"
                .to_owned(),
        ),
        ("prerouting", "fib daddr type local jump publish".to_owned()),
        // What came back to ::1 would not be taken for ours; refused at once, clients go on to 127.0.0.1.
        ("output", "ip6 daddr ::1 return".to_owned()),
        ("output", "fib daddr type local jump publish".to_owned()),
    ];
    for (maps, family) in [(V4, "ip"), (V6, "ip6")] {
        let port = "meta l4proto . th dport map";
        for (key, map) in [("", maps.ports), ("daddr", maps.ports_at), ("daddr", maps.ranges)] {
            let key = if key.is_empty() { String::new() } else { format!("{family} {key} . ") };
            let to = format!("dnat {family} to {key}{port} @{map}");
            rules.push(("publish", format!("meta l4proto {{ tcp, udp, sctp }} {to}")));
        }
    }
    for (chain, rule) in [
        // A container that reaches itself, or a neighbour, through a published port would answer past us. With br_netfilter the
        // packet may never leave the bridge and has no interface it came from here.
        ("postrouting", "ip saddr @subnets oifname @bridges ct status dnat masquerade"),
        ("postrouting", "ip6 saddr @subnets6 oifname @bridges ct status dnat masquerade"),
        ("postrouting", "ip saddr 127.0.0.0/8 oifname @bridges masquerade"),
        // What the host sends to itself keeps its address.
        ("postrouting", "oifname \"lo\" return"),
        ("postrouting", "jump routed_postrouting"),
        ("postrouting", "ip saddr @subnets oifname != @bridges goto out"),
        ("postrouting", "ip6 saddr @subnets6 oifname != @bridges goto out6"),
        ("out", "iifname @unmasked return"),
        ("out", "snat ip to iifname map @outbound"),
        ("out", "masquerade"),
        ("out6", "iifname @unmasked return"),
        ("out6", "snat ip6 to iifname map @outbound6"),
        // Addresses anybody can have (RFC 4193); others are the containers' own everywhere.
        ("out6", "ip6 saddr fc00::/7 masquerade"),
        ("forward", "jump user"),
        ("forward", "jump inner"),
        // Before what is established: anybody can send with the addresses of somebody else's connection.
        ("inner", "iifname @internal goto within"),
        ("inner", "oifname @internal goto within"),
        ("within", "iifname . oifname @pairs goto passed"),
        ("within", "jump routed_nobody"),
        ("within", "drop"),
        ("forward", "jump routed_forward"),
        ("forward", "oifname @bridges goto entering"),
        ("forward", "iifname @bridges goto leaving"),
        // What a network may no longer have is forgotten when it changes, see conntrack.
        ("entering", "ct state established,related goto passed"),
        ("entering", "iifname . oifname @pairs goto passed"),
        ("entering", "iifname @bridges oifname @isolated drop"),
        ("entering", "ct status dnat goto passed"),
        // From other networks and, to addresses of containers, from outside.
        ("entering", "drop"),
        ("leaving", "ct state established,related goto passed"),
    ] {
        rules.push((chain, rule.to_owned()));
    }
    for name in BRIDGES_OF_OTHERS {
        rules.push(("leaving", format!("oifname \"{name}\" return")));
    }
    rules.push(("leaving", "goto passed".into()));
    // For other tables, see foreign.rs; gone again before the packet leaves the hook.
    rules.push(("passed", format!("meta mark set meta mark | {MARK:#x} accept")));
    for protocol in ["udp", "tcp"] {
        rules.push((
            "input",
            format!(
                "{protocol} dport 53 iifname @named fib daddr . iif type local meta mark set meta mark | {MARK:#x} accept"
            ),
        ));
    }
    rules.push(("input", "jump routed_input".to_owned()));
    rules.push(("input", "jump inner_input".to_owned()));
    // Of the host's addresses an internal network has that of its bridge.
    rules.push((
        "inner_input",
        "iifname @internal fib daddr . iif type != { local, broadcast, anycast, multicast } drop".to_owned(),
    ));
    rules.push(("forwarded", format!("meta mark & {MARK:#x} != 0 meta mark set meta mark & {:#x}", !MARK)));
    rules
}

/// Runs nft(8), with a lock it is to hold as long as it runs.
pub(super) fn nft(script: &str, lock: Option<&File>) -> Result<()> {
    let held = || lock.map_or_else(|| Ok(Stdio::null()), |lock| lock.try_clone().map(Stdio::from));
    let run = |program: &str| {
        Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(held()?)
            .stderr(Stdio::piped())
            .spawn()
    };
    // An ordinary PATH lacks the directory it lives in on some systems.
    let mut child = run("nft").or_else(|_| run("/usr/sbin/nft")).map_err(|error| {
        Fault::failed("run nft")
            .because(error)
            .hint("install nftables: containers reach other networks through it")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ended early, its own words tell more than the broken pipe.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().explain(|| "run nft".into())?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::failed(format!("nft: {}", text(words.lines().next().unwrap_or("failed").as_bytes()))))
}
