//! What plugins answer (specification, "ADD Success"), whichever version they speak.

use crate::{Version, shown};
use fault::{Explain, Fault, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::net::IpAddr;

/// More of one kind than any network has; a result with more is refused.
const MOST_MEMBERS: usize = 1024;

/// An answer in the shape of version 1.1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    pub interfaces: Vec<Interface>,
    pub ips: Vec<Ip>,
    pub routes: Vec<Route>,
    pub dns: Dns,
}

/// An interface the plugins made, on the host or in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    pub name: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// In bytes; 0 where it is not told.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// The network namespace it is in; empty for the host's.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "pciID",
        skip_serializing_if = "String::is_empty"
    )]
    pub pci_id: String,
}

/// An address with the length of its subnet's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub address: Cidr,
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces.
    pub interface: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Cidr,
    /// Without one, that of the addresses.
    pub gateway: Option<IpAddr>,
    /// `mtu`, `advmss`, `priority`, `table`, `scope`, where they are given (1.1.0).
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

/// Plugins written in Go print an empty list as null.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[allow(clippy::trivially_copy_pass_by_ref)] // Serde's way of asking.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Cidr {
    /// `10.1.0.5/16`, `fd00::5/64`.
    pub fn parse(text: &str) -> Result<Cidr> {
        let wrong = || Fault::failed(format!("\"{}\" is no address with a prefix length", shown(text)));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(wrong()) } else { Ok(Cidr { address, prefix }) }
    }

    /// Whether an address is in its subnet.
    pub fn contains(&self, address: IpAddr) -> bool {
        // Of no bits all are alike, and so many cannot be shifted away.
        let apart = |bits: u128, width: u8| bits.checked_shr((width - self.prefix).into()).unwrap_or(0);
        match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                apart((u32::from(one) ^ u32::from(other)).into(), 32) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => apart(u128::from(one) ^ u128::from(other), 128) == 0,
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// From version 0.3.0 on.
#[derive(Deserialize)]
struct Listed {
    #[serde(default, deserialize_with = "or_default")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "or_default")]
    ips: Vec<RawIp>,
    #[serde(default, deserialize_with = "or_default")]
    routes: Vec<RawRoute>,
    #[serde(default, deserialize_with = "or_default")]
    dns: Dns,
}

#[derive(Deserialize)]
struct RawIp {
    address: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
    #[serde(default)]
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct RawRoute {
    dst: String,
    #[serde(default, deserialize_with = "or_default")]
    gw: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Before version 0.3.0: one address of each family, its routes beside it, and no interfaces.
#[derive(Deserialize)]
struct Paired {
    #[serde(default)]
    ip4: Option<OfFamily>,
    #[serde(default)]
    ip6: Option<OfFamily>,
    #[serde(default, deserialize_with = "or_default")]
    dns: Dns,
}

#[derive(Deserialize)]
struct OfFamily {
    ip: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
    #[serde(default, deserialize_with = "or_default")]
    routes: Vec<RawRoute>,
}

impl Success {
    /// Reads an answer. One that does not say which version it is of is of the version asked for.
    pub fn parse(answer: &Value, asked: Version) -> Result<Success> {
        if !answer.is_object() {
            return Err(Fault::failed("the result is no JSON object"));
        }
        let version = match answer.get("cniVersion") {
            Some(Value::String(version)) if !version.is_empty() => Version::parse(version)?,
            _ => asked,
        };
        let success =
            if version.has_lists() { Success::of_lists(answer)? } else { Success::of_pair(answer)? };
        success.check()
    }

    fn of_lists(answer: &Value) -> Result<Success> {
        let listed = Listed::deserialize(answer).explain(|| "read the result".into())?;
        Ok(Success {
            interfaces: listed.interfaces,
            ips: listed.ips.into_iter().map(RawIp::check).collect::<Result<_>>()?,
            routes: listed.routes.into_iter().map(RawRoute::check).collect::<Result<_>>()?,
            dns: listed.dns,
        })
    }

    fn of_pair(answer: &Value) -> Result<Success> {
        let paired = Paired::deserialize(answer).explain(|| "read the result".into())?;
        let mut success = Success { dns: paired.dns, ..Success::default() };
        for family in [paired.ip4, paired.ip6].into_iter().flatten() {
            let address = Cidr::parse(&family.ip)?;
            success.ips.push(Ip { address, gateway: gateway(&family.gateway)?, interface: None });
            for route in family.routes {
                success.routes.push(route.check()?);
            }
        }
        Ok(success)
    }

    fn check(self) -> Result<Success> {
        let counts = [self.interfaces.len(), self.ips.len(), self.routes.len(), self.dns.nameservers.len()];
        if counts.into_iter().any(|count| count > MOST_MEMBERS) {
            return Err(Fault::failed(format!("the result lists more than {MOST_MEMBERS} of a kind")));
        }
        let beyond = |ip: &Ip| ip.interface.is_some_and(|index| index >= self.interfaces.len());
        if self.ips.iter().any(beyond) {
            return Err(Fault::failed("the result gives an address to an interface it does not list"));
        }
        Ok(self)
    }

    /// The interface of this name in the container. Answers before 0.3.0 tell of none.
    pub fn inside(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name && !interface.sandbox.is_empty())
    }

    /// The host's end of what leads into the container, if it was told: the last interface there that is not what others
    /// are connected to.
    pub fn outside(&self) -> Option<&Interface> {
        let mut on_host = self.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
        on_host.next_back()
    }

    /// The addresses that interface has: those that say so, and those that do not say whose they are.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = &Ip> {
        let wanted = self
            .interfaces
            .iter()
            .position(|interface| interface.name == name && !interface.sandbox.is_empty());
        self.ips.iter().filter(move |ip| ip.interface.is_none() || ip.interface == wanted)
    }

    /// As that version would say it. Earlier ones cannot say all of it.
    pub fn to_value(&self, version: Version) -> Value {
        let mut answer = Map::new();
        answer.insert("cniVersion".into(), version.name().into());
        if version.has_lists() {
            self.write_lists(version, &mut answer);
        } else {
            self.write_pair(&mut answer);
        }
        if !self.dns.is_empty() || !version.has_lists() {
            answer.insert("dns".into(), serde_json::to_value(&self.dns).unwrap_or_default());
        }
        Value::Object(answer)
    }

    fn write_lists(&self, version: Version, answer: &mut Map<String, Value>) {
        let interface = |interface: &Interface| {
            let mut interface = interface.clone();
            if version < Version::V1_1_0 {
                interface.mtu = 0;
                interface.socket_path.clear();
                interface.pci_id.clear();
            }
            serde_json::to_value(interface).unwrap_or_default()
        };
        answer.insert("interfaces".into(), self.interfaces.iter().map(interface).collect());
        let ip = |ip: &Ip| {
            let mut value = Map::new();
            if version < Version::V1_0_0 {
                value.insert("version".into(), if ip.address.address.is_ipv4() { "4" } else { "6" }.into());
            }
            value.insert("address".into(), ip.address.to_string().into());
            insert_gateway(&mut value, "gateway", ip.gateway);
            if let Some(index) = ip.interface {
                value.insert("interface".into(), index.into());
            }
            Value::Object(value)
        };
        answer.insert("ips".into(), self.ips.iter().map(ip).collect());
        let route = |route: &Route| route.to_value(version);
        answer.insert("routes".into(), self.routes.iter().map(route).collect());
    }

    fn write_pair(&self, answer: &mut Map<String, Value>) {
        for (name, v4) in [("ip4", true), ("ip6", false)] {
            let of_family = |cidr: &Cidr| cidr.address.is_ipv4() == v4;
            let Some(ip) = self.ips.iter().find(|ip| of_family(&ip.address)) else { continue };
            let mut family = Map::new();
            family.insert("ip".into(), ip.address.to_string().into());
            insert_gateway(&mut family, "gateway", ip.gateway);
            let routes = self.routes.iter().filter(|route| of_family(&route.destination));
            family.insert("routes".into(), routes.map(|route| route.to_value(Version::V0_2_0)).collect());
            answer.insert(name.into(), family.into());
        }
    }
}

impl RawIp {
    fn check(self) -> Result<Ip> {
        Ok(Ip {
            address: Cidr::parse(&self.address)?,
            gateway: gateway(&self.gateway)?,
            // Some plugins write -1 for none.
            interface: self.interface.and_then(|index| usize::try_from(index).ok()),
        })
    }
}

impl RawRoute {
    fn check(self) -> Result<Route> {
        let mut more = self.more;
        more.retain(|name, value| ROUTE_MEMBERS.contains(&name.as_str()) && value.is_u64());
        Ok(Route { destination: Cidr::parse(&self.dst)?, gateway: gateway(&self.gw)?, more })
    }
}

const ROUTE_MEMBERS: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

impl Route {
    fn to_value(&self, version: Version) -> Value {
        let mut value = Map::new();
        value.insert("dst".into(), self.destination.to_string().into());
        insert_gateway(&mut value, "gw", self.gateway);
        if version >= Version::V1_1_0 {
            value.extend(self.more.clone());
        }
        Value::Object(value)
    }
}

fn gateway(text: &str) -> Result<Option<IpAddr>> {
    match text {
        "" => Ok(None),
        text => {
            let wrong = |error| Fault::failed(format!("gateway \"{}\"", shown(text))).because(error);
            text.parse().map(Some).map_err(wrong)
        }
    }
}

fn insert_gateway(into: &mut Map<String, Value>, name: &str, gateway: Option<IpAddr>) {
    if let Some(gateway) = gateway {
        into.insert(name.into(), gateway.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn answers_of_all_versions_become_one() {
        let newest = json!({"cniVersion":"1.1.0",
            "interfaces":[{"name":"cni0","mac":"00:11:22:33:44:55"},
                {"name":"veth1"},
                {"name":"eth0","mac":"99:88:77:66:55:44","mtu":1400,"sandbox":"/run/netns/a"}],
            "ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1","interface":2},
                {"address":"fd00::5/64","interface":2}],
            "routes":[{"dst":"0.0.0.0/0","mtu":1400},{"dst":"fd01::/64","gw":"fd00::1"}],
            "dns":{"nameservers":["10.1.0.1"]}});
        let success = Success::parse(&newest, Version::V1_0_0).unwrap();
        assert_eq!(success.to_value(Version::V1_1_0), newest);
        assert_eq!(success.inside("eth0").unwrap().mtu, 1400);
        assert_eq!(success.inside("cni0"), None);
        assert_eq!(success.outside().unwrap().name, "veth1");
        assert_eq!(success.addresses("eth0").count(), 2);
        assert_eq!(success.addresses("eth1").count(), 0);

        let older = success.to_value(Version::V0_4_0);
        assert_eq!(older["ips"][0]["version"], "4");
        assert_eq!(older["ips"][1]["version"], "6");
        assert_eq!(older["interfaces"][2].get("mtu"), None);
        let again = Success::parse(&older, Version::V1_1_0).unwrap();
        assert_eq!(again.ips, success.ips);

        let oldest = json!({"ip4":{"ip":"10.1.0.5/16","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0"}]},
            "dns":null});
        let success = Success::parse(&oldest, Version::V0_2_0).unwrap();
        assert_eq!(success.addresses("eth0").next().unwrap().address.to_string(), "10.1.0.5/16");
        assert_eq!(success.routes.len(), 1);
        assert_eq!(Success::parse(&success.to_value(Version::V0_1_0), Version::V1_1_0).unwrap(), success);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (answer, why) in [
            (json!({"ips":[{"address":"10.1.0.5"}]}), "no address"),
            (json!({"ips":[{"address":"10.1.0.5/33"}]}), "no address"),
            (json!({"ips":[{"address":"10.1.0.5/24","interface":0}]}), "does not list"),
            (json!({"ips":[{"address":"10.1.0.5/24","gateway":"up"}]}), "gateway"),
            (json!({"ips":{}}), "read the result"),
            (json!({"cniVersion":"9.0.0"}), "not known"),
            (json!("ok"), "no JSON object"),
            (json!([[], [], [], {}]), "no JSON object"),
            (json!({"routes": vec![json!({"dst":"0.0.0.0/0"}); MOST_MEMBERS + 1]}), "more than"),
        ] {
            let fault = Success::parse(&answer, Version::V1_0_0).unwrap_err();
            assert!(fault.to_string().contains(why), "{answer}: {fault}");
        }
        let nulls = json!({"interfaces":null,"ips":null,"routes":null,"dns":null});
        assert_eq!(Success::parse(&nulls, Version::V1_0_0).unwrap(), Success::default());
    }

    fn cidr() -> impl Strategy<Value = Cidr> {
        prop_oneof![
            (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, prefix)| Cidr { address: a.into(), prefix }),
            (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, prefix)| Cidr { address: a.into(), prefix }),
        ]
    }

    proptest! {
        #[test]
        fn any_answer_comes_back_from_versions_with_lists(
            ips in prop::collection::vec((cidr(), any::<bool>()), 0..5),
            routes in prop::collection::vec(cidr(), 0..5),
            names in prop::collection::vec("[a-z]{1,8}", 1..4),
        ) {
            let success = Success {
                interfaces: names
                    .into_iter()
                    .map(|name| Interface { name, sandbox: "/x".into(), ..Interface::default() })
                    .collect(),
                ips: ips
                    .into_iter()
                    .map(|(address, has)| Ip {
                        gateway: has.then_some(address.address),
                        interface: has.then_some(0),
                        address,
                    })
                    .collect(),
                routes: routes
                    .into_iter()
                    .map(|destination| Route { destination, gateway: None, more: Map::new() })
                    .collect(),
                dns: Dns::default(),
            };
            for version in Version::ALL.into_iter().filter(|version| version.has_lists()) {
                let value = success.to_value(version);
                prop_assert_eq!(&Success::parse(&value, Version::V0_1_0).unwrap(), &success);
            }
            // Nothing to be equal to, but nothing to trip over either.
            Success::parse(&success.to_value(Version::V0_2_0), Version::V1_1_0).unwrap();
        }

        #[test]
        fn no_answer_is_too_strange(text in "\\PC{0,200}", member in "ips|routes|interfaces|dns|ip4|cniVersion") {
            let strange: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            for version in Version::ALL {
                let _ = Success::parse(&strange, version);
                let _ = Success::parse(&json!({ member.clone(): strange.clone() }), version);
                let _ = Success::parse(&json!({ member.clone(): [strange.clone()] }), version);
            }
        }
    }
}
