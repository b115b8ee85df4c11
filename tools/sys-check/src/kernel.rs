//! The kernel: version, namespaces, control groups, overlay, security modules.

use crate::{Row, text};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::path::Path;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![version()];
    rows.extend(namespaces());
    rows.push(control_groups());
    rows.push(overlay());
    rows.push(system_calls());
    rows.push(seccomp());
    rows.push(security_module());
    rows
}

/// The oldest kernel whose system calls suffice: `mount_setattr` (2021).
const OLDEST: (u32, u32) = (5, 12);
/// The oldest whose overlay takes layers one by one (`lowerdir+`).
const BETTER: (u32, u32) = (6, 7);

fn version() -> Row {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    judge_version(&release)
}

fn judge_version(release: &str) -> Row {
    const NAME: &str = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        return Row::missing(NAME, release, format!("Linux {}.{} or newer is needed", OLDEST.0, OLDEST.1));
    }
    if version < BETTER {
        let hint = format!("images with very many layers need Linux {}.{}", BETTER.0, BETTER.1);
        return Row::warn(NAME, release, hint);
    }
    Row::ok(NAME, release)
}

/// Name of the row, file in `/proc/self/ns`, file in `/proc/sys/user`, whether containers can do without it.
const NAMESPACES: [(&str, &str, &str, bool); 8] = [
    ("namespace-mount", "mnt", "max_mnt_namespaces", false),
    ("namespace-pid", "pid", "max_pid_namespaces", false),
    ("namespace-network", "net", "max_net_namespaces", false),
    ("namespace-ipc", "ipc", "max_ipc_namespaces", false),
    ("namespace-uts", "uts", "max_uts_namespaces", false),
    ("namespace-cgroup", "cgroup", "max_cgroup_namespaces", false),
    ("namespace-user", "user", "max_user_namespaces", true),
    ("namespace-time", "time", "max_time_namespaces", true),
];

fn namespaces() -> impl Iterator<Item = Row> {
    NAMESPACES.into_iter().map(|(name, file, limit, optional)| {
        let limit_file = format!("/proc/sys/user/{limit}");
        let most = text(&limit_file);
        let (detail, hint) = if !Path::new("/proc/self/ns").join(file).exists() {
            ("not in this kernel".to_owned(), "use a kernel with this kind of namespace".to_owned())
        } else if most.as_deref() == Some("0") {
            ("switched off".to_owned(), format!("write a number into {limit_file}"))
        } else {
            let most = most.map_or(String::new(), |most| format!("at most {most}"));
            return Row::ok(name, most);
        };
        if optional { Row::warn(name, detail, hint) } else { Row::missing(name, detail, hint) }
    })
}

/// Controllers the limits of `ctr-create` need.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

fn control_groups() -> Row {
    const NAME: &str = "cgroups";
    let (version, have) = match cgroup::version() {
        Some(cgroup::Version::V2) => {
            let controllers = text(&format!("{}/cgroup.controllers", cgroup::MOUNT)).unwrap_or_default();
            ("version 2", controllers.split_whitespace().map(str::to_owned).collect())
        }
        Some(cgroup::Version::V1) => ("version 1", mounted_v1_controllers()),
        None => {
            let hint = format!("mount them: mount -t cgroup2 cgroup2 {}", cgroup::MOUNT);
            return Row::missing(NAME, "not mounted", hint);
        }
    };
    judge_controllers(version, &have)
}

fn mounted_v1_controllers() -> Vec<String> {
    let mounts = text("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<String> = mounts
        .lines()
        .filter_map(|line| line.split_once(" - cgroup "))
        .filter_map(|(_, rest)| rest.split(' ').nth(1))
        .flat_map(|options| options.split(',').map(str::to_owned))
        .filter(|option| option != "rw" && !option.contains('='))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn judge_controllers(version: &str, have: &[String]) -> Row {
    const NAME: &str = "cgroups";
    let detail = format!("{version}: {}", have.join(" "));
    let lacking: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !have.iter().any(|h| h == name)).collect();
    if lacking.is_empty() {
        return Row::ok(NAME, detail);
    }
    let hint = format!(
        "limits of {0} cannot be set; boot with cgroup_enable={0}, or have the controllers delegated to this user",
        lacking.join(",")
    );
    Row::warn(NAME, detail, hint)
}

fn overlay() -> Row {
    const NAME: &str = "overlayfs";
    use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
    // Opening a file system loads its module; nothing is mounted.
    let context = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(context) => context,
        Err(Errno::NODEV) => return Row::missing(NAME, "not in this kernel", "load it: modprobe overlay"),
        Err(Errno::NOSYS) => {
            return Row::missing(NAME, "no fsopen", "a newer kernel, or a sandbox that allows fsopen");
        }
        Err(Errno::PERM) => {
            return Row::warn(NAME, "not allowed to try", "run sys-check as root to see");
        }
        Err(error) => return Row::warn(NAME, error.to_string(), "run sys-check as root to see"),
    };
    // Before 6.5 overlay took any option here and complained at the mount.
    let knows_options = fsconfig_set_string(&context, "no-such-option", "x").is_err();
    if knows_options && fsconfig_set_string(&context, "lowerdir+", "/").is_ok() {
        return Row::ok(NAME, "layers one by one (lowerdir+)");
    }
    Row::warn(
        NAME,
        "layers in one string only",
        format!("images with very many layers need Linux {}.{}", BETTER.0, BETTER.1),
    )
}

fn system_calls() -> Row {
    const NAME: &str = "system-calls";
    let mut lacking = Vec::new();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::IN_ROOT).err() == Some(Errno::NOSYS) {
        lacking.push("openat2");
    }
    let own = rustix::process::getpid();
    if rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).is_err() {
        lacking.push("pidfd_open");
    }
    if lacking.is_empty() {
        return Row::ok(NAME, "openat2 pidfd_open");
    }
    let detail = format!("without {}", lacking.join(", "));
    Row::missing(NAME, detail, "a newer kernel, or a sandbox that allows these system calls")
}

fn seccomp() -> Row {
    const NAME: &str = "seccomp";
    match text("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) => Row::ok(NAME, actions),
        None => Row::missing(
            NAME,
            "not in this kernel",
            "use a kernel with CONFIG_SECCOMP_FILTER, or --security-opt seccomp=unconfined",
        ),
    }
}

fn security_module() -> Row {
    const NAME: &str = "security-module";
    let apparmor = text("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y");
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    match (apparmor, selinux) {
        (true, _) => Row::ok(NAME, "AppArmor"),
        (false, true) => Row::ok(NAME, "SELinux"),
        // Containers are confined by namespaces, capabilities and seccomp all the same.
        (false, false) => Row::ok(NAME, "none; --security-opt apparmor= cannot be used"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn kernels_are_judged_by_their_version() {
        assert_eq!(judge_version("6.12.107+deb13-amd64").status, Status::Ok);
        assert_eq!(judge_version("6.1.0-50-amd64").status, Status::Warn);
        assert_eq!(judge_version("4.19.0").status, Status::Missing);
        assert_eq!(judge_version("nonsense").status, Status::Missing);
    }

    #[test]
    fn a_lacking_controller_is_named() {
        let have: Vec<String> = ["cpu", "cpuset", "pids"].map(str::to_owned).into();
        let row = judge_controllers("version 2", &have);
        assert_eq!(row.status, Status::Warn);
        assert!(row.hint.contains("cgroup_enable=memory"), "{}", row.hint);
    }
}
