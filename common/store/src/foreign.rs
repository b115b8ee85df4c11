//! `$STAVES_RUN/foreign/<id>`: containers of others that are attached to networks of ours (net-attach as a CNI plugin).
//!
//! They have no bundle and nobody of ours looks after them: what is leased to them is theirs as long as their network
//! namespace is there. The directory is locked by who works on it, as a bundle is.

use crate::{Lock, Store, atomic, container, make_dirs};
use fault::{Explain, Kind, Result};
use record::{Attachment, Extra};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Longest `attachment.json` read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Content of `attachment.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    /// What its runtime calls the container.
    pub container: String,
    /// The interface's name inside.
    pub interface: String,
    /// Path of the network namespace.
    pub netns: String,
    /// Device and inode of that: another namespace at the same path is not meant.
    pub netns_id: (u64, u64),
    /// Name of the network configuration by which it was attached (CNI specification, section 1).
    pub configuration: String,
    /// To be undone; before it is made.
    pub attachment: Attachment,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Foreign {
    /// Whether its network namespace is there still.
    pub fn is_alive(&self) -> bool {
        let status = std::fs::metadata(&self.netns);
        status.is_ok_and(|status| (status.dev(), status.ino()) == self.netns_id)
    }
}

impl Store {
    /// The id under which an interface of such a container is known here, like one of our own: attached twice it has two.
    pub fn foreign_id(container: &str, interface: &str) -> String {
        let digest = Sha256::digest([container.as_bytes(), b"\0", interface.as_bytes()].concat());
        digest.iter().fold(String::with_capacity(64), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
    }

    /// `None` if there is none of this id. One nobody can read is as one that is not there.
    pub fn foreign(&self, id: &str) -> Result<Option<Foreign>> {
        if !container::is_id(id) {
            return Ok(None);
        }
        match atomic::read_at_most(&self.foreign_dir(id).join("attachment.json"), LONGEST) {
            Ok(content) => Ok(content.and_then(|content| serde_json::from_slice(&content).ok())),
            Err(fault) if fault.kind() == Kind::Input => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Ids of all, in no order.
    pub fn foreigners(&self) -> Result<Vec<String>> {
        let names = crate::leases::names_in(&self.run().join("foreign"))?;
        Ok(names.into_iter().filter(|name| container::is_id(name)).collect())
    }

    /// Held by who attaches or detaches it; makes its directory.
    pub fn lock_foreign(&self, id: &str) -> Result<Lock> {
        let dir = self.foreign_dir(id);
        for _ in 0..8 {
            make_dirs(&dir)?;
            match Lock::directory(&dir) {
                Ok(lock) if dir.is_dir() => return Ok(lock),
                // Removed while this waited.
                Ok(_) => {}
                Err(fault) if fault.kind() == fault::Kind::NotFound => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(fault::Fault::retryable("the container is attached and detached by others at the same time")
            .on(id))
    }

    pub fn save_foreign(&self, id: &str, foreign: &Foreign) -> Result<()> {
        let content = serde_json::to_vec(foreign).explain(|| "write attachment.json".into())?;
        atomic::write(&self.foreign_dir(id).join("attachment.json"), &content, 0o600)
    }

    /// The caller has the lock, and has undone the attachment.
    pub fn forget_foreign(&self, id: &str) -> Result<()> {
        let dir = self.foreign_dir(id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).explain(|| format!("remove {}", dir.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether this is the id of a container of others that is there.
    pub fn is_foreign_alive(&self, id: &str) -> bool {
        // One that cannot be looked at may be alive.
        self.foreign(id).map_or(true, |foreign| foreign.is_some_and(|foreign| foreign.is_alive()))
    }

    /// `$STAVES_RUN/foreign/<id>`; the caller has checked the id.
    pub(crate) fn foreign_dir(&self, id: &str) -> PathBuf {
        self.run().join("foreign").join(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_left_alone_and_the_dead_are_not() {
        let dir = std::env::temp_dir().join(format!("store-foreign-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let id = Store::foreign_id("pod", "eth0");
        assert!(container::is_id(&id));
        assert_ne!(id, Store::foreign_id("pod", "eth1"));
        assert!(!store.is_foreign_alive(&id) && store.claim_remains(&id).is_some());
        let lock = store.lock_foreign(&id).unwrap();
        assert!(store.claim_remains(&id).is_none(), "it is being worked on");
        let status = std::fs::metadata("/proc/self/ns/net").unwrap();
        let mut foreign = Foreign {
            container: "pod".into(),
            netns: format!("/proc/{}/ns/net", std::process::id()),
            netns_id: (status.dev(), status.ino()),
            ..Foreign::default()
        };
        store.save_foreign(&id, &foreign).unwrap();
        drop(lock);
        assert!(store.is_looked_after(&id) && store.claim_remains(&id).is_none());
        assert_eq!(store.foreigners().unwrap(), std::slice::from_ref(&id));
        // The path leads to another one now.
        foreign.netns_id.1 += 1;
        store.save_foreign(&id, &foreign).unwrap();
        assert!(!store.is_looked_after(&id) && store.claim_remains(&id).is_some());
        // What nobody can read tells of nobody who lives.
        let path = store.foreign_dir(&id).join("attachment.json");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(store.foreign(&id).unwrap(), None);
        assert!(store.claim_remains(&id).is_some());
        store.forget_foreign(&id).unwrap();
        store.forget_foreign(&id).unwrap();
        assert_eq!(store.foreign(&id).unwrap(), None);
        assert_eq!(store.foreign("../etc").unwrap(), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
