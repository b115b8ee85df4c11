//! firewalld, if it runs: networks of ours are in its zone `trusted`, as docker's and podman's are in zones that accept.
//!
//! Its chains end by rejecting what is in no zone it was told of, whatever another table has accepted. What a trusted network may not do
//! is for our table to say.

use super::Chain;
use crate::definition::{Definition, Driver};
use std::process::{Command, Output, Stdio};

const TABLE: &str = "firewalld";
const ZONE: &str = "--zone=trusted";

/// What firewalld knows a network by: the bridge, or, where there are many interfaces and each is there for one container, the subnets. Nobody
/// else comes with addresses of these: see `routed_prerouting`.
fn marks(network: &Definition) -> Vec<(&'static str, String)> {
    match network.driver {
        Driver::Routed => network.pools.iter().map(|pool| ("source", pool.subnet.to_string())).collect(),
        _ => vec![("interface", network.device.clone())],
    }
}

/// Puts a network in the zone, unless somebody has put it in one. What the user should hear of.
pub(super) fn trust(chains: &[Chain], network: &Definition) -> Vec<String> {
    if !is_there(chains) {
        return Vec::new();
    }
    marks(network).iter().filter_map(|(kind, mark)| trust_one(kind, mark)).collect()
}

fn trust_one(kind: &str, mark: &str) -> Option<String> {
    // One that an administrator chose is respected.
    if ask(&[&format!("--get-zone-of-{kind}={mark}")]).is_some_and(|output| output.status.success()) {
        return None;
    }
    let add = format!("--add-{kind}={mark}");
    let output = ask(&[ZONE, &add]);
    if output.as_ref().is_some_and(|output| output.status.success()) {
        return Some(format!(
            "firewalld runs, and rejects what is in no zone: {mark} was put in its zone trusted"
        ));
    }
    let why = output.map_or_else(
        || "firewall-cmd is not there".to_owned(),
        |output| String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned(),
    );
    Some(format!(
        "firewalld rejects what is in no zone, and cannot be told of {mark} ({why}); for containers to reach anybody: \
         firewall-cmd {ZONE} {add}"
    ))
}

/// Takes a network that is going out of the zone.
pub(super) fn forget(chains: &[Chain], network: &Definition) {
    if is_there(chains) {
        for (kind, mark) in marks(network) {
            ask(&["--quiet", ZONE, &format!("--remove-{kind}={mark}")]);
        }
    }
}

fn is_there(chains: &[Chain]) -> bool {
    chains.iter().any(|chain| chain.table == TABLE)
}

/// `None` where the program is missing.
fn ask(arguments: &[&str]) -> Option<Output> {
    Command::new("firewall-cmd").args(arguments).stdin(Stdio::null()).output().ok()
}
