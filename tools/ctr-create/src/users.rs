//! Users and groups for containers' user namespaces: what `/etc/subuid` and `/etc/subgid` give, and leases of it.

use crate::facts::Machine;
use cli::{Explain, Fault, Result};
use oci::spec::{Identity, Lookup, UserNamespace};
use oci::wishes::{AutoWish, IdMap, Ids, UserMode, around};
use record::Config;
use std::io::Read;
use std::path::Path;
use store::{IdLease, IdRange, Store};

/// Who has the ids of `auto` in `/etc/subuid` and `/etc/subgid`, as podman has it (containers-storage.conf(5)).
const AUTO_NAME: &str = "containers";
/// What `auto` takes from where that name has none: nobody else does (systemd's "Users, Groups, UIDs and GIDs"), and what is above does
/// not fit into a signed number, which no id that is used elsewhere does without.
const AUTO_RANGE: IdRange = IdRange { first: 0x8000_0000, size: 0x7ffe_0000 };
const AUTO_SIZE: u32 = 65_536;
/// Largest file of subordinate ids.
const MAX_FILE: u64 = 4 << 20;

/// Which ids a mode is, for [`oci::spec::Lookup`].
pub fn namespace(machine: &Machine<'_>, mode: &UserMode, container: &Identity) -> Result<UserNamespace> {
    match mode {
        UserMode::Host => Err(Fault::failed("the machine's own user namespace is none to be made")),
        UserMode::Mapped { uids, gids } => {
            Ok(UserNamespace::New { uids: given(uids, "/etc/subuid")?, gids: given(gids, "/etc/subgid")? })
        }
        UserMode::Auto(wish) => {
            let lease = match machine.store.ids_of(&container.id)? {
                Some(lease) => lease,
                None => preview(machine.store, wish)?,
            };
            Ok(UserNamespace::New {
                uids: around(lease.first_uid, lease.size, &wish.uids)?,
                gids: around(lease.first_gid, lease.size, &wish.gids)?,
            })
        }
        UserMode::KeepId { uid, gid, size } => keep_id(*uid, *gid, *size),
        UserMode::NoMap => no_map(),
        UserMode::Path(path) => {
            if !Path::new(path).exists() {
                return Err(Fault::not_found(format!("the user namespace {path} does not exist")));
            }
            Ok(UserNamespace::Join(path.into()))
        }
        UserMode::Container(name) => {
            let peer = machine.peer(name)?;
            let path = format!("/proc/{}/ns/user", peer.pid);
            let link = |path: &str| std::fs::read_link(path).ok();
            if link(&path).is_some_and(|theirs| Some(theirs) == link("/proc/self/ns/user")) {
                return Err(Fault::input("the container has no user namespace of its own").on(name.as_str()));
            }
            Ok(UserNamespace::Join(path.into()))
        }
    }
}

/// Takes ids for a container that is to have some of its own, and gives back those of one that is not. Done before its specification
/// is made, which finds them.
pub fn settle(store: &Store, id: &str, config: &Config) -> Result<()> {
    match UserMode::parse(config)? {
        UserMode::Auto(wish) => {
            let (users, groups) = auto_ranges()?;
            store.take_ids(id, &users, &groups, wish.size.unwrap_or(AUTO_SIZE)).map(drop)
        }
        _ => store.release_ids(id),
    }
}

/// As nothing is taken for a plan.
fn preview(store: &Store, wish: &AutoWish) -> Result<IdLease> {
    let (users, groups) = auto_ranges()?;
    let size = wish.size.unwrap_or(AUTO_SIZE);
    let free = store.free_ids(&users, &groups, size)?;
    free.ok_or_else(|| Fault::conflict(format!("no {size} users and groups in a row are free")))
}

fn auto_ranges() -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    let of = |file: &str| -> Result<Vec<IdRange>> {
        let ranges = ranges(file, AUTO_NAME, None)?;
        Ok(if ranges.is_empty() { vec![AUTO_RANGE] } else { ranges })
    };
    Ok((of("/etc/subuid")?, of("/etc/subgid")?))
}

fn given(ids: &Ids, file: &str) -> Result<Vec<IdMap>> {
    match ids {
        Ids::Given(maps) => Ok(maps.clone()),
        Ids::OfName(name) => from_zero(&ranges(file, name, None)?, name, file),
    }
}

/// One range after the other, for ids from 0 on.
fn from_zero(ranges: &[IdRange], name: &str, file: &str) -> Result<Vec<IdMap>> {
    let mut next = 0u32;
    let mut maps = Vec::new();
    for range in ranges {
        let Some(end) = next.checked_add(range.size) else { break };
        maps.push(IdMap { container: next, host: range.first, size: range.size });
        next = end;
    }
    if maps.is_empty() {
        return Err(Fault::not_found(format!("{name} has no ids in {file}"))
            .hint(format!("a line gives some: {name}:100000:65536")));
    }
    Ok(maps)
}

/// Those of the caller in its own user namespace.
fn keep_id(uid: Option<u32>, gid: Option<u32>, size: Option<u32>) -> Result<UserNamespace> {
    if rustix::process::geteuid().is_root() {
        // As podman has it: there is no user whose ids are to be kept, so all are.
        if uid.is_some() || gid.is_some() || size.is_some() {
            return Err(Fault::input(
                "userns keep-id: the superuser keeps all ids, so there are no uid, gid and size",
            )
            .hint("--uidmap says which id is which"));
        }
        let all = vec![IdMap { container: 0, host: 0, size: u32::MAX }];
        return Ok(UserNamespace::New { uids: all.clone(), gids: all });
    }
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let side = |file: &str, own: u32, wanted: Option<u32>| -> Result<Vec<IdMap>> {
        let wanted = wanted.unwrap_or(own);
        let ranges = own_ranges(file, size)?;
        Ok(kept(&ranges, wanted, own))
    };
    Ok(UserNamespace::New {
        uids: side("/etc/subuid", own_uid, uid)?,
        gids: side("/etc/subgid", own_gid, gid)?,
    })
}

/// `own` is `wanted` inside, the ids of the ranges are all others.
fn kept(ranges: &[IdRange], wanted: u32, own: u32) -> Vec<IdMap> {
    let mut maps = Vec::new();
    let mut next = 0u32;
    for range in ranges {
        let (mut first, mut size) = (range.first, range.size);
        if next < wanted && size > 0 {
            let below = size.min(wanted - next);
            maps.push(IdMap { container: next, host: first, size: below });
            (next, first, size) = (next + below, first.saturating_add(below), size - below);
        }
        if next == wanted {
            next = next.saturating_add(1);
        }
        let size = size.min(u32::MAX - next);
        if size > 0 {
            maps.push(IdMap { container: next, host: first, size });
            next += size;
        }
    }
    maps.push(IdMap { container: wanted, host: own, size: 1 });
    maps
}

fn no_map() -> Result<UserNamespace> {
    if rustix::process::geteuid().is_root() {
        return Err(Fault::input(
            "userns nomap is for ordinary users: the superuser has no ids to leave out",
        )
        .hint("--userns auto gives it ids of its own"));
    }
    let side = |file: &str| from_zero(&own_ranges(file, None)?, "this user", file);
    Ok(UserNamespace::New { uids: side("/etc/subuid")?, gids: side("/etc/subgid")? })
}

fn own_ranges(file: &str, size: Option<u32>) -> Result<Vec<IdRange>> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = read("/etc/passwd")?;
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let mut ranges = ranges(file, name.as_deref().unwrap_or_default(), Some(uid))?;
    let mut left = size.unwrap_or(u32::MAX);
    for range in &mut ranges {
        range.size = range.size.min(left);
        left -= range.size;
    }
    ranges.retain(|range| range.size > 0);
    Ok(ranges)
}

/// What a file gives to a name or number (subuid(5)).
fn ranges(file: &str, name: &str, number: Option<u32>) -> Result<Vec<IdRange>> {
    Ok(parse(&read(file)?, name, number))
}

fn parse(text: &str, name: &str, number: Option<u32>) -> Vec<IdRange> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let holder = fields.next()?;
        let is_meant =
            (holder == name && !name.is_empty()) || (number.is_some() && holder.parse().ok() == number);
        let first: u32 = fields.next()?.parse().ok()?;
        let size: u32 = fields.next()?.parse().ok()?;
        // The last number, 2^32 - 1, stands for none.
        (is_meant && size > 0).then(|| IdRange { first, size: size.min(u32::MAX - first) })
    };
    text.lines().filter_map(line).filter(|range| range.size > 0).collect()
}

/// Empty if it is not there.
fn read(path: &str) -> Result<String> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        other => other.explain(|| format!("open {path}"))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).explain(|| format!("read {path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_read() {
        let text = "me:100000:65536\nyou:1:1\n1000:300000:10\n# x\nme:5:x\nme:4294967290:100\nme:9:0\n";
        let range = |first, size| IdRange { first, size };
        assert_eq!(parse(text, "me", None), [range(100_000, 65_536), range(4_294_967_290, 5)]);
        assert_eq!(parse(text, "me", Some(1000)).len(), 3);
        assert!(parse(text, "", None).is_empty());
    }

    #[test]
    fn own_ids_are_kept() {
        let map = |container, host, size| IdMap { container, host, size };
        let ranges = [IdRange { first: 100_000, size: 65_536 }];
        assert_eq!(
            kept(&ranges, 1000, 1000),
            [map(0, 100_000, 1000), map(1001, 101_000, 64_536), map(1000, 1000, 1)]
        );
        assert_eq!(kept(&ranges, 0, 1000), [map(1, 100_000, 65_536), map(0, 1000, 1)]);
        assert_eq!(kept(&[], 7, 1000), [map(7, 1000, 1)]);
    }

    #[test]
    fn the_default_range_is_whole() {
        assert!(u64::from(AUTO_RANGE.first) + u64::from(AUTO_RANGE.size) < u64::from(u32::MAX));
        assert_eq!(AUTO_RANGE.size % AUTO_SIZE, 0);
    }
}
