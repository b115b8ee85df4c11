//! Users and groups of a user namespace (user_namespaces(7)).

use crate::spec::Linux;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use sys::process::Fork;

/// More lines the kernel does not take (Linux 4.15).
const MAX_MAPPINGS: usize = 340;

/// What the kernel would refuse with no more than `EINVAL`.
pub fn check(member: &str, mappings: &[LinuxIdMapping]) -> Result<()> {
    if mappings.len() > MAX_MAPPINGS {
        return Err(Fault::input(format!(
            "{member}: {} entries, and {MAX_MAPPINGS} are possible",
            mappings.len()
        )));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let bad = |what: String| Err(Fault::input(format!("{member}[{index}]: {what}")));
        if mapping.size() == 0 {
            return bad("the size is 0".to_owned());
        }
        // The last number, 2^32 - 1, stands for none.
        for (name, first) in [("containerID", mapping.container_id()), ("hostID", mapping.host_id())] {
            if first.checked_add(mapping.size()).is_none() {
                return bad(format!("{name} {first} and size {} go beyond {}", mapping.size(), u32::MAX - 1));
            }
        }
        for (other, earlier) in mappings[..index].iter().enumerate() {
            let overlap = |a: u32, a_size: u32, b: u32, b_size: u32| a < b + b_size && b < a + a_size;
            for (name, of) in [
                ("containerID", LinuxIdMapping::container_id as fn(&LinuxIdMapping) -> u32),
                ("hostID", LinuxIdMapping::host_id),
            ] {
                if overlap(of(mapping), mapping.size(), of(earlier), earlier.size()) {
                    return bad(format!("the {name}s overlap those of entry {other}"));
                }
            }
        }
    }
    Ok(())
}

/// What a user or group inside the namespace is outside.
pub fn outside(mappings: &[LinuxIdMapping], inside: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = inside.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id() + offset)
    })
}

/// Gives a process in a new user namespace its users and groups. The process must be the caller's own child, and dumpable if
/// the caller is not privileged: the files belong to the superuser otherwise.
///
/// What the caller may not write itself it has newuidmap(1) and newgidmap(1) write.
pub fn write(pid: i32, users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> Result<()> {
    match write_file(pid, "uid_map", &text(users)) {
        Err(Errno::PERM) => write_by_program("newuidmap", pid, users)?,
        other => other.explain(|| format!("write the user mappings of process {pid}"))?,
    }
    let lines = text(groups);
    let mut result = write_file(pid, "gid_map", &lines);
    if result == Err(Errno::PERM) && is_own_group(groups) {
        // Whoever may map but one group may not leave groups either: some files are closed to a group.
        write_file(pid, "setgroups", "deny").explain(|| format!("deny setgroups(2) to process {pid}"))?;
        result = write_file(pid, "gid_map", &lines);
    }
    match result {
        Err(Errno::PERM) => write_by_program("newgidmap", pid, groups),
        other => other.explain(|| format!("write the group mappings of process {pid}")),
    }
}

/// Refuses mappings that are not those of the namespace to be joined. Starts a process for a moment, so the caller must have
/// one thread.
pub fn agree(linux: &Linux, namespace: BorrowedFd<'_>) -> Result<()> {
    if linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty() {
        return Ok(());
    }
    let (users, groups) = of_namespace(namespace)?;
    for (member, asked, there) in [
        ("linux.uidMappings", &linux.uid_mappings, users),
        ("linux.gidMappings", &linux.gid_mappings, groups),
    ] {
        if !asked.is_empty() && sorted(asked) != sorted(&there) {
            return Err(Fault::input(format!("{member} are not those of the user namespace to be joined"))
                .hint("leave them out: the namespace has its own"));
        }
    }
    Ok(())
}

/// The users and groups of a namespace that exists. They can be read of a process in it only, so one is started.
pub fn of_namespace(namespace: BorrowedFd<'_>) -> Result<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into());
    let (ready, say_ready) = pipe()?;
    let (done, say_done) = pipe()?;
    match sys::process::clone3(0, None).explain(|| "start a process".into())? {
        Fork::Child => {
            drop((ready, say_done));
            if move_into_link_name_space(namespace, Some(LinkNameSpaceType::User)).is_ok() {
                let _ = rustix::io::write(&say_ready, b"+");
                let _ = rustix::io::read(&done, &mut [0u8]);
            }
            sys::process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop((say_ready, done));
            let joined = rustix::io::read(&ready, &mut [0u8]);
            let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
            let maps = read("uid_map").and_then(|users| read("gid_map").map(|groups| (users, groups)));
            drop(say_done);
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
            if joined != Ok(1) {
                return Err(
                    Fault::denied("join the user namespace").hint("this process may not, or it is none")
                );
            }
            let (users, groups) = maps.explain(|| "read the user namespace's mappings".into())?;
            Ok((parse(&users), parse(&groups)))
        }
    }
}

fn text(mappings: &[LinuxIdMapping]) -> String {
    let mut text = String::new();
    for mapping in mappings {
        let _ = writeln!(text, "{} {} {}", mapping.container_id(), mapping.host_id(), mapping.size());
    }
    text
}

fn parse(text: &str) -> Vec<LinuxIdMapping> {
    let numbers = |line: &str| -> Option<LinuxIdMapping> {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let builder = LinuxIdMappingBuilder::default();
        let builder = builder.container_id(numbers.next()??).host_id(numbers.next()??).size(numbers.next()??);
        builder.build().ok()
    };
    text.lines().filter_map(numbers).collect()
}

fn sorted(mappings: &[LinuxIdMapping]) -> Vec<(u32, u32, u32)> {
    let mut list: Vec<_> = mappings.iter().map(|m| (m.container_id(), m.host_id(), m.size())).collect();
    list.sort_unstable();
    list
}

fn is_own_group(groups: &[LinuxIdMapping]) -> bool {
    matches!(groups, [only] if only.size() == 1 && only.host_id() == rustix::process::getegid().as_raw())
}

/// In one write(2), as the kernel wants it.
fn write_file(pid: i32, name: &str, text: &str) -> rustix::io::Result<()> {
    let file: OwnedFd =
        openat(CWD, format!("/proc/{pid}/{name}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

fn write_by_program(program: &str, pid: i32, mappings: &[LinuxIdMapping]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for mapping in mappings {
        for number in [mapping.container_id(), mapping.host_id(), mapping.size()] {
            command.arg(number.to_string());
        }
    }
    let output = command.output().explain(|| format!("run {program}")).map_err(|fault| {
        fault.hint(
            "only the superuser may map the ids of others without newuidmap and newgidmap (Debian: uidmap)",
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::denied(format!("{program}: {}", said.trim()))
        .hint("the ids must be given to this user in /etc/subuid and /etc/subgid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping((container, host, size): (u32, u32, u32)) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    fn list(entries: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        entries.iter().copied().map(mapping).collect()
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for good in [&[(0, 100_000, 65_536)][..], &[(0, 1000, 1), (1, 100_000, 65_535)], &[(0, 0, u32::MAX)]]
        {
            check("m", &list(good)).unwrap();
        }
        for (bad, words) in [
            (&[(0, 0, 0)][..], "size is 0"),
            (&[(1, 0, u32::MAX)], "containerID 1"),
            (&[(0, u32::MAX, 1)], "hostID"),
            (&[(0, 1000, 10), (9, 5000, 1)], "containerIDs overlap"),
            (&[(0, 1000, 10), (10, 1005, 1)], "hostIDs overlap"),
            (&[(5, 9000, 1), (0, 1000, 10)], "containerIDs overlap"),
        ] {
            let fault = check("linux.uidMappings", &list(bad)).unwrap_err().to_string();
            assert!(fault.contains(words) && fault.starts_with("linux.uidMappings["), "{fault}");
        }
        assert!(check("m", &vec![mapping((0, 0, 1)); 341]).is_err());
    }

    #[test]
    fn ids_are_found_outside() {
        let two = list(&[(0, 1000, 1), (1, 100_000, 65_535)]);
        assert_eq!(outside(&two, 0), Some(1000));
        assert_eq!(outside(&two, 65_535), Some(165_534));
        assert_eq!(outside(&two, 65_536), None);
    }

    #[test]
    fn files_are_written_and_read_alike() {
        let two = list(&[(0, 1000, 1), (1, 100_000, 65_535)]);
        assert_eq!(text(&two), "0 1000 1\n1 100000 65535\n");
        assert_eq!(sorted(&parse("         0       1000          1\n 1 100000 65535\n")), sorted(&two));
    }
}
