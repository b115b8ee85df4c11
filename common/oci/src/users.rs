//! `user[:group]` and additional groups, resolved from the text of an image's own passwd and group files
//! (passwd(5), group(5)). The rules are docker's: a number is always an id, never looked up as a name; the first
//! matching line wins; supplementary groups come from the group file unless a group is named.

use fault::{Fault, Result};
use std::collections::HashSet;

/// Text of the container's `/etc/passwd` and `/etc/group`; `None` where there is none or it cannot be read.
#[derive(Clone, Debug, Default)]
pub struct UserFiles {
    pub passwd: Option<String>,
    pub group: Option<String>,
}

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first, each once.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the passwd file names none.
    pub home: String,
    /// Login name, when the passwd file has one for the id.
    pub name: Option<String>,
}

/// Highest id taken, as in docker.
const MAX_ID: i64 = i32::MAX as i64;

/// Resolves `user[:group]` (empty: uid 0) and the groups of `--group-add`.
///
/// Fails with [`fault::Kind::NotFound`] on names the files do not have, with input on ids out of range.
pub fn resolve(wanted: &str, additional: &[String], files: &UserFiles) -> Result<Identity> {
    let (user, group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let uid = numeric(user)?;
    let gid = numeric(group)?;

    let entry = files.passwd.as_deref().and_then(|text| {
        passwd_lines(text).find(|line| match uid {
            Some(uid) => line.uid == uid,
            None if user.is_empty() => line.uid == 0,
            None => line.name == user,
        })
    });
    let mut identity = Identity { home: "/".to_owned(), ..Identity::default() };
    match (&entry, uid) {
        (Some(line), _) => {
            (identity.uid, identity.gid) = (line.uid, line.gid);
            identity.name = Some(line.name.to_owned());
            if !line.home.is_empty() {
                line.home.clone_into(&mut identity.home);
            }
        }
        (None, Some(uid)) => identity.uid = uid,
        (None, None) if user.is_empty() => {}
        (None, None) => return Err(no_such("user", user, "passwd", files.passwd.is_some())),
    }

    let mut supplementary = Vec::new();
    if group.is_empty() {
        if let (Some(line), Some(text)) = (&entry, files.group.as_deref()) {
            supplementary.extend(
                group_lines(text).filter(|g| g.members.split(',').any(|m| m == line.name)).map(|g| g.gid),
            );
        }
    } else {
        identity.gid = group_id(group, gid, files)?;
    }
    for name in additional {
        supplementary.push(group_id(name, numeric(name)?, files)?);
    }
    // A set beside the list: a group file of an image may put a user into hundreds of thousands of groups.
    let mut present = HashSet::from([identity.gid]);
    identity.groups.push(identity.gid);
    identity.groups.extend(supplementary.into_iter().filter(|gid| present.insert(*gid)));
    Ok(identity)
}

fn group_id(name: &str, number: Option<u32>, files: &UserFiles) -> Result<u32> {
    if let Some(gid) = number {
        return Ok(gid);
    }
    files
        .group
        .as_deref()
        .and_then(|text| group_lines(text).find(|line| line.name == name))
        .map(|line| line.gid)
        .ok_or_else(|| no_such("group", name, "group", files.group.is_some()))
}

fn no_such(what: &str, name: &str, file: &str, readable: bool) -> Fault {
    let why = if readable {
        format!("/etc/{file} has no such {what}")
    } else {
        format!("there is no readable /etc/{file}")
    };
    Fault::not_found(format!("no {what} \"{name}\" in the container: {why}")).hint("numeric ids always work")
}

/// An id, or `None` for what is not a number and so a name.
fn numeric(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(id @ 0..=MAX_ID) => Ok(u32::try_from(id).ok()),
        _ => {
            Err(Fault::input(format!("id {text} is out of range")).hint(format!("ids go from 0 to {MAX_ID}")))
        }
    }
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Lines with a user name and numeric ids; comments, blank and broken lines (and NIS's `+`) are passed over.
fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let uid = file_id(fields.next()?)?;
        let gid = file_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(PasswdLine { name, uid, gid, home })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = file_id(fields.next()?)?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']))
}

fn file_id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| i64::from(*id) <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    fn files() -> UserFiles {
        UserFiles {
            passwd: Some(
                "# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbroken\nwww:x:33:34:w,w:/var/www:/bin/false\n\
                 www:x:99:99::/other:\n1000:x:5:5::/five:\nhuge:x:99999999999:1::/:\nnohome:x:7:7:::\n+nis::::::\n"
                    .into(),
            ),
            group: Some("root:x:0:root\nwww:x:34:\nadm:x:4:www,root\ndup:x:4:www\nvideo:x:44:www\nbad:x:x:www\n".into()),
        }
    }

    #[test]
    fn users_and_groups_resolve_as_docker_does() {
        for (wanted, add, uid, gid, groups, home) in [
            ("", &[][..], 0, 0, &[0, 4][..], "/root"),
            ("0", &[], 0, 0, &[0, 4], "/root"),
            ("www", &[], 33, 34, &[34, 4, 44], "/var/www"),
            ("33", &[], 33, 34, &[34, 4, 44], "/var/www"),
            ("www:root", &[], 33, 0, &[0], "/var/www"),
            ("www:1234", &["video", "5"], 33, 1234, &[1234, 44, 5], "/var/www"),
            ("4242", &[], 4242, 0, &[0], "/"),
            ("4242:4243", &[], 4242, 4243, &[4243], "/"),
            (":adm", &[], 0, 4, &[4], "/root"),
            // A number is an id, even where it is somebody's name.
            ("1000", &[], 1000, 0, &[0], "/"),
            ("nohome", &[], 7, 7, &[7], "/"),
        ] {
            let add: Vec<String> = add.iter().map(|g| (*g).to_owned()).collect();
            let found = resolve(wanted, &add, &files()).unwrap();
            assert_eq!(
                (found.uid, found.gid, found.groups.as_slice(), found.home.as_str()),
                (uid, gid, groups, home),
                "{wanted}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for (wanted, add, kind) in [
            ("nobody", "", Kind::NotFound),
            ("huge", "", Kind::NotFound),
            ("root:staff", "", Kind::NotFound),
            ("0", "staff", Kind::NotFound),
            ("4294967295", "", Kind::Input),
            ("-1", "", Kind::Input),
            ("0:99999999999999999999", "", Kind::Input),
        ] {
            let add: Vec<String> = if add.is_empty() { vec![] } else { vec![add.into()] };
            assert_eq!(resolve(wanted, &add, &files()).unwrap_err().kind(), kind, "{wanted}");
        }
    }

    #[test]
    fn without_files_only_numbers_work() {
        let none = UserFiles::default();
        assert_eq!(resolve("", &[], &none).unwrap().home, "/");
        assert_eq!(resolve("5:6", &["7".into()], &none).unwrap().groups, [6, 7]);
        assert_eq!(resolve("www", &[], &none).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn very_many_groups_are_found_in_no_time() {
        use std::fmt::Write;
        let mut group = String::new();
        for gid in 0..300_000 {
            writeln!(group, "g:x:{gid}:www").unwrap();
        }
        let files = UserFiles { group: Some(group), ..files() };
        let begun = std::time::Instant::now();
        assert_eq!(resolve("www", &[], &files).unwrap().groups.len(), 300_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
