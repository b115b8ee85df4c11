//! Time namespaces (time_namespaces(7)).

use crate::procfs::{private_proc, write_proc};
use crate::spec::TimeOffset;
use fault::{Explain, Fault, Result};
use rustix::fs::{Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::AsFd;

pub const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

pub fn check(offsets: &BTreeMap<String, TimeOffset>) -> Result<()> {
    for (clock, offset) in offsets {
        if !CLOCKS.contains(&clock.as_str()) {
            return Err(Fault::input(format!(
                "linux.timeOffsets: {clock:?} is none of {}",
                CLOCKS.join(", ")
            )));
        }
        if offset.nanosecs > 999_999_999 {
            return Err(Fault::input(format!(
                "linux.timeOffsets.{clock}.nanosecs: {} is a second or more",
                offset.nanosecs
            )));
        }
    }
    Ok(())
}

/// Takes this process, which must have one thread, into a new time namespace with these offsets.
///
/// Not by a flag of clone3(2): whoever is made in the namespace is in it, and offsets can be set until somebody is. In a user
/// namespace the process must be dumpable, or the file to write is the host's superuser's.
pub fn enter_new(offsets: &BTreeMap<String, TimeOffset>) -> Result<()> {
    // nix has no name for CLONE_NEWTIME.
    let flag = nix::sched::CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    nix::sched::unshare(flag).explain(|| "make a time namespace".into())?;
    let proc = private_proc()?;
    if !offsets.is_empty() {
        write_proc(&proc, "self/timens_offsets", &text(offsets)).map_err(|fault| {
            fault
                .within("linux.timeOffsets")
                .hint("no clock may come out negative, or further ahead than 146 years")
        })?;
    }
    let children =
        openat(&proc, "self/ns/time_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .explain(|| "open the new time namespace".into())?;
    move_into_link_name_space(children.as_fd(), Some(LinkNameSpaceType::Time))
        .explain(|| "enter the new time namespace".into())
}

fn text(offsets: &BTreeMap<String, TimeOffset>) -> String {
    let mut text = String::new();
    for (clock, offset) in offsets {
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_checked_and_written() {
        let offsets = |json: &str| -> BTreeMap<String, TimeOffset> { serde_json::from_str(json).unwrap() };
        let two = offsets(r#"{"monotonic":{"secs":-5,"nanosecs":7},"boottime":{}}"#);
        check(&two).unwrap();
        assert_eq!(text(&two), "boottime 0 0\nmonotonic -5 7\n");
        assert!(check(&offsets(r#"{"realtime":{"secs":1}}"#)).is_err());
        assert!(check(&offsets(r#"{"monotonic":{"nanosecs":1000000000}}"#)).is_err());
    }
}
