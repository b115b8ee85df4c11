//! criu, where it works: in the version 2 guest with Debian 12's kernel for one.

use std::path::Path;
use std::process::Command;
use testkit::skip;

/// Whether criu can do anything on this machine; said aloud if not.
pub fn criu_works() -> bool {
    // It leaves a log where it was called.
    let dir = testkit::Place::new();
    let check = Command::new("criu").arg("check").current_dir(dir.path()).output();
    // It passes its own check on some kernels it cannot restore on, and on version 1 groups.
    let works = check.is_ok_and(|output| output.status.success())
        && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !works {
        skip(
            "criu does not work here: it is not installed, criu check fails, or control groups are not version 2",
        );
    }
    works
}
