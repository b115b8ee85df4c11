//! Owners of files in a running container with a user namespace: seen from outside they are others than inside.

use fault::{Explain, Fault, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{capabilities, set_capabilities};

/// What stands for an owner that is not known inside (`/proc/sys/kernel/overflowuid`).
const UNKNOWN: u32 = 65_534;

/// Users and groups inside and outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    uids: Vec<Range>,
    gids: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    size: u32,
}

impl Owners {
    /// From a process's `uid_map` and `gid_map`. `None` if inside everything is as it is outside.
    pub(crate) fn parse(uids: &str, gids: &str) -> Option<Owners> {
        let owners = Owners { uids: ranges(uids), gids: ranges(gids) };
        let is_same =
            |list: &[Range]| matches!(list, [all] if all.inside == all.outside && all.size == u32::MAX);
        (!(is_same(&owners.uids) && is_same(&owners.gids))).then_some(owners)
    }

    /// Who a file's owner is inside.
    #[must_use]
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let of = |list: &[Range], id: u32| {
            let found = list
                .iter()
                .find_map(|range| within(range.outside, range.size, id).map(|at| range.inside + at));
            found.unwrap_or(UNKNOWN)
        };
        (of(&self.uids, uid), of(&self.gids, gid))
    }

    /// Who an owner inside is outside.
    ///
    /// # Errors
    /// Fails with input for one that is not known inside.
    pub fn outside(&self, uid: u32, gid: u32) -> Result<(u32, u32)> {
        let of = |list: &[Range], id: u32, what: &str| {
            let found = list
                .iter()
                .find_map(|range| within(range.inside, range.size, id).map(|at| range.outside + at));
            found.ok_or_else(|| Fault::input(format!("the container's user namespace has no {what} {id}")))
        };
        Ok((of(&self.uids, uid, "user")?, of(&self.gids, gid, "group")?))
    }

    /// From now on what this process makes belongs to the container's superuser: anybody else's is refused there. What it may do with
    /// files stays (capabilities(7), "Effect of user ID changes on capabilities").
    ///
    /// # Errors
    /// Fails where the namespace has no superuser.
    pub fn act_as_superuser(&self) -> Result<()> {
        let (uid, gid) = self.outside(0, 0)?;
        let what = || "keep the capabilities".to_owned();
        let held = capabilities(None).explain(what)?;
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        set_capabilities(None, held).explain(what)
    }
}

fn within(first: u32, size: u32, id: u32) -> Option<u32> {
    id.checked_sub(first).filter(|at| *at < size)
}

fn ranges(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        Some(Range { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_told_inside_and_outside() {
        assert_eq!(Owners::parse("         0          0 4294967295\n", " 0 0 4294967295\n"), None);
        let owners = Owners::parse(" 0 1000 1\n 1 100000 10\n", " 0 500 2\n").unwrap();
        assert_eq!(owners.inside(100_002, 501), (3, 1));
        assert_eq!(owners.inside(0, 0), (UNKNOWN, UNKNOWN));
        assert_eq!(owners.outside(0, 1).unwrap(), (1000, 501));
        assert!(owners.outside(11, 0).is_err() && owners.outside(0, 2).is_err());
    }
}
