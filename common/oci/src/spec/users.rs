//! The container's user namespace, and what is different in one.

use super::{Generator, Mounts, UserNamespace};
use crate::wishes::{IdMap, IpcMode, PidMode};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

impl Generator<'_> {
    pub(super) fn id_mappings(&self) -> (Option<Vec<LinuxIdMapping>>, Option<Vec<LinuxIdMapping>>) {
        match &self.users {
            Some(UserNamespace::New { uids, gids }) => (Some(mappings(uids)), Some(mappings(gids))),
            _ => (None, None),
        }
    }

    /// The groups whose processes may send ICMP echoes: all there are. The kernel takes ids only that are mapped.
    pub(super) fn ping_groups(&self) -> Option<String> {
        let last = match &self.users {
            None => 2_147_483_647,
            Some(UserNamespace::New { gids, .. }) => {
                let first = gids.iter().find(|map| map.container == 0)?;
                (first.size - 1).min(2_147_483_647)
            }
            // Which ids it has is not known here; docker leaves it as well.
            Some(UserNamespace::Join(_)) => return None,
        };
        Some(format!("0 {last}"))
    }

    /// In a user namespace only what its own namespaces show can be mounted anew; of the machine's, mounts that exist are bound, as podman
    /// does.
    pub(super) fn fit_to_users(&self, mounts: &mut Mounts) {
        let Some(users) = &self.users else { return };
        let own_network = self.wishes.network.is_private();
        // Queues that are not its own it finds by their names; a machine need not have them mounted.
        if matches!(self.wishes.ipc, IpcMode::Host | IpcMode::Container(_)) {
            mounts.list.retain(|mount| mount.typ().as_deref() != Some("mqueue"));
        }
        for mount in &mut mounts.list {
            let target = mount.destination().to_string_lossy().into_owned();
            let kind = mount.typ().clone().unwrap_or_default();
            match (target.as_str(), kind.as_str()) {
                // That of another container may be owned by this user namespace, and may not be.
                ("/sys", "sysfs") if !own_network => bind(mount, "/sys"),
                ("/proc", "proc") if self.wishes.pid != PidMode::Private => bind(mount, "/proc"),
                ("/dev/pts", "devpts") => {
                    let has_tty = match users {
                        UserNamespace::New { gids, .. } => gids.iter().any(|map| has(map, 5)),
                        UserNamespace::Join(_) => false,
                    };
                    if !has_tty && let Some(options) = mount.options() {
                        let kept = options.iter().filter(|option| *option != "gid=5").cloned().collect();
                        mount.set_options(Some(kept));
                    }
                }
                _ => {}
            }
        }
    }

    /// The option that maps the owners of what belongs to the container.
    pub(super) fn mapped(&self) -> Option<&'static str> {
        self.users.as_ref().map(|_| "idmap")
    }
}

fn has(map: &IdMap, id: u32) -> bool {
    id.checked_sub(map.container).is_some_and(|offset| offset < map.size)
}

fn bind(mount: &mut Mount, source: &str) {
    let mut options = vec!["rbind".to_owned(), "rprivate".to_owned()];
    // What belongs to the file system itself is as the machine has it.
    let plain = ["nosuid", "noexec", "nodev", "ro"];
    let old = mount.options().clone().unwrap_or_default();
    options.extend(old.into_iter().filter(|option| plain.contains(&option.as_str())));
    mount.set_typ(Some("bind".to_owned())).set_source(Some(source.into())).set_options(Some(options));
}

fn mappings(maps: &[IdMap]) -> Vec<LinuxIdMapping> {
    let build = |map: &IdMap| {
        let builder = LinuxIdMappingBuilder::default();
        builder.container_id(map.container).host_id(map.host).size(map.size).build().ok()
    };
    maps.iter().filter_map(build).collect()
}
