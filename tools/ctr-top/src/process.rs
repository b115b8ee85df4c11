//! What `/proc` tells of a process (proc_pid_stat(5), proc_pid_status(5)).

use cli::{Explain, Fault, Result};
use jiff::{SignedDuration, Timestamp};
use oci::capabilities::CapSet;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Clock ticks a second in `/proc`, whatever the kernel's own clock (USER_HZ).
pub const TICKS: u64 = 100;
/// Longest command line read, in bytes; a program may make its own as long as it likes.
const LONGEST: u64 = 64 << 10;

#[derive(Clone, Debug, Default)]
pub struct Process {
    pub host_pid: i32,
    pub host_ppid: i32,
    /// In the container's pid namespace.
    pub pid: i32,
    /// 0 if the parent is none of the container's.
    pub ppid: i32,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<String>,
    pub group: Option<String>,
    pub state: char,
    pub comm: String,
    pub args: Vec<String>,
    pub tty: Option<String>,
    pub cpu_ticks: u64,
    pub started_ticks: u64,
    pub nice: i64,
    pub threads: u64,
    /// Bytes.
    pub vsz: u64,
    pub rss: u64,
    /// Inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [Option<CapSet>; 5],
    pub seccomp: u64,
    pub label: Option<String>,
}

const CAPABILITIES: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// The time, by both of the kernel's clocks.
#[derive(Clone, Debug)]
pub struct Machine {
    pub now: Timestamp,
    uptime_ticks: u64,
}

impl Machine {
    pub fn now() -> Result<Machine> {
        let text = std::fs::read_to_string("/proc/uptime").explain(|| "read /proc/uptime".into())?;
        let seconds: Option<f64> = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
        let seconds = seconds.ok_or_else(|| Fault::failed("/proc/uptime is not a number"))?;
        Ok(Machine { now: Timestamp::now(), uptime_ticks: (seconds * TICKS as f64) as u64 })
    }

    /// Ticks since a process began.
    pub fn elapsed(&self, process: &Process) -> u64 {
        self.uptime_ticks.saturating_sub(process.started_ticks)
    }

    pub fn started(&self, process: &Process) -> Timestamp {
        let millis = i64::try_from(self.elapsed(process)).unwrap_or(0).saturating_mul(1000 / TICKS as i64);
        self.now.checked_sub(SignedDuration::from_millis(millis)).unwrap_or(self.now)
    }
}

/// The processes with these numbers on the host, of a container whose init is `init`. One that has ended meanwhile is left out.
pub fn read(init: i32, pids: &[i32]) -> Vec<Process> {
    // As many namespaces below ours as the init's is.
    let depth = open(init)
        .and_then(|directory| text(&directory, "status"))
        .map_or(1, |status| field(&status, "NSpid").map_or(1, |pids| pids.split_whitespace().count()));
    let mut processes: Vec<Process> = pids.iter().filter_map(|pid| one(*pid, depth)).collect();
    let inside: HashMap<i32, i32> = processes.iter().map(|process| (process.host_pid, process.pid)).collect();
    for process in &mut processes {
        process.ppid = inside.get(&process.host_ppid).copied().unwrap_or(0);
    }
    processes
}

/// All of its files through one descriptor: none can be another process's that got the number.
fn open(pid: i32) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()
}

fn bytes(directory: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn text(directory: &OwnedFd, name: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&bytes(directory, name)?).into_owned())
}

fn one(pid: i32, depth: usize) -> Option<Process> {
    let directory = open(pid)?;
    let mut process = parse_stat(&text(&directory, "stat")?)?;
    process.host_pid = pid;
    parse_status(&text(&directory, "status")?, depth, &mut process);
    process.args = words(&bytes(&directory, "cmdline").unwrap_or_default());
    process.label = text(&directory, "attr/current")
        .map(|label| label.trim_end_matches(['\0', '\n']).to_owned())
        .filter(|label| !label.is_empty());
    Some(process)
}

/// `PID (COMM) STATE PPID …`: the name may have spaces and parentheses of its own.
fn parse_stat(stat: &str) -> Option<Process> {
    let (before, after) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat.get(after + 1..)?.split_whitespace().collect();
    // Numbered from 3 on, as in the manual.
    let number = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<i64>().ok());
    let unsigned = |n: usize| number(n).and_then(|number| u64::try_from(number).ok());
    Some(Process {
        comm: stat.get(before + 1..after)?.to_owned(),
        state: fields.first()?.chars().next()?,
        host_ppid: i32::try_from(number(4)?).ok()?,
        tty: terminal(number(7)?),
        cpu_ticks: unsigned(14)?.saturating_add(unsigned(15)?),
        nice: number(19)?,
        threads: unsigned(20)?,
        started_ticks: unsigned(22)?,
        vsz: unsigned(23).unwrap_or(0),
        ..Process::default()
    })
}

/// The kernel's number of a terminal as the name it has in `/dev`; `None` without one.
fn terminal(number: i64) -> Option<String> {
    let number = u32::try_from(number).ok().filter(|number| *number != 0)?;
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    Some(match major {
        // Unix98 pseudo terminals (the kernel's devices.txt).
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".to_owned(),
        _ => format!("{major}:{minor}"),
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

fn parse_status(status: &str, depth: usize, process: &mut Process) {
    // Real, effective, saved and file system's.
    let effective = |name| field(status, name).and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    process.uid = effective("Uid").unwrap_or_default();
    process.gid = effective("Gid").unwrap_or_default();
    let pids: Vec<i32> = field(status, "NSpid")
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|pid| pid.parse().ok())
        .collect();
    process.pid = depth.checked_sub(1).and_then(|level| pids.get(level)).copied().unwrap_or(0);
    process.capabilities = CAPABILITIES.map(|name| field(status, name).and_then(CapSet::from_hex));
    // `5184 kB`; a kernel's thread has none.
    let rss = field(status, "VmRSS").and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
    process.rss = rss.unwrap_or(0).saturating_mul(1024);
    process.seccomp = field(status, "Seccomp").and_then(|mode| mode.parse().ok()).unwrap_or(0);
}

fn words(cmdline: &[u8]) -> Vec<String> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Names from the container's own files, as they are now; without them the numbers have to do.
pub fn name_users(processes: &mut [Process], init: i32) {
    let files = ctr_create::running::of_process(init).unwrap_or_default();
    let mut users = HashMap::new();
    let mut groups = HashMap::new();
    for process in processes {
        let user = users.entry(process.uid).or_insert_with(|| name(process.uid, files.passwd.as_ref()));
        process.user.clone_from(user);
        let group = groups.entry(process.gid).or_insert_with(|| name(process.gid, files.group.as_ref()));
        process.group.clone_from(group);
    }
}

/// The first line with this number: passwd(5) and group(5) both have it third, after the name.
fn name(id: u32, file: Option<&String>) -> Option<String> {
    let id = id.to_string();
    file?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.trim() == id).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_make_another_process_of_it() {
        let stat = "7 (a) R 1 ) S 5 7 7 34817 7 4194560 1 0 0 0 250 50 0 0 20 5 3 0 1000 4096 2 18446744073709551615";
        let process = parse_stat(stat).unwrap();
        assert_eq!((process.comm.as_str(), process.state, process.host_ppid), ("a) R 1 ", 'S', 5));
        assert_eq!(process.tty.as_deref(), Some("pts/1"));
        assert_eq!(
            (process.cpu_ticks, process.nice, process.threads, process.started_ticks),
            (300, 5, 3, 1000)
        );
        assert_eq!(process.vsz, 4096);
        for broken in ["", "7", "7 )(", "7 (a)", "7 (a) S", "7 (a) S x 1 1 1"] {
            assert!(parse_stat(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn ids_of_the_containers_own_namespace() {
        let status = "Name:\tx\\nUid: 7\nUid:\t0\t33\t0\t0\nGid:\t0\t34\t0\t0\nNSpid:\t100\t5\t1\nVmRSS:\t    8 kB\nCapEff:\t0000000000000001\nSeccomp:\t2\n";
        let mut process = Process::default();
        parse_status(status, 2, &mut process);
        assert_eq!((process.pid, process.uid, process.gid, process.seccomp), (5, 33, 34, 2));
        assert_eq!(process.rss, 8192);
        assert!(process.capabilities[2].unwrap().has("CAP_CHOWN"));
        parse_status(status, 9, &mut process);
        assert_eq!(process.pid, 0);
    }

    #[test]
    fn names_and_words() {
        let passwd = "root:x:0:0::/:/bin/sh\nodd\n:x:5:\nwww:x:33:33::/:\n".to_owned();
        assert_eq!(name(33, Some(&passwd)).as_deref(), Some("www"));
        assert_eq!((name(5, Some(&passwd)), name(0, None)), (None, None));
        assert_eq!(words(b"sh\0-c\0\0x y\0"), ["sh", "-c", "", "x y"]);
        assert!(words(b"").is_empty());
    }
}
