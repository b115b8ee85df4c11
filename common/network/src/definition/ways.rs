//! Checks of the members about what leaves a network, and how.

use super::{Driver, FileRoute, Pool, Route};
use crate::subnet::Subnet;
use fault::{Fault, Result};
use std::net::IpAddr;

/// What leaves a network, and how.
pub(super) struct WaysOut {
    pub outbound: Vec<IpAddr>,
    pub host_binding: Option<IpAddr>,
    pub routes: Vec<Route>,
}

impl WaysOut {
    pub fn check(
        driver: &Driver,
        pools: &[Pool],
        outbound: &[String],
        host_binding: Option<&str>,
        routes: &[FileRoute],
    ) -> Result<WaysOut> {
        let address = |member: &str, text: &str| {
            let address: IpAddr = text
                .parse()
                .map_err(|error| Fault::input(format!("{member} \"{text}\" is no address")).because(error))?;
            if address.is_loopback() && member == "outbound" || address.is_multicast() {
                return Err(Fault::input(format!(
                    "{member} {address} is no address of the host's to the outside"
                )));
            }
            Ok(address)
        };
        if !driver.has_device() && (!outbound.is_empty() || host_binding.is_some()) {
            let member = if outbound.is_empty() { "host_binding" } else { "outbound" };
            return Err(Fault::input(format!("{member} is for a bridge, not for driver {}", driver.name())));
        }
        let outbound = outbound.iter().map(|text| address("outbound", text)).collect::<Result<Vec<_>>>()?;
        for ipv6 in [false, true] {
            if outbound.iter().filter(|address| address.is_ipv6() == ipv6).count() > 1 {
                return Err(Fault::input("two addresses of one family in \"outbound\""));
            }
        }
        if let Some(address) = outbound.iter().find(|address| address.is_unspecified()) {
            return Err(Fault::input(format!(
                "outbound {address} is no address of the host's to the outside"
            )));
        }
        let host_binding = host_binding.map(|text| address("host_binding", text)).transpose()?;
        let routes = routes.iter().map(|route| route.check(driver, pools)).collect::<Result<_>>()?;
        Ok(WaysOut { outbound, host_binding, routes })
    }
}

impl FileRoute {
    fn check(&self, driver: &Driver, pools: &[Pool]) -> Result<Route> {
        if matches!(driver, Driver::None | Driver::Cni(_)) {
            return Err(Fault::input(format!(
                "a network of driver {} has no routes of its own",
                driver.name()
            )));
        }
        let destination = Subnet::parse(&self.destination)?;
        let wrong = |why: String| Fault::input(format!("route to {destination}: {why}"));
        let gateway: IpAddr = self
            .gateway
            .parse()
            .map_err(|error| wrong(format!("gateway \"{}\" is no address", self.gateway)).because(error))?;
        if destination.is_ipv6() != gateway.is_ipv6() {
            return Err(wrong(format!("gateway {gateway} is of the other family")));
        }
        if destination.prefix == 0 {
            return Err(wrong("this is the way out, which is the network's gateway".into()));
        }
        if *driver == Driver::Routed && !pools.iter().any(|pool| pool.gateway == gateway) {
            return Err(wrong(format!(
                "gateway {gateway} is a container, and these reach only the host at once"
            ))
            .hint("networks of driver bridge have ways by containers"));
        }
        if !pools.iter().any(|pool| pool.subnet.is_host(gateway)) {
            return Err(wrong(format!("gateway {gateway} is in none of the network's subnets")));
        }
        Ok(Route { destination, gateway, metric: self.metric })
    }
}
