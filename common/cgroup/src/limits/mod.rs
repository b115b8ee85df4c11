//! `linux.resources` (config-linux.md, "Control groups") as files to write: pure, for both versions.

mod cpu;
mod io;
mod memory;
#[cfg(test)]
mod tests;

use fault::{Fault, Result};
use oci_spec::runtime::LinuxResources;
use std::fmt::{Display, Write};

/// One file of a controller, and what to write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Member of `linux.resources` that asks for it.
    pub member: String,
    /// Empty for files every group has.
    pub controller: String,
    pub file: String,
    /// Each line is a write of its own.
    pub value: String,
    /// What to write instead where the kernel has no such file.
    pub instead: Option<(String, String)>,
    /// Where the kernel has neither: it asks for nothing else than what is so anyway.
    pub optional: bool,
    /// The kernel compares it with the next: which of them may come first depends on what is set already.
    pub with_next: bool,
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
            with_next: false,
        }
    }

    fn or(mut self, file: &str, value: impl Display) -> Setting {
        self.instead = Some((file.to_owned(), value.to_string()));
        self
    }

    fn optional_if(mut self, optional: bool) -> Setting {
        self.optional = optional;
        self
    }
}

/// Puts settings at the end of the list that the kernel compares with each other.
fn push_linked(list: &mut Vec<Setting>, settings: impl IntoIterator<Item = Setting>) {
    let before = list.len();
    list.extend(settings);
    let last = list.len().saturating_sub(1);
    for setting in list.get_mut(before..last).into_iter().flatten() {
        setting.with_next = true;
    }
}

fn unsupported<T>(member: &str, version: u8) -> Result<T> {
    Err(Fault::failed(format!(
        "invalid configuration: linux.resources.{member}: version {version} control groups cannot do it"
    )))
}

/// For version 1. Devices are not among them.
pub fn version_1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        memory::version_1(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::version_1(cpu, &mut list)?;
    }
    if let Some(io) = resources.block_io() {
        io::version_1(io, &mut list);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit.page_size())?;
        let member = format!("hugepageLimits[{size}]");
        list.push(Setting::new(&member, format!("hugetlb.{size}.limit_in_bytes"), limit.limit()));
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        list.push(Setting::new(&member, reserved, limit.limit()).optional_if(true));
    }
    if let Some(network) = resources.network() {
        // 0 is no class.
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
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
        memory::version_2(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::version_2(cpu, &mut list)?;
    }
    if let Some(io) = resources.block_io() {
        io::version_2(io, &mut list)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit.page_size())?;
        let member = format!("hugepageLimits[{size}]");
        list.push(Setting::new(&member, format!("hugetlb.{size}.max"), or_max(limit.limit())));
        let reserved = format!("hugetlb.{size}.rsvd.max");
        list.push(Setting::new(&member, reserved, or_max(limit.limit())).optional_if(true));
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some_and(|class| class != 0)
            || network.priorities().as_ref().is_some_and(|list| !list.is_empty()))
    {
        return unsupported("network", 2);
    }
    alike(resources, &mut list);
    unified(resources, &mut list)?;
    Ok(list)
}

/// Files by their names. Last, so that they have the last word; what belongs together among them is not known here.
fn unified(resources: &LinuxResources, list: &mut Vec<Setting>) -> Result<()> {
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, _) in &unified {
        let controller = file.split_once('.').map(|(controller, _)| controller);
        if file.contains(['/', '\0']) || controller.is_none_or(str::is_empty) {
            return Err(Fault::input(format!(
                "linux.resources.unified.{}: it is not a file of a control group",
                file.escape_debug()
            ))
            .hint("such files are called CONTROLLER.PARAMETER"));
        }
    }
    let settings =
        unified.into_iter().map(|(file, value)| Setting::new(format!("unified.{file}"), file, value));
    push_linked(list, settings);
    Ok(())
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
    }
    if let Some(pids) = resources.pids() {
        let value = match pids.limit() {
            ..0 => "max".to_owned(),
            // No process but the one put there. With 0, version 2 would not even have that; runc writes 1 as well.
            0 => "1".to_owned(),
            limit => limit.to_string(),
        };
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

fn or_max(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

/// It becomes part of a file's name.
fn page_size(text: &str) -> Result<&str> {
    let number = text.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    if number.len() < text.len() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text);
    }
    Err(Fault::input(format!("linux.resources.hugepageLimits: {text:?} is not a size such as 2MB")))
}
