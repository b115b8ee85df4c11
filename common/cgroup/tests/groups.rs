//! Groups of the machine the tests run on, below a parent of each test's own.

#![allow(clippy::print_stderr)] // What is skipped is said aloud.

use cgroup::{Cgroup, LinuxResources};
use std::path::PathBuf;
use std::process::{Child, Command};

/// A parent that is removed with all below it.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Option<Parent> {
        if !rustix::process::geteuid().is_root() || cgroup::version().is_none() {
            eprintln!("SKIPPED: groups are made by root, where control groups are mounted");
            return None;
        }
        let parent = Parent(format!("/staves-test-{name}-{}", std::process::id()));
        match Cgroup::create(&parent.path("probe"), None) {
            Ok(probe) => {
                probe.remove().expect("remove the probe");
                Some(parent)
            }
            Err(fault) => {
                eprintln!("SKIPPED: no group can be made here: {fault}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = cgroup::remove_parent(&self.0);
    }
}

struct Sleeper(Child);

impl Sleeper {
    fn within(group: &Cgroup) -> Sleeper {
        let child = Command::new("sleep").arg("1000").spawn().expect("start sleep");
        for directory in group.directories() {
            std::fs::write(directory.join("cgroup.procs"), child.id().to_string()).expect("join the group");
        }
        Sleeper(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).expect("resources")
}

fn there(group: &Cgroup) -> Vec<PathBuf> {
    group.directories().iter().filter(|directory| directory.exists()).cloned().collect()
}

#[test]
fn what_a_failed_limit_made_is_removed_and_nothing_else() {
    let Some(parent) = Parent::new("failed") else { return };
    let bad = resources(r#"{"pids":{"limit":10},"cpu":{"cpus":"999999"}}"#);
    assert!(Cgroup::create(&parent.path("new"), Some(&bad)).is_err());
    let old = Cgroup::create(&parent.path("old"), None).expect("make a group");
    assert!(Cgroup::create(&parent.path("old"), Some(&bad)).is_err());
    assert_eq!(there(&old).len(), old.directories().len(), "the group was there before");
    old.remove().expect("remove it");
    let new = Cgroup::create(&parent.path("new"), None).expect("make the other");
    new.remove().expect("remove it");
}

#[test]
fn a_group_in_use_is_refused_and_killed_with_what_is_below_it() {
    let Some(parent) = Parent::new("kill") else { return };
    let group = Cgroup::create(&parent.path("busy"), None).expect("make a group");
    let below = Cgroup::create(&parent.path("busy/below"), None).expect("make one below");
    let mut sleeper = Sleeper::within(&below);
    let fault = Cgroup::create(&parent.path("busy"), None).expect_err("it is in use");
    assert!(fault.to_string().contains("container's cgroup is not empty: 1 process(es) found"), "{fault}");
    group.freeze().expect("freeze");
    assert!(group.is_frozen());
    group.kill();
    let status = sleeper.0.wait().expect("wait for it");
    assert!(!status.success());
    group.remove().expect("remove both");
    assert!(there(&group).is_empty() && there(&below).is_empty());
}
