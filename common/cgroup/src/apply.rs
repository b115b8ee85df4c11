//! Writing limits into a group.

use crate::files::write_lines;
use crate::limits::{self, Setting};
use crate::{Cgroup, Version, devices, v1};
use fault::{Fault, Result};
use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

/// What the resources ask for, with what is wrong about them told before anything is made.
pub fn settings(version: Version, resources: Option<&LinuxResources>) -> Result<Vec<Setting>> {
    if let Some(rules) = resources.and_then(|resources| resources.devices().as_deref()) {
        devices::check(rules)?;
    }
    match (resources, version) {
        (None, _) => Ok(Vec::new()),
        (Some(resources), Version::V1) => limits::version_1(resources),
        (Some(resources), Version::V2) => limits::version_2(resources),
    }
}

impl Cgroup {
    /// Sets limits, on a new group or a running one. Limits the kernel compares with each other are written in the order it
    /// takes, whatever they were before.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let settings = settings(self.version, Some(resources))?;
        let write = || self.set_limits(&settings, Some(resources));
        let Some(unit) = &self.unit else { return write() };
        // Before systemd is told what cannot be.
        self.check_before_update(resources)?;
        unit.update(self, &settings, resources, write)
    }

    pub(crate) fn set_limits(&self, settings: &[Setting], resources: Option<&LinuxResources>) -> Result<()> {
        if let Some(resources) = resources {
            self.check_before_update(resources)?;
        }
        if let Some(rules) = resources.and_then(|resources| resources.devices().as_deref())
            && !rules.is_empty()
        {
            match self.version {
                Version::V1 => v1::apply_devices(self, rules)?,
                Version::V2 => devices::attach_v2(self, rules)?,
            }
        }
        settings
            .chunk_by(|setting, _| setting.with_next)
            .try_for_each(|chain| settle(chain, |setting| self.apply_one(setting)))
    }

    fn apply_one(&self, setting: &Setting) -> Result<()> {
        let named = |fault: Fault| fault.within(format!("linux.resources.{}", setting.member));
        let Some(directory) = self.directory_of(&setting.controller) else {
            if setting.optional {
                return Ok(());
            }
            return Err(named(
                Fault::failed(format!("the {} controller is not available", setting.controller))
                    .hint("sys-check tells what this machine offers"),
            ));
        };
        let mut written = write_lines(&directory.join(&setting.file), &setting.value);
        if let (Err(fault), Some((file, value))) = (&written, &setting.instead)
            && is(fault, Errno::NOENT)
        {
            written = write_lines(&directory.join(file), value);
        }
        match written {
            // Of a limit that kernels no longer have the file stays, and takes nothing.
            Err(fault) if setting.optional && (is(&fault, Errno::NOENT) || is(&fault, Errno::OPNOTSUPP)) => {
                Ok(())
            }
            Err(fault) => Err(named(self.told(setting, fault))),
            Ok(()) => Ok(()),
        }
    }

    /// A failure with what is known about it beyond the kernel's number.
    fn told(&self, setting: &Setting, fault: Fault) -> Fault {
        let controller = setting.controller.as_str();
        if is(&fault, Errno::NOENT) {
            return fault.hint("this kernel, or this machine's set of controllers, has no such file");
        }
        if setting.file == "memory.limit_in_bytes" && is(&fault, Errno::BUSY) {
            let bytes = |file| self.read(controller, file).unwrap_or_default();
            // runc's words, whose callers know them.
            return Fault::conflict(format!(
                "unable to set memory limit to {} (current usage: {}, peak usage: {})",
                setting.value,
                bytes("memory.usage_in_bytes").trim(),
                bytes("memory.max_usage_in_bytes").trim()
            ))
            .because(fault);
        }
        let idle = || self.read(controller, "cpu.idle").is_some_and(|text| text.trim() == "1");
        if setting.member == "cpu.shares" && is(&fault, Errno::INVAL) && idle() {
            return fault.hint("an idle group has no weight: set cpu.idle to 0 for it to get one");
        }
        fault
    }

    /// `memory.checkBeforeUpdate`: version 1 refuses by itself what version 2 would kill for. The words are runc's.
    fn check_before_update(&self, resources: &LinuxResources) -> Result<()> {
        let asked = resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true));
        let Some(memory) = asked.filter(|_| self.version == Version::V2) else { return Ok(()) };
        let usage = self.read("", "memory.current").and_then(|text| text.trim().parse::<i64>().ok());
        let Some(usage) = usage else { return Ok(()) };
        for (member, what, limit) in
            [("swap", "memory+swap limit", memory.swap()), ("limit", "memory limit", memory.limit())]
        {
            if let Some(limit) = limit.filter(|limit| *limit > 0 && *limit <= usage) {
                return Err(Fault::conflict(format!(
                    "linux.resources.memory.{member}: rejecting {what} {limit} <= usage {usage}"
                )));
            }
        }
        Ok(())
    }
}

fn is(fault: &Fault, errno: Errno) -> bool {
    fault.os_error() == Some(errno.raw_os_error())
}

/// Does one after the other, and those that fail again after those that do not, until all are done or none can be.
///
/// Which order the kernel takes depends on the old values as much as on the new ones: a smaller quota has to wait for a smaller
/// burst, a greater burst for a greater quota.
fn settle<T>(chain: &[T], mut apply: impl FnMut(&T) -> Result<()>) -> Result<()> {
    if let [one] = chain {
        return apply(one);
    }
    let mut left: Vec<&T> = chain.iter().collect();
    loop {
        let before = left.len();
        let mut first = None;
        left.retain(|setting| match apply(setting) {
            Ok(()) => false,
            Err(fault) => {
                first.get_or_insert(fault);
                true
            }
        });
        match first {
            None => return Ok(()),
            Some(fault) if left.len() == before => return Err(fault),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn linked_settings_find_their_order() {
        // As the kernel compares them: each but the first may not exceed the one before.
        fn set(values: &mut [i64; 3], (index, value): (usize, i64)) -> Result<()> {
            let mut new = *values;
            new[index] = value;
            if new.windows(2).all(|pair| pair[0] >= pair[1]) {
                *values = new;
                Ok(())
            } else {
                Err(Fault::failed(format!("{index} cannot be {value}")))
            }
        }
        for (old, new) in [([9, 8, 7], [3, 2, 1]), ([3, 2, 1], [9, 8, 7]), ([9, 2, 1], [8, 7, 6])] {
            for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]] {
                let mut values = old;
                let chain = order.map(|index| (index, new[index]));
                settle(&chain, |one| set(&mut values, *one)).unwrap();
                assert_eq!(values, new, "from {old:?} in the order {order:?}");
            }
        }
        let mut values = [9, 8, 7];
        let fault = settle(&[(0, 3), (1, 4), (2, 5)], |one| set(&mut values, *one)).unwrap_err();
        assert!(fault.to_string().contains("cannot be"), "{fault}");
    }

    fn applied(group: &Cgroup, json: &str) -> Result<()> {
        group.apply(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn missing_files_matter_where_something_is_asked_for() {
        let scratch = Scratch::new("missing");
        let group = scratch.group(&[("memory.max", "max\n"), ("memory.current", "5000\n")]);
        // Without swap accounting there is no swap to take away or to give.
        applied(&group, r#"{"memory":{"limit":1000,"swap":1000},"cpu":{"idle":0,"burst":0}}"#).unwrap();
        assert_eq!(scratch.text("memory.max"), "1000");
        std::fs::write(scratch.path().join("memory.max"), "").unwrap();
        applied(&group, r#"{"memory":{"limit":-1}}"#).unwrap();
        assert_eq!(scratch.text("memory.max"), "max");
        for (json, member) in [
            (r#"{"memory":{"limit":1000,"swap":1500}}"#, "memory.swap"),
            (r#"{"cpu":{"idle":1}}"#, "cpu.idle"),
            (r#"{"unified":{"memory.high":"1"}}"#, "unified.memory.high"),
        ] {
            let fault = applied(&group, json).unwrap_err();
            assert!(fault.to_string().contains(&format!("linux.resources.{member}: ")), "{fault}");
            assert!(fault.hint_text().is_some(), "{fault}");
        }
    }

    #[test]
    fn what_is_in_use_is_not_taken_away() {
        let scratch = Scratch::new("check");
        let files = [("memory.max", "max\n"), ("memory.current", "5000\n"), ("memory.swap.max", "max\n")];
        let group = scratch.group(&files);
        for (json, words) in [
            (
                r#"{"memory":{"limit":4000,"checkBeforeUpdate":true}}"#,
                "rejecting memory limit 4000 <= usage 5000",
            ),
            (
                r#"{"memory":{"limit":5000,"checkBeforeUpdate":true}}"#,
                "rejecting memory limit 5000 <= usage 5000",
            ),
            (
                r#"{"memory":{"limit":4000,"swap":5000,"checkBeforeUpdate":true}}"#,
                "rejecting memory+swap limit 5000 <= usage 5000",
            ),
        ] {
            let fault = applied(&group, json).unwrap_err();
            assert!(fault.to_string().ends_with(words), "{fault}");
            assert_eq!(scratch.text("memory.max"), "max");
        }
        applied(&group, r#"{"memory":{"limit":5001,"swap":6000,"checkBeforeUpdate":true}}"#).unwrap();
        assert_eq!(
            (scratch.text("memory.max"), scratch.text("memory.swap.max")),
            ("5001".into(), "999".into())
        );
        applied(&group, r#"{"memory":{"limit":-1,"swap":-1,"checkBeforeUpdate":true}}"#).unwrap();
        applied(&group, r#"{"memory":{"limit":4000}}"#).unwrap();
    }
}
