//! What of a container's record the shim acts on.

use crate::log::Setup;
use fault::{Fault, Result};
use oci::wishes::{HealthPlan, RestartPolicy};
use record::{Record, Rootfs};
use runtime::RootFs;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug)]
pub struct Settings {
    pub terminal: bool,
    pub interactive: bool,
    pub auto_remove: bool,
    pub restart: RestartPolicy,
    pub log: Setup,
    pub runtime: Option<PathBuf>,
    pub rootfs: RootFs,
    /// How long it may run.
    pub timeout: Option<Duration>,
    pub pidfile: Option<PathBuf>,
    pub health: Option<HealthPlan>,
    pub stop: Stop,
}

/// How the container is stopped, as `ctr-stop` does it.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    pub signal: i32,
    /// Until SIGKILL; `None`: it never comes.
    pub timeout: Option<Duration>,
}

/// What ctr-create worked out for later.
#[derive(Default, Deserialize)]
struct Worked {
    stop_signal: Option<i32>,
    healthcheck: Option<HealthPlan>,
}

/// docker's.
const STOP_TIMEOUT: i64 = 10;

impl Settings {
    pub fn of(record: &Record, bundle: &Path) -> Result<Settings> {
        let config = record.config()?;
        let worked: Worked = record.get("container")?.unwrap_or_default();
        let timeout = config.stop_timeout.unwrap_or(STOP_TIMEOUT);
        Ok(Settings {
            terminal: config.tty,
            interactive: config.interactive,
            auto_remove: config.auto_remove,
            restart: RestartPolicy::parse(config.restart.as_deref().unwrap_or("no"))?,
            log: Setup::of(record, bundle)?,
            runtime: config.runtime.as_deref().map(find_runtime).transpose()?,
            timeout: config.timeout.map(Duration::from_secs),
            pidfile: config.pidfile.as_deref().map(PathBuf::from),
            rootfs: root_fs(record.rootfs()?, bundle, config.auto_remove)?,
            health: worked.healthcheck,
            stop: Stop {
                signal: worked.stop_signal.unwrap_or(libc::SIGTERM),
                timeout: u64::try_from(timeout).ok().map(Duration::from_secs),
            },
        })
    }
}

fn root_fs(rootfs: Option<Rootfs>, bundle: &Path, volatile: bool) -> Result<RootFs> {
    match rootfs {
        Some(rootfs) if rootfs.driver == "overlay" => Ok(RootFs::Overlay {
            lower: rootfs.layers.iter().map(PathBuf::from).collect(),
            upper: bundle.join("upper"),
            work: bundle.join("work"),
            // Gone with its container: nothing in it is worth waiting for the disk.
            volatile,
        }),
        Some(rootfs) if rootfs.driver == "directory" => Ok(RootFs::MappedDirectory),
        Some(rootfs) => Err(Fault::input(format!("rootfs driver {:?} is unknown", rootfs.driver))),
        None => Err(Fault::input("the container has no rootfs section").hint("img-unpack makes it")),
    }
}

/// Another OCI runtime, by path or by name in PATH.
fn find_runtime(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Fault::not_found(format!("runtime {name} is not in PATH")).hint("give its full path"))
}
