//! A group handed to who runs in it (config-linux.md "Cgroup ownership", cgroups(7) "Delegation").

use crate::{Cgroup, Version};
use fault::{Explain, Result};
use std::io::ErrorKind;
use std::os::unix::fs::chown;

/// What Linux hands over since it lists it.
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Cgroup {
    /// Makes a user the owner of the group's directory and of those files in it by which groups are made below, and processes and
    /// controllers put into them; its limits stay whose they are. Of version 1, where that is not safe, nothing is handed over.
    ///
    /// Fails if the caller may not give files away.
    pub fn hand_to(&self, uid: u32) -> Result<()> {
        let Some(directory) = self.directories.first().filter(|_| self.version == Version::V2) else {
            return Ok(());
        };
        chown(directory, Some(uid), None)
            .explain(|| format!("give {} to user {uid}", directory.display()))?;
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        for name in listed.as_deref().unwrap_or(FILES).lines() {
            let path = directory.join(name);
            match chown(&path, Some(uid), None) {
                // A list for every group: not each has them all.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                given => given.explain(|| format!("give {} to user {uid}", path.display()))?,
            }
        }
        Ok(())
    }
}
