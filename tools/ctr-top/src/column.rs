//! What can be printed of a process.

use crate::process::{Machine, Process, TICKS};
use cli::{Fault, Result};
use oci::capabilities::CapSet;
use serde_json::{Value, json};

pub struct Column {
    pub name: &'static str,
    /// What ps calls it too.
    aliases: &'static [&'static str],
    pub heading: &'static str,
    /// A form of another one for tables: no member of objects unless it is asked for.
    pub only_asked: bool,
    pub value: fn(&Process, &Machine) -> Value,
    text: Option<fn(&Process, &Machine) -> String>,
}

const fn column(
    name: &'static str,
    aliases: &'static [&'static str],
    heading: &'static str,
    value: fn(&Process, &Machine) -> Value,
) -> Column {
    Column { name, aliases, heading, only_asked: false, value, text: None }
}

impl Column {
    const fn told(self, text: fn(&Process, &Machine) -> String) -> Column {
        Column { text: Some(text), ..self }
    }

    const fn for_tables(self) -> Column {
        Column { only_asked: true, ..self }
    }

    /// For people.
    pub fn text(&self, process: &Process, machine: &Machine) -> String {
        if let Some(text) = self.text {
            return text(process, machine);
        }
        match (self.value)(process, machine) {
            Value::Null => "?".to_owned(),
            Value::String(text) => text,
            other => other.to_string(),
        }
    }
}

pub const ALL: &[Column] = &[
    column("user", &["uname", "euser"], "USER", |p, _| user(p).into()),
    column("uid", &["euid"], "UID", |p, _| p.uid.into()),
    column("group", &["egroup"], "GROUP", |p, _| p.group.clone().unwrap_or_else(|| p.gid.to_string()).into()),
    column("gid", &["egid"], "GID", |p, _| p.gid.into()),
    column("pid", &[], "PID", |p, _| p.pid.into()),
    column("ppid", &[], "PPID", |p, _| p.ppid.into()),
    column("hpid", &[], "HPID", |p, _| p.host_pid.into()),
    column("hppid", &[], "HPPID", |p, _| p.host_ppid.into()),
    column("pcpu", &["%cpu"], "%CPU", |p, m| percent(p, m).into())
        .told(|p, m| format!("{:.1}", percent(p, m))),
    column("c", &[], "C", |p, m| (percent(p, m) as u64).into()).for_tables(),
    column("vsz", &["vsize"], "VSZ", |p, _| p.vsz.into()).told(|p, _| (p.vsz >> 10).to_string()),
    column("rss", &["rssize", "rsz"], "RSS", |p, _| p.rss.into()).told(|p, _| (p.rss >> 10).to_string()),
    column("tty", &["tt", "tname"], "TTY", |p, _| json!(p.tty)),
    column("state", &["s", "stat"], "S", |p, _| p.state.to_string().into()),
    column("nice", &["ni"], "NI", |p, _| p.nice.into()),
    column("threads", &["nlwp", "thcount"], "NLWP", |p, _| p.threads.into()),
    column("start", &["lstart", "start_time"], "START", |p, m| m.started(p).to_string().into()),
    column("stime", &[], "STIME", |p, m| short_time(p, m).into()).for_tables(),
    column("etime", &["elapsed", "etimes"], "ELAPSED", |p, m| (m.elapsed(p) / TICKS).into())
        .told(|p, m| clock(m.elapsed(p) / TICKS, false)),
    column("time", &["cputime"], "TIME", |p, _| (p.cpu_ticks as f64 / TICKS as f64).into())
        .told(|p, _| clock(p.cpu_ticks / TICKS, true)),
    column("comm", &["ucmd", "ucomm"], "COMMAND", |p, _| p.comm.clone().into()),
    column("args", &["cmd", "command"], "COMMAND", |p, _| json!(p.args)).told(|p, _| command(p)),
    column("capinh", &[], "INHERITED CAPS", |p, _| set(p, 0)).told(|p, _| set_text(p, 0)),
    column("capprm", &[], "PERMITTED CAPS", |p, _| set(p, 1)).told(|p, _| set_text(p, 1)),
    column("capeff", &[], "EFFECTIVE CAPS", |p, _| set(p, 2)).told(|p, _| set_text(p, 2)),
    column("capbnd", &[], "BOUNDING CAPS", |p, _| set(p, 3)).told(|p, _| set_text(p, 3)),
    column("capamb", &[], "AMBIENT CAPS", |p, _| set(p, 4)).told(|p, _| set_text(p, 4)),
    column("seccomp", &[], "SECCOMP", |p, _| match p.seccomp {
        0 => "disabled".into(),
        1 => "strict".into(),
        _ => "filter".into(),
    }),
    column("label", &["context"], "LABEL", |p, _| json!(p.label)),
];

/// docker's: what `ps -ef` prints, with the numbers processes have on the host.
pub fn docker() -> (Vec<&'static str>, Vec<&'static Column>) {
    let columns = [
        ("UID", "user"),
        ("PID", "hpid"),
        ("PPID", "hppid"),
        ("C", "c"),
        ("STIME", "stime"),
        ("TTY", "tty"),
        ("TIME", "time"),
        ("CMD", "args"),
    ];
    columns
        .iter()
        .filter_map(|(heading, name)| Some((*heading, ALL.iter().find(|column| column.name == *name)?)))
        .unzip()
}

pub fn named(name: &str) -> Result<&'static Column> {
    let wanted = name.trim().to_ascii_lowercase();
    ALL.iter().find(|column| column.name == wanted || column.aliases.contains(&wanted.as_str())).ok_or_else(
        || {
            let names: Vec<&str> = ALL.iter().map(|column| column.name).collect();
            Fault::usage(format!("there is no column {name:?}")).hint(names.join(", "))
        },
    )
}

fn user(process: &Process) -> String {
    process.user.clone().unwrap_or_else(|| process.uid.to_string())
}

/// As ps has it: over its whole life, to a tenth.
fn percent(process: &Process, machine: &Machine) -> f64 {
    match machine.elapsed(process) {
        0 => 0.0,
        elapsed => (process.cpu_ticks as f64 * 1000.0 / elapsed as f64).round() / 10.0,
    }
}

/// `[[days-]hours:]minutes:seconds`, with the hours always where CPU time is told.
fn clock(seconds: u64, with_hours: bool) -> String {
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) if !with_hours => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// The time of a process that began today, the day of another one; UTC.
fn short_time(process: &Process, machine: &Machine) -> String {
    let (started, now) = (machine.started(process).to_string(), machine.now.to_string());
    let (day, today) = (started.get(..10).unwrap_or_default(), now.get(..10).unwrap_or_default());
    if day == today { started.get(11..16).unwrap_or_default().to_owned() } else { day.to_owned() }
}

/// A kernel's thread, or one that has ended, has none.
fn command(process: &Process) -> String {
    if process.args.is_empty() { format!("[{}]", process.comm) } else { process.args.join(" ") }
}

fn set(process: &Process, index: usize) -> Value {
    json!(process.capabilities[index].map(|set| set.names().collect::<Vec<_>>()))
}

fn set_text(process: &Process, index: usize) -> String {
    match process.capabilities[index] {
        None => "?".to_owned(),
        Some(set) if set.is_empty() => "none".to_owned(),
        Some(set) if set == CapSet::ALL => "full".to_owned(),
        Some(set) => {
            set.names().map(|name| name.trim_start_matches("CAP_").to_owned()).collect::<Vec<_>>().join(",")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_dockers_are_there() {
        assert_eq!(named(" CMD").map(|column| column.name).ok(), Some("args"));
        assert!(
            named("colour").err().is_some_and(|fault| fault.hint_text().unwrap_or_default().contains("hpid"))
        );
        assert_eq!(docker().1.len(), 8);
        for (index, column) in ALL.iter().enumerate() {
            let names = || std::iter::once(&column.name).chain(column.aliases);
            let taken = |name| ALL[..index].iter().any(|c| c.name == name || c.aliases.contains(&name));
            assert!(!names().any(|name| taken(*name)), "{}", column.name);
        }
    }

    #[test]
    fn times() {
        assert_eq!(clock(59, false), "00:59");
        assert_eq!(clock(59, true), "00:00:59");
        assert_eq!(clock(3 * 86_400 + 3661, false), "3-01:01:01");
    }
}
