//! Options of the driver `local`: `type`, `o` and `device`, which mean what they mean to mount(8), as docker's do.

use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, OwnedFd};
use sys::mount::{MountAttributes, mount_setattr};

/// Longest text fsconfig(2) takes.
const MAX_STRING: usize = 255;
/// What mount(8) keeps to itself.
const FOR_PEOPLE: [&str; 7] = ["defaults", "_netdev", "nofail", "auto", "noauto", "nouser", "async"];
/// Options whose value is nobody's to see.
const PASSWORDS: [&str; 3] = ["password", "password2", "pass"];

/// What is to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// A directory of the host.
    Bind {
        device: &'a str,
        recursive: bool,
    },
    Filesystem {
        kind: &'a str,
        device: &'a str,
    },
}

/// Whether the options make sense together. Nothing of what they name is looked at.
pub fn check(options: &BTreeMap<String, String>) -> Result<()> {
    wanted(options).map(drop)
}

/// `None`: an ordinary directory.
pub fn wanted(options: &BTreeMap<String, String>) -> Result<Option<Wanted<'_>>> {
    if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device")) {
        let fault = Fault::input(format!("the driver local has no option \"{unknown}\""));
        return Err(if unknown == "size" {
            fault.hint("quotas of directories are not supported; type=tmpfs has a size: o=size=64m")
        } else {
            fault.hint("type, o and device, as mount(8) has them")
        });
    }
    if options.values().any(|value| value.contains('\0')) {
        return Err(Fault::input("a NUL byte in a volume's option"));
    }
    let option = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let (kind, device) = match (option("type"), option("device")) {
        (None, None) if option("o").is_none() => return Ok(None),
        (Some(kind), Some(device)) => (kind, device),
        (None, _) => {
            return Err(Fault::input("the option type is missing")
                .hint("type=nfs, type=tmpfs, type=none with o=bind"));
        }
        (_, None) => {
            return Err(Fault::input("the option device is missing")
                .hint("what to mount: a device, a directory, :/export; tmpfs of a tmpfs"));
        }
    };
    let words = words(options);
    if let Some(long) =
        words.iter().find(|word| word.len() > MAX_STRING).or((device.len() > MAX_STRING).then_some(&device))
    {
        return Err(Fault::input(format!(
            "\"{}…\" is longer than {MAX_STRING} bytes",
            long.chars().take(40).collect::<String>()
        )));
    }
    let recursive = words.contains(&"rbind");
    if recursive || words.contains(&"bind") {
        if !device.starts_with('/') {
            return Err(Fault::input(format!("the device \"{device}\" of a bind is not an absolute path")));
        }
        let other = words.iter().find(|word| {
            !matches!(**word, "bind" | "rbind") && attribute(word).is_none() && !FOR_PEOPLE.contains(*word)
        });
        if let Some(other) = other {
            return Err(Fault::input(format!("a bind has no option \"{other}\"")));
        }
        return Ok(Some(Wanted::Bind { device, recursive }));
    }
    if kind == "none" {
        return Err(Fault::input("type=none mounts nothing").hint("o=bind binds a directory of the host"));
    }
    if !kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
        return Err(Fault::input(format!("\"{kind}\" is no file system")));
    }
    Ok(Some(Wanted::Filesystem { kind, device }))
}

fn words(options: &BTreeMap<String, String>) -> Vec<&str> {
    options.get("o").map(|o| o.split(',').filter(|word| !word.is_empty()).collect()).unwrap_or_default()
}

/// The same text without what is secret in it.
pub fn without_passwords(o: &str) -> String {
    let shown = |word: &str| match word.split_once('=') {
        Some((key, _)) if PASSWORDS.contains(&key) => format!("{key}=***"),
        _ => word.to_owned(),
    };
    o.split(',').map(shown).collect::<Vec<_>>().join(",")
}

/// Attributes of the mount itself: set, cleared (mount_setattr(2)).
fn attribute(word: &str) -> Option<(u64, u64)> {
    use sys::mount::{
        MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
        MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
    };
    Some(match word {
        "ro" => (MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, MOUNT_ATTR_RDONLY),
        "nosuid" => (MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, MOUNT_ATTR_NOSUID),
        "nodev" => (MOUNT_ATTR_NODEV, 0),
        "dev" => (0, MOUNT_ATTR_NODEV),
        "noexec" => (MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, MOUNT_ATTR_NOEXEC),
        "noatime" => (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
        "strictatime" => (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
        "relatime" => (0, MOUNT_ATTR_ATIME),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, MOUNT_ATTR_NODIRATIME),
        _ => return None,
    })
}

/// Mounts what the options say, nowhere yet: it is gone when the descriptor is closed, unless it was put somewhere by then.
/// `None`: an ordinary directory.
pub fn mount(options: &BTreeMap<String, String>) -> Result<Option<OwnedFd>> {
    let Some(wanted) = wanted(options)? else { return Ok(None) };
    let words = words(options);
    let (mut set, mut clear) = (0, 0);
    for (on, off) in words.iter().filter_map(|word| attribute(word)) {
        set = (set & !off) | on;
        clear |= off;
    }
    match wanted {
        Wanted::Bind { device, recursive } => {
            let source =
                openat(CWD, device, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .explain(|| format!("open {device}"))?;
            let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
            let tree = open_tree(&source, "", flags).explain(|| format!("take {device} for a bind mount"))?;
            if set != 0 || clear != 0 {
                mount_setattr(
                    tree.as_fd(),
                    false,
                    MountAttributes { set, clear, ..MountAttributes::default() },
                )
                .explain(|| format!("set the attributes of the mount of {device}"))?;
            }
            Ok(Some(tree))
        }
        Wanted::Filesystem { kind, device } => filesystem(kind, device, &words, set).map(Some),
    }
}

fn filesystem(kind: &str, device: &str, words: &[&str], attributes: u64) -> Result<OwnedFd> {
    let failed = |error: rustix::io::Errno, what: &str, said: String| {
        let fault =
            Fault::failed(format!("mount {kind} {device} ({what})")).because(std::io::Error::from(error));
        match (said.is_empty(), error) {
            (false, _) => fault.hint(format!("the kernel says: {said}")),
            (_, rustix::io::Errno::NODEV) => fault.hint(format!("this kernel has no file system {kind}")),
            _ => fault,
        }
    };
    let context =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| failed(error, "open", String::new()))?;
    let said = |error, what: &str| failed(error, what, sys::mount::context_messages(context.as_fd()));
    fsconfig_set_string(&context, "source", device).map_err(|error| said(error, "device"))?;
    let of_network = matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3");
    for word in words {
        match word.split_once('=') {
            // The kernel knows no names.
            Some(("addr", host)) if of_network => {
                let address = address(host)?;
                fsconfig_set_string(&context, "addr", address.as_str())
                    .map_err(|error| said(error, "addr"))?;
            }
            Some((key, value)) => {
                fsconfig_set_string(&context, key, value).map_err(|error| said(error, key))?;
            }
            // Some cannot be mounted otherwise: those on a disk that is read-only.
            None if *word == "ro" && kind != "tmpfs" => {
                fsconfig_set_flag(&context, "ro").map_err(|error| said(error, "ro"))?;
            }
            None if attribute(word).is_some() || FOR_PEOPLE.contains(word) => {}
            None => fsconfig_set_flag(&context, *word).map_err(|error| said(error, word))?,
        }
    }
    fsconfig_create(&context).map_err(|error| said(error, "create"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as _))
        .map_err(|error| said(error, "mount"))
}

fn address(host: &str) -> Result<String> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let found = (host, 0).to_socket_addrs().map_err(|error| {
        Fault::retryable(format!("find the address of {host}"))
            .because(error)
            .hint("addr= takes an address, too")
    })?;
    let mut found = found.map(|address| address.ip().to_string());
    found.next().ok_or_else(|| Fault::not_found(format!("{host} has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_that_make_sense_and_others() {
        assert_eq!(wanted(&map(&[])).unwrap(), None);
        for good in [
            map(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=1000")]),
            map(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]),
            map(&[("type", "nfs"), ("device", ":/export"), ("o", "addr=10.0.0.1,rw,soft")]),
            map(&[("type", "cifs"), ("device", "//s/share"), ("o", "username=u,password=p")]),
        ] {
            assert!(wanted(&good).unwrap().is_some(), "{good:?}");
        }
        for bad in [
            map(&[("size", "1g")]),
            map(&[("colour", "red")]),
            map(&[("o", "ro")]),
            map(&[("type", "tmpfs")]),
            map(&[("device", "/dev/sda1")]),
            map(&[("type", "none"), ("device", "/srv")]),
            map(&[("type", "none"), ("device", "srv"), ("o", "bind")]),
            map(&[("type", "none"), ("device", "/srv"), ("o", "bind,size=1m")]),
            map(&[("type", "../x"), ("device", "x")]),
            map(&[("type", "tmpfs"), ("device", "x\0")]),
            map(&[("type", "overlay"), ("device", "x"), ("o", &"a".repeat(300))]),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_passwords("username=u,password=p,ro"), "username=u,password=***,ro");
    }
}
