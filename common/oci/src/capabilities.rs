//! Capabilities (capabilities(7)): their names, docker's default set, `--cap-add` and `--cap-drop`.

use fault::{Fault, Result};
use oci_spec::runtime::{Capabilities, Capability};

/// Every capability by its number in `linux/capability.h`, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What docker gives a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, as the kernel keeps it: bit *n* is capability number *n*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapSet(pub u64);

impl CapSet {
    pub const EMPTY: CapSet = CapSet(0);
    /// Every capability this version knows.
    pub const ALL: CapSet = CapSet((1 << NAMES.len()) - 1);

    /// docker's default set.
    pub fn default_of_containers() -> CapSet {
        let number = |name: &&str| NAMES.iter().position(|known| known == name);
        CapSet(DEFAULT.iter().filter_map(number).fold(0, |bits, number| bits | 1 << number))
    }

    /// The line `CapEff:` of `/proc/self/status` holds this in hexadecimal.
    pub fn from_hex(text: &str) -> Option<CapSet> {
        u64::from_str_radix(text.trim(), 16).ok().map(CapSet)
    }

    #[must_use]
    pub fn union(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }

    #[must_use]
    pub fn intersection(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }

    #[must_use]
    pub fn without(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds the capability of this name, with or without `CAP_`.
    pub fn has(self, name: &str) -> bool {
        number_of(name).is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// Names with `CAP_`, by number.
    pub fn names(self) -> impl Iterator<Item = String> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(number, _)| self.0 & (1 << number) != 0)
            .map(|(_, name)| format!("CAP_{name}"))
    }

    /// As the runtime specification's type has it.
    pub fn to_spec(self) -> Capabilities {
        self.names().filter_map(|name| spec_capability(name.trim_start_matches("CAP_"))).collect()
    }
}

fn spec_capability(name: &str) -> Option<Capability> {
    name.parse().ok()
}

fn number_of(name: &str) -> Option<usize> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare)
}

/// `--cap-add` and `--cap-drop` as sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapWish {
    pub add: CapSet,
    pub add_all: bool,
    pub drop: CapSet,
    pub drop_all: bool,
}

impl CapWish {
    /// Names are taken with or without `CAP_`, in any case; `ALL` means every one.
    ///
    /// Fails on a name no capability has.
    pub fn parse(add: &[String], drop: &[String]) -> Result<CapWish> {
        let (add, add_all) = parse_list(add)?;
        let (drop, drop_all) = parse_list(drop)?;
        Ok(CapWish { add, add_all, drop, drop_all })
    }

    /// What docker makes of the two lists: adding ALL beats dropping ALL, single names are dropped before others are
    /// added. The result is not yet limited to what the machine has.
    pub fn apply(self, base: CapSet) -> CapSet {
        if self.add_all {
            CapSet::ALL.without(self.drop)
        } else if self.drop_all {
            self.add
        } else {
            base.without(self.drop).union(self.add)
        }
    }
}

fn parse_list(names: &[String]) -> Result<(CapSet, bool)> {
    let (mut set, mut all) = (CapSet::EMPTY, false);
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
            continue;
        }
        let number = number_of(name).ok_or_else(|| {
            Fault::input(format!("unknown capability \"{name}\""))
                .hint("names as in capabilities(7): NET_ADMIN, CAP_SYS_PTRACE, ALL")
        })?;
        set.0 |= 1 << number;
    }
    Ok((set, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(add: &[&str], drop: &[&str]) -> CapSet {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        CapWish::parse(&own(add), &own(drop)).unwrap().apply(CapSet::default_of_containers())
    }

    #[test]
    fn docker_default_set_is_the_known_mask() {
        // The mask docker containers show in /proc/self/status.
        assert_eq!(CapSet::default_of_containers().0, 0xa804_25fb);
        assert_eq!(CapSet::ALL.0, 0x1ff_ffff_ffff);
    }

    #[test]
    fn every_name_is_one_the_specification_has() {
        assert_eq!(CapSet::ALL.to_spec().len(), NAMES.len());
    }

    #[test]
    fn lists_are_applied_as_docker_does() {
        let base = CapSet::default_of_containers();
        for (add, drop, has, lacks) in [
            (vec!["net_admin"], vec![], "CAP_NET_ADMIN", "SYS_ADMIN"),
            (vec!["CAP_Net_Admin"], vec!["ALL"], "NET_ADMIN", "CHOWN"),
            (vec!["ALL"], vec!["sys_admin"], "SYS_MODULE", "SYS_ADMIN"),
            (vec!["all"], vec!["ALL"], "SYS_MODULE", "NOT_THERE"),
            (vec!["CHOWN"], vec!["CHOWN", "KILL"], "CHOWN", "KILL"),
        ] {
            let set = wish(&add, &drop);
            assert!(
                set.has(has) && !set.has(lacks),
                "{add:?} {drop:?} -> {:?}",
                set.names().collect::<Vec<_>>()
            );
        }
        assert_eq!(wish(&[], &[]), base);
        assert!(CapWish::parse(&["NONSENSE".into()], &[]).is_err());
        assert!(CapWish::parse(&[], &["CAP_ALL".into()]).is_err());
    }
}
