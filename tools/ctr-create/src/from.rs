//! `--volumes-from`: the mounts of another container, as they are when this one is made.

use cli::Result;
use oci::wishes::mount::{self, MountsFrom};
use record::{Config, Mount, MountWish, Volume};
use store::Store;

/// Puts the mounts of the containers in `volumes_from` among `mounts`, where there is none yet at the same place, and takes
/// `volumes_from` away: what the other container becomes later changes nothing here.
///
/// # Errors
/// Not found when there is no such container.
pub fn expand(store: &Store, config: &mut Config) -> Result<()> {
    for text in std::mem::take(&mut config.volumes_from) {
        let from = mount::mounts_from(&text)?;
        let found = of_container(store, &from)
            .map_err(|fault| fault.within(format!("volumes from {}", from.container)))?;
        for mount in found {
            if !config
                .mounts
                .iter()
                .any(|present| target_of(present).is_some_and(|target| target == mount.target))
            {
                config.mounts.push(MountWish::Mount(mount));
            }
        }
    }
    Ok(())
}

fn target_of(wish: &MountWish) -> Option<String> {
    mount::mount(wish).ok().map(|plan| plan.target)
}

fn of_container(store: &Store, from: &MountsFrom) -> Result<Vec<Mount>> {
    let record = store.find_container(&from.container)?.load()?;
    let volumes: Vec<Volume> = record.get("volumes")?.unwrap_or_default();
    let mut mounts: Vec<Mount> = Vec::new();
    for wish in &record.config()?.mounts {
        let target = mount::mount(wish)?.target;
        let mut mount = match wish {
            MountWish::Text(text) => mount::parse(text)?,
            MountWish::Mount(mount) => mount.clone(),
        };
        if mount.kind.as_deref() == Some("tmpfs") {
            continue;
        }
        if let Some(volume) = volumes.iter().find(|volume| volume.target == target) {
            mount.kind = Some("volume".to_owned());
            mount.source = Some(volume.name.clone());
            // It is there.
            mount.driver = None;
            mount.driver_options.clear();
            mount.labels.clear();
        }
        mount.chown = false;
        mount.target = target;
        mounts.push(mount);
    }
    // Those the image declares.
    for volume in volumes {
        if mounts.iter().all(|mount| mount.target != volume.target) {
            mounts.push(Mount {
                kind: Some("volume".to_owned()),
                source: Some(volume.name),
                target: volume.target,
                read_only: volume.read_only,
                ..Mount::default()
            });
        }
    }
    for mount in &mut mounts {
        if let Some(read_only) = from.read_only {
            mount.options.retain(|option| !matches!(option.as_str(), "ro" | "rro" | "rw"));
            mount.read_only = read_only;
        }
        mount.no_copy |= from.no_copy && mount.kind.as_deref() == Some("volume");
    }
    Ok(mounts)
}
