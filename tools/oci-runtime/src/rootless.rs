//! What an ordinary user's container must be, told in runc's words before anything is made.

use crate::process;
use fault::{Fault, Result};
use runtime::{NamespaceKind, Spec};

/// Nothing for the superuser, of whatever user namespace.
pub fn check(spec: &Spec) -> Result<()> {
    if process::effective_uid() == 0 {
        return Ok(());
    }
    if spec.namespace(NamespaceKind::User).is_none() {
        return Err(Fault::input("rootless container requires user namespaces")
            .hint("spec --rootless writes a config.json for an ordinary user"));
    }
    if !spec.linux.net_devices.is_empty() {
        return Err(Fault::input("network devices are not supported for rootless containers"));
    }
    let groups = &spec.process()?.user.additional_gids;
    // Whoever maps but its own group has to give up setgroups(2) for it (user_namespaces(7)).
    let alone = matches!(spec.linux.gid_mappings.as_slice(), [one] if one.size() == 1);
    if alone && !groups.is_empty() {
        return Err(Fault::input("cannot set any additional groups in a rootless container")
            .hint("map more than one group: newgidmap takes them from /etc/subgid"));
    }
    Ok(())
}
