//! What tools that were killed may have left behind, in the kernel and on disk.

use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use testkit::{Place, Ran};

/// Watches a [`Place`]. Takes in orphans, so that every process the tools started is a descendant of the test.
pub struct Leftovers {
    ids: BTreeSet<String>,
    links_before: BTreeSet<String>,
}

impl Leftovers {
    /// Looks at the machine before anything is done.
    pub fn new() -> Leftovers {
        prctl::set_child_subreaper(true).expect("be the reaper of orphans");
        Leftovers { ids: BTreeSet::new(), links_before: links() }
    }

    /// Remembers the ids of all containers there are, to recognise what belonged to them later.
    pub fn note_ids(&mut self, place: &Place) {
        for dir in [place.root().join("containers"), place.run().join("containers")] {
            self.ids.extend(names_in(dir));
        }
    }

    /// Remembers the ids of the containers that builds run commands in, which are named in the first argument of who looks after them.
    pub fn note_runners(&mut self) {
        for (pid, _) in descendants() {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let first =
                arguments.split(|byte| *byte == 0).nth(1).map(String::from_utf8_lossy).unwrap_or_default();
            let path = first.strip_prefix("--run-step=").map(Path::new);
            let id = path.and_then(Path::file_name).map(|id| id.to_string_lossy().into_owned());
            self.ids.extend(id);
        }
    }

    /// Everything that is still there though nothing should be.
    pub fn find(&self, place: &Place) -> Vec<String> {
        let mut found = Vec::new();
        reap();
        found.extend(processes());
        found.extend(mounts(place.path()));
        found.extend(links().difference(&self.links_before).map(|link| format!("link {link}")));
        for id in &self.ids {
            find_groups(Path::new("/sys/fs/cgroup"), id, &mut found);
        }
        found.extend(firewall_elements());
        for dir in ["containers", "names", "tmp", "partial"] {
            found.extend(names_in(place.root().join(dir)).iter().map(|name| format!("root/{dir}/{name}")));
        }
        found.extend(
            names_in(place.run().join("containers")).iter().map(|name| format!("run/containers/{name}")),
        );
        // Locks of layers; markers of blobs that are there are no debris.
        found.extend(names_in(place.run().join("layers")).iter().map(|name| format!("run/layers/{name}")));
        for network in names_in(place.root().join("networks")) {
            let leases = place.root().join("networks").join(&network).join("leases");
            found.extend(names_in(leases).iter().map(|lease| format!("lease {lease} of {network}")));
            if !place.root().join("networks").join(&network).join("network.json").exists() {
                found.push(format!("half of network {network}"));
            }
        }
        found
    }
}

impl Default for Leftovers {
    fn default() -> Leftovers {
        Leftovers::new()
    }
}

fn names_in(dir: impl AsRef<Path>) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Collects orphans that have ended.
fn reap() {
    while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Descendants of this process other than those the test needs (a registry, a helper).
fn processes() -> Vec<String> {
    let helpers = ["docker-registry", "setpriv", "unshare"];
    descendants()
        .into_iter()
        .filter(|(_, name)| !helpers.contains(&name.as_str()))
        .map(|(pid, name)| format!("process {pid} ({name})"))
        .collect()
}

/// Process id and name of every descendant of this process that is not a zombie.
pub fn descendants() -> Vec<(i32, String)> {
    let all: Vec<(i32, i32, String)> =
        names_in("/proc").iter().filter_map(|name| parent_and_name(name)).collect();
    let mut family = vec![nix::unistd::getpid().as_raw()];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        for (pid, _, name) in all.iter().filter(|(_, p, _)| *p == parent) {
            found.push((*pid, name.clone()));
            family.push(*pid);
        }
    }
    found
}

/// Of a living process by the name of its directory in /proc: its id, its parent's, and its program's name.
fn parent_and_name(directory: &str) -> Option<(i32, i32, String)> {
    let pid: i32 = directory.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    // What a tool has left behind on purpose: it makes finished files durable, holds nothing and ends by itself.
    if stat.get(open + 1..close)? == "staves-settle" {
        return None;
    }
    let mut rest = stat.get(close + 2..)?.split(' ');
    if rest.next()? == "Z" {
        return None;
    }
    let parent = rest.next()?.parse().ok()?;
    // The first argument tells more than the short name, which for a program started from a descriptor is a number.
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = match String::from_utf8_lossy(first).rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => stat.get(open + 1..close)?.to_owned(),
    };
    Some((pid, parent, name))
}

fn mounts(below: &Path) -> Vec<String> {
    let below = below.display().to_string();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(&below)).map(|line| format!("mount {line}")).collect()
}

fn links() -> BTreeSet<String> {
    let ran = Ran::of(std::process::Command::new("ip").args(["-o", "link"]));
    ran.stdout
        .lines()
        .filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
        .collect()
}

fn find_groups(dir: &Path, id: &str, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path: PathBuf = entry.path();
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("control group {}", path.display()));
        } else {
            find_groups(&path, id, found);
        }
    }
}

/// Elements of sets and maps in the network namespace's `staves` tables.
fn firewall_elements() -> Vec<String> {
    let ran = Ran::of(std::process::Command::new("nft").args(["-j", "list", "ruleset"]));
    let rules: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let objects = rules["nftables"].as_array().cloned().unwrap_or_default();
    objects
        .iter()
        .filter_map(|object| object.get("set").or_else(|| object.get("map")))
        .filter(|set| set["table"].as_str().is_some_and(|table| table.contains("staves")))
        .flat_map(|set| {
            let name = set["name"].as_str().unwrap_or_default().to_owned();
            set["elem"]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .map(move |e| format!("firewall {name}: {e}"))
        })
        .collect()
}
