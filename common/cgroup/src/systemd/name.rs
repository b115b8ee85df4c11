//! Names of units, and where systemd puts them (systemd.unit(5), systemd.slice(5)).

use super::Manager;
use fault::{Fault, Result};

const SLICE: &str = ".slice";
/// Longest name of a unit, in bytes (`UNIT_NAME_MAX`).
const LONGEST: usize = 255;

/// What `cgroupsPath` says for this driver: `slice:prefix:name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The slice it is to be in.
    pub slice: String,
    /// `prefix-name.scope`, or a name that is a slice's.
    pub unit: String,
}

impl Names {
    /// An empty slice is the default one, and without a prefix the name stands alone. The words of the error are runc's.
    pub fn parse(path: &str, manager: Manager) -> Result<Names> {
        let parts: Vec<&str> = path.split(':').collect();
        let &[slice, prefix, name] = parts.as_slice() else {
            let what = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups";
            return Err(Fault::input(format!("{what}, got {path:?} instead"))
                .hint("leave --systemd-cgroup out if it is a path"));
        };
        let slice = match (slice, manager) {
            ("", Manager::System) => "system.slice",
            ("", Manager::User) => "user.slice",
            (slice, _) => slice,
        };
        expand_slice(slice)?;
        let unit = match (name, prefix) {
            ("", _) => return Err(Fault::input(format!("linux.cgroupsPath: no name in {path:?}"))),
            (name, _) if name.ends_with(SLICE) => {
                expand_slice(name)?;
                name.to_owned()
            }
            (name, "") => format!("{name}.scope"),
            (name, prefix) => format!("{prefix}-{name}.scope"),
        };
        check(&unit)?;
        Ok(Names { slice: slice.to_owned(), unit })
    }

    pub fn is_slice(&self) -> bool {
        is_slice(&self.unit)
    }
}

pub fn is_slice(unit: &str) -> bool {
    unit.ends_with(SLICE)
}

/// Refuses what is no unit's name, before it becomes part of a path.
pub fn check(unit: &str) -> Result<()> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
    let bad = |why: String| Err(Fault::input(format!("{unit:?} cannot be a unit of systemd: {why}")));
    if let Some(byte) = unit.bytes().find(|byte| !known(*byte)) {
        return bad(format!("{:?} is none of letters, digits and :-_.\\", char::from(byte)));
    }
    if unit.len() > LONGEST {
        return bad(format!("it is longer than {LONGEST} bytes"));
    }
    match unit.rsplit_once('.') {
        Some((stem, "scope" | "slice")) if !stem.is_empty() => Ok(()),
        _ => bad("it is neither a scope nor a slice".to_owned()),
    }
}

/// Where a slice is, below the manager's own group: `a-b.slice` is `/a.slice/a-b.slice`, and `-.slice` is the root.
pub fn expand_slice(slice: &str) -> Result<String> {
    let invalid = || Fault::input(format!("invalid slice name: {slice}"));
    let stem = slice.strip_suffix(SLICE).ok_or_else(invalid)?;
    if stem == "-" {
        return Ok("/".to_owned());
    }
    check(slice)?;
    let mut path = String::new();
    let mut prefix = String::new();
    for component in stem.split('-') {
        if component.is_empty() {
            return Err(invalid());
        }
        prefix.push_str(component);
        path.push('/');
        path.push_str(&prefix);
        path.push_str(SLICE);
        prefix.push('-');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_in_slices() {
        for (slice, path) in [
            ("a.slice", "/a.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", "/"),
            ("kubepods-besteffort.slice", "/kubepods.slice/kubepods-besteffort.slice"),
        ] {
            assert_eq!(expand_slice(slice).unwrap(), path);
        }
        let long = format!("{}.slice", "x".repeat(300));
        for bad in [
            "",
            ".slice",
            "a",
            "a/b.slice",
            "-a.slice",
            "a-.slice",
            "a--b.slice",
            "../x.slice",
            "a b.slice",
            &long,
        ] {
            assert!(expand_slice(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn units_are_named_by_the_specification() {
        let parse = |path| Names::parse(path, Manager::System);
        let names = |slice: &str, unit: &str| Names { slice: slice.to_owned(), unit: unit.to_owned() };
        assert_eq!(parse("a-b.slice:docker:12").unwrap(), names("a-b.slice", "docker-12.scope"));
        assert_eq!(parse(":cri:x").unwrap(), names("system.slice", "cri-x.scope"));
        assert_eq!(parse("::x").unwrap(), names("system.slice", "x.scope"));
        assert_eq!(Names::parse(":p:x", Manager::User).unwrap(), names("user.slice", "p-x.scope"));
        assert!(parse("machine.slice:p:x.slice").unwrap().is_slice());
        for bad in [
            "",
            "/a/b",
            "a:b",
            "a.slice:b:c:d",
            "system.slice:p:",
            "x:p:n",
            "x.scope:p:n",
            "system.slice:p/q:n",
            "system.slice:p:../n",
            "system.slice:p:n+1",
            "system.slice:p:n\n",
            "system.slice:p:-x.slice",
            &format!(":p:{}", "n".repeat(260)),
        ] {
            assert_eq!(parse(bad).unwrap_err().kind(), fault::Kind::Input, "{bad}");
        }
    }
}
