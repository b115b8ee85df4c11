//! Other firewalls beside ours.
//!
//! A packet has to pass every chain at its hook, so that what our rules let through is still lost where another table
//! drops all it does not know: docker sets the policy of iptables' FORWARD to DROP if it finds forwarding switched off, ufw does
//! so always. Packets our rules let through carry a mark while they pass these chains, and one rule for that mark is added to
//! iptables' tables where it is needed: in docker's chain for such rules, which docker never empties, or else in
//! FORWARD. The mark is given to what our rules have judged, so that the rule opens nothing they keep shut.

use super::rules::nft;
use super::{Chain, Firewall, TABLE};
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

const FORWARD: &str = "FORWARD";
/// docker's chain for rules of others; it comes before docker's own.
const DOCKER_USER: &str = "DOCKER-USER";

/// Sees to it that other tables let pass what ours does. What the user should hear of.
pub fn open_ways(firewall: &Firewall, lock: &File) -> Result<Vec<String>> {
    let chains = firewall.chains().explain(|| "list firewall chains".into())?;
    let mut notes = Vec::new();
    for tables in &TABLES {
        if chains.iter().any(|chain| tables.is_forward(chain) && chain.drops_forwarded) {
            let known = |name: &str| chains.iter().any(|chain| tables.is_filter(chain) && chain.name == name);
            let chain = if known(DOCKER_USER) { DOCKER_USER } else { FORWARD };
            notes.extend(tables.open(&tables.programs, chain, Some(lock)));
        }
        if tables.has_legacy() && tables.legacy_drops() {
            let known = works(&tables.legacy, &["-n", "-L", DOCKER_USER]);
            let chain = if known { DOCKER_USER } else { FORWARD };
            notes.extend(tables.open(&tables.legacy, chain, None));
        }
    }
    notes.extend(chains.iter().filter(|chain| drops_ours(chain)).map(|chain| {
        format!(
            "firewall chain {} drops forwarded packets it does not know; for containers to reach other hosts: {}",
            full_name(chain),
            insertion(chain)
        )
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
        let drops = chains.iter().any(|chain| tables.is_forward(chain) && chain.drops_forwarded);
        let (programs, there) = if drops {
            (&tables.programs, true)
        } else {
            (&tables.legacy, tables.has_legacy() && tables.legacy_drops())
        };
        let passed = |chain: &&str| works(programs, &[&["-C", *chain][..], &rule()].concat());
        if there && ![DOCKER_USER, FORWARD].iter().any(passed) {
            obstacles.push(Obstacle {
                chain: format!("{} filter {FORWARD}", tables.name),
                remedy: "net-attach adds a rule for packets of containers when it makes a network ready; for networks \
                         that are: net-reload"
                    .into(),
            });
        }
    }
    obstacles.extend(chains.iter().filter(|chain| drops_ours(chain)).map(|chain| Obstacle {
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
        for chain in [DOCKER_USER, FORWARD] {
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
fn drops_ours(chain: &Chain) -> bool {
    chain.drops_forwarded && chain.table != TABLE && !TABLES.iter().any(|tables| tables.is_forward(chain))
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

    fn is_forward(&self, chain: &Chain) -> bool {
        self.is_filter(chain) && chain.name == FORWARD
    }

    /// Only then: the programs load the kernel's modules for the older tables.
    fn has_legacy(&self) -> bool {
        std::fs::read_to_string(self.legacy_names)
            .is_ok_and(|names| names.lines().any(|name| name == "filter"))
    }

    fn legacy_drops(&self) -> bool {
        let listed = run(&self.legacy, &["-S", FORWARD]);
        listed.is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("-P FORWARD DROP"))
    }

    /// The note about it, if something was done or could not be.
    fn open(&self, programs: &[&str], chain: &str, lock: Option<&File>) -> Option<String> {
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
        Some(if added {
            format!(
                "another firewall drops forwarded packets it does not know (chain FORWARD of table {family} filter); a rule \
                 for those that table {TABLE} lets pass was added to its chain {chain}"
            )
        } else {
            format!(
                "another firewall drops forwarded packets it does not know, and a rule could not be added; for containers \
                 to reach other hosts: {} -I {chain} {}",
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
        let chain = |family, table: &str, name: &str, drops_forwarded| Chain {
            family,
            table: table.into(),
            name: name.into(),
            drops_forwarded,
        };
        assert!(drops_ours(&chain(1, "filter", "forward", true)));
        assert!(!drops_ours(&chain(1, "filter", "forward", false)));
        assert!(!drops_ours(&chain(2, "filter", FORWARD, true)));
        assert!(!drops_ours(&chain(1, TABLE, "forward", true)));
        assert!(TABLES[1].is_forward(&chain(10, "filter", FORWARD, true)));
    }
}
