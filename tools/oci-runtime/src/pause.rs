//! `pause` and `resume`.

use crate::call::Call;
use crate::state::Container;
use fault::{Fault, Result};
use runtime::Status;

pub fn pause(call: &Call<'_>) -> Result<u8> {
    let container = Container::load(call)?;
    match container.status()? {
        Status::Running | Status::Created => {}
        _ => return Err(Fault::conflict("container not running")),
    }
    container.need_cgroup()?.freeze()?;
    Ok(0)
}

pub fn resume(call: &Call<'_>) -> Result<u8> {
    let container = Container::load(call)?;
    if container.status()? != Status::Paused {
        return Err(Fault::conflict("container not paused"));
    }
    container.need_cgroup()?.thaw()?;
    Ok(0)
}
