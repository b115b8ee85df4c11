//! `state` and `list`.

use crate::call::Call;
use crate::options::Opt;
use crate::place::is_id;
use crate::state::Container;
use fault::{Explain, Fault, Result};
use runtime::Status;
use rustix::fs::{AtFlags, CWD, statat};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// As runc prints it, member by member.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    /// 0 when there is none.
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: &'a str,
}

impl<'a> Shown<'a> {
    fn of(container: &'a Container, status: Status, owner: &'a str) -> Shown<'a> {
        let stored = &container.stored;
        Shown {
            oci_version: &stored.oci_version,
            id: &stored.id,
            pid: if status == Status::Stopped { 0 } else { stored.pid },
            status: status.name(),
            bundle: &stored.bundle,
            rootfs: &stored.rootfs,
            created: &stored.created,
            annotations: &stored.annotations,
            owner,
        }
    }
}

pub fn state(call: &Call<'_>) -> Result<u8> {
    let container = Container::load(call)?;
    let status = container.status()?;
    print(&shown(&container, status)?)?;
    Ok(0)
}

/// What `state` prints.
pub fn shown(container: &Container, status: Status) -> Result<String> {
    serde_json::to_string_pretty(&Shown::of(container, status, "")).explain(|| "print the state".into())
}

pub fn list(call: &Call<'_>) -> Result<u8> {
    let format = call.options.text(Opt::Format)?.unwrap_or("table");
    if !matches!(format, "table" | "json") {
        return Err(Fault::usage("invalid format option"));
    }
    let containers = containers(call)?;
    let mut shown = Vec::new();
    for (container, owner) in &containers {
        match container.status() {
            Ok(status) => shown.push(Shown::of(container, status, owner)),
            Err(fault) => call.log.warn_of(&fault.within(format!("status for {}", container.stored.id))),
        }
    }
    if call.options.has(Opt::Quiet) {
        let mut ids = String::new();
        for one in &shown {
            let _ = writeln!(ids, "{}", one.id);
        }
        print(&ids)?;
    } else if format == "json" {
        let text = serde_json::to_string(&shown).explain(|| "print the list".into())?;
        print(&format!("{text}\n"))?;
    } else {
        print(&table(&shown))?;
    }
    Ok(0)
}

/// All there are, in the order of their ids, each with its owner's name.
fn containers(call: &Call<'_>) -> Result<Vec<(Container, String)>> {
    let entries = match std::fs::read_dir(&call.root) {
        Ok(entries) => entries,
        // Nobody has made a container yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && call.root_is_default => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).explain(|| format!("open {}", call.root.display())),
    };
    let is_directory = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut ids: Vec<String> = entries
        .flatten()
        .filter(is_directory)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_id(name))
        .collect();
    ids.sort_unstable();
    let mut containers = Vec::new();
    for id in ids {
        let path = call.root.join(&id);
        // One that is being made or deleted is not there.
        let Ok(stat) = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match Container::load_id(call, &id) {
            Ok(container) => containers.push((container, owner(stat.st_uid))),
            Err(fault) => call.log.warn_of(&fault.within(format!("load container {id}"))),
        }
    }
    Ok(containers)
}

/// The name of a user, `#1000` for one without.
fn owner(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns as Go's tabwriter makes them: at least 12 wide, 3 apart.
fn table(shown: &[Shown<'_>]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(shown.iter().map(|one| {
        [
            one.id.to_owned(),
            one.pid.to_string(),
            one.status.to_owned(),
            one.bundle.display().to_string(),
            one.created.to_owned(),
            one.owner.to_owned(),
        ]
    }));
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + 3).max(12)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{}", row[5]);
    }
    text
}

/// A reader that closed the pipe has seen enough.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).explain(|| "write to stdout".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_go_makes_them() {
        let none = BTreeMap::new();
        let one = Shown {
            oci_version: "1.2.0",
            id: "c1",
            pid: 7,
            status: "running",
            bundle: Path::new("/a/long/path/to/it"),
            rootfs: Path::new("/r"),
            created: "2026-01-02T03:04:05.123456789Z",
            annotations: &none,
            owner: "root",
        };
        let wanted = "ID          PID         STATUS      BUNDLE               CREATED                          OWNER\n\
                      c1          7           running     /a/long/path/to/it   2026-01-02T03:04:05.123456789Z   root\n";
        assert_eq!(table(&[one]), wanted);
        assert_eq!(owner(0), "root");
        assert_eq!(owner(4_294_967_290), "#4294967290");
    }
}
