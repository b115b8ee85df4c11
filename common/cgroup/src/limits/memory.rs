//! `linux.resources.memory`.

use super::{Setting, or_max, push_linked, unsupported};
use fault::{Fault, Result};
use oci_spec::runtime::LinuxMemory;

pub fn version_1(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    let limits = Limits::of(memory)?;
    let both = match (limits.swap, limits.limit) {
        // Memory without a limit is not to be limited by what is left of one on both.
        (None, Some(-1)) => Some(-1),
        (swap, _) => swap,
    };
    if let (Some(limit @ 1..), Some(both @ 1..)) = (limits.limit, both)
        && both < limit
    {
        return Err(less_than_memory(both, limit));
    }
    // Neither may rise above the other on the way.
    let limit = limits.limit.map(|limit| Setting::new("memory.limit", "memory.limit_in_bytes", limit));
    let both = both
        .map(|both| Setting::new("memory.swap", "memory.memsw.limit_in_bytes", both).optional_if(both < 0));
    push_linked(list, limit.into_iter().chain(both));
    if let Some(reservation) = limits.reservation {
        list.push(Setting::new("memory.reservation", "memory.soft_limit_in_bytes", reservation));
    }
    for (member, file, limit) in [
        ("memory.kernel", "memory.kmem.limit_in_bytes", limits.kernel),
        ("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", limits.kernel_tcp),
    ] {
        if let Some(limit) = limit {
            list.push(Setting::new(member, file, limit).optional_if(limit < 0));
        }
    }
    if let Some(swappiness) = swappiness(memory) {
        if swappiness > 100 {
            return Err(Fault::input(format!(
                "linux.resources.memory.swappiness: {swappiness} is above 100"
            )));
        }
        list.push(Setting::new("memory.swappiness", "memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        list.push(Setting::new("memory.disableOOMKiller", "memory.oom_control", 1));
    }
    if let Some(hierarchy) = memory.use_hierarchy() {
        // Kernels that know nothing else have no such file any more.
        let setting = Setting::new("memory.useHierarchy", "memory.use_hierarchy", u8::from(hierarchy));
        list.push(setting.optional_if(hierarchy));
    }
    Ok(())
}

pub fn version_2(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    let limits = Limits::of(memory)?;
    // Before the limit: a smaller one is enforced at once, and swap may have to take what goes beyond it.
    if let Some(swap) = limits.swap_alone()? {
        // Without swap accounting there is nothing to take away or to give.
        let setting = Setting::new("memory.swap", "memory.swap.max", or_max(swap));
        list.push(setting.optional_if(swap <= 0));
    }
    if let Some(limit) = limits.limit {
        list.push(Setting::new("memory.limit", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = limits.reservation {
        list.push(Setting::new("memory.reservation", "memory.low", or_max(reservation)));
    }
    for (member, asked) in [
        ("memory.kernel", limits.kernel.is_some_and(|limit| limit > 0)),
        ("memory.kernelTCP", limits.kernel_tcp.is_some_and(|limit| limit > 0)),
        ("memory.swappiness", swappiness(memory).is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("memory.useHierarchy", memory.use_hierarchy() == Some(false)),
    ] {
        if asked {
            return unsupported(member, 2);
        }
    }
    Ok(())
}

/// In bytes, -1 for none. 0 asks for nothing, as every runtime has it.
struct Limits {
    limit: Option<i64>,
    /// Of memory and swap together.
    swap: Option<i64>,
    reservation: Option<i64>,
    kernel: Option<i64>,
    kernel_tcp: Option<i64>,
}

impl Limits {
    fn of(memory: &LinuxMemory) -> Result<Limits> {
        let given = |member: &str, bytes: Option<i64>| match bytes {
            None | Some(0) => Ok(None),
            Some(bytes @ -1..) => Ok(Some(bytes)),
            Some(bytes) => Err(Fault::input(format!(
                "linux.resources.memory.{member}: {bytes} is not a number of bytes, and not -1 for no limit"
            ))),
        };
        #[allow(deprecated)]
        let kernel = memory.kernel();
        Ok(Limits {
            limit: given("limit", memory.limit())?,
            swap: given("swap", memory.swap())?,
            reservation: given("reservation", memory.reservation())?,
            kernel: given("kernel", kernel)?,
            kernel_tcp: given("kernelTCP", memory.kernel_tcp())?,
        })
    }

    /// The runtime specification counts memory and swap together, version 2 swap alone.
    fn swap_alone(&self) -> Result<Option<i64>> {
        match (self.swap, self.limit) {
            // Memory without a limit is not to be limited by what is left of one on swap.
            (None, Some(-1)) | (Some(-1), _) => Ok(Some(-1)),
            (None, _) => Ok(None),
            // There is nothing to take away from it.
            (Some(swap), Some(-1)) => Ok(Some(swap)),
            (Some(swap), Some(limit)) if swap < limit => Err(less_than_memory(swap, limit)),
            (Some(swap), Some(limit)) => Ok(Some(swap - limit)),
            (Some(_), None) => Err(Fault::input(
                "linux.resources.memory.swap: unable to set swap limit without memory limit",
            )
            .hint("it is for memory and swap together: give memory.limit as well")),
        }
    }
}

fn less_than_memory(swap: i64, limit: i64) -> Fault {
    Fault::input(format!(
        "linux.resources.memory.swap: memory+swap limit should be >= memory limit: {swap} is for both, and memory alone may have {limit}"
    ))
}

/// Engines write -1 for none, which the specification's unsigned type turns into its largest value.
fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|swappiness| *swappiness != u64::MAX)
}
