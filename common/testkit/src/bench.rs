//! Whole pipelines on a machine of one's own.

use crate::{DockerRegistry, Place, Ran, own_network, profile_dir};

/// A machine of one's own for one test: a network namespace, state directories, and a registry with the images.
///
/// Shell scripts run by [`Bench::sh`] have the tools in PATH and `$R`, the registry's address.
pub struct Bench {
    // Dropped first: containers are removed while the registry and the directories are there.
    pub place: Place,
    pub registry: DockerRegistry,
}

impl Bench {
    /// `None`, said aloud, where that takes more than this machine gives.
    pub fn new() -> Option<Bench> {
        if !own_network() {
            return None;
        }
        for tool in ["img-pull", "ctr-shim", "net-attach", "ctr-start"] {
            let built = profile_dir().join(tool);
            assert!(built.is_file(), "{} is not built; cargo build --release first", built.display());
        }
        let registry = DockerRegistry::with_images()?;
        let mut place = Place::new();
        place.set("R", registry.address());
        Some(Bench { place, registry })
    }

    /// The same with an empty registry beside it that may be written to, `$W`.
    pub fn with_another_registry() -> Option<(Bench, DockerRegistry)> {
        let mut bench = Bench::new()?;
        let storage = bench.place.path().join("storage");
        std::fs::create_dir(&storage).expect("make a directory");
        let registry = DockerRegistry::start(&storage, false)?;
        bench.place.set("W", registry.address());
        Some((bench, registry))
    }

    pub fn sh(&self, script: &str) -> Ran {
        self.place.sh(script)
    }

    /// The full reference of one of the images.
    pub fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.address())
    }
}

/// Waits until something becomes true; panics with `what` when it does not.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    // Generous: the guest is fifty times slower than the machine.
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(90);
    while !condition() {
        assert!(std::time::Instant::now() < give_up, "timed out waiting for: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
