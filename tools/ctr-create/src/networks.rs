//! Networks that are asked for.

use fault::{Fault, Result};
use oci::wishes::NetworkMode;
use record::Config;
use store::Store;

/// A network that is made when it is missing.
const DEFAULT: &str = "bridge";

/// Whether the networks a container is to be attached to are there: told before it is made, not when it is attached.
///
/// Fails with not found for one that is not.
pub fn exist(store: &Store, config: &Config) -> Result<()> {
    let names = config.network.iter().chain(config.networks.iter().map(|wish| &wish.name));
    for name in names.map(String::as_str).filter(|name| !is_mode(name)) {
        store::check_name(name)?;
        if !store.network_dir(name).join("network.json").exists() {
            return Err(Fault::not_found("no such network")
                .on(name)
                .hint(format!("net-create {name} makes it, net-ls lists those there are")));
        }
    }
    Ok(())
}

/// What says how to do without a network of its own, and the default one.
fn is_mode(name: &str) -> bool {
    matches!(name, "" | DEFAULT | "default")
        || NetworkMode::parse(name).is_ok_and(|mode| mode != NetworkMode::Bridge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let dir = std::env::temp_dir().join(format!("ctr-create-networks-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let asks = |name: &str| exist(&store, &Config { network: Some(name.into()), ..Config::default() });
        for mode in ["", "bridge", "none", "host", "private", "container:x", "ns:/x"] {
            asks(mode).unwrap();
        }
        assert_eq!(asks("web").unwrap_err().kind(), fault::Kind::NotFound);
        std::fs::create_dir_all(store.network_dir("web")).unwrap();
        assert_eq!(asks("web").unwrap_err().kind(), fault::Kind::NotFound);
        std::fs::write(store.network_dir("web").join("network.json"), "{}").unwrap();
        asks("web").unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
