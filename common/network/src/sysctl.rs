//! Kernel parameters interfaces need (ip-sysctl.rst of the kernel's documentation).

use crate::definition::{Definition, Driver};
use fault::{Explain, Fault, Result};
use record::Config;
use std::io::Write;
use std::path::{Path, PathBuf};

const CONF_IPV6: &str = "net/ipv6/conf";

/// A parameter and what it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    path: String,
    pub value: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of the bridge alone.
    Ours,
    /// Of IPv6, which the kernel may have been started without.
    OursOfIpv6,
    /// Of the machine, so that the user hears of it.
    Machine,
    /// Of the machine, and its interfaces go on taking routers' advertisements.
    MachineForwardsIpv6,
}

/// In the order in which they are set, once the bridge is there and before it is up.
pub fn of(network: &Definition) -> Vec<Sysctl> {
    let device = &network.device;
    let one = |path: String, value, kind| Sysctl { path, value, kind };
    let of_bridge = |family: &str, name: &str| format!("net/{family}/conf/{device}/{name}");
    let mut list = vec![
        // A container could make itself the host's router (CVE-2020-13401).
        one(of_bridge("ipv6", "accept_ra"), "0", Kind::OursOfIpv6),
        // Leases see to it that addresses are nobody else's, and until the kernel has made sure they cannot be used.
        one(of_bridge("ipv6", "accept_dad"), "0", Kind::OursOfIpv6),
    ];
    if network.has_ipv6() {
        // Machines that have it switched off for new interfaces.
        list.push(one(of_bridge("ipv6", "disable_ipv6"), "0", Kind::Ours));
    }
    // By the host's forwarding alone neighbours without a bridge reach each other.
    if network.internal && network.driver != Driver::Routed {
        return list;
    }
    if network.has_ipv4() {
        if network.driver == Driver::Bridge {
            // Connections from the host's loopback address leave by the bridge to reach published ports.
            list.push(one(of_bridge("ipv4", "route_localnet"), "1", Kind::Ours));
        }
        list.push(one("net/ipv4/ip_forward".into(), "1", Kind::Machine));
    }
    if network.has_ipv6() {
        list.push(one(format!("{CONF_IPV6}/all/forwarding"), "1", Kind::MachineForwardsIpv6));
    }
    list
}

impl Sysctl {
    /// As sysctl(8) has it.
    pub fn name(&self) -> String {
        self.path.replace('/', ".")
    }

    pub fn is_to_set(&self) -> bool {
        let absent = self.kind == Kind::OursOfIpv6 && !Path::new("/proc/sys/net/ipv6").exists();
        !absent && !is(&self.file(), self.value)
    }

    fn file(&self) -> PathBuf {
        Path::new("/proc/sys").join(&self.path)
    }

    /// Sets it, unless it is so; what the user should hear of.
    pub fn set(&self) -> Result<Vec<String>> {
        if !self.is_to_set() {
            return Ok(Vec::new());
        }
        let mut notes = Vec::new();
        if self.kind == Kind::MachineForwardsIpv6 {
            notes.extend(keep_advertisements()?);
        }
        write(&self.file(), self.value)?;
        if matches!(self.kind, Kind::Machine | Kind::MachineForwardsIpv6) {
            notes.push(format!("{} was off and is on now", self.name()));
        }
        Ok(notes)
    }
}

/// How much of IPv6 a container's interface on a bridge has, in the namespace this thread is in. Without IPv6 on the machine, or
/// where `/proc/sys` cannot be written, the kernel's own stays.
///
/// Neighbours are containers: none of them is to make itself another's router (CVE-2020-10749). Where there is no address of IPv6
/// there is none of it at all, as docker has it: what every interface tells all others of itself is what grows most with their number.
pub fn set_ipv6(interface: &str, has_ipv6: bool) {
    let dir = Path::new("/proc/sys").join(CONF_IPV6).join(interface);
    let set = |parameter: &str, value: &str| {
        if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(dir.join(parameter)) {
            let _ = file.write_all(value.as_bytes());
        }
    };
    if !has_ipv6 {
        return set("disable_ipv6", "1");
    }
    switch_ipv6_on(interface);
    set("accept_ra", "0");
}

/// Where new interfaces have no IPv6 (net.ipv6.conf.default.disable_ipv6), this one has, in the namespace this thread is in.
pub fn switch_ipv6_on(interface: &str) {
    let file = Path::new("/proc/sys").join(CONF_IPV6).join(interface).join("disable_ipv6");
    if is(&file, "1") {
        let _ = std::fs::write(&file, "0");
    }
}

/// Of an interface of the host's at whose other end a container is: who is there must not make itself the host's router (CVE-2020-13401).
/// Where the network has no IPv6 the interface has none. The error is the kernel's.
pub fn close_to_routers(interface: &str, has_ipv6: bool) -> std::io::Result<()> {
    let dir = Path::new("/proc/sys").join(CONF_IPV6).join(interface);
    let set = |parameter: &str, value: &str| {
        let file = dir.join(parameter);
        let opened = std::fs::OpenOptions::new().write(true).open(&file);
        match opened.and_then(|mut open| open.write_all(value.as_bytes())) {
            // A machine, or a link with too small packets, without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) if !is(&file, value) => {
                let what = format!("set net.ipv6.conf.{interface}.{parameter} to {value}: {error}");
                Err(std::io::Error::new(error.kind(), what))
            }
            _ => Ok(()),
        }
    };
    // Also where it has no IPv6: `all.disable_ipv6` set to 0 gives it to every interface.
    set("accept_ra", "0")?;
    match has_ipv6 {
        false => set("disable_ipv6", "1"),
        true if is(&dir.join("disable_ipv6"), "1") => set("disable_ipv6", "0"),
        true => Ok(()),
    }
}

/// Connections from the host's loopback address may leave by this interface to reach published ports, and their answers come back.
pub fn let_loopback_by(interface: &str) -> Result<()> {
    let file = Path::new("/proc/sys/net/ipv4/conf").join(interface).join("route_localnet");
    if is(&file, "1") { Ok(()) } else { write(&file, "1") }
}

/// Whether the container's kernel parameters say that it has IPv6, or that it has none. As with docker, `default` says nothing: it
/// is for interfaces the container makes itself.
pub fn wished_ipv6(config: &Config) -> Option<bool> {
    let named = |name: &String| name.replace('/', ".") == "net.ipv6.conf.all.disable_ipv6";
    let (_, value) = config.sysctls.iter().find(|(name, _)| named(name))?;
    value.trim().parse().ok().map(|value: i64| value == 0)
}

/// docker's option for one attachment.
pub const OF_ENDPOINT: &str = "com.docker.network.endpoint.sysctls";

/// A parameter of a container's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfInterface {
    /// Below `/proc/sys`; the interface's name is in the place of `IFNAME`.
    parts: Vec<String>,
    value: String,
}

impl OfInterface {
    /// `net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2`. Nothing but an interface's own.
    pub fn parse(text: &str) -> Result<Vec<OfInterface>> {
        let one = |text: &str| {
            let wrong = || {
                Fault::input(format!("{OF_ENDPOINT}: \"{text}\" is no parameter of an interface"))
                    .hint("as net.ipv4.conf.IFNAME.log_martians=1, IFNAME as it stands")
            };
            let (name, value) = text.trim().split_once('=').ok_or_else(wrong)?;
            let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
            let is_name = |part: &String| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            let of_interface = matches!(
                parts.iter().map(String::as_str).collect::<Vec<_>>()[..],
                ["net", "ipv4" | "ipv6" | "mpls", "conf" | "neigh", "IFNAME", _]
            );
            if !of_interface || !parts.iter().all(is_name) || value.contains(char::is_control) {
                return Err(wrong());
            }
            Ok(OfInterface { parts, value: value.to_owned() })
        };
        text.split(',').map(one).collect()
    }

    /// In the namespace this thread is in.
    pub fn set(&self, interface: &str) -> Result<()> {
        let mut path = PathBuf::from("/proc/sys");
        path.extend(self.parts.iter().map(|part| if part == "IFNAME" { interface } else { part.as_str() }));
        write(&path, &self.value)
    }
}

/// Who forwards IPv6 forgets the routers that advertised themselves and listens to none, unless `accept_ra` is 2: interfaces
/// that listen now go on doing so.
fn keep_advertisements() -> Result<Option<String>> {
    let mut kept = Vec::new();
    let interfaces = std::fs::read_dir(Path::new("/proc/sys").join(CONF_IPV6));
    for entry in interfaces.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let accept = entry.path().join("accept_ra");
        let listens = is(&accept, "1") && is(&entry.path().join("forwarding"), "0");
        if listens
            && !["all", "default", "lo"].contains(&name.as_str())
            && !name.starts_with(crate::link::PREFIX)
        {
            write(&accept, "2")?;
            kept.push(name);
        }
    }
    kept.sort();
    let told =
        format!("accept_ra of {} was 1 and is 2 now, so that routers are still listened to", kept.join(", "));
    Ok(Some(told).filter(|_| !kept.is_empty()))
}

fn is(file: &Path, value: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|present| present.trim() == value)
}

fn write(file: &Path, value: &str) -> Result<()> {
    let name = file.strip_prefix("/proc/sys").unwrap_or(file).display().to_string().replace('/', ".");
    std::fs::write(file, value).explain(|| format!("set {name} to {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::File;

    fn names(change: impl FnOnce(&mut File)) -> Vec<String> {
        let mut file = File::default_bridge();
        change(&mut file);
        of(&file.check().unwrap()).iter().map(|one| format!("{}={}", one.name(), one.value)).collect()
    }

    #[test]
    fn parameters_are_of_the_interface_alone() {
        let both = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2";
        assert_eq!(OfInterface::parse(both).unwrap().len(), 2);
        for wrong in [
            "",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.forwarding=1",
            "net.ipv4.conf.IFNAME...=1",
            "net.ipv4.conf.IFNAME./../x=1",
            "net.ipv4.conf.IFNAME.log_martians",
            "kernel.x.conf.IFNAME.y=1",
        ] {
            assert!(OfInterface::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_container_says_whether_it_has_ipv6() {
        let wished = |name: &str, value: &str| {
            let sysctls = [(name.to_owned(), value.to_owned())].into();
            wished_ipv6(&Config { sysctls, ..Config::default() })
        };
        assert_eq!(wished("net.ipv6.conf.all.disable_ipv6", "1"), Some(false));
        assert_eq!(wished("net/ipv6/conf/all/disable_ipv6", "0"), Some(true));
        assert_eq!(wished("net.ipv6.conf.default.disable_ipv6", "0"), None);
        assert_eq!(wished("net.ipv6.conf.all.disable_ipv6", "?"), None);
    }

    #[test]
    fn a_network_asks_for_no_more_than_it_needs() {
        let common = ["net.ipv6.conf.staves0.accept_ra=0", "net.ipv6.conf.staves0.accept_dad=0"];
        let v4 = ["net.ipv4.conf.staves0.route_localnet=1", "net.ipv4.ip_forward=1"];
        assert_eq!(names(|_| ()), [&common[..], &v4].concat());
        assert_eq!(names(|file| file.internal = true), common);
        let ipv6 = |file: &mut File| {
            (file.subnet, file.gateway) = (Some("fd00:1::/64".into()), None);
        };
        let v6 = ["net.ipv6.conf.staves0.disable_ipv6=0", "net.ipv6.conf.all.forwarding=1"];
        assert_eq!(names(ipv6), [&common[..], &v6].concat());
        // Of a routed network it is the containers' links that loopback addresses leave by, and all it does is forwarding.
        for internal in [false, true] {
            let routed = |file: &mut File| (file.driver, file.internal) = ("routed".into(), internal);
            assert_eq!(names(routed), [&common[..], &v4[1..]].concat());
        }
    }
}
