//! Kernel parameters: where they are, and which namespace they belong to.

use fault::{Fault, Result};
use oci_spec::runtime::LinuxNamespaceType;

const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The file below `/proc/sys`. As sysctl(8) has it, the first separator is the separator: after a dot a slash stands for a
/// dot in a name, after a slash a dot is a dot.
pub fn path(name: &str) -> Result<String> {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let path = if slashes { name.to_owned() } else { swap(name) };
    if path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Fault::input(format!("linux.sysctl: {name:?} is not the name of a kernel parameter")));
    }
    Ok(path)
}

/// A name in the form in which dots separate.
pub fn dotted(name: &str) -> Result<String> {
    Ok(swap(&path(name)?))
}

fn swap(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// The namespace that has a parameter of its own, by the parameter's path; `None`: it is the whole machine's.
pub fn namespace(path: &str) -> Option<LinuxNamespaceType> {
    if path.starts_with("net/") {
        Some(LinuxNamespaceType::Network)
    } else if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        Some(LinuxNamespaceType::Ipc)
    } else if matches!(path, "kernel/hostname" | "kernel/domainname") {
        Some(LinuxNamespaceType::Uts)
    } else if path.starts_with("user/") {
        Some(LinuxNamespaceType::User)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_is_the_separator() {
        for (name, wanted) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ] {
            assert_eq!(path(name).unwrap(), wanted);
            assert_eq!(path(&dotted(name).unwrap()).unwrap(), wanted);
        }
        for name in
            ["", ".", "net..core", "net/../kernel/core_pattern", "net/./x", "/net/core", "net/", "a\0b"]
        {
            assert!(path(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn parameters_belong_to_namespaces() {
        for (path, wanted) in [
            ("net/core/somaxconn", Some(LinuxNamespaceType::Network)),
            ("kernel/shm_rmid_forced", Some(LinuxNamespaceType::Ipc)),
            ("fs/mqueue/msg_max", Some(LinuxNamespaceType::Ipc)),
            ("kernel/domainname", Some(LinuxNamespaceType::Uts)),
            ("user/max_user_namespaces", Some(LinuxNamespaceType::User)),
            ("kernel/core_pattern", None),
            ("vm/overcommit_memory", None),
            ("network/x", None),
        ] {
            assert_eq!(namespace(path), wanted, "{path}");
        }
    }
}
