//! firewalld, if it runs: bridges of ours are in its zone `trusted`, as docker's and podman's are in zones that accept.
//!
//! Its chains end by rejecting what is in no zone it was told of, whatever another table has accepted. What a trusted bridge may not do
//! is for our table to say.

use super::Chain;
use std::process::{Command, Output, Stdio};

const TABLE: &str = "firewalld";
const ZONE: &str = "--zone=trusted";

/// Puts a bridge in the zone, unless somebody has put it in one. What the user should hear of.
pub(super) fn trust(chains: &[Chain], device: &str) -> Option<String> {
    if !is_there(chains) {
        return None;
    }
    // One that an administrator chose is respected.
    if ask(&[&format!("--get-zone-of-interface={device}")]).is_some_and(|output| output.status.success()) {
        return None;
    }
    let add = format!("--add-interface={device}");
    let output = ask(&[ZONE, &add]);
    if output.as_ref().is_some_and(|output| output.status.success()) {
        return Some(format!(
            "firewalld runs, and rejects what is in no zone: {device} was put in its zone trusted"
        ));
    }
    let why = output.map_or_else(
        || "firewall-cmd is not there".to_owned(),
        |output| String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned(),
    );
    Some(format!(
        "firewalld rejects what is in no zone, and cannot be told of {device} ({why}); for containers to reach anybody: \
         firewall-cmd {ZONE} {add}"
    ))
}

/// Takes a bridge that is going out of the zone.
pub(super) fn forget(chains: &[Chain], device: &str) {
    if is_there(chains) {
        ask(&["--quiet", ZONE, &format!("--remove-interface={device}")]);
    }
}

fn is_there(chains: &[Chain]) -> bool {
    chains.iter().any(|chain| chain.table == TABLE)
}

/// `None` where the program is missing.
fn ask(arguments: &[&str]) -> Option<Output> {
    Command::new("firewall-cmd").args(arguments).stdin(Stdio::null()).output().ok()
}
