//! `linux.resources` (config-linux.md, "Control groups") as files to write: pure, for both versions.

use fault::{Fault, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use std::fmt::{Display, Write};

/// One file of a controller, and what to write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Member of `linux.resources` that asks for it.
    pub member: String,
    /// Empty for files every group has.
    pub controller: String,
    pub file: String,
    pub value: String,
    /// What to write instead where the kernel has no such file.
    pub instead: Option<(String, String)>,
    /// Where the kernel has neither: nobody has asked for it by itself.
    pub optional: bool,
    /// Which of this and the next may come first depends on what is set already.
    pub or_after_next: bool,
}

impl Setting {
    fn new(member: impl Into<String>, file: impl Into<String>, value: impl Display) -> Setting {
        let file = file.into();
        let controller = file.split('.').next().unwrap_or_default();
        Setting {
            member: member.into(),
            controller: if controller == "cgroup" { String::new() } else { controller.to_owned() },
            value: value.to_string(),
            file,
            instead: None,
            optional: false,
            or_after_next: false,
        }
    }

    fn or(mut self, file: &str, value: impl Display) -> Setting {
        self.instead = Some((file.to_owned(), value.to_string()));
        self
    }

    fn optional(mut self) -> Setting {
        self.optional = true;
        self
    }

    fn or_after_next(mut self) -> Setting {
        self.or_after_next = true;
        self
    }
}

fn unsupported<T>(member: &str, version: u8) -> Result<T> {
    Err(Fault::failed(format!("linux.resources.{member}: version {version} control groups cannot do it")))
}

/// For version 1. Devices are not among them.
pub fn version_1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_1(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_1(cpu, &mut list);
    }
    if let Some(io) = resources.block_io() {
        block_io_1(io, &mut list);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit.page_size())?;
        let member = format!("hugepageLimits[{size}]");
        list.push(Setting::new(&member, format!("hugetlb.{size}.limit_in_bytes"), limit.limit()));
        list.push(
            Setting::new(&member, format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit()).optional(),
        );
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            list.push(Setting::new("network.classID", "net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            list.push(Setting::new("network.priorities", "net_prio.ifpriomap", value));
        }
    }
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return unsupported("unified", 1);
    }
    alike(resources, &mut list);
    Ok(list)
}

/// For version 2. Devices are not among them.
pub fn version_2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_2(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_2(cpu, &mut list)?;
    }
    if let Some(io) = resources.block_io() {
        block_io_2(io, &mut list)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit.page_size())?;
        let member = format!("hugepageLimits[{size}]");
        list.push(Setting::new(&member, format!("hugetlb.{size}.max"), or_max(limit.limit())));
        list.push(
            Setting::new(&member, format!("hugetlb.{size}.rsvd.max"), or_max(limit.limit())).optional(),
        );
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some()
            || network.priorities().as_ref().is_some_and(|list| !list.is_empty()))
    {
        return unsupported("network", 2);
    }
    alike(resources, &mut list);
    // Last, so that they have the last word.
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') || !file.contains('.') {
            return Err(Fault::input(format!("linux.resources.unified: {file:?} is not a file of a group")));
        }
        list.push(Setting::new(format!("unified[{file}]"), file, value));
    }
    Ok(list)
}

/// What both versions call the same.
fn alike(resources: &LinuxResources, list: &mut Vec<Setting>) {
    if let Some(cpu) = resources.cpu() {
        for (member, file, value) in
            [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
        {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                list.push(Setting::new(member, file, value));
            }
        }
        if let Some(idle) = cpu.idle() {
            list.push(Setting::new("cpu.idle", "cpu.idle", idle));
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let value = if limit <= 0 { "max".to_owned() } else { limit.to_string() };
        list.push(Setting::new("pids.limit", "pids.max", value));
    }
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    for (name, limits) in devices {
        let mut value = name.clone();
        for (key, number) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(number) = number {
                let _ = write!(value, " {key}={number}");
            }
        }
        list.push(Setting::new(format!("rdma[{name}]"), "rdma.max", value));
    }
}

/// Nothing is asked for by 0, as every runtime has it.
fn given(bytes: Option<i64>) -> Option<i64> {
    bytes.filter(|bytes| *bytes != 0)
}

fn or_max(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

fn memory_1(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let Some(limit) = limit {
        let setting = Setting::new("memory.limit", LIMIT, limit);
        // Neither may rise above the other on the way.
        list.push(if swap.is_some() || limit < 0 { setting.or_after_next() } else { setting });
    }
    match (swap, limit) {
        (Some(swap), _) => list.push(Setting::new("memory.swap", WITH_SWAP, swap)),
        // Memory without a limit is not to be limited by what is left of one on both.
        (None, Some(limit)) if limit < 0 => {
            list.push(Setting::new("memory.swap", WITH_SWAP, limit).optional());
        }
        _ => {}
    }
    if let Some(reservation) = given(memory.reservation()) {
        list.push(Setting::new("memory.reservation", "memory.soft_limit_in_bytes", reservation));
    }
    #[allow(deprecated)]
    if let Some(kernel) = given(memory.kernel()) {
        list.push(Setting::new("memory.kernel", "memory.kmem.limit_in_bytes", kernel));
    }
    if let Some(kernel) = given(memory.kernel_tcp()) {
        list.push(Setting::new("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", kernel));
    }
    if let Some(swappiness) = memory.swappiness() {
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
        list.push(if hierarchy { setting.optional() } else { setting });
    }
    Ok(())
}

fn memory_2(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    // Before the limit: a smaller one is enforced at once, and swap may have to take what goes beyond it.
    match (swap, limit) {
        (Some(swap), _) => {
            list.push(Setting::new("memory.swap", "memory.swap.max", or_max(swap_alone(swap, limit)?)));
        }
        (None, Some(-1)) => list.push(Setting::new("memory.swap", "memory.swap.max", "max").optional()),
        _ => {}
    }
    if let Some(limit) = limit {
        list.push(Setting::new("memory.limit", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = given(memory.reservation()) {
        list.push(Setting::new("memory.reservation", "memory.low", or_max(reservation)));
    }
    #[allow(deprecated)]
    let kernel = memory.kernel();
    for (member, asked) in [
        ("memory.kernel", given(kernel).is_some()),
        ("memory.kernelTCP", given(memory.kernel_tcp()).is_some()),
        ("memory.swappiness", memory.swappiness().is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("memory.useHierarchy", memory.use_hierarchy() == Some(false)),
    ] {
        if asked {
            return unsupported(member, 2);
        }
    }
    Ok(())
}

/// The runtime specification counts memory and swap together, version 2 swap alone.
fn swap_alone(swap: i64, limit: Option<i64>) -> Result<i64> {
    match limit {
        _ if swap < 0 => Ok(-1),
        Some(-1) => Err(Fault::input("linux.resources.memory.swap: a limit, but memory has none")),
        Some(limit) if swap < limit => Err(Fault::input(format!(
            "linux.resources.memory.swap: {swap} is for memory and swap together, and memory alone may have {limit}"
        ))),
        Some(limit) => Ok(swap - limit),
        None => Err(Fault::input("linux.resources.memory.swap: needs a limit on memory")),
    }
}

fn cpu_1(cpu: &LinuxCpu, list: &mut Vec<Setting>) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        list.push(Setting::new("cpu.shares", "cpu.shares", shares));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        let setting = Setting::new("cpu.period", "cpu.cfs_period_us", period);
        list.push(if quota.is_some() { setting.or_after_next() } else { setting });
    }
    if let Some(quota) = quota {
        list.push(Setting::new("cpu.quota", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        list.push(Setting::new("cpu.burst", "cpu.cfs_burst_us", burst));
    }
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        let setting = Setting::new("cpu.realtimePeriod", "cpu.rt_period_us", period);
        list.push(if runtime.is_some() { setting.or_after_next() } else { setting });
    }
    if let Some(runtime) = runtime {
        list.push(Setting::new("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime));
    }
}

fn cpu_2(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        list.push(Setting::new("cpu.shares", "cpu.weight", weight_of_shares(shares)));
    }
    let (quota, period) =
        (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        // The quota alone keeps the period.
        let mut value = quota.map_or_else(|| "max".to_owned(), or_max);
        if let Some(period) = period {
            let _ = write!(value, " {period}");
        }
        list.push(Setting::new("cpu.quota", "cpu.max", value));
    }
    if let Some(burst) = cpu.burst() {
        list.push(Setting::new("cpu.burst", "cpu.max.burst", burst));
    }
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period().is_some_and(|period| period != 0)
    {
        return unsupported("cpu.realtimeRuntime, cpu.realtimePeriod", 2);
    }
    Ok(())
}

type Throttles<'a> = [(&'static str, &'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>); 4];

/// Member, version 1's file, version 2's key.
fn throttles(io: &LinuxBlockIo) -> Throttles<'_> {
    [
        ("throttleReadBpsDevice", "read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "read_iops_device", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "write_iops_device", "wiops", io.throttle_write_iops_device()),
    ]
}

fn block_io_1(io: &LinuxBlockIo, list: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blockIO.weight", "blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blockIO.leafWeight", "blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            list.push(
                Setting::new("blockIO.weightDevice", "blkio.weight_device", line(weight))
                    .or("blkio.bfq.weight_device", line(weight)),
            );
        }
        if let Some(weight) = device.leaf_weight() {
            list.push(Setting::new("blockIO.weightDevice", "blkio.leaf_weight_device", line(weight)));
        }
    }
    for (member, file, _, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            list.push(Setting::new(format!("blockIO.{member}"), format!("blkio.throttle.{file}"), line));
        }
    }
}

fn block_io_2(io: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blockIO.weight", "io.bfq.weight", weight).or("io.weight", io_weight(weight)));
    }
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        return unsupported("blockIO.leafWeight", 2);
    }
    for device in io.weight_device().iter().flatten() {
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return unsupported("blockIO.weightDevice.leafWeight", 2);
        }
        if let Some(weight) = device.weight() {
            let line = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
            list.push(
                Setting::new("blockIO.weightDevice", "io.bfq.weight", line(weight.into()))
                    .or("io.weight", line(io_weight(weight))),
            );
        }
    }
    for (member, _, key, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            // 0 takes a limit away.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            list.push(Setting::new(format!("blockIO.{member}"), "io.max", line));
        }
    }
    Ok(())
}

/// bfq's 10 to 1000 mapped onto 1 to 10000 (the kernel's documentation has no table; all runtimes do it so).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

/// Version 1's 2 to 262144 mapped onto 1 to 10000, so that the default of one is the default of the other
/// (1024 gives 100), as the OCI runtimes agreed on in 2025: a quadratic in the logarithms.
fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent)).ceil() as u64
}

/// It becomes part of a file's name.
fn page_size(text: &str) -> Result<&str> {
    let number = text.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    if number.len() < text.len() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text);
    }
    Err(Fault::input(format!("linux.resources.hugepageLimits: {text:?} is not a size such as 2MB")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    fn lines(list: Result<Vec<Setting>>) -> Vec<String> {
        list.unwrap().into_iter().map(|s| format!("{} {}", s.file, s.value)).collect()
    }

    #[test]
    fn default_shares_are_the_default_weight() {
        assert_eq!(weight_of_shares(1024), 100);
        assert_eq!(weight_of_shares(0), 1);
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert!(weight_of_shares(512) < 100 && weight_of_shares(2048) > 100);
        assert_eq!((io_weight(10), io_weight(1000), io_weight(100)), (1, 10_000, 910));
    }

    #[test]
    fn memory_and_swap_are_counted_together_or_apart() {
        let both = resources(r#"{"memory":{"limit":1000,"swap":1500,"reservation":500}}"#);
        assert_eq!(
            lines(version_1(&both)),
            [
                "memory.limit_in_bytes 1000",
                "memory.memsw.limit_in_bytes 1500",
                "memory.soft_limit_in_bytes 500"
            ]
        );
        assert_eq!(lines(version_2(&both)), ["memory.swap.max 500", "memory.max 1000", "memory.low 500"]);
        let none = resources(r#"{"memory":{"limit":-1,"swap":-1}}"#);
        assert_eq!(lines(version_2(&none)), ["memory.swap.max max", "memory.max max"]);
        for bad in [r#"{"memory":{"swap":5}}"#, r#"{"memory":{"limit":9,"swap":5}}"#] {
            assert!(version_2(&resources(bad)).is_err(), "{bad}");
        }
        assert!(lines(version_1(&resources(r#"{"memory":{"limit":0,"swap":0}}"#))).is_empty());
    }

    #[test]
    fn processor_time() {
        let cpu = resources(
            r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":100,"cpus":"0-1","mems":"0","idle":1}}"#,
        );
        assert_eq!(
            lines(version_1(&cpu)),
            [
                "cpu.shares 1024",
                "cpu.cfs_period_us 10000",
                "cpu.cfs_quota_us 5000",
                "cpu.cfs_burst_us 100",
                "cpuset.cpus 0-1",
                "cpuset.mems 0",
                "cpu.idle 1"
            ]
        );
        assert_eq!(
            lines(version_2(&cpu)),
            [
                "cpu.weight 100",
                "cpu.max 5000 10000",
                "cpu.max.burst 100",
                "cpuset.cpus 0-1",
                "cpuset.mems 0",
                "cpu.idle 1"
            ]
        );
        assert_eq!(lines(version_2(&resources(r#"{"cpu":{"quota":-1}}"#))), ["cpu.max max"]);
    }

    #[test]
    fn everything_else() {
        let all = resources(
            r#"{"pids":{"limit":-1},"hugepageLimits":[{"pageSize":"2MB","limit":4}],
            "blockIO":{"weight":100,"weightDevice":[{"major":8,"minor":0,"weight":500}],
              "throttleReadBpsDevice":[{"major":8,"minor":1,"rate":600}]},
            "rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10}}}"#,
        );
        assert_eq!(
            lines(version_1(&all)),
            [
                "blkio.weight 100",
                "blkio.weight_device 8:0 500",
                "blkio.throttle.read_bps_device 8:1 600",
                "hugetlb.2MB.limit_in_bytes 4",
                "hugetlb.2MB.rsvd.limit_in_bytes 4",
                "pids.max max",
                "rdma.max mlx5_1 hca_handle=3 hca_object=10"
            ]
        );
        assert_eq!(
            lines(version_2(&all)),
            [
                "io.bfq.weight 100",
                "io.bfq.weight 8:0 500",
                "io.max 8:1 rbps=600",
                "hugetlb.2MB.max 4",
                "hugetlb.2MB.rsvd.max 4",
                "pids.max max",
                "rdma.max mlx5_1 hca_handle=3 hca_object=10"
            ]
        );
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (json, member) in [
            (r#"{"memory":{"swappiness":3}}"#, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
            (r#"{"cpu":{"realtimeRuntime":3}}"#, "cpu.realtimeRuntime"),
            (r#"{"network":{"classID":3}}"#, "network"),
            (r#"{"blockIO":{"leafWeight":30}}"#, "blockIO.leafWeight"),
            (r#"{"unified":{"../x":"1"}}"#, "unified"),
            (r#"{"hugepageLimits":[{"pageSize":"../x","limit":4}]}"#, "hugepageLimits"),
        ] {
            let fault = version_2(&resources(json)).unwrap_err().to_string();
            assert!(fault.contains(&format!("linux.resources.{member}")), "{fault}");
        }
        let fault = version_1(&resources(r#"{"unified":{"memory.high":"1"}}"#)).unwrap_err().to_string();
        assert!(fault.contains("linux.resources.unified"), "{fault}");
        assert_eq!(
            lines(version_2(&resources(r#"{"unified":{"memory.high":"1","cgroup.freeze":"0"}}"#))),
            ["cgroup.freeze 0", "memory.high 1"]
        );
    }
}
