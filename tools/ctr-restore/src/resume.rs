//! A container whose saved processes are in its bundle goes on.

use crate::Args;
use cli::{Fault, Result};
use record::{Container, Record};
use runtime::checkpoint::stats;
use serde_json::{Value, json};
use shim::{Client, Request};
use std::time::{Duration, Instant};
use store::{ContainerDir, Store};

/// How long a shim may take to let go of a container that was only set up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

pub struct Wish {
    tcp_established: bool,
    file_locks: bool,
    keep: bool,
    statistics: bool,
}

impl Wish {
    pub fn of(args: &Args) -> Wish {
        Wish {
            tcp_established: args.tcp_established,
            file_locks: args.file_locks,
            keep: args.keep,
            statistics: args.print_stats,
        }
    }
}

/// Sets the container up and on its network as for a start, then has its shim put the saved processes in the place of the waiting one. After a
/// failure the container has ended as before, and the checkpoint is there still.
pub fn resume(
    store: &Store,
    dir: &ContainerDir,
    wish: &Wish,
    record: Option<&Record>,
    warn: &mut dyn FnMut(&str),
) -> Result<Option<Value>> {
    let client = match ctr_start::make_ready(store, dir, record, warn) {
        Ok(Some(client)) => client,
        Ok(None) => return Err(Fault::conflict("the container is running")),
        Err(fault) => {
            // Why it failed is what is told.
            let _ = discard(dir);
            return Err(fault);
        }
    };
    let began = Instant::now();
    let order = Request::Restore { tcp_established: wish.tcp_established, file_locks: wish.file_locks };
    client.request(&order, &[])?;
    let took = began.elapsed();
    dir.update(|record| {
        let mut container: Container = record.require("container")?;
        container.restored_at = dir.last_run()?.and_then(|run| run.started_at);
        record.set("container", &container)
    })?;
    let statistics = if wish.statistics { Some(statistics(dir, took)?) } else { None };
    if !wish.keep {
        checkpoint::remove(dir)?;
        checkpoint::remove_traces(dir);
    }
    Ok(statistics)
}

/// Times in microseconds.
fn statistics(dir: &ContainerDir, took: Duration) -> Result<Value> {
    Ok(json!({
        "runtime_restore_duration": took.as_micros() as u64,
        "criu_statistics": stats::of(&dir.bundle.join(stats::RESTORE))?,
    }))
}

/// Ends a process that waits to be started, and its shim.
pub fn discard(dir: &ContainerDir) -> Result<()> {
    if let Some(client) = Client::connect(dir)? {
        client.request(&Request::Discard, &[])?;
    }
    let deadline = Instant::now() + PATIENCE;
    while dir.has_shim() {
        if Instant::now() > deadline {
            return Err(Fault::retryable("the container's shim does not end"));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
