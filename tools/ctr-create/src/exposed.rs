//! `--publish-all`: the ports the image and the user expose become ports to publish. Without a network of its own none are published.

use crate::make::Warn;
use cli::{Fault, Result};
use oci::wishes::{NetworkMode, names, port};
use record::{Config, PortWish, Record};

/// More than any image has a use for: an image is hostile input.
const MAX_PORTS: usize = 1024;

/// Adds those that are not published yet, each at a free port of the host. Does nothing unless it is asked for.
///
/// On the machine's own network, and on none, all are left out with a warning, as docker and podman do: scripts give the same flags
/// for every network.
pub fn publish(record: &Record, config: &mut Config, warn: Warn<'_>) -> Result<()> {
    if config.ports.is_empty() && !config.publish_all {
        return Ok(());
    }
    match NetworkMode::of(config)? {
        NetworkMode::Bridge | NetworkMode::Private => {}
        mode @ (NetworkMode::Host | NetworkMode::None) => {
            config.ports.clear();
            config.publish_all = false;
            warn(if mode == NetworkMode::Host {
                "with --network host no ports are published: the container's are the host's"
            } else {
                "with --network none no ports are published"
            });
            return Ok(());
        }
        _ if config.publish_all => {
            return Err(
                Fault::usage("ports can be published on a network only").hint("leave --network or -P out")
            );
        }
        _ => {}
    }
    if !config.publish_all {
        return Ok(());
    }
    let image = record.image()?.filter(|_| config.rootfs.is_none()).map(|image| image.config);
    let of_image = image.as_ref().and_then(|image| image["config"]["ExposedPorts"].as_object());
    let mut wanted: Vec<(u16, String)> = Vec::new();
    for text in of_image.into_iter().flat_map(|ports| ports.keys()).chain(&config.expose) {
        for exposed in names::exposed(text).map_err(|fault| fault.within("an exposed port"))? {
            if !wanted.contains(&exposed) {
                wanted.push(exposed);
            }
        }
        if wanted.len() > MAX_PORTS {
            return Err(
                Fault::input(format!("more than {MAX_PORTS} ports are exposed")).hint("publish some with -p")
            );
        }
    }
    wanted.sort();
    let published = config.ports.iter().map(port).collect::<Result<Vec<_>>>()?;
    let is_published = |(number, protocol): &(u16, String)| {
        published.iter().any(|port| {
            let last = u32::from(port.container) + u32::from(port.count.unwrap_or(1).max(1)) - 1;
            port.protocol == *protocol && (u32::from(port.container)..=last).contains(&u32::from(*number))
        })
    };
    let free = wanted.into_iter().filter(|port| !is_published(port));
    config.ports.extend(free.map(|(number, protocol)| PortWish::Text(format!("{number}/{protocol}"))));
    Ok(())
}
