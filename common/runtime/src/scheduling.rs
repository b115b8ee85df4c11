//! How a container's processes are scheduled: `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`,
//! `linux.memoryPolicy` and `linux.personality`.

use crate::bitmap;
use crate::spec::{CpuAffinity, IoPriority, Linux, MemoryPolicy, Personality, Process, Scheduler};
use fault::{Explain, Fault, Result};
use sys::scheduling::{self as kernel, SchedulingAttributes};

/// sched(7).
pub const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

pub const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

pub const IO_CLASSES: [(&str, u16); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// set_mempolicy(2).
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

pub const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// personality(2).
pub const DOMAINS: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];

/// What is to be set of all this, worked out beforehand.
#[derive(Debug, Default)]
pub struct Scheduling {
    attributes: Option<SchedulingAttributes>,
    io: Option<(u16, u16)>,
    memory: Option<(u32, Vec<usize>)>,
    domain: Option<u32>,
    initial: Vec<usize>,
    last: Vec<usize>,
}

impl Scheduling {
    pub fn of(process: &Process) -> Result<Scheduling> {
        let (initial, last) = match &process.exec_cpu_affinity {
            Some(CpuAffinity { initial, last }) => (
                cpus("process.execCPUAffinity.initial", initial)?,
                cpus("process.execCPUAffinity.final", last)?,
            ),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Scheduling {
            attributes: process.scheduler.as_ref().map(attributes).transpose()?,
            io: process.io_priority.as_ref().map(io_priority).transpose()?,
            initial,
            last,
            ..Scheduling::default()
        })
    }

    /// Adds what holds for every process of the container.
    pub fn add_container(&mut self, linux: &Linux) -> Result<()> {
        self.memory = linux.memory_policy.as_ref().map(memory_policy).transpose()?;
        self.domain = linux.personality.as_ref().map(personality).transpose()?;
        Ok(())
    }

    /// Sets all but the affinity for this process. Real-time policies take CAP_SYS_NICE.
    pub fn apply(&self) -> Result<()> {
        if let Some(attributes) = &self.attributes {
            kernel::set_attributes(attributes)
                .explain(|| format!("set the scheduler to {}", policy_name(attributes.policy)))
                .map_err(|fault| hint(fault, attributes))?;
        }
        if let Some((class, level)) = self.io {
            kernel::set_group_io_priority(class, level)
                .explain(|| format!("set the I/O priority to class {class}, level {level}"))
                .map_err(|fault| {
                    fault.hint("the class IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE")
                })?;
        }
        if let Some(domain) = self.domain {
            kernel::set_personality(domain).explain(|| format!("set the personality {domain}"))?;
        }
        if let Some((mode, nodes)) = &self.memory {
            kernel::set_memory_policy(*mode, nodes).explain(|| "set the memory policy".into()).map_err(
                |fault| {
                    fault.hint(
                        "linux.memoryPolicy: the nodes must be there, and the kernel must know the mode",
                    )
                },
            )?;
        }
        Ok(())
    }

    /// Whether `process.execCPUAffinity` says anything.
    pub fn has_affinity(&self) -> bool {
        !self.initial.is_empty() || !self.last.is_empty()
    }

    pub fn enter_initial_affinity(&self) -> Result<()> {
        enter("process.execCPUAffinity.initial", &self.initial)
    }

    pub fn enter_final_affinity(&self) -> Result<()> {
        enter("process.execCPUAffinity.final", &self.last)
    }
}

/// Lets this process run on every processor its cpuset has, so that a container does not get the affinity of whoever
/// started it. After joining the control groups. What fails leaves the affinity as it is.
pub fn reset_affinity() {
    let every = [usize::MAX; 64 * 1024 / usize::BITS as usize];
    let _ = kernel::set_affinity(&every);
}

fn enter(member: &str, mask: &[usize]) -> Result<()> {
    if mask.is_empty() {
        return Ok(());
    }
    kernel::set_affinity(mask)
        .explain(|| format!("{member}: set the CPU affinity"))
        .map_err(|fault| fault.hint("at least one of the CPUs must be in the container's cpuset"))
}

fn hint(fault: Fault, attributes: &SchedulingAttributes) -> Fault {
    const DEADLINE: u32 = 6;
    match fault.os_error() {
        // What sched_setattr(2) says under EPERM; callers know it by runc's words.
        Some(libc::EPERM) if attributes.policy == DEADLINE => fault
            .within("process scheduler can't be used together with AllowedCPUs, nor without CAP_SYS_NICE"),
        Some(libc::EPERM) => fault.hint("it needs CAP_SYS_NICE"),
        Some(libc::EINVAL) => {
            fault.hint("process.scheduler: the kernel does not know the policy or these values")
        }
        _ => fault,
    }
}

fn policy_name(number: u32) -> &'static str {
    POLICIES.iter().find(|(_, policy)| *policy == number).map_or("?", |(name, _)| name)
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn names<T>(table: &[(&str, T)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

pub fn attributes(scheduler: &Scheduler) -> Result<SchedulingAttributes> {
    let bad = |member: &str, what: String| Err(Fault::input(format!("process.scheduler.{member}: {what}")));
    let Some(policy) = find(&POLICIES, &scheduler.policy) else {
        return bad("policy", format!("{:?} is none of {}", scheduler.policy, names(&POLICIES)));
    };
    let mut flags = 0;
    for name in &scheduler.flags {
        match find(&SCHEDULER_FLAGS, name) {
            Some(flag) => flags |= flag,
            None => return bad("flags", format!("{name:?} is none of {}", names(&SCHEDULER_FLAGS))),
        }
    }
    let policy_name = scheduler.policy.as_str();
    if matches!(policy_name, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&scheduler.nice) {
        return bad("nice", format!("{} is not from -20 to 19", scheduler.nice));
    }
    if scheduler.priority != 0 && !matches!(policy_name, "SCHED_FIFO" | "SCHED_RR") {
        return bad("priority", "is only for SCHED_FIFO and SCHED_RR".to_owned());
    }
    let Ok(priority) = u32::try_from(scheduler.priority) else {
        return bad("priority", format!("{} is negative", scheduler.priority));
    };
    if policy_name != "SCHED_DEADLINE"
        && (scheduler.runtime, scheduler.deadline, scheduler.period) != (0, 0, 0)
    {
        return bad("runtime, deadline, period", "are only for SCHED_DEADLINE".to_owned());
    }
    Ok(SchedulingAttributes {
        policy,
        flags,
        nice: scheduler.nice,
        priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    })
}

/// Class and level.
pub fn io_priority(priority: &IoPriority) -> Result<(u16, u16)> {
    let Some(class) = find(&IO_CLASSES, &priority.class) else {
        return Err(Fault::input(format!(
            "process.ioPriority.class: {:?} is none of {}",
            priority.class,
            names(&IO_CLASSES)
        )));
    };
    match u16::try_from(priority.priority) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(Fault::input(format!(
            "process.ioPriority.priority: {} is not from 0 to 7",
            priority.priority
        ))),
    }
}

/// Mode with flags, and the nodes.
pub fn memory_policy(policy: &MemoryPolicy) -> Result<(u32, Vec<usize>)> {
    let bad = |member: &str, what: String| Err(Fault::input(format!("linux.memoryPolicy.{member}: {what}")));
    let Some(mode) = find(&MEMORY_MODES, &policy.mode) else {
        return bad(
            "mode",
            format!("invalid memory policy mode {:?}, not one of {}", policy.mode, names(&MEMORY_MODES)),
        );
    };
    let mut flags = 0;
    for name in &policy.flags {
        match find(&MEMORY_FLAGS, name) {
            Some(flag) => flags |= flag,
            None => {
                return bad(
                    "flags",
                    format!("invalid memory policy flag {name:?}, not one of {}", names(&MEMORY_FLAGS)),
                );
            }
        }
    }
    let nodes = match bitmap::parse(&policy.nodes) {
        Ok(nodes) => nodes,
        Err(what) => return bad("nodes", format!("invalid memory policy nodes {:?}: {what}", policy.nodes)),
    };
    match (policy.mode.as_str(), bitmap::count(&nodes)) {
        ("MPOL_DEFAULT" | "MPOL_LOCAL", count) if count > 0 => {
            bad("nodes", format!("the mode requires 0 nodes but got {count}"))
        }
        ("MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_PREFERRED_MANY" | "MPOL_WEIGHTED_INTERLEAVE", 0) => {
            bad("nodes", "the mode requires at least one node but got 0".to_owned())
        }
        _ => Ok((mode | flags, nodes)),
    }
}

/// The domain's number. No flag is known to the specification so far.
pub fn personality(personality: &Personality) -> Result<u32> {
    if let Some(flag) = personality.flags.first() {
        return Err(Fault::input(format!(
            "linux.personality.flags: {flag:?} is unknown, as the specification has none"
        )));
    }
    find(&DOMAINS, &personality.domain).ok_or_else(|| {
        Fault::input(format!(
            "linux.personality.domain: {:?} is none of {}",
            personality.domain,
            names(&DOMAINS)
        ))
    })
}

/// The bits of a list of processors; none for an empty one.
pub fn cpus(member: &str, list: &str) -> Result<Vec<usize>> {
    bitmap::parse(list).map_err(|what| Fault::input(format!("{member}: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(json: &str) -> Result<SchedulingAttributes> {
        attributes(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn schedulers_become_attributes() {
        let all = scheduler(
            r#"{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"],
                "nice":19,"runtime":42000,"deadline":100000,"period":1000000}"#,
        );
        let wanted = SchedulingAttributes {
            policy: 6,
            flags: 5,
            nice: 19,
            priority: 0,
            runtime: 42_000,
            deadline: 100_000,
            period: 1_000_000,
        };
        assert_eq!(all.unwrap(), wanted);
        for (json, member) in [
            (r"{}", "scheduler.policy"),
            (r#"{"policy":"FIFO"}"#, "scheduler.policy"),
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "scheduler.nice"),
            (r#"{"policy":"SCHED_BATCH","priority":1}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_FIFO","priority":-1}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_FIFO","period":1}"#, "period"),
            (r#"{"policy":"SCHED_FIFO","flags":["SCHED_RESET_ON_FORK"]}"#, "scheduler.flags"),
        ] {
            let fault = scheduler(json).unwrap_err();
            assert!(fault.to_string().contains(member), "{json}: {fault}");
        }
    }

    #[test]
    fn memory_policies_need_the_nodes_their_mode_wants() {
        let policy = |json: &str| memory_policy(&serde_json::from_str(json).unwrap());
        assert_eq!(
            policy(r#"{"mode":"MPOL_BIND","nodes":"0,2","flags":["MPOL_F_STATIC_NODES"]}"#).unwrap(),
            (2 | 1 << 15, vec![0b101])
        );
        assert_eq!(policy(r#"{"mode":"MPOL_PREFERRED"}"#).unwrap(), (1, vec![]));
        for (json, words) in [
            ("{}", "invalid memory policy mode"),
            (r#"{"mode":"INTERLEAVE","nodes":"0"}"#, "invalid memory policy mode"),
            (r#"{"mode":"MPOL_PREFERRED","nodes":"0","flags":["badflag"]}"#, "invalid memory policy flag"),
            (r#"{"mode":"MPOL_DEFAULT","nodes":"0-7"}"#, "mode requires 0 nodes but got 8"),
            (r#"{"mode":"MPOL_BIND"}"#, "at least one node"),
            (r#"{"mode":"MPOL_BIND","nodes":"0-9876543210"}"#, "invalid memory policy node"),
        ] {
            let fault = policy(json).unwrap_err();
            assert!(fault.to_string().contains(words), "{json}: {fault}");
        }
    }

    #[test]
    fn priorities_and_personalities() {
        let io = |class: &str, priority| io_priority(&IoPriority { class: class.into(), priority });
        assert_eq!(io("IOPRIO_CLASS_IDLE", 0).unwrap(), (3, 0));
        assert!(
            io("IOPRIO_CLASS_BE", 8).is_err() && io("IOPRIO_CLASS_BE", -1).is_err() && io("BE", 1).is_err()
        );
        let domain = |domain: &str, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            personality(&Personality { domain: domain.into(), flags })
        };
        assert_eq!(domain("LINUX32", &[]).unwrap(), 8);
        assert!(domain("BSD", &[]).is_err() && domain("LINUX", &["ADDR_NO_RANDOMIZE"]).is_err());
    }
}
