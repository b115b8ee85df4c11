//! `update`.

use crate::call::Call;
use crate::groups;
use crate::options::Opt;
use crate::resources::{complete, from_options, merge};
use crate::state::Container;
use cgroup::{LinuxResources, Version};
use fault::{Explain, Fault, Kind, Result};
use runtime::spec::IntelRdt;
use runtime::{Status, rdt};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// Longest file of resources read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

pub fn update(call: &Call<'_>) -> Result<u8> {
    let mut container = Container::load(call)?;
    let mut change = match call.options.path(Opt::Resources) {
        Some(path) => read(path)?,
        None => from_options(call.options)?,
    };
    if call.options.is_set(Opt::KernelMemory) || call.options.is_set(Opt::KernelMemoryTcp) {
        call.log.warn("Kernel memory settings are ignored and will be removed");
    }
    if container.status()? == Status::Stopped {
        return Err(Fault::conflict("container not running"));
    }
    let mut base = match container.stored.resources.take() {
        Some(resources) => resources,
        None => resources_of(&container)?,
    };
    // Rules for devices are not changed by this; asking for those it has would take away what it was given since.
    for resources in [&mut change, &mut base] {
        if let Some(members) = resources.as_object_mut() {
            members.remove("devices");
            // Without a limit it asks for nothing, while 0 is a limit.
            if members.get("pids").is_some_and(|pids| pids["limit"].is_null()) {
                members.remove("pids");
            }
        }
    }
    let memory = &change["memory"];
    if memory["limit"] == -1 && memory["swap"].is_null() {
        // Swap counts memory too, so a limit of it would go on limiting both.
        if has_swap_limit(&container)? {
            change["memory"]["swap"] = json!(-1);
        }
    }
    complete(&mut change, &base);
    let mut resources: LinuxResources =
        serde_json::from_value(change.clone()).explain_as(Kind::Input, || "resources".into())?;
    let group = container.need_cgroup()?;
    if group.unit().is_some() && group.version() == Version::V1 {
        // systemd sets its own again, which may be wider.
        let asked = container.spec()?.linux.resources.and_then(|resources| resources.devices().clone());
        resources.set_devices(asked);
        groups::allow_default_devices(&mut resources);
    }
    group.apply(&resources)?;
    update_rdt(call, &container)?;
    merge(&mut base, &change);
    container.stored.resources = Some(base);
    container.save()?;
    Ok(0)
}

fn read(path: &Path) -> Result<Value> {
    let what = || format!("read {}", path.display());
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut text).explain(what)?;
    } else {
        let file = std::fs::File::open(path).explain(what)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut text).explain(what)?;
    }
    if text.len() as u64 > MAX_BYTES {
        return Err(Fault::input(format!("{}: it is too long", what())));
    }
    let value: Value = serde_json::from_slice(&text).explain_as(Kind::Input, what)?;
    if value.is_object() { Ok(value) } else { Err(Fault::input(format!("{}: it is no object", what()))) }
}

/// Those it was made with.
fn resources_of(container: &Container) -> Result<Value> {
    let config = container.config()?;
    let resources = config.pointer("/linux/resources").filter(|resources| resources.is_object());
    Ok(resources.cloned().unwrap_or_else(|| json!({})))
}

fn has_swap_limit(container: &Container) -> Result<bool> {
    let group = container.need_cgroup()?;
    Ok(groups::directory(&group, "memory").is_some_and(|memory| {
        ["memory.memsw.limit_in_bytes", "memory.swap.max"].iter().any(|file| memory.join(file).exists())
    }))
}

fn update_rdt(call: &Call<'_>, container: &Container) -> Result<()> {
    let schema = |opt| Ok::<_, Fault>(call.options.text(opt)?.unwrap_or_default().to_owned());
    let wishes = IntelRdt {
        l3_cache_schema: schema(Opt::L3CacheSchema)?,
        mem_bw_schema: schema(Opt::MemBwSchema)?,
        ..IntelRdt::default()
    };
    if wishes == IntelRdt::default() {
        return Ok(());
    }
    let root = rdt::root()?;
    let group =
        container.stored.rdt.as_ref().ok_or_else(|| {
            Fault::conflict("updating a non-existent Intel RDT configuration is not supported")
        })?;
    rdt::update(&root, group, &wishes)
}
