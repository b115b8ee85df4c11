//! What this user may do: capabilities, and user namespaces for those who are not root.

use crate::{Row, text};
use oci::capabilities::NAMES;
use std::path::Path;

pub fn rows() -> Vec<Row> {
    vec![capabilities(), ordinary_users()]
}

/// Without these no container can be made.
const ESSENTIAL: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETPCAP", "NET_ADMIN", "SYS_ADMIN", "MKNOD"];

fn capabilities() -> Row {
    const NAME: &str = "capabilities";
    let status = text("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()) else {
        return Row::warn(NAME, "unknown", "mount /proc");
    };
    let last = text("/proc/sys/kernel/cap_last_cap").and_then(|last| last.parse().ok()).unwrap_or(40);
    judge(held, last)
}

fn judge(held: u64, last: usize) -> Row {
    const NAME: &str = "capabilities";
    let known = NAMES.iter().enumerate().take(last + 1);
    let lacking: Vec<&str> =
        known.filter(|(number, _)| held >> number & 1 == 0).map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        return Row::ok(NAME, "all");
    }
    if held == 0 {
        return Row::missing(NAME, "none", "run as root (sudo)");
    }
    let detail = format!("without {}", lacking.join(" "));
    if lacking.iter().any(|name| ESSENTIAL.contains(name)) {
        return Row::missing(
            NAME,
            detail,
            "run as root, or in a sandbox that leaves root these capabilities",
        );
    }
    let hint = if lacking.contains(&"SYS_RESOURCE") {
        "limits above the present ones (--ulimit) and a lower OOM score cannot be given to containers"
    } else {
        "containers cannot be given these with --cap-add or --privileged"
    };
    Row::warn(NAME, detail, hint)
}

fn ordinary_users() -> Row {
    const NAME: &str = "rootless";
    let off = |file: &str, value: &str| text(file).as_deref() == Some(value);
    let only_rootless = "only for users other than root";
    if off("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        let hint = format!("{only_rootless}: sysctl -w kernel.unprivileged_userns_clone=1");
        return Row::warn(NAME, "user namespaces are for root", hint);
    }
    if off("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        let hint = format!("{only_rootless}: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
        return Row::warn(NAME, "AppArmor keeps user namespaces from ordinary users", hint);
    }
    if !["/usr/bin/newuidmap", "/bin/newuidmap"].iter().any(|file| Path::new(file).exists()) {
        let hint = format!("{only_rootless}: install newuidmap (on Debian: apt-get install uidmap)");
        return Row::warn(NAME, "no newuidmap", hint);
    }
    if text("/etc/subuid").unwrap_or_default().is_empty()
        || text("/etc/subgid").unwrap_or_default().is_empty()
    {
        let hint =
            format!("{only_rootless}: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER");
        return Row::warn(NAME, "nobody has subordinate user ids", hint);
    }
    Row::ok(NAME, "user namespaces, newuidmap, subordinate ids")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn what_lacks_is_named_and_weighed() {
        assert_eq!(judge(0x1ff_ffff_ffff, 40).status, Status::Ok);
        let without_resource = judge(0x1ff_feff_ffff, 40);
        assert_eq!(without_resource.status, Status::Warn);
        assert_eq!(without_resource.detail, "without SYS_RESOURCE");
        // What docker leaves in a container by default.
        assert_eq!(judge(0xa804_25fb, 40).status, Status::Missing);
        assert_eq!(judge(0, 40).status, Status::Missing);
    }
}
