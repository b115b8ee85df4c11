//! `ids/<first user>-<first group>-<size>-<container>`: who has which users and groups of the machine (`--userns auto`).
//!
//! All of a lease is in its name, so that one listing tells what is taken. Leases are made under the lock of the directory, which is held
//! for that listing alone; they go with their container, and one whose container is gone counts for nothing when there is no room left.

use crate::{Lock, Store, container, make_dirs};
use fault::{Explain, Fault, Result};
use std::path::PathBuf;
use std::time::Duration;

/// A lease whose container is not there is nobody's when it is this old: until then its container is being made.
const YOUNG: Duration = Duration::from_mins(1);

/// Consecutive ids: the first and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub first: u32,
    pub size: u32,
}

/// What a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdLease {
    pub first_uid: u32,
    pub first_gid: u32,
    pub size: u32,
}

impl Store {
    fn ids_dir(&self) -> PathBuf {
        self.root().join("ids")
    }

    /// A container's lease.
    pub fn ids_of(&self, id: &str) -> Result<Option<IdLease>> {
        Ok(self.all_ids()?.into_iter().find(|(_, holder)| holder == id).map(|(lease, _)| lease))
    }

    /// Takes `size` users of `users` and as many of `groups` that no other container has. The one a container has already stays, if it
    /// is of that size and in these ranges; else it is given back.
    ///
    /// # Errors
    /// A conflict if there are not as many left in a row.
    pub fn take_ids(&self, id: &str, users: &[IdRange], groups: &[IdRange], size: u32) -> Result<IdLease> {
        let dir = self.ids_dir();
        make_dirs(&dir)?;
        let _lock = Lock::directory(&dir)?;
        let mut taken = self.all_ids()?;
        if let Some(place) = taken.iter().position(|(_, holder)| holder == id) {
            let (own, _) = taken.swap_remove(place);
            if own.size == size && is_in(users, own.first_uid, size) && is_in(groups, own.first_gid, size) {
                return Ok(own);
            }
            self.remove_lease(own, id)?;
        }
        let lease = if let Some(lease) = choose(&taken, users, groups, size) {
            lease
        } else {
            self.sweep_locked()?;
            choose(&self.all_ids()?, users, groups, size).ok_or_else(|| {
                Fault::conflict(format!("no {size} users and groups in a row are free for another container"))
                    .hint("--userns auto:size=N takes fewer; more can be given to \"containers\" in /etc/subuid and /etc/subgid")
            })?
        };
        let path = dir.join(name(lease, id));
        std::fs::File::create_new(&path).explain(|| format!("make {}", path.display()))?;
        Ok(lease)
    }

    /// What [`Store::take_ids`] would take, for plans.
    pub fn free_ids(&self, users: &[IdRange], groups: &[IdRange], size: u32) -> Result<Option<IdLease>> {
        Ok(choose(&self.all_ids()?, users, groups, size))
    }

    /// Gives a container's back. Nothing to do if it has none.
    pub fn release_ids(&self, id: &str) -> Result<()> {
        match self.ids_of(id)? {
            Some(lease) => self.remove_lease(lease, id),
            None => Ok(()),
        }
    }

    /// Removes leases of containers that are gone. Returns their containers' ids.
    pub fn sweep_ids(&self) -> Result<Vec<String>> {
        let dir = self.ids_dir();
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let _lock = Lock::directory(&dir)?;
        self.sweep_locked()
    }

    fn sweep_locked(&self) -> Result<Vec<String>> {
        let mut swept = Vec::new();
        for (lease, holder) in self.all_ids()? {
            if self.is_abandoned(lease, &holder) {
                self.remove_lease(lease, &holder)?;
                swept.push(holder);
            }
        }
        Ok(swept)
    }

    fn is_abandoned(&self, lease: IdLease, id: &str) -> bool {
        if self.container_dir(id).bundle.exists() {
            return false;
        }
        let age = std::fs::metadata(self.ids_dir().join(name(lease, id)))
            .and_then(|status| status.modified())
            .ok()
            .and_then(|made| made.elapsed().ok());
        age.is_some_and(|age| age > YOUNG)
    }

    fn remove_lease(&self, lease: IdLease, id: &str) -> Result<()> {
        let path = self.ids_dir().join(name(lease, id));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).explain(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// What is named otherwise is no lease.
    fn all_ids(&self) -> Result<Vec<(IdLease, String)>> {
        let dir = self.ids_dir();
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.explain(|| format!("read {}", dir.display()))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| parse(&name)).collect())
    }
}

fn name(lease: IdLease, id: &str) -> String {
    format!("{}-{}-{}-{id}", lease.first_uid, lease.first_gid, lease.size)
}

fn parse(name: &str) -> Option<(IdLease, String)> {
    let mut parts = name.splitn(4, '-');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let lease = IdLease { first_uid: number()?, first_gid: number()?, size: number()? };
    let id = parts.next().filter(|id| container::is_id(id))?;
    Some((lease, id.to_owned()))
}

fn is_in(ranges: &[IdRange], first: u32, size: u32) -> bool {
    let end = |first: u32, size: u32| u64::from(first) + u64::from(size);
    ranges.iter().any(|range| first >= range.first && end(first, size) <= end(range.first, range.size))
}

fn choose(taken: &[(IdLease, String)], users: &[IdRange], groups: &[IdRange], size: u32) -> Option<IdLease> {
    let of = |first: fn(&IdLease) -> u32| {
        taken.iter().map(|(lease, _)| IdRange { first: first(lease), size: lease.size }).collect::<Vec<_>>()
    };
    let first_uid = first_free(users, of(|lease| lease.first_uid), size)?;
    let first_gid = first_free(groups, of(|lease| lease.first_gid), size)?;
    Some(IdLease { first_uid, first_gid, size })
}

/// The lowest number from which `size` are in a range and not taken.
fn first_free(ranges: &[IdRange], mut taken: Vec<IdRange>, size: u32) -> Option<u32> {
    taken.sort_unstable_by_key(|range| range.first);
    ranges.iter().find_map(|range| {
        let end = u64::from(range.first) + u64::from(range.size);
        let mut next = u64::from(range.first);
        for one in &taken {
            let (first, after) = (u64::from(one.first), u64::from(one.first) + u64::from(one.size));
            if next + u64::from(size) <= first {
                break;
            }
            next = next.max(after);
        }
        u32::try_from(next).ok().filter(|_| next + u64::from(size) <= end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    fn range(first: u32, size: u32) -> IdRange {
        IdRange { first, size }
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn store(name: &str) -> Store {
        let dir = std::env::temp_dir().join(format!("staves-ids-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Store::at(dir.join("root"), dir.join("run"))
    }

    #[test]
    fn gaps_are_found() {
        assert_eq!(first_free(&[range(100, 50)], vec![], 50), Some(100));
        assert_eq!(first_free(&[range(100, 50)], vec![], 51), None);
        assert_eq!(first_free(&[range(100, 50)], vec![range(120, 10), range(100, 10)], 10), Some(110));
        assert_eq!(first_free(&[range(100, 50)], vec![range(120, 10), range(100, 10)], 20), Some(130));
        assert_eq!(first_free(&[range(100, 50), range(500, 50)], vec![range(90, 60)], 20), Some(500));
        assert_eq!(first_free(&[range(u32::MAX - 10, 10)], vec![], 10), Some(u32::MAX - 10));
        assert_eq!(first_free(&[range(0, 10)], vec![range(0, u32::MAX)], 1), None);
    }

    #[test]
    fn a_lease_is_its_containers_until_it_is_given_back() {
        let store = store("life");
        let (users, groups) = ([range(1000, 30)], [range(5000, 100)]);
        let take = |id: &str, size| store.take_ids(id, &users, &groups, size);
        let first = take(&id('a'), 10).unwrap();
        assert_eq!(first, IdLease { first_uid: 1000, first_gid: 5000, size: 10 });
        assert_eq!(take(&id('a'), 10).unwrap(), first);
        assert_eq!(take(&id('b'), 10).unwrap().first_uid, 1010);
        assert_eq!(take(&id('c'), 20).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(store.free_ids(&users, &groups, 10).unwrap().unwrap().first_uid, 1020);
        // Another size is another lease.
        assert_eq!(take(&id('a'), 5).unwrap().first_uid, 1000);
        store.release_ids(&id('b')).unwrap();
        store.release_ids(&id('b')).unwrap();
        assert_eq!(take(&id('c'), 20).unwrap().first_uid, 1005);
        assert!(store.ids_of(&id('b')).unwrap().is_none());
        // Young ones are kept though their container is not there.
        assert!(store.sweep_ids().unwrap().is_empty());
        let _ = std::fs::remove_dir_all(store.root().parent().unwrap());
    }

    #[test]
    fn what_a_container_that_is_gone_left_is_taken() {
        let store = store("gone");
        store.take_ids(&id('a'), &[range(1000, 10)], &[range(1000, 10)], 10).unwrap();
        let path =
            store.ids_dir().join(name(IdLease { first_uid: 1000, first_gid: 1000, size: 10 }, &id('a')));
        let old = std::time::SystemTime::now() - YOUNG - YOUNG;
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        assert_eq!(
            store.take_ids(&id('b'), &[range(1000, 10)], &[range(1000, 10)], 10).unwrap().first_uid,
            1000
        );
        assert!(store.ids_of(&id('a')).unwrap().is_none());
        let _ = std::fs::remove_dir_all(store.root().parent().unwrap());
    }
}
