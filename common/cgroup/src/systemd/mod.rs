//! Control groups made by systemd, as a transient unit it knows and shows (org.freedesktop.systemd1(5),
//! `CONTROL_GROUP_INTERFACE` of systemd's documentation).
//!
//! A scope is delegated: systemd makes the group and keeps what it was told of its limits, everything below and beside that is
//! written to the group's files, as without systemd.

mod annotations;
mod bus;
mod devices;
mod message;
mod name;
mod properties;
#[cfg(test)]
mod tests;
mod value;

use crate::files::write_file;
use crate::limits::Setting;
use crate::{Cgroup, LinuxResources, MOUNT, Place, Version, apply, v1, v2};
use bus::Bus;
use fault::{Explain, Fault, Kind, Result};
use name::{Names, expand_slice};
use properties::Property;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use value::Value;

/// There on a machine that systemd started (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Whose systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Manager {
    /// The machine's.
    System,
    /// An ordinary user's own.
    User,
}

/// A unit that was made: what is kept of it, to change and to remove it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    pub manager: Manager,
}

/// A unit that is to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    names: Names,
    manager: Manager,
    /// The user's own wishes.
    further: Vec<Property>,
}

impl Wanted {
    /// What `cgroupsPath` (`slice:prefix:name`) and the annotations `org.systemd.property.*` ask for.
    ///
    /// Fails with input if they are not of the form they have to have, and where there is no systemd.
    pub fn parse<'a>(
        manager: Manager,
        path: &str,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Wanted> {
        let wanted = Wanted {
            names: Names::parse(path, manager)?,
            manager,
            further: annotations::properties(annotations)?,
        };
        if manager == Manager::System && !Path::new(BOOTED).is_dir() {
            return Err(Fault::failed("System has not been booted with systemd")
                .because(format!("there is no {BOOTED}"))
                .hint("leave --systemd-cgroup out; engines call it the cgroupfs driver"));
        }
        Ok(wanted)
    }

    /// Has systemd make the group with a process in it, and applies the limits. What was made is removed again if a later
    /// step fails, and the process is killed then.
    ///
    /// Fails with a conflict if the unit is there already, and as retryable if systemd takes more than half a minute.
    pub fn create(&self, pid: i32, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let version = crate::version().ok_or_else(|| Fault::failed("no control groups are mounted"))?;
        if version == Version::V1 && self.manager == Manager::User {
            return Err(Fault::failed("a user's own systemd has no version 1 control groups to give away")
                .hint("boot with systemd.unified_cgroup_hierarchy=1"));
        }
        let settings = apply::settings(version, resources)?;
        let mut own = resources.cloned();
        if self.manager == Manager::User
            && let Some(resources) = &mut own
        {
            // They take a privilege nobody has here; and a user namespace can make no devices.
            resources.set_devices(None);
        }
        let resources = own.as_ref();
        let mut bus = Bus::open(self.manager, &self.names.unit)?;
        self.start(&mut bus, pid, version, &settings, resources)?;
        let furnished = self.furnish(pid, version, &settings, resources);
        if furnished.is_err() {
            // The failure being reported is the one that matters. A process that is being set up does not end when it is asked to,
            // which systemd does first.
            let everybody = vec![Value::text(&*self.names.unit), Value::text("all"), Value::I32(9)];
            let _ = bus.manager("KillUnit", everybody).and_then(|_| stop(&mut bus, &self.names.unit));
        }
        furnished
    }

    fn start(
        &self,
        bus: &mut Bus,
        pid: i32,
        version: Version,
        settings: &[Setting],
        resources: Option<&LinuxResources>,
    ) -> Result<()> {
        let systemd = version_of(bus)?;
        let mut list = self.properties(pid, version);
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        list.extend(rules.map(|rules| devices::properties(rules, systemd)).unwrap_or_default());
        list.extend(properties::of_limits(settings, systemd));
        list.extend(properties::of_new(settings, systemd));
        list.extend(self.further.clone());
        start(bus, &self.names.unit, list)
            .map_err(|fault| fault.within(format!("unable to start unit {:?}", self.names.unit)))
    }

    /// What does not depend on limits.
    fn properties(&self, pid: i32, version: Version) -> Vec<Property> {
        let unit = &self.names.unit;
        let named = |name: &str, value| (name.to_owned(), value);
        let mut list = vec![named("Description", Value::Text(format!("container {unit}")))];
        if self.names.is_slice() {
            // A slice's place follows from its name, and it takes no processes from others.
            list.push(named("Wants", Value::texts([self.names.slice.as_str()])));
        } else {
            list.push(named("Slice", Value::text(self.names.slice.as_str())));
            list.push(named("Delegate", Value::Bool(true)));
            list.push(named("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid as u32)])));
        }
        list.extend(properties::accounting(version));
        list.push(named("DefaultDependencies", Value::Bool(false)));
        list
    }

    /// From the unit to a group that has the process and the limits.
    fn furnish(
        &self,
        pid: i32,
        version: Version,
        settings: &[Setting],
        resources: Option<&LinuxResources>,
    ) -> Result<Cgroup> {
        let path = if self.names.is_slice() {
            let path = self.slice_path()?;
            let hierarchy = if version == Version::V1 { "systemd" } else { "" };
            let directory = Path::new(MOUNT).join(hierarchy).join(path.trim_start_matches('/'));
            write_file(&directory.join("cgroup.procs"), &pid.to_string())?;
            path
        } else {
            self.scope_path(pid)?
        };
        let unit = Unit { name: self.names.unit.clone(), manager: self.manager };
        let cgroup = Cgroup::at(version, directories(&path, version, settings)?).of_unit(Some(unit));
        cgroup.set_limits(settings, resources)?;
        Ok(cgroup)
    }

    /// Where systemd has put the process: below the manager's own group, wherever that is.
    fn scope_path(&self, pid: i32) -> Result<String> {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).explain(|| format!("read {file}"))?;
        let path = path_in(&text).unwrap_or_default();
        if Path::new(path).file_name().is_some_and(|name| name == self.names.unit.as_str()) {
            return Ok(path.to_owned());
        }
        Err(Fault::failed(format!("systemd put the process in {path:?} and not in {}", self.names.unit))
            .hint("is this process in another cgroup or pid namespace than systemd?"))
    }

    fn slice_path(&self) -> Result<String> {
        let below = match self.manager {
            Manager::System => String::new(),
            Manager::User => match Bus::open(self.manager, &self.names.unit)?.property("ControlGroup")? {
                Value::Text(path) => path,
                _ => return Err(value::malformed("ControlGroup is no text")),
            },
        };
        Ok(format!("{}{}", below.trim_end_matches('/'), expand_slice(&self.names.unit)?))
    }
}

/// The path in the hierarchy systemd keeps its units in, of the text of `/proc/PID/cgroup`: its own of version 1, or version 2's.
fn path_in(text: &str) -> Option<&str> {
    let of = |hierarchy: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next()? == hierarchy).then(|| fields.next())?
        })
    };
    of("name=systemd").or_else(|| of(""))
}

/// Where systemd has no use for a controller it makes no group: those are made here.
fn directories(path: &str, version: Version, settings: &[Setting]) -> Result<Vec<PathBuf>> {
    let place = Place::of(path)?;
    if version == Version::V2 {
        let directory = Path::new(MOUNT).join(place.relative());
        let has = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let is_there = |setting: &Setting| {
            setting.optional
                || setting.controller.is_empty()
                || has.split_whitespace().any(|controller| controller == setting.controller)
        };
        if settings.iter().all(is_there) {
            return Ok(vec![directory]);
        }
        return Ok(v2::make(&place, settings)?.into_iter().map(|made| made.path).collect());
    }
    let mut directories: Vec<PathBuf> =
        v1::make(&place, settings)?.into_iter().map(|made| made.path).collect();
    // systemd's own hierarchy: `exec` has to join that as well, or its process belongs to the unit in parts.
    let own = Path::new(MOUNT).join("systemd").join(place.relative());
    if !directories.contains(&own) {
        directories.push(own);
    }
    Ok(directories)
}

impl Unit {
    /// Tells systemd of changed limits, and has them written to the files of the group by `write`.
    pub(crate) fn update(
        &self,
        cgroup: &Cgroup,
        settings: &[Setting],
        resources: &LinuxResources,
        write: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        name::check(&self.name)?;
        let mut bus = Bus::open(self.manager, &self.name)?;
        let systemd = version_of(&mut bus)?;
        let mut list = properties::of_limits(settings, systemd);
        list.extend(resources.devices().iter().flat_map(|rules| devices::properties(rules, systemd)));
        if list.is_empty() {
            return write();
        }
        // In version 1 systemd sets the device rules again on that occasion, taking everything away first. Nobody may notice.
        let freezes = cgroup.version == Version::V1 && !cgroup.is_to_be_frozen();
        if freezes {
            cgroup.freeze()?;
        }
        let body = vec![Value::text(self.name.as_str()), Value::Bool(true), as_variants(list)];
        let refused = || format!("unable to set unit properties of {:?}", self.name);
        let updated = bus
            .manager("SetUnitProperties", body)
            .and_then(|answer| answer.unless_refused(&refused()))
            .and_then(|_| write());
        if freezes {
            cgroup.thaw()?;
        }
        updated
    }

    /// Removes the unit. What is left of processes in it systemd ends.
    pub(crate) fn stop(&self) -> Result<()> {
        name::check(&self.name)?;
        stop(&mut Bus::open(self.manager, &self.name)?, &self.name)
    }
}

/// Its number, of `252.39-1~deb12u2` or `v245`.
fn version_of(bus: &mut Bus) -> Result<u32> {
    let Value::Text(text) = bus.property("Version")? else {
        return Err(value::malformed("its version is no text"));
    };
    let number = text.trim_start_matches('v');
    let end = number.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().map_err(|_| value::malformed(&format!("{text:?} is no version")))
}

fn as_variants(list: Vec<Property>) -> Value {
    let pair = |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".to_owned(), list.into_iter().map(pair).collect())
}

/// How often a name is tried that is taken: by a failed unit, which is forgotten on request, or by one that is just going.
const TRIES: u32 = 4;

fn start(bus: &mut Bus, unit: &str, list: Vec<Property>) -> Result<()> {
    let auxiliary = Value::Array("(sa(sv))".to_owned(), Vec::new());
    let body = vec![Value::text(unit), Value::text("replace"), as_variants(list), auxiliary];
    let mut tried = 1;
    let answer = loop {
        let answer = bus.manager("StartTransientUnit", body.clone())?;
        if answer.refusal() != Some("UnitExists") || tried == TRIES {
            break answer;
        }
        reset_failed(bus, unit)?;
        if tried > 1 {
            std::thread::sleep(Duration::from_millis(10 << tried));
        }
        tried += 1;
    };
    let answer = answer.unless_refused("systemd refused it").map_err(|fault| match fault.kind() {
        Kind::Conflict => fault.hint(format!("systemctl stop {unit}, or give another cgroupsPath")),
        _ => fault,
    })?;
    match bus.job_result(&answer)?.as_str() {
        "done" => Ok(()),
        other => {
            let _ = reset_failed(bus, unit);
            Err(Fault::failed(format!("systemd's job came to an end as {other:?}"))
                .hint(format!("journalctl -u {unit} may tell why")))
        }
    }
}

fn stop(bus: &mut Bus, unit: &str) -> Result<()> {
    let answer = bus.manager("StopUnit", vec![Value::text(unit), Value::text("replace")])?;
    if answer.refusal() == Some("NoSuchUnit") {
        return Ok(());
    }
    let answer = answer.unless_refused(&format!("unable to stop unit {unit:?}"))?;
    bus.job_result(&answer)?;
    reset_failed(bus, unit)
}

/// A unit that has failed keeps its name until somebody has seen it. That it has not, or is gone, is no failure.
fn reset_failed(bus: &mut Bus, unit: &str) -> Result<()> {
    bus.manager("ResetFailedUnit", vec![Value::text(unit)]).map(drop)
}
