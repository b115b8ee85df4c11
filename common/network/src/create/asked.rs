//! What `net-create` is asked for, as a definition.

use crate::conflist::{conflist, find_plugin, named};
use crate::definition::{File, FileDns, FileRoute, FileSubnet};
use crate::subnet::Subnet;
use fault::{Explain, Fault, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is asked for, as `net-create` has it on its command line.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub name: String,
    /// `bridge`, `routed`, `macvlan`, `ipvlan`, `none`, `cni`, or the name of a CNI plugin, with or without `cni:`.
    pub driver: String,
    pub subnets: Vec<String>,
    /// Each is of the subnet that contains it, and so are ranges.
    pub gateways: Vec<String>,
    pub ranges: Vec<String>,
    /// Kept for others, by name.
    pub reserved: BTreeMap<String, String>,
    /// `DESTINATION,GATEWAY[,METRIC]`.
    pub routes: Vec<String>,
    pub internal: bool,
    pub isolate: bool,
    pub mtu: Option<u32>,
    pub dns: Vec<String>,
    pub no_dns: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub parent: Option<String>,
    pub mode: Option<String>,
    pub device: Option<String>,
    /// A CNI network configuration list, or the configuration of one plugin.
    pub cni: Option<Value>,
}

impl Asked {
    /// The definition, as far as it was asked for: subnets and a device may still be to be chosen.
    pub fn file(&self) -> Result<File> {
        let mut file = File {
            name: self.name.clone(),
            driver: self.driver.clone(),
            internal: self.internal,
            isolate: self.isolate,
            mtu: self.mtu,
            labels: self.labels.clone(),
            options: self.options.clone(),
            parent: self.parent.clone(),
            mode: self.mode.clone(),
            device: self.device.clone().unwrap_or_default(),
            subnets: subnets(&self.subnets, &self.gateways, &self.ranges, &self.reserved)?,
            routes: self.routes.iter().map(|text| route(text)).collect::<Result<_>>()?,
            ..File::default()
        };
        let plugin = match self.driver.as_str() {
            "bridge" | "routed" | "macvlan" | "ipvlan" | "none" => None,
            "cni" if self.cni.is_some() => None,
            "cni" => {
                return Err(Fault::usage("a network of CNI plugins takes their configuration: --cni FILE"));
            }
            other => Some(other.strip_prefix("cni:").unwrap_or(other)),
        };
        if plugin.is_some() || self.cni.is_some() {
            if self.driver != "cni" && self.cni.is_some() {
                return Err(Fault::usage(format!("--cni says what drives the network, not {}", self.driver)));
            }
            "cni".clone_into(&mut file.driver);
            return self.of_plugins(file, plugin);
        }
        // podman's --interface-name is the bridge's name, or the parent's.
        if matches!(file.driver.as_str(), "macvlan" | "ipvlan") && !file.device.is_empty() {
            let device = std::mem::take(&mut file.device);
            if file.parent.as_ref().is_some_and(|parent| *parent != device) {
                return Err(Fault::usage("--parent and --interface-name name different interfaces"));
            }
            file.parent = Some(device);
        }
        crate::options::apply(&mut file)?;
        let bridge = matches!(file.driver.as_str(), "bridge" | "routed");
        // Of others the host has no address at which names can be asked for.
        file.dns = FileDns { enabled: bridge && !self.no_dns, servers: self.dns.clone() };
        let of_bridges = [
            ("--isolate", file.isolate),
            ("--device", !file.device.is_empty()),
            ("--dns", !self.dns.is_empty()),
        ];
        if let Some((flag, _)) = of_bridges.iter().find(|(_, given)| *given && !bridge) {
            return Err(Fault::usage(format!(
                "{flag} is for driver bridge or routed, not for {}",
                file.driver
            )));
        }
        crate::options::check_links(&mut file)?;
        Ok(file)
    }

    /// Everything a plugin is to know is in its configuration.
    fn of_plugins(&self, mut file: File, plugin: Option<&str>) -> Result<File> {
        let said = [
            ("--internal", self.internal),
            ("--isolate", self.isolate),
            ("--mtu", self.mtu.is_some()),
            ("--dns", !self.dns.is_empty()),
            ("--parent", self.parent.is_some()),
            ("--mode", self.mode.is_some()),
            ("--device", self.device.is_some()),
            ("--aux-address", !self.reserved.is_empty()),
            ("--route", !self.routes.is_empty()),
        ];
        if let Some((flag, _)) = said.iter().find(|(_, given)| *given) {
            return Err(Fault::usage(format!("CNI plugins are told by their configuration, not by {flag}"))
                .hint("--opt NAME=VALUE sets a member of a plugin's, --cni FILE gives all of it"));
        }
        let list = match (&self.cni, plugin) {
            (Some(_), _) if !self.options.is_empty() || !self.subnets.is_empty() => {
                return Err(Fault::usage("--opt and --subnet say nothing beside --cni: the file has it all"));
            }
            (Some(given), _) => conflist(given, &self.name)?,
            (None, Some(plugin)) => {
                find_plugin(plugin)?;
                let plugin = named(plugin, &self.options)?;
                json!({"cniVersion": "1.0.0", "name": self.name, "plugins": [plugin]})
            }
            (None, None) => return Err(Fault::usage("which CNI plugin?")),
        };
        file.cni = Some(list);
        Ok(file)
    }
}

/// podman's `DESTINATION,GATEWAY[,METRIC]`.
fn route(text: &str) -> Result<FileRoute> {
    let wrong = |why: &str| {
        Fault::usage(format!("--route {text}: {why}"))
            .hint("DESTINATION,GATEWAY[,METRIC], as 10.5.0.0/16,10.90.0.9,100")
    };
    let parts: Vec<&str> = text.split(',').collect();
    let (destination, gateway, metric) = match parts[..] {
        [destination, gateway] => (destination, gateway, None),
        [destination, gateway, metric] => {
            (destination, gateway, Some(metric.parse().map_err(|_| wrong("the metric is no number"))?))
        }
        _ => return Err(wrong("not two or three parts")),
    };
    if matches!(gateway, "blackhole" | "unreachable" | "prohibit") {
        return Err(wrong("only routes by a gateway are made"));
    }
    Ok(FileRoute { destination: destination.to_owned(), gateway: gateway.to_owned(), metric })
}

/// Puts together what was given apart: a gateway and a range are of the subnet they lie in.
fn subnets(
    subnets: &[String],
    gateways: &[String],
    ranges: &[String],
    reserved: &BTreeMap<String, String>,
) -> Result<Vec<FileSubnet>> {
    let as_usage = |fault: Fault| fault.as_kind(Kind::Usage);
    let parsed: Vec<Subnet> =
        subnets.iter().map(|text| Subnet::parse(text)).collect::<Result<_>>().map_err(as_usage)?;
    let mut list: Vec<FileSubnet> = parsed
        .iter()
        .map(|subnet| FileSubnet { subnet: subnet.to_string(), ..FileSubnet::default() })
        .collect();
    if list.is_empty() && !(gateways.is_empty() && ranges.is_empty() && reserved.is_empty()) {
        return Err(Fault::usage(
            "--gateway, --ip-range and --aux-address are of a --subnet, and there is none",
        ));
    }
    for text in gateways {
        let address: IpAddr =
            text.parse().explain_as(Kind::Usage, || format!("--gateway {text} is no address"))?;
        let place = parsed.iter().position(|subnet| subnet.contains(address));
        let place = place
            .ok_or_else(|| Fault::usage(format!("--gateway {text} is in none of the network's subnets")))?;
        if list[place].gateway.replace(address.to_string()).is_some() {
            return Err(Fault::usage(format!("subnet {} has two gateways", parsed[place])));
        }
    }
    for text in ranges {
        let range = Subnet::parse(text).map_err(as_usage)?;
        let place = parsed.iter().position(|subnet| subnet.holds(range));
        let place = place.ok_or_else(|| {
            Fault::usage(format!("--ip-range {text} is within none of the network's subnets"))
        })?;
        if list[place].ip_range.replace(range.to_string()).is_some() {
            return Err(Fault::usage(format!("subnet {} has two ranges", parsed[place])));
        }
    }
    for (name, text) in reserved {
        let address: IpAddr =
            text.parse().explain_as(Kind::Usage, || format!("--aux-address {name}={text} is no address"))?;
        let place = parsed.iter().position(|subnet| subnet.contains(address));
        let place = place.ok_or_else(|| {
            Fault::usage(format!("--aux-address {name}={text} is in none of the network's subnets"))
        })?;
        list[place].aux_addresses.insert(name.clone(), address.to_string());
    }
    Ok(list)
}
