//! A container that waits to be started, whatever state it was in.

use crate::config_of;
use fault::{Explain, Fault, Result};
use oci::wishes::NetworkMode;
use record::Record;
use shim::Client;
use std::io::Write;
use std::process::{Command, Stdio};
use store::{ContainerDir, Status, Store};

/// Brings a container to where it can be started: changed if its record was edited, set up again and back on its network if
/// it had ended. Returns the connection to its shim; `None` when it runs already.
pub fn make_ready(
    store: &Store,
    dir: &ContainerDir,
    record: Option<&Record>,
    warn: &mut dyn FnMut(&str),
) -> Result<Option<Client>> {
    ready(store, dir, record, warn).map_err(|fault| fault.on(dir.id.as_str()))
}

fn ready(
    store: &Store,
    dir: &ContainerDir,
    record: Option<&Record>,
    warn: &mut dyn FnMut(&str),
) -> Result<Option<Client>> {
    if let (Some(record), Some(config)) = (record, config_of(record)?) {
        ctr_create::update(store, dir, record, config, warn)?;
    }
    match shim::settled_status(dir)? {
        Status::Paused => {
            return Err(Fault::conflict("the container is paused").hint("ctr-unpause lets it run on"));
        }
        Status::Running | Status::Restarting => return Ok(None),
        Status::Created | Status::Exited => {}
    }
    if let Some(client) = Client::connect(dir)? {
        if let Some(record) = record {
            warn_if_unattached(record, warn)?;
        }
        return Ok(Some(client));
    }
    ctr_create::refresh(store, dir, warn)?;
    shim::start_shim(dir)?;
    warn_if_unattached(&dir.current()?, warn)?;
    network_again(dir)?;
    Client::connect(dir)?.map(Some).ok_or_else(|| Fault::failed("the container's shim ended at once"))
}

/// Who asks for networks or ports and is attached to nothing was left out of a pipe, or its attachment failed.
fn warn_if_unattached(record: &Record, warn: &mut dyn FnMut(&str)) -> Result<()> {
    let Some(config) = config_of(Some(record))? else { return Ok(()) };
    let asks = !config.ports.is_empty() || !config.networks.is_empty() || config.network.is_some();
    if asks && record.networks()?.is_empty() && NetworkMode::of(&config)? == NetworkMode::Bridge {
        warn(
            "it asks for networks or ports and is attached to none: net-attach does that before it is started",
        );
    }
    Ok(())
}

/// Attaches a container that was attached before. net-attach is another program: it links network code, this one does not.
pub fn network_again(dir: &ContainerDir) -> Result<()> {
    let record = dir.current()?;
    if record.networks()?.is_empty() {
        return Ok(());
    }
    let tool = shim::sibling("net-attach")?;
    let mut child = Command::new(&tool)
        .args(["--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .explain(|| format!("start {}", tool.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why itself.
        let _ = record.write_to(&mut stdin).and_then(|()| stdin.flush());
    }
    let status = child.wait().explain(|| "wait for net-attach".into())?;
    if status.success() {
        return Ok(());
    }
    Err(Fault::failed(format!("net-attach: {status}"))
        .hint("the container is set up, but without its network"))
}
