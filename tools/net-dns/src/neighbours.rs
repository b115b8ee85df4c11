//! The resolvers of the other networks a container is on: what they know it may ask for as well, whichever of its name servers
//! it asks first. A C library takes the first answer it gets, so that has to be the whole answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use store::Store;

/// Containers whose networks are kept in mind.
const MOST: usize = 4096;

/// Other networks of one container that are asked.
const MOST_OF_ONE: usize = 8;

/// Device, inode, and time of the last change of a container's attachments.
type Version = (u64, u64, i64, i64);

#[derive(Debug, Default)]
pub struct Neighbours {
    of: HashMap<String, (Version, Vec<SocketAddr>)>,
}

impl Neighbours {
    /// Resolvers of networks beside this one, by the host's address on each.
    pub fn of(&mut self, store: &Store, network: &str, container: &str) -> &[SocketAddr] {
        if !store::is_id(container) {
            return &[];
        }
        let attachments = store.container_dir(container).bundle.join("networks.json");
        let Ok(file) = std::fs::metadata(attachments) else { return &[] };
        let version = (file.dev(), file.ino(), file.ctime(), file.ctime_nsec());
        if self.of.get(container).is_none_or(|(known, _)| *known != version) {
            if self.of.len() >= MOST {
                self.of.clear();
            }
            self.of.insert(container.to_owned(), (version, look(store, network, container)));
        }
        self.of.get(container).map_or(&[], |(_, servers)| servers)
    }
}

fn look(store: &Store, network: &str, container: &str) -> Vec<SocketAddr> {
    let record = store.container_dir(container).load();
    let attachments = record.and_then(|record| record.networks()).unwrap_or_default();
    let others = attachments.iter().filter(|one| one.name != network);
    let with_names = others.filter(|one| matches!(crate::definition(store, &one.name), Ok(Some(_))));
    let address = |text: &Option<String>| text.as_ref()?.parse::<IpAddr>().ok();
    with_names
        .filter_map(|one| address(&one.gateway).or_else(|| address(&one.gateway6)))
        .map(|gateway| SocketAddr::from((gateway, 53)))
        .take(MOST_OF_ONE)
        .collect()
}
