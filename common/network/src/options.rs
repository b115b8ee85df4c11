//! Options of drivers: docker's and podman's names for what has a flag of its own here.

use crate::definition::{File, check_device};
use fault::{Fault, Kind, Result};
use std::net::IpAddr;

const MACVLAN_MODES: [&str; 4] = ["bridge", "private", "vepa", "passthru"];
const IPVLAN_MODES: [&str; 3] = ["l2", "l3", "l3s"];

const KNOWN: &str = "com.docker.network.bridge.name, .enable_icc, .enable_ip_masquerade and .host_binding_ipv4, \
    com.docker.network.driver.mtu, mtu, isolate, outbound_addr4, outbound_addr6, no_default_route; of macvlan and ipvlan \
    parent, mode, macvlan_mode, ipvlan_mode, no_default_route";

/// What an option stands for.
enum Meaning {
    Mtu,
    Device,
    Isolate,
    Parent,
    Mode,
    /// `false` sets it.
    No(fn(&mut File) -> &mut bool),
    /// `true` sets it.
    Yes(fn(&mut File) -> &mut bool),
    /// Address of the host, of IPv6 or not.
    Outbound(bool),
    Binding,
    /// Says what is so in any case.
    Always(&'static [&'static str]),
}

fn meaning(driver: &str, name: &str) -> Option<Meaning> {
    let link = matches!(driver, "macvlan" | "ipvlan");
    // docker's names say bridge of what routed networks have, too.
    let bridge = matches!(driver, "bridge" | "routed");
    Some(match name {
        "mtu" | "com.docker.network.driver.mtu" => Meaning::Mtu,
        "com.docker.network.bridge.name" if bridge => Meaning::Device,
        "isolate" if bridge => Meaning::Isolate,
        "com.docker.network.bridge.enable_icc" if bridge => Meaning::No(|file| &mut file.no_icc),
        "com.docker.network.bridge.enable_ip_masquerade" if bridge => {
            Meaning::No(|file| &mut file.no_masquerade)
        }
        "outbound_addr4" if bridge => Meaning::Outbound(false),
        "outbound_addr6" if bridge => Meaning::Outbound(true),
        "no_default_route" if bridge || link => Meaning::Yes(|file| &mut file.no_default_route),
        "com.docker.network.bridge.gateway_mode_ipv4" | "com.docker.network.bridge.gateway_mode_ipv6"
            if bridge =>
        {
            Meaning::Always(&["nat"])
        }
        "com.docker.network.bridge.host_binding_ipv4" if bridge => Meaning::Binding,
        "mode" if bridge => Meaning::Always(&["managed"]),
        "parent" if link => Meaning::Parent,
        "mode" if link => Meaning::Mode,
        "macvlan_mode" if driver == "macvlan" => Meaning::Mode,
        "ipvlan_mode" if driver == "ipvlan" => Meaning::Mode,
        "ipvlan_flag" if driver == "ipvlan" => Meaning::Always(&["bridge"]),
        _ => return None,
    })
}

/// Sets the members that options stand for. Fails with usage for options that mean nothing here, and where a flag says
/// something else.
pub fn apply(file: &mut File) -> Result<()> {
    for (name, value) in file.options.clone() {
        let wrong = |why: String| Fault::usage(format!("--opt {name}={value}: {why}"));
        let meaning = meaning(&file.driver, &name).ok_or_else(|| {
            let there_are = || format!("there are {KNOWN}");
            wrong(format!("driver {} has no such option", file.driver))
                .hint(instead(&name).map_or_else(there_are, str::to_owned))
        })?;
        let clash = |flag: &str| wrong(format!("{flag} says something else"));
        let text = |member: &mut Option<String>, flag: &str| match member.replace(value.clone()) {
            Some(before) if before != value => Err(clash(flag)),
            _ => Ok(()),
        };
        match meaning {
            Meaning::Mtu => {
                let number = value.parse().map_err(|_| wrong("no number of bytes".into()))?;
                if file.mtu.replace(number).is_some_and(|before| before != number) {
                    return Err(clash("--mtu"));
                }
            }
            Meaning::Device if file.device.is_empty() || file.device == value => {
                file.device.clone_from(&value);
            }
            Meaning::Device => return Err(clash("--device")),
            Meaning::Isolate => match value.as_str() {
                // podman's strict, against networks that are not isolated, too, is the only kind there is.
                "true" | "strict" | "1" => file.isolate = true,
                "false" | "0" if file.isolate => return Err(clash("--isolate")),
                "false" | "0" => {}
                _ => return Err(wrong("true, strict or false".into())),
            },
            Meaning::Parent => text(&mut file.parent, "--parent")?,
            Meaning::Mode => text(&mut file.mode, "--mode")?,
            Meaning::No(member) => *member(file) = !truth(&value).map_err(wrong)?,
            Meaning::Yes(member) => *member(file) = truth(&value).map_err(wrong)?,
            Meaning::Outbound(ipv6) => match value.parse::<IpAddr>() {
                Ok(address) if address.is_ipv6() == ipv6 => file.outbound.push(address.to_string()),
                _ => return Err(wrong(format!("no IPv{} address", if ipv6 { 6 } else { 4 }))),
            },
            // As docker has it: on all addresses, of both families.
            Meaning::Binding if matches!(value.as_str(), "" | "0.0.0.0") => {}
            Meaning::Binding => match value.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => file.host_binding = Some(address.to_string()),
                _ => return Err(wrong("no IPv4 address".into())),
            },
            Meaning::Always(values) if values.contains(&value.as_str()) => {}
            Meaning::Always(values) => {
                let only: Vec<&str> = values.iter().copied().filter(|value| !value.is_empty()).collect();
                return Err(wrong("not supported".into()).hint(format!("it is {} here", only.join(" or "))));
            }
        }
    }
    Ok(())
}

/// What there is in place of an option of docker's or podman's.
fn instead(name: &str) -> Option<&'static str> {
    Some(match name {
        "vlan" => "--driver macvlan --parent eth0.5 is on VLAN 5 of eth0",
        "metric" => "the way out is the network with the highest priority: --network NAME:gw-priority=1",
        "vrf" => {
            "the plugin does that: a list with {\"type\":\"vrf\"} after {\"type\":\"bridge\"} by --cni FILE"
        }
        "com.docker.network.container_iface_prefix" | "com.docker.network.endpoint.ifname" => {
            "interfaces are named where containers are attached: --network NAME:ifname=eth5"
        }
        "com.docker.network.bridge.inhibit_ipv4" => {
            "--driver cni:bridge --opt isGateway=false makes a bridge without an address"
        }
        "com.docker.network.driver.overlay.vxlanid_list" | "encrypted" => "networks are of this machine",
        _ => return None,
    })
}

/// As docker reads it.
fn truth(value: &str) -> std::result::Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// Makes sure that names of interfaces and modes are some the driver has.
pub fn check_links(file: &mut File) -> Result<()> {
    if !file.device.is_empty() {
        check_device("--device", &file.device).map_err(|fault| fault.as_kind(Kind::Usage))?;
    }
    let modes: &[&str] = match file.driver.as_str() {
        "macvlan" => &MACVLAN_MODES,
        "ipvlan" => &IPVLAN_MODES,
        driver => {
            let flag = if file.parent.is_some() { "--parent" } else { "--mode" };
            if file.parent.is_some() || file.mode.is_some() {
                return Err(Fault::usage(format!(
                    "{flag} is for macvlan and ipvlan, not for driver {driver}"
                )));
            }
            return Ok(());
        }
    };
    if let Some(parent) = &file.parent {
        check_device("--parent", parent).map_err(|fault| fault.as_kind(Kind::Usage))?;
    }
    match &file.mode {
        Some(mode) if !modes.contains(&mode.as_str()) => {
            Err(Fault::usage(format!("{} has no mode \"{mode}\"", file.driver))
                .hint(format!("there are {}", modes.join(", "))))
        }
        Some(_) => Ok(()),
        None => {
            // Written down, so that another default later does not change this network.
            file.mode = modes.first().map(|mode| (*mode).to_owned());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(driver: &str, options: &[(&str, &str)]) -> Result<File> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut file = File { driver: driver.into(), options, ..File::default() };
        apply(&mut file)?;
        check_links(&mut file)?;
        Ok(file)
    }

    #[test]
    fn options_stand_for_flags() {
        let file = with(
            "bridge",
            &[
                ("com.docker.network.bridge.name", "br-web"),
                ("com.docker.network.driver.mtu", "1400"),
                ("com.docker.network.bridge.enable_icc", "true"),
                ("isolate", "strict"),
            ],
        )
        .unwrap();
        assert_eq!((file.device.as_str(), file.mtu, file.isolate), ("br-web", Some(1400), true));
        let file = with(
            "bridge",
            &[
                ("com.docker.network.bridge.enable_icc", "false"),
                ("com.docker.network.bridge.enable_ip_masquerade", "0"),
                ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
                ("no_default_route", "1"),
            ],
        )
        .unwrap();
        assert!(file.no_icc && file.no_masquerade && file.no_default_route);
        assert_eq!(file.host_binding.as_deref(), Some("127.0.0.1"));
        let file =
            with("bridge", &[("outbound_addr4", "192.0.2.9"), ("outbound_addr6", "2001:db8::9")]).unwrap();
        assert_eq!(file.outbound, ["192.0.2.9", "2001:db8::9"]);
        let file = with("macvlan", &[("parent", "eth0.50"), ("macvlan_mode", "vepa")]).unwrap();
        assert_eq!((file.parent.as_deref(), file.mode.as_deref()), (Some("eth0.50"), Some("vepa")));
        assert_eq!(with("ipvlan", &[]).unwrap().mode.as_deref(), Some("l2"));
    }

    #[test]
    fn others_are_refused_by_name() {
        for (driver, name, value) in [
            ("bridge", "vlan", "5"),
            ("bridge", "com.docker.network.bridge.enable_icc", "no"),
            ("bridge", "com.docker.network.bridge.host_binding_ipv4", "::1"),
            ("bridge", "outbound_addr4", "fd00::1"),
            ("macvlan", "outbound_addr4", "192.0.2.1"),
            ("macvlan", "com.docker.network.bridge.enable_icc", "false"),
            ("bridge", "com.docker.network.bridge.gateway_mode_ipv4", "routed"),
            ("bridge", "com.docker.network.bridge.name", "a/b"),
            ("bridge", "mtu", "big"),
            ("bridge", "isolate", "maybe"),
            ("bridge", "parent", "eth0"),
            ("macvlan", "macvlan_mode", "l2"),
            ("ipvlan", "macvlan_mode", "bridge"),
            ("none", "metric", "1"),
        ] {
            let fault = with(driver, &[(name, value)]).unwrap_err();
            assert_eq!(fault.kind(), Kind::Usage, "{name}");
        }
        let fault = with("bridge", &[("metrics", "1")]).unwrap_err();
        assert!(fault.hint_text().unwrap().contains("isolate"));
        let fault = with("bridge", &[("vlan", "5")]).unwrap_err();
        assert!(fault.hint_text().unwrap().contains("--parent eth0.5"));
        assert!(with("bridge", &[("mtu", "1400"), ("com.docker.network.driver.mtu", "1500")]).is_err());
    }
}
