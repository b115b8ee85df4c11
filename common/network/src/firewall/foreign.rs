//! Other firewalls beside ours.
//!
//! A packet has to pass every chain at its hook, so that what our rules let through is still lost where another table
//! drops all it does not know: docker sets the policy of iptables' FORWARD to DROP if it finds forwarding switched off, ufw does
//! so always. Packets our rules let through carry a mark while they pass these chains, and one rule for that mark is added to
//! iptables' tables where it is needed: in docker's chain for such rules, which docker never empties, or else in
//! FORWARD, and in INPUT for questions to networks' resolvers. The mark is given to what our rules have judged, so that the rule opens nothing they keep shut.

use super::rules::nft;
use super::{Chain, Firewall, TABLE, firewalld};
use crate::definition::Definition;
use fault::{Explain, Result};
use std::fs::File;
use std::process::{Command, Output, Stdio};

/// Bit of a packet's mark. Above those that tailscale, kube-proxy, CNI plugins and weave use.
pub(super) const MARK: u32 = 0x0200_0000;

/// The tables of iptables and ip6tables.
struct Tables {
    /// Number and nft(8)'s name of the family.
    family: u8,
    name: &'static str,
    /// Programs that know the tables nftables holds, in the order to try.
    programs: [&'static str; 2],
    /// The same for the kernel's older tables.
    legacy: [&'static str; 2],
    /// Lists the older tables that are in use.
    legacy_names: &'static str,
}

const TABLES: [Tables; 2] = [
    Tables {
        family: 2,
        name: "ip",
        programs: ["iptables-nft", "iptables"],
        legacy: ["iptables-legacy", "iptables"],
        legacy_names: "/proc/self/net/ip_tables_names",
    },
    Tables {
        family: 10,
        name: "ip6",
        programs: ["ip6tables-nft", "ip6tables"],
        legacy: ["ip6tables-legacy", "ip6tables"],
        legacy_names: "/proc/self/net/ip6_tables_names",
    },
];

/// docker's chain for rules of others; it comes before docker's own.
const DOCKER_USER: &str = "DOCKER-USER";

/// Where packets of containers meet other firewalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Questions to a network's resolver.
    Input,
    Forward,
}

impl Hook {
    /// linux/netfilter.h
    pub(super) fn of(number: u32) -> Option<Hook> {
        match number {
            1 => Some(Hook::Input),
            2 => Some(Hook::Forward),
            _ => None,
        }
    }

    /// iptables' chain.
    fn chain(self) -> &'static str {
        match self {
            Hook::Input => "INPUT",
            Hook::Forward => "FORWARD",
        }
    }

    fn drops(self) -> &'static str {
        match self {
            Hook::Input => "drops incoming packets it does not know",
            Hook::Forward => "drops forwarded packets it does not know",
        }
    }

    /// What is lost.
    fn purpose(self) -> &'static str {
        match self {
            Hook::Input => "for containers to find each other by their names",
            Hook::Forward => "for containers to reach other hosts",
        }
    }
}

/// Sees to it that other tables let pass what ours does. What the user should hear of.
pub fn open_ways(firewall: &Firewall, network: &Definition, lock: &File) -> Result<Vec<String>> {
    let chains = firewall.chains().explain(|| "list firewall chains".into())?;
    let mut notes: Vec<String> = firewalld::trust(&chains, network);
    let names = network.dns.enabled;
    for tables in &TABLES {
        let of_family = if tables.family == 10 { network.has_ipv6() } else { network.has_ipv4() };
        for hook in [Hook::Forward, Hook::Input] {
            if hook == Hook::Input && !(names && of_family) {
                continue;
            }
            let known = |name: &str| chains.iter().any(|chain| tables.is_filter(chain) && chain.name == name);
            if tables.drops(&chains, hook) {
                let chain =
                    if hook == Hook::Forward && known(DOCKER_USER) { DOCKER_USER } else { hook.chain() };
                notes.extend(tables.open(&tables.programs, hook, chain, Some(lock)));
            }
            if tables.has_legacy() && refuses_the_rest(&tables.legacy, hook.chain()) {
                let known = hook == Hook::Forward && works(&tables.legacy, &["-n", "-L", DOCKER_USER]);
                let chain = if known { DOCKER_USER } else { hook.chain() };
                notes.extend(tables.open(&tables.legacy, hook, chain, None));
            }
        }
    }
    notes.extend(chains.iter().filter_map(|chain| {
        let hook = drops_ours(chain).filter(|hook| names || *hook == Hook::Forward)?;
        Some(format!(
            "firewall chain {} {}; {}: {}",
            full_name(chain),
            hook.drops(),
            hook.purpose(),
            insertion(chain)
        ))
    }));
    Ok(notes)
}

/// A chain of another firewall that drops what ours lets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Family, table and name, as nft(8) has them.
    pub chain: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is in the way now. Changes nothing.
pub fn obstacles() -> Result<Vec<Obstacle>> {
    let firewall = Firewall::open()?;
    let chains = firewall.chains().explain(|| "list firewall chains".into())?;
    let mut obstacles = Vec::new();
    for tables in &TABLES {
        for hook in [Hook::Forward, Hook::Input] {
            let (programs, there) = if tables.drops(&chains, hook) {
                (&tables.programs, true)
            } else {
                (&tables.legacy, tables.has_legacy() && refuses_the_rest(&tables.legacy, hook.chain()))
            };
            let passed = |chain: &&str| works(programs, &[&["-C", *chain][..], &rule()].concat());
            let ways = if hook == Hook::Forward { &[DOCKER_USER, "FORWARD"][..] } else { &["INPUT"] };
            if there && !ways.iter().any(passed) {
                obstacles.push(Obstacle {
                    chain: format!("{} filter {}", tables.name, hook.chain()),
                    remedy:
                        "net-attach adds a rule for packets of containers when it makes a network ready; for \
                             networks that are: net-reload"
                            .into(),
                });
            }
        }
    }
    obstacles.extend(chains.iter().filter(|chain| drops_ours(chain).is_some()).map(|chain| Obstacle {
        chain: full_name(chain),
        remedy: format!("if it has no such rule yet: {}", insertion(chain)),
    }));
    Ok(obstacles)
}

/// Of a chain, as nft(8) has it.
fn full_name(chain: &Chain) -> String {
    format!("{} {} {}", family_name(chain.family), chain.table, chain.name)
}

/// A command for the shell that has a chain accept what ours lets pass.
fn insertion(chain: &Chain) -> String {
    format!("nft insert rule {} meta mark \\& {MARK:#x} != 0 accept", full_name(chain))
}

/// Takes the rules of [`open_ways`] out again.
pub fn close_ways(firewall: &Firewall) -> Result<()> {
    let chains = firewall.chains().explain(|| "list firewall chains".into())?;
    for tables in &TABLES {
        for chain in [DOCKER_USER, "FORWARD", "INPUT"] {
            if chains.iter().any(|found| tables.is_filter(found) && found.name == chain) {
                close(&tables.programs, chain);
            }
            if tables.has_legacy() {
                close(&tables.legacy, chain);
            }
        }
    }
    Ok(())
}

/// A chain that is none of iptables' and drops what it does not know.
fn drops_ours(chain: &Chain) -> Option<Hook> {
    let of_iptables =
        || TABLES.iter().any(|tables| tables.is_at(chain, Hook::Forward) || tables.is_at(chain, Hook::Input));
    chain.hook.filter(|_| chain.drops && chain.table != TABLE && !of_iptables())
}

/// Whether iptables' chain drops what none of its rules accepts, by its policy or by its last rule.
fn refuses_the_rest(programs: &[&str], chain: &str) -> bool {
    run(programs, &["-S", chain])
        .is_some_and(|output| ends_in_refusal(&String::from_utf8_lossy(&output.stdout), chain))
}

fn ends_in_refusal(listed: &str, chain: &str) -> bool {
    let last = listed.lines().filter_map(|line| line.strip_prefix(&format!("-A {chain} "))).next_back();
    let is_refusal =
        |rule: &str| rule == "-j DROP" || rule == "-j REJECT" || rule.starts_with("-j REJECT --reject-with ");
    listed.lines().any(|line| line == format!("-P {chain} DROP")) || last.is_some_and(is_refusal)
}

/// linux/netfilter.h; other families forward nothing of ours.
fn family_name(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        7 => "bridge",
        5 => "netdev",
        _ => "arp",
    }
}

impl Tables {
    fn is_filter(&self, chain: &Chain) -> bool {
        chain.family == self.family && chain.table == "filter"
    }

    fn is_at(&self, chain: &Chain, hook: Hook) -> bool {
        self.is_filter(chain) && chain.name == hook.chain()
    }

    /// Whether packets of ours are lost there. The policy is known already; rules are asked for.
    fn drops(&self, chains: &[Chain], hook: Hook) -> bool {
        let there = chains.iter().find(|chain| self.is_at(chain, hook) && chain.hook == Some(hook));
        there.is_some_and(|chain| chain.drops || refuses_the_rest(&self.programs, hook.chain()))
    }

    /// Only then: the programs load the kernel's modules for the older tables.
    fn has_legacy(&self) -> bool {
        std::fs::read_to_string(self.legacy_names)
            .is_ok_and(|names| names.lines().any(|name| name == "filter"))
    }

    /// The note about it, if something was done or could not be.
    fn open(&self, programs: &[&str], hook: Hook, chain: &str, lock: Option<&File>) -> Option<String> {
        if works(programs, &[&["-C", chain][..], &rule()].concat()) {
            return None;
        }
        let family = self.name;
        let mut added = works(programs, &[&["-I", chain][..], &rule()].concat());
        if !added && lock.is_some() {
            // No iptables: the table is somebody's who uses nft(8).
            let (set, to) = (format!("meta mark & {MARK:#x} != 0"), format!("{family} filter {chain}"));
            added = nft(&format!("insert rule {to} {set} accept comment \"{TABLE}\"\n"), lock).is_ok();
        }
        let at = hook.chain();
        Some(if added {
            format!(
                "another firewall {} (chain {at} of table {family} filter); a rule for those that table {TABLE} lets pass was \
                 added to its chain {chain}",
                hook.drops()
            )
        } else {
            format!(
                "another firewall {}, and a rule could not be added; {}: {} -I {chain} {}",
                hook.drops(),
                hook.purpose(),
                programs.last().unwrap_or(&"iptables"),
                rule().join(" ")
            )
        })
    }
}

fn close(programs: &[&str], chain: &str) {
    // One is there, or more if two processes added it at the same time.
    for _ in 0..8 {
        if !works(programs, &[&["-D", chain][..], &rule()].concat()) {
            return;
        }
    }
}

/// The output of the first of the programs that is there; `None` without one.
fn run(programs: &[&str], arguments: &[&str]) -> Option<Output> {
    let places = programs.iter().flat_map(|name| [(*name).to_owned(), format!("/usr/sbin/{name}")]);
    let mut runs = places
        .map(|program| Command::new(program).args(["-w", "5"]).args(arguments).stdin(Stdio::null()).output());
    runs.find_map(std::result::Result::ok)
}

fn works(programs: &[&str], arguments: &[&str]) -> bool {
    run(programs, arguments).is_some_and(|output| output.status.success())
}

fn rule() -> [&'static str; 10] {
    // `MARK` as iptables writes it, so that -C and -D find it.
    ["-m", "mark", "--mark", "0x2000000/0x2000000", "-m", "comment", "--comment", TABLE, "-j", "ACCEPT"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_the_same_everywhere() {
        assert_eq!(rule()[3], format!("{MARK:#x}/{MARK:#x}"));
        assert_eq!(MARK.count_ones(), 1);
    }

    #[test]
    fn chains_of_others_are_told_apart() {
        let chain = |family, table: &str, name: &str, hook, drops| Chain {
            family,
            table: table.into(),
            name: name.into(),
            hook,
            drops,
        };
        let (input, forward) = (Some(Hook::Input), Some(Hook::Forward));
        assert_eq!(drops_ours(&chain(1, "filter", "forward", forward, true)), forward);
        assert_eq!(drops_ours(&chain(1, "filter", "input", input, true)), input);
        assert_eq!(drops_ours(&chain(1, "filter", "forward", forward, false)), None);
        assert_eq!(drops_ours(&chain(1, "filter", "output", None, true)), None);
        assert_eq!(drops_ours(&chain(2, "filter", "FORWARD", forward, true)), None);
        assert_eq!(drops_ours(&chain(2, "filter", "INPUT", input, true)), None);
        assert_eq!(drops_ours(&chain(1, TABLE, "forward", forward, true)), None);
        assert!(TABLES[1].is_at(&chain(10, "filter", "FORWARD", forward, true), Hook::Forward));
    }

    #[test]
    fn chains_that_refuse_what_they_do_not_know() {
        for yes in [
            "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n",
            "-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n",
            "-P INPUT ACCEPT\n-A INPUT -j DROP\n",
        ] {
            assert!(ends_in_refusal(yes, "INPUT"), "{yes}");
        }
        for no in [
            "",
            "-P INPUT ACCEPT\n",
            "-P INPUT ACCEPT\n-A INPUT -j DROP\n-A INPUT -i lo -j ACCEPT\n",
            "-P INPUT ACCEPT\n-A INPUT -s 192.0.2.0/24 -j DROP\n",
            "-P FORWARD DROP\n",
        ] {
            assert!(!ends_in_refusal(no, "INPUT"), "{no}");
        }
    }
}
