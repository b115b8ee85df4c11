//! `--security-opt`.

use super::mount::clean_target;
use fault::{Fault, Result};

/// Where a seccomp profile comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Nothing was asked for: the built-in profile, or none when privileged.
    #[default]
    Default,
    Builtin,
    Unconfined,
    /// A file in docker's profile format.
    File(String),
    /// The profile's text itself.
    Inline(String),
}

/// All security options together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// Name of a loaded profile, or `unconfined`.
    pub apparmor: Option<String>,
    /// Hide nothing of /proc and /sys, make nothing there read-only.
    pub unconfined_paths: bool,
    /// Hidden beside the usual ones.
    pub mask: Vec<String>,
    /// Neither hidden nor read-only; `*` in a name stands for anything but a slash.
    pub unmask: Vec<String>,
    /// Options of the mount at /proc: `hidepid=2`.
    pub proc_options: Vec<String>,
    /// Whether the container may write to its control groups.
    pub writable_cgroups: bool,
}

const KNOWN: &str = "one of: no-new-privileges[=true|false], seccomp=unconfined|builtin|FILE, apparmor=PROFILE, \
    systempaths=unconfined, mask=PATH:…, unmask=PATH:…|ALL, proc-opts=OPTION,…, writable-cgroups[=true|false], label=disable";

impl Security {
    /// The last of several of one kind counts; paths and options of /proc add up.
    pub fn parse(options: &[String]) -> Result<Security> {
        let mut security = Security::default();
        for option in options {
            security.add(option)?;
        }
        Ok(security)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        // docker once wrote `name:value`, and still takes it.
        let split = option.find('=').or_else(|| option.find(':'));
        let (name, value) = match split {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let wrong = |why: &str| Fault::input(format!("security option \"{option}\": {why}")).hint(KNOWN);
        let switch = |value: Option<&str>| match value {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(wrong("the value is not true or false")),
        };
        match (name, value) {
            ("no-new-privileges", value) => self.no_new_privileges = switch(value)?,
            ("writable-cgroups", value) => self.writable_cgroups = switch(value)?,
            ("seccomp", Some("unconfined")) => self.seccomp = Seccomp::Unconfined,
            ("seccomp", Some("builtin")) => self.seccomp = Seccomp::Builtin,
            ("seccomp", Some(text)) if text.trim_start().starts_with('{') => {
                self.seccomp = Seccomp::Inline(text.to_owned());
            }
            ("seccomp", Some(file)) if !file.is_empty() => self.seccomp = Seccomp::File(file.to_owned()),
            ("apparmor", Some(profile)) if !profile.is_empty() => self.apparmor = Some(profile.to_owned()),
            ("systempaths", Some("unconfined")) | ("unmask", Some("ALL")) => self.unconfined_paths = true,
            ("systempaths", _) => return Err(wrong("there is only systempaths=unconfined")),
            ("mask", Some(list)) if !list.is_empty() => self.mask.extend(paths(list, &wrong)?),
            ("unmask", Some(list)) if !list.is_empty() => self.unmask.extend(paths(list, &wrong)?),
            ("proc-opts", Some(list)) if !list.is_empty() => {
                for option in list.split(',') {
                    if !is_proc_option(option) {
                        return Err(wrong(
                            "options of /proc are hidepid=…, gid=…, subset=pid, noexec, nosuid, nodev, ro",
                        ));
                    }
                    self.proc_options.push(option.to_owned());
                }
            }
            // Nothing is ever labelled.
            ("label", Some("disable")) => {}
            ("label", Some(_)) => {
                return Err(wrong("SELinux labels are not set by this runtime; there is only label=disable"));
            }
            ("seccomp" | "apparmor" | "mask" | "unmask" | "proc-opts" | "label", _) => {
                return Err(wrong("it needs a value"));
            }
            _ => return Err(wrong("there is none of this name")),
        }
        Ok(())
    }
}

/// Paths with colons between, as podman takes them.
fn paths(list: &str, wrong: &dyn Fn(&str) -> Fault) -> Result<Vec<String>> {
    let one =
        |path: &str| clean_target(path).map_err(|_| wrong("paths are absolute, with colons between them"));
    list.split(':').map(one).collect()
}

/// proc(5); what would open a hole in the container is left out.
fn is_proc_option(option: &str) -> bool {
    match option.split_once('=') {
        Some(("hidepid", value)) => {
            matches!(value, "0" | "1" | "2" | "4" | "off" | "noaccess" | "invisible" | "ptraceable")
        }
        Some(("gid", value)) => value.parse::<u32>().is_ok(),
        Some(("subset", value)) => value == "pid",
        Some(_) => false,
        None => matches!(option, "noexec" | "nosuid" | "nodev" | "ro"),
    }
}

/// Whether a path is one that `unmask` names, by `*` perhaps, or lies below one.
pub fn unmasks(patterns: &[String], path: &str) -> bool {
    let names =
        |text: &str| text.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let path = names(path);
    patterns.iter().any(|pattern| {
        let pattern = names(pattern);
        pattern.len() <= path.len() && pattern.iter().zip(&path).all(|(pattern, name)| glob(pattern, name))
    })
}

/// `*` stands for anything. No recursion: at the last star, one more letter at a time.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, place));
            at += 1;
        } else if pattern.get(at) == text.get(place) {
            at += 1;
            place += 1;
        } else if let Some((from, taken)) = star {
            star = Some((from, taken + 1));
            (at, place) = (from + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Security> {
        Security::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn security_options() {
        assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(parse(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!parse(&["no-new-privileges", "no-new-privileges=false"]).unwrap().no_new_privileges);
        assert_eq!(parse(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(parse(&["seccomp:/a=b"]).unwrap_err().kind(), fault::Kind::Input);
        assert_eq!(parse(&["seccomp=/a:b"]).unwrap().seccomp, Seccomp::File("/a:b".into()));
        assert_eq!(parse(&["seccomp={}"]).unwrap().seccomp, Seccomp::Inline("{}".into()));
        assert_eq!(parse(&["apparmor=mine"]).unwrap().apparmor.as_deref(), Some("mine"));
        assert!(parse(&["systempaths=unconfined"]).unwrap().unconfined_paths);
        assert!(parse(&["unmask=ALL"]).unwrap().unconfined_paths);
        assert!(parse(&["writable-cgroups=true"]).unwrap().writable_cgroups);
        assert!(parse(&["label=disable"]).is_ok() && parse(&["label:disable"]).is_ok());
        let lists = parse(&["mask=/a:/b/../c", "unmask=/proc/kcore", "proc-opts=hidepid=2,gid=5"]).unwrap();
        assert_eq!(lists.mask, ["/a", "/c"]);
        assert_eq!(
            (lists.unmask, lists.proc_options),
            (vec!["/proc/kcore".into()], vec!["hidepid=2".into(), "gid=5".into()])
        );
        for wrong in [
            "",
            "label=type:x",
            "label=user:x",
            "seccomp",
            "seccomp=",
            "apparmor:",
            "no-new-privileges=yes",
            "systempaths=x",
            "mask=",
            "mask=a",
            "unmask=/a:b",
            "proc-opts=suid",
            "proc-opts=hidepid=9",
            "writable-cgroups=1",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns() {
        let unmask = |pattern: &str, path: &str| unmasks(&[pattern.to_owned()], path);
        assert!(
            unmask("/proc/kcore", "/proc/kcore")
                && unmask("/proc/*", "/proc/kcore")
                && unmask("/proc", "/proc/kcore")
        );
        assert!(unmask("/sys/*/virtual/p*r*p", "/sys/devices/virtual/powercap"));
        assert!(
            !unmask("/proc/k", "/proc/kcore")
                && !unmask("/proc/*x", "/proc/kcore")
                && !unmask("/proc/a/b", "/proc/a")
        );
    }
}
